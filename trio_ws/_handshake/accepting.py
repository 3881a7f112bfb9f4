"""The opening handshake, both sides (RFC 6455 section 4): from a fresh stream to an open wire.

This module owns what a WebSocket request and its response have to look like. Each side is one
straight line of reading, checking and writing, with no task of its own; the deadline, and closing
the stream after an error, are the caller's. Bytes that arrive after the handshake are handed on.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import os
import re
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from math import inf
from types import EllipsisType
from typing import overload

import trio

from .._addresses import Address
from .._connection.opening import Opening
from .._errors import (
    ConnectionFailed,
    ConnectionRejected,
    HandshakeTimeout,
    InvalidRequest,
    InvalidResponse,
)
from .._http.exchange import (
    ClientExchange,
    HeadBuffer,
    HeadTooLarge,
    MalformedHead,
    ServerExchange,
    StartLineTooLong,
)
from .._http.headers import Headers, has_token
from .._http.url import WebSocketURL
from .._http.values import MAX_BODY_BYTES, Accept, Answer, Request, Response, both, refusal
from .._log import ConnectionLogger
from .._options import (
    ClientStreamOptions,
    ConnectionOptions,
    ProcessRequest,
    ServerStreamOptions,
    check_extra_headers,
)
from .._protocol.deflate import Agreement, client_check, client_offer, server_choice
from .._protocol.events import Role
from .._protocol.wire import BATCH, Wire
from .._reasons import connection_failed, root_of
from .._transport.stream import Transport
from .._web.site import Site
from .forwarded import from_client, read_proxy_header

#: RFC 6455 section 1.3.
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: How many seconds a client gets to read an HTTP response and hang up, and a server to send the
#: body of a refusal.
REFUSAL_LINGER = 1.0


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A request for something else than a WebSocket: its head, and what came after that."""

    exchange: ServerExchange
    request: Request
    received: bytes


def accept_value(key: str) -> str:
    """The Sec-WebSocket-Accept that proves to have read `key` (RFC 6455 section 4.2.2)."""
    digest = hashlib.sha1((key + _GUID).encode("latin-1"), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


# ---------------------------------------------------------------------------
# The server's side
# ---------------------------------------------------------------------------


@overload
async def accept_connection(
    transport: Transport,
    options: ServerStreamOptions,
    logger: ConnectionLogger,
    *,
    client: Address = None,
) -> Opening: ...


@overload
async def accept_connection(
    transport: Transport,
    options: ServerStreamOptions,
    logger: ConnectionLogger,
    *,
    client: Address = None,
    site: Site | None,
    received: bytes = b"",
    deciding: Callable[[], AbstractContextManager[object]] = nullcontext,
    refusing: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Opening | PlainRequest: ...


async def accept_connection(
    transport: Transport,
    options: ServerStreamOptions,
    logger: ConnectionLogger,
    *,
    client: Address = None,
    site: Site | None = None,
    received: bytes = b"",
    deciding: Callable[[], AbstractContextManager[object]] = nullcontext,
    refusing: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Opening | PlainRequest:
    """Read one request and answer it, unless it is plain HTTP and there is a `site` for that.

    The site is also asked about WebSockets. `received` is the start of the request, where that is
    here already; `client` is the client's address, where a proxy told it before.

    All that comes before an answer is done within `deciding`, which may end it with a
    `ConnectionRejected` of its own. A refusal is sent within `refusing`, which ends when the client
    has read it or has had its time.

    Raises:
        InvalidRequest: it was malformed, and has been told so.
        ConnectionRejected: it was answered with a response other than 101.
        ConnectionFailed: the client left before the answer was out.
    """
    exchange = ServerExchange()
    buffer = HeadBuffer(ServerExchange.STARTS)
    buffer.feed(received)
    try:
        with deciding():
            request, version = await _read_request(transport, exchange, buffer, client)
            if options.trusted_proxies and options.proxy_header != "PROXY":
                request = from_client(request, options.proxy_networks, options.proxy_header)
            if not request.target.startswith("/"):
                request = _with_its_path(request)
            if request.is_upgrade:
                _check_version(version, "1.1")
                _check_no_body(request)
                _check_upgrade(request)
                _check_origin(request, options)
            elif site is not None:
                _check_framing(request, version)
                return PlainRequest(exchange, _as_http(request), buffer.rest())
            else:
                _check_version(version, "1.1")
                _check_no_body(request)
                request = _as_http(request)
            answer = await ask(request, options, logger, site)
            if isinstance(answer, Response):
                raise ConnectionRejected(answer)
            if not request.is_upgrade:
                raise _refusal_of_plain_http(request)
            if (site or options.process_request) is not None and transport.has_left():
                raise ConnectionFailed(
                    "the client hung up while it was decided whether to let it in"
                )
    except (InvalidRequest, ConnectionRejected) as exc:
        data = exchange.response(exc.response, options.server_header)
        with refusing():
            await respond_and_hang_up(transport, data)
        raise

    agreement = _choose_compression(request, options)
    response, subprotocol = _accepting_response(request, answer, options, agreement)
    await _send(transport, exchange.switching_protocols(response.headers), options.open_timeout)
    wire = _make_wire(Role.SERVER, options, agreement)
    return Opening(wire, request, response, subprotocol, buffer.rest())


async def client_behind_proxy(transport: Transport, options: ServerStreamOptions) -> Address:
    """The client's address, where a trusted proxy tells it before TLS and HTTP; else `None`.

    Raises:
        ConnectionFailed: a trusted proxy was to tell it, and did not.
    """
    if options.proxy_header != "PROXY" or transport.remote_address not in options.proxy_networks:
        return None
    return await read_proxy_header(transport.below_tls)


def unavailable(why: str) -> Response:
    """The response to a client that comes at a bad time."""
    return Response(503, {"Retry-After": "1"}, f"{why}, try again later.\n")


async def refuse_connection(transport: Transport, options: ServerStreamOptions) -> None:
    """Answer 503, whatever the request is, when there are too many connections."""
    response = unavailable("Too many connections")
    await respond_and_hang_up(transport, ServerExchange().response(response, options.server_header))


async def _read_request(
    transport: Transport, exchange: ServerExchange, buffer: HeadBuffer, client: Address
) -> tuple[Request, str]:
    """The next request, and its HTTP version."""
    try:
        head = await _read_head(transport, buffer)
        request, version = exchange.request(
            head,
            scheme=transport.scheme,
            remote_address=client or transport.remote_address,
            local_address=transport.local_address,
        )
    except StartLineTooLong as exc:  # RFC 9112 section 3
        raise refusal(414, "the request target is too long") from exc
    except HeadTooLarge as exc:
        raise refusal(431, str(exc)) from exc
    except MalformedHead as exc:
        raise refusal(400, f"malformed request: {exc}") from exc
    _check_version(version, "1.0")
    if "#" in request.target:
        raise refusal(400, "a fragment is no part of a request target")
    host = request.headers.get("Host")
    if host is not None:  # h11 has seen to it that HTTP/1.1 has one
        _check_host(host)
    return request, version


def _check_version(version: str, least: str) -> None:
    """What comes after 1.1 is spoken like it (RFC 9110 section 2.5)."""
    if not version.startswith("1.") or version < least:
        raise refusal(505, f"HTTP/1.1 is spoken here, not HTTP/{version}")


def _check_no_body(request: Request) -> None:
    length = request.headers.get("Content-Length", "0")
    if "Transfer-Encoding" in request.headers or int(length) > 0:
        raise refusal(400, "a request with a body is not accepted here")


def _check_framing(request: Request, version: str) -> None:
    """Refuse what a proxy in front may have understood in another way (RFC 9112 section 6.1)."""
    if "Transfer-Encoding" in request.headers:
        if "Content-Length" in request.headers:
            raise refusal(400, "Transfer-Encoding and Content-Length exclude each other")
        if version == "1.0":
            raise refusal(400, "HTTP/1.0 knows no Transfer-Encoding")


_ABSOLUTE = re.compile(r"(https?|wss?)://([^/?]*)(/[^?]*)?(\?.*)?", re.IGNORECASE)


def _with_its_path(request: Request) -> Request:
    """The request with the path of a target that is a whole URL (RFC 9112 section 3.2.2).

    The host in the URL replaces the Host header, whatever that says.
    """
    if request.target == "*" and request.method == "OPTIONS":
        return request
    absolute = _ABSOLUTE.fullmatch(request.target)
    if absolute is None:
        raise refusal(400, "the request target must be a path or a URL")
    scheme, host, path, query = absolute.groups("")
    _check_host(host)
    if scheme.lower() in ("https", "wss") and request.scheme == "ws":
        raise refusal(421, "what is asked for is served over TLS only")
    fields = [field for field in request.headers.fields if field[0].lower() != "host"]
    whole_server = request.method == "OPTIONS" and not path and not query
    return replace(
        request,
        target="*" if whole_server else (path or "/") + query,
        headers=Headers._known([("Host", host), *fields]),
    )


def _as_http(request: Request) -> Request:
    return replace(request, scheme="https" if request.scheme == "wss" else "http")


# A name, an IPv4 address or a bracketed IPv6 address, and perhaps a port (RFC 9110 section 7.2).
# The zone of an IPv6 address means nothing here, but some clients send it.
_HOST = re.compile(
    r"([-0-9A-Za-z_.~%!$&'()*+,;=]{1,255}|\[[0-9A-Fa-f:.]{2,45}(%[-0-9A-Za-z_.~%]{1,45})?\])"
    r"(:[0-9]{0,5})?"
)


def _check_host(host: str) -> None:
    if not _HOST.fullmatch(host):
        raise refusal(400, "the Host header is not a host and port")
    host = host.lower()
    if "xn--" in host and not all(map(_is_label, host.partition(":")[0].split("."))):
        raise refusal(400, "the Host header is not a valid internationalised name")


def _is_label(label: str) -> bool:
    """Whether a part of a host name that claims to be Punycode is (RFC 3492).

    Which characters it may stand for differs between IDNA 2003, IDNA 2008 and browsers, and is the
    registrars' to say. But what stands for none, or for itself, would fail wherever it is decoded.
    """
    if not label.startswith("xn--"):
        return True
    try:
        name = label[4:].encode("ascii").decode("punycode")
        return not name.isascii() and name.encode("punycode").decode("ascii") == label[4:]
    except UnicodeError:
        return False


def _check_upgrade(request: Request) -> None:
    """RFC 6455 section 4.2.1, in its order."""
    headers = request.headers
    for name, value in headers.fields:
        if not value.isascii() and _HANDSHAKE_FIELD.fullmatch(name):
            raise refusal(400, f"the header {name} is not ASCII")
    if request.method != "GET":
        raise refusal(405, "a WebSocket is opened with GET", Allow="GET")
    if not has_token(headers, "Upgrade", "websocket"):
        raise _upgrade_required("the Upgrade header must say websocket")
    if not has_token(headers, "Connection", "upgrade"):
        raise _upgrade_required("the Connection header must say Upgrade")
    if headers.get_all("Sec-WebSocket-Version") != ("13",):
        raise _upgrade_required("Sec-WebSocket-Version must be 13")
    keys = headers.get_all("Sec-WebSocket-Key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise refusal(400, "there must be one Sec-WebSocket-Key, the base64 of 16 bytes")


_HANDSHAKE_FIELD = re.compile(r"host|connection|upgrade|origin|sec-websocket-.*", re.IGNORECASE)


def _is_key(text: str) -> bool:
    try:
        return len(text) == 24 and len(base64.b64decode(text, validate=True)) == 16
    except ValueError:  # neither base64 nor ASCII
        return False


def _upgrade_required(problem: str) -> InvalidRequest:
    # RFC 9110 section 15.5.22 wants the Upgrade field, RFC 6455 section 4.4 the version.
    return refusal(426, problem, Upgrade="websocket", Sec_WebSocket_Version="13")


def _check_origin(request: Request, options: ServerStreamOptions) -> None:
    """RFC 6455 section 10.2: which sites' pages may connect with their users' cookies."""
    origins = request.headers.get_all("Origin")
    if len(origins) > 1:
        raise refusal(400, "there is more than one Origin header")
    if options.origins is None:
        return
    origin = origins[0] if origins else None
    if not any(_origin_matches(origin, allowed) for allowed in options.origins):
        raise refusal(403, "this origin is not allowed" if origin else "an Origin is required")


def _origin_matches(origin: str | None, allowed: str | re.Pattern[str] | None) -> bool:
    if origin is None or allowed is None:
        return origin is allowed
    if isinstance(allowed, re.Pattern):
        return allowed.fullmatch(origin) is not None
    return origin.lower() == allowed.lower()


async def ask(
    request: Request,
    options: ServerStreamOptions,
    logger: ConnectionLogger,
    site: Site | None = None,
) -> Answer:
    """What `process_request` and then the site say.

    Raises:
        ConnectionRejected: with 500, where one of them failed.
    """
    answer: Answer = None
    asked = "process_request"
    try:
        if options.process_request is not None:
            answer = await _run_process_request(options.process_request, request)
            check_answer(answer, request)
        if site is not None and not isinstance(answer, Response):
            asked = "a hook"
            further = await _run_process_request(site.admit, request)
            answer = further if isinstance(further, Response) else both(answer, further)
    except Exception as exc:
        logger.exception("%s failed for %s %s", asked, request.method, request.target)
        raise ConnectionRejected(Response(500, body="Internal server error.\n")) from exc
    return answer


@trio.lowlevel.disable_ki_protection
async def _run_process_request(process_request: ProcessRequest, request: Request) -> Answer:
    answer = process_request(request)
    if inspect.isawaitable(answer):
        answer = await answer
    return answer


def check_answer(answer: object, request: Request) -> None:
    if isinstance(answer, Accept):
        check_extra_headers(answer.headers)
        if not request.is_upgrade:
            raise ValueError("process_request accepted a request that asks for no WebSocket")
        if answer.subprotocol not in (None, ..., *request.subprotocols):
            raise ValueError(f"the client did not offer the subprotocol {answer.subprotocol!r}")
    elif isinstance(answer, Response):
        if not 200 <= answer.status <= 599:
            raise ValueError(f"a final response has a status from 200 to 599, not {answer.status}")
    elif answer is not None:
        raise TypeError(f"process_request returns None, Accept or Response, not {answer!r}")


def _refusal_of_plain_http(request: Request) -> InvalidRequest:
    if request.method not in ("GET", "HEAD"):
        return refusal(405, "this method is not allowed here", Allow="GET, HEAD")
    return _upgrade_required("this is a WebSocket server: connect with a WebSocket client")


def _choose_compression(request: Request, options: ServerStreamOptions) -> Agreement | None:
    offers = request.headers.get("Sec-WebSocket-Extensions")
    if offers is None or options.compression is None:
        return None
    return server_choice(offers, options.compression)


def _accepting_response(
    request: Request,
    answer: Accept | None,
    options: ServerStreamOptions,
    agreement: Agreement | None,
) -> tuple[Response, str | None]:
    subprotocol: str | None
    if answer is not None and not isinstance(answer.subprotocol, EllipsisType):
        subprotocol = answer.subprotocol
    else:
        offered = request.subprotocols
        subprotocol = next((name for name in options.subprotocols if name in offered), None)
    fields = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_value(request.headers["Sec-WebSocket-Key"])),
    ]
    if subprotocol is not None:
        fields.append(("Sec-WebSocket-Protocol", subprotocol))
    if agreement is not None:
        fields.append(("Sec-WebSocket-Extensions", str(agreement)))
    extra = Headers._known(
        [*options.extra_headers.fields, *(answer.headers.fields if answer is not None else ())]
    )
    if options.server_header is not None and "Server" not in extra:
        fields.append(("Server", options.server_header))
    return Response(101, Headers._known([*fields, *extra.fields])), subprotocol


async def respond_and_hang_up(transport: Transport, data: bytes) -> None:
    await _send(transport, data)
    await hang_up(transport)


async def hang_up(transport: Transport) -> None:
    """Close after a response, so that the client gets to read all of it (RFC 9112 section 9.6)."""
    with trio.move_on_after(REFUSAL_LINGER):
        await transport.end()
    await transport.aclose()


# ---------------------------------------------------------------------------
# The client's side
# ---------------------------------------------------------------------------


async def request_connection(
    transport: Transport, url: WebSocketURL, options: ClientStreamOptions
) -> Opening:
    """Send the opening request and check what answers it.

    Raises:
        ConnectionRejected: the server answered properly, but not with 101.
        InvalidResponse: it answered with something else.
        ConnectionFailed: the connection broke first.
    """
    key = base64.b64encode(os.urandom(16)).decode("ascii")
    request = Request(
        method="GET",
        target=url.resource,
        headers=_request_headers(url, key, options),
        scheme=url.scheme,
        remote_address=transport.remote_address,
        local_address=transport.local_address,
    )
    exchange = ClientExchange()
    buffer = HeadBuffer(ClientExchange.STARTS)
    await _send(transport, exchange.request(request.target, request.headers))
    try:
        response = await _read_response(transport, exchange, buffer)
    except (MalformedHead, HeadTooLarge) as exc:
        raise InvalidResponse(f"the server's answer is not a WebSocket response: {exc}") from exc
    if response.status != 101:
        body = await _read_body(transport, exchange, buffer.rest() or None)
        raise ConnectionRejected(Response(response.status, response.headers, body))

    subprotocol = _check_response(response.headers, key, options)
    wire = _make_wire(Role.CLIENT, options, _agreed_compression(response.headers, options))
    return Opening(wire, request, response, subprotocol, buffer.rest())


def _request_headers(url: WebSocketURL, key: str, options: ClientStreamOptions) -> Headers:
    fields = [
        ("Host", url.host_header),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", "13"),
    ]
    if options.subprotocols:
        fields.append(("Sec-WebSocket-Protocol", ", ".join(options.subprotocols)))
    if options.compression is not None:
        fields.append(("Sec-WebSocket-Extensions", client_offer(options.compression)))
    if options.origin is not None:
        fields.append(("Origin", options.origin))
    if options.user_agent is not None and "User-Agent" not in options.extra_headers:
        fields.append(("User-Agent", options.user_agent))
    if url.authorization is not None and "Authorization" not in options.extra_headers:
        fields.append(("Authorization", url.authorization))
    return Headers([*fields, *options.extra_headers.fields])


async def _read_response(
    transport: Transport, exchange: ClientExchange, buffer: HeadBuffer
) -> Response:
    while True:
        response, version = exchange.response(await _read_head(transport, buffer))
        if response.status == 101 and not "1.1" <= version < "2":
            raise MalformedHead(f"HTTP/{version} knows no 101")
        # 100 and 103 announce the final response (RFC 9110 section 15.2); 101 is final here.
        if response.status == 101 or response.status >= 200:
            return response


def _check_response(headers: Headers, key: str, options: ClientStreamOptions) -> str | None:
    """RFC 6455 section 4.1, the client's checks of a 101 response; gives the subprotocol."""
    if not has_token(headers, "Upgrade", "websocket"):
        raise InvalidResponse("the 101 response does not say Upgrade: websocket")
    if not has_token(headers, "Connection", "upgrade"):
        raise InvalidResponse("the 101 response does not say Connection: Upgrade")
    if headers.get_all("Sec-WebSocket-Accept") != (accept_value(key),):
        raise InvalidResponse("the 101 response has no valid Sec-WebSocket-Accept")
    if "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0":
        raise InvalidResponse("the 101 response has a body")
    # Some servers send the field in any case, and leave it empty where they chose nothing. Two
    # names read as "a, b", which was not offered either.
    chosen = ", ".join(headers.tokens("Sec-WebSocket-Protocol")) or None
    if chosen is not None and chosen not in options.subprotocols:
        raise InvalidResponse(f"the server chose a subprotocol that was not offered: {chosen!r}")
    return chosen


def _agreed_compression(headers: Headers, options: ClientStreamOptions) -> Agreement | None:
    if not headers.tokens("Sec-WebSocket-Extensions"):  # or an empty field, as with subprotocols
        return None
    if options.compression is None:
        raise InvalidResponse("the server uses an extension that was not offered")
    try:
        return client_check(headers["Sec-WebSocket-Extensions"])
    except ValueError as exc:
        raise InvalidResponse(str(exc)) from exc


async def _read_body(transport: Transport, exchange: ClientExchange, data: bytes | None) -> bytes:
    """The body of a refusal, up to `MAX_BODY_BYTES`: an endless one is cut, not waited for."""
    body, complete = exchange.body(data)
    with (
        trio.move_on_after(REFUSAL_LINGER),
        suppress(trio.BrokenResourceError, trio.ClosedResourceError),
    ):
        while not complete and len(body) < MAX_BODY_BYTES:
            piece, complete = exchange.body(await transport.receive())
            body += piece
    return body[:MAX_BODY_BYTES]


# ---------------------------------------------------------------------------
# Both sides
# ---------------------------------------------------------------------------


@contextmanager
def opening_deadline(seconds: float) -> Generator[None, None, None]:
    """`open_timeout` around everything that an opening consists of."""
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise HandshakeTimeout(f"the opening handshake took longer than {seconds} s")


def _make_wire(role: Role, options: ConnectionOptions, agreement: Agreement | None) -> Wire:
    deflate = None
    if agreement is not None:
        assert options.compression is not None
        deflate = (options.compression, agreement)
    batch = max(1, int(min(BATCH, options.max_queued_messages)))
    return Wire(
        role,
        max_message_size=options.max_message_size,
        deflate=deflate,
        batch=batch,
        decode_text=options.decode_text,
    )


def glance(transport: Transport) -> bytes:
    """What is there already: mostly all of the request, as clients send it at once.

    Raises:
        ConnectionFailed: the connection broke.
    """
    try:
        return transport.receive_nowait() or b""
    except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        raise _broke(exc) from root_of(exc)


async def _read_head(transport: Transport, buffer: HeadBuffer) -> bytes:
    while (head := buffer.take()) is None:
        try:
            data = await transport.receive()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise _broke(exc) from root_of(exc)
        if not data:
            raise ConnectionFailed("the peer hung up in the handshake")
        buffer.feed(data)
    return head


async def _send(transport: Transport, data: bytes, patience: float = inf) -> None:
    """Send all of it, which takes no waiting but from a peer that reads nothing.

    Raises:
        ConnectionFailed: the connection broke first.
        HandshakeTimeout: it took longer than `patience`.
    """
    try:
        sent = transport.send_nowait([data])
        if sent < len(data):
            with opening_deadline(patience):
                await transport.send_all(data[sent:])
    except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        raise _broke(exc) from root_of(exc)


def _broke(exc: Exception) -> ConnectionFailed:
    return connection_failed("the connection broke in the handshake", exc)
