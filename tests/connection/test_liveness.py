"""Bytes that move are life: when a peer is dropped while a large message is on its way."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import FIN, PING, PONG, RawPeer, forever, open_server_with_raw_client, tcp_pair
from trio_ws import ConnectionLost, State, WebSocket, open_broadcast
from trio_ws.testing import FaultyStream

KEEPALIVE: dict[str, Any] = {"ping_interval": 2, "ping_timeout": 2, "compression": None}


@asynccontextmanager
async def open_slow_link(
    bytes_per_second: int, **options: Any
) -> AsyncGenerator[tuple[WebSocket, RawPeer, FaultyStream], None]:
    """A server's connection whose stream takes so many bytes a second, in 250 pieces."""
    client, server = trio.testing.memory_stream_pair()
    link = FaultyStream(server, delay=0.004, max_send=bytes_per_second // 250)
    options = {**KEEPALIVE, **options}
    async with open_server_with_raw_client(streams=(client, link), **options) as (ws, peer):
        yield ws, peer, link


async def answer_pings(peer: RawPeer, answered: list[float]) -> None:
    while (received := await peer.receive_frame()) is not None:
        if received[0] == FIN | PING:
            answered.append(trio.current_time())
            await peer.send_frame(PONG, received[1])


@pytest.mark.autojump
async def test_a_steady_reader_of_one_large_message_is_kept() -> None:
    answered: list[float] = []
    async with open_slow_link(1_024_000) as (ws, peer, _), trio.open_nursery() as nursery:
        nursery.start_soon(answer_pings, peer, answered)
        start = trio.current_time()
        await ws.send(bytes(10_240_000))
        await trio.sleep(20)
        assert ws.state is State.OPEN
        # One ping waits behind the message; the others come when it is through.
        assert [at - start for at in answered if at - start < 10] == []
        assert len([at for at in answered if at - start < 11]) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.autojump
async def test_a_reader_of_a_large_message_that_stops_is_dropped() -> None:
    async with open_slow_link(1_024_000) as (ws, peer, link), trio.open_nursery() as nursery:
        nursery.start_soon(answer_pings, peer, [])
        await ws.send(bytes(10_240_000))
        await trio.sleep(5)
        link.stall_sends()
        start = trio.current_time()
        with pytest.raises(ConnectionLost, match="1011 .*the peer takes no data"):
            await ws.receive()
        assert trio.current_time() - start == pytest.approx(4, abs=0.2)
        nursery.cancel_scope.cancel()


@pytest.mark.autojump
async def test_ping_timeout_runs_from_when_the_ping_has_left() -> None:
    async with open_slow_link(1_024_000) as (ws, peer, _), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read_and_say_nothing() -> None:
            await peer.receive_all_frames()

        start = trio.current_time()
        await ws.send(bytes(10_240_000))
        with pytest.raises(ConnectionLost, match="1011 .*the peer does not answer"):
            await ws.receive()
        assert trio.current_time() - start == pytest.approx(10 + 2, abs=0.2)
        nursery.cancel_scope.cancel()


@pytest.mark.autojump
async def test_a_ping_behind_what_was_taken_back_has_left_when_all_has() -> None:
    async with (
        open_broadcast() as broadcast,
        open_slow_link(1_024_000) as (ws, peer, link),
        trio.open_nursery() as nursery,
    ):
        link.stall_sends()
        with broadcast.subscribe(ws, "t"):
            for _ in range(3):
                broadcast.publish(bytes(10_000), "t")
            await trio.sleep(3)  # a ping stands in line now
            ws._outbox.drop_parcels()
        link.go_on()

        @nursery.start_soon
        async def read_and_say_nothing() -> None:
            await peer.receive_all_frames()

        start = trio.current_time()
        with pytest.raises(ConnectionLost, match="1011 .*the peer does not answer"):
            await ws.receive()
        assert trio.current_time() - start == pytest.approx(2, abs=0.2)
        nursery.cancel_scope.cancel()


@pytest.mark.autojump
@pytest.mark.parametrize("taken_back", [False, True], ids=["waits", "waited before the ping"])
async def test_a_ping_within_a_message_in_fragments_does_not_wait_for_what_is_published(
    taken_back: bool,
) -> None:
    async with (
        open_broadcast() as broadcast,
        open_slow_link(1_024_000) as (ws, peer, link),
        trio.open_nursery() as nursery,
    ):

        @nursery.start_soon
        async def read_and_say_nothing() -> None:
            await peer.receive_all_frames()

        start = trio.current_time()
        with broadcast.subscribe(ws, "t"):
            if taken_back:
                link.stall_sends()
                for _ in range(3):
                    broadcast.publish(bytes(10_000), "t")
                await trio.sleep(3)  # a ping stands in line now
                ws._outbox.drop_parcels()
                link.go_on()
                start += 1
            with (
                trio.fail_after(60),
                pytest.raises(ConnectionLost, match="1011 .*the peer does not answer"),
            ):
                async with ws.open_message("text"):
                    broadcast.publish("waits for the end of the message", "t")
                    await ws.receive()
        assert trio.current_time() - start == pytest.approx(4, abs=0.2)
        nursery.cancel_scope.cancel()


@pytest.mark.autojump
async def test_a_steady_reader_that_was_quick_at_first_is_kept() -> None:
    # A stream tells how far it has come only when it has taken a whole piece.
    class Slowing(FaultyStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            if self.bytes_sent >= 1_000_000:
                await trio.sleep(len(data) / 5_000)
            await super().send_all(data)

    client, server = trio.testing.memory_stream_pair()
    streams = client, Slowing(server)
    answered: list[float] = []
    async with (
        open_server_with_raw_client(streams=streams, **KEEPALIVE) as (ws, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(answer_pings, peer, answered)
        await ws.send(bytes(1_500_000))
        await trio.sleep(120)
        assert ws.state is State.OPEN
        assert answered
        nursery.cancel_scope.cancel()


@pytest.mark.autojump
async def test_a_vanished_peer_is_dropped_in_time_although_we_go_on_sending() -> None:
    # What a stream takes at once proves nothing: it is the system that takes it.
    async with open_server_with_raw_client(**KEEPALIVE) as (ws, _), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send_now_and_then() -> None:
            with pytest.raises(ConnectionLost):
                while True:
                    await ws.send("are you still there?")
                    await trio.sleep(0.5)

        start = trio.current_time()
        with pytest.raises(ConnectionLost, match="1011 .*the peer does not answer"):
            await ws.receive()
        assert trio.current_time() - start == pytest.approx(4, abs=0.2)


async def test_over_tcp_a_steady_reader_is_kept_and_one_that_stops_is_dropped() -> None:
    client, server = await tcp_pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    options = {**KEEPALIVE, "ping_interval": 0.4, "ping_timeout": 0.4}
    async with open_server_with_raw_client(streams=(client, server), **options) as (ws, peer):
        stop = trio.Event()

        async def read_steadily() -> None:
            while not stop.is_set():
                await client.receive_some(20_000)
                await trio.sleep(0.02)
            await forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_steadily)
            await ws.send(bytes(20_000_000))
            await trio.sleep(3)  # it has given no other sign of life for all that time
            assert ws.state is State.OPEN
            assert ws.statistics().unsent_bytes > 10_000_000
            stop.set()
            with pytest.raises(ConnectionLost, match="1011 .*the peer takes no data"):
                await ws.receive()
            nursery.cancel_scope.cancel()
        peer.received.clear()
