"""Connections whose messages are read by the task that receives them, and what else must go on.

Who read shows from outside: the reader task takes no step while a receiver reads. The clock is
autojumped, so that the watchdog's milliseconds pass only where every task waits.
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
from trio_ws import ConnectionLost, WebSocket
from trio_ws._connection.watchdog import RELIEF

pytestmark = pytest.mark.autojump

#: For how many seconds no task may read.
AWAY = 2 * RELIEF + 0.001

BOTH_SIDES = pytest.mark.parametrize("side", ["server", "client"])


# ---------------------------------------------------------------------------
# Who reads, seen from outside
# ---------------------------------------------------------------------------


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
        await let_receivers_read(ws, lambda text: peer.send_frame(TEXT, text.encode()))
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


# ---------------------------------------------------------------------------
# This side ends the connection, and the peer says nothing
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["idle_timeout", "max_lifetime"])
async def test_a_receiver_learns_at_once_that_time_is_up_though_the_peer_is_silent(
    kind: str,
) -> None:
    options: Options = {kind: 30, "ping_interval": 1e6, "close_timeout": 10}
    start = trio.current_time()
    async with open_raw(**options) as (ws, _):
        async for _ in ws:
            raise AssertionError("nothing came")
        assert trio.current_time() - start == pytest.approx(30, abs=0.1)
        await ws.wait_closed()
        assert trio.current_time() - start == pytest.approx(40, abs=0.1)


async def test_a_receiver_learns_at_once_that_a_message_was_left_unfinished() -> None:
    async with open_raw() as (ws, peer), trio.open_nursery() as nursery:
        ended: list[ConnectionLost] = []

        async def receive() -> None:
            with pytest.raises(ConnectionLost, match="unfinished") as caught:
                await ws.receive()
            ended.append(caught.value)

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        with trio.move_on_after(1):
            async with ws.open_message("text") as writer:
                await writer.send("half")
                await trio.sleep_forever()
        await trio.testing.wait_all_tasks_blocked()
        assert ended
        assert trio.current_time() - start == 1
        assert await peer.receive_frame() == (TEXT, b"half")
        assert await peer.receive_close() == 1011
