"""`WebSocket`, the sending half: send, send_nowait, JSON, messages in fragments."""

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
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    TEXT,
    close_code,
    counting_turns,
    forever,
    open_client_with_raw_server,
    open_pair,
    open_server,
    open_server_with_raw_client,
    socket_pair,
    tcp_pair,
)
from tests.tls_helpers import tls_contexts
from trio_ws import ConnectionClosed, ConnectionEnded, ConnectionLost, WebSocket, open_websocket_url
from trio_ws._pacing import CALLS_PER_CHECKPOINT, WORK_PER_CHECKPOINT
from trio_ws.testing import FaultyStream

pytestmark = pytest.mark.autojump


async def test_a_str_is_sent_as_text_and_bytes_like_objects_as_binary() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await ws.send("héllo")
        await ws.send(b"abc")
        await ws.send(bytearray(b"def"))
        await ws.send(memoryview(b"-ghi-")[1:4])
        assert [await peer.receive_frame() for _ in range(4)] == [
            (FIN | TEXT, "héllo".encode()),
            (FIN | BINARY, b"abc"),
            (FIN | BINARY, b"def"),
            (FIN | BINARY, b"ghi"),
        ]
        await peer.send_close(1000)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1_000_000])
async def test_messages_of_every_size_class_arrive_whole(size: int) -> None:
    text = "x" * (size - 2) + "é" if size > 2 else "x" * size
    async with open_pair() as (client, server):
        for sender, receiver in ((client, server), (server, client)):
            await sender.send(text)
            assert await receiver.receive() == text
            await sender.send(text.encode())
            assert await receiver.receive() == text.encode()


async def test_a_message_of_another_type_is_a_type_error_that_names_the_remedy() -> None:
    async with open_pair() as (client, _):
        wrong: Any = {"a": 1}
        with pytest.raises(TypeError, match="send_json"):
            await client.send(wrong)
        with pytest.raises(TypeError, match="not int"):
            client.send_nowait(wrong["a"])


async def test_a_str_that_utf_8_cannot_express_is_a_value_error_and_harms_nothing() -> None:
    async with open_pair() as (client, server):
        with pytest.raises(ValueError, match="surrogates"):
            await client.send("\ud800")
        await client.send("fine")
        assert await server.receive() == "fine"


async def test_changing_a_bytearray_after_send_does_not_change_the_message() -> None:
    async with open_pair() as (client, server):
        data = bytearray(b"before")
        await client.send(data)
        data[:] = b"after!"
        assert await server.receive() == b"before"


async def test_json_goes_out_as_text_whatever_dumps_returns() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await ws.send_json({"é": [1, None]}, dumps=lambda value: json.dumps(value).encode())
        await ws.send_json([1])
        assert await peer.receive_frame() == (FIN | TEXT, b'{"\\u00e9": [1, null]}')
        assert await peer.receive_frame() == (FIN | TEXT, b"[1]")
        await peer.send_close(1000)


async def test_json_that_cannot_be_dumped_raises_what_dumps_raises() -> None:
    async with open_pair() as (client, server):
        with pytest.raises(TypeError, match="not JSON serializable"):
            await client.send_json(object())
        await client.send("still open")
        assert await server.receive() == "still open"


# Back-pressure…


async def test_send_waits_while_more_than_max_send_buffer_is_unsent() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_stream)
    options = {"max_send_buffer": 1000, "compression": None}
    async with open_pair(client=options, streams=(stream, server_stream)) as (client, server):
        stream.stall_sends()
        await client.send(b"x" * 500)
        await client.send(b"y" * 5000)  # one message may go over
        with pytest.raises(trio.WouldBlock):
            client.send_nowait(b"z")
        with trio.move_on_after(0.01) as scope:
            await client.send(b"z")
        assert scope.cancelled_caught
        assert client.statistics().unsent_bytes > 5500

        stream.go_on()
        await client.send(b"end")
        assert [await server.receive() for _ in range(3)] == [b"x" * 500, b"y" * 5000, b"end"]


async def test_waiting_senders_go_in_the_order_in_which_they_came() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_stream)
    options = {"max_send_buffer": 10}
    async with open_pair(client=options, streams=(stream, server_stream)) as (client, server):
        stream.stall_sends()
        await client.send(b"x" * 100)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(client.send, f"{number}" * 50)
                await trio.testing.wait_all_tasks_blocked()
            stream.go_on()
        await server.receive()
        assert [await server.receive() for _ in range(10)] == [f"{n}" * 50 for n in range(10)]


async def test_many_tasks_may_send_at_the_same_time() -> None:
    async with open_pair(streams=socket_pair()) as (client, server):

        async def send_many(name: str) -> None:
            for number in range(200):
                await client.send(f"{name}{number}" + "." * 1000)

        received: dict[str, list[int]] = {name: [] for name in "abcde"}
        async with trio.open_nursery() as nursery:
            for name in received:
                nursery.start_soon(send_many, name)
            for _ in range(1000):
                message = await server.receive()
                assert isinstance(message, str)
                received[message[0]].append(int(message[1:].rstrip(".")))
        assert all(numbers == list(range(200)) for numbers in received.values())


async def test_send_is_a_cancellation_point_every_time_and_then_sends_nothing() -> None:
    async with open_pair() as (client, server):
        for _ in range(100):
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.send("never")
            assert scope.cancelled_caught
        await client.send("once")
        assert await server.receive() == "once"
        assert client.statistics().messages_sent == 1


async def test_sending_without_waiting_lets_other_tasks_run_now_and_then() -> None:
    async with open_pair() as (client, _server):
        async with counting_turns() as turns:
            for _ in range(10 * CALLS_PER_CHECKPOINT):
                await client.send("")
        assert turns.count >= 8


async def test_large_messages_let_other_tasks_run_more_often_but_not_with_each() -> None:
    message = bytes(64 * 1024)
    async with open_pair(client={"max_send_buffer": math.inf, "compression": None}) as pair:
        async with counting_turns() as turns:
            for _ in range(64):
                await pair[0].send(message)
        assert 64 * len(message) / WORK_PER_CHECKPOINT / 8 <= turns.count <= 16


# Messages in fragments…


async def test_open_message_sends_one_message_in_fragments() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        async with ws.open_message("text") as writer:
            await writer.send("ab")
            await writer.send("cd")
        async with ws.open_message("binary") as writer:
            await writer.send(bytearray(b"ef"))
        async with ws.open_message("text"):
            pass
        assert [await peer.receive_frame() for _ in range(6)] == [
            (TEXT, b"ab"),
            (CONTINUATION, b"cd"),
            (FIN | CONTINUATION, b""),
            (BINARY, b"ef"),
            (FIN | CONTINUATION, b""),
            (FIN | TEXT, b""),
        ]
        assert ws.statistics().messages_sent == 3
        await peer.send_close(1000)


async def test_a_writer_that_outlives_its_block_sends_nothing() -> None:
    async with open_pair() as (client, server):
        async with client.open_message("text") as writer:
            await writer.send("whole")
        with pytest.raises(trio.ClosedResourceError, match="was left"):
            await writer.send("late")
        await client.send("next")
        assert [await server.receive() for _ in range(2)] == ["whole", "next"]


async def test_other_messages_wait_for_a_message_in_fragments_and_pings_do_not() -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        async with client.open_message("text") as writer:
            await writer.send("a")
            nursery.start_soon(client.send, "other")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.WouldBlock):
                client.send_nowait("no")
            assert await client.ping() >= 0
            await writer.send("b")
        assert await server.receive() == "ab"
        assert await server.receive() == "other"


async def test_sending_another_message_inside_the_block_is_an_error_not_a_deadlock() -> None:
    async with open_pair() as (client, server):
        async with client.open_message("text") as writer:
            await writer.send("a")
            with pytest.raises(RuntimeError, match="finish that message first"):
                await client.send("b")
            with pytest.raises(RuntimeError, match="finish that message first"):
                async with client.open_message("text"):
                    raise AssertionError
        assert await server.receive() == "a"


async def test_a_message_is_all_text_or_all_binary() -> None:
    async with open_pair() as (client, server):
        wrong: Any = "json"
        with pytest.raises(ValueError, match="'text' or 'binary'"):
            async with client.open_message(wrong):
                raise AssertionError
        async with client.open_message("text") as writer:
            with pytest.raises(TypeError, match="made of str"):
                await writer.send(b"bytes")
            await writer.send("ok")
        assert await server.receive() == "ok"


def raise_an_error(scope: trio.CancelScope) -> None:
    raise KeyError("mine")


def cancel(scope: trio.CancelScope) -> None:
    scope.cancel()


WAYS_OUT = {"exception": raise_an_error, "cancellation": cancel}


@pytest.mark.parametrize("how", WAYS_OUT)
async def test_leaving_a_message_unfinished_fails_the_connection_with_1011(how: str) -> None:
    async with open_server_with_raw_client() as (ws, peer):
        with trio.CancelScope() as scope:
            try:
                async with ws.open_message("text") as writer:
                    await writer.send("half")
                    WAYS_OUT[how](scope)
                    await writer.send("never")
            except KeyError as exc:
                assert exc.args == ("mine",)
        assert scope.cancelled_caught == (how == "cancellation")
        assert await peer.receive_frame() == (TEXT, b"half")
        first, payload = await peer.receive_frame() or (0, b"")
        assert (first, close_code(payload)) == (FIN | CLOSE, 1011)
        with pytest.raises(ConnectionLost, match="1011 .* a message was left unfinished"):
            await ws.send("more")
        await peer.send_close(1011)


async def test_a_connection_that_ends_within_a_message_is_an_error_of_the_block() -> None:
    async with open_client_with_raw_server() as (ws, peer):
        with pytest.raises(ConnectionEnded):
            async with ws.open_message("text") as writer:
                await writer.send("half")
                await peer.send_close(1001)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(ConnectionEnded):
                    await writer.send("more")
        with pytest.raises(ConnectionEnded):
            async with ws.open_message("text"):
                raise AssertionError


async def test_a_cancelled_fragment_that_is_caught_inside_leaves_the_message_whole() -> None:
    async with open_pair() as (client, server):
        async with client.open_message("text") as writer:
            await writer.send("a")
            with trio.CancelScope() as scope:
                scope.cancel()
                await writer.send("never")
            await writer.send("b")
        assert await server.receive() == "ab"


async def test_a_writer_waits_for_room_like_send() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_stream)
    options = {"max_send_buffer": 10}
    async with open_pair(client=options, streams=(stream, server_stream)) as (client, server):
        async with client.open_message("binary") as writer:
            stream.stall_sends()
            await writer.send(b"x" * 100)
            with trio.move_on_after(0.01) as scope:
                await writer.send(b"never")
            assert scope.cancelled_caught
            stream.go_on()
        assert await server.receive() == b"x" * 100


# After the end…


async def test_sending_after_our_own_close_is_a_closed_resource_error() -> None:
    async with open_pair() as (client, _):
        await client.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await client.send("late")
        with pytest.raises(trio.ClosedResourceError):
            client.send_nowait("late")
        with pytest.raises(trio.ClosedResourceError):
            await client.ping()


async def test_a_sender_that_waits_when_we_close_is_told_when_we_are_through() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_stream)
    options = {"max_send_buffer": 10, "close_timeout": 0.2}
    outcomes: list[str] = []

    async with open_pair(client=options, streams=(stream, server_stream)) as (client, _):

        async def send() -> None:
            try:
                await client.send(b"never")
            except trio.ClosedResourceError:
                outcomes.append(client.state.value)

        stream.stall_sends()
        await client.send(b"x" * 100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(client.aclose)
        assert outcomes == ["closed", "closed"]


async def test_pongs_owed_while_there_is_no_room_are_only_the_newest() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(server_stream)
    async with open_server_with_raw_client(streams=(client_stream, stream), max_send_buffer=10) as (
        ws,
        peer,
    ):
        stream.stall_sends()
        await ws.send(b"x" * 100)
        for number in range(1000):
            await peer.send_frame(PING, str(number).encode())
        await trio.testing.wait_all_tasks_blocked()
        assert ws.statistics().unsent_bytes < 200
        stream.go_on()
        assert await peer.receive_frame() == (FIN | BINARY, b"x" * 100)
        assert await peer.receive_frame() == (FIN | PONG, b"999")
        await peer.send_close(1000)


# Answers that are gathered, because more messages wait…


async def tls_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    theirs, ours = tls_contexts("example.org")
    one, other = await tcp_pair()
    return (
        trio.SSLStream(one, ours, server_hostname="example.org"),
        trio.SSLStream(other, theirs, server_side=True),
    )


async def memory_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return trio.testing.memory_stream_pair()


async def wait(ws: WebSocket, nursery: trio.Nursery) -> None:
    nursery.start_soon(forever)


async def do_nothing(ws: WebSocket, nursery: trio.Nursery) -> None:
    pass


async def close(ws: WebSocket, nursery: trio.Nursery) -> None:
    nursery.start_soon(ws.aclose)


async def send_a_message_in_fragments(ws: WebSocket, nursery: trio.Nursery) -> None:
    async with ws.open_message("text") as writer:
        await writer.send("more")


async def send_much_and_close(ws: WebSocket, nursery: trio.Nursery) -> None:
    await ws.send("x" * 100_000)
    nursery.start_soon(ws.aclose, 4000, "enough")


#: What the sender does next, which messages follow its answers, and with which code it closes.
NEXT: dict[str, tuple[Callable[[WebSocket, trio.Nursery], Awaitable[None]], list[str], int | None]]
NEXT = {
    "wait": (wait, [], None),
    "return": (do_nothing, [], None),
    "aclose": (close, [], 1000),
    "receive": (send_a_message_in_fragments, ["more"], None),
    "aclose at once": (send_much_and_close, ["x" * 100_000], 4000),
}


@pytest.mark.parametrize("make_streams", [tcp_pair, memory_pair, tls_pair])
@pytest.mark.parametrize("end", NEXT)
async def test_answers_are_on_their_way_when_their_sender_waits_or_ends(
    make_streams: Callable[[], Awaitable[tuple[trio.abc.Stream, trio.abc.Stream]]], end: str
) -> None:
    """Ten messages wait; three are answered, and the sender then does something else."""
    go_on, further, code = NEXT[end]
    async with open_pair(streams=await make_streams()) as (client, server):
        for number in range(10):
            await client.send(f"question {number}")
        await client.ping()  # they have all arrived
        for number in range(3):
            assert await server.receive() == f"question {number}"
            await server.send(f"answer {number}")
        async with trio.open_nursery() as nursery:
            await go_on(server, nursery)
            with trio.fail_after(5):
                assert [await client.receive() for _ in range(3)] == [
                    f"answer {number}" for number in range(3)
                ]
                assert [await client.receive() for _ in further] == further
                if code is not None:
                    with pytest.raises(ConnectionClosed) as caught:
                        await client.receive()
                    assert caught.value.reason.code == code
            nursery.cancel_scope.cancel()


async def test_answers_are_gathered_up_to_the_last_message_that_waits() -> None:
    async with open_pair(streams=socket_pair()) as (client, server):
        for number in range(10):
            await client.send(f"{number}")
        await client.ping()  # they have all arrived
        unsent: list[bool] = []
        while server.statistics().queued_messages:
            server.send_nowait(server.receive_nowait())
            unsent.append(server.statistics().unsent_bytes > 0)
        assert unsent == [True] * 9 + [False]
        assert [await client.receive() for _ in range(10)] == [f"{n}" for n in range(10)]


@pytest.mark.parametrize("code", [1000, 1011])
async def test_messages_of_a_handler_come_before_the_close_frame_however_it_ends(code: int) -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.ping()  # they have all arrived
        for _ in range(3):
            await ws.send(await ws.receive())
        if code == 1011:
            raise ValueError("as asked")

    async with open_server(handler) as server, open_websocket_url(server.urls[0]) as client:
        for number in range(10):
            await client.send(f"{number}")
        assert [await client.receive() for _ in range(3)] == ["0", "1", "2"]
        assert (await client.wait_closed()).code == code
