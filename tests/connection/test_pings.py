"""Pings, latency, and the watchdog: keepalive, stalled peers, idle and old connections."""

from __future__ import annotations

import contextvars
import math
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import (
    CLOSE,
    FIN,
    PING,
    PONG,
    TEXT,
    RawPeer,
    close_code,
    open_client_with_raw_server,
    open_pair,
    open_server_with_raw_client,
    socket_pair,
)
from trio_ws import ConnectionEnded, ConnectionLost, State, WebSocket
from trio_ws._connection.pings import SentPings
from trio_ws.testing import FaultyStream

pytestmark = pytest.mark.autojump


async def test_ping_returns_the_round_trip_and_latency_keeps_it() -> None:
    async with open_server_with_raw_client() as (ws, peer), trio.open_nursery() as nursery:
        assert ws.latency is None

        async def answer() -> None:
            first, payload = await peer.receive_frame() or (0, b"")
            assert first == FIN | PING
            assert len(payload) == 4
            await trio.sleep(0.25)
            await peer.send_frame(PONG, payload)

        nursery.start_soon(answer)
        assert await ws.ping() == pytest.approx(0.25)
        assert ws.latency == pytest.approx(0.25)
        assert ws.statistics().latency == ws.latency
        await peer.send_close(1000)


async def test_a_ping_carries_the_payload_that_it_is_given() -> None:
    async with open_server_with_raw_client() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.ping, b"hello")
        assert await peer.receive_frame() == (FIN | PING, b"hello")
        await peer.send_frame(PONG, b"hello")
        await peer.send_close(1000)


async def test_a_ping_of_more_than_125_bytes_is_a_value_error() -> None:
    async with open_pair() as (client, _):
        assert await client.ping(b"x" * 125) >= 0
        with pytest.raises(ValueError, match="125 bytes"):
            await client.ping(b"x" * 126)
        wrong: Any = "text"
        with pytest.raises(TypeError, match="a buffer, such as bytes, not str"):
            await client.ping(wrong)


async def test_a_pong_answers_all_pings_before_it_and_none_after() -> None:
    async with open_server_with_raw_client() as (ws, peer), trio.open_nursery() as nursery:
        answered: list[bytes] = []

        async def ping(payload: bytes) -> None:
            await ws.ping(payload)
            answered.append(payload)

        for payload in (b"1", b"2", b"3"):
            nursery.start_soon(ping, payload)
            await trio.testing.wait_all_tasks_blocked()
        await peer.send_frame(PONG, b"2")
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(answered) == [b"1", b"2"]
        await peer.send_frame(PONG, b"1")  # repeated
        await peer.send_frame(PONG, b"unsolicited")
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(answered) == [b"1", b"2"]
        await peer.send_frame(PONG, b"3")
        await peer.send_frame(TEXT, b"done")
        assert await ws.receive() == "done"
        await peer.send_close(1000)


async def test_a_cancelled_ping_leaves_nothing_and_its_late_pong_is_ignored() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        with trio.move_on_after(1) as scope:
            await ws.ping(b"late")
        assert scope.cancelled_caught
        await peer.send_frame(PONG, b"late")
        await trio.testing.wait_all_tasks_blocked()
        assert ws.latency is None
        await peer.send_close(1000)


async def peer_closes(ws: WebSocket, peer: RawPeer) -> None:
    await peer.send_close(1000)


async def transport_ends(ws: WebSocket, peer: RawPeer) -> None:
    await peer.stream.aclose()


async def we_close(ws: WebSocket, peer: RawPeer) -> None:
    await ws.aclose()


#: How a connection ends, and what a ping in flight then raises.
ENDS = {
    "peer closes": (peer_closes, ConnectionEnded),
    "transport ends": (transport_ends, ConnectionLost),
    "we close": (we_close, trio.ClosedResourceError),
}


@pytest.mark.parametrize("how", ENDS)
async def test_a_ping_in_flight_ends_with_the_connection(how: str) -> None:
    end, expected = ENDS[how]
    async with open_server_with_raw_client(close_timeout=1) as (ws, peer):
        outcome: list[BaseException] = []

        async def ping() -> None:
            try:
                await ws.ping()
            except Exception as exc:
                outcome.append(exc)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping)
            await trio.testing.wait_all_tasks_blocked()
            await end(ws, peer)
        assert [isinstance(exc, expected) for exc in outcome] == [True]
        with pytest.raises(expected):
            await ws.ping()


async def test_pings_are_answered_while_the_application_does_not_receive() -> None:
    async with open_server_with_raw_client() as (_, peer):
        await peer.send_frame(TEXT, b"unread")
        await peer.send_frame(PING, b"still there?")
        assert await peer.receive_frame() == (FIN | PONG, b"still there?")
        await peer.send_close(1000)


# Keepalive…


async def test_a_silent_peer_is_pinged_and_dropped_with_1011_when_it_stays_silent() -> None:
    async with open_client_with_raw_server(streams=socket_pair()) as (ws, peer):
        start = trio.current_time()
        first, _ = await peer.receive_frame() or (0, b"")
        assert first == FIN | PING
        assert trio.current_time() - start == pytest.approx(20)
        with pytest.raises(ConnectionLost, match="1011 .*the peer does not answer"):
            await ws.receive()
        assert trio.current_time() - start == pytest.approx(40, abs=0.1)
        first, payload = await peer.receive_frame() or (0, b"")
        assert (first, close_code(payload)) == (FIN | CLOSE, 1011)


async def test_a_peer_that_answers_pings_is_kept_and_measured() -> None:
    async with open_pair() as (client, server):
        await trio.sleep(1000)
        assert client.state is State.OPEN
        assert server.latency is not None


async def test_any_byte_counts_as_life() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        # A slow frame of which a byte comes every 15 s: not one is an answer to a ping.
        for byte in bytes([FIN | 0x2, 0x80 | 20]) + bytes(23):
            await peer.send(bytes([byte]))
            await trio.sleep(15)
        assert ws.state is State.OPEN
        await peer.send(bytes([1]))
        assert len(await ws.receive()) == 20
        await peer.send_close(1000)


async def test_a_peer_that_ignores_pings_but_talks_makes_nothing_pile_up() -> None:
    async with open_server_with_raw_client(ping_interval=1, ping_timeout=2) as (ws, peer):
        for _ in range(50):
            await trio.sleep(2)
            await peer.send_frame(TEXT, b"x")
            await ws.receive()
        await peer.send_frame(PONG, b"none of them")
        assert ws.state is State.OPEN
        assert len(await _frames_so_far(ws, peer)) == 50


async def _frames_so_far(ws: object, peer: object) -> list[object]:
    frames: list[object] = []
    with trio.move_on_after(0.5):
        while True:
            frames.append(await peer.receive_frame())  # type: ignore[attr-defined]
    return frames


async def test_keepalive_can_be_turned_off() -> None:
    async with open_server_with_raw_client(ping_interval=math.inf) as (ws, peer):
        await trio.sleep(100_000)
        assert ws.state is State.OPEN
        await peer.send_close(1000)


async def test_an_answer_that_waited_while_the_program_stood_still_counts() -> None:
    pings = {"ping_interval": 1, "ping_timeout": 1}
    async with open_server_with_raw_client(streams=socket_pair(), **pings) as (ws, peer):
        first, payload = await peer.receive_frame() or (0, b"")
        assert first == FIN | PING
        await peer.send_frame(PONG, payload)
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(5)  # without a turn for the reader
        await trio.sleep(0.5)
        assert ws.state is State.OPEN
        await peer.send_close(1000)


async def test_a_peer_that_stops_reading_is_dropped_although_it_talks() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(server_stream)
    async with (
        open_server_with_raw_client(
            streams=(client_stream, stream), ping_interval=1, ping_timeout=1, max_send_buffer=10
        ) as (ws, peer),
        trio.open_nursery() as nursery,
    ):

        async def talk() -> None:
            while True:
                await peer.send_frame(TEXT, b"me, me, me")
                await trio.sleep(0.3)

        nursery.start_soon(talk)
        stream.stall_sends()
        start = trio.current_time()
        await ws.send(b"x" * 100)
        with pytest.raises(ConnectionLost, match="1011 .*takes no data"):
            await ws.send(b"waits for room")
        assert trio.current_time() - start <= 5
        nursery.cancel_scope.cancel()


async def test_a_live_peer_is_not_dropped_while_our_handler_is_slow() -> None:
    async with open_pair(
        server={"ping_interval": 1, "ping_timeout": 1, "max_queued_messages": 1},
        client={"ping_interval": math.inf},
        streams=socket_pair(),
    ) as (client, server):
        for _ in range(10):
            client.send_nowait("x")
        await trio.sleep(100)  # the queue is full, so no pong can be read
        assert server.state is State.OPEN
        assert [await server.receive() for _ in range(10)] == ["x"] * 10
        await trio.sleep(100)
        assert server.state is State.OPEN


async def test_a_peer_that_vanishes_while_reading_was_paused_is_dropped_after_it_resumes() -> None:
    async with open_server_with_raw_client(
        ping_interval=1, ping_timeout=1, max_queued_messages=1
    ) as (ws, peer):
        await peer.send_frame(TEXT, b"1")
        await trio.sleep(50)
        assert await ws.receive() == "1"
        start = trio.current_time()
        with pytest.raises(ConnectionLost, match="1011"):
            await ws.receive()
        assert trio.current_time() - start == pytest.approx(2, abs=0.1)


async def test_only_the_last_keepalive_ping_is_remembered() -> None:
    pings = SentPings()
    pings.add_probe(b"first")
    pings.add_probe(b"second")
    latencies: list[float | None] = []
    for payload in (b"first", b"second"):
        pings.answer(payload)
        latencies.append(pings.latency)
    assert latencies == [None, 0.0]
    pings.add_probe(b"third")  # the second is answered and gone
    pings.answer(b"third")


# Idle and old connections…


async def test_an_idle_connection_is_closed_with_1000() -> None:
    async with open_pair(server={"idle_timeout": 60}) as (client, server):
        await trio.sleep(50)
        await client.send("not idle yet")
        await trio.sleep(50)
        await server.send("nor now")
        start = trio.current_time()
        assert (await client.wait_closed()).reason == "idle for too long"
        assert trio.current_time() - start == pytest.approx(60)
        assert client.close_reason is not None
        assert client.close_reason.code == 1000


async def test_large_messages_count_against_idleness() -> None:
    async with open_pair(server={"idle_timeout": 10}) as (client, server):
        for _ in range(5):
            await trio.sleep(6)
            await server.send(bytes(64 * 1024))
            await client.receive()
        assert client.state is State.OPEN


async def test_messages_in_fragments_count_against_idleness() -> None:
    async with open_pair(server={"idle_timeout": 10}) as (client, server):
        for _ in range(5):
            await trio.sleep(6)
            async with server.open_message("text") as writer:
                await writer.send("part")
            await client.receive()
        assert client.state is State.OPEN


async def test_an_old_connection_is_closed_with_1000() -> None:
    async with open_pair(server={"max_lifetime": 600}) as (client, _):
        start = trio.current_time()
        assert [message async for message in client] == []
        assert 540 <= trio.current_time() - start <= 600
        assert client.close_reason is not None
        assert client.close_reason.reason == "open for too long"


async def test_connections_that_began_together_grow_old_over_a_tenth_of_max_lifetime() -> None:
    ends: list[float] = []

    async def live() -> None:
        async with open_pair(server={"max_lifetime": 600}) as (client, _):
            await client.wait_closed()
            ends.append(trio.current_time() - start)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(live)
    assert 540 <= min(ends) < 560
    assert 580 < max(ends) <= 600.1


async def test_keepalive_goes_on_in_a_block_that_is_shielded_from_a_cancellation() -> None:
    with trio.CancelScope() as scope:
        async with open_client_with_raw_server(ping_interval=5) as (_, peer):
            scope.cancel()
            with trio.CancelScope(shield=True):
                received = await peer.receive_frame()
                assert received is not None
                assert received[0] == FIN | PING
                assert trio.current_time() == pytest.approx(5)
                await peer.send_close(1000)


# Pongs that nobody asked for…


async def test_a_pong_can_be_sent_without_a_ping() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await ws.pong()
        await ws.pong(b"alive")
        await ws.pong(memoryview(b"x" * 125))
        assert await peer.receive_frame() == (FIN | PONG, b"")
        assert await peer.receive_frame() == (FIN | PONG, b"alive")
        assert await peer.receive_frame() == (FIN | PONG, b"x" * 125)
        await peer.send_close(1000)
        await ws.wait_closed()
        with pytest.raises(ConnectionEnded):
            await ws.pong()


async def test_a_pong_between_two_of_ours_answers_no_ping_and_disturbs_no_message() -> None:
    async with open_pair() as (client, server):
        async with client.open_message("text") as writer:
            await writer.send("one ")
            await client.pong(b"still here")
            await writer.send("message")
        assert await server.receive() == "one message"
        assert await client.ping() >= 0


async def test_a_pong_waits_for_room_as_a_message_does() -> None:
    one, other = socket_pair()
    async with open_server_with_raw_client(streams=(one, other), close_timeout=0.1) as (ws, _):
        await ws.send(b"x" * 2**23)
        with trio.move_on_after(1) as scope:
            await ws.pong()
        assert scope.cancelled_caught


async def test_a_pong_that_cannot_be_sent_is_an_error_at_once() -> None:
    wrong: Any = "text"
    async with open_pair() as (client, _):
        with pytest.raises(ValueError, match="holds at most 125 bytes, not 126"):
            await client.pong(bytes(126))
        with pytest.raises(TypeError, match="a buffer, such as bytes, not str"):
            await client.pong(wrong)
        await client.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await client.pong()


# The hook…


@pytest.mark.parametrize("opener", [open_server_with_raw_client, open_client_with_raw_server])
async def test_the_application_can_be_told_of_every_ping_and_pong(opener: Any) -> None:
    told: list[tuple[WebSocket, str, bytes]] = []

    def tell(ws: WebSocket, kind: str, payload: bytes) -> None:
        told.append((ws, kind, payload))

    async with opener(on_ping_pong=tell) as (ws, peer):
        await peer.send_frame(PING, b"one")
        await peer.send_frame(TEXT, b"text")
        await peer.send_frame(PONG)
        assert await ws.receive() == "text"
        assert await peer.receive_frame() == (FIN | PONG, b"one")
        await trio.testing.wait_all_tasks_blocked()
        assert told == [(ws, "ping", b"one"), (ws, "pong", b"")]
        await peer.send_close(1000)


async def test_the_hook_sees_keepalive_s_pongs_and_may_send() -> None:
    seen: list[str] = []

    def tell(ws: WebSocket, kind: str, payload: bytes) -> None:
        seen.append(kind)
        ws.send_nowait(f"{kind} of {len(payload)}")

    async with open_pair(client={"ping_interval": 1, "on_ping_pong": tell}) as (_, server):
        await trio.sleep(1.5)
        assert await server.receive() == "pong of 4"
        assert seen == ["pong"]


@pytest.mark.parametrize("wait", [0, 1])
async def test_whichever_task_reads_the_hook_has_the_context_of_the_opening(wait: float) -> None:
    variable = contextvars.ContextVar[str]("variable")
    seen: list[str] = []

    def tell(ws: WebSocket, kind: str, payload: bytes) -> None:
        seen.append(variable.get())

    variable.set("at the opening")
    streams = socket_pair()
    async with open_server_with_raw_client(streams=streams, on_ping_pong=tell) as (ws, peer):
        await trio.sleep(wait)
        variable.set("while receiving")
        await peer.send_frame(PING)
        await peer.send_frame(TEXT, b"text")
        assert await ws.receive() == "text"
    assert seen == ["at the opening"]


async def test_a_hook_that_fails_is_logged_and_the_connection_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(ws: WebSocket, kind: str, payload: bytes) -> None:
        raise ValueError("what is wrong")

    async with open_server_with_raw_client(on_ping_pong=fail) as (ws, peer):
        await peer.send_frame(PING)
        await peer.send_frame(TEXT, b"text")
        assert await ws.receive() == "text"
        await peer.send_close(1000)
    assert "on_ping_pong failed" in caplog.text
    assert "what is wrong" in caplog.text
