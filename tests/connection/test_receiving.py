"""`WebSocket`, the receiving half: receive, iteration, JSON, messages as they arrive, bounds."""

from __future__ import annotations

import json
import math
from sys import getsizeof
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
    Options,
    close_code,
    close_frame,
    frame,
    open_client_with_raw_server,
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
from trio_ws._pacing import CALLS_PER_CHECKPOINT

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


async def test_draining_a_full_queue_lets_other_tasks_run_now_and_then() -> None:
    async with open_pair() as (client, server):
        for _ in range(10 * CALLS_PER_CHECKPOINT):
            client.send_nowait("x")
        await trio.testing.wait_all_tasks_blocked()
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            for _ in range(10 * CALLS_PER_CHECKPOINT):
                await server.receive()
            nursery.cancel_scope.cancel()
        assert turns >= 8


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


# Bounds…


async def test_the_reader_stops_at_max_queued_messages_and_goes_on_when_there_is_room() -> None:
    async with open_server_with_raw_client(max_queued_messages=5) as (ws, peer):
        for number in range(20):
            await peer.send_frame(TEXT, str(number).encode())
            await trio.testing.wait_all_tasks_blocked()
        assert ws.statistics().queued_messages == 5
        assert [await ws.receive() for _ in range(20)] == [str(number) for number in range(20)]
        await peer.send_close(1000)


async def test_the_reader_stops_at_max_queued_bytes() -> None:
    async with open_server_with_raw_client(max_queued_bytes=3000) as (ws, peer):
        for _ in range(20):
            await peer.send_frame(BINARY, b"x" * 1000)
            await trio.testing.wait_all_tasks_blocked()
        statistics = ws.statistics()
        assert statistics.queued_messages == 3
        assert statistics.queued_bytes == 3 * getsizeof(b"x" * 1000)
        for _ in range(20):
            assert await ws.receive() == b"x" * 1000
        assert ws.statistics().queued_bytes == 0
        await peer.send_close(1000)


@pytest.mark.parametrize("how", ["a cancelled receive", "one poll"])
async def test_somebody_who_gave_up_wanting_leaves_the_bound_in_place(how: str) -> None:
    options: dict[str, Any] = {"max_message_size": float("inf"), "max_queued_bytes": 3000}
    async with open_server_with_raw_client(**options) as (ws, peer):
        if how == "one poll":
            with pytest.raises(trio.WouldBlock):
                ws.receive_nowait()
        else:
            with trio.move_on_after(1):
                await ws.receive()
        await peer.send_frame(BINARY, b"x" * 1000, fin=False)
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_frame(CONTINUATION, b"x" * 1000, fin=False)
        await trio.testing.wait_all_tasks_blocked()
        assert ws.statistics().queued_bytes < 6000


async def test_a_message_that_drips_in_is_not_held_drop_by_drop() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        data = frame(BINARY, b"x" * 20_000)
        for start in range(0, len(data), 2):
            await peer.send(data[start : start + 2])
            await trio.lowlevel.checkpoint()
        assert ws.statistics().queued_bytes < 40_000
        assert await ws.receive() == b"x" * 20_000
        await peer.send_close(1000)


async def test_half_a_message_counts_as_queued_until_somebody_wants_it() -> None:
    async with open_server_with_raw_client(max_queued_bytes=3000) as (ws, peer):
        await peer.send_frame(BINARY, b"x" * 1000, fin=False)
        for _ in range(9):
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_frame(CONTINUATION, b"x" * 1000, fin=False)
        await peer.send_frame(CONTINUATION, b"")
        await trio.testing.wait_all_tasks_blocked()
        assert ws.statistics().queued_messages == 0
        assert 3000 <= ws.statistics().queued_bytes < 4200
        assert await ws.receive() == b"x" * 10_000
        await peer.send_close(1000)


@pytest.mark.parametrize("fragments", [1, 4])
async def test_a_message_of_exactly_the_limit_is_received_and_one_more_byte_is_1009(
    fragments: int,
) -> None:
    async with open_server_with_raw_client(max_message_size=4096) as (ws, peer):

        async def send(size: int) -> None:
            part = size // fragments
            for index in range(fragments):
                length = part if index < fragments - 1 else size - part * index
                opcode = CONTINUATION if index else BINARY
                await peer.send_frame(opcode, b"x" * length, fin=index == fragments - 1)

        await send(4095)
        await send(4096)
        assert [len(await ws.receive()) for _ in range(2)] == [4095, 4096]
        await send(4097)
        with pytest.raises(ConnectionLost, match="1009 .*message over 4096 bytes"):
            await ws.receive()
        frames = await peer.receive_all_frames()
        assert [(first, close_code(payload)) for first, payload in frames] == [(FIN | CLOSE, 1009)]
        await peer.stream.aclose()


@pytest.mark.parametrize("payload", [b"", b"x"])
async def test_a_million_tiny_fragments_run_into_the_limit(payload: bytes) -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_frame(TEXT, payload, fin=False)
        continuation = frame(CONTINUATION, payload, fin=False)
        await peer.send(continuation * 100_000)
        with pytest.raises(ConnectionLost, match="1009"):
            await ws.receive()
        await peer.stream.aclose()


async def test_a_declared_length_of_a_terabyte_is_refused_at_the_header() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send(bytes([FIN | BINARY, 0x80 | 127]) + (2**40).to_bytes(8, "big"))
        with pytest.raises(ConnectionLost, match="1009"):
            await ws.receive()
        await peer.stream.aclose()


async def test_messages_that_inflate_a_thousandfold_wait_like_any_others() -> None:
    """A dozen messages of 1 MiB fit into one read: they must not all be inflated because of it."""
    options = {"max_queued_bytes": 100_000}
    async with open_pair(server=options, streams=socket_pair()) as (client, server):
        for _ in range(12):
            await client.send(bytes(2**20))
        while not server.statistics().queued_messages:
            await trio.sleep(0.01)
        assert server.statistics().queued_messages == 1
        assert [await server.receive() for _ in range(12)] == [bytes(2**20)] * 12


async def test_a_huge_message_is_inflated_a_little_at_a_time() -> None:
    options = {"max_message_size": float("inf"), "max_queued_bytes": 100_000}
    async with open_pair(server=options, streams=socket_pair()) as (client, server):
        await client.send(bytes(50 * 2**20))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert server.statistics().queued_bytes < 3 * 2**20
        total = 0
        async with server.receive_message() as chunks:
            async for chunk in chunks:
                total += len(chunk)
        assert total == 50 * 2**20


# Messages as they arrive…


async def collect(ws: WebSocket) -> list[str | bytes]:
    async with ws.receive_message() as chunks:
        return [chunk async for chunk in chunks]


async def test_receive_message_gives_the_chunks_of_one_message_as_they_arrive() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_frame(TEXT, b"one", fin=False)
        async with ws.receive_message() as chunks:
            assert await anext(chunks) == "one"
            with trio.move_on_after(1) as scope:
                await anext(chunks)
            assert scope.cancelled_caught
            await peer.send_frame(CONTINUATION, b"two", fin=False)
            assert await anext(chunks) == "two"
            await peer.send_frame(CONTINUATION, b"three")
            assert [chunk async for chunk in chunks] == ["three"]
            assert [chunk async for chunk in chunks] == []
        await peer.send_frame(BINARY, b"next")
        assert await ws.receive() == b"next"
        await peer.send_close(1000)


async def test_receive_message_takes_whole_messages_from_the_queue_in_order() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_frame(TEXT, b"a")
        await peer.send_frame(TEXT, b"b")
        await trio.testing.wait_all_tasks_blocked()
        assert await collect(ws) == ["a"]
        assert await ws.receive() == "b"
        await peer.send_frame(BINARY, b"")
        assert await collect(ws) == [b""]
        await peer.send_close(1000)


async def test_receive_message_waits_for_a_message_and_can_be_cancelled_meanwhile() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        with trio.move_on_after(1) as scope:
            await collect(ws)
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, ws)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_frame(TEXT, b"whole")
        await peer.send_close(1000)


async def test_leaving_a_message_early_discards_the_rest_and_the_connection_goes_on() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_frame(TEXT, b"one", fin=False)
        async with ws.receive_message() as chunks:
            assert await anext(chunks) == "one"
        await peer.send_frame(CONTINUATION, b"two", fin=False)
        await peer.send_frame(CONTINUATION, b"three")
        await peer.send_frame(TEXT, b"next")
        assert await ws.receive() == "next"
        await peer.send_frame(TEXT, b"left at once")
        with pytest.raises(KeyError):
            async with ws.receive_message() as chunks:
                raise KeyError
        await peer.send_close(1000)


async def test_a_streamed_message_larger_than_memory_allows_passes_through_bounded() -> None:
    options = {
        "max_message_size": float("inf"),
        "max_queued_bytes": 100_000,
        "compression": None,
    }
    async with open_pair(server=options, streams=socket_pair()) as (client, server):

        async def send() -> None:
            async with client.open_message("binary") as writer:
                for _ in range(100):
                    await writer.send(b"x" * 100_000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            total = 0
            async with server.receive_message() as chunks:
                async for chunk in chunks:
                    total += len(chunk)
                    assert server.statistics().queued_bytes < 300_000
                    await trio.lowlevel.checkpoint()
        assert total == 10_000_000


async def test_nobody_asks_for_a_huge_message_and_little_of_it_is_held() -> None:
    options = {
        "max_message_size": float("inf"),
        "max_queued_bytes": 100_000,
        "compression": None,
    }
    async with open_pair(server=options, streams=socket_pair()) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, b"x" * 10_000_000)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert server.statistics().queued_bytes < 300_000
            assert len(await server.receive()) == 10_000_000


async def test_a_second_task_can_wait_for_the_message_after_the_one_that_is_streamed() -> None:
    async with open_server_with_raw_client() as (ws, peer), trio.open_nursery() as nursery:
        await peer.send_frame(TEXT, b"streamed", fin=False)
        async with ws.receive_message() as chunks:
            others: list[list[str | bytes]] = []

            async def other() -> None:
                others.append(await collect(ws))

            nursery.start_soon(other)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_frame(CONTINUATION, b"!")
            await peer.send_frame(TEXT, b"second")
            assert "".join([str(chunk) async for chunk in chunks]) == "streamed!"
            await trio.testing.wait_all_tasks_blocked()
            assert others == [["second"]]
        await peer.send_close(1000)


async def test_a_slow_streamer_is_not_flooded_because_another_task_waits() -> None:
    options = {
        "max_message_size": float("inf"),
        "max_queued_bytes": 100_000,
        "compression": None,
    }
    async with open_pair(server=options, streams=socket_pair()) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, b"x" * 5_000_000)
            async with server.receive_message() as chunks:
                nursery.start_soon(server.receive)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert server.statistics().queued_bytes < 300_000
                assert sum([len(chunk) async for chunk in chunks]) == 5_000_000
            await client.send("for the other")


@pytest.mark.parametrize("code", [1000, 4000])
async def test_the_connection_ends_in_the_middle_of_a_streamed_message(code: int) -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_frame(TEXT, b"one", fin=False)
        async with ws.receive_message() as chunks:
            await peer.send_close(code)
            assert await anext(chunks) == "one"
            with pytest.raises(ConnectionEnded if code == 1000 else ConnectionLost):
                await anext(chunks)
        with pytest.raises(ConnectionEnded if code == 1000 else ConnectionLost):
            await collect(ws)


async def test_the_connection_ends_in_the_middle_of_a_message_that_nobody_reads() -> None:
    async with open_client_with_raw_server() as (ws, peer):
        await peer.send_frame(TEXT, b"one", fin=False)
        await peer.send_close(1000)
        with pytest.raises(ConnectionEnded):
            await ws.receive()
        assert ws.statistics().queued_bytes == 0


async def test_a_streamed_message_that_we_close_upon_is_a_closed_resource() -> None:
    async with open_server_with_raw_client() as (ws, peer), trio.open_nursery() as nursery:
        await peer.send_frame(TEXT, b"one", fin=False)
        async with ws.receive_message() as chunks:
            assert await anext(chunks) == "one"
            nursery.start_soon(ws.aclose)
            nursery.start_soon(peer.send_close, 1000)
            with pytest.raises(trio.ClosedResourceError):
                await anext(chunks)
        with pytest.raises(trio.ClosedResourceError):
            await collect(ws)


# Violations…

VIOLATIONS = {
    "an unknown opcode": (frame(0x3), 1002),
    "an unknown control opcode": (frame(0xB), 1002),
    "RSV1 without an extension": (frame(TEXT, b"x", rsv=4), 1002),
    "RSV2": (frame(TEXT, b"x", rsv=2), 1002),
    "RSV3": (frame(TEXT, b"x", rsv=1), 1002),
    "a frame without a mask": (frame(TEXT, b"x", mask=False), 1002),
    "a fragmented control frame": (frame(PING, b"x", fin=False), 1002),
    "a long control frame": (frame(PING, b"x" * 126), 1002),
    "a continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "a message within a message": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "a length with its top bit set": (bytes([FIN | TEXT, 0xFF]) + b"\x80" + bytes(7), 1002),
    "a length that is not minimal": (bytes([FIN | TEXT, 0xFE, 0, 5]) + bytes(9), 1002),
    "a long length that is not minimal": (bytes([FIN | TEXT, 0xFF]) + bytes(6) + b"\0\5", 1002),
    "a Close with one byte": (frame(CLOSE, b"\x03"), 1002),
    "a Close with bad UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "text that is not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "text that cannot become UTF-8": (frame(TEXT, b"\xf4\x90", fin=False), 1007),
    "text that ends within a character": (frame(TEXT, b"\xc3"), 1007),
    "bad UTF-8 in a later fragment": (
        frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\x28"),
        1007,
    ),
    **{
        f"close code {code}": (close_frame(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize("one_byte_reads", [False, True], ids=["in one segment", "in bytes"])
@pytest.mark.parametrize("what", VIOLATIONS)
async def test_a_violation_gets_exactly_one_close_frame_and_nothing_more_is_parsed(
    what: str, one_byte_reads: bool
) -> None:
    data, code = VIOLATIONS[what]
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_frame(TEXT, b"before")
        if one_byte_reads:
            for byte in data:
                await peer.send(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()
        else:
            await peer.send(data, frame(TEXT, b"after"), frame(PING, b"after"), close_frame(1000))
        assert await ws.receive() == "before"
        with pytest.raises(ConnectionLost) as caught:
            await ws.receive()
        assert caught.value.reason.code == code
        frames = await peer.receive_all_frames()  # ends: FIN was sent
        assert [(first, close_code(payload)) for first, payload in frames] == [(FIN | CLOSE, code)]
        await peer.stream.aclose()


async def test_a_message_before_a_violation_is_answered_before_the_connection_fails() -> None:
    async with open_server_with_raw_client() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(_echo_once_slowly, ws)
        await peer.send(frame(TEXT, b"right"), frame(0x3))
        assert await peer.receive_frame() == (FIN | TEXT, b"right")
        assert await peer.receive_close() == 1002
        await peer.stream.aclose()


async def _echo_once_slowly(ws: WebSocket) -> None:
    message = await ws.receive()
    await trio.sleep(0.5)
    await ws.send(message)
    with pytest.raises(ConnectionLost):
        await ws.receive()


async def test_a_streamed_message_before_a_violation_is_answered_as_well() -> None:
    async with open_server_with_raw_client() as (ws, peer), trio.open_nursery() as nursery:

        async def echo_chunks() -> None:
            async with ws.receive_message() as chunks:
                async for chunk in chunks:
                    await ws.send(chunk)
            with pytest.raises(ConnectionLost):
                await collect(ws)

        nursery.start_soon(echo_chunks)
        await peer.send_frame(TEXT, b"ri", fin=False)
        assert await peer.receive_frame() == (FIN | TEXT, b"ri")
        await peer.send(frame(CONTINUATION, b"ght"), frame(0x3))
        assert await peer.receive_frame() == (FIN | TEXT, b"ght")
        assert await peer.receive_close() == 1002
        await peer.stream.aclose()


async def test_a_handler_that_is_busy_does_not_hold_up_a_failure_for_long() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send(frame(TEXT, b"right"), frame(0x3))
        start = trio.current_time()
        assert await ws.receive() == "right"
        assert await peer.receive_close() == 1002
        assert trio.current_time() - start == pytest.approx(1)
        await peer.stream.aclose()


async def test_a_message_that_is_too_big_is_refused_at_once_however_busy_the_handler_is() -> None:
    async with open_server_with_raw_client(max_message_size=1000) as (ws, peer):
        await peer.send(frame(TEXT, b"right"), frame(TEXT, b"x" * 1001))
        assert await ws.receive() == "right"
        start = trio.current_time()
        assert await peer.receive_close() == 1009
        assert trio.current_time() == start
        await peer.stream.aclose()


async def test_keepalive_does_not_get_ahead_of_the_verdict_on_a_violation() -> None:
    async with open_server_with_raw_client(ping_interval=0.2, ping_timeout=0.2) as (ws, peer):
        await peer.send(frame(TEXT, b"right"), frame(0x3))
        await ws.receive()
        assert await peer.receive_close() == 1002
        await peer.stream.aclose()


async def test_a_client_refuses_masked_frames() -> None:
    async with open_client_with_raw_server() as (ws, peer):
        await peer.send_frame(TEXT, b"x", mask=True)
        with pytest.raises(ConnectionLost, match="1002"):
            await ws.receive()
        await peer.stream.aclose()


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4999])
async def test_every_code_that_may_be_sent_is_accepted(code: int) -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_close(code, "why")
        reason = await ws.wait_closed()
        assert (reason.code, reason.reason) == (code, "why")
        first, payload = await peer.receive_frame() or (0, b"")
        assert (first, close_code(payload)) == (FIN | CLOSE, code)
