"""`WebSocket`, the receiving half: how much is queued, how large a message may be."""

from __future__ import annotations

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
    TEXT,
    close_code,
    frame,
    open_pair,
    open_server_with_raw_client,
    socket_pair,
)
from trio_ws import ConnectionLost, WebSocket

pytestmark = pytest.mark.autojump


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


async def cancel_a_receive(ws: WebSocket) -> None:
    with trio.move_on_after(1):
        await ws.receive()


async def poll_once(ws: WebSocket) -> None:
    with pytest.raises(trio.WouldBlock):
        ws.receive_nowait()


WANTS = {"a cancelled receive": cancel_a_receive, "one poll": poll_once}


@pytest.mark.parametrize("how", WANTS)
async def test_a_receiver_that_gave_up_leaves_the_bound_in_place(how: str) -> None:
    options: dict[str, Any] = {"max_message_size": float("inf"), "max_queued_bytes": 3000}
    async with open_server_with_raw_client(**options) as (ws, peer):
        await WANTS[how](ws)
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
