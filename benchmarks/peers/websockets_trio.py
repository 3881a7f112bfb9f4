"""The trio version of websockets."""

from __future__ import annotations

import ssl
from contextlib import suppress
from functools import partial

import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import connect
from websockets.trio.connection import broadcast
from websockets.trio.server import Server, ServerConnection, serve as serve_websockets

from benchmarks.subject import HOST, Mode, announce, main


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
                    await broadcast(self._present, message)
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
    async with trio.open_nursery() as nursery:
        ports: dict[Mode, int] = {}
        for mode, listen in modes.items():
            server: Server = await nursery.start(partial(listen, host=HOST, port=0))
            ports[mode] = server.listeners[0].socket.getsockname()[1]
        announce(ports)


async def talk(url: str, message: str, in_flight: int) -> None:
    with suppress(ConnectionClosed):
        async with connect(url, compression=None, ping_interval=None, proxy=None) as websocket:
            for _ in range(in_flight):
                await websocket.send(message)
            async for _ in websocket:
                await websocket.send(message)


if __name__ == "__main__":
    main(trio.run, serve, talk)
