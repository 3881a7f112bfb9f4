"""`outbox`: order, the bound, finishing a frame, and broken transports."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from math import inf
from typing import Any, cast

import pytest
import trio
import trio.testing

from tests.helpers import reset, socket_pair, tcp_pair
from trio_ws._connection.flusher import Flusher
from trio_ws._connection.outbox import (
    GATHER_FROM,
    GATHER_UP_TO,
    JOIN_UP_TO,
    LARGEST_PIECE,
    MOST_BUFFERS,
    PIECE,
    Outbox,
    post_to_all,
)
from trio_ws._transport.sockets import wrap_stream
from trio_ws._transport.stream import Buffer, Transport
from trio_ws.testing import FaultyStream

pytestmark = pytest.mark.autojump


async def make(
    stream: trio.abc.Stream, nursery: trio.Nursery, high_water: float = 100
) -> tuple[Outbox, list[Exception]]:
    broken: list[Exception] = []

    def start_task(task: Callable[[], Awaitable[None]]) -> None:
        nursery.start_soon(task)

    async def flush(outbox: Outbox) -> None:
        outbox.flush()

    def flush_soon(outbox: Outbox) -> None:
        nursery.start_soon(flush, outbox)

    transport = wrap_stream(stream)
    return Outbox(transport, high_water, start_task, flush_soon, broken.append), broken


async def test_a_socket_takes_small_frames_at_once_and_no_task_is_started() -> None:
    one, other = socket_pair()
    async with one, other, trio.open_nursery() as nursery:
        outbox, _ = await make(one, nursery)
        outbox.write(b"abc")
        outbox.write(b"def")
        assert outbox.unsent == 0
        assert not nursery.child_tasks
        assert await other.receive_some() == b"abcdef"


async def test_bytes_that_the_socket_does_not_take_follow_in_order() -> None:
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


@pytest.mark.autojump
async def test_pieces_become_larger_while_they_go_out_quickly() -> None:
    sizes = list[int]()
    seconds = [0.0, 0.0, 0.0, 1.0, 0.0, *[0.0] * 6]

    class Watched(FaultyStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            if len(sizes) == len(seconds):  # the outbox may come here before it is stopped
                await trio.sleep_forever()
            sizes.append(len(data))
            await trio.sleep(seconds[len(sizes) - 1])

    async with trio.open_nursery() as nursery:
        outbox, _ = await make(Watched(trio.testing.memory_stream_pair()[0]), nursery)
        outbox.write(bytes(20 * LARGEST_PIECE))
        await outbox.wait_for_progress()
        while len(sizes) < len(seconds):
            await outbox.wait_for_progress()
        outbox.stop()
    quick = [PIECE, 2 * PIECE, 4 * PIECE, 8 * PIECE]
    assert sizes == [*quick, *quick, LARGEST_PIECE, LARGEST_PIECE, LARGEST_PIECE]


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


@pytest.mark.parametrize("error", [None, OSError("too late")])
async def test_what_was_stopped_while_a_stream_took_it_leaves_nothing_unsent(
    error: Exception | None,
) -> None:
    class StubbornStream(FaultyStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            if error is not None:
                raise error

    async with trio.open_nursery() as nursery:
        outbox, broken = await make(StubbornStream(trio.testing.memory_stream_pair()[0]), nursery)
        outbox.write(b"x" * 1000)
        await trio.testing.wait_all_tasks_blocked()
        outbox.stop()
    assert outbox.unsent == 0
    assert not broken


# Gathering…


def arrived(stream: trio.SocketStream) -> bytes:
    """The bytes that can be read without waiting."""
    try:
        return os.read(stream.socket.fileno(), 2**20)
    except BlockingIOError:
        return b""


async def test_frames_are_gathered_while_enough_messages_wait_and_written_with_the_last() -> None:
    one, other = socket_pair()
    async with one, other, trio.open_nursery() as nursery:
        outbox, _ = await make(one, nursery)
        outbox.write(b"too few: ", following=GATHER_FROM - 1)
        assert arrived(other) == b"too few: "
        for following in range(GATHER_FROM, 0, -1):
            outbox.write(b"%d " % following, following=following)
            assert arrived(other) == b""
        assert outbox.unsent == 2 * GATHER_FROM
        assert outbox.stalled_since == inf  # nobody can be blamed for it
        outbox.write(b"0", following=0)
        assert arrived(other) == b" ".join(b"%d" % left for left in range(GATHER_FROM, -1, -1))
        assert outbox.unsent == 0


async def test_gathered_frames_are_written_as_soon_as_the_sender_waits() -> None:
    one, other = socket_pair()
    async with one, other, trio.open_nursery() as nursery:
        outbox, _ = await make(one, nursery)
        for _ in range(3):
            outbox.write(b"abc", following=100)
            outbox.write(b"def", following=100)
            assert arrived(other) == b""
            await outbox.wait_until_empty()
            assert arrived(other) == b"abcdef"
            await trio.testing.wait_all_tasks_blocked()
            assert not nursery.child_tasks


@pytest.mark.parametrize("high_water", [5000, 100_000])
async def test_no_more_is_gathered_than_has_room(high_water: int) -> None:
    one, other = socket_pair()
    frame = bytes(1000)
    async with one, other, trio.open_nursery() as nursery:
        outbox, _ = await make(one, nursery, high_water)
        for _ in range(100):
            outbox.write(frame, following=100)
            assert outbox.has_room
            assert outbox.unsent < GATHER_UP_TO
        await outbox.wait_until_empty()
        assert arrived(other) == frame * 100


async def test_a_pong_and_a_large_message_go_out_behind_what_was_gathered() -> None:
    one, other = socket_pair()
    async with one, other, trio.open_nursery() as nursery:
        outbox, _ = await make(one, nursery)
        outbox.write(b"first ", following=9)
        outbox.write_pong(b"pong ")
        assert arrived(other) == b"first pong "
        outbox.write(b"second ", following=9)
        outbox.write(b"head ", payload=[b"payload"])
        assert arrived(other) == b"second head payload"


async def test_a_transport_that_breaks_under_gathered_frames_is_reported() -> None:
    one, other = socket_pair()
    async with one, trio.open_nursery() as nursery:
        outbox, broken = await make(one, nursery)
        outbox.write(b"abc", following=9)
        await other.aclose()
        await outbox.wait_until_empty()
        assert len(broken) == 1
        assert outbox.unsent == 0
        outbox.write(b"dropped")
        assert outbox.unsent == 0
    assert len(broken) == 1


async def test_the_oldest_of_gathered_frames_is_no_sign_of_a_peer_that_stalls() -> None:
    """The clock runs from when the transport refused, and again from each byte that it took."""
    transport = Narrow()
    async with trio.open_nursery() as nursery:
        outbox = Outbox(transport, 100, nursery.start_soon, gathered, failed)
        await trio.sleep(1)
        transport.rooms = [5, 0]
        outbox.write(b"x" * 10)
        start = trio.current_time()
        assert outbox.stalled_since == start
        await trio.sleep(2)
        transport.open(0)  # writable, it was told, but it is not
        await trio.sleep(1)
        assert outbox.stalled_since == start
        transport.open(2)
        await trio.sleep(1)
        assert outbox.stalled_since == start + 3
        transport.open(3)
        await outbox.wait_until_empty()
        assert outbox.stalled_since == inf


async def test_gathered_frames_are_one_buffer_and_large_messages_are_not_copied() -> None:
    transport = Narrow()
    asked: list[Outbox] = []
    async with trio.open_nursery() as nursery:
        outbox = Outbox(transport, inf, nursery.start_soon, asked.append, failed)
        for following in range(9, -1, -1):
            outbox.write(b"abc", following=following)
        assert transport.calls == [1]
        outbox.write(b"abc", following=9)
        outbox.write(b"head", payload=[b"x" * JOIN_UP_TO])
        assert transport.calls == [1, 3]
        assert asked == [outbox, outbox]


async def test_while_the_transport_takes_no_more_it_is_not_asked_again() -> None:
    transport = Narrow()
    async with trio.open_nursery() as nursery:
        outbox = Outbox(transport, 100, nursery.start_soon, gathered, failed)
        transport.rooms = [0, 0]
        for _ in range(5):
            outbox.write(b"abc")
        await trio.testing.wait_all_tasks_blocked()
        assert transport.calls == [1]
        transport.open(100)
        await outbox.wait_until_empty()
        assert transport.calls == [1, 1]
        assert transport.taken == b"abc" * 5


async def test_no_pong_follows_what_was_the_last_frame() -> None:
    transport = Narrow()
    async with trio.open_nursery() as nursery:
        outbox = Outbox(transport, 5, nursery.start_soon, gathered, failed)
        transport.rooms = [0, 0]
        outbox.write(b"1234567890")
        outbox.write_pong(b"pong")
        outbox.write(b"close")
        outbox.seal()
        await trio.testing.wait_all_tasks_blocked()
        transport.open(100)
        await outbox.wait_until_empty()
        assert transport.taken == b"1234567890close"


async def test_whatever_a_stream_raises_breaks_the_outbox_and_nothing_else() -> None:
    class BuggyStream(FaultyStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            raise error

    for error in (KeyError("a bug"), ExceptionGroup("two", [OSError("1"), OSError("2")])):
        async with trio.open_nursery() as nursery:
            stream = BuggyStream(trio.testing.memory_stream_pair()[0])
            outbox, broken = await make(stream, nursery)
            outbox.write(b"x")
        assert broken == [error]
        assert outbox.unsent == 0


# Every way to be written in part…


def failed(exc: Exception) -> None:
    raise AssertionError(exc)


def gathered(outbox: Outbox) -> None:
    raise AssertionError(outbox)


class Narrow(Transport):
    """Takes as many bytes as it is told, without waiting, as a plain socket does."""

    is_direct = True

    def __init__(self) -> None:
        super().__init__(trio.testing.memory_stream_pair()[0])
        #: How many bytes the next calls take; after the last, everything.
        self.rooms: list[int] = []
        self.taken = b""
        self.calls: list[int] = []
        self.writable = trio.Event()

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        room = self.rooms.pop(0) if self.rooms else 2**30
        data = b"".join(buffers)[:room]
        self.taken += data
        self.calls.append(len(buffers))
        return len(data)

    async def wait_until_writable(self) -> None:
        if self.rooms:
            await self.writable.wait()
        await trio.lowlevel.checkpoint()

    def open(self, room: int) -> None:
        """Take so many bytes more."""
        self.rooms = [room, 0]
        self.writable.set()
        self.writable = trio.Event()


@pytest.mark.parametrize("seed", range(20))
async def test_frames_go_out_whole_and_in_order_wherever_writing_stops(seed: int) -> None:
    chance = random.Random(seed)
    transport = Narrow()
    expected = b""
    flusher = Flusher()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        outbox = Outbox(transport, 2000, nursery.start_soon, flusher.flush_soon, failed)
        for number in range(300):
            size = chance.choice([1, 10, 100, 5000, GATHER_UP_TO, JOIN_UP_TO + 1])
            frame = (b"%d," % number * size)[:size]
            expected += frame
            if size > 10 and chance.random() < 0.3:
                outbox.write(frame[: size // 3], payload=[frame[size // 3 :]])
            else:
                outbox.write(frame, following=chance.choice([0, 0, 1, GATHER_FROM, 50]))
            if chance.random() < 0.1:
                transport.rooms = [chance.choice([0, 1, 7, 3000, JOIN_UP_TO]) for _ in range(5)]
                transport.writable.set()
            assert outbox.unsent == len(expected) - len(transport.taken)
            if chance.random() < 0.05:
                transport.rooms = []
                transport.writable.set()
                await outbox.wait_until_empty()
                assert transport.taken == expected
        transport.rooms = []
        transport.writable.set()
        await outbox.wait_until_empty()
        nursery.cancel_scope.cancel()
    assert transport.taken == expected
    assert outbox.bytes_taken == len(expected)
    assert max(transport.calls) <= MOST_BUFFERS


async def test_a_pong_that_was_held_back_goes_out_as_soon_as_there_is_room() -> None:
    transport = Narrow()
    async with trio.open_nursery() as nursery:
        outbox = Outbox(transport, 5, nursery.start_soon, gathered, failed)
        transport.rooms = [0, 0]
        outbox.write(b"1234567890")
        outbox.write_pong(b"old")
        outbox.write_pong(b"new")
        assert outbox.bytes_taken == 10
        await trio.testing.wait_all_tasks_blocked()
        transport.open(5)
        await trio.testing.wait_all_tasks_blocked()
        assert transport.taken == b"12345"
        assert outbox.unsent == 5 + 3
        assert outbox.bytes_taken == 13
        outbox.write(b"!")
        transport.rooms = []
        transport.writable.set()
        await outbox.wait_until_empty()
    assert transport.taken == b"1234567890new!"


# To many sockets at once, past trio's streams…


async def test_a_frame_for_all_goes_out_to_each_that_can_take_it() -> None:
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        outboxes: list[Outbox] = []
        peers: list[trio.SocketStream] = []
        for _ in range(4):
            one, other = socket_pair()
            await stack.enter_async_context(one)
            peers.append(await stack.enter_async_context(other))
            outboxes.append((await make(one, nursery))[0])
        outboxes[1].hold()
        outboxes[2].seal()
        stream, _ = trio.testing.memory_stream_pair()
        outboxes.append((await make(stream, nursery))[0])
        assert post_to_all(outboxes, b"abc") == [1, 2]
        assert [outbox.messages_posted for outbox in outboxes] == [1, 0, 0, 1, 1]
        for peer in (peers[0], peers[3]):
            assert await peer.receive_some() == b"abc"
        await outboxes[4].wait_until_empty()


async def test_the_rest_of_a_frame_for_all_follows_in_order() -> None:
    one, other = socket_pair()
    async with one, other, trio.open_nursery() as nursery:
        outbox, broken = await make(one, nursery)
        big = b"x" * 5_000_000
        assert post_to_all([outbox], big) == []
        assert 0 < outbox.unsent < len(big) == outbox.bytes_taken
        # It is busy now: nothing else gets in between.
        assert post_to_all([outbox], b"not this") == [0]
        outbox.write(b"end")
        received = bytearray()
        while not received.endswith(b"end"):
            received += await other.receive_some()
        assert received == big + b"end"
        assert broken == []


async def test_a_full_socket_takes_a_frame_for_all_later() -> None:
    one, other = socket_pair()
    async with one, other, trio.open_nursery() as nursery:
        outbox, broken = await make(one, nursery)
        filled = 0
        with pytest.raises(BlockingIOError):
            while True:
                filled += os.write(one.socket.fileno(), b"x" * 4096)
        assert post_to_all([outbox], b"abc") == []
        assert outbox.unsent == 3
        received = bytearray()
        while not received.endswith(b"abc"):
            received += await other.receive_some()
        assert len(received) == filled + 3
        assert broken == []


async def test_a_peer_that_reset_the_connection_breaks_it_and_nobody_else() -> None:
    one, other = await tcp_pair()
    third, fourth = socket_pair()
    async with one, third, fourth, trio.open_nursery() as nursery:
        gone, broken = await make(one, nursery)
        there, _ = await make(third, nursery)
        reset(other)
        post_to_all([gone, there], b"abc")
        assert await fourth.receive_some() == b"abc"
        (failure,) = broken
        assert isinstance(failure, trio.BrokenResourceError)
        assert isinstance(failure.__cause__, ConnectionError)
        assert failure.__cause__.errno in (errno.ECONNRESET, errno.EPIPE)
        # Else it would keep alive all that the message was for.
        assert failure.__traceback__ is failure.__cause__.__traceback__ is None
        assert post_to_all([gone, there], b"def") == [0]
        assert len(broken) == 1


async def test_a_socket_closed_behind_our_back_gets_no_frame_for_all() -> None:
    one, other = socket_pair()
    async with other, trio.open_nursery() as nursery:
        outbox, broken = await make(one, nursery)
        one.socket.close()
        # The descriptor's number may belong to somebody else by now.
        stranger, listener = socket_pair()
        async with stranger, listener:
            post_to_all([outbox], b"abc")
            (failure,) = broken
            assert isinstance(failure, trio.ClosedResourceError)
            with trio.move_on_after(0.1) as scope:
                await listener.receive_some()
            assert scope.cancelled_caught


async def test_for_every_error_there_is_a_frame_for_all_does_what_trio_s_stream_does() -> None:
    class Failing:
        """A socket of the system's, as it is written to here."""

        def __init__(self, error: OSError) -> None:
            self.error = error

        def send(self, data: bytes) -> int:
            raise self.error

    class FailingLater(Failing):
        """A socket of trio's, as its stream sees it."""

        did_shutdown_SHUT_WR = False  # noqa: N815 - trio's name

        async def send(self, data: bytes) -> int:  # type: ignore[override]  # trio's waits
            raise self.error

    ours: dict[str, str] = {}
    theirs: dict[str, str] = {}
    async with trio.open_nursery() as nursery:
        for number, name in errno.errorcode.items():
            error = OSError(number, os.strerror(number))
            if isinstance(error, BlockingIOError):  # it waits then
                continue
            one, other = socket_pair()
            async with one, other:
                outbox, broken = await make(one, nursery)
                outbox._ready = cast("Any", Failing(error))
                post_to_all([outbox], b"abc")
                ours[name] = describe(broken[0])
                real, one.socket = one.socket, cast("Any", FailingLater(error))
                with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)) as caught:
                    await one.send_all(b"abc")
                one.socket = real
                theirs[name] = describe(caught.value)
    assert ours == theirs
    assert len(set(theirs.values())) > 100


def describe(failure: BaseException) -> str:
    cause = failure.__cause__
    return f"{type(failure).__name__} from {getattr(cause, 'errno', None)}"


async def test_no_default_timeout_makes_a_socket_wait() -> None:
    socket.setdefaulttimeout(30)
    try:
        one, other = socket_pair()
        async with one, other, trio.open_nursery() as nursery:
            outbox, broken = await make(one, nursery)
            post_to_all([outbox], b"x" * 5_000_000)
            assert outbox.unsent
            assert broken == []
            outbox.stop()
    finally:
        socket.setdefaulttimeout(None)
