"""Connected pairs, raw peers and faulty streams for the suite."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

import trio_ws
from trio_ws import WebSocket

HOST = "127.0.0.1"

#: A well-formed opening request, and one whose key a raw client can reuse.
KEY = base64.b64encode(b"0123456789abcdef").decode()
REQUEST = (
    "GET /chat HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()


@asynccontextmanager
async def open_pair(
    *,
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
) -> AsyncGenerator[tuple[WebSocket, WebSocket], None]:
    """A client and a server, open, over memory streams unless others are given."""
    client_stream, server_stream = streams or trio.testing.memory_stream_pair()
    finished = trio.Event()

    async def serve(task_status: trio.TaskStatus[WebSocket]) -> None:
        async with trio_ws.wrap_server_stream(server_stream, **(server or {})) as websocket:
            task_status.started(websocket)
            await finished.wait()

    async with trio.open_nursery() as nursery:
        started = _Started[WebSocket]()
        nursery.start_soon(serve, started)
        async with trio_ws.wrap_client_stream(
            client_stream, "ws://example.org/chat", **(client or {})
        ) as client_side:
            server_side = await started.wait()
            try:
                yield client_side, server_side
            finally:
                finished.set()


class _Started[T]:
    pass


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True
) -> bytes:
    """One frame, right or wrong, as a client (masked) or a server sends it."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    second = 0x80 if mask else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, second | len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, second | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, second | 127, len(payload))
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + xor(payload, key)


def xor(payload: bytes, key: bytes) -> bytes:
    repeated = key * (len(payload) // 4 + 1)
    number = int.from_bytes(payload, "big") ^ int.from_bytes(repeated[: len(payload)], "big")
    return number.to_bytes(len(payload), "big")


def close_frame(code: int | None, reason: str = "", *, mask: bool = True) -> bytes:
    payload = b"" if code is None else struct.pack("!H", code) + reason.encode()
    return frame(0x8, payload, mask=mask)
