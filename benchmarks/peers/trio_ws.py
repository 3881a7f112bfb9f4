"""trio_ws itself, with NumPy or without it."""

from __future__ import annotations

import ssl
from contextlib import suppress
from functools import partial
from math import inf

import trio

from benchmarks.subject import HOST, Mode, announce, main
from trio_ws import (
    ConnectionClosed,
    WebSocket,
    WebSocketServer,
    open_websocket_url,
    serve_websocket,
)


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


class Hall:
    """What one says here, all hear."""

    def __init__(self) -> None:
        self._present: set[WebSocket] = set()

    async def enter(self, ws: WebSocket) -> None:
        self._present.add(ws)
        try:
            async for message in ws:
                self.publish(message)
        finally:
            self._present.discard(ws)

    def publish(self, message: str | bytes) -> None:
        for ws in self._present:
            with suppress(trio.WouldBlock, ConnectionClosed):
                ws.send_nowait(message)


async def serve(context: ssl.SSLContext) -> None:
    alive = partial(serve_websocket, max_message_size=inf)  # keepalive and compression are defaults
    deflate = partial(alive, ping_interval=inf)
    plain = partial(deflate, compression=None)
    modes = {
        Mode.ECHO: partial(plain, echo),
        Mode.TLS: partial(plain, echo, ssl_context=context),
        Mode.DEFLATE: partial(deflate, echo),
        Mode.BROADCAST: partial(plain, Hall().enter),
        Mode.IDLE: partial(alive, echo, compression=None),
        Mode.IDLE_DEFLATE: partial(alive, echo),
    }
    async with trio.open_nursery() as nursery:
        ports: dict[Mode, int] = {}
        for mode, listen in modes.items():
            server: WebSocketServer = await nursery.start(partial(listen, host=HOST, port=0))
            ports[mode] = server.port
        announce(ports)


async def talk(url: str, message: str, in_flight: int) -> None:
    async with open_websocket_url(url, compression=None, ping_interval=inf) as ws:
        for _ in range(in_flight):
            await ws.send(message)
        async for _ in ws:
            await ws.send(message)


if __name__ == "__main__":
    main(trio.run, serve, talk)
