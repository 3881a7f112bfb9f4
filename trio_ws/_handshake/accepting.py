"""The server's side of the opening handshake (RFC 6455 section 4.2): from a stream to an open wire.

This module owns what a request for a WebSocket and its response have to look like. It is one
straight line of reading, checking and writing, with no task of its own; the deadline, and closing
the stream after an error, are the caller's. Bytes that arrive after the handshake are handed on.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import overload

from .._addresses import Address
from .._connection.opening import Opening
from .._errors import ConnectionFailed
from .._http.exchange import (
    HeadBuffer,
    HeadTooLarge,
    MalformedHead,
    ServerExchange,
    StartLineTooLong,
)
from .._http.forwarded import from_client
from .._http.headers import Headers, has_token
from .._http.values import Accept, ConnectionRejected, InvalidRequest, Request, Response, refusal
from .._log import ConnectionLogger
from .._options import ProcessRequest, ServerStreamOptions
from .._protocol.deflate import Agreement
from .._protocol.events import Role
from .._protocol.negotiation import server_choice
from .._transport.opening import read_whole, respond_and_hang_up, send_all
from .._transport.proxy_protocol import read_proxy_header
from .._transport.stream import Transport
from .asking import ask
from .both_sides import accept_value, make_wire


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A request for something else than a WebSocket: its head, and what came after that."""

    exchange: ServerExchange
    request: Request
    received: bytes


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
    admit: ProcessRequest | None,
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
    admit: ProcessRequest | None = None,
    received: bytes = b"",
    deciding: Callable[[], AbstractContextManager[object]] = nullcontext,
    refusing: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Opening | PlainRequest:
    """Read one request and answer it, unless it is plain HTTP and there is `admit`.

    That is a hook of whoever answers plain HTTP, and is also asked about WebSockets. `received` is
    the start of the request, where that is here already; `client` is the client's address, where a
    proxy told it before.

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
            elif admit is not None:
                _check_framing(request, version)
                return PlainRequest(exchange, _as_http(request), buffer.rest())
            else:
                _check_version(version, "1.1")
                _check_no_body(request)
                request = _as_http(request)
            answer = await ask(request, options, logger, admit)
            if isinstance(answer, Response):
                raise ConnectionRejected(answer)
            if not request.is_upgrade:
                raise _refusal_of_plain_http(request)
            if (admit or options.process_request) is not None and transport.has_left():
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
    await send_all(transport, exchange.switching_protocols(response.headers), options.open_timeout)
    wire = make_wire(Role.SERVER, options, agreement)
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
        head = await read_whole(transport, buffer)
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
