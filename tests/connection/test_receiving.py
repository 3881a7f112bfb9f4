"""`WebSocket`, the receiving half: receive, iteration, JSON, several receivers."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import (
    BINARY,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    TEXT,
    Options,
    close_frame,
    counting_turns,
    frame,
    open_pair,
    open_server,
    open_server_with_raw_client,
    socket_pair,
    wait_for_a_turn,
)
from trio_ws import (
    ConnectionEnded,
    ConnectionLost,
    Deflate,
    UnexpectedMessage,
    WebSocket,
    open_websocket_url,
)
from trio_ws._connection.inbox import Inbox
from trio_ws._pacing import CALLS_PER_CHECKPOINT, WORK_PER_CHECKPOINT, next_checkpoint, spend

pytestmark = pytest.mark.autojump


async def test_iterating_gives_every_message_and_ends_in_silence_on_a_normal_close() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_frame(TEXT, b"one")
        await peer.send_frame(BINARY, b"two")
        await peer.send_close(1000)
        assert [message async for message in ws] == ["one", b"two"]


async def test_iterating_raises_when_the_connection_is_lost() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_frame(TEXT, b"one")
        await peer.send_close(4000, "bye")
        assert await anext(ws) == "one"
        with pytest.raises(ConnectionLost, match="4000, closed by the peer: bye"):
            await anext(ws)


async def test_text_and_binary_can_be_asked_for() -> None:
    async with open_pair() as (ws, peer):
        await peer.send("text")
        await peer.send(b"binary")
        assert await ws.receive_text() == "text"
        assert await ws.receive_bytes() == b"binary"
        await peer.aclose()
        for receive in (ws.receive_text, ws.receive_bytes):
            with pytest.raises(ConnectionEnded):
                await receive()


async def test_a_message_of_the_other_kind_is_in_the_error_and_the_connection_goes_on() -> None:
    async with open_pair() as (ws, peer):
        await peer.send(b"abc")
        await peer.send("äbc")
        await peer.send("next")
        with pytest.raises(UnexpectedMessage, match="3 bytes of binary .* text was") as binary:
            await ws.receive_text()
        with pytest.raises(UnexpectedMessage, match="text of 3 characters .* binary was") as text:
            await ws.receive_bytes()
        assert (binary.value.message, text.value.message) == (b"abc", "äbc")
        assert await ws.receive_text() == "next"


async def test_a_message_that_a_handler_did_not_expect_closes_with_1003() -> None:
    async def handler(ws: WebSocket) -> None:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await ws.receive_text()

    async with open_server(handler) as server, open_websocket_url(server.urls[0]) as ws:
        await ws.send(b"binary")
        assert (await ws.wait_closed()).code == 1003


BOTH_WAYS: list[Any] = [{"compression": None}, {"compression": Deflate(threshold=0)}]


@pytest.mark.parametrize("options", BOTH_WAYS)
@pytest.mark.parametrize("text", ["", "text", "tëxt", "文" * 20_000])
async def test_text_can_be_left_as_bytes_for_parsers_that_take_them(
    text: str, options: Options
) -> None:
    settings: Options = {**options, "decode_text": False}
    async with open_pair(client=settings, server=options) as (ws, peer):
        for _ in range(4):
            await peer.send(text)
        async with peer.open_message("text") as writer:
            await writer.send(text)
            await writer.send(text)
        await peer.send(b"binary")
        await peer.send_json([text])
        encoded = text.encode()
        received = await ws.receive()
        assert received == encoded
        assert type(received) is bytes
        assert await anext(ws) == encoded
        await trio.testing.wait_all_tasks_blocked()
        assert ws.receive_nowait() == encoded
        async with ws.receive_message() as chunks:
            pieces: list[Any] = [chunk async for chunk in chunks]
        assert b"".join(pieces) == encoded
        assert await ws.receive() == encoded + encoded
        assert await ws.receive() == b"binary"
        assert await ws.receive_json() == [text]


async def test_where_text_is_left_as_bytes_one_kind_cannot_be_asked_for() -> None:
    async with open_pair(client={"decode_text": False}) as (ws, peer):
        await peer.send("text")
        for receive in (ws.receive_text, ws.receive_bytes):
            with pytest.raises(RuntimeError, match=r"decode_text=False.*use receive\(\)"):
                await receive()
        assert await ws.receive() == b"text"


@pytest.mark.parametrize("fin", [True, False])
async def test_text_that_is_left_as_bytes_is_checked_all_the_same(fin: bool) -> None:
    async with open_server_with_raw_client(decode_text=False) as (ws, peer):
        await peer.send_frame(TEXT, b"ab\xffc", fin=fin)
        assert await peer.receive_close() == 1007
        await peer.stream.aclose()
        with pytest.raises(ConnectionLost, match="1007"):
            await ws.receive()


async def test_a_thousand_messages_and_a_close_in_one_segment_can_all_be_received() -> None:
    async with open_server_with_raw_client(max_queued_messages=10) as (ws, peer):
        messages = [frame(TEXT, str(number).encode()) for number in range(1000)]
        await peer.send(*messages, close_frame(1000))
        await trio.testing.wait_all_tasks_blocked()
        assert ws.statistics().queued_messages == 10
        assert [int(message) async for message in ws] == list(range(1000))
        assert await peer.receive_close() == 1000
        with pytest.raises(ConnectionEnded):
            await ws.receive()


async def test_fragments_are_put_together_with_control_frames_between_them() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_frame(TEXT, "é".encode()[:1], fin=False)
        await peer.send_frame(PING, b"between")
        await peer.send_frame(CONTINUATION, b"", fin=False)
        await peer.send_frame(CONTINUATION, "é".encode()[1:] + b"!")
        assert await ws.receive() == "é!"
        assert await peer.receive_frame() == (FIN | PONG, b"between")
        await peer.send_frame(BINARY, b"a", fin=False)
        await peer.send_frame(CONTINUATION, b"b")
        assert await ws.receive() == b"ab"
        await peer.send_close(1000)


async def test_a_frame_that_arrives_byte_by_byte_is_one_message() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        for byte in frame(TEXT, "aéb€c".encode()):
            await peer.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert await ws.receive() == "aéb€c"
        await peer.send_close(1000)


async def test_receive_nowait_gives_what_is_there_and_else_would_block() -> None:
    async with open_pair() as (client, server):
        with pytest.raises(trio.WouldBlock):
            server.receive_nowait()
        await client.send("now")
        await trio.testing.wait_all_tasks_blocked()
        assert server.receive_nowait() == "now"
        await client.aclose()
        with pytest.raises(ConnectionEnded):
            server.receive_nowait()


async def test_json_is_parsed_and_a_message_that_is_not_json_harms_nothing() -> None:
    async with open_pair() as (client, server):
        await client.send_json({"a": [1]})
        await client.send(b"[2]")
        await client.send("not json")
        await client.send("3")
        assert await server.receive_json() == {"a": [1]}
        assert await server.receive_json() == [2]
        with pytest.raises(json.JSONDecodeError):
            await server.receive_json()
        assert await server.receive_json(loads=float) == 3.0


async def test_several_receivers_get_each_message_exactly_once() -> None:
    async with open_pair() as (client, server):
        received: list[str | bytes] = []

        async def receive() -> None:
            async for message in server:
                received.append(message)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(receive)
            for number in range(100):
                await client.send(str(number))
            await client.aclose()
        assert sorted(received, key=int) == [str(number) for number in range(100)]


async def test_messages_of_one_read_go_to_those_who_wait_first_come_first_served() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        received: dict[int, str | bytes] = {}
        scopes = [trio.CancelScope() for _ in range(8)]

        async def receive(number: int) -> None:
            with scopes[number]:
                received[number] = await ws.receive()

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(receive, number)
                await trio.testing.wait_all_tasks_blocked()
            for number in (0, 3, 7):  # who gave up is passed over, and takes nothing along
                scopes[number].cancel()
            await peer.send(*(frame(TEXT, b"%d" % number) for number in range(6)))
        assert received == {1: "0", 2: "1", 4: "2", 5: "3", 6: "4"}
        assert await ws.receive() == "5"
        await peer.send_close(1000)


async def test_a_message_in_hand_is_not_lost_to_a_cancellation_that_comes_with_it() -> None:
    async with open_pair() as (client, server):
        received: list[str | bytes] = []
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def receive() -> None:
                    received.append(await server.receive())

                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                await client.send("first")
                while server.statistics().messages_received == 0:
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        await client.send("second")
        while len(received) < 2:
            received.append(await server.receive())
        assert received == ["first", "second"]


async def test_two_receivers_wait_and_both_messages_are_larger_than_the_queue() -> None:
    async with open_pair(server={"max_queued_bytes": 1000}, streams=socket_pair()) as (
        client,
        server,
    ):
        sizes: list[int] = []

        async def receive() -> None:
            sizes.append(len(await server.receive()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await client.send("a" * 500_000)
            await client.send("b" * 500_001)
        assert sorted(sizes) == [500_000, 500_001]


async def test_a_message_larger_than_the_queue_can_be_polled_for() -> None:
    async with open_pair(server={"max_queued_bytes": 1000}, streams=socket_pair()) as (
        client,
        server,
    ):
        await client.send(b"x" * 700_000)
        with trio.fail_after(5):
            while True:
                try:
                    message = server.receive_nowait()
                    break
                except trio.WouldBlock:
                    await trio.sleep(0.001)
        assert message == b"x" * 700_000


async def test_receive_is_a_cancellation_point_every_time_and_loses_nothing() -> None:
    async with open_pair() as (client, server):
        for number in range(100):
            await client.send(str(number))
        received: list[str | bytes] = []
        while len(received) < 100:
            with trio.CancelScope() as scope:
                scope.cancel()
                await server.receive()
            assert scope.cancelled_caught
            received.append(await server.receive())
        assert received == [str(number) for number in range(100)]


@pytest.mark.parametrize("by", ["us", "the peer"])
async def test_asking_an_ended_connection_again_and_again_can_be_cancelled(by: str) -> None:
    async with open_pair() as (client, server):
        await (server if by == "us" else client).aclose()
        await server.wait_closed()
        for ask in (server.receive, server.__anext__):
            with trio.CancelScope() as scope:
                scope.cancel()
                await ask()
            assert scope.cancelled_caught


@pytest.mark.parametrize("ask", [WebSocket.receive, WebSocket.__anext__])
async def test_a_task_whose_message_another_took_during_its_checkpoint_waits_for_the_next(
    ask: Callable[[WebSocket], Awaitable[str | bytes]],
) -> None:
    received: list[str | bytes] = []
    async with open_pair() as (client, server):

        async def take_one() -> None:
            received.append(await ask(server))

        await client.send("one")
        await trio.testing.wait_all_tasks_blocked()
        spend(WORK_PER_CHECKPOINT)  # whichever asks first lets the other run
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_one)
            nursery.start_soon(take_one)
            await trio.testing.wait_all_tasks_blocked()
            assert received == ["one"]
            await client.send("two")
    assert received == ["one", "two"]


async def test_a_wait_for_a_message_counts_as_a_call() -> None:
    # Else the turn for other tasks would cut batches of answers in two, each elsewhere.
    async with open_server_with_raw_client() as (ws, peer):
        while next_checkpoint() is not trio.lowlevel.checkpoint:
            pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.receive)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_frame(TEXT, b"x")
        calls = 1
        while next_checkpoint() is not trio.lowlevel.checkpoint:
            calls += 1
        assert calls == CALLS_PER_CHECKPOINT - 1
        await peer.send_close(1000)


async def test_draining_a_full_queue_lets_other_tasks_run_now_and_then() -> None:
    async with open_pair() as (client, server):
        for _ in range(10 * CALLS_PER_CHECKPOINT):
            client.send_nowait("x")
        await trio.testing.wait_all_tasks_blocked()
        async with counting_turns() as turns:
            for _ in range(10 * CALLS_PER_CHECKPOINT):
                await server.receive()
        assert turns.count >= 8


async def test_a_full_queue_holds_up_other_tasks_for_a_few_milliseconds_at_most() -> None:
    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    unbounded = dict.fromkeys(
        ("max_queued_messages", "max_queued_bytes", "max_send_buffer"), math.inf
    )

    def fill() -> None:
        for number in range(10_000):
            one.send_nowait(str(number))

    async def drain() -> None:
        for number in range(10_000):
            assert await one.receive() == str(number)

    async with open_pair(client=unbounded, server=unbounded) as (one, other):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, other)
            assert await wait_for_a_turn(drain, fill) < 0.01
            await one.aclose()


async def test_an_inbox_gives_what_waits_before_it_says_that_none_will_come() -> None:
    inbox = Inbox(math.inf, math.inf)
    inbox.put(["first", "second"], trio.current_time())
    inbox.close()
    assert [await inbox.receive() for _ in range(3)] == ["first", "second", None]
