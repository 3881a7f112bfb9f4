"""`WebSocket`, the end in good order: aclose, the Close of the peer, deadlines."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.connection.connection_helpers import BOTH_SIDES
from tests.helpers import (
    BINARY,
    CLOSE,
    FIN,
    PING,
    TEXT,
    URL,
    RawPeer,
    frame,
    open_client_with_raw_server,
    open_pair,
    open_server,
    open_server_with_raw_client,
)
from trio_ws import CloseReason, ConnectionEnded, Initiator, State, WebSocket, open_websocket_url
from trio_ws.testing import FaultyStream

pytestmark = pytest.mark.autojump


def state(ws: WebSocket) -> State:
    """`ws.state`, without a type checker's belief that it stays what it was."""
    return ws.state


@BOTH_SIDES
async def test_aclose_sends_close_and_waits_for_the_peers_answer(open_raw: Any) -> None:
    async with open_raw() as (ws, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.aclose, 4001, "done")
            first, payload = await peer.receive_frame()
            assert (first, payload) == (FIN | CLOSE, (4001).to_bytes(2, "big") + b"done")
            await trio.testing.wait_all_tasks_blocked()
            assert state(ws) is State.CLOSING
            assert ws.close_reason is None
            await peer.send_close(4001, "done")
            await peer.stream.aclose()
        assert state(ws) is State.CLOSED
        assert ws.close_reason == CloseReason(4001, "done", Initiator.LOCAL)


@BOTH_SIDES
@pytest.mark.parametrize("code", [1000, 1001, 4321, None])
async def test_the_peers_close_is_answered_with_the_same_code(open_raw: Any, code: Any) -> None:
    async with open_raw() as (ws, peer):
        await peer.send_close(code, "why" if code else "")
        assert await peer.receive_close() == code
        await peer.stream.aclose()
        reason = await ws.wait_closed()
        assert reason == CloseReason(code or 1005, "why" if code else "", Initiator.REMOTE)


@BOTH_SIDES
async def test_an_answer_without_a_code_agrees_with_ours(open_raw: Any) -> None:
    async with open_raw() as (ws, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.aclose, 4001)
            assert await peer.receive_close() == 4001
            await peer.send_close(None)
            await peer.stream.aclose()
        assert ws.close_reason == CloseReason(4001, "", Initiator.LOCAL)


@BOTH_SIDES
async def test_a_close_frame_may_have_no_code(open_raw: Any) -> None:
    async with open_raw() as (ws, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.aclose, None)
            assert await peer.receive_frame() == (FIN | CLOSE, b"")
            await peer.send_close(None)
            await peer.stream.aclose()
        assert ws.close_reason == CloseReason(1005, "", Initiator.LOCAL)


async def test_a_server_may_close_its_connections_without_a_code() -> None:
    served: list[CloseReason] = []

    async def handler(ws: WebSocket) -> None:
        async for _ in ws:
            pass
        served.append(await ws.wait_closed())

    async with open_server(handler) as server, open_websocket_url(server.urls[0]) as ws:
        await trio.testing.wait_all_tasks_blocked()
        await server.aclose(None)
        assert await ws.wait_closed() == CloseReason(1005, "", Initiator.REMOTE)
    assert served == [CloseReason(1005, "", Initiator.LOCAL)]


async def test_without_a_code_there_is_no_reason() -> None:
    async with open_pair() as (client, _):
        with pytest.raises(ValueError, match="no room for a reason"):
            await client.aclose(None, "why")
        assert state(client) is State.OPEN


@pytest.mark.parametrize(
    ("code", "reason"), [(1005, ""), (1006, ""), (1015, ""), (999, ""), (2999, ""), (5000, "")]
)
async def test_a_code_that_may_not_be_sent_is_a_value_error_and_does_nothing(
    code: int, reason: str
) -> None:
    async with open_pair() as (client, server):
        with pytest.raises(ValueError, match=f"close code {code} may not be sent"):
            await client.aclose(code, reason)
        with pytest.raises(ValueError, match="124 bytes"):
            await client.aclose(1000, "é" * 62)
        await client.send("still open")
        assert await server.receive() == "still open"
        await client.aclose(1000, "é" * 61)
        assert (await server.wait_closed()).reason == "é" * 61


async def test_aclose_again_and_from_several_tasks_only_waits() -> None:
    async with open_pair() as (client, server):
        async with trio.open_nursery() as nursery:
            for code in (4000, 4001, 4002):
                nursery.start_soon(client.aclose, code)
        await client.aclose()
        assert client.close_reason is not None
        assert (await server.wait_closed()).code == client.close_reason.code


async def test_aclose_after_the_peer_closed_keeps_the_peers_reason() -> None:
    async with open_pair() as (client, server):
        await server.aclose(4000, "bye")
        await client.aclose(1000)
        assert client.close_reason == CloseReason(4000, "bye", Initiator.REMOTE)


async def test_a_websocket_is_itself_an_async_context_manager() -> None:
    async with open_pair() as (client, server):
        async with client:
            await client.send("x")
        assert client.state is State.CLOSED
        assert await server.receive() == "x"


@BOTH_SIDES
async def test_a_peer_that_never_answers_our_close_is_given_close_timeout(open_raw: Any) -> None:
    async with open_raw(close_timeout=3) as (ws, _):
        start = trio.current_time()
        await ws.aclose(4001)
        assert trio.current_time() - start == pytest.approx(3)
        assert ws.close_reason == CloseReason(
            1006, "no Close frame came before we hung up", Initiator.LOCAL
        )


async def test_a_server_hangs_up_first_and_waits_only_shortly_for_the_client() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        start = trio.current_time()
        await peer.send_close(1000)
        assert await peer.receive_close() == 1000
        assert await peer.receive_frame() is None  # FIN
        await ws.wait_closed()
        assert trio.current_time() - start == pytest.approx(1)


async def test_a_client_leaves_it_to_the_server_to_hang_up_first() -> None:
    async with open_client_with_raw_server() as (ws, peer):
        await peer.send_close(1000)
        assert await peer.receive_close() == 1000
        await trio.testing.wait_all_tasks_blocked()
        assert state(ws) is State.CLOSING
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert state(ws) is State.CLOSED


async def _babble(peer: RawPeer) -> None:
    await peer.send_frame(0x3)
    while True:
        try:
            await peer.send_frame(TEXT, b"x" * 1000)
        except trio.BrokenResourceError:
            return
        await trio.sleep(0.1)


@BOTH_SIDES
async def test_the_last_steps_end_when_the_peer_keeps_sending(open_raw: Any) -> None:
    async with open_raw(close_timeout=2) as (ws, peer):
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_babble, peer)
            assert (await ws.wait_closed()).code == 1002
            nursery.cancel_scope.cancel()
        assert trio.current_time() - start == pytest.approx(2, abs=0.2)


async def test_a_violation_over_a_stream_that_cannot_be_half_closed_ends_shortly() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    async with open_server_with_raw_client(
        streams=(client_stream, FaultyStream(server_stream, half_close=False))
    ) as (ws, peer):
        start = trio.current_time()
        await peer.send_frame(0x3)
        await ws.wait_closed()
        assert trio.current_time() - start == pytest.approx(1)
        assert await peer.receive_close() == 1002


async def test_a_server_over_a_stream_that_cannot_be_half_closed_closes_it_at_once() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    async with open_server_with_raw_client(
        streams=(client_stream, FaultyStream(server_stream, half_close=False))
    ) as (ws, peer):
        start = trio.current_time()
        await peer.send_close(1000)
        await ws.wait_closed()
        assert trio.current_time() == start


async def test_messages_after_our_close_are_thrown_away_until_the_peers_close() -> None:
    async with open_server_with_raw_client(max_queued_messages=1) as (ws, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.aclose)
            await peer.receive_frame()
            for _ in range(100):
                await peer.send_frame(TEXT, b"late")
            await peer.send_frame(TEXT, b"late, too", fin=False)
            await peer.send_frame(PING, b"late, three")
            await peer.send_close(1000)
            assert await peer.receive_frame() is None
            await peer.stream.aclose()
        assert ws.close_reason == CloseReason(1000, "", Initiator.LOCAL)


async def test_a_violation_after_our_close_gets_no_second_close_frame() -> None:
    async with open_server_with_raw_client() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.aclose)
        assert await peer.receive_close() == 1000
        await peer.send_frame(0x3)
        assert await peer.receive_frame() is None
        await peer.stream.aclose()
        assert (await ws.wait_closed()).code == 1002


async def test_closing_over_half_a_message_that_filled_the_queue_is_not_held_up_by_it() -> None:
    async with open_server_with_raw_client(max_queued_bytes=1000) as (ws, peer):
        await peer.send_frame(TEXT, b"x" * 2000, fin=False)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.aclose)
            assert await peer.receive_close() == 1000
            await peer.send_close(1000)
            await peer.stream.aclose()
        assert trio.current_time() == start
        assert ws.close_reason == CloseReason(1000, "", Initiator.LOCAL)


async def test_a_cancelled_aclose_closes_the_socket_at_once() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(server_stream)
    async with open_server_with_raw_client(streams=(client_stream, stream)) as (ws, _):
        start = trio.current_time()
        with trio.move_on_after(1) as scope:
            await ws.aclose()
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() - start == pytest.approx(1)
        assert state(ws) is State.CLOSED
        assert stream.closed


async def test_receivers_that_wait_when_we_close_are_told_so() -> None:
    async with open_pair() as (client, _), trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await client.receive()

        nursery.start_soon(receive)
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()


async def test_messages_queued_when_we_close_are_discarded() -> None:
    async with open_pair() as (client, server):
        await server.send("never read")
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        with pytest.raises(trio.ClosedResourceError):
            client.receive_nowait()
        assert client.statistics().queued_messages == 0


async def test_a_loop_in_which_we_close_ends() -> None:
    async with open_pair() as (client, server):
        await client.send("enough?")
        async for message in server:
            assert message == "enough?"
            await server.aclose(4000, "enough")
        assert server.close_reason == CloseReason(4000, "enough", Initiator.LOCAL)
        with pytest.raises(trio.ClosedResourceError):
            await server.receive()


async def test_begin_close_lets_the_handler_take_what_came_before_and_then_ends_it() -> None:
    async with open_pair() as (client, server):
        await client.send("before")
        await trio.testing.wait_all_tasks_blocked()
        server._ending.close(1001, "restart")
        server._ending.close(1000, "again")
        assert [message async for message in server] == ["before"]
        with pytest.raises(ConnectionEnded):
            await server.send("late")
        assert (await client.wait_closed()) == CloseReason(1001, "restart", Initiator.REMOTE)
        assert (await server.wait_closed()) == CloseReason(1001, "restart", Initiator.LOCAL)


async def test_a_frame_behind_the_handshake_response_is_received() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()

    async def serve() -> None:
        async with trio_ws.wrap_server_stream(server_stream) as ws:
            await ws.send("first")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with trio_ws.wrap_client_stream(client_stream, URL) as ws:
            assert [message async for message in ws] == ["first"]
        assert ws.statistics().bytes_received >= 2 + len("first")


HALF_A_FRAME = pytest.mark.parametrize("cut", [1, 2, 3, 4, 7, 8, 9, 4000])


@HALF_A_FRAME
async def test_closing_in_the_middle_of_a_frame_waits_for_the_rest_and_the_answer(cut: int) -> None:
    data = frame(BINARY, bytes(5000))
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send(data[:cut])
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.aclose)
            assert await peer.receive_close() == 1000
            await peer.send(data[cut:])
            await peer.send_close(1000)
        assert ws.close_reason == CloseReason(1000, "", Initiator.LOCAL)


@HALF_A_FRAME
async def test_closing_in_the_middle_of_a_frame_that_never_ends_takes_close_timeout(
    cut: int,
) -> None:
    async with open_server_with_raw_client(close_timeout=3) as (ws, peer):
        await peer.send(frame(BINARY, bytes(5000))[:cut])
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        await ws.aclose()
        assert trio.current_time() - start == pytest.approx(3)
        assert ws.close_reason is not None
        assert ws.close_reason.code == 1006


@HALF_A_FRAME
async def test_a_peer_that_falls_silent_in_the_middle_of_a_frame_is_dropped(cut: int) -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send(frame(BINARY, bytes(5000))[:cut])
        start = trio.current_time()
        assert (await ws.wait_closed()).code == 1011
        assert trio.current_time() - start == pytest.approx(40, abs=1)
