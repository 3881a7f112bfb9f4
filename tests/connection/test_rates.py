"""How fast a peer may send: which message comes when, exactly, and what else must go on meanwhile.

The clock is autojumped. A message that comes "at" a time comes then to a millionth of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import pytest
import trio
import trio.testing

from tests.connection.reading_helpers import (
    counted_reader_steps,
    let_receivers_read,
    receive_alone,
    send_text,
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
    StreamPair,
    close_code,
    frame,
    open_pair,
    open_server_with_raw_client,
    socket_pair,
)
from trio_ws import ConnectionEnded, ConnectionLost, Deflate, WebSocket
from trio_ws._connection.watchdog import RELIEF
from trio_ws._nursery import open_bare_nursery
from trio_ws.testing import open_test_app

pytestmark = pytest.mark.autojump

#: The sizes of heads of masked frames: for less than 126 bytes, for less than 64 KiB, for more.
SHORT_HEAD, HEAD, LONG_HEAD = 6, 8, 14

WAYS = pytest.mark.parametrize(
    "streams", [trio.testing.memory_stream_pair, socket_pair], ids=["memory", "socket"]
)
Ways = Callable[[], StreamPair]


def texts(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def frames(messages: list[str]) -> bytes:
    return b"".join(frame(TEXT, text.encode()) for text in messages)


class Times:
    """What came when, since this was made."""

    def __init__(self) -> None:
        self.began = trio.current_time()
        self.messages: list[str | bytes] = []
        self.at: list[float] = []

    @property
    def now(self) -> float:
        return trio.current_time() - self.began

    async def collect(self, ws: WebSocket, count: float = inf) -> None:
        while len(self.at) < count:
            self.messages.append(await ws.receive())
            self.at.append(self.now)


def at_rate(count: int, rate: float, burst: int) -> Any:
    """When so many messages come that were all sent at once."""
    return pytest.approx([max(0, (n + 1 - burst) / rate) for n in range(count)], abs=1e-6)


# ---------------------------------------------------------------------------
# Messages
# ---------------------------------------------------------------------------


@WAYS
async def test_of_a_thousand_messages_in_one_read_each_comes_when_it_is_earned(
    streams: Ways,
) -> None:
    async with open_server_with_raw_client(streams=streams(), max_messages_per_second=10) as (
        ws,
        peer,
    ):
        times = Times()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(times.collect, ws, 1000)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(frames(texts(1000)))
        assert times.messages == texts(1000)
        assert times.at == at_rate(1000, 10, burst=10)
        await peer.send_close(1000)


@pytest.mark.parametrize("size", [1, 3, 7, 700, 701, 4000])
@WAYS
async def test_however_the_bytes_are_cut_each_comes_then(streams: Ways, size: int) -> None:
    sent = frames(texts(100))
    async with open_server_with_raw_client(streams=streams(), max_messages_per_second=7.5) as (
        ws,
        peer,
    ):
        times = Times()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(times.collect, ws, 100)
            for start in range(0, len(sent), size):
                await peer.send(sent[start : start + size])
                for _ in range(9):  # it is read before the next is sent
                    await trio.lowlevel.checkpoint()
        assert times.messages == texts(100)
        assert times.at == pytest.approx([max(0, (n + 1) / 7.5 - 1) for n in range(100)], abs=1e-6)
        await peer.send_close(1000)


async def test_a_receiver_that_reads_gets_what_is_earned_without_the_reader_task() -> None:
    async with open_server_with_raw_client(
        streams=socket_pair(), max_messages_per_second=10, max_bytes_per_second=1000
    ) as (ws, peer):
        await let_receivers_read(ws, send_text(peer))
        await trio.sleep(1)
        await let_receivers_read(ws, send_text(peer))
        for text in texts(8):
            await peer.send_frame(TEXT, text.encode())
            assert await receive_alone(ws) == text
        start = trio.current_time()
        await peer.send(frames(["late", "later"]))
        with counted_reader_steps() as steps:
            assert await ws.receive() == "late"
        assert steps.count
        assert await ws.receive() == "later"
        assert trio.current_time() - start == pytest.approx(0.2)
        await peer.send_close(1000)


@WAYS
async def test_after_a_quiet_time_one_seconds_worth_may_come_at_once(streams: Ways) -> None:
    async with open_server_with_raw_client(
        streams=streams(), max_messages_per_second=10, ping_interval=inf
    ) as (ws, peer):
        for quiet, burst in ((0, 10), (0.55, 5), (1, 10), (1000, 10)):
            await trio.sleep(quiet)
            times = Times()
            async with open_bare_nursery() as nursery:
                nursery.start_soon(times.collect, ws, 12)
                await peer.send(frames(texts(12)))
            late = 0.05 if quiet == 0.55 else 0  # half a message was earned, too
            later = [max(0, (n + 1 - burst) / 10 - late) for n in range(12)]
            assert times.at == pytest.approx(later, abs=1e-6)
        await peer.send_close(1000)


async def test_below_one_a_second_one_message_may_come_at_once() -> None:
    async with open_server_with_raw_client(max_messages_per_second=0.1) as (ws, peer):
        times = Times()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(times.collect, ws, 4)
            await peer.send(frames(texts(4)))
        assert times.at == at_rate(4, 0.1, burst=1)
        await peer.send_close(1000)


@pytest.mark.parametrize("kind", [PING, PONG])
@WAYS
async def test_pings_and_pongs_count_as_messages(streams: Ways, kind: int) -> None:
    async with open_server_with_raw_client(streams=streams(), max_messages_per_second=2) as (
        ws,
        peer,
    ):
        times = Times()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(times.collect, ws, 2)
            await trio.testing.wait_all_tasks_blocked()
            for part in (frame(kind, b"1"), frame(kind, b"2"), frames(["a"]), frame(kind, b"3")):
                await peer.send(part)
                for _ in range(9):
                    await trio.lowlevel.checkpoint()
            await peer.send(frames(["b"]))
        assert times.at == pytest.approx([0.5, 1.5])
        await peer.send_close(1000)


@WAYS
async def test_a_ping_is_answered_when_it_is_earned(streams: Ways) -> None:
    async with open_server_with_raw_client(streams=streams(), max_messages_per_second=1) as (
        _,
        peer,
    ):
        start = trio.current_time()
        await peer.send(b"".join(frame(PING, b"%d" % number) for number in range(3)))
        for number in range(3):
            assert await peer.receive_frame() == (FIN | PONG, b"%d" % number)
            assert trio.current_time() - start == pytest.approx(number, abs=2 * RELIEF)
        await trio.sleep(0.5)
        await peer.send_close(1000)


async def test_pings_that_a_receiver_reads_are_answered_when_they_are_earned() -> None:
    async with open_server_with_raw_client(streams=socket_pair(), max_messages_per_second=1) as (
        ws,
        peer,
    ):
        async with open_bare_nursery() as nursery:
            nursery.start_soon(ws.receive)
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            await peer.send(b"".join(frame(PING, b"%d" % number) for number in range(3)))
            for number in range(3):
                assert await peer.receive_frame() == (FIN | PONG, b"%d" % number)
                assert trio.current_time() - start == pytest.approx(number, abs=2 * RELIEF)
            nursery.cancel_scope.cancel()
        await peer.send_close(1000)


@WAYS
async def test_with_close_a_ping_too_many_is_1008(streams: Ways) -> None:
    async with open_server_with_raw_client(
        streams=streams(), max_messages_per_second=2, on_rate_limit="close"
    ) as (ws, peer):
        await peer.send(b"".join(frame(PING, b"%d" % number) for number in range(3)))
        with pytest.raises(ConnectionLost) as caught:
            await ws.receive()
        assert caught.value.reason.code == 1008
        assert [await peer.receive_frame() for _ in range(2)] == [
            (FIN | PONG, b"0"),
            (FIN | PONG, b"1"),
        ]
        assert await peer.receive_close() == 1008


@WAYS
@pytest.mark.parametrize("deflate", [Deflate(), None])
async def test_a_message_in_fragments_is_one_message(
    streams: Ways, deflate: Deflate | None
) -> None:
    async with open_server_with_raw_client(
        streams=streams(), max_messages_per_second=1, compression=deflate
    ) as (ws, peer):
        large = b"x" * 1024
        parts = [frame(BINARY, large, fin=False), *[frame(CONTINUATION, large, fin=False)] * 9]
        whole = b"".join(parts) + frame(CONTINUATION)
        times = Times()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(times.collect, ws, 3)
            await peer.send(whole * 3)
        assert times.messages == [large * 10] * 3
        assert times.at == at_rate(3, 1, burst=1)
        await peer.send_close(1000)


@WAYS
async def test_small_fragments_count_as_messages(streams: Ways) -> None:
    async with open_server_with_raw_client(streams=streams(), max_messages_per_second=2) as (
        ws,
        peer,
    ):
        for small in (b"", b"x" * 1023):
            await trio.sleep(1)
            times = Times()
            async with open_bare_nursery() as nursery:
                nursery.start_soon(times.collect, ws, 1)
                sent = frame(TEXT, small, fin=False) + frame(CONTINUATION, small, fin=False) * 4
                await peer.send(sent + frame(CONTINUATION))
            assert times.messages == [(small * 5).decode()]
            assert times.at == pytest.approx([2])
        await peer.send_close(1000)


# ---------------------------------------------------------------------------
# Bytes
# ---------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_bytes_are_those_of_frames_with_their_heads(streams: Ways, opcode: int) -> None:
    payload = "é".encode() * 47  # 94 bytes
    async with open_server_with_raw_client(streams=streams(), max_bytes_per_second=500) as (
        ws,
        peer,
    ):
        times = Times()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(times.collect, ws, 50)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(frame(opcode, payload) * 50)
        assert times.at == at_rate(50, 5, burst=5)
        await peer.send_close(1000)


async def test_both_limits_hold() -> None:
    small, large = b"x" * (10 - SHORT_HEAD), b"x" * (100 - SHORT_HEAD)
    async with open_server_with_raw_client(
        max_messages_per_second=10, max_bytes_per_second=500
    ) as (ws, peer):
        times = Times()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(times.collect, ws, 30)
            await peer.send(frame(BINARY, large) * 10 + frame(BINARY, small) * 20)
        assert times.at[:10] == at_rate(10, 5, burst=5)
        assert times.at[10:20] == pytest.approx([1 + (n + 1) / 50 for n in range(10)])
        assert times.at[29] == pytest.approx((30 - 10) / 10)
        await peer.send_close(1000)


@WAYS
@pytest.mark.parametrize("size", [1, 50, 134, 10_000])
async def test_however_frames_are_cut_they_count_the_same(streams: Ways, size: int) -> None:
    sent = frame(BINARY, bytes(142 - HEAD)) * 20
    async with open_server_with_raw_client(streams=streams(), max_bytes_per_second=284) as (
        ws,
        peer,
    ):
        times = Times()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(times.collect, ws, 20)
            for start in range(0, len(sent), size):
                await peer.send(sent[start : start + size])
                for _ in range(9):  # it is read before the next is sent
                    await trio.lowlevel.checkpoint()
        assert times.at == at_rate(20, 2, burst=2)
        await peer.send_close(1000)


@WAYS
async def test_a_compressed_message_counts_as_if_it_were_not(streams: Ways) -> None:
    async with open_pair(
        client={"compression": Deflate(threshold=1)},
        server={"max_bytes_per_second": 1000},
        streams=streams(),
    ) as (ours, theirs):
        times = Times()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(times.collect, theirs, 5)
            for _ in range(5):
                await ours.send(bytes(1000 - HEAD))
                await trio.testing.wait_all_tasks_blocked()
        assert times.at == at_rate(5, 1, burst=1)
        assert theirs.statistics().bytes_received < 1000


@WAYS
async def test_a_message_larger_than_one_seconds_worth_comes_when_all_of_it_is_earned(
    streams: Ways,
) -> None:
    silent: Options = {"ping_interval": inf}  # a ping or pong in between would take tokens
    server = {"max_bytes_per_second": 10_000, **silent}
    async with open_pair(streams=streams(), client=silent, server=server) as (ours, theirs):
        for kind in (bytes(400_000 - LONG_HEAD), "x" * (400_000 - LONG_HEAD)):
            await trio.sleep(1)
            times = Times()
            async with open_bare_nursery() as nursery:
                nursery.start_soon(times.collect, theirs, 2)
                await ours.send(kind, compress=False)
                await ours.send("a small one")
            assert times.messages == [kind, "a small one"]
            assert times.at == pytest.approx([39, 39 + (11 + SHORT_HEAD) / 10_000])


async def test_a_message_that_is_read_piece_by_piece_comes_no_faster() -> None:
    async with open_pair(streams=socket_pair(), server={"max_bytes_per_second": 10_000}) as (
        ours,
        theirs,
    ):
        times = Times()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(partial(ours.send, bytes(100_000 - LONG_HEAD), compress=False))
            async with theirs.receive_message() as chunks:
                size = 0
                async for chunk in chunks:
                    size += len(chunk)
                    assert size <= 10_000 * (1 + times.now) + 1
        assert times.now == pytest.approx(9)


async def test_empty_frames_take_tokens_of_bytes() -> None:
    async with open_server_with_raw_client(max_bytes_per_second=10 * SHORT_HEAD) as (ws, peer):
        times = Times()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(times.collect, ws, 10)
            await peer.send(frame(BINARY) * 5 + frame(PING) * 5)
            await peer.send(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 8)
            await peer.send(frame(CONTINUATION) + frame(BINARY) * 4)
        assert times.at == pytest.approx([0] * 5 + [1, 1.1, 1.2, 1.3, 1.4])
        await peer.send_close(1000)


# ---------------------------------------------------------------------------
# Closing instead
# ---------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize("waits", [True, False])
async def test_with_close_the_first_message_too_many_is_1008(streams: Ways, waits: bool) -> None:
    async with open_server_with_raw_client(
        streams=streams(), max_messages_per_second=10, on_rate_limit="close"
    ) as (ws, peer):
        times = Times()
        with pytest.raises(ConnectionLost) as caught:
            async with open_bare_nursery() as nursery:
                if waits:
                    nursery.start_soon(times.collect, ws)
                    await trio.testing.wait_all_tasks_blocked()
                await peer.send(frames(texts(100)))
                if not waits:
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(times.collect, ws)
        assert times.messages == texts(10)
        assert times.now == pytest.approx(0, abs=1e-6)
        reason = caught.value.reason
        assert (reason.code, reason.failed) == (1008, True)
        assert reason.reason == "too fast: max_messages_per_second is 10"
        assert await peer.receive_close() == 1008


async def test_what_came_before_is_answered_before_1008() -> None:
    async with open_server_with_raw_client(
        streams=socket_pair(), max_bytes_per_second=20, on_rate_limit="close"
    ) as (ws, peer):
        await peer.send(frames(["0123456789", "0123456789"]))
        with pytest.raises(ConnectionLost):
            while True:
                await ws.send(await ws.receive())
        first, payload = await peer.receive_frame() or (0, b"")
        assert (first, payload) == (FIN | TEXT, b"0123456789")
        first, payload = await peer.receive_frame() or (0, b"")
        assert (first, close_code(payload)) == (FIN | CLOSE, 1008)
        assert payload[2:] == b"too fast: max_bytes_per_second is 20"


@WAYS
@pytest.mark.parametrize("rate", [3, 7, 10, 30, 49, 0.3])
async def test_who_sends_exactly_as_fast_as_allowed_is_not_closed(
    streams: Ways, rate: float
) -> None:
    async with open_server_with_raw_client(
        streams=streams(), max_messages_per_second=rate, on_rate_limit="close"
    ) as (ws, peer):
        count = max(1, int(rate))
        await peer.send(frames(["x"] * count))
        for _ in range(count):
            await ws.receive()
        await trio.sleep((count + 1 - max(rate, 1)) / rate)
        for _ in range(500):
            await peer.send(frames(["x"]))
            await ws.receive()
            await trio.sleep(1 / rate)
        await peer.send_close(1000)


async def test_a_large_message_with_close_is_1008() -> None:
    for compress in (False, True):
        async with open_pair(
            streams=socket_pair(),
            server={"max_bytes_per_second": 100_000, "on_rate_limit": "close"},
        ) as (ours, theirs):
            await ours.send(bytes(900_000), compress=compress)
            with pytest.raises(ConnectionLost) as caught:
                await theirs.receive()
            assert caught.value.reason.code == 1008
            assert (await ours.wait_closed()).reason == "too fast: max_bytes_per_second is 100000"


# ---------------------------------------------------------------------------
# Meanwhile
# ---------------------------------------------------------------------------


@WAYS
async def test_receiving_that_is_cancelled_while_it_waits_for_tokens_loses_nothing(
    streams: Ways,
) -> None:
    async with open_server_with_raw_client(streams=streams(), max_messages_per_second=10) as (
        ws,
        peer,
    ):
        await peer.send(frames(texts(100)))
        received: list[str | bytes] = []
        tries = 0
        while len(received) < 100:
            tries += 1
            with trio.move_on_after(0.033):
                received.append(await ws.receive())
        assert received == texts(100)
        assert tries > 250
        assert trio.current_time() == pytest.approx(9, abs=0.1)
        await peer.send_close(1000)


async def test_several_receivers_get_each_message_once() -> None:
    async with open_server_with_raw_client(streams=socket_pair(), max_messages_per_second=10) as (
        ws,
        peer,
    ):
        times = Times()
        async with open_bare_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(times.collect, ws, 98)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(frames(texts(100)))
        assert sorted(map(int, times.messages)) == list(range(100))
        await peer.send_close(1000)


async def test_closing_does_not_wait_for_tokens() -> None:
    async with open_server_with_raw_client(
        streams=socket_pair(), max_messages_per_second=0.001
    ) as (ws, peer):
        await peer.send(frames(texts(100)) + frame(CLOSE, (1000).to_bytes(2)))
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        await ws.aclose(1001)
        assert trio.current_time() - start < 0.001
        assert ws.close_reason is not None
        assert ws.close_reason.code == 1000
        assert await peer.receive_close() == 1001


@pytest.mark.parametrize("policy", ["wait", "close"])
async def test_what_comes_while_this_side_closes_is_not_counted(policy: str) -> None:
    async with open_server_with_raw_client(
        streams=socket_pair(), max_messages_per_second=0.001, on_rate_limit=policy
    ) as (ws, peer):
        start = trio.current_time()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(ws.aclose, 1001)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(frames(texts(100)) + frame(PING) * 9 + frame(TEXT, fin=False))
            await peer.send(frame(CONTINUATION) + frame(CLOSE, (1001).to_bytes(2)))
        assert trio.current_time() - start < 0.001
        assert ws.close_reason is not None
        assert (ws.close_reason.code, ws.close_reason.failed) == (1001, False)


async def test_a_receiver_learns_at_once_that_the_server_closes() -> None:
    received: list[str | bytes] = []
    ends: list[float] = []

    async def handler(ws: WebSocket) -> None:
        try:
            while True:
                received.append(await ws.receive())
        except ConnectionEnded:
            ends.append(trio.current_time())
            raise

    async with open_test_app(handler, max_messages_per_second=0.01) as app:
        async with app.websocket("/") as ws:
            for text in texts(10):
                await ws.send(text)
            await trio.sleep(5)
            start = trio.current_time()
            await app.server.aclose()
            assert trio.current_time() - start < 0.001
            assert ends == pytest.approx([start], abs=0.001)
            assert received == ["0"]
            assert (await ws.wait_closed()).code == 1001


@pytest.mark.parametrize("option", ["idle_timeout", "max_lifetime"])
async def test_timeouts_end_a_connection_that_is_held_back(option: str) -> None:
    async with open_server_with_raw_client(
        streams=socket_pair(), max_messages_per_second=0.001, **{option: 30}
    ) as (ws, peer):
        times = Times()
        with pytest.raises(ConnectionEnded):
            async with open_bare_nursery() as nursery:
                nursery.start_soon(times.collect, ws)
                await trio.testing.wait_all_tasks_blocked()
                await peer.send(frames(texts(100)) + frame(CLOSE, (1000).to_bytes(2)))
        assert 26 < times.now < 31
        assert times.messages == ["0"]
        assert await peer.receive_close() == 1000


async def test_keepalive_pings_a_peer_that_is_held_back_and_does_not_drop_it() -> None:
    async with open_server_with_raw_client(
        streams=socket_pair(), max_messages_per_second=0.02, ping_interval=5, ping_timeout=5
    ) as (ws, peer):
        times = Times()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(times.collect, ws, 5)
            await peer.send(frames(texts(5)))
        assert times.at == at_rate(5, 0.02, burst=1)
        await peer.send_close(1000)
        pings = await peer.receive_all_frames()
        assert len([first for first, _ in pings if first == FIN | PING]) > 20
        assert (await ws.wait_closed()).code == 1000


async def test_a_held_back_peer_that_takes_no_bytes_is_dropped() -> None:
    async with open_server_with_raw_client(
        streams=socket_pair(), max_messages_per_second=0.001, ping_interval=5, ping_timeout=5
    ) as (ws, peer):
        await peer.send(frames(texts(5)))
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        with pytest.raises(ConnectionLost):
            while True:
                await ws.send(bytes(100_000))
        assert (await ws.wait_closed()).code == 1011
        assert trio.current_time() - start < 30


async def test_a_held_back_connection_that_breaks_ends_with_the_next_write() -> None:
    async with open_server_with_raw_client(
        streams=socket_pair(), max_messages_per_second=0.001
    ) as (ws, peer):
        await peer.send(frames(texts(5)))
        await trio.testing.wait_all_tasks_blocked()
        await peer.stream.aclose()
        start = trio.current_time()
        with pytest.raises(ConnectionLost):
            while True:
                await ws.send("x")
        assert trio.current_time() - start < 1


async def test_a_nursery_of_a_held_back_connection_ends_with_it() -> None:
    async with open_server_with_raw_client(
        streams=socket_pair(), max_messages_per_second=1, on_rate_limit="close"
    ) as (ws, peer):
        start = trio.current_time()
        await peer.send(frames(texts(5)))
        with pytest.raises(ConnectionLost):
            async with ws.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                async for _ in ws:
                    pass
        assert trio.current_time() - start < 1.1


async def test_idle_connections_within_their_limits_have_no_reader_task() -> None:
    async with open_server_with_raw_client(
        streams=socket_pair(), max_messages_per_second=3, ping_interval=1
    ) as (ws, peer):
        await let_receivers_read(ws, send_text(peer))

        async def answer() -> None:
            while (received := await peer.receive_frame()) is not None:
                if received[0] == FIN | PING:
                    await peer.send_frame(PONG, received[1])

        async with open_bare_nursery() as nursery:
            nursery.start_soon(answer)
            nursery.start_soon(ws.receive)
            await trio.sleep(3)
            with counted_reader_steps() as steps:
                await trio.sleep(100)
            assert steps.count == 0
            nursery.cancel_scope.cancel()
        await peer.send_close(1000)


# ---------------------------------------------------------------------------
# Options
# ---------------------------------------------------------------------------


async def test_a_connection_without_limits_has_no_part_for_them() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        assert ws._reader._rates is None
        await peer.send_close(1000)
