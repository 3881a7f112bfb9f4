"""A connection that is over is freed at once, however it ended and whatever it was used for.

A cycle of references keeps a connection, its buffers and its compression windows until the garbage
collector looks, which in a busy program is late. So here the collector is off.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import (
    HOST,
    REQUEST,
    RawPeer,
    echo,
    open_client_with_raw_server,
    open_server,
    open_server_with_raw_client,
    tcp_pair,
)
from tests.whole.freeing_helpers import (
    ENDS,
    QUIET,
    Boom,
    End,
    Reference,
    close,
    iterate,
    no_cycle,
    ping,
    raise_what_it_was_given,
    receive,
    remember,
    send,
    talk,
)
from trio_ws import ConnectionClosed, Handler, WebSocket, as_stream, open_broadcast, serve_websocket
from trio_ws.testing import open_test_websocket

pytestmark = [pytest.mark.autojump, pytest.mark.usefixtures("the_collector_is_off")]


# ---------------------------------------------------------------------------
# What a connection is used for when it ends
# ---------------------------------------------------------------------------


async def poll(ws: WebSocket) -> None:
    while True:
        with suppress(trio.WouldBlock):
            ws.receive_nowait()
        await trio.sleep(0.01)


async def send_small(ws: WebSocket) -> None:
    while True:
        await ws.send("x")
        await trio.sleep(0.01)


async def send_without_waiting(ws: WebSocket) -> None:
    while True:
        with suppress(trio.WouldBlock):
            ws.send_nowait("x")
        await trio.sleep(0.01)


async def in_a_nursery(ws: WebSocket) -> None:
    async with ws.open_nursery() as nursery:
        nursery.start_soon(send_without_waiting, ws)
        await iterate(ws)


async def in_a_silent_nursery(ws: WebSocket) -> None:
    async with ws.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)


async def in_pieces(ws: WebSocket) -> None:
    while True:
        async with ws.receive_message() as chunks:
            async for _ in chunks:
                pass


async def in_fragments(ws: WebSocket) -> None:
    async with ws.open_message("binary") as writer:
        while True:
            await writer.send(b"x" * 1000)
            await trio.sleep(0.01)


async def publish(ws: WebSocket) -> None:
    async with open_broadcast(max_queued_messages=2) as broadcast:
        with broadcast.subscribe(ws, "t"):
            for _ in range(20):
                broadcast.publish(b"x" * 100_000, "t")
            await iterate(ws)


async def as_a_stream(ws: WebSocket) -> None:
    async for _ in as_stream(ws):
        pass


async def wait(ws: WebSocket) -> None:
    await ws.wait_closed()


async def raise_it(ws: WebSocket) -> None:
    await trio.sleep(0.1)
    raise Boom


async def raise_it_in_a_nursery(ws: WebSocket) -> None:
    async with ws.open_nursery() as nursery:
        nursery.start_soon(raise_it, ws)
        await iterate(ws)


async def cancel_the_nursery(ws: WebSocket) -> None:
    async with ws.open_nursery() as nursery:
        nursery.start_soon(send_without_waiting, ws)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()


USES = (
    iterate,
    receive,
    poll,
    send,
    send_small,
    send_without_waiting,
    ping,
    in_a_nursery,
    in_a_silent_nursery,
    in_pieces,
    in_fragments,
    publish,
    as_a_stream,
    wait,
    raise_it,
    raise_it_in_a_nursery,
    cancel_the_nursery,
)


# ---------------------------------------------------------------------------
# How it ends
# ---------------------------------------------------------------------------


async def end_soon(end: End, ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    await trio.sleep(0.05)
    await end(ws, peer, scope)


async def converse(
    opener: Any,
    use: Callable[[WebSocket], Awaitable[object]],
    end: End,
    references: list[Reference],
    *,
    caught_inside: bool,
) -> None:
    streams = await tcp_pair()
    with trio.fail_after(20), trio.CancelScope() as scope:
        try:
            async with (
                trio.open_nursery() as nursery,
                opener(streams=streams, ping_interval=0.2, ping_timeout=0.2, close_timeout=0.2) as (
                    ws,
                    peer,
                ),
            ):
                references.append(weakref.ref(ws))
                nursery.start_soon(end_soon, end, ws, peer, scope)
                if caught_inside:
                    try:  # suppress makes a cycle of a group, since Python 3.12
                        await use(ws)
                    except (ConnectionClosed, trio.ClosedResourceError, Boom):
                        pass
                else:
                    await use(ws)
        except* (ConnectionClosed, trio.ClosedResourceError, Boom):
            pass


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("opener", [open_server_with_raw_client, open_client_with_raw_server])
async def test_a_connection_is_freed_however_it_ends(opener: Any, end: str, use: Any) -> None:
    with no_cycle() as references:
        for caught_inside in (True, False):
            await converse(opener, use, ENDS[end], references, caught_inside=caught_inside)
            await trio.testing.wait_all_tasks_blocked()


# ---------------------------------------------------------------------------
# On a server that goes on
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("end", ["1000", "4000", "EOF", "reset", "violation", "half a message"])
async def test_a_server_keeps_nothing_of_a_handler_however_its_connection_ends(
    end: str, use: Any
) -> None:
    with no_cycle() as references:
        options = {"logger": QUIET, "ping_interval": 0.2, "ping_timeout": 0.2, "close_timeout": 0.2}
        async with open_server(remember(references, use), **options) as server:
            stream = await trio.open_tcp_stream(HOST, server.port)
            peer = RawPeer(stream, masks=True)
            await peer.send(REQUEST)
            await trio.sleep(0.05)
            (ws,) = server.connections
            await ENDS[end](ws, peer, trio.CancelScope())
            del ws
            await trio.sleep(1)
            assert not server.connections
            assert [reference() for reference in references] == [None]
        await trio.aclose_forcefully(stream)


def fail_again(ws: WebSocket, exc: Exception) -> None:
    raise exc


@pytest.mark.parametrize(
    ("handler", "options"),
    [
        (echo, {"idle_timeout": 0.1}),
        (echo, {"max_lifetime": 0.1}),
        (echo, {"max_message_size": 5}),
        (close, {}),
        (raise_what_it_was_given, {}),
        (raise_what_it_was_given, {"on_handler_error": lambda ws, exc: None}),
        (raise_what_it_was_given, {"on_handler_error": fail_again}),
        (raise_it_in_a_nursery, {}),
        (publish, {"idle_timeout": 0.1}),
    ],
)
async def test_a_server_keeps_nothing_of_a_connection_that_is_over(
    handler: Any, options: dict[str, Any]
) -> None:
    with no_cycle() as references:
        async with open_server(remember(references, handler), logger=QUIET, **options) as server:
            await talk(server)
            await trio.testing.wait_all_tasks_blocked()
            assert [reference() for reference in references] == [None]


async def stay(ws: WebSocket) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("handler", [echo, stay])
@pytest.mark.parametrize("code", [1001, 1012])
async def test_a_server_that_is_closed_keeps_nothing(handler: Any, code: int) -> None:
    with no_cycle() as references:
        async with open_server(remember(references, handler), grace_period=0.1) as server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk, server)
                await trio.sleep(0.05)
                await server.aclose(code)


@pytest.mark.parametrize("handler", [echo, stay])
async def test_a_server_that_is_cancelled_keeps_nothing(handler: Any) -> None:
    with no_cycle() as references:
        handler = remember(references, handler)
        serve = partial(serve_websocket, handler, HOST, 0, grace_period=0.1)
        async with trio.open_nursery() as clients, trio.open_nursery() as servers:
            clients.start_soon(talk, await servers.start(serve))
            await trio.sleep(0.05)
            servers.cancel_scope.cancel()


async def test_a_server_that_raises_what_its_handler_did_keeps_nothing() -> None:
    with no_cycle() as references:
        handler = remember(references, raise_what_it_was_given)
        with pytest.raises(Boom):
            async with open_server(handler, on_handler_error="propagate") as server:
                await talk(server)


async def talk_in_memory(handler: Handler, references: list[Reference]) -> None:
    async with open_test_websocket(handler) as ws:
        references.append(weakref.ref(ws))
        await ws.send("a message")
        await ws.receive()


async def test_a_test_of_a_handler_that_raises_keeps_nothing() -> None:
    # trio's memory streams refer to each other, so that only the connections are looked at.
    references: list[Reference] = []
    with pytest.raises(Boom):
        await talk_in_memory(remember(references, raise_what_it_was_given), references)
    await trio.testing.wait_all_tasks_blocked()
    assert [reference() for reference in references] == [None, None]
