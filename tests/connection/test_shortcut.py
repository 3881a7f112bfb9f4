"""`_shortcut`: messages read by the task that waits for them, and a reader that is there in time.

A look lasts for some microseconds of real time, which may pass in vain on a busy machine. So the
tests look either for ever or just once; what came before the look is then found for certain. As the
clock is autojumped, the watchdog's milliseconds pass only where every task waits.
"""

from __future__ import annotations

import itertools
import logging
import random
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from math import inf
from typing import Any, cast

import pytest
import trio
import trio.testing
from trio_ws._connection.shortcut import FIRST_PAUSE, LONGEST_PAUSE, Shortcut

from tests.helpers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    TEXT,
    Options,
    RawPeer,
    close_frame,
    echo,
    frame,
    open_client_with_raw_server,
    open_pair,
    open_server,
    open_server_with_raw_client,
    reset,
    socket_pair,
    tcp_pair,
)
from tests.whole.test_sweeps import CancelAtStep
from trio_ws import ConnectionEnded, ConnectionLost, Deflate, State, WebSocket, open_websocket_url
from trio_ws._connection import shortcut as _shortcut
from trio_ws._connection.watchdog import RELIEF
from trio_ws._connection.websocket import LAST_ANSWERS
from trio_ws._pacing import next_checkpoint

pytestmark = pytest.mark.autojump

#: For how many seconds the reader task may be away, at the most: where a message was taken just
#: before the watchdog looks, it looks once more.
AWAY = 2 * RELIEF + 0.001

BOTH_SIDES = pytest.mark.parametrize("side", ["server", "client"])


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks go on until something comes."""
    monkeypatch.setattr(_shortcut, "LOOK_FOR", inf)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks find only what is there already."""
    monkeypatch.setattr(_shortcut, "LOOK_FOR", -inf)


PATIENT = pytest.mark.usefixtures("patient")
HASTY = pytest.mark.usefixtures("hasty")


# ---------------------------------------------------------------------------
# The short cut itself
# ---------------------------------------------------------------------------


class Reader:
    """A reader task that stands by once, and what its short cut asked the watchdog for."""

    def __init__(self) -> None:
        self.asked: list[Shortcut] = []
        self.shortcut = Shortcut(self.asked.append)
        #: What it was recalled with, and what was raised to it instead.
        self.news: list[bytes | None] = []
        self.raised: list[Exception] = []

    async def run(self) -> None:
        try:
            self.news.append(await self.shortcut.stand_by())
        except Exception as exc:
            self.raised.append(exc)


@asynccontextmanager
async def open_reader() -> AsyncGenerator[tuple[Reader, Shortcut], None]:
    async with trio.open_nursery() as nursery:
        reader = Reader()
        nursery.start_soon(reader.run)
        await trio.testing.wait_all_tasks_blocked()
        yield reader, reader.shortcut
        nursery.cancel_scope.cancel()


class Steps(trio.abc.Instrument):
    """How many steps tasks began."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


@contextmanager
def counted_steps() -> Generator[Steps, None, None]:
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    try:
        yield steps
    finally:
        trio.lowlevel.remove_instrument(steps)


def is_closed(shortcut: Shortcut) -> bool:
    return not shortcut.is_open


def gives(*results: bytes | Exception | None) -> Callable[[], bytes | None]:
    """Something to read with. It complains when it is asked too often."""
    left = list(results)

    def read() -> bytes | None:
        result = left.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return read


def test_the_first_messages_go_the_usual_way() -> None:
    shortcut = Reader().shortcut
    promising = [shortcut.is_promising() for _ in range(FIRST_PAUSE + 2)]
    assert promising == [False] * FIRST_PAUSE + [True, True]
    assert not shortcut.is_open


async def look_in_vain(shortcut: Shortcut) -> int:
    """How many messages go the usual way after it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shortcut.stand_by)
        await trio.testing.wait_all_tasks_blocked()
        assert await shortcut.look(gives(None)) is None
        assert not shortcut.is_open
    pause = 0
    while not shortcut.is_promising():
        pause += 1
    return pause


@HASTY
async def test_vain_looks_become_rare_until_one_succeeds() -> None:
    shortcut = Reader().shortcut
    assert [await look_in_vain(shortcut) for _ in range(6)] == [7, 15, 31, 63, 63, 63]
    assert LONGEST_PAUSE == 63
    shortcut.succeed()
    assert [await look_in_vain(shortcut) for _ in range(3)] == [1, 3, 7]


async def test_no_message_at_all_counts_as_a_vain_look() -> None:
    async with open_reader() as (reader, shortcut):
        shortcut.succeed()
        shortcut.fail(b"compressed")
        await trio.testing.wait_all_tasks_blocked()
        assert reader.news == [b"compressed"]
        assert [shortcut.is_promising() for _ in range(2)] == [False, True]


@HASTY
async def test_a_look_lets_other_tasks_run() -> None:
    async with open_reader() as (reader, shortcut):
        with trio.testing.assert_checkpoints():
            assert await shortcut.look(gives(b"data")) == b"data"
        assert shortcut.is_open
        assert reader.news == []


@PATIENT
async def test_a_look_goes_on_for_its_time() -> None:
    async with open_reader() as (reader, shortcut):
        assert await shortcut.look(gives(None, None, b"data")) == b"data"
        assert shortcut.is_open
        assert reader.news == []


@HASTY
async def test_after_a_vain_look_the_reader_reads() -> None:
    async with open_reader() as (reader, shortcut):
        assert await shortcut.look(gives(None)) is None
        assert not shortcut.is_open
        await trio.testing.wait_all_tasks_blocked()
        assert reader.news == [None]


@HASTY
async def test_the_end_of_file_is_something_that_came() -> None:
    async with open_reader() as (_, shortcut):
        assert await shortcut.look(gives(b"")) == b""
        assert shortcut.is_open


@PATIENT
async def test_a_cancelled_look_read_nothing_and_the_reader_reads() -> None:
    async with open_reader() as (reader, shortcut):
        with trio.CancelScope() as scope:
            scope.cancel()
            await shortcut.look(gives())
        assert scope.cancelled_caught
        assert is_closed(shortcut)
        await trio.testing.wait_all_tasks_blocked()
        assert reader.news == [None]
        # Nor does it stand in the way of the next.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shortcut.stand_by)
            await trio.testing.wait_all_tasks_blocked()
            assert shortcut.is_open
            shortcut.recall()


@PATIENT
async def test_a_look_ends_without_reading_when_the_reader_is_recalled() -> None:
    async with open_reader() as (reader, shortcut), trio.open_nursery() as nursery:

        async def recall() -> None:
            shortcut.recall(b"news")

        nursery.start_soon(recall)
        assert await shortcut.look(gives(None, None)) is None
        await trio.testing.wait_all_tasks_blocked()
        assert reader.news == [b"news"]


@PATIENT
async def test_one_task_looks_at_a_time_and_is_not_relieved() -> None:
    async with open_reader() as (reader, shortcut), trio.open_nursery() as nursery:

        async def be_another() -> None:
            assert not shortcut.is_open
            shortcut.relieve()
            came.append(b"data")

        came: list[bytes] = []
        nursery.start_soon(be_another)
        assert await shortcut.look(lambda: came[0] if came else None) == b"data"
        assert shortcut.is_open
        assert reader.news == []
        assert reader.asked == [shortcut]
        shortcut.succeed()
        assert reader.asked == [shortcut, shortcut]


@HASTY
@pytest.mark.parametrize("kind", [trio.BrokenResourceError, trio.ClosedResourceError])
async def test_what_reading_raises_of_trio_is_raised_to_the_reader(kind: type[Exception]) -> None:
    async with open_reader() as (reader, shortcut):
        broken = kind("broken")
        assert await shortcut.look(gives(broken)) is None
        assert not shortcut.is_open
        await trio.testing.wait_all_tasks_blocked()
        assert reader.raised == [broken]


@HASTY
async def test_what_else_reading_raises_comes_out_and_the_reader_reads() -> None:
    async with open_reader() as (reader, shortcut):
        with pytest.raises(MemoryError):
            await shortcut.look(gives(MemoryError()))
        assert not shortcut.is_open
        await trio.testing.wait_all_tasks_blocked()
        assert reader.news == [None]


async def test_the_reader_is_recalled_once_with_what_came_first() -> None:
    async with open_reader() as (reader, shortcut):
        shortcut.recall(b"first")
        shortcut.recall(b"second")
        shortcut.recall()
        await trio.testing.wait_all_tasks_blocked()
        assert reader.news == [b"first"]
        shortcut.recall(b"nobody stands by")


async def test_the_end_of_a_reader_that_stands_by_closes_the_short_cut() -> None:
    shortcut = Reader().shortcut
    with trio.move_on_after(1) as scope:
        await shortcut.stand_by()
    assert scope.cancelled_caught
    assert not shortcut.is_open
    shortcut.recall(b"nobody stands by")


async def test_the_watchdog_recalls_a_reader_whom_nobody_stood_in_for_lately() -> None:
    async with open_reader() as (reader, shortcut):
        assert reader.asked == [shortcut]
        shortcut.succeed()
        shortcut.succeed()
        assert reader.asked == [shortcut]  # it was asked, and has not looked yet
        shortcut.relieve()
        assert reader.asked == [shortcut, shortcut]
        assert shortcut.is_open
        shortcut.relieve()
        assert is_closed(shortcut)
        await trio.testing.wait_all_tasks_blocked()
        assert reader.news == [None]
        shortcut.relieve()
        assert reader.asked == [shortcut, shortcut]  # nothing ticks where nobody stands by
        assert [shortcut.is_promising() for _ in range(2)] == [False, True]


# ---------------------------------------------------------------------------
# Connections in the middle of a quick conversation
# ---------------------------------------------------------------------------


async def quicken(ws: WebSocket, send: Callable[[str], Awaitable[None]]) -> None:
    """Send it messages that are received at once, until its reader task stands by."""
    for number in range(200):
        await send(str(number))
        assert await ws.receive() == str(number)
        if ws._shortcut.is_open:
            while next_checkpoint() is not trio.lowlevel.checkpoint:
                pass  # from here on a hundred calls and more need not let other tasks run
            return
    raise AssertionError("the short cut never opened")


@asynccontextmanager
async def open_quick(
    side: str = "server", *, tcp: bool = False, **options: Any
) -> AsyncGenerator[tuple[WebSocket, RawPeer], None]:
    """Our end of a connection, over a socket and with an open short cut, and the raw other end."""
    streams = await tcp_pair() if tcp else socket_pair()
    opener = open_server_with_raw_client if side == "server" else open_client_with_raw_server
    async with opener(streams=streams, **options) as (ws, peer):
        await quicken(ws, lambda text: peer.send_frame(TEXT, text.encode()))
        yield ws, peer


@asynccontextmanager
async def open_quick_pair(
    client: Options | None = None, server: Options | None = None
) -> AsyncGenerator[tuple[WebSocket, WebSocket], None]:
    """Client and server over a socket; the server's short cut is open."""
    pair = open_pair(client=client, server=server, streams=socket_pair())
    async with pair as (ours, theirs):
        await quicken(theirs, ours.send)
        yield ours, theirs


def jump(seconds: float) -> None:
    """Let time pass before any task runs."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(seconds)


async def receive_shortly(ws: WebSocket) -> str | bytes:
    """`receive`, which must not need the reader task."""
    ws._shortcut._was_used = False
    message = await ws.receive()
    assert ws._shortcut._was_used, "it went the usual way"
    return message


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until it is so. Where a task looks, they are never all blocked."""
    for _ in range(1000):
        if condition():
            return
        await trio.lowlevel.checkpoint()
    raise AssertionError("it never came about")


@HASTY
@BOTH_SIDES
async def test_messages_go_the_short_way_one_by_one(side: str) -> None:
    async with open_quick(side) as (ws, peer):
        for number in range(200):
            await peer.send_frame(BINARY if number % 2 else TEXT, b"%d" % number)
            message = await (receive_shortly(ws) if number % 3 else anext(ws))
            assert message == (b"%d" % number if number % 2 else str(number))
            assert ws._shortcut.is_open
        await peer.send_close(1000)


@PATIENT
async def test_an_echo_over_tcp_goes_the_short_way_at_both_ends() -> None:
    async with open_server(echo) as server, open_websocket_url(server.urls[0]) as ws:
        for _ in range(5000):
            await ws.send("echo")
            assert await ws.receive() == "echo"
            (served,) = server.connections
            if ws._shortcut._was_used and served._shortcut._was_used:
                return
        raise AssertionError("the short cut was never taken")


@HASTY
@BOTH_SIDES
async def test_what_is_no_whole_message_is_left_to_the_reader(side: str) -> None:
    async with open_quick(side) as (ws, peer):

        async def check(message: str, *pieces: bytes) -> None:
            """Message by message, as the pieces come."""
            assert ws._shortcut.is_open
            received = await receive_while(ws, partial(send_pieces, peer, *pieces))
            assert received == message
            await quicken(ws, lambda text: peer.send_frame(TEXT, text.encode()))

        whole = frame(TEXT, b"a message", mask=peer.masks)
        await check("a message", whole)
        await check("a message", frame(PING, b"1", mask=peer.masks) + whole)
        await check("a message", frame(PONG, b"2", mask=peer.masks) + whole)
        for cut in range(1, len(whole)):
            await check("a message", whole[:cut], whole[cut:])
        begun = frame(TEXT, b"a mes", fin=False, mask=peer.masks)
        rest = frame(CONTINUATION, b"sage", mask=peer.masks)
        await check("a message", begun + rest)
        await check("a message", begun, rest)
        await check("a message", begun, frame(PING, b"3", mask=peer.masks), rest)
        await peer.send_close(1000)
        frames = await peer.receive_all_frames()
        assert frames[:3] == [(FIN | PONG, b"1"), (FIN | PONG, b"3"), frames[-1]]


async def receive_the_usual_way(ws: WebSocket, send: Callable[[], Awaitable[None]]) -> None:
    """`receive`, by a task that waits for what is sent then."""
    with suppress(trio.WouldBlock):
        ws.receive_nowait()  # has the reader task read
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ws.receive)
        await trio.testing.wait_all_tasks_blocked()
        await send()


async def test_the_reader_stands_by_where_a_few_messages_in_a_row_were_waited_for() -> None:
    async with open_server_with_raw_client(streams=socket_pair()) as (ws, peer):
        for _ in range(FIRST_PAUSE):
            await receive_the_usual_way(ws, partial(peer.send_frame, TEXT, b"quick"))
            assert not ws._shortcut.is_open
        await receive_the_usual_way(ws, partial(peer.send_frame, TEXT, b"quick"))
        assert ws._shortcut.is_open


async def test_the_reader_does_not_stand_by_for_messages_that_nobody_waited_for() -> None:
    async with open_quick() as (ws, peer):
        for _ in range(20):
            await trio.sleep(1)
            assert not ws._shortcut.is_open
            await peer.send_frame(TEXT, b"sooner or later")
        await trio.testing.wait_all_tasks_blocked()
        assert ws.statistics().queued_messages == 20


async def test_the_reader_does_not_stand_by_while_another_task_waits() -> None:
    async with open_quick() as (ws, peer), trio.open_nursery() as nursery:

        async def receive_in_pieces() -> None:
            async with ws.receive_message() as chunks:
                assert [chunk async for chunk in chunks] == ["for the other"]

        nursery.start_soon(receive_in_pieces)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ws.receive)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send_frame(TEXT, b"for one")
        await trio.testing.wait_all_tasks_blocked()
        assert not ws._shortcut.is_open
        await peer.send_frame(TEXT, b"for the other")


@HASTY
@BOTH_SIDES
@pytest.mark.parametrize("fragmented", [False, True])
async def test_the_reader_does_not_stand_by_within_a_frame_or_a_message(
    side: str, fragmented: bool
) -> None:
    async with open_quick(side) as (ws, peer):
        mask = peer.masks
        whole, begun = frame(TEXT, b"whole", mask=mask), frame(TEXT, b"more", mask=mask)
        rest = b""
        if fragmented:
            begun = frame(TEXT, b"mo", fin=False, mask=mask)
            rest = frame(CONTINUATION, b"re", mask=mask)
        for cut in range(1, len(begun + rest)):
            await quicken(ws, lambda text: peer.send_frame(TEXT, text.encode()))
            await receive_the_usual_way(ws, partial(peer.send, whole, (begun + rest)[:cut]))
            assert not ws._shortcut.is_open
            await peer.send((begun + rest)[cut:])
            assert await ws.receive() == "more"
        # Else it does.
        await quicken(ws, lambda text: peer.send_frame(TEXT, text.encode()))
        await receive_the_usual_way(ws, partial(peer.send, whole))
        assert ws._shortcut.is_open


async def send_pieces(peer: RawPeer, *pieces: bytes) -> None:
    for piece in pieces:
        await peer.send(piece)
        await trio.testing.wait_all_tasks_blocked()


async def receive_while(ws: WebSocket, send: Callable[[], Awaitable[None]]) -> str | bytes:
    """What `receive` gives that begins to look when the first of it is there."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        return await ws.receive()


@HASTY
@pytest.mark.parametrize("end", [b"half a frame", b"ping", b"close", b"violation", b"eof"])
async def test_what_is_behind_messages_in_one_read_is_dealt_with_at_once(end: bytes) -> None:
    async with open_quick() as (ws, peer):
        numbers = [frame(TEXT, b"%d" % number) for number in range(150)]
        half = frame(TEXT, b"the other half")
        ends = {
            b"half a frame": half[:9],
            b"ping": frame(PING, b"are you there?"),
            b"close": close_frame(1000),
            b"violation": frame(TEXT, b"\xff"),
            b"eof": b"",
        }
        await peer.send(*numbers, ends[end])
        if end == b"eof":
            await cast("trio.SocketStream", peer.stream).send_eof()
        start = trio.current_time()
        for number in range(150):
            assert await ws.receive() == str(number)
            if number == 0:
                assert not ws._shortcut.is_open
                assert ws.statistics().queued_messages == 63
        if end == b"half a frame":
            await peer.send(half[9:])
            assert await ws.receive() == "the other half"
            await peer.send_close(1000)
        elif end == b"ping":
            assert await peer.receive_frame() == (FIN | PONG, b"are you there?")
            await peer.send_close(1000)
        elif end == b"close":
            with pytest.raises(ConnectionEnded):
                await ws.receive()
            assert await peer.receive_close() == 1000
        elif end == b"violation":
            with pytest.raises(ConnectionLost, match="1007"):
                await ws.receive()
            assert await peer.receive_close() == 1007
        else:
            with pytest.raises(ConnectionLost, match="1006"):
                await ws.receive()
        assert trio.current_time() - start < RELIEF


@HASTY
@pytest.mark.parametrize("kind", ["close", "violation", "eof", "reset"])
async def test_an_end_that_a_look_meets_is_what_the_receiver_learns(kind: str) -> None:
    async with open_quick(tcp=True) as (ws, peer):
        stream = cast("trio.SocketStream", peer.stream)
        if kind == "close":
            await peer.send_close(4000, "bye")
        elif kind == "violation":
            await peer.send_frame(CONTINUATION)
        elif kind == "eof":
            await stream.send_eof()
        else:
            reset(stream)
        with pytest.raises(ConnectionLost) as caught:
            await ws.receive()
        reason = caught.value.reason
        assert reason.code == {"close": 4000, "violation": 1002}.get(kind, 1006)
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError) is (kind == "reset")


@HASTY
async def test_a_compressed_message_is_left_to_the_reader_and_the_window_stays_whole() -> None:
    options: Options = {"compression": Deflate(threshold=100)}
    async with open_quick_pair(options, options) as (ours, theirs):
        for size in (10, 200, 20, 300, 400, 10):
            text = "".join(random.Random(size).choices("0123456789", k=size))
            await ours.send(text)
            assert await theirs.receive() == text
            assert theirs._shortcut.is_open is (size < 100)
            await quicken(theirs, ours.send)
        assert (theirs.statistics().compression_received or 0) > 1
        await ours.aclose()


@HASTY
async def test_where_all_messages_are_compressed_the_short_cut_is_hardly_tried() -> None:
    options: Options = {"compression": Deflate(threshold=0)}
    async with open_pair(client=options, server=options, streams=socket_pair()) as (ours, theirs):
        tries = 0
        for _ in range(10 * LONGEST_PAUSE):
            await receive_the_usual_way(theirs, partial(ours.send, "x"))
            tries += theirs._shortcut.is_open
            if theirs._shortcut.is_open:
                await ours.send("y")
                assert await theirs.receive() == "y"
        assert 4 < tries < 20


@PATIENT
@BOTH_SIDES
@pytest.mark.parametrize("seed", range(5))
async def test_however_bytes_are_cut_the_messages_are_the_same(
    side: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_shortcut, "LONGEST_PAUSE", 1)  # whatever came before, it is tried again
    chance = random.Random(seed)
    async with open_quick(side, max_queued_messages=chance.choice([1, 5, 100])) as (ws, peer):
        before = ws.statistics()
        sent: list[str | bytes] = []
        frames: list[bytes] = []
        received: list[str | bytes] = []
        looks = 0

        async def receive() -> None:
            nonlocal looks
            async for message in ws:
                received.append(message)
                looks += ws._shortcut._was_used
                ws._shortcut._was_used = False

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for number in range(300):
                some: list[bytes] = []
                for more in range(chance.choice([1, 1, 1, 1, 3, 100])):
                    text = "é" * chance.choice([0, 1, 60, 70, 200]) + f"{number} {more}"
                    kind = chance.choice(["text"] * 8 + ["binary"] * 8 + ["fragments", "ping"])
                    some += in_frames(kind, text.encode(), mask=peer.masks)
                    if kind != "ping":
                        sent.append(text.encode() if kind == "binary" else text)
                data = b"".join(some)
                cut = chance.choice([0, 0, 0, len(data) // 2])
                for piece in (data[:cut], data[cut:]):
                    await peer.send(piece)
                    for _ in range(chance.randrange(4)):
                        await trio.lowlevel.checkpoint()
                if chance.randrange(3):
                    await until(lambda: len(received) == len(sent))
                frames += some
            frames.append(close_frame(1000, mask=peer.masks))
            await peer.send(frames[-1])
        assert received == sent
        assert looks > 10
        after = ws.statistics()
        assert after.messages_received - before.messages_received == len(sent)
        assert after.bytes_received - before.bytes_received == sum(map(len, frames))
        pongs = [FIN | PONG for data in frames if data[0] == FIN | PING]
        assert [first for first, _ in await peer.receive_all_frames()] == [*pongs, FIN | CLOSE]


def in_frames(kind: str, payload: bytes, *, mask: bool) -> list[bytes]:
    if kind == "fragments":
        cut = len(payload) // 2
        return [
            frame(TEXT, payload[:cut], fin=False, mask=mask),
            frame(CONTINUATION, payload[cut:], mask=mask),
        ]
    opcode = {"text": TEXT, "binary": BINARY, "ping": PING}[kind]
    return [frame(opcode, payload[-125:] if kind == "ping" else payload, mask=mask)]


# ---------------------------------------------------------------------------
# While nobody reads
# ---------------------------------------------------------------------------


@BOTH_SIDES
@pytest.mark.parametrize("used", [False, True])
async def test_a_ping_is_answered_while_the_application_is_busy(side: str, used: bool) -> None:
    async with open_quick(side) as (ws, peer):
        if used:
            await peer.send_frame(TEXT, b"one more")
            await receive_shortly(ws)
        start = trio.current_time()
        await peer.send_frame(PING, b"are you there?")
        assert await peer.receive_frame() == (FIN | PONG, b"are you there?")
        assert trio.current_time() - start <= AWAY
        assert not ws._shortcut.is_open


@pytest.mark.parametrize("kind", ["close", "violation", "eof", "reset", "closed behind our back"])
async def test_the_end_is_seen_while_the_application_is_busy(kind: str) -> None:
    client_stream, server_stream = await tcp_pair()
    streams = client_stream, server_stream
    async with open_server_with_raw_client(streams=streams) as (ws, peer):
        await quicken(ws, lambda text: peer.send_frame(TEXT, text.encode()))
        if kind == "close":
            await peer.send_close(4000, "bye")
        elif kind == "violation":
            await peer.send_frame(CONTINUATION)
            await client_stream.send_eof()
        elif kind == "eof":
            await client_stream.send_eof()
        elif kind == "reset":
            reset(client_stream)
        else:
            server_stream.socket.close()
        # Before the Close frame goes out, what came before may still be answered.
        with trio.fail_after(AWAY + (LAST_ANSWERS if kind in ("close", "violation") else 0)):
            reason = await ws.wait_closed()
        assert reason.code == {"close": 4000, "violation": 1002}.get(kind, 1006)


async def test_a_quick_conversation_that_pauses_causes_no_wake_ups() -> None:
    async with open_quick(ping_interval=inf) as (ws, peer):
        for _ in range(10):
            await peer.send_frame(TEXT, b"one more")
            await ws.receive()
        await trio.sleep(AWAY)

        with counted_steps() as steps:
            await trio.sleep(1000)
        assert steps.count == 1  # this task's
        await peer.send_close(1000)


async def test_polling_has_somebody_read() -> None:
    async with open_quick() as (ws, peer):
        start = trio.current_time()
        await peer.send_frame(TEXT, b"polled for")
        with pytest.raises(trio.WouldBlock):
            ws.receive_nowait()
        await trio.testing.wait_all_tasks_blocked()
        assert ws.receive_nowait() == "polled for"
        assert trio.current_time() - start < RELIEF


async def test_a_message_is_read_in_pieces_as_they_come() -> None:
    async with open_quick() as (ws, peer):
        start = trio.current_time()
        await peer.send_frame(TEXT, b"a", fin=False)
        async with ws.receive_message() as chunks:
            assert await anext(chunks) == "a"
            await peer.send_frame(CONTINUATION, b"b")
            assert "".join([str(chunk) async for chunk in chunks]) == "b"
        assert trio.current_time() - start < RELIEF
        # Then they are quick again, also where nothing came of it.
        await quicken(ws, lambda text: peer.send_frame(TEXT, text.encode()))
        with trio.move_on_after(1):
            async with ws.receive_message():
                raise AssertionError("there is none")
        await quicken(ws, lambda text: peer.send_frame(TEXT, text.encode()))


@HASTY
async def test_ping_measures_its_round_trip_and_not_how_busy_a_receiver_is() -> None:
    async with open_quick() as (ws, peer), trio.open_nursery() as nursery:
        times: list[float] = []

        async def ping() -> None:
            times.append(await ws.ping(b"how far?"))

        nursery.start_soon(ping)
        assert await peer.receive_frame() == (FIN | PING, b"how far?")
        # Messages keep coming the usual way, all of them waited for.
        for _ in range(10):
            async with trio.open_nursery() as receiving:
                receiving.start_soon(ws.receive)
                await trio.testing.wait_all_tasks_blocked()
                await peer.send_frame(TEXT, b"meanwhile")
            assert not ws._shortcut.is_open
        await peer.send_frame(PONG, b"how far?")
        await trio.testing.wait_all_tasks_blocked()
        assert times == [pytest.approx(0, abs=RELIEF / 2)]
        await peer.send_close(1000)


@HASTY
async def test_a_ping_recalls_the_reader_though_nobody_receives() -> None:
    async with open_quick() as (ws, peer), trio.open_nursery() as nursery:

        async def answer() -> None:
            _, payload = await peer.receive_frame() or (0, b"")
            await peer.send_frame(PONG, payload)

        nursery.start_soon(answer)
        assert await ws.ping() < RELIEF / 2


@HASTY
async def test_a_message_is_a_sign_of_life_whoever_reads_it() -> None:
    async with open_quick(ping_interval=10, ping_timeout=10, idle_timeout=12) as (ws, peer):
        opened = trio.current_time()
        await peer.send_frame(TEXT, b"still here")
        jump(9)
        await receive_shortly(ws)
        first, _ = await peer.receive_frame() or (0, b"")
        assert first == FIN | PING
        assert trio.current_time() - opened == pytest.approx(19, abs=0.1)
        assert await peer.receive_close() == 1000
        assert trio.current_time() - opened == pytest.approx(21, abs=0.1)


async def test_every_event_is_logged_where_a_logger_wants_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws")
    async with open_server_with_raw_client(streams=socket_pair()) as (ws, peer):
        for number in range(20):
            await peer.send_frame(TEXT, b"number %d" % number)
            await ws.receive()
            assert not ws._shortcut.is_open
        await peer.send_close(1000)
    logged = [r.getMessage() for r in caplog.records if "received text" in r.getMessage()]
    assert len(logged) == 20


@pytest.mark.parametrize("ours", ["memory", "halved"])
async def test_streams_that_cannot_be_read_at_once_keep_their_reader(ours: str) -> None:
    streams: Any = trio.testing.memory_stream_pair()
    if ours == "halved":
        one, other = socket_pair()
        streams = one, trio.StapledStream(other, other)
    async with open_server_with_raw_client(streams=streams) as (ws, peer):
        for _ in range(20):
            await peer.send_frame(TEXT, b"quick")
            await ws.receive()
            assert not ws._shortcut.is_open


# ---------------------------------------------------------------------------
# Bounds
# ---------------------------------------------------------------------------


@HASTY
async def test_one_message_may_wait_where_no_more_may() -> None:
    async with open_quick(max_queued_messages=1) as (ws, peer):
        await peer.send(*[frame(TEXT, b"%d" % number) for number in range(50)])
        for number in range(50):
            assert await ws.receive() == str(number)
            await trio.testing.wait_all_tasks_blocked()
            assert ws.statistics().queued_messages <= 1
        await peer.send_close(1000)


@HASTY
@pytest.mark.parametrize("ping", [b"", frame(PING)])
async def test_no_more_is_read_while_more_bytes_wait_than_may(ping: bytes) -> None:
    async with open_quick(max_queued_bytes=1000) as (ws, peer):
        batch = [frame(TEXT, b"x" * 100) for _ in range(10)]
        await peer.send(*batch, ping)
        await receive_shortly(ws) if not ping else await ws.receive()
        assert ws.statistics().queued_messages == 9
        await peer.send(*batch)
        await trio.sleep(1)
        assert ws.statistics().queued_messages == 9, "another read, though nobody took anything"
        for _ in range(19):
            await ws.receive()
        await peer.send_close(1000)


async def test_two_that_flood_each_other_go_on() -> None:
    options: Options = {"max_send_buffer": 1000, "max_queued_messages": 1}
    async with open_quick_pair(options, options) as (ours, theirs):

        async def flood(ws: WebSocket) -> None:
            for number in range(20):
                await ws.send(str(number) * 50_000)

        async def drain(ws: WebSocket) -> None:
            for number in range(20):
                assert await ws.receive() == str(number) * 50_000

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for ws in (ours, theirs):
                    nursery.start_soon(flood, ws)
                await trio.sleep(0.1)
                for ws in (ours, theirs):
                    nursery.start_soon(drain, ws)


# ---------------------------------------------------------------------------
# Several receivers, cancelled receivers
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("looking", ["patient", "hasty", "usual"])
async def test_each_message_goes_to_one_receiver(
    looking: str, request: pytest.FixtureRequest
) -> None:
    if looking != "usual":
        request.getfixturevalue(looking)
    async with open_quick() as (ws, peer):
        received: list[list[int]] = [[], [], []]

        async def receive(mine: list[int]) -> None:
            async for message in ws:
                mine.append(int(message))
                for _ in range(int(message) % 3):
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for mine in received:
                nursery.start_soon(receive, mine)
            for number in range(0, 300, 3):
                some = [frame(TEXT, b"%d" % (number + more)) for more in range(3)]
                await peer.send(*some[: 1 + number % 2])
                await trio.lowlevel.checkpoint()
                await peer.send(*some[1 + number % 2 :])
            await peer.send_close(1000)
        assert sorted(itertools.chain(*received)) == list(range(300))
        assert all(mine == sorted(mine) for mine in received)


@PATIENT
async def test_who_asks_while_another_looks_gets_the_next() -> None:
    async with open_quick() as (ws, peer), trio.open_nursery() as nursery:
        got: list[tuple[str, str | bytes]] = []

        async def receive(name: str) -> None:
            got.append((name, await ws.receive()))

        nursery.start_soon(receive, "first")
        await until(lambda: ws._shortcut._looking)
        nursery.start_soon(receive, "second")
        await until(lambda: ws._inbox.is_awaited)
        assert ws._shortcut._looking
        await peer.send_frame(TEXT, b"1")
        await trio.testing.wait_all_tasks_blocked()
        assert not ws._shortcut.is_open
        await peer.send_frame(TEXT, b"2")
        await trio.testing.wait_all_tasks_blocked()
        assert got == [("first", "1"), ("second", "2")]


@PATIENT
async def test_two_messages_in_one_look_go_to_both_who_wait() -> None:
    async with open_quick() as (ws, peer), trio.open_nursery() as nursery:
        got: list[str | bytes] = []

        async def receive() -> None:
            got.append(await ws.receive())

        nursery.start_soon(receive)
        nursery.start_soon(receive)
        await until(lambda: ws._inbox.is_awaited)
        assert ws._shortcut._looking
        await peer.send(frame(TEXT, b"1"), frame(TEXT, b"2"))
        with trio.move_on_after(RELIEF / 2):
            await trio.sleep_forever()
        assert sorted(got) == ["1", "2"]
        assert ws._shortcut.is_open


@pytest.mark.parametrize("looking", ["patient", "hasty"])
async def test_receiving_that_is_cancelled_at_any_step_loses_nothing(
    looking: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(looking)
    cancelled = 0
    for step in range(1, 500):
        tasks = trio.lowlevel.current_statistics().tasks_living
        scope = trio.CancelScope()
        instrument = CancelAtStep(scope, trio.lowlevel.current_task(), step)
        async with open_quick() as (ws, peer), trio.open_nursery() as nursery:
            nursery.start_soon(send_numbers, peer)
            received: list[str | bytes] = []
            with scope:
                trio.lowlevel.add_instrument(instrument)
                try:
                    while len(received) < 20:
                        received.append(await ws.receive())
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            cancelled += scope.cancelled_caught
            assert not ws._shortcut._looking
            while len(received) < 20:
                received.append(await ws.receive())
            assert received == [str(number) for number in range(20)]
            await until(lambda: not nursery.child_tasks)
            await quicken(ws, lambda text: peer.send_frame(TEXT, text.encode()))
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        if instrument.steps_left > 0:
            assert cancelled > 5
            return
    raise AssertionError("the scenario never got through")


async def send_numbers(peer: RawPeer) -> None:
    """0 to 19, two and two, with pings between them."""
    for number in range(0, 20, 2):
        await peer.send(frame(TEXT, b"%d" % number), frame(TEXT, b"%d" % (number + 1)))
        await peer.send_frame(PING)


# ---------------------------------------------------------------------------
# Closing in the middle of it
# ---------------------------------------------------------------------------


@PATIENT
@BOTH_SIDES
async def test_aclose_ends_a_look_of_another_task(side: str) -> None:
    async with open_quick(side) as (ws, peer), trio.open_nursery() as nursery:
        outcome: list[type[BaseException]] = []

        async def receive() -> None:
            try:
                await ws.receive()
            except trio.ClosedResourceError as exc:
                outcome.append(type(exc))

        async def answer() -> None:
            assert await peer.receive_close() == 4001
            await peer.send_frame(TEXT, b"too late")
            await peer.send_close(4001)
            if side == "server":  # which hangs up first
                assert await peer.receive_frame() is None
            await trio.aclose_forcefully(peer.stream)

        nursery.start_soon(receive)
        await until(lambda: ws._shortcut._looking)
        nursery.start_soon(answer)
        start = trio.current_time()
        await ws.aclose(4001)
        assert trio.current_time() - start < RELIEF
        await trio.testing.wait_all_tasks_blocked()
        assert outcome[0].__mro__[1] is trio.ClosedResourceError


@pytest.mark.parametrize("cancelled", [False, True])
async def test_aclose_while_nobody_reads_takes_no_longer(cancelled: bool) -> None:
    async with open_quick() as (ws, peer), trio.open_nursery() as nursery:

        async def answer() -> None:
            code = await peer.receive_close()
            await peer.send_close(code)

        if not cancelled:
            nursery.start_soon(answer)
        start = trio.current_time()
        with trio.CancelScope() as scope:
            if cancelled:
                scope.cancel()
            await ws.aclose()
        reason = await ws.wait_closed()
        assert reason.code == (1006 if cancelled else 1000)
        assert trio.current_time() - start < RELIEF


@HASTY
@pytest.mark.parametrize("receiving", [False, True])
@pytest.mark.parametrize("kind", ["aclose", "cancelled", "idle_timeout", "max_lifetime"])
async def test_a_server_closes_connections_in_a_quick_conversation(
    kind: str, receiving: bool
) -> None:
    served: list[WebSocket] = []
    ends: list[str] = []

    async def handler(ws: WebSocket) -> None:
        served.append(ws)
        try:
            async for message in ws:
                await ws.send(message)
                if message == "stay away":
                    await ws.wait_closed()
            ends.append("the messages ended")
        except ConnectionLost:
            ends.append("lost")

    # The network may be slower than the clock, which jumps over whatever has an end.
    patient: Options = dict.fromkeys(("close_timeout", "ping_interval"), inf)
    options: Options = {**patient, "grace_period": inf}
    if kind in ("idle_timeout", "max_lifetime"):
        options[kind] = 30
    serving = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        with serving:
            async with (
                open_server(handler, **options) as server,
                open_websocket_url(server.urls[0], **patient) as ws,
            ):
                for _ in range(50):
                    await ws.send("quick")
                    await ws.receive()
                if not receiving:
                    await ws.send("stay away")
                    await ws.receive()
                if kind == "aclose":
                    nursery.start_soon(server.aclose)
                elif kind == "cancelled":
                    serving.cancel()
                with trio.CancelScope(shield=True):
                    code = 1001 if kind in ("aclose", "cancelled") else 1000
                    assert (await ws.wait_closed()).code == code
    assert ends == ["the messages ended"]
    assert served[0].state is State.CLOSED


@HASTY
async def test_a_message_taken_by_a_look_is_in_hand_when_the_connection_ends() -> None:
    async with open_quick(close_timeout=10) as (ws, peer):
        done: list[str | bytes] = []
        async with ws.open_nursery():
            await peer.send_frame(TEXT, b"the last")
            jump(9)
            message = await receive_shortly(ws)
            await peer.send_close(1000)
            await trio.sleep(9)
            assert ws.state is State.CLOSED
            done.append(message)
            with suppress(ConnectionEnded):
                await ws.receive()
        assert done == ["the last"]


@HASTY
async def test_a_violation_behind_a_message_waits_for_its_answer() -> None:
    async with open_quick() as (ws, peer):
        await peer.send(frame(TEXT, b"the last"), frame(CONTINUATION))
        assert await ws.receive() == "the last"
        await trio.sleep(0.5)
        await ws.send("the answer")
        assert await peer.receive_frame() == (FIN | TEXT, b"the answer")
        with pytest.raises(ConnectionLost, match="1002"):
            await ws.receive()


@HASTY
async def test_after_a_failed_write_the_reader_finds_out_why_without_delay() -> None:
    async with open_quick() as (ws, peer), trio.open_nursery() as nursery:
        stream = cast("trio.SocketStream", peer.stream)
        stream.socket.shutdown(socket.SHUT_RD)  # writing to it fails, and it can still speak
        start = trio.current_time()

        async def send() -> None:
            with pytest.raises(ConnectionLost, match="4000"):
                await ws.send("x")
            assert trio.current_time() - start < RELIEF

        nursery.start_soon(send)
        await until(lambda: ws.state is State.CLOSING)
        for _ in range(5):
            await receive_the_usual_way(ws, partial(peer.send_frame, TEXT, b"last words"))
        await peer.send_close(4000, "bye")


@PATIENT
async def test_sending_over_a_broken_connection_ends_a_look() -> None:
    async with open_quick(tcp=True) as (ws, peer):
        reset(cast("trio.SocketStream", peer.stream))
        with pytest.raises(ConnectionLost):
            while True:
                await ws.send("x")
        with pytest.raises(ConnectionLost):
            await ws.receive()


async def test_a_hundred_quick_conversations_on_one_server() -> None:
    async with open_server(echo) as server:

        async def converse(name: int) -> None:
            async with open_websocket_url(server.urls[0]) as ws:
                for number in range(20):
                    await ws.send(f"{name} {number}")
                    assert await ws.receive() == f"{name} {number}"
                await ws.ping()

        async with trio.open_nursery() as nursery:
            for name in range(100):
                nursery.start_soon(converse, name)
