"""`WebSocket.receive_message`: messages as they arrive."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.connection.connection_helpers import collect
from tests.helpers import (
    BINARY,
    CONTINUATION,
    TEXT,
    open_client_with_raw_server,
    open_pair,
    open_server_with_raw_client,
    socket_pair,
)
from trio_ws import ConnectionEnded, ConnectionLost

pytestmark = pytest.mark.autojump


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
