"""`as_stream`: a trio stream over a WebSocket."""

from __future__ import annotations

import array
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import (
    BINARY,
    HOST,
    echo,
    open_client_with_raw_server,
    open_pair,
    open_server,
    open_server_with_raw_client,
    socket_pair,
)
from tests.tls_helpers import tls_contexts
from trio_ws import ConnectionLost, WebSocket, as_stream, open_websocket_url
from trio_ws._connection.byte_stream import MESSAGE_SIZE

Pair = tuple[trio.abc.Stream, trio.abc.Stream]


@asynccontextmanager
async def stream_maker(**options: Any) -> AsyncGenerator[Callable[[], Awaitable[Pair]], None]:
    """Makes pairs of streams, whose connections live as long as the block."""
    async with trio.open_nursery() as nursery:

        async def live(task_status: trio.TaskStatus[Pair]) -> None:
            settings = {"close_timeout": 1, **options}
            async with open_pair(client=settings, server=settings, streams=socket_pair()) as (
                client,
                server,
            ):
                task_status.started((as_stream(client), as_stream(server)))
                await trio.sleep_forever()

        async def make() -> Pair:
            pair: Pair = await nursery.start(live)
            return pair

        yield make
        nursery.cancel_scope.cancel()


async def send_forever(stream: trio.abc.SendStream) -> None:
    while True:
        await stream.send_all(b"x" * 100_000)


@pytest.mark.parametrize("turned", [False, True])
async def test_a_byte_stream_is_what_trio_takes_for_a_stream(turned: bool) -> None:
    async with stream_maker(max_queued_messages=1, compression=None) as make:

        async def make_in_turn() -> Pair:
            one, other = await make()
            return (other, one) if turned else (one, other)

        async def make_clogged() -> Pair:
            one, other = await make_in_turn()
            for sender in (one, other):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send_forever, sender)
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    nursery.cancel_scope.cancel()
            return one, other

        with trio.fail_after(60):
            await trio.testing.check_two_way_stream(make_in_turn, make_clogged)


async def test_bytes_are_what_counts_and_not_messages() -> None:
    async with open_pair() as (ws, peer):
        stream = as_stream(ws)
        for message in (b"one", b"", "zwölf", b"three"):
            await peer.send(message)
        assert await stream.receive_some(2) == b"on"
        assert await stream.receive_some(2) == b"e"
        assert await stream.receive_some() == "zwölf".encode()
        assert await stream.receive_some(100) == b"three"
        await peer.aclose(1001)
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b""


async def test_long_data_is_sent_in_messages_that_every_peer_takes() -> None:
    data = bytes(range(256)) * 1000
    async with open_pair() as (ws, peer):
        await as_stream(ws).send_all(data)
        first = await peer.receive_bytes()
        assert len(first) == MESSAGE_SIZE
        assert first + b"".join([await peer.receive_bytes() for _ in range(3)]) == data
        numbers: Any = array.array("Q", [1, 2])
        await as_stream(ws).send_all(numbers)
        assert await peer.receive() == array.array("Q", [1, 2]).tobytes()


@pytest.mark.parametrize("compress", [None, False])
async def test_encrypted_data_need_not_be_compressed(compress: bool | None) -> None:
    async with open_pair() as (ws, peer):
        await as_stream(ws, compress=compress).send_all(b"x" * 5000)
        assert await peer.receive() == b"x" * 5000
        assert (ws.statistics().compression_sent is None) == (compress is False)


async def test_an_end_that_is_no_good_one_is_an_error() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        stream = as_stream(ws)
        await peer.send_frame(BINARY, b"the last")
        await peer.send_close(1011)
        assert await stream.receive_some() == b"the last"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="1011") as caught:
                await stream.receive_some()
            assert isinstance(caught.value, ConnectionLost)


async def test_the_rest_of_a_message_is_not_received_after_closing() -> None:
    async with open_pair() as (ws, peer):
        stream = as_stream(ws)
        await peer.send(b"12")
        assert await stream.receive_some(1) == b"1"
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some(1)


async def test_closing_the_stream_closes_with_1000() -> None:
    async with open_client_with_raw_server(close_timeout=0.1) as (ws, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(as_stream(ws).aclose)
            assert await peer.receive_close() == 1000
            await peer.send_close(1000)
            await peer.stream.aclose()


async def test_the_repr_of_a_byte_stream_names_its_connection() -> None:
    async with open_pair() as (ws, _):
        assert repr(as_stream(ws)) == f"<byte stream over {ws!r}>"


async def test_tls_and_a_websocket_within_it_go_through_a_websocket() -> None:
    server_context, client_context = tls_contexts("inner.example")

    async def serve_tls(ws: WebSocket) -> None:
        tls = trio.SSLStream(as_stream(ws), server_context, server_side=True)
        async for data in tls:
            await tls.send_all(data)

    async with (
        open_server(serve_tls) as server,
        open_websocket_url(server.urls[0]) as ws,
    ):
        tls = trio.SSLStream(as_stream(ws), client_context, server_hostname="inner.example")
        data = bytes(range(256)) * 2000
        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tls.send_all, data)
            while len(received) < len(data):
                received += await tls.receive_some()
        assert received == data


async def test_tcp_can_be_relayed_through_a_websocket() -> None:
    """A relay as `websockify` is one, with both of its ends."""

    async def copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        async for data in source:
            await sink.send_all(data)

    async def relay(ws: WebSocket) -> None:
        async with (
            await trio.open_tcp_stream(HOST, behind.port) as target,
            ws.open_nursery() as nursery,
        ):
            nursery.start_soon(copy, as_stream(ws), target)
            await copy(target, as_stream(ws))
            nursery.cancel_scope.cancel()

    async with (
        open_server(echo) as behind,
        open_server(relay) as server,
        open_websocket_url(server.urls[0]) as ws,
    ):
        stream = as_stream(ws)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        async for data in stream:
            answer += data
        assert answer.startswith(b"HTTP/1.1 426 ")
