"""HTTP as the opening handshake needs it: values, and heads to and from bytes.

This module owns what a well-formed HTTP/1.1 head is: h11 parses and writes, and the limits are
counted here, because h11 applies its own only to heads that arrive in pieces. It does no I/O and
knows nothing of WebSocket keys, versions or extensions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from types import EllipsisType
from typing import TypeAlias, final
from urllib.parse import unquote

import h11

from ._headers import Headers, HeadersLike

#: How much of a request or response head is accepted: bytes, and header fields.
MAX_HEAD_BYTES = 16 * 1024
MAX_HEAD_FIELDS = 128

#: How much of a rejecting response's body a client keeps.
MAX_BODY_BYTES = 64 * 1024

#: ``(host, port)`` of a TCP peer, the path of a Unix socket, `None` where the stream has neither.
Address: TypeAlias = "tuple[str, int] | str | None"


def show_address(address: Address) -> str:
    """An address as people write it."""
    if isinstance(address, tuple):
        host, port = address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return address or "a peer without address"


# ---------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Request:
    """An HTTP request, as a server got it or a client sent it. Immutable.

    Attributes:
        method: ``"GET"`` for every WebSocket.
        target: the request target exactly as sent, percent-encoding and query included.
        headers: the header fields.
        scheme: ``"ws"``, or ``"wss"`` over TLS.
        remote_address: the other end of the stream. Behind a proxy that is the proxy.
    """

    method: str
    target: str
    headers: Headers
    scheme: str = "ws"
    remote_address: Address = None

    @property
    def path(self) -> str:
        """The path, percent-decoded as UTF-8. Never use it as a file name unchecked."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> str:
        """The text after the ``?``, as sent; `urllib.parse.parse_qs` takes it apart."""
        return self.target.partition("?")[2]

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """The subprotocols that the client offers, its favourite first."""
        return self.headers.tokens("Sec-WebSocket-Protocol")

    @property
    def is_upgrade(self) -> bool:
        """Whether the client asks for a WebSocket, rightly or wrongly, rather than for a page."""
        upgrade = {token.lower() for token in self.headers.tokens("Upgrade")}
        return "websocket" in upgrade or "Sec-WebSocket-Key" in self.headers


@final
@dataclass(frozen=True)
class Response:
    """An HTTP response. Immutable.

    Args:
        status: 200 to 599 for an answer of yours.
        headers: additional fields. Content-Length and Connection are written by the library.
        body: bytes, or a `str` that goes out as UTF-8. A ``Content-Type: text/plain;
            charset=utf-8`` is added to a `str` that has none.

    Raises:
        ValueError: a status or header that cannot be sent, or a body where none may be.
        TypeError: a status that is no `int`, a body that is neither `str` nor bytes-like.
    """

    status: int
    headers: Headers = field(default_factory=Headers)
    body: bytes = field(default=b"", repr=False)

    def __init__(self, status: int, headers: HeadersLike = (), body: str | bytes = b"") -> None:
        checked = Headers(headers)
        if isinstance(body, str):
            if "Content-Type" not in checked:
                checked = Headers([*checked.fields, ("Content-Type", "text/plain; charset=utf-8")])
            body = body.encode()
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"a body is str or bytes-like, not {type(body).__name__}")
        if not isinstance(status, int):
            raise TypeError(f"an HTTP status is an int, not {status!r}")
        if not 100 <= status <= 999:
            raise ValueError(f"an HTTP status has three digits, unlike {status!r}")
        if body and (status < 200 or status in (204, 304)):
            raise ValueError(f"a response with status {status} has no body (RFC 9110 section 6.4)")
        object.__setattr__(self, "status", int(status))
        object.__setattr__(self, "headers", checked)
        object.__setattr__(self, "body", bytes(body))

    @property
    def phrase(self) -> str:
        """The standard reason phrase of the status."""
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return "Unknown"


@final
@dataclass(frozen=True)
class Accept:
    """What `process_request` returns to accept a WebSocket on terms of its own.

    Args:
        subprotocol: one that the client offered, or `None` for none at all. Left out, it is chosen
            from the option `subprotocols` as ever.
        headers: fields for the 101 response, cookies for example, after those of the server.
    """

    subprotocol: str | EllipsisType | None = ...
    headers: Headers = field(default_factory=Headers)

    def __init__(
        self, subprotocol: str | EllipsisType | None = ..., headers: HeadersLike = ()
    ) -> None:
        object.__setattr__(self, "subprotocol", subprotocol)
        object.__setattr__(self, "headers", Headers(headers))


# ---------------------------------------------------------------------------
# From bytes to a head
# ---------------------------------------------------------------------------


class HeadTooLarge(Exception):
    """The head goes on after `MAX_HEAD_BYTES`, or has more than `MAX_HEAD_FIELDS` fields."""


class MalformedHead(Exception):
    """What arrives is not an HTTP/1.x head of the kind that was expected."""


# h11 ends lines at LF as well as at CRLF, so the end of the head is looked for in the same way.
_END_OF_HEAD = re.compile(rb"\n\r?\n")

# Control characters, and a CR that ends no line. h11 lets most of them pass; over those that it
# does refuse, its pattern for a header line takes half a second when they follow 16 KiB of spaces.
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")

#: How much of what a peer got wrong is quoted back to it and into the log.
_MAX_QUOTE = 120


class HeadBuffer:
    """Collects bytes until they hold a whole head; the rest is kept for whoever comes next.

    Several heads in a row, as when a response is announced by others (RFC 9110 section 15.2),
    share the limit in bytes: so a server cannot go on announcing.

    Args:
        starts: a pattern for how every head of the expected kind starts. What cannot match it any
            more is refused at once rather than when 16 KiB or 10 s are over.
    """

    def __init__(self, starts: re.Pattern[bytes]) -> None:
        self._starts = starts
        self._data = bytearray()
        self._searched = 0
        self._allowed = MAX_HEAD_BYTES

    def feed(self, data: bytes) -> None:
        self._data += data

    def take(self) -> bytes | None:
        """The head, up to and including its empty line, or `None` when more has to come.

        Raises:
            HeadTooLarge: it is over a limit, complete or not.
            MalformedHead: no head starts like this.
        """
        if self._data and not self._starts.match(self._data):
            raise MalformedHead("this is not HTTP")
        # Each byte is searched once, whatever the pieces: the last two may be half of the end.
        end = _END_OF_HEAD.search(self._data, self._searched)
        self._searched = max(0, len(self._data) - 2)
        size = end.end() if end else len(self._data)
        if size > self._allowed:
            raise HeadTooLarge(f"the head is larger than {MAX_HEAD_BYTES} bytes")
        if end is None:
            return None
        head = bytes(self._data[:size])
        del self._data[:size]
        self._allowed -= size
        self._searched = 0
        if head.count(b"\n") - 2 > MAX_HEAD_FIELDS:
            raise HeadTooLarge(f"the head has more than {MAX_HEAD_FIELDS} fields")
        return head

    def rest(self) -> bytes:
        """What came after the last head."""
        return bytes(self._data)


def _parse(connection: h11.Connection, head: bytes) -> object:
    """What h11 makes of a whole head.

    Raises:
        MalformedHead: it is not well-formed HTTP/1.x.
    """
    if _CONTROL.search(head):
        raise MalformedHead("it holds a control character")
    try:
        connection.receive_data(head)
        return connection.next_event()
    except h11.RemoteProtocolError as exc:
        raise MalformedHead(str(exc)[:_MAX_QUOTE]) from exc


def _decoded(fields: Iterable[tuple[bytes, bytes]]) -> Headers:
    """h11's fields as ours. Latin-1 keeps every octet, so that nothing can fail to decode."""
    return Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields)


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.fields]


# ---------------------------------------------------------------------------
# The server's side of one exchange
# ---------------------------------------------------------------------------


#: Where a response ends is said by the library alone: a second word on it would contradict.
_FRAMING = {"connection", "content-length", "transfer-encoding"}


class ServerExchange:
    """One request and its response: no keep-alive, no request body."""

    #: A method is a token, so a TLS greeting on a plain port is known by its first byte.
    STARTS = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]")

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._wants_body = True

    def request(self, head: bytes, *, scheme: str, remote_address: Address) -> tuple[Request, str]:
        """The request in `head`, and its HTTP version.

        Raises:
            MalformedHead: it is not well-formed HTTP/1.x.
        """
        event = _parse(self._h11, head)
        assert isinstance(event, h11.Request)  # a whole head is nothing else or an error
        request = Request(
            method=event.method.decode("ascii"),
            target=event.target.decode("latin-1"),
            headers=_decoded(event.headers.raw_items()),
            scheme=scheme,
            remote_address=remote_address,
        )
        self._wants_body = request.method != "HEAD"
        return request, event.http_version.decode("ascii")

    def switching_protocols(self, headers: Headers) -> bytes:
        """The bytes of a 101 response (RFC 6455 section 4.2.2)."""
        return self._send(
            h11.InformationalResponse(
                status_code=101, headers=_encoded(headers), reason=b"Switching Protocols"
            )
        )

    def response(self, response: Response, server: str | None) -> bytes:
        """The bytes of any other response. The connection is to be closed after it."""
        headers = response.headers
        # An Upgrade field has to be named in Connection (RFC 9110 section 7.8).
        fields = [("Connection", "close, Upgrade" if "Upgrade" in headers else "close")]
        if "Date" not in headers:
            fields.append(("Date", formatdate(usegmt=True)))
        if server is not None and "Server" not in headers:
            fields.append(("Server", server))
        if response.status not in (204, 304):
            fields.append(("Content-Length", str(len(response.body))))
        fields += [pair for pair in headers.fields if pair[0].lower() not in _FRAMING]
        data = self._send(
            h11.Response(
                status_code=response.status,
                headers=_encoded(Headers(fields)),
                reason=response.phrase.encode("ascii"),
            )
        )
        if self._wants_body:
            data += self._send(h11.Data(data=response.body))
        return data + self._send(h11.EndOfMessage())

    def _send(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""


# ---------------------------------------------------------------------------
# The client's side of one exchange
# ---------------------------------------------------------------------------


class ClientExchange:
    """One request without a body, the heads that answer it, and the body of a refusal."""

    STARTS = re.compile(rb"H(T(T(P(/|\Z)|\Z)|\Z)|\Z)")

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)

    def request(self, target: str, headers: Headers) -> bytes:
        """The bytes of the opening request."""
        head = self._h11.send(h11.Request(method="GET", target=target, headers=_encoded(headers)))
        self._h11.send(h11.EndOfMessage())
        return head or b""

    def response(self, head: bytes) -> tuple[Response, str]:
        """The response in `head`, still without its body, and its HTTP version.

        Raises:
            MalformedHead: it is no response to what was asked.
        """
        event = _parse(self._h11, head)
        assert isinstance(event, (h11.InformationalResponse, h11.Response))  # as above
        response = Response(event.status_code, _decoded(event.headers.raw_items()))
        return response, event.http_version.decode("ascii")

    def body(self, data: bytes | None) -> tuple[bytes, bool]:
        """The part of the refusal's body that `data` brings, and whether that was the last.

        ``b""`` means end of file, `None` that nothing came yet: there may be no body at all. One
        that breaks off or is malformed has simply ended.
        """
        pieces: list[bytes] = []
        try:
            if data is not None:
                self._h11.receive_data(data)
            while isinstance(event := self._h11.next_event(), h11.Data):
                pieces.append(bytes(event.data))
        except h11.RemoteProtocolError:
            return b"".join(pieces), True
        return b"".join(pieces), event is not h11.NEED_DATA
