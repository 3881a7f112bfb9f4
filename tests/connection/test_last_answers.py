"""Messages before a Close frame are answered, however the network cut them (RFC 6455 5.5.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from tests.connection.connection_helpers import BOTH_SIDES
from tests.helpers import (
    CLOSE,
    CONTINUATION,
    FIN,
    HOST,
    REQUEST,
    TEXT,
    RawPeer,
    close_frame,
    echo,
    forever,
    frame,
    open_client_with_raw_server,
    open_server,
    open_server_with_raw_client,
    reset,
    tcp_pair,
)
from trio_ws import CloseReason, ConnectionLost, Initiator, WebSocket, WebSocketServer
from trio_ws._connection.reader import LAST_ANSWERS
from trio_ws.testing import FaultyStream

ANSWER_AND_CLOSE = [(FIN | TEXT, b"answer me"), (FIN | CLOSE, b"\x0f\xa0")]


async def connect(server: WebSocketServer, more: bytes = b"") -> RawPeer:
    """A raw client that sends `more` in the segment of its request."""
    peer = RawPeer(await trio.open_tcp_stream(HOST, server.port), masks=True)
    await peer.send(REQUEST + more)
    while b"\r\n\r\n" not in peer.received:
        peer.received += await peer.stream.receive_some()
    del peer.received[: peer.received.index(b"\r\n\r\n") + 4]
    return peer


def hang_up(stream: trio.SocketStream) -> None:
    stream.socket.close()


def in_one_segment(data: bytes) -> Iterator[bytes]:
    yield data


def message_and_close_apart(data: bytes) -> Iterator[bytes]:
    yield data[:-8]
    yield data[-8:]


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    for position in range(len(data)):
        yield data[position : position + 1]


#: Last frames of the peer, and the close reason that each leads to.
LAST_FRAMES = {
    "close": CloseReason(4000, "bye", Initiator.REMOTE),
    "violation": CloseReason(1002, "Reserved bit set unexpectedly", Initiator.LOCAL, failed=True),
}


async def say_close(peer: RawPeer) -> None:
    await peer.send_close(4000, "bye")


async def violate(peer: RawPeer) -> None:
    await peer.send_frame(TEXT, b"", rsv=2)


SENDERS = {"close": say_close, "violation": violate}


async def send_last_frame(peer: RawPeer, which: str) -> None:
    await SENDERS[which](peer)


CUTS = pytest.mark.parametrize(
    "cut", [in_one_segment, message_and_close_apart, byte_by_byte], ids=lambda cut: cut.__name__
)


@CUTS
@pytest.mark.parametrize("pause", [None, 0, 0.0002], ids=["none", "a turn", "0.2 ms"])
@pytest.mark.parametrize("quick", [False, True], ids=["fresh", "after a quick conversation"])
async def test_a_message_before_a_close_is_answered_however_the_bytes_are_cut(
    cut: Callable[[bytes], Iterator[bytes]], pause: float | None, quick: bool
) -> None:
    async with open_server(echo) as server:
        for _ in range(10):
            peer = await connect(server)
            for _ in range(20 if quick else 0):
                await peer.send_frame(TEXT, b"quick")
                assert await peer.receive_frame() == (FIN | TEXT, b"quick")
            for piece in cut(frame(TEXT, b"answer me") + close_frame(4000)):
                await peer.send(piece)
                if pause is not None:
                    await trio.sleep(pause)
            assert await peer.receive_all_frames() == ANSWER_AND_CLOSE
            await peer.stream.aclose()


async def test_a_message_and_a_close_in_the_segment_of_the_request_are_both_answered() -> None:
    async with open_server(echo) as server:
        for _ in range(20):
            peer = await connect(server, frame(TEXT, b"answer me") + close_frame(4000))
            assert await peer.receive_all_frames() == ANSWER_AND_CLOSE
            await peer.stream.aclose()


async def test_a_thousand_messages_before_a_close_are_all_answered() -> None:
    async with open_server(echo) as server:
        peer = await connect(server)
        await peer.send(frame(TEXT, b"answer me") * 1000 + close_frame(4000))
        assert await peer.receive_all_frames() == [
            *[(FIN | TEXT, b"answer me")] * 1000,
            (FIN | CLOSE, b"\x0f\xa0"),
        ]
        await peer.stream.aclose()


@BOTH_SIDES
@pytest.mark.autojump
async def test_the_close_frame_waits_for_an_answer_that_takes_its_time(open_raw: Any) -> None:
    async with open_raw() as (ws, peer):
        await peer.send_frame(TEXT, b"answer me")
        await peer.send_close(4000)
        message = await ws.receive()
        await trio.sleep(0.9 * LAST_ANSWERS)
        await ws.send(message)
        with pytest.raises(ConnectionLost, match="4000"):
            await ws.receive()
        assert await peer.receive_frame() == (FIN | TEXT, b"answer me")
        assert await peer.receive_close() == 4000
        assert ws.close_reason == CloseReason(4000, "", Initiator.REMOTE)


@BOTH_SIDES
@pytest.mark.autojump
async def test_a_message_that_is_read_in_pieces_is_answered(open_raw: Any) -> None:
    async with open_raw() as (ws, peer):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def answer() -> None:
                async with ws.receive_message() as chunks:
                    text = "".join([str(chunk) async for chunk in chunks])
                await trio.sleep(0.9 * LAST_ANSWERS)
                await ws.send(text)

            await trio.testing.wait_all_tasks_blocked()
            masks = peer.masks
            await peer.send(
                frame(TEXT, b"answer ", fin=False, mask=masks),
                frame(CONTINUATION, b"me", mask=masks),
                close_frame(4000, mask=masks),
            )
        assert await peer.receive_frame() == (FIN | TEXT, b"answer me")
        assert await peer.receive_close() == 4000


@BOTH_SIDES
@pytest.mark.autojump
@pytest.mark.parametrize("other", ["receive", "receive_message"])
async def test_the_close_frame_waits_for_the_answer_though_another_task_waits_for_messages(
    open_raw: Any, other: str
) -> None:
    async with open_raw() as (ws, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def answer() -> None:
            message = await ws.receive()
            await trio.sleep(0.9 * LAST_ANSWERS)
            await ws.send(message)

        await trio.testing.wait_all_tasks_blocked()

        @nursery.start_soon
        async def wait_for_another() -> None:
            with pytest.raises(ConnectionLost, match="4000"):
                if other == "receive":
                    await ws.receive()
                else:
                    async with ws.receive_message():
                        raise AssertionError

        await trio.testing.wait_all_tasks_blocked()
        masks = peer.masks
        await peer.send(frame(TEXT, b"answer me", mask=masks), close_frame(4000, mask=masks))
        assert await peer.receive_frame() == (FIN | TEXT, b"answer me")
        assert await peer.receive_close() == 4000


@BOTH_SIDES
@CUTS
@pytest.mark.autojump
async def test_an_answer_may_be_sent_in_fragments(
    open_raw: Any, cut: Callable[[bytes], Iterator[bytes]]
) -> None:
    async with open_raw() as (ws, peer):
        masks = peer.masks
        for piece in cut(frame(TEXT, b"answer me", mask=masks) + close_frame(4000, mask=masks)):
            await peer.send(piece)
        assert await ws.receive() == "answer me"
        await trio.testing.wait_all_tasks_blocked()
        async with ws.open_message("text") as writer:
            await writer.send("answer ")
            await writer.send("me")
        assert await peer.receive_frame() == (TEXT, b"answer ")
        assert await peer.receive_frame() == (CONTINUATION, b"me")
        assert await peer.receive_frame() == (FIN | CONTINUATION, b"")
        assert await peer.receive_close() == 4000


@BOTH_SIDES
@pytest.mark.autojump
async def test_an_answer_that_takes_too_long_comes_too_late(open_raw: Any) -> None:
    async with open_raw() as (ws, peer):
        start = trio.current_time()
        await peer.send_frame(TEXT, b"answer me")
        await peer.send_close(4000)
        message = await ws.receive()
        assert await peer.receive_close() == 4000
        assert trio.current_time() - start == pytest.approx(LAST_ANSWERS)
        with pytest.raises(ConnectionLost, match="4000"):
            await ws.send(message)


@BOTH_SIDES
@pytest.mark.autojump
@pytest.mark.parametrize("took", [False, True], ids=["never received", "received long ago"])
async def test_a_close_is_answered_at_once_where_nothing_is_in_hand(
    open_raw: Any, took: bool
) -> None:
    async with open_raw() as (ws, peer):
        await peer.send_frame(TEXT, b"no answer needed")
        if took:
            await ws.receive()
        await trio.sleep(LAST_ANSWERS)
        start = trio.current_time()
        await peer.send_close(4000)
        assert await peer.receive_close() == 4000
        assert trio.current_time() == start
        assert ws.close_reason == CloseReason(4000, "", Initiator.REMOTE)


@BOTH_SIDES
@pytest.mark.autojump
async def test_leaving_before_the_answer_is_an_answer_to_the_peers_close(open_raw: Any) -> None:
    async with open_raw() as (ws, peer):
        await peer.send_frame(TEXT, b"answer me")
        await peer.send_close(4000, "bye")
        await ws.receive()
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.aclose, 4001)
            assert await peer.receive_close() == 4000
            assert trio.current_time() == start
            await peer.stream.aclose()
    assert ws.close_reason == CloseReason(4000, "bye", Initiator.REMOTE)


@pytest.mark.autojump
async def test_a_server_that_shuts_down_before_the_answer_keeps_the_peers_reason() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_frame(TEXT, b"answer me")
        await peer.send_close(4000, "bye")
        await ws.receive()
        await trio.testing.wait_all_tasks_blocked()
        ws._ending.close(1001, "")
        assert await peer.receive_close() == 4000
        assert ws.close_reason == CloseReason(4000, "bye", Initiator.REMOTE)


@BOTH_SIDES
@pytest.mark.parametrize("how", [reset, hang_up], ids=["reset", "hung up"])
async def test_a_peer_that_is_gone_before_the_answer_has_closed_all_the_same(
    open_raw: Any, how: Callable[[trio.SocketStream], None]
) -> None:
    client, server = await tcp_pair()
    async with open_raw(streams=(client, server)) as (ws, peer):
        await peer.send_frame(TEXT, b"answer me")
        await peer.send_close(4000, "bye")
        assert await ws.receive() == "answer me"
        how(peer.stream)
        await trio.sleep(0.01)
        with pytest.raises(ConnectionLost, match="4000"), trio.fail_after(LAST_ANSWERS):
            while True:  # until the system knows
                await ws.send("answer")
        assert await ws.wait_closed() == CloseReason(4000, "bye", Initiator.REMOTE)


@BOTH_SIDES
@pytest.mark.parametrize("end", ["close", "violation"])
async def test_a_reset_before_the_last_frame_is_answered_does_not_change_what_it_said(
    open_raw: Any, end: str
) -> None:
    async with open_raw(streams=await tcp_pair()) as (ws, peer):
        await peer.send_frame(TEXT, b"answer me")
        await send_last_frame(peer, end)
        assert await ws.receive() == "answer me"
        while ws._wire.end is None:
            await trio.sleep(0.001)
        reset(peer.stream)
        assert await ws.wait_closed() == LAST_FRAMES[end]


async def close(ws: WebSocket, nursery: trio.Nursery) -> None:
    nursery.start_soon(ws.aclose, 4001)


async def begin_close(ws: WebSocket, nursery: trio.Nursery) -> None:
    ws._ending.close(1001, "")


async def leave_a_message_unfinished(ws: WebSocket, nursery: trio.Nursery) -> None:
    with trio.CancelScope() as scope:
        async with ws.open_message("text"):
            scope.cancel()
            await forever()


async def wait_for_keepalive(ws: WebSocket, nursery: trio.Nursery) -> None:
    """Nothing more is written, so that only a ping without a pong ends the connection."""


ENDS = {
    "aclose": close,
    "begin_close": begin_close,
    "unfinished message": leave_a_message_unfinished,
    "stalled": wait_for_keepalive,
}


@BOTH_SIDES
@pytest.mark.autojump
@pytest.mark.parametrize("end", ["close", "violation"])
@pytest.mark.parametrize("how", ENDS)
async def test_what_ends_the_connection_before_the_answer_keeps_to_what_the_peer_said(
    open_raw: Any, end: str, how: str
) -> None:
    one, other = trio.testing.memory_stream_pair()
    is_client = open_raw is open_client_with_raw_server
    ours = FaultyStream(one if is_client else other)
    streams = (ours, other) if is_client else (one, ours)
    options = {"ping_interval": 0.3, "ping_timeout": 0.3}
    async with open_raw(streams=streams, **options) as (ws, peer):
        await peer.send_frame(TEXT, b"answer me")
        await trio.testing.wait_all_tasks_blocked()
        if how == "stalled":
            ours.stall_sends()
            await ws.send("never arrives")
        await send_last_frame(peer, end)
        assert await ws.receive() == "answer me"
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            await ENDS[how](ws, nursery)
            if how != "stalled":
                assert await peer.receive_close() == LAST_FRAMES[end].code
                await peer.stream.aclose()
        reason = await ws.wait_closed()
    assert reason == LAST_FRAMES[end]
    assert reason.failed is (end == "violation")
