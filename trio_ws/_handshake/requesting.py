"""The client's side of the opening handshake (RFC 6455 section 4.1).

This module owns what a request holds, and which responses are accepted. It is one straight line,
and starts no task. The caller sets the deadline, and closes the stream after an error. Bytes that
arrive after the handshake are handed on.
"""

from __future__ import annotations

import base64
import os

from .._connection.opening import Opening
from .._errors import ConnectionFailed, InvalidResponse
from .._http.exchange import ClientExchange, HeadBuffer, HeadTooLarge, MalformedHead, SpeaksTLS
from .._http.headers import Headers, has_token
from .._http.url import WebSocketURL
from .._http.values import ConnectionRejected, Request, Response
from .._options import ClientStreamOptions
from .._protocol.deflate import Agreement
from .._protocol.events import Role
from .._protocol.negotiation import client_check, client_offer
from .._reasons import reworded
from .._redaction import masked_subprotocols
from .._transport.opening import begin_step, send_all
from .._transport.stream import Transport
from .answers import read_body, read_response
from .both_sides import accept_value, make_wire

_USE_WSS = "use wss:// instead of ws://"


async def request_connection(
    transport: Transport, url: WebSocketURL, options: ClientStreamOptions
) -> Opening:
    """Send the opening request and check the response.

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
        tls=transport.tls,
    )
    exchange = ClientExchange()
    buffer = HeadBuffer(ClientExchange.STARTS)
    begin_step("waiting for the server's answer")
    await send_all(transport, exchange.request(request.target, request.headers))
    try:
        response = await read_response(transport, exchange, buffer)
    except (MalformedHead, HeadTooLarge) as exc:
        remedy = f"; {_USE_WSS}" if isinstance(exc, SpeaksTLS) and not url.secure else ""
        raise InvalidResponse(
            f"the server's answer is not a WebSocket response: {exc}{remedy}"
        ) from None
    except ConnectionFailed as exc:
        # Many servers say nothing to a client that does not speak TLS.
        if url.secure or buffer.rest() or transport.remote_address is None:
            raise
        raise reworded(exc, f"{exc}; if the server speaks TLS, {_USE_WSS}") from exc.__cause__
    if options.cookies is not None:
        from .._http.cookies import keep_cookies  # noqa: PLC0415 - few have a jar; it loads slowly

        keep_cookies(options.cookies, url, response.headers)
    if response.status != 101:
        body = await read_body(transport, exchange, buffer.rest() or None)
        raise ConnectionRejected(
            Response(response.status, response.headers, body), url.without_query
        )

    subprotocol = _check_response(response.headers, key, options)
    wire = make_wire(Role.CLIENT, options, _agreed_compression(response.headers, options))
    return Opening(wire, request, response, subprotocol, buffer.rest())


def _request_headers(url: WebSocketURL, key: str, options: ClientStreamOptions) -> Headers:
    extra = options.extra_headers
    fields = [
        ("Host", extra.get("Host", url.host_header)),
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
    if options.user_agent is not None and "User-Agent" not in extra:
        fields.append(("User-Agent", options.user_agent))
    if url.authorization is not None and "Authorization" not in extra:
        fields.append(("Authorization", url.authorization))
    if options.cookies is not None and "Cookie" not in extra:
        from .._http.cookies import cookies_for  # noqa: PLC0415 - as above

        cookies = cookies_for(options.cookies, url)
        if cookies is not None:
            fields.append(("Cookie", cookies))
    return Headers([*fields, *(field for field in extra.fields if field[0].lower() != "host")])


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
    # Some servers always send the field, and leave it empty if they chose nothing. Two names make
    # "a, b", which was not offered either.
    chosen = ", ".join(headers.tokens("Sec-WebSocket-Protocol")) or None
    if chosen is not None and chosen not in options.subprotocols:
        shown = masked_subprotocols(chosen)
        raise InvalidResponse(f"the server chose a subprotocol that was not offered: {shown!r}")
    return chosen


def _agreed_compression(headers: Headers, options: ClientStreamOptions) -> Agreement | None:
    if not headers.tokens("Sec-WebSocket-Extensions"):  # or an empty field, as with subprotocols
        return None
    if options.compression is None:
        raise InvalidResponse("the server uses an extension that was not offered")
    try:
        return client_check(headers["Sec-WebSocket-Extensions"])
    except ValueError as exc:
        raise InvalidResponse(str(exc)) from None
