"""What both sides of a handshake do: read a head, send bytes, keep a deadline, hang up politely.

This module owns how a connection that breaks in the handshake is told.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from math import inf

import trio

from .._errors import ConnectionFailed, HandshakeTimeout
from .._http.exchange import HeadBuffer
from .._options import ConnectionOptions
from .._protocol.deflate import Agreement
from .._protocol.events import Role
from .._protocol.wire import BATCH, Wire
from .._reasons import connection_failed, root_of
from .._transport.stream import Transport
from .._transport.system import GONE

#: RFC 6455 section 1.3.
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


#: How many seconds a client gets to read an HTTP response and hang up, and a server to send the
#: body of a refusal.
REFUSAL_LINGER = 1.0


def accept_value(key: str) -> str:
    """The Sec-WebSocket-Accept that proves to have read `key` (RFC 6455 section 4.2.2)."""
    digest = hashlib.sha1((key + _GUID).encode("latin-1"), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


async def respond_and_hang_up(transport: Transport, data: bytes) -> None:
    await send_all(transport, data)
    await hang_up(transport)


async def hang_up(transport: Transport) -> None:
    """Close after a response, so that the client gets to read all of it (RFC 9112 section 9.6)."""
    with trio.move_on_after(REFUSAL_LINGER):
        await transport.end()
    await transport.aclose()


@contextmanager
def opening_deadline(seconds: float) -> Generator[None, None, None]:
    """`open_timeout` around everything that an opening consists of."""
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise HandshakeTimeout(f"the opening handshake took longer than {seconds} s")


def make_wire(role: Role, options: ConnectionOptions, agreement: Agreement | None) -> Wire:
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
    except GONE as exc:
        raise broke(exc) from root_of(exc)


async def read_head(transport: Transport, buffer: HeadBuffer) -> bytes:
    while (head := buffer.take()) is None:
        try:
            data = await transport.receive()
        except GONE as exc:
            raise broke(exc) from root_of(exc)
        if not data:
            raise ConnectionFailed("the peer hung up in the handshake")
        buffer.feed(data)
    return head


async def send_all(transport: Transport, data: bytes, patience: float = inf) -> None:
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
    except GONE as exc:
        raise broke(exc) from root_of(exc)


def broke(exc: Exception) -> ConnectionFailed:
    return connection_failed("the connection broke in the handshake", exc)
