"""`WebSocket`, the end: aclose, the peer's Close, lost transports, deadlines, repr."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
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
    reset,
    tcp_pair,
)
from trio_ws import (
    CloseReason,
    ConnectionEnded,
    ConnectionLost,
    Initiator,
    State,
    WebSocket,
    open_websocket_url,
)
from trio_ws.testing import FaultyStream

pytestmark = pytest.mark.autojump


def state(ws: WebSocket) -> State:
    """`ws.state`, without a type checker's belief that it stays what it was."""
    return ws.state


BOTH_SIDES = pytest.mark.parametrize(
    "open_raw", [open_server_with_raw_client, open_client_with_raw_server], ids=["server", "client"]
)


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


@BOTH_SIDES
async def test_an_end_of_file_without_a_close_frame_is_1006_at_once(open_raw: Any) -> None:
    async with open_raw() as (ws, peer):
        await peer.send_frame(TEXT, b"last words")
        await peer.stream.aclose()
        start = trio.current_time()
        assert await ws.receive() == "last words"
        with pytest.raises(ConnectionLost) as caught:
            await ws.receive()
        assert trio.current_time() == start
        assert caught.value.reason.code == 1006
        assert caught.value.reason.initiator is Initiator.REMOTE
        with pytest.raises(ConnectionLost):
            await ws.send("x")


async def test_a_broken_transport_is_1006_with_the_cause_kept() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_stream, fail_at=5)
    async with open_pair(streams=(stream, server_stream)) as (client, server):
        await server.send("x")
        await client.receive()
        await server.send("y")
        with pytest.raises(ConnectionLost, match=r"1006.*injected fault") as caught:
            while True:
                await client.receive()
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError)
        assert client.close_reason is not None


async def test_a_failed_write_reports_the_close_frame_that_explains_it() -> None:
    async with open_server_with_raw_client(streams=await tcp_pair()) as (ws, peer):
        await peer.send_close(4008, "policy")
        await peer.stream.aclose()
        with pytest.raises(ConnectionLost, match="4008"):
            while True:
                await ws.send(b"x" * 10_000)


async def test_a_send_that_finds_the_connection_broken_raises_itself() -> None:
    client_stream, server_stream = await tcp_pair()
    async with open_server_with_raw_client(streams=(client_stream, server_stream)) as (ws, _):
        reset(client_stream)
        with pytest.raises(ConnectionLost, match="1006"):
            await ws.send("x")


async def test_an_answer_that_cannot_be_written_does_not_change_the_peers_reason() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(server_stream)
    async with open_server_with_raw_client(streams=(client_stream, stream)) as (ws, peer):
        await trio.testing.wait_all_tasks_blocked()
        stream.fail_sends()
        await peer.send_close(1000)
        with pytest.raises(ConnectionEnded) as caught:
            await ws.receive()
        assert caught.value.__cause__ is None
        await ws.wait_closed()
        with pytest.raises(ConnectionEnded) as caught:
            await ws.receive()
        assert caught.value.__cause__ is None


async def test_a_transport_that_breaks_after_the_close_frames_does_not_change_the_reason() -> None:
    class CannotEnd(FaultyStream, trio.abc.HalfCloseableStream):
        async def send_eof(self) -> None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("the peer is gone")

    client_stream, server_stream = trio.testing.memory_stream_pair()
    async with open_server_with_raw_client(streams=(client_stream, CannotEnd(server_stream))) as (
        ws,
        peer,
    ):
        await peer.send_close(1000)
        assert (await ws.wait_closed()).code == 1000
        with pytest.raises(ConnectionEnded) as caught:
            await ws.receive()
        assert caught.value.__cause__ is None


async def test_a_failed_write_without_an_explanation_is_1006_soon() -> None:
    # A stream whose writes fail while its reads hang: what a half-broken proxy looks like.
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(server_stream)
    async with open_server_with_raw_client(streams=(client_stream, stream)) as (ws, _):
        stream.fail_sends()
        start = trio.current_time()
        await ws.send("lost")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost, match="1006") as caught:
            await ws.send("too late")
        assert trio.current_time() - start <= 1.1
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


async def test_send_nowait_after_a_failed_write_does_not_wait_to_say_so() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(server_stream)
    async with open_server_with_raw_client(streams=(client_stream, stream)) as (ws, _):
        stream.fail_sends()
        ws.send_nowait("lost")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost, match="1006") as caught:
            ws.send_nowait("too late")
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


async def test_a_write_that_fails_while_reading_is_paused_does_not_wait_for_the_reader() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(server_stream)
    async with open_server_with_raw_client(
        streams=(client_stream, stream), max_queued_messages=1
    ) as (ws, peer):
        await peer.send_frame(TEXT, b"1")
        await peer.send_frame(TEXT, b"2")
        await trio.testing.wait_all_tasks_blocked()
        stream.fail_sends()
        await ws.send("lost")
        await trio.testing.wait_all_tasks_blocked()
        assert ws.close_reason is not None
        assert await ws.receive() == "1"


@BOTH_SIDES
async def test_the_last_steps_end_when_the_peer_keeps_sending(open_raw: Any) -> None:
    async with open_raw(close_timeout=2) as (ws, peer):
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_babble, peer)
            assert (await ws.wait_closed()).code == 1002
            nursery.cancel_scope.cancel()
        assert trio.current_time() - start == pytest.approx(2, abs=0.2)


async def _babble(peer: RawPeer) -> None:
    await peer.send_frame(0x3)
    while True:
        try:
            await peer.send_frame(TEXT, b"x" * 1000)
        except trio.BrokenResourceError:
            return
        await trio.sleep(0.1)


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


@pytest.mark.parametrize("error", [trio.ClosedResourceError, trio.BusyResourceError, OSError])
async def test_a_stream_that_cannot_be_closed_quietly_does_not_keep_us(
    error: type[Exception],
) -> None:
    class Loud(FaultyStream):
        async def aclose(self) -> None:
            await super().aclose()
            raise error

    client_stream, server_stream = trio.testing.memory_stream_pair()
    async with open_server_with_raw_client(streams=(client_stream, Loud(server_stream))) as (
        ws,
        peer,
    ):
        await peer.send_close(1000)
        assert (await ws.wait_closed()).code == 1000


@pytest.mark.parametrize("failing", ["receive_some", "send_all", "aclose"])
async def test_an_error_of_a_streams_own_ends_its_connection_and_is_logged(
    failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Strange(FaultyStream):
        strange = ""

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            self.fail_in("receive_some")
            return await super().receive_some(max_bytes)

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            self.fail_in("send_all")
            await super().send_all(data)

        async def aclose(self) -> None:
            await super().aclose()
            self.fail_in("aclose")

        def fail_in(self, operation: str) -> None:
            if self.strange == operation:
                raise KeyError("strange")

    client_stream, server_stream = trio.testing.memory_stream_pair()
    strange = Strange(server_stream)
    async with open_server_with_raw_client(streams=(client_stream, strange)) as (ws, peer):
        strange.strange = failing
        await peer.send_frame(TEXT, b"a")
        assert await ws.receive() == "a"
        if failing == "aclose":
            await peer.send_close(1000)
            assert (await ws.wait_closed()).code == 1000
        else:
            with pytest.raises(ConnectionLost) as caught:
                while True:
                    await ws.send("b")
            assert isinstance(caught.value.__cause__, KeyError)
    assert "strange" in caplog.text


async def test_what_the_peer_says_cannot_look_like_lines_of_a_log() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_close(4000, "bye\nERROR \x1b[31mé")
        reason = await ws.wait_closed()
        assert reason.reason == "bye\nERROR \x1b[31mé"
        assert str(reason) == "4000, closed by the peer: bye\\nERROR \\x1b[31mé"
        assert "\n" not in repr(ws)


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


# Leaving…


class Boom(Exception):
    pass


@asynccontextmanager
async def our_side(side: str) -> AsyncGenerator[tuple[Any, RawPeer], None]:
    opener = open_server_with_raw_client if side == "server" else open_client_with_raw_server
    async with opener() as pair:
        yield pair


@pytest.mark.parametrize("side", ["server", "client"])
async def test_leaving_normally_says_1000(side: str) -> None:
    async with trio.open_nursery() as nursery, our_side(side) as (_, peer):
        nursery.start_soon(_expect_close, peer, 1000)


@pytest.mark.parametrize("side", ["server", "client"])
async def test_leaving_by_an_exception_says_1011_and_the_exception_comes_out_bare(
    side: str,
) -> None:
    async with trio.open_nursery() as nursery:
        boom = Boom()
        with pytest.raises(Boom) as caught:
            async with our_side(side) as (_, peer):
                nursery.start_soon(_expect_close, peer, 1011)
                raise boom
        assert caught.value is boom
        assert boom.__cause__ is None
        assert boom.__context__ is None


@pytest.mark.parametrize("side", ["server", "client"])
async def test_leaving_by_cancellation_says_1001(side: str) -> None:
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with our_side(side) as (_, peer):
                nursery.start_soon(_expect_close, peer, 1001)
                scope.cancel()
                try:
                    await trio.sleep_forever()
                except trio.Cancelled as exc:
                    inside = exc
                    raise
        assert scope.cancelled_caught
        assert isinstance(inside, trio.Cancelled)


async def test_leaving_by_a_group_that_is_all_cancellation_says_1001() -> None:
    async with trio.open_nursery() as outer:
        with trio.CancelScope() as scope:
            async with our_side("server") as (_, peer), trio.open_nursery() as nursery:
                outer.start_soon(_expect_close, peer, 1001)
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()


async def test_a_users_exception_group_comes_out_as_it_went_in() -> None:
    group = ExceptionGroup("mine", [Boom(), KeyError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_pair() as _:
            raise group
    assert caught.value is group


async def _expect_close(peer: RawPeer, code: int) -> None:
    assert await peer.receive_close() == code
    await peer.send_close(code)
    await peer.stream.aclose()


@BOTH_SIDES
async def test_leaving_with_unread_messages_and_a_silent_peer_ends_within_close_timeout(
    open_raw: Any,
) -> None:
    start = 0.0
    async with open_raw(close_timeout=2, max_queued_messages=1) as (_, peer):
        for _ in range(100):
            await peer.send_frame(TEXT, b"unread")
        start = trio.current_time()
    assert trio.current_time() - start == pytest.approx(2)


@BOTH_SIDES
async def test_leaving_with_a_full_send_buffer_ends_within_close_timeout(open_raw: Any) -> None:
    one, other = trio.testing.memory_stream_pair()
    stalled = FaultyStream(other if open_raw is open_server_with_raw_client else one)
    streams = (one, stalled) if open_raw is open_server_with_raw_client else (stalled, other)
    start = 0.0
    async with open_raw(close_timeout=2, max_send_buffer=10, streams=streams) as (ws, _):
        stalled.stall_sends()
        await ws.send(b"x" * 1000)
        start = trio.current_time()
    assert trio.current_time() - start == pytest.approx(2)
    assert ws.close_reason.code == 1006


# What it looks like…


async def test_repr_tells_side_peer_state_and_queue_depth() -> None:
    async with open_pair(streams=await tcp_pair()) as (client, server):
        await client.send("x")
        await trio.testing.wait_all_tasks_blocked()
        port = client.remote_address[1] if isinstance(client.remote_address, tuple) else 0
        assert repr(client) == (
            f"<WebSocket {client.id} client of '/chat' with 127.0.0.1:{port}, open, 0 queued, "
            "0 bytes unsent>"
        )
        assert re.fullmatch(
            rf"<WebSocket {server.id} server of '/chat' with 127\.0\.0\.1:\d+, open, 1 queued, "
            "0 bytes unsent>",
            repr(server),
        )
        await client.aclose(4000, "bye")
        assert "closed 4000, closed by us: bye, 0 queued" in repr(client)
        assert "closed by the peer: bye, 1 queued" in repr(server)


async def test_statistics_count_both_directions() -> None:
    async with open_pair() as (client, server):
        await client.send("abc")
        await client.send(b"defg")
        await server.receive()
        await trio.testing.wait_all_tasks_blocked()
        sent, received = client.statistics(), server.statistics()
        assert (sent.messages_sent, sent.bytes_sent) == (2, 2 * 6 + 7)
        assert (received.messages_received, received.bytes_received) == (2, 2 * 6 + 7)
        assert received.queued_messages == 1
        assert received.latency is None


async def test_use_after_the_block_is_a_closed_resource_error() -> None:
    async with open_pair() as (client, server):
        pass
    for ws in (client, server):
        with pytest.raises(trio.ClosedResourceError):
            await ws.receive()
        with pytest.raises(trio.ClosedResourceError):
            await ws.send("x")
        assert await ws.wait_closed() is ws.close_reason
        await ws.aclose()


async def test_begin_close_lets_the_handler_take_what_came_before_and_then_ends_it() -> None:
    async with open_pair() as (client, server):
        await client.send("before")
        await trio.testing.wait_all_tasks_blocked()
        server._begin_close(1001, "restart")
        server._begin_close(1000, "again")
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


async def test_a_group_with_an_error_in_it_closes_with_1011_and_one_of_exits_with_1001() -> None:
    groups = {
        1011: BaseExceptionGroup("mixed", [SystemExit(1), ValueError("an error")]),
        1001: BaseExceptionGroup("exits", [SystemExit(1), KeyboardInterrupt()]),
    }
    for code, group in groups.items():
        one, other = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:

            async def leave(stream: trio.abc.Stream, raised: BaseException) -> None:
                with pytest.raises(BaseExceptionGroup) as caught:
                    async with trio_ws.wrap_server_stream(stream):
                        raise raised
                assert caught.value is raised

            nursery.start_soon(leave, other, group)
            async with trio_ws.wrap_client_stream(one, URL) as client:
                assert (await client.wait_closed()).code == code
