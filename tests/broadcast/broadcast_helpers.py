"""Slow readers, and reading a number of messages, for tests of broadcasts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import trio
import trio.testing

from tests.helpers import BINARY, TEXT, RawPeer, open_server_with_raw_client
from trio_ws import Broadcast, WebSocket, open_broadcast
from trio_ws.backplane import MemoryBackplane, MemoryHub
from trio_ws.testing import FaultyStream


@asynccontextmanager
async def open_slow(
    *, delay: float = 0, max_send: int | None = None, **options: Any
) -> AsyncGenerator[tuple[WebSocket, RawPeer, FaultyStream], None]:
    """A server's connection whose stream takes one message more, and then nothing until told."""
    client, server = trio.testing.memory_stream_pair()
    stream = FaultyStream(server, delay=delay, max_send=max_send)
    options = {"ping_interval": inf, "compression": None, **options}
    async with open_server_with_raw_client(streams=(client, stream), **options) as (ws, peer):
        stream.stall_sends()
        yield ws, peer, stream


async def receive(peer: RawPeer, count: int) -> list[str | bytes]:
    """The next messages."""
    received: list[str | bytes] = []
    while len(received) < count:
        frame = await peer.receive_frame()
        assert frame is not None
        first, payload = frame
        assert first & 0xF in (TEXT, BINARY)
        received.append(payload.decode() if first & 0xF == TEXT else payload)
    return received


def numbered(message: str | bytes, position: str, topic: str) -> str:
    return f"{position} {topic} {message!s}"


@asynccontextmanager
async def open_two(
    hub: MemoryHub, **options: Any
) -> AsyncGenerator[tuple[Broadcast, Broadcast], None]:
    """The broadcasts of two processes, as far as they can tell."""
    async with (
        open_broadcast(backplane=MemoryBackplane(hub), **options) as here,
        open_broadcast(backplane=MemoryBackplane(hub), **options) as there,
    ):
        yield here, there
