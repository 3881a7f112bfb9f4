"""`_outbox`: order, the bound, who finishes a frame, and what a broken transport leads to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

import pytest
import trio
import trio.testing

from trio_ws._outbox import PIECE, Outbox
from trio_ws._transport import wrap_stream
from trio_ws.testing import FaultyStream

from .helpers import socket_pair

pytestmark = pytest.mark.autojump


#: The outboxes that asked to be flushed.
FLUSHED: list[Outbox] = []


async def make(
    stream: trio.abc.Stream, nursery: trio.Nursery, high_water: float = 100
) -> tuple[Outbox, list[Exception]]:
    broken: list[Exception] = []

    def start_task(task: Callable[[], Awaitable[None]]) -> None:
        nursery.start_soon(task)

    transport = wrap_stream(stream)
    return Outbox(transport, high_water, start_task, FLUSHED.append, broken.append), broken


async def test_a_socket_takes_small_frames_at_once_and_no_task_is_started() -> None:
    one, other = socket_pair()
    async with one, other, trio.open_nursery() as nursery:
        outbox, _ = await make(one, nursery)
        outbox.write(b"abc")
        outbox.write(b"def")
        assert outbox.unsent == 0
        assert not nursery.child_tasks
        assert await other.receive_some() == b"abcdef"


async def test_what_the_socket_does_not_take_follows_in_order() -> None:
    one, other = socket_pair()
    async with one, other, trio.open_nursery() as nursery:
        outbox, _ = await make(one, nursery)
        big = b"x" * 5_000_000
        outbox.write(big)
        outbox.write(b"end")
        assert 0 < outbox.unsent < outbox.bytes_taken == len(big) + 3
        assert not outbox.has_room
        received = bytearray()
        while not received.endswith(b"end"):
            received += await other.receive_some()
        assert received == big + b"end"
        await outbox.wait_until_empty()
        assert outbox.has_room


async def test_progress_of_a_stream_is_seen_piece_by_piece() -> None:
    class SlowStream(FaultyStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.sleep(5)
            await super().send_all(data)

    one, other = trio.testing.memory_stream_pair()
    stream = SlowStream(one)
    async with trio.open_nursery() as nursery:
        outbox, _ = await make(stream, nursery)
        assert outbox.stalled_since == inf
        start = trio.current_time()
        outbox.write(b"x" * (PIECE + 1))
        await trio.sleep(4)
        assert outbox.stalled_since == start
        await trio.sleep(2)
        assert outbox.stalled_since == start + 5
        await outbox.wait_until_empty()
        assert outbox.stalled_since == inf
        assert stream.operations == 2
        await other.receive_some()


async def test_a_broken_transport_is_reported_once_and_later_frames_are_dropped() -> None:
    one, _ = trio.testing.memory_stream_pair()
    stream = FaultyStream(one, fail_at=1)
    async with trio.open_nursery() as nursery:
        outbox, broken = await make(stream, nursery)
        outbox.write(b"x" * 1000)
        await outbox.wait_for_room()
        outbox.write(b"dropped")
        assert outbox.unsent == 0
    assert len(broken) == 1


async def test_seal_wakes_who_waits_for_room_and_stop_who_waits_for_the_end() -> None:
    one, _ = trio.testing.memory_stream_pair()
    stream = FaultyStream(one)
    async with trio.open_nursery() as nursery:
        outbox, broken = await make(stream, nursery)
        stream.stall_sends()
        outbox.write(b"x" * 1000)
        events: list[str] = []

        async def wait_for_room() -> None:
            await outbox.wait_for_room()
            events.append("room")

        async def wait_until_empty() -> None:
            await outbox.wait_until_empty()
            events.append("empty")

        nursery.start_soon(wait_for_room)
        nursery.start_soon(wait_until_empty)
        await trio.testing.wait_all_tasks_blocked()
        outbox.seal()
        await trio.testing.wait_all_tasks_blocked()
        assert events == ["room"]
        outbox.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert events == ["room", "empty"]
    assert not broken
