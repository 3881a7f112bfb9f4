"""trio_ws itself, with NumPy or without it."""

from __future__ import annotations

import math
import ssl
from contextlib import suppress
from functools import partial

import trio

from benchmarks.subject import HOST, Mode, announce, main
from trio_ws import (
    ConnectionClosed,
    Deflate,
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
    plain = partial(serve_websocket, max_message_size=math.inf, compression=None)
    deflate = partial(serve_websocket, max_message_size=math.inf, compression=Deflate())
    # Keepalive is on by default, so the idle modes are the others.
    modes = {
        Mode.ECHO: partial(plain, echo),
        Mode.TLS: partial(plain, echo, ssl_context=context),
        Mode.DEFLATE: partial(deflate, echo),
        Mode.BROADCAST: partial(plain, Hall().enter),
        Mode.IDLE: partial(plain, echo),
        Mode.IDLE_DEFLATE: partial(deflate, echo),
    }
    async with trio.open_nursery() as nursery:
        ports: dict[Mode, int] = {}
        for mode, listen in modes.items():
            server: WebSocketServer = await nursery.start(partial(listen, host=HOST, port=0))
            ports[mode] = server.port
        announce(ports)


async def talk(url: str, message: str, in_flight: int) -> None:
    async with open_websocket_url(url, compression=None) as ws:
        for _ in range(in_flight):
            await ws.send(message)
        async for _ in ws:
            await ws.send(message)


if __name__ == "__main__":
    main(trio.run, serve, talk)
