"""Connections whose messages are read by the task that receives them, and what else must go on.

The clock is autojumped, so that the watchdog's milliseconds pass only where every task waits.
"""

from __future__ import annotations

import itertools
import logging
import random
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any

import pytest
import trio
import trio.testing

from tests.connection.reading_helpers import (
    AWAY,
    BOTH_SIDES,
    counted_reader_steps,
    jump,
    let_receivers_read,
    open_both,
    open_raw,
    receive_alone,
    receive_while,
    send_pieces,
    send_text,
    until,
)
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
    open_server,
    open_server_with_raw_client,
    socket_pair,
)
from tests.whole.sweeping import CancelAtStep
from trio_ws import ConnectionEnded, ConnectionLost, Deflate, WebSocket, open_websocket_url
from trio_ws._connection.watchdog import RELIEF

pytestmark = pytest.mark.autojump


# ---------------------------------------------------------------------------
# Messages
# ---------------------------------------------------------------------------


@BOTH_SIDES
async def test_a_receiver_reads_its_messages_one_by_one(side: str) -> None:
    async with open_raw(side) as (ws, peer):
        with counted_reader_steps() as steps:
            for number in range(200):
                await peer.send_frame(BINARY if number % 2 else TEXT, b"%d" % number)
                message = await (ws.receive() if number % 3 else anext(ws))
                assert message == (b"%d" % number if number % 2 else str(number))
        assert steps.count == 0
        await peer.send_close(1000)


@BOTH_SIDES
async def test_a_receiver_waits_for_its_message_as_long_as_it_takes(side: str) -> None:
    async with open_raw(side, ping_interval=inf) as (ws, peer):
        with counted_reader_steps() as steps:
            for number in range(20):

                async def send(number: int = number) -> None:
                    await trio.sleep(number)
                    await peer.send_frame(TEXT, b"%d" % number)

                assert await receive_while(ws, send) == str(number)
        assert steps.count == 0
        await peer.send_close(1000)


async def test_an_echo_over_tcp_is_read_by_its_receivers_at_both_ends() -> None:
    async with open_server(echo) as server, open_websocket_url(server.urls[0]) as ws:
        await ws.send("the first")
        assert await ws.receive() == "the first"
        with counted_reader_steps() as steps:
            for number in range(1000):
                await ws.send(str(number))
                assert await ws.receive() == str(number)
        assert steps.count < 20


@BOTH_SIDES
async def test_what_is_no_whole_message_is_left_to_the_reader_task(side: str) -> None:
    async with open_raw(side) as (ws, peer):
        masked = partial(frame, mask=peer.masks)

        async def check(*pieces: bytes) -> None:
            """The pieces come one after the other, while a receiver waits."""
            start = trio.current_time()
            assert await receive_while(ws, partial(send_pieces, peer, *pieces)) == "a message"
            assert trio.current_time() == start
            await let_receivers_read(ws, send_text(peer))

        whole = masked(TEXT, b"a message")
        await check(whole)
        await check(masked(PING, b"1") + whole)
        await check(masked(PONG, b"2") + whole)
        for cut in range(1, len(whole)):
            await check(whole[:cut], whole[cut:])
        begun, rest = masked(TEXT, b"a mes", fin=False), masked(CONTINUATION, b"sage")
        await check(begun + rest)
        await check(begun, rest)
        await check(begun, masked(PING, b"3"), rest)
        await peer.send_close(1000)
        frames = await peer.receive_all_frames()
        assert frames[:3] == [(FIN | PONG, b"1"), (FIN | PONG, b"3"), frames[-1]]


async def test_the_first_message_needs_no_reader_task() -> None:
    async with open_server_with_raw_client(streams=socket_pair()) as (ws, peer):
        await peer.send_frame(TEXT, b"first")
        assert await receive_alone(ws) == "first"


async def test_the_reader_task_stands_by_after_a_message_that_was_waited_for() -> None:
    async with open_server_with_raw_client(streams=socket_pair()) as (ws, peer):
        await trio.sleep(AWAY)
        with counted_reader_steps() as steps:
            assert await receive_while(ws, partial(peer.send_frame, TEXT, b"first")) == "first"
        assert steps.count > 0
        await peer.send_frame(TEXT, b"second")
        assert await receive_alone(ws) == "second"


async def test_a_reader_task_that_has_stood_by_for_a_while_is_let_go() -> None:
    def living() -> int:
        return trio.lowlevel.current_statistics().tasks_living

    async with open_server_with_raw_client(streams=socket_pair(), ping_interval=10) as (ws, peer):
        without = living()
        await trio.sleep(AWAY)
        assert await receive_while(ws, partial(peer.send_frame, TEXT, b"1")) == "1"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.receive)
            await trio.sleep(5)
            assert living() == without + 2
            await trio.sleep(10)
            assert living() == without + 1
            await peer.send_frame(TEXT, b"2")
        await trio.sleep(AWAY)
        assert living() == without + 1  # as there is need of it again


async def test_the_reader_task_reads_on_where_no_task_waits() -> None:
    async with open_raw() as (ws, peer):
        await trio.sleep(AWAY)
        for _ in range(20):
            with counted_reader_steps() as steps:
                await peer.send_frame(TEXT, b"sooner or later")
                await trio.testing.wait_all_tasks_blocked()
            assert steps.count > 0
        assert ws.statistics().queued_messages == 20


async def test_the_reader_task_reads_on_while_another_task_waits() -> None:
    async with open_raw() as (ws, peer), trio.open_nursery() as nursery:

        async def receive_in_pieces() -> None:
            async with ws.receive_message() as chunks:
                assert [chunk async for chunk in chunks] == ["for the other"]
            assert trio.current_time() == start

        start = trio.current_time()
        nursery.start_soon(ws.receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(receive_in_pieces)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send_frame(TEXT, b"for one")
        await trio.testing.wait_all_tasks_blocked()
        await peer.send_frame(TEXT, b"for the other")


@BOTH_SIDES
@pytest.mark.parametrize("fragmented", [False, True])
async def test_half_a_frame_or_message_behind_a_message_is_put_together(
    side: str, fragmented: bool
) -> None:
    async with open_raw(side) as (ws, peer):
        mask = peer.masks
        whole, begun = frame(TEXT, b"whole", mask=mask), frame(TEXT, b"more", mask=mask)
        rest = b""
        if fragmented:
            begun = frame(TEXT, b"mo", fin=False, mask=mask)
            rest = frame(CONTINUATION, b"re", mask=mask)
        for cut in range(1, len(begun + rest)):
            start = trio.current_time()
            assert await receive_while(ws, partial(peer.send, whole, (begun + rest)[:cut]))
            more = await receive_while(ws, partial(peer.send, (begun + rest)[cut:]))
            assert more == "more"
            assert trio.current_time() == start
            await let_receivers_read(ws, send_text(peer))


NUMBERS = [frame(TEXT, b"%d" % number) for number in range(150)]
HALF = frame(TEXT, b"the other half")


async def receive_numbers(ws: WebSocket) -> None:
    for number in range(150):
        assert await ws.receive() == str(number)


async def test_half_a_frame_behind_many_messages_is_put_together() -> None:
    async with open_raw() as (ws, peer):
        await peer.send(*NUMBERS, HALF[:9])
        await receive_numbers(ws)
        await peer.send(HALF[9:])
        assert await ws.receive() == "the other half"


async def test_a_ping_behind_many_messages_is_answered_before_they_are_taken() -> None:
    async with open_raw(max_queued_messages=1000) as (ws, peer):
        start = trio.current_time()
        await peer.send(*NUMBERS, frame(PING, b"are you there?"))
        assert await ws.receive() == "0"
        assert await peer.receive_frame() == (FIN | PONG, b"are you there?")
        assert trio.current_time() == start
        assert ws.statistics().queued_messages == 149


@pytest.mark.parametrize("kind", ["close", "violation", "eof"])
async def test_an_end_behind_many_messages_is_met_after_them(kind: str) -> None:
    async with open_raw() as (ws, peer):
        last = {"close": close_frame(1000), "violation": frame(TEXT, b"\xff"), "eof": b""}
        await peer.send(*NUMBERS, last[kind])
        if kind == "eof":
            await peer.stream.send_eof()  # type: ignore[attr-defined] # it is a socket's
        start = trio.current_time()
        await receive_numbers(ws)
        codes = {"close": "1000", "violation": "1007", "eof": "1006"}
        with pytest.raises((ConnectionEnded, ConnectionLost), match=codes[kind]):
            await ws.receive()
        assert trio.current_time() - start < RELIEF


async def test_compressed_messages_and_others_come_in_turn_and_the_window_stays_whole() -> None:
    options: Options = {"compression": Deflate(threshold=100)}
    async with open_both(options, options) as (ours, theirs):
        for size in (10, 200, 20, 300, 400, 10) * 5:
            text = "".join(random.Random(size).choices("0123456789", k=size))
            await ours.send(text)
            assert await theirs.receive() == text
        assert (theirs.statistics().compression_received or 0) > 1
        await ours.aclose()


@pytest.mark.parametrize("limit", [2**20, inf])
async def test_a_receiver_reads_compressed_messages_itself(limit: float) -> None:
    options: Options = {"compression": Deflate(threshold=100), "max_message_size": limit}
    async with open_both(options, options) as (ours, theirs):
        await ours.send("the first")
        assert await theirs.receive() == "the first"
        with counted_reader_steps() as steps:
            for number in range(50):
                for size in (300, 5, 300):
                    await ours.send(f"{number}" * size)
                for size in (300, 5, 300):
                    assert await theirs.receive() == f"{number}" * size
        assert steps.count == 0
        assert (theirs.statistics().compression_received or 0) > 10
        await ours.aclose()


@BOTH_SIDES
@pytest.mark.parametrize("seed", range(10))
async def test_however_bytes_are_cut_the_messages_are_the_same(side: str, seed: int) -> None:
    chance = random.Random(seed)
    async with open_raw(side, max_queued_messages=chance.choice([1, 5, 100])) as (ws, peer):
        before = ws.statistics()
        sent: list[str | bytes] = []
        frames: list[bytes] = []
        received: list[str | bytes] = []

        async def receive() -> None:
            async for message in ws:
                received.append(message)

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


async def test_every_message_that_a_receiver_reads_is_logged_where_a_logger_wants_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws")
    async with open_raw() as (ws, peer):
        caplog.clear()
        for number in range(20):
            await peer.send_frame(TEXT, b"number %d" % number)
            assert await receive_alone(ws) == f"number {number}"
        messages = [record.getMessage() for record in caplog.records]
        assert ["received text" in message for message in messages] == [True] * 20
        assert ["number" in message for message in messages] == [True] * 20
        await peer.send_close(1000)


@pytest.mark.parametrize("ours", ["memory", "halved"])
async def test_streams_that_are_no_plain_sockets_are_read_by_the_reader_task(ours: str) -> None:
    streams: Any = trio.testing.memory_stream_pair()
    if ours == "halved":
        one, other = socket_pair()
        streams = one, trio.StapledStream(other, other)
    async with open_server_with_raw_client(streams=streams) as (ws, peer):
        for number in range(20):
            with counted_reader_steps() as steps:
                await receive_while(ws, partial(peer.send_frame, TEXT, b"%d" % number))
            assert steps.count > 0


# ---------------------------------------------------------------------------
# While no task reads
# ---------------------------------------------------------------------------


@BOTH_SIDES
async def test_a_ping_is_answered_while_the_application_is_busy(side: str) -> None:
    async with open_raw(side) as (ws, peer):
        for number in range(10):
            await peer.send_frame(TEXT, b"one more")
            await ws.receive()
            start = trio.current_time()
            await trio.sleep(RELIEF * number / 5)
            await peer.send_frame(PING, b"are you there?")
            assert await peer.receive_frame() == (FIN | PONG, b"are you there?")
            assert trio.current_time() - start <= AWAY


async def test_a_ping_is_answered_at_once_while_a_receiver_waits() -> None:
    async with open_raw() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.receive)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        for _ in range(3):
            await peer.send_frame(PING, b"are you there?")
            assert await peer.receive_frame() == (FIN | PONG, b"are you there?")
        assert trio.current_time() == start
        await peer.send_frame(TEXT, b"the end")


@BOTH_SIDES
@pytest.mark.parametrize("peer_pings", [False, True])
async def test_keepalive_leaves_an_idle_connection_without_a_reader_task(
    side: str, peer_pings: bool
) -> None:
    async with open_raw(side, ping_interval=10) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.receive)
        await trio.sleep(1)
        with counted_reader_steps() as steps:
            for _ in range(3):
                ping = await peer.receive_frame()
                assert ping is not None
                first, payload = ping
                assert first == FIN | PING
                both = [frame(PONG, payload, mask=peer.masks)]
                if peer_pings:
                    both.insert(0, frame(PING, b"and you?", mask=peer.masks))
                await peer.send(*both)
                if peer_pings:
                    assert await peer.receive_frame() == (FIN | PONG, b"and you?")
        assert steps.count == 0
        assert ws.latency is not None
        await peer.send_frame(TEXT, b"the end")


@BOTH_SIDES
@pytest.mark.parametrize(
    ("opcode", "payload", "times", "code"),
    [
        (PING, b"x", 3, None),
        (PONG, b"", 3, None),
        (PING, bytes(126), 1, 1002),
        (CLOSE, b"", 1, 1005),
    ],
)
async def test_more_than_two_pings_or_pongs_and_any_other_frame_are_for_the_reader_task(
    side: str, opcode: int, payload: bytes, times: int, code: int | None
) -> None:
    async with open_raw(side) as (ws, peer), trio.open_nursery() as nursery:

        async def receive() -> None:
            with suppress(ConnectionEnded, ConnectionLost):
                await ws.receive()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        with counted_reader_steps() as steps:
            await peer.send(frame(opcode, payload, mask=peer.masks) * times)
            await trio.testing.wait_all_tasks_blocked()
        assert steps.count > 0
        if code is None:
            await peer.send_frame(TEXT, b"the end")
        else:
            assert ws.close_reason is not None
            assert ws.close_reason.code == code


async def test_a_task_that_waits_for_a_pong_gets_it_from_a_receiver() -> None:
    async with open_raw() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.receive)
        await trio.testing.wait_all_tasks_blocked()
        with counted_reader_steps() as steps:
            nursery.start_soon(ws.ping, b"payload")
            assert await peer.receive_frame() == (FIN | PING, b"payload")
            await peer.send_frame(PONG, b"payload")
            await trio.testing.wait_all_tasks_blocked()
        assert steps.count == 0
        assert ws.latency is not None
        await peer.send_frame(TEXT, b"the end")


async def test_a_conversation_that_pauses_causes_no_wake_ups() -> None:
    class Steps(trio.abc.Instrument):
        count = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.count += 1

    async with open_raw(ping_interval=inf) as (ws, peer):
        for _ in range(10):
            await peer.send_frame(TEXT, b"one more")
            await ws.receive()
        await trio.sleep(AWAY)
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(1000)
        trio.lowlevel.remove_instrument(steps)
        assert steps.count == 1  # this task's
        await peer.send_close(1000)


async def test_polling_has_the_reader_task_read() -> None:
    async with open_raw() as (ws, peer):
        start = trio.current_time()
        await peer.send_frame(TEXT, b"polled for")
        with pytest.raises(trio.WouldBlock):
            ws.receive_nowait()
        await trio.testing.wait_all_tasks_blocked()
        assert ws.receive_nowait() == "polled for"
        assert trio.current_time() == start


async def test_a_message_is_read_in_pieces_as_they_come() -> None:
    async with open_raw() as (ws, peer):
        for _ in range(3):
            start = trio.current_time()
            await peer.send_frame(TEXT, b"a", fin=False)
            async with ws.receive_message() as chunks:
                assert await anext(chunks) == "a"
                await peer.send_frame(CONTINUATION, b"b")
                assert "".join([str(chunk) async for chunk in chunks]) == "b"
            assert trio.current_time() == start
            await let_receivers_read(ws, send_text(peer))
            with trio.move_on_after(1):
                async with ws.receive_message():
                    raise AssertionError("there is none")
            await let_receivers_read(ws, send_text(peer))


async def test_ping_measures_its_round_trip_and_not_how_busy_a_receiver_is() -> None:
    async with open_raw() as (ws, peer), trio.open_nursery() as nursery:
        times: list[float] = []

        async def ping() -> None:
            times.append(await ws.ping(b"how far?"))

        async def receive_slowly() -> None:
            async for _ in ws:
                await trio.sleep(60)

        nursery.start_soon(receive_slowly)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ping)
        assert await peer.receive_frame() == (FIN | PING, b"how far?")
        await peer.send_frame(TEXT, b"meanwhile")
        await trio.testing.wait_all_tasks_blocked()
        await peer.send_frame(PONG, b"how far?")
        await trio.testing.wait_all_tasks_blocked()
        assert times == [0]
        await peer.send_close(1000)


async def test_a_ping_recalls_the_reader_task_though_no_task_receives() -> None:
    async with open_raw() as (ws, peer), trio.open_nursery() as nursery:

        async def answer() -> None:
            _, payload = await peer.receive_frame() or (0, b"")
            await peer.send_frame(PONG, payload)

        nursery.start_soon(answer)
        assert await ws.ping() == 0


async def test_a_message_is_a_sign_of_life_whoever_reads_it() -> None:
    async with open_raw(ping_interval=10, ping_timeout=10, idle_timeout=12) as (ws, peer):
        opened = trio.current_time()
        await peer.send_frame(TEXT, b"still here")
        jump(9)
        assert await receive_alone(ws) == "still here"
        first, _ = await peer.receive_frame() or (0, b"")
        assert first == FIN | PING
        assert trio.current_time() - opened == pytest.approx(19, abs=0.1)
        assert await peer.receive_close() == 1000
        assert trio.current_time() - opened == pytest.approx(21, abs=0.1)


# ---------------------------------------------------------------------------
# Bounds
# ---------------------------------------------------------------------------


async def test_one_message_may_wait_where_no_more_may() -> None:
    async with open_raw(max_queued_messages=1) as (ws, peer):
        await peer.send(*[frame(TEXT, b"%d" % number) for number in range(50)])
        for number in range(50):
            assert await ws.receive() == str(number)
            await trio.testing.wait_all_tasks_blocked()
            assert ws.statistics().queued_messages <= 1
        await peer.send_close(1000)


@pytest.mark.parametrize("ping", [b"", frame(PING)], ids=["nothing before", "a ping before"])
async def test_no_more_is_read_while_more_bytes_wait_than_may(ping: bytes) -> None:
    async with open_raw(max_queued_bytes=1000) as (ws, peer):
        batch = [frame(TEXT, b"x" * 100) for _ in range(10)]
        await peer.send(*batch, ping)
        await ws.receive()
        assert ws.statistics().queued_messages == 9
        await peer.send(*batch)
        await trio.sleep(1)
        assert ws.statistics().queued_messages == 9, "another read, though nobody took anything"
        for _ in range(19):
            await ws.receive()
        await peer.send_close(1000)


async def test_two_that_flood_each_other_go_on() -> None:
    options: Options = {"max_send_buffer": 1000, "max_queued_messages": 1}
    async with open_both(options, options) as (ours, theirs):

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


async def test_each_message_goes_to_one_receiver() -> None:
    async with open_raw() as (ws, peer):
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


async def test_a_task_that_asks_while_another_reads_gets_the_next_message() -> None:
    async with open_raw() as (ws, peer), trio.open_nursery() as nursery:
        got: list[tuple[str, str | bytes]] = []

        async def receive(name: str) -> None:
            got.append((name, await ws.receive()))

        start = trio.current_time()
        nursery.start_soon(receive, "first")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(receive, "second")
        await trio.testing.wait_all_tasks_blocked()
        await peer.send_frame(TEXT, b"1")
        await trio.testing.wait_all_tasks_blocked()
        await peer.send_frame(TEXT, b"2")
        await trio.testing.wait_all_tasks_blocked()
        assert got == [("first", "1"), ("second", "2")]
        assert trio.current_time() == start


async def test_two_messages_in_one_read_go_to_both_tasks_that_wait() -> None:
    async with open_raw() as (ws, peer), trio.open_nursery() as nursery:
        got: list[str | bytes] = []

        async def receive() -> None:
            got.append(await ws.receive())

        for _ in range(2):
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
        with counted_reader_steps() as steps:
            await peer.send(frame(TEXT, b"1"), frame(TEXT, b"2"))
            await trio.testing.wait_all_tasks_blocked()
        assert sorted(map(str, got)) == ["1", "2"]
        assert steps.count == 0


async def test_a_cancelled_receiver_leaves_the_next_message_to_another() -> None:
    async with open_raw() as (ws, peer), trio.open_nursery() as nursery:
        got: list[str | bytes] = []

        async def receive() -> None:
            got.append(await ws.receive())

        with trio.move_on_after(1):
            nursery.start_soon(receive)
            await ws.receive()
        start = trio.current_time()
        await peer.send_frame(TEXT, b"1")
        await trio.testing.wait_all_tasks_blocked()
        assert got == ["1"]
        assert trio.current_time() == start


@BOTH_SIDES
@pytest.mark.parametrize("waits", [False, True])
async def test_receiving_that_is_cancelled_at_any_step_loses_nothing(
    side: str, waits: bool
) -> None:
    cancelled = 0
    for step in range(1, 500):
        tasks = trio.lowlevel.current_statistics().tasks_living
        scope = trio.CancelScope()
        instrument = CancelAtStep(scope, trio.lowlevel.current_task(), step)
        async with open_raw(side) as (ws, peer), trio.open_nursery() as nursery:
            nursery.start_soon(send_numbers, peer, waits)
            received: list[str | bytes] = []
            with scope:
                trio.lowlevel.add_instrument(instrument)
                try:
                    while len(received) < 20:
                        received.append(await ws.receive())
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            cancelled += scope.cancelled_caught
            while len(received) < 20:
                received.append(await ws.receive())
            assert received == [str(number) for number in range(20)]
            await until(lambda: not nursery.child_tasks)
            await let_receivers_read(ws, send_text(peer))
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        if instrument.steps_left > 0:
            assert cancelled > 5
            return
    raise AssertionError("the scenario never got through")


async def send_numbers(peer: RawPeer, waits: bool) -> None:
    """0 to 19, two and two, with pings between some of them."""
    for number in range(0, 20, 2):
        if waits:
            await trio.testing.wait_all_tasks_blocked()
        await peer.send(frame(TEXT, b"%d" % number, mask=peer.masks))
        await peer.send(frame(TEXT, b"%d" % (number + 1), mask=peer.masks))
        if number % 4:
            await peer.send_frame(PING)


async def test_a_hundred_conversations_on_one_server() -> None:
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
