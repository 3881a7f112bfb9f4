"""Calls that cannot work: from another thread, from another event loop, a second time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import echo
from trio_ws import (
    WebSocket,
    open_broadcast,
    open_websocket,
    open_websocket_url,
    serve_listeners,
    serve_websocket,
    wrap_client_stream,
    wrap_server_stream,
)
from trio_ws.testing import open_pair, open_test_app, open_test_server, open_test_websocket

ELSEWHERE = "belongs to the thread in which trio runs it.*trio.from_thread.run_sync"


async def in_thread(function: Callable[[], object]) -> None:
    """Call it in another thread, where it is refused."""
    with pytest.raises(RuntimeError, match=ELSEWHERE):
        await trio.to_thread.run_sync(function)


# Another thread…


async def test_a_message_is_not_sent_or_received_from_another_thread() -> None:
    async with open_pair() as (client, server):
        await client.send("one")
        await server.ping()
        await in_thread(server.receive_nowait)
        await in_thread(partial(client.send_nowait, "from a thread"))
        assert server.receive_nowait() == "one"
        await in_thread(server.receive_nowait)
        with pytest.raises(trio.WouldBlock):
            server.receive_nowait()

        def work() -> None:
            trio.from_thread.run_sync(client.send_nowait, "two")
            trio.from_thread.run(client.send, "three")

        await trio.to_thread.run_sync(work)
        assert await server.receive() == "two"
        assert await server.receive() == "three"


async def send_in_fragments(ws: WebSocket) -> None:
    async with ws.open_message("text"):
        pass


async def receive_in_pieces(ws: WebSocket) -> None:
    async with ws.receive_message():
        pass


async def enter_nursery(ws: WebSocket) -> None:
    async with ws.open_nursery():
        pass


#: All that is async and not done at once.
USES: list[Callable[[WebSocket], Awaitable[object]]] = [
    WebSocket.receive,
    WebSocket.__anext__,
    WebSocket.receive_json,
    receive_in_pieces,
    send_in_fragments,
    enter_nursery,
    WebSocket.ping,
    WebSocket.pong,
    WebSocket.aclose,
    WebSocket.wait_closed,
]


async def test_a_connection_is_not_used_by_a_trio_of_another_thread() -> None:
    async with open_pair() as (client, server):
        for use in USES:
            await in_thread(partial(trio.run, use, server))
        await client.send("still here")
        assert await server.receive() == "still here"


async def test_a_call_that_need_not_wait_is_not_for_a_trio_of_another_thread() -> None:
    async with open_pair() as (client, server):
        await client.send("kept")
        await trio.testing.wait_all_tasks_blocked()
        for use in (server.receive, server.__anext__, partial(server.send, "from a thread")):
            await in_thread(partial(trio.run, use))
        assert await server.receive() == "kept"
        await server.send("here")
        assert await client.receive() == "here"


async def test_a_sender_that_would_have_to_wait_is_told_that_the_thread_is_wrong() -> None:
    async with open_pair() as (client, server), server.open_message("text"):
        await in_thread(partial(trio.run, server.send, "x"))
        del client


async def test_a_broadcast_is_not_used_from_another_thread() -> None:
    async with open_broadcast() as broadcast, open_pair() as (client, server):
        await in_thread(partial(broadcast.publish, "x", "topic"))
        await in_thread(partial(broadcast.publish_json, "x", "topic"))
        await in_thread(broadcast.subscribe(server, "topic").__enter__)
        assert await trio.to_thread.run_sync(
            partial(trio.from_thread.run_sync, broadcast.publish, "x", "topic")
        ) == 0  # fmt: skip
        del client


# Another event loop…

STREAM: Any = None  # it is not looked at


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("open_websocket_url", partial(open_websocket_url, "ws://localhost:1/")),
        ("open_websocket", partial(open_websocket, "localhost", 1)),
        ("wrap_client_stream", partial(wrap_client_stream, STREAM, "ws://localhost/")),
        ("wrap_server_stream", partial(wrap_server_stream, STREAM)),
        ("open_broadcast", open_broadcast),
        ("open_test_server", partial(open_test_server, echo)),
    ],
)
def test_asyncio_is_told_that_this_is_for_trio(name: str, start: Callable[[], Any]) -> None:
    async def main() -> None:
        async with start():
            pass

    with pytest.raises(RuntimeError, match=rf"^{name}\(\) needs trio, .* trio\.run\(main\)"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "serve"),
    [
        ("serve_websocket", partial(serve_websocket, echo, "localhost", 0)),
        ("serve_listeners", partial(serve_listeners, echo, [])),
    ],
)
def test_asyncio_is_told_that_a_server_is_for_trio(
    name: str, serve: Callable[[], Any]
) -> None:  # fmt: skip
    with pytest.raises(RuntimeError, match=rf"^{name}\(\) needs trio, .* trio\.run\(main\)"):
        asyncio.run(serve())


# A second time…


async def test_a_connection_that_is_entered_twice_says_to_call_again() -> None:
    async with open_test_server(echo) as server:
        connecting = open_websocket_url(server.urls[0])
        again = r"open_websocket_url\(\) is entered once: call it again"
        async with connecting as ws:
            with pytest.raises(RuntimeError, match=again):
                async with connecting:
                    pass
            await ws.send("still here")
            assert await ws.receive() == "still here"
        with pytest.raises(RuntimeError, match=again):
            async with connecting:
                pass


@pytest.mark.parametrize(
    "start",
    [
        open_broadcast,
        open_pair,
        partial(open_test_app, echo),
        partial(open_test_server, echo),
        partial(open_test_websocket, echo),
    ],
)
async def test_whatever_is_entered_twice_says_to_call_again(start: Callable[[], Any]) -> None:
    block = start()
    async with block:
        pass
    with pytest.raises(RuntimeError, match="is entered once: call it again"):
        async with block:
            pass
