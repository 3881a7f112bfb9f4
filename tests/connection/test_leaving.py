"""Leaving the block of a connection, and what the connection says of itself."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.connection.connection_helpers import BOTH_SIDES
from tests.connection.reading_helpers import AWAY
from tests.helpers import (
    TEXT,
    URL,
    RawPeer,
    open_client_with_raw_server,
    open_pair,
    open_server_with_raw_client,
    tcp_pair,
)
from trio_ws.testing import FaultyStream

pytestmark = pytest.mark.autojump


# Leaving…


@asynccontextmanager
async def our_side(side: str) -> AsyncGenerator[tuple[Any, RawPeer], None]:
    opener = open_server_with_raw_client if side == "server" else open_client_with_raw_server
    async with opener() as pair:
        yield pair


async def _expect_close(peer: RawPeer, code: int) -> None:
    assert await peer.receive_close() == code
    await peer.send_close(code)
    await peer.stream.aclose()


@pytest.mark.parametrize("side", ["server", "client"])
async def test_leaving_normally_says_1000(side: str) -> None:
    async with trio.open_nursery() as nursery, our_side(side) as (_, peer):
        nursery.start_soon(_expect_close, peer, 1000)


class Boom(Exception):
    pass


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


# What it looks like…


async def test_repr_tells_side_peer_state_and_queue_depth() -> None:
    async with open_pair(streams=await tcp_pair()) as (client, server):
        await client.send("x")
        await trio.sleep(AWAY)  # the reader task reads
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
