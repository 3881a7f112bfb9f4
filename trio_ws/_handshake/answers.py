"""What answers a client's request, be it the server or a proxy that does.

This module owns which head is the answer, and how much of a refusal's body is read. What an answer
means is up to the caller, and so is the deadline.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from .._http.exchange import ClientExchange, HeadBuffer, MalformedHead
from .._http.values import MAX_BODY_BYTES, Response
from .._transport.opening import REFUSAL_LINGER, read_whole
from .._transport.stream import Transport
from .._transport.system import GONE


async def read_response(
    transport: Transport, exchange: ClientExchange, buffer: HeadBuffer
) -> Response:
    """The final response, still without its body.

    Raises:
        MalformedHead, HeadTooLarge: what came is no response to the request.
        ConnectionFailed: the connection broke first.
    """
    while True:
        response, version = exchange.response(await read_whole(transport, buffer))
        if response.status == 101 and not "1.1" <= version < "2":
            raise MalformedHead(f"HTTP/{version} knows no 101")
        # 100 and 103 announce the final response (RFC 9110 section 15.2); 101 is final here.
        if response.status == 101 or response.status >= 200:
            return response


async def read_body(transport: Transport, exchange: ClientExchange, data: bytes | None) -> bytes:
    """The body of a refusal, up to `MAX_BODY_BYTES`: an endless one is cut, not waited for."""
    body, complete = exchange.body(data)
    with (
        trio.move_on_after(REFUSAL_LINGER),
        suppress(*GONE),
    ):
        while not complete and len(body) < MAX_BODY_BYTES:
            piece, complete = exchange.body(await transport.receive())
            body += piece
    return body[:MAX_BODY_BYTES]
