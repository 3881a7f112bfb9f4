"""After a sleep of this computer a dead link is found within seconds, and a living one is kept."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
import trio.testing

from tests.connection.connection_helpers import BOTH_SIDES
from tests.helpers import (
    FIN,
    HOST,
    PING,
    PONG,
    REQUEST,
    TEXT,
    Laptop,
    RawPeer,
    echo,
    open_client_with_raw_server,
    open_server,
    open_server_with_raw_client,
    receive_head,
    socket_pair,
)
from trio_ws import ConnectionLost, State, WebSocket
from trio_ws._connection.liveness import WAKE_PATIENCE
from trio_ws._connection.services import open_services
from trio_ws._connection.silence import Silence
from trio_ws._pacing import SECOND_LOOK
from trio_ws._waking import LOOK
from trio_ws.testing import FaultyStream

pytestmark = pytest.mark.autojump

#: How long it may take from waking until a dead link is known to be dead.
IN_TIME = LOOK + WAKE_PATIENCE + SECOND_LOOK

LOST = "1011 .*the peer has not answered since this computer slept"

STREAMS = pytest.mark.parametrize(
    "make_streams", [trio.testing.memory_stream_pair, socket_pair], ids=["memory", "socket"]
)


class Pings:
    """What a peer gets from us, noted and not answered unless it `answers`."""

    def __init__(self, nursery: trio.Nursery, peer: RawPeer, *, answers: bool) -> None:
        self.times: list[float] = []
        self.payloads: list[bytes] = []
        nursery.start_soon(self._note, peer, answers)

    async def _note(self, peer: RawPeer, answers: bool) -> None:
        while (received := await peer.receive_frame()) is not None:
            first, payload = received
            if first == FIN | PING:
                self.times.append(trio.current_time())
                self.payloads.append(payload)
                if answers:
                    await peer.send_frame(PONG, payload)


async def time_of_loss(ws: WebSocket, match: str = LOST) -> float:
    with pytest.raises(ConnectionLost, match=match):
        await ws.receive()
    return trio.current_time()


@BOTH_SIDES
@STREAMS
async def test_a_link_that_died_in_an_hour_of_sleep_is_found_dead(
    open_raw: Any, make_streams: Any
) -> None:
    laptop = Laptop()
    async with (
        open_raw(streams=make_streams()) as (ws, peer),
        trio.open_nursery() as nursery,
    ):
        pings = Pings(nursery, peer, answers=False)
        await trio.sleep(7.3)
        laptop.sleep(3600)
        woke = trio.current_time()
        assert await time_of_loss(ws) - woke <= IN_TIME
        assert [at - woke <= LOOK for at in pings.times] == [True]
        nursery.cancel_scope.cancel()


@BOTH_SIDES
@STREAMS
async def test_a_living_link_gets_one_ping_more_and_goes_on(
    open_raw: Any, make_streams: Any
) -> None:
    laptop = Laptop()
    async with (
        open_raw(streams=make_streams()) as (ws, peer),
        trio.open_nursery() as nursery,
    ):
        pings = Pings(nursery, peer, answers=True)
        await trio.sleep(7.3)
        laptop.sleep(3600)
        woke = trio.current_time()
        await trio.sleep(59)
        first, *others = [at - woke for at in pings.times]
        assert first <= LOOK
        assert others == pytest.approx([first + 20, first + 40])  # as keepalive always does
        assert ws.state is State.OPEN
        await peer.send_frame(TEXT, b"still here")
        assert await ws.receive() == "still here"
        nursery.cancel_scope.cancel()


async def test_anything_that_the_peer_says_in_time_is_an_answer() -> None:
    laptop = Laptop()
    async with open_server_with_raw_client() as (ws, peer):
        laptop.sleep(3600)
        await peer.receive_frame()
        await trio.sleep(WAKE_PATIENCE - 0.1)
        await peer.send_frame(TEXT, b"not a pong")
        assert await ws.receive() == "not a pong"
        await trio.sleep(10)
        assert ws.state is State.OPEN
        await peer.send_close(1000)


async def test_what_came_after_waking_and_before_the_look_is_no_answer_to_the_ping() -> None:
    # It may have waited in the system's buffers since before the sleep.
    laptop = Laptop()
    async with open_server_with_raw_client() as (ws, peer):
        laptop.sleep(3600)
        await trio.sleep(LOOK / 2)
        await peer.send_frame(TEXT, b"an old one")
        assert await ws.receive() == "an old one"
        woke = trio.current_time()
        assert await time_of_loss(ws) - woke <= IN_TIME


@pytest.mark.parametrize("answers", [True, False])
async def test_a_sleep_while_a_ping_is_not_answered_yet_starts_a_new_one(answers: bool) -> None:
    laptop = Laptop()
    async with (
        open_server_with_raw_client() as (ws, peer),
        trio.open_nursery() as nursery,
    ):
        pings = Pings(nursery, peer, answers=False)
        await trio.sleep(25)
        assert len(pings.times) == 1
        laptop.sleep(3600)
        await trio.sleep(LOOK + 0.1)
        assert len(pings.times) == 2
        if answers:
            await peer.send_frame(PONG, pings.payloads[0])  # to the one before the sleep
            await trio.sleep(15)
            assert ws.state is State.OPEN
        else:
            assert await time_of_loss(ws) <= 25 + IN_TIME
        nursery.cancel_scope.cancel()


async def test_after_two_sleeps_in_a_row_the_time_runs_from_the_second() -> None:
    laptop = Laptop()
    async with (
        open_server_with_raw_client() as (ws, peer),
        trio.open_nursery() as nursery,
    ):
        pings = Pings(nursery, peer, answers=False)
        laptop.sleep(3600)
        await trio.sleep(2.5)
        assert len(pings.times) == 1
        laptop.sleep(60)
        woke = trio.current_time()
        lost = await time_of_loss(ws)
        assert len(pings.times) == 2
        assert lost - pings.times[1] == pytest.approx(WAKE_PATIENCE + SECOND_LOOK)
        assert lost - woke <= IN_TIME
        nursery.cancel_scope.cancel()


async def test_a_peer_that_seemed_gone_before_the_sleep_gets_a_second_look_as_any_other() -> None:
    laptop = Laptop()
    # It seems gone for the first time just before the look.
    async with open_server_with_raw_client(ping_timeout=20 - SECOND_LOOK / 2) as (ws, _):
        start = trio.current_time()
        await trio.sleep(40 - SECOND_LOOK)
        laptop.sleep(3600)
        lost = await time_of_loss(ws)
        assert lost - start == pytest.approx(40 + WAKE_PATIENCE + SECOND_LOOK, abs=0.01)


# Options…


async def test_where_keepalive_is_off_a_sleep_is_not_even_looked_for() -> None:
    laptop = Laptop()
    async with (
        open_server_with_raw_client(ping_interval=math.inf) as (ws, peer),
        trio.open_nursery() as nursery,
    ):
        pings = Pings(nursery, peer, answers=False)
        await trio.sleep(5)
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf
        laptop.sleep(3600)
        await trio.sleep(3600)
        assert pings.times == []
        assert ws.state is State.OPEN
        nursery.cancel_scope.cancel()
        await peer.send_close(1000)


async def test_where_keepalive_is_off_a_connection_that_is_watched_is_not_pinged() -> None:
    laptop = Laptop()
    options: Any = {"ping_interval": math.inf, "max_lifetime": 200}
    async with (
        open_server_with_raw_client(**options) as (ws, peer),
        trio.open_nursery() as nursery,
    ):
        pings = Pings(nursery, peer, answers=True)
        laptop.sleep(3600)
        await trio.sleep(99)
        assert pings.times == []
        assert ws.state is State.OPEN
        await peer.send_close(1000)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("ping_timeout", [1.0, math.inf])
async def test_it_takes_no_longer_than_ping_timeout_and_none_is_none(ping_timeout: float) -> None:
    laptop = Laptop()
    async with (
        open_server_with_raw_client(ping_timeout=ping_timeout) as (ws, peer),
        trio.open_nursery() as nursery,
    ):
        pings = Pings(nursery, peer, answers=False)
        laptop.sleep(3600)
        if ping_timeout < math.inf:
            assert await time_of_loss(ws) <= LOOK + ping_timeout + SECOND_LOOK
        else:
            await trio.sleep(3600)
            assert ws.state is State.OPEN
        assert pings.times[0] <= LOOK
        nursery.cancel_scope.cancel()


# Bytes that wait…


async def test_a_peer_that_cannot_be_heard_because_we_do_not_read_is_not_dropped() -> None:
    laptop = Laptop()
    async with (
        open_server_with_raw_client(max_queued_messages=1) as (ws, peer),
        trio.open_nursery() as nursery,
    ):
        pings = Pings(nursery, peer, answers=False)
        await peer.send_frame(TEXT, b"taken late")
        await trio.sleep(5)
        laptop.sleep(3600)
        await trio.sleep(30)
        assert ws.state is State.OPEN
        assert len(pings.times) == 2  # a write can still show that the link is broken
        assert await ws.receive() == "taken late"
        resumed = trio.current_time()
        assert await time_of_loss(ws, "the peer does not answer") - resumed > 19
        nursery.cancel_scope.cancel()


async def test_where_the_ping_waits_behind_other_bytes_the_time_runs_from_when_it_left() -> None:
    laptop = Laptop()
    client, server = trio.testing.memory_stream_pair()
    link = FaultyStream(server)
    async with (
        open_server_with_raw_client(streams=(client, link)) as (ws, peer),
        trio.open_nursery() as nursery,
    ):
        pings = Pings(nursery, peer, answers=False)
        link.stall_sends()
        await ws.send(bytes(1000))
        laptop.sleep(3600)
        await trio.sleep(10)
        laptop.sleep(3600)  # a second ping would only wait behind the first
        await trio.sleep(10)
        assert ws.state is State.OPEN  # it may be alive, and slow to read
        link.go_on()
        went_on = trio.current_time()
        lost = await time_of_loss(ws)
        assert len(pings.times) == 2
        assert WAKE_PATIENCE <= lost - went_on <= 3 * WAKE_PATIENCE
        nursery.cancel_scope.cancel()


async def test_a_peer_that_takes_nothing_is_dropped_as_if_nobody_had_slept() -> None:
    laptop = Laptop()
    client, server = trio.testing.memory_stream_pair()
    link = FaultyStream(server)
    async with open_server_with_raw_client(streams=(client, link)) as (ws, _):
        link.stall_sends()
        await ws.send(bytes(1000))
        laptop.sleep(3600)
        assert await time_of_loss(ws, "the peer takes no data") == pytest.approx(40, abs=0.1)


async def test_a_feed_that_sends_no_messages_has_all_its_time_again() -> None:
    laptop = Laptop()
    async with open_services() as services, open_server_with_raw_client() as (ws, peer):
        watched = Silence(ws, services, 60)
        async with trio.open_nursery() as nursery:
            Pings(nursery, peer, answers=True)
            await trio.sleep(50)
            laptop.sleep(3600)
            woke = trio.current_time()
            took = await time_of_loss(ws, "no message for 60 s") - woke
            assert 60 <= took <= 60 + LOOK + SECOND_LOOK
            del watched
            nursery.cancel_scope.cancel()


async def test_a_connection_that_is_closing_is_not_pinged() -> None:
    laptop = Laptop()
    async with (
        open_client_with_raw_server() as (ws, peer),
        trio.open_nursery() as nursery,
    ):
        pings = Pings(nursery, peer, answers=False)
        await trio.sleep(1)
        nursery.start_soon(ws.aclose)
        await trio.sleep(1)
        laptop.sleep(3600)
        await ws.wait_closed()
        assert pings.times == []
        nursery.cancel_scope.cancel()


# Many…


async def test_a_server_keeps_who_answers_and_drops_who_does_not() -> None:
    laptop = Laptop()
    lost: list[str] = []

    async def handler(ws: WebSocket) -> None:
        try:
            await echo(ws)
        except ConnectionLost as exc:
            lost.append(exc.reason.reason)

    async with open_server(handler) as server, trio.open_nursery() as nursery:
        peers = []
        for number in range(6):
            stream = await trio.open_tcp_stream(HOST, server.port)
            await stream.send_all(REQUEST)
            peers.append(peer := RawPeer(stream, masks=True))
            await receive_head(peer)
            Pings(nursery, peer, answers=number % 2 == 0)
        laptop.sleep(3600)
        await trio.sleep(IN_TIME + 0.5)
        assert lost == ["the peer has not answered since this computer slept"] * 3
        await trio.sleep(100)
        assert len(lost) == len(server.connections) == 3
        nursery.cancel_scope.cancel()
    for peer in peers:
        await peer.stream.aclose()
