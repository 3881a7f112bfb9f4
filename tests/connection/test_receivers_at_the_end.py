"""Connections that receivers read, and that end: at once for everybody, and for the same reason.

The clock is autojumped, so that the watchdog's milliseconds pass only where every task waits.
"""

from __future__ import annotations

import gc
import socket
import weakref
from contextlib import suppress
from math import inf
from typing import cast

import pytest
import trio
import trio.testing

from tests.connection.reading_helpers import (
    AWAY,
    BOTH_SIDES,
    jump,
    open_raw,
    receive_alone,
    receive_while,
    send_text,
)
from tests.helpers import (
    CONTINUATION,
    FIN,
    TEXT,
    Options,
    RawPeer,
    frame,
    open_server,
    open_server_with_raw_client,
    reset,
    tcp_pair,
)
from trio_ws import ConnectionEnded, ConnectionLost, State, WebSocket, open_websocket_url
from trio_ws._connection.reader import LAST_ANSWERS
from trio_ws._connection.watchdog import RELIEF

pytestmark = pytest.mark.autojump

ENDS = pytest.mark.parametrize("kind", ["close", "violation", "eof", "reset"])


async def end(kind: str, peer: RawPeer) -> None:
    """What a peer does that makes an end."""
    stream = cast("trio.SocketStream", peer.stream)
    if kind == "close":
        await peer.send_close(4000, "bye")
    elif kind == "violation":
        await peer.send_frame(CONTINUATION)
        await stream.send_eof()
    elif kind == "eof":
        await stream.send_eof()
    else:
        reset(stream)


CODES = {"close": 4000, "violation": 1002, "eof": 1006, "reset": 1006}


# ---------------------------------------------------------------------------
# The peer, or the network, ends it
# ---------------------------------------------------------------------------


@BOTH_SIDES
@ENDS
@pytest.mark.parametrize("waits", [False, True])
async def test_an_end_that_a_receiver_meets_is_what_it_learns(
    kind: str, side: str, waits: bool
) -> None:
    async with open_raw(side, tcp=True) as (ws, peer):
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            if waits:
                nursery.start_soon(end, kind, peer)
            else:
                await end(kind, peer)
            with pytest.raises(ConnectionLost) as caught:
                await ws.receive()
        assert caught.value.reason.code == CODES[kind]
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError) is (kind == "reset")
        assert trio.current_time() - start < RELIEF


@pytest.mark.parametrize("kind", [*CODES, "closed behind our back"])
async def test_the_end_is_seen_while_the_application_is_busy(kind: str) -> None:
    streams = await tcp_pair()
    async with open_server_with_raw_client(streams=streams) as (ws, peer):
        assert await receive_while(ws, lambda: send_text(peer)("quick")) == "quick"
        if kind in CODES:
            await end(kind, peer)
        else:
            streams[1].socket.close()
        # Before the Close frame goes out, what came before may still be answered.
        with trio.fail_after(AWAY + (LAST_ANSWERS if kind in ("close", "violation") else 0)):
            reason = await ws.wait_closed()
        assert reason.code == CODES.get(kind, 1006)


async def test_a_receiver_learns_that_the_socket_was_closed_behind_our_back() -> None:
    streams = await tcp_pair()
    async with open_server_with_raw_client(streams=streams) as (ws, peer):
        assert await receive_while(ws, lambda: send_text(peer)("quick")) == "quick"
        async with trio.open_nursery() as nursery:
            start = trio.current_time()
            nursery.start_soon(expect_loss, ws, "1006")
            await trio.testing.wait_all_tasks_blocked()
            streams[1].socket.close()
        assert trio.current_time() == start


async def expect_loss(ws: WebSocket, match: str) -> None:
    with pytest.raises(ConnectionLost, match=match):
        await ws.receive()


@pytest.mark.parametrize("violation", [False, True])
async def test_the_end_behind_a_message_waits_for_its_answer(violation: bool) -> None:
    async with open_raw() as (ws, peer):
        last = frame(CONTINUATION) if violation else frame(0x8, b"\x0f\xa0")
        await peer.send(frame(TEXT, b"the last"), last)
        assert await ws.receive() == "the last"
        await trio.sleep(0.5)
        await ws.send("the answer")
        assert await peer.receive_frame() == (FIN | TEXT, b"the answer")
        with pytest.raises(ConnectionLost, match="1002" if violation else "4000"):
            await ws.receive()


async def test_a_message_that_a_receiver_read_is_in_hand_when_the_connection_ends() -> None:
    async with open_raw(close_timeout=10) as (ws, peer):
        done: list[str | bytes] = []
        async with ws.open_nursery():
            await peer.send_frame(TEXT, b"the last")
            jump(9)
            message = await receive_alone(ws)
            await peer.send_close(1000)
            await trio.sleep(9)
            assert ws.state is State.CLOSED
            done.append(message)
            with suppress(ConnectionEnded):
                await ws.receive()
        assert done == ["the last"]


async def test_after_a_failed_write_the_reason_is_found_without_delay() -> None:
    async with open_raw() as (ws, peer), trio.open_nursery() as nursery:
        stream = cast("trio.SocketStream", peer.stream)
        stream.socket.shutdown(socket.SHUT_RD)  # writing to it fails, and it can still speak
        start = trio.current_time()

        async def send() -> None:
            with pytest.raises(ConnectionLost, match="4000"):
                await ws.send("x")
            assert trio.current_time() - start < RELIEF

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert ws.state is State.CLOSING
        for _ in range(5):
            await peer.send_frame(TEXT, b"last words")
            assert await ws.receive() == "last words"
        await peer.send_close(4000, "bye")


@pytest.mark.parametrize("says", ["nothing", "goodbye"])
async def test_a_failed_write_while_a_receiver_waits_ends_the_connection(says: str) -> None:
    async with open_raw() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(expect_loss, ws, "4000" if says == "goodbye" else "1006")
        await trio.testing.wait_all_tasks_blocked()
        cast("trio.SocketStream", peer.stream).socket.shutdown(socket.SHUT_RD)
        start = trio.current_time()

        async def send() -> None:
            with pytest.raises(ConnectionLost):
                await ws.send("x")

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert ws.state is State.CLOSING
        if says == "goodbye":
            await peer.send_close(4000, "bye")
        await ws.wait_closed()
        assert trio.current_time() - start == (1 if says == "nothing" else 0)


async def test_sending_over_a_broken_connection_ends_it_for_receivers() -> None:
    async with open_raw(tcp=True) as (ws, peer):
        reset(cast("trio.SocketStream", peer.stream))
        with pytest.raises(ConnectionLost):
            while True:
                await ws.send("x")
        with pytest.raises(ConnectionLost):
            await ws.receive()


@ENDS
async def test_a_connection_whose_end_a_receiver_met_is_freed_at_once(kind: str) -> None:
    gc.collect()
    gc.disable()
    try:
        async with open_raw(tcp=True) as (ws, peer):
            reference = weakref.ref(ws)
            await end(kind, peer)
            with suppress(ConnectionLost):
                await ws.receive()
        del ws
        await trio.testing.wait_all_tasks_blocked()
        assert reference() is None
    finally:
        gc.enable()


# ---------------------------------------------------------------------------
# The application ends it
# ---------------------------------------------------------------------------


@BOTH_SIDES
async def test_aclose_ends_the_wait_of_a_receiver_when_the_closing_is_through(side: str) -> None:
    async with open_raw(side) as (ws, peer), trio.open_nursery() as nursery:
        outcome: list[BaseException] = []

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError) as caught:
                await ws.receive()
            assert ws.state is State.CLOSED
            outcome.append(caught.value)

        async def answer() -> None:
            assert await peer.receive_close() == 4001
            await peer.send_frame(TEXT, b"too late")
            await peer.send_close(4001)
            if side == "server":  # which hangs up first
                assert await peer.receive_frame() is None
            await trio.aclose_forcefully(peer.stream)

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(answer)
        start = trio.current_time()
        await ws.aclose(4001)
        assert trio.current_time() - start < RELIEF
        assert ws.close_reason is not None
        assert ws.close_reason.code == 4001
        await trio.testing.wait_all_tasks_blocked()
        assert outcome


@pytest.mark.parametrize("receiving", [False, True])
async def test_a_closing_that_the_peer_does_not_answer_ends_with_its_time(receiving: bool) -> None:
    async with open_raw(close_timeout=7) as (ws, _), trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ws.receive()
            assert trio.current_time() - start == 7

        if receiving:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        await ws.aclose()
        assert trio.current_time() - start == 7


@pytest.mark.parametrize("receiving", [False, True])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_aclose_takes_no_longer_whoever_reads(cancelled: bool, receiving: bool) -> None:
    async with open_raw() as (ws, peer), trio.open_nursery() as nursery:

        async def answer() -> None:
            code = await peer.receive_close()
            await peer.send_close(code)

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ws.receive()

        if receiving:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
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


@pytest.mark.parametrize("receiving", [False, True])
@pytest.mark.parametrize("kind", ["aclose", "cancelled", "idle_timeout", "max_lifetime"])
async def test_a_server_closes_connections_whoever_reads(kind: str, receiving: bool) -> None:
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
        told_at = trio.current_time()
        earliest = 27 if kind == "max_lifetime" else 29.9
        assert earliest <= told_at - start <= 30.1
        await ws.wait_closed()
        assert trio.current_time() - told_at == pytest.approx(10, abs=0.1)


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
