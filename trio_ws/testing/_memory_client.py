"""Clients of an application in memory: streams, requests, cookies and redirects.

This module owns what a browser does around a WebSocket and its pages, as far as tests need it.
`_client` makes the WebSockets. All that this module knows of servers is the listener that it
connects to.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack, cast, final
from urllib.parse import urlencode

import h11
import trio
import trio.testing

from .._addresses import Address, show_address
from .._buffer import bytes_of
from .._client.client import shake_hands
from .._client.redirects import follow_redirects, location_in
from .._connection.lifetime import run_connection
from .._connection.websocket import WebSocket
from .._errors import ConnectionFailed, InvalidResponse
from .._http.cookies import cookies_for, keep_cookies
from .._http.headers import Headers, HeadersLike
from .._http.url import WebSocketURL, follow_redirect, parse_url
from .._http.values import Response
from .._json import from_json, to_json
from .._keywords import ClientStreamKeywords
from .._nursery import protected_context
from .._options import ClientOptions, ClientStreamOptions, make_options
from .._redaction import is_secret_field
from .._transport.sockets import wrap_stream

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: One end of a stream in memory. Its buffers have no limit: sending never waits for the reader.
MemoryStream: TypeAlias = trio.StapledStream[
    trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream
]

#: What `urllib.parse.urlencode` can make a query of; a list stands for several values.
Params: TypeAlias = Mapping[str, object] | Iterable[tuple[str, object]]

HOST = "localhost"

#: A whole URL, rather than a request target.
_URL = re.compile(r"(?:http|ws)(s?://.*)", re.DOTALL)

#: The fields that are left out of a request that a redirect has made a GET.
_ABOUT_BODY = {"content-type", "content-length", "transfer-encoding"}


# ---------------------------------------------------------------------------
# Streams
# ---------------------------------------------------------------------------


@final
class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener without a network, for `serve_listeners`."""

    def __init__(self) -> None:
        self._coming, self._waiting = trio.open_memory_channel[trio.abc.Stream](math.inf)

    def connect(self, *, secure: bool = False, remote_address: Address = None) -> MemoryStream:
        """The client's end of a new stream. The server's end waits until it is accepted.

        Args:
            secure: whether it is to look to the server like a stream over TLS, with the scheme
                ``wss`` or ``https``. Nothing is encrypted.
            remote_address: where it is to seem to come from.

        Raises:
            ConnectionFailed: the listener was closed.
        """
        client, server = trio.testing.memory_stream_pair()
        try:
            self._coming.send_nowait(_ServerEnd(server, remote_address, secure=secure))
        except trio.BrokenResourceError:
            raise ConnectionFailed("the server no longer listens") from None
        return client

    async def accept(self) -> trio.abc.Stream:
        """Wait for the next client."""
        return await self._waiting.receive()

    async def aclose(self) -> None:
        """Stop listening, and hang up on clients that were not accepted."""
        with suppress(trio.WouldBlock, trio.ClosedResourceError):
            while True:
                await trio.aclose_forcefully(self._waiting.receive_nowait())
        self._waiting.close()
        await trio.lowlevel.checkpoint()


@final
class _ServerEnd(trio.abc.HalfCloseableStream):
    """A memory stream that answers what `_transport` asks a socket or a TLS stream."""

    def __init__(self, stream: MemoryStream, client: Address, *, secure: bool) -> None:
        self._stream = stream
        self.stands_for_tls = secure
        self.socket = _Peer(client)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Peer:
    """What a socket knows of its other end."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def getpeername(self) -> Address:
        return self._address


# ---------------------------------------------------------------------------
# Clients
# ---------------------------------------------------------------------------


class MemoryClient:
    """A client of an application in memory, with its own address and cookies.

    Cookies that a response sets go with later requests as they do in a browser: to their host and
    path, until they expire, and the ``Secure`` ones only to ``https`` and ``wss``. The response
    that opens a WebSocket may also set them. If `headers` has a Cookie, that is sent instead.

    Whatever host and scheme a URL has, this application answers, and sees them in the request.

    Attributes:
        cookies: the cookies that are kept.
        remote_address: where it seems to come from: ``("192.0.2.1", 50000)``, for example.
    """

    def __init__(self, listener: MemoryListener, remote_address: Address = None) -> None:
        self.cookies: CookieJar = CookieJar()
        self.remote_address: Address = remote_address
        self._listener = listener

    def connect(self, *, secure: bool = False) -> MemoryStream:
        """The client's end of a new stream to the application. Nothing has been sent on it.

        Args:
            secure: whether it looks to the application like one over TLS. Nothing is encrypted.

        Raises:
            ConnectionFailed: the server has stopped.
        """
        return self._listener.connect(secure=secure, remote_address=self.remote_address)

    @protected_context
    async def websocket(
        self,
        path: str = "/",
        *,
        params: Params = (),
        max_redirects: int = 0,
        stream: trio.abc.Stream | None = None,
        **options: Unpack[ClientStreamKeywords],
    ) -> AsyncGenerator[WebSocket, None]:
        """Connect a WebSocket, as `wrap_client_stream` does, over a new stream.

        Args:
            path: the path to ask for; or a whole ``ws://`` or ``wss://`` URL, if the host or the
                scheme matters. There is no TLS, even if the application is told that there is.
            params: what to add to the query.
            max_redirects: how many redirects to follow; the option of `ClientOptions`.
            stream: a stream from `connect`, wrapped in your own: a `FaultyStream`, for example.
            options: those of `ClientStreamOptions`. With `cookies`, that jar is used instead.

        Raises:
            ConnectionRejected: the application answered with another status than 101.
            TooManyRedirects: it redirected more than `max_redirects` times.
            InvalidURL: `path` is neither a path nor a URL.
        """
        try:
            # The next line would accept more options than these.
            make_options(ClientStreamOptions, options, type(self).websocket)
            settings = ClientOptions(max_redirects=max_redirects, **options)
            if not isinstance(path, str):
                raise TypeError(f"a path is a str, not {path!r}")
            url = _with_params(f"ws://{HOST}{path}" if path.startswith("/") else path, params)
            target = parse_url(url)
            stream = stream or self.connect(secure=target.secure)
        except BaseException:
            if stream is not None:
                await trio.aclose_forcefully(stream)
            raise
        async with run_connection(await self._open(stream, target, settings)) as websocket:
            yield websocket

    async def _open(
        self, stream: trio.abc.Stream, url: WebSocketURL, options: ClientOptions
    ) -> WebSocket:
        first = [stream]  # a redirect opens a new one
        jar = self.cookies if options.cookies is None else options.cookies

        async def connect(url: WebSocketURL, options: ClientOptions) -> WebSocket:
            stream = first.pop() if first else self.connect(secure=url.secure)
            return await shake_hands(wrap_stream(stream), url, replace(options, cookies=jar))

        return await follow_redirects(url, options, connect)

    async def request(
        self,
        method: str,
        target: str,
        headers: HeadersLike = (),
        body: str | Buffer = b"",
        *,
        params: Params = (),
        json: object = ...,
        max_redirects: int = 0,
    ) -> MemoryResponse:
        """Send a plain HTTP request and read the response to its end, without a time limit.

        Host, Content-Length, Cookie, and with `json` Content-Type are added if they are not in
        `headers`.

        Args:
            method: ``"GET"``, ``"POST"``…
            target: the path, and perhaps a query, percent-encoded as they are to be sent; or a
                whole ``http://`` or ``https://`` URL, if the host or the scheme matters.
            headers: the header fields.
            body: bytes, any other buffer, or a `str` that goes out as UTF-8.
            params: what to add to the query.
            json: a value that is sent as JSON, instead of `body`.
            max_redirects: how many redirects to follow. If there is one more, it is the response.
                As in browsers, a POST becomes a GET after 301, 302 and 303.

        Raises:
            ValueError: an argument cannot be sent in a request.
            TypeError: both `body` and `json` are given, or they are of the wrong type.
            InvalidResponse: no HTTP response came, or only a part of one.
            ConnectionFailed: the server has stopped.
        """
        url, resource = _taken_apart(_with_params(target, params))
        asked = _Asked(method, url, resource, Headers(headers), _content(body))
        if json is not ...:
            if asked.content:
                raise TypeError("a request has a body or json, and not both")
            fields = _with_default(asked.headers, "Content-Type", "application/json")
            asked = replace(asked, headers=fields, content=to_json(json).encode())
        response = await self._exchange(asked)
        while max_redirects and (location := location_in(response)) is not None:
            max_redirects -= 1
            asked = asked.redirected(response.status, location)
            response = await self._exchange(asked)
        return response

    async def _exchange(self, asked: _Asked) -> MemoryResponse:
        connection = h11.Connection(h11.CLIENT)
        url = replace(asked.url, resource=asked.resource)
        data = asked.encode(connection, self._with_cookies(url, asked.headers))
        async with self.connect(secure=url.secure) as stream:
            with suppress(trio.BrokenResourceError):  # the server refused before it read it all
                await stream.send_all(data)
            response = await _response(connection, stream)
        keep_cookies(self.cookies, url, response.headers)
        return response

    async def get(
        self,
        target: str,
        headers: HeadersLike = (),
        *,
        params: Params = (),
        max_redirects: int = 0,
    ) -> MemoryResponse:
        """`request` with the method GET."""
        return await self.request(
            "GET", target, headers, params=params, max_redirects=max_redirects
        )

    async def post(
        self,
        target: str,
        headers: HeadersLike = (),
        body: str | Buffer = b"",
        *,
        params: Params = (),
        json: object = ...,
        max_redirects: int = 0,
    ) -> MemoryResponse:
        """`request` with the method POST."""
        return await self.request(
            "POST", target, headers, body, params=params, json=json, max_redirects=max_redirects
        )

    def __repr__(self) -> str:
        names = ", ".join(cookie.name for cookie in self.cookies) or "no cookies"
        return f"<MemoryClient at {show_address(self.remote_address)} with {names}>"

    def _with_cookies(self, url: WebSocketURL, headers: Headers) -> Headers:
        value = cookies_for(self.cookies, url)
        return headers if value is None else _with_default(headers, "Cookie", value)


# ---------------------------------------------------------------------------
# Plain HTTP
# ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """A request: `url` says where it goes, and `resource` what it asks for, exactly as sent."""

    method: str
    url: WebSocketURL
    resource: str
    headers: Headers
    content: bytes

    def redirected(self, status: int, location: str) -> _Asked:
        """The request that a redirect leads to (RFC 9110 section 15.4)."""
        url = follow_redirect(replace(self.url, resource=self.resource), location)
        same_origin = url.origin == self.url.origin
        method, content, left_out = self.method, self.content, {"host"}
        if (status == 303 and method != "HEAD") or (status < 303 and method == "POST"):
            method, content = "GET", b""
            left_out |= _ABOUT_BODY
        kept = [
            (name, value)
            for name, value in self.headers.fields
            if name.lower() not in left_out and (same_origin or not is_secret_field(name))
        ]
        return _Asked(method, url, url.resource, Headers(kept), content)

    def encode(self, connection: h11.Connection, headers: Headers) -> bytes:
        """The bytes of the request, with these header fields."""
        fields = list(headers.fields)
        if "Host" not in headers:
            fields.insert(0, ("Host", self.url.host_header))
        if self.content and "Content-Length" not in headers and "Transfer-Encoding" not in headers:
            fields.append(("Content-Length", str(len(self.content))))
        body: list[h11.Event] = [h11.Data(data=self.content)] if self.content else []
        try:
            head = h11.Request(method=self.method, target=self.resource, headers=fields)
            events = [head, *body, h11.EndOfMessage()]
            return b"".join(connection.send(event) or b"" for event in events)
        except h11.LocalProtocolError as exc:
            raise ValueError(f"this request cannot be sent: {exc}") from exc


def _content(body: str | Buffer) -> bytes:
    if isinstance(body, str):
        return body.encode()
    return bytes_of(body, "a body is str or a buffer, such as bytes")


def _with_params(target: str, params: Params) -> str:
    pairs = cast("Mapping[str, object]", params).items() if isinstance(params, Mapping) else params
    query = urlencode(list(pairs), doseq=True)
    return f"{target}{'&' if '?' in target else '?'}{query}" if query else target


def _taken_apart(target: str) -> tuple[WebSocketURL, str]:
    """The URL to ask, and the request target exactly as it is to be sent."""
    whole = _URL.fullmatch(target)
    if whole is None:
        return _HERE, target
    url = parse_url("ws" + whole[1])
    return url, url.resource


_HERE = parse_url(f"ws://{HOST}/")


def _with_default(headers: Headers, name: str, value: str) -> Headers:
    return headers if name in headers else Headers([*headers.fields, (name, value)])


@final
class MemoryResponse(Response):
    """What `MemoryClient.request` gives. Equal to a `Response` with the same contents."""

    @property
    def text(self) -> str:
        """The body, as UTF-8.

        Raises:
            UnicodeDecodeError: it is not UTF-8.
        """
        return self.body.decode()

    def json(self) -> Any:  # type: ignore[override]  # reads one, where `Response.json` makes one
        """The body, parsed as JSON, whatever its Content-Type.

        Raises:
            ValueError: it is not JSON; NaN and infinity are not JSON either.
        """
        try:
            return from_json(self.text)
        except ValueError as exc:
            beginning = self.body[:80]
            raise ValueError(f"the {self.status} response is not JSON: {beginning!r}") from exc


async def _response(connection: h11.Connection, stream: trio.abc.ReceiveStream) -> MemoryResponse:
    """The final response, whole. A 101 counts as final, and the rest of the stream is dropped."""
    head: h11.Response | h11.InformationalResponse | None = None
    body = b""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, (h11.Response, h11.InformationalResponse)):
                head = event
            else:  # the end of the message, or of HTTP
                assert head is not None
                fields = [
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in head.headers.raw_items()
                ]
                return MemoryResponse(head.status_code, fields, body)
    except h11.RemoteProtocolError as exc:
        raise InvalidResponse(f"the application's answer is no HTTP response: {exc}") from None
