"""trio_ws itself, with NumPy or without it."""

from __future__ import annotations

import ssl
from functools import partial
from math import inf

import trio

from benchmarks.subject import HOST, Mode, announce, main
from trio_ws import (
    Broadcast,
    WebSocket,
    WebSocketServer,
    open_broadcast,
    open_websocket_url,
    serve_websocket,
)


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def talk_to_all(broadcast: Broadcast, ws: WebSocket) -> None:
    """What one says here, all hear."""
    with broadcast.subscribe(ws, "all"):
        async for message in ws:
            broadcast.publish(message, "all")


async def serve(context: ssl.SSLContext) -> None:
    alive = partial(serve_websocket, max_message_size=inf)  # keepalive and compression are defaults
    deflate = partial(alive, ping_interval=inf)
    plain = partial(deflate, compression=None)
    async with open_broadcast() as broadcast, trio.open_nursery() as nursery:
        modes = {
            Mode.ECHO: partial(plain, echo),
            Mode.TLS: partial(plain, echo, ssl_context=context),
            Mode.DEFLATE: partial(deflate, echo),
            Mode.BROADCAST: partial(plain, partial(talk_to_all, broadcast)),
            Mode.BROADCAST_TLS: partial(
                plain, partial(talk_to_all, broadcast), ssl_context=context
            ),
            Mode.IDLE: partial(alive, echo, compression=None),
            Mode.IDLE_DEFLATE: partial(alive, echo),
        }
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
