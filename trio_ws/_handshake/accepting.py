"""The server's side of the opening handshake (RFC 6455 section 4.2): from a request to a wire.

This module owns what a request for a WebSocket and its response have to look like. The request was
read and judged before, like any other; here begins what is special about this one. It is one
straight line of checking, asking and writing. The caller refuses, limits the time for asking, and
closes the stream after an error.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable
from math import inf
from types import EllipsisType

from .._connection.opening import Opening
from .._errors import ConnectionFailed
from .._http.headers import Headers, has_token
from .._http.hosts import is_same_origin
from .._http.reading import IncomingRequest, check_is_only_a_head
from .._http.values import Accept, Request, Response, refusal, upgrade_required
from .._options import SAME_ORIGIN, ServerStreamOptions
from .._protocol.deflate import Agreement
from .._protocol.events import Role
from .._protocol.masking import load_numpy
from .._protocol.negotiation import server_choice
from .._transport.opening import send_all
from .._transport.stream import Transport
from .both_sides import accept_value, make_wire

# Clients mask their frames. A server is to be ready for large ones before there is anybody to wait.
load_numpy()


async def accept_upgrade(
    transport: Transport,
    incoming: IncomingRequest,
    options: ServerStreamOptions,
    *,
    ask: Callable[[Request], Awaitable[Accept | None]] | None = None,
    deadline: float = inf,
) -> Opening:
    """Open the WebSocket that a request asks for: answer it with 101.

    Frames that the client sent without waiting for that are handed on. A refusal is not sent here,
    but raised.

    Args:
        transport: where the request came from.
        incoming: the request.
        options: the server's.
        ask: what decides about a proper request; without it, all are let in.
        deadline: when a client that reads nothing has had its time, on trio's clock.

    Raises:
        InvalidRequest: it is not what RFC 6455 demands, or not from a page that may connect.
        ConnectionRejected: `ask` said no.
        ConnectionFailed: the client left.
        HandshakeTimeout: the client did not take the 101.
    """
    request = incoming.request
    check_is_only_a_head(incoming)
    _check_upgrade(request)
    _check_origin(request, options)
    terms = None
    if ask is not None:
        terms = await ask(request)
        if transport.has_left():  # that may have taken long: the handler would serve nobody
            raise ConnectionFailed("the client hung up while it was decided whether to let it in")
    agreement = _choose_compression(request, options)
    response, subprotocol = _accepting_response(request, terms, options, agreement)
    data = incoming.exchange.switching_protocols(response.headers)
    await send_all(transport, data, deadline)
    wire = make_wire(Role.SERVER, options, agreement)
    return Opening(wire, request, response, subprotocol, incoming.rest)


def _check_upgrade(request: Request) -> None:
    """RFC 6455 section 4.2.1, in its order."""
    headers = request.headers
    for name, value in headers.fields:
        if not value.isascii() and _HANDSHAKE_FIELD.fullmatch(name):
            raise refusal(400, f"the header {name} is not ASCII")
    if request.method != "GET":
        raise refusal(405, "a WebSocket is opened with GET", Allow="GET")
    if not has_token(headers, "Upgrade", "websocket"):
        raise upgrade_required("the Upgrade header must say websocket")
    if not has_token(headers, "Connection", "upgrade"):
        raise upgrade_required("the Connection header must say Upgrade")
    if headers.get_all("Sec-WebSocket-Version") != ("13",):
        raise upgrade_required("Sec-WebSocket-Version must be 13")
    keys = headers.get_all("Sec-WebSocket-Key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise refusal(400, "there must be one Sec-WebSocket-Key, the base64 of 16 bytes")


_HANDSHAKE_FIELD = re.compile(r"host|connection|upgrade|origin|sec-websocket-.*", re.IGNORECASE)


def _is_key(text: str) -> bool:
    try:
        return len(text) == 24 and len(base64.b64decode(text, validate=True)) == 16
    except ValueError:  # neither base64 nor ASCII
        return False


def _check_origin(request: Request, options: ServerStreamOptions) -> None:
    """RFC 6455 section 10.2: which sites' pages may connect with their users' cookies."""
    origins = request.headers.get_all("Origin")
    if len(origins) > 1:
        raise refusal(400, "there is more than one Origin header")
    origin = origins[0] if origins else None
    host = request.headers["Host"]  # HTTP/1.0, which may go without, was refused
    if not any(_origin_matches(origin, host, allowed) for allowed in options.origins):
        who = "requests without an Origin" if origin is None else f"pages of {origin}"
        raise refusal(403, f"{who} may not connect to {host}: see the server's option origins=")


def _origin_matches(origin: str | None, host: str, allowed: str | re.Pattern[str] | None) -> bool:
    if allowed == "*":
        return True
    if origin is None or allowed is None:
        return origin is allowed
    if isinstance(allowed, re.Pattern):
        return allowed.fullmatch(origin) is not None
    if allowed == SAME_ORIGIN:
        return is_same_origin(origin, host)
    return origin.lower() == allowed.lower()


def _choose_compression(request: Request, options: ServerStreamOptions) -> Agreement | None:
    offers = request.headers.get("Sec-WebSocket-Extensions")
    if offers is None or options.compression is None:
        return None
    return server_choice(offers, options.compression)


def _accepting_response(
    request: Request,
    terms: Accept | None,
    options: ServerStreamOptions,
    agreement: Agreement | None,
) -> tuple[Response, str | None]:
    subprotocol: str | None
    if terms is not None and not isinstance(terms.subprotocol, EllipsisType):
        subprotocol = terms.subprotocol
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
    own = terms.headers if terms is not None else Headers()
    extra = own.with_defaults(options.response_fields)
    return Response(101, Headers._known([*fields, *extra.fields])), subprotocol
