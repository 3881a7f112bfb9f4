"""The asyncio version of websockets, on asyncio's own loop or on uvloop."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack, suppress
from functools import partial

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, broadcast, serve as serve_websockets
from websockets.exceptions import ConnectionClosed

from benchmarks.subject import HOST, Mode, announce, main, run_uvloop


async def echo(websocket: ServerConnection) -> None:
    with suppress(ConnectionClosed):
        async for message in websocket:
            await websocket.send(message)


class Hall:
    """What one says here, all hear."""

    def __init__(self) -> None:
        self._present: set[ServerConnection] = set()

    async def enter(self, websocket: ServerConnection) -> None:
        self._present.add(websocket)
        try:
            with suppress(ConnectionClosed):
                async for message in websocket:
                    broadcast(self._present, message)
        finally:
            self._present.discard(websocket)


async def serve(context: ssl.SSLContext) -> None:
    alive = partial(serve_websockets, max_size=None)  # keepalive and compression are defaults
    deflate = partial(alive, ping_interval=None)
    plain = partial(deflate, compression=None)
    modes = {
        Mode.ECHO: partial(plain, echo),
        Mode.TLS: partial(plain, echo, ssl=context),
        Mode.DEFLATE: partial(deflate, echo),
        Mode.BROADCAST: partial(plain, Hall().enter),
        Mode.BROADCAST_TLS: partial(plain, Hall().enter, ssl=context),
        Mode.IDLE: partial(alive, echo, compression=None),
        Mode.IDLE_DEFLATE: partial(alive, echo),
    }
    async with AsyncExitStack() as stack:
        ports: dict[Mode, int] = {}
        for mode, listen in modes.items():
            server = await stack.enter_async_context(listen(host=HOST, port=0))
            ports[mode] = next(iter(server.sockets)).getsockname()[1]
        announce(ports)
        await asyncio.Event().wait()


async def talk(url: str, message: str, in_flight: int) -> None:
    with suppress(ConnectionClosed):
        async with connect(url, compression=None, ping_interval=None, proxy=None) as websocket:
            for _ in range(in_flight):
                await websocket.send(message)
            async for _ in websocket:
                await websocket.send(message)


if __name__ == "__main__":
    main(run_uvloop, serve, talk)
