"""A check that nothing is left for the garbage collector, and ways to end a connection."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import trio
import trio.testing

from tests.helpers import TEXT, RawPeer, reset
from trio_ws import ConnectionLost, WebSocket, WebSocketServer, open_websocket_url

Reference = weakref.ref[WebSocket]

#: pytest keeps what is logged, tracebacks included.
QUIET = logging.getLogger("test_freeing")
QUIET.setLevel(logging.CRITICAL + 1)


@contextmanager
def no_cycle() -> Iterator[list[Reference]]:
    """Nothing is left that only the collector would free, and none of these connections."""
    gc.collect()
    references: list[Reference] = []
    yield references
    alive = [ws for reference in references if (ws := reference()) is not None]
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        count = gc.collect()
        frames = [each.f_code for each in gc.garbage if isinstance(each, FrameType)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not alive
    assert not count, f"{count} objects in cycles, among them the frames of {frames}"


class Boom(Exception):
    """The error of the application."""


async def iterate(ws: WebSocket) -> None:
    async for _ in ws:
        pass


async def receive(ws: WebSocket) -> None:
    while True:
        await ws.receive()


async def send(ws: WebSocket) -> None:
    while True:
        await ws.send(b"x" * 100_000)


async def ping(ws: WebSocket) -> None:
    while True:
        await ws.ping()


End = Callable[[WebSocket, RawPeer, trio.CancelScope], Awaitable[object]]


def peer_closes(code: int | None) -> End:
    async def end(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
        await peer.send_close(code)

    return end


async def peer_hangs_up(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    await peer.stream.aclose()


async def peer_resets(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    assert isinstance(peer.stream, trio.SocketStream)
    reset(peer.stream)


async def peer_is_wrong(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    await peer.send_frame(0x5)


async def peer_leaves_half(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    await peer.send_frame(TEXT, b"half a message", fin=False)
    await trio.sleep(0.01)
    await peer.stream.aclose()


async def peer_is_silent(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    pass


async def we_close(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    await ws.aclose()


async def we_are_cancelled(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    scope.cancel()


ENDS: dict[str, End] = {
    "1000": peer_closes(1000),
    "1002": peer_closes(1002),
    "4000": peer_closes(4000),
    "no code": peer_closes(None),
    "EOF": peer_hangs_up,
    "reset": peer_resets,
    "violation": peer_is_wrong,
    "half a message": peer_leaves_half,
    "ping timeout": peer_is_silent,
    "aclose": we_close,
    "cancellation": we_are_cancelled,
}


async def raise_what_it_was_given(ws: WebSocket) -> None:
    async for message in ws:
        raise Boom(message)


async def close(ws: WebSocket) -> None:
    async for _ in ws:
        await ws.aclose(4000)


def remember(references: list[Reference], handler: Any) -> Any:
    async def remembering(ws: WebSocket) -> None:
        references.append(weakref.ref(ws))
        await handler(ws)

    return remembering


async def talk(server: WebSocketServer, **options: Any) -> None:
    with suppress(ConnectionLost):
        async with open_websocket_url(server.urls[0], **options) as ws:
            await ws.send("a message")
            async for _ in ws:
                pass
