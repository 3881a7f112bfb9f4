"""Connections whose receivers read, and how to see from outside who reads.

The reader task takes no step while a receiver reads.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import (
    TEXT,
    Options,
    RawPeer,
    open_client_with_raw_server,
    open_pair,
    open_server_with_raw_client,
    socket_pair,
    tcp_pair,
)
from trio_ws import WebSocket
from trio_ws._connection.watchdog import RELIEF

#: For how many seconds no task may read, and a little for the real clock's sake.
AWAY = 2 * RELIEF + 0.001

BOTH_SIDES = pytest.mark.parametrize("side", ["server", "client"])


class ReaderSteps(trio.abc.Instrument):
    """How many steps reader tasks began."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name.endswith(".Reader.run")


@contextmanager
def counted_reader_steps() -> Iterator[ReaderSteps]:
    steps = ReaderSteps()
    trio.lowlevel.add_instrument(steps)
    try:
        yield steps
    finally:
        trio.lowlevel.remove_instrument(steps)


async def receive_alone(ws: WebSocket) -> str | bytes:
    """`receive`, which must not need the reader task."""
    with counted_reader_steps() as steps:
        message = await ws.receive()
    assert steps.count == 0, "the reader task had a part in it"
    return message


async def receive_while(ws: WebSocket, send: Callable[[], Awaitable[object]]) -> str | bytes:
    """What `receive` gives, which waits already when `send` begins."""
    received: list[str | bytes] = []

    async def receive() -> None:
        received.append(await ws.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await send()
    return received[0]


async def let_receivers_read(ws: WebSocket, send: Callable[[str], Awaitable[object]]) -> None:
    """From here on no task reads until one receives."""
    for text in ("waited for", "another"):  # the second, in case that a receiver reads the first
        assert await receive_while(ws, partial(send, text)) == text


@asynccontextmanager
async def open_raw(
    side: str = "server", *, tcp: bool = False, **options: Any
) -> AsyncGenerator[tuple[WebSocket, RawPeer], None]:
    """Our end of a connection over a socket, which receivers read, and the raw other end."""
    streams = await tcp_pair() if tcp else socket_pair()
    opener = open_server_with_raw_client if side == "server" else open_client_with_raw_server
    async with opener(streams=streams, **options) as (ws, peer):
        await let_receivers_read(ws, send_text(peer))
        yield ws, peer


@asynccontextmanager
async def open_both(
    client: Options | None = None, server: Options | None = None
) -> AsyncGenerator[tuple[WebSocket, WebSocket], None]:
    """Client and server over a socket; receivers read at the server's end."""
    pair = open_pair(client=client, server=server, streams=socket_pair())
    async with pair as (ours, theirs):
        await let_receivers_read(theirs, ours.send)
        yield ours, theirs


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until it is so, without letting time pass."""
    for _ in range(10_000):
        if condition():
            return
        await trio.lowlevel.checkpoint()
    raise AssertionError("it never came about")


def jump(seconds: float) -> None:
    """Let time pass before any task runs."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(seconds)


async def send_pieces(peer: RawPeer, *pieces: bytes) -> None:
    """Each piece is read by itself."""
    for piece in pieces:
        await peer.send(piece)
        await trio.testing.wait_all_tasks_blocked()


def send_text(peer: RawPeer) -> Callable[[str], Awaitable[object]]:
    return lambda text: peer.send_frame(TEXT, text.encode())
