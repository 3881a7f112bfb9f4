"""`FaultyStream`: each fault, planned and sudden, and what it leaves alone."""

from __future__ import annotations

import array
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import socket_pair
from trio_ws.testing import FaultyStream, MemoryStream

pytestmark = pytest.mark.autojump


def make(**faults: Any) -> tuple[FaultyStream, MemoryStream]:
    """A faulty stream, and the other end of what it runs over."""
    one, other = trio.testing.memory_stream_pair()
    return FaultyStream(one, **faults), other


def half_closeable(stream: FaultyStream) -> trio.abc.HalfCloseableStream:
    assert isinstance(stream, trio.abc.HalfCloseableStream)
    return stream


async def test_without_faults_it_is_the_other_stream() -> None:
    stream, other = make()
    await stream.wait_send_all_might_not_block()
    await stream.send_all(b"hello")
    assert await other.receive_some() == b"hello"
    await other.send_all(b"world")
    assert await stream.receive_some(2) == b"wo"
    assert await stream.receive_some() == b"rld"
    await half_closeable(stream).send_eof()
    assert await other.receive_some() == b""
    await stream.aclose()
    assert stream.closed
    assert (stream.operations, stream.bytes_sent, stream.bytes_received) == (4, 5, 5)


async def test_a_faulty_stream_keeps_to_trio_s_rules_for_streams() -> None:
    async def make_pair() -> tuple[FaultyStream, FaultyStream]:
        one, other = socket_pair()
        return FaultyStream(one, max_receive=4096), FaultyStream(other)

    await trio.testing.check_half_closeable_stream(make_pair, None)  # type: ignore[arg-type]


async def test_a_faulty_stream_can_be_half_closed_as_its_inner_stream_can_unless_hidden() -> None:
    inner, _ = trio.testing.memory_stream_pair()
    assert isinstance(FaultyStream(inner), trio.abc.HalfCloseableStream)
    hidden = FaultyStream(inner, half_close=False)
    assert not isinstance(hidden, trio.abc.HalfCloseableStream)
    assert not isinstance(FaultyStream(hidden), trio.abc.HalfCloseableStream)


# Small pieces, slowly…


async def test_short_reads() -> None:
    stream, other = make(max_receive=1)
    await other.send_all(b"hello")
    assert [await stream.receive_some(3) for _ in range(5)] == [b"h", b"e", b"l", b"l", b"o"]


async def test_short_writes() -> None:
    pieces: list[bytes] = []

    class Recording(FaultyStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            pieces.append(bytes(data))
            await super().send_all(data)

    inner, other = make()
    stream = FaultyStream(Recording(inner), max_send=2)
    for data in (b"hello", bytearray(b"hello"), memoryview(b"hello"), b""):
        await stream.send_all(data)
    assert pieces == [*[b"he", b"ll", b"o"] * 3, b""]
    assert await other.receive_some() == b"hello" * 3
    assert stream.operations == 4


async def test_a_send_can_be_cancelled_between_two_pieces() -> None:
    stream, other = make(max_send=1, delay=1)
    with trio.move_on_after(2.5):
        await stream.send_all(b"hello")
    assert await other.receive_some() == b"he"
    assert stream.bytes_sent == 2


async def test_every_piece_takes_the_delay() -> None:
    stream, other = make(max_send=100, max_receive=10, delay=2)
    started = trio.current_time()
    await stream.send_all(b"x" * 250)
    assert trio.current_time() == started + 6
    await other.send_all(b"x" * 20)
    await stream.receive_some()
    await stream.receive_some()
    assert trio.current_time() == started + 10
    await half_closeable(stream).send_eof()
    assert trio.current_time() == started + 12


# Stalls…


async def test_a_planned_stall_lasts_until_it_is_ended() -> None:
    stream, other = make(stall_at=2)
    await stream.send_all(b"1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, b"2")
        nursery.start_soon(stream.receive_some)
        await other.send_all(b"x")
        await trio.sleep(3600)
        assert await other.receive_some() == b"1"
        assert len(nursery.child_tasks) == 2
        stream.go_on()
    assert await other.receive_some() == b"2"


async def test_one_direction_can_stall_alone() -> None:
    stream, other = make()
    await other.send_all(b"x")
    stream.stall_sends()
    assert await stream.receive_some() == b"x"
    with trio.move_on_after(1) as scope:
        await stream.send_all(b"y")
    assert scope.cancelled_caught

    stream.go_on()
    stream.stall_receives()
    await stream.send_all(b"z")
    assert await other.receive_some() == b"z"
    with trio.move_on_after(1) as scope:
        await stream.receive_some()
    assert scope.cancelled_caught


async def test_stalling_what_is_stalled_changes_nothing() -> None:
    stream, other = make()
    async with trio.open_nursery() as nursery:
        stream.stall()
        nursery.start_soon(stream.send_all, b"1")
        nursery.start_soon(stream.receive_some)
        await other.send_all(b"x")
        await trio.testing.wait_all_tasks_blocked()
        stream.stall()
        stream.go_on()
    assert await other.receive_some() == b"1"


async def test_a_stalled_stream_is_busy_like_any_other() -> None:
    stream, _ = make()
    stream.stall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, b"1")
        nursery.start_soon(stream.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        operations: list[Callable[[], Awaitable[object]]] = [
            partial(stream.send_all, b"2"),
            stream.wait_send_all_might_not_block,
            half_closeable(stream).send_eof,
            stream.receive_some,
        ]
        for operation in operations:
            with pytest.raises(trio.BusyResourceError):
                await operation()
        nursery.cancel_scope.cancel()


# Cuts and failures…


async def raises(error: type[Exception], operation: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(error, match="injected"):
        await operation()


async def assert_cut(
    stream: FaultyStream, error: type[Exception] = trio.BrokenResourceError
) -> None:
    assert await stream.receive_some() == b""
    await stream.wait_send_all_might_not_block()
    await raises(error, partial(stream.send_all, b"x"))
    await raises(error, half_closeable(stream).send_eof)


async def assert_failed(
    stream: FaultyStream, error: type[Exception] = trio.BrokenResourceError
) -> None:
    await raises(error, stream.receive_some)
    await raises(error, stream.wait_send_all_might_not_block)
    await raises(error, partial(stream.send_all, b"x"))
    await raises(error, half_closeable(stream).send_eof)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(("fault", "check"), [("cut_at", assert_cut), ("fail_at", assert_failed)])
async def test_the_kth_operation_finds_the_fault_and_so_do_all_after_it(
    k: int, fault: str, check: Callable[[FaultyStream], Awaitable[None]]
) -> None:
    stream, other = make(**{fault: k})
    for _ in range(k - 1):
        await other.send_all(b"x")
        assert await stream.receive_some() == b"x"
    await other.send_all(b"never read")
    await check(stream)
    await check(stream)
    await stream.aclose()


@pytest.mark.parametrize("error", [OSError, ConnectionResetError, trio.ClosedResourceError])
async def test_the_error_can_be_chosen(error: type[Exception]) -> None:
    stream, _ = make(fail_at=1, error=error)
    await assert_failed(stream, error)
    stream, _ = make(cut_at=1, error=error)
    await assert_cut(stream, error)


async def test_a_cut_after_so_many_bytes_sent_may_be_within_a_message() -> None:
    stream, other = make(cut_after_sent=8)
    await stream.send_all(b"hello")
    await raises(trio.BrokenResourceError, partial(stream.send_all, b"hello"))
    await assert_cut(stream)
    await stream.aclose()
    assert await other.receive_some() == b"hellohel"
    assert await other.receive_some() == b""


async def test_a_send_that_uses_the_last_byte_succeeds() -> None:
    stream, other = make(cut_after_sent=5)
    await stream.send_all(b"hello")
    assert await other.receive_some() == b"hello"
    await assert_cut(stream)


async def test_a_cut_after_so_many_bytes_received_may_be_within_a_message() -> None:
    stream, other = make(cut_after_received=8)
    await other.send_all(b"hello")
    await other.send_all(b"hello")
    assert await stream.receive_some(5) == b"hello"
    assert await stream.receive_some() == b"hel"
    await assert_cut(stream)


@pytest.mark.parametrize("stalled", [False, True])
async def test_a_sudden_cut_reaches_what_waits(stalled: bool) -> None:
    stream, _ = make()
    stream.stall_sends()
    if stalled:
        stream.stall_receives()

    async def receive() -> None:
        assert await stream.receive_some() == b""

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(raises, trio.BrokenResourceError, partial(stream.send_all, b"x"))
        await trio.testing.wait_all_tasks_blocked()
        stream.cut()
    await assert_cut(stream)


async def test_a_sudden_failure_reaches_what_waits() -> None:
    stream, _ = make()
    stream.stall_sends()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises, trio.BrokenResourceError, stream.receive_some)
        nursery.start_soon(raises, trio.BrokenResourceError, partial(stream.send_all, b"x"))
        await trio.testing.wait_all_tasks_blocked()
        stream.fail()
    await assert_failed(stream)


async def test_sends_can_fail_alone() -> None:
    stream, other = make()
    stream.fail_sends()
    await raises(trio.BrokenResourceError, partial(stream.send_all, b"x"))
    await other.send_all(b"hello")
    assert await stream.receive_some() == b"hello"


@pytest.mark.parametrize("stalled", [False, True])
async def test_closing_reaches_what_waits(stalled: bool) -> None:
    stream, _ = make()
    if stalled:
        stream.stall()

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")


# Looking at it…


async def test_repr_tells_what_is_wrong_with_it() -> None:
    stream, _ = make()
    await stream.send_all(b"hello")
    assert repr(stream) == "<FaultyStream working, 1 operations, 5 bytes sent, 0 received>"
    stream.stall()
    stream.fail()
    stream.cut()
    await stream.aclose()
    assert repr(stream) == (
        "<FaultyStream closed, cut, sends fail, receives fail, sends stalled, receives stalled, "
        "1 operations, 5 bytes sent, 0 received>"
    )


@pytest.mark.parametrize(
    "name",
    [
        "max_send",
        "max_receive",
        "stall_at",
        "cut_at",
        "cut_after_sent",
        "cut_after_received",
        "fail_at",
    ],
)
def test_counts_are_from_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is at least 1"):
        make(**{name: 0})


def test_a_delay_is_not_negative() -> None:
    with pytest.raises(ValueError, match="delay is"):
        make(delay=-1)


async def test_a_fault_after_so_many_bytes_counts_bytes_and_not_items() -> None:
    one, other = trio.testing.memory_stream_pair()
    stream = FaultyStream(one, cut_after_sent=12, max_send=5)
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(memoryview(array.array("Q", [1, 2])))
    assert stream.bytes_sent == 12
    assert await other.receive_some() == array.array("Q", [1, 2]).tobytes()[:12]
