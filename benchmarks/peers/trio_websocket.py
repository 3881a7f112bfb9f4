"""trio-websocket. It has neither compression nor keepalive."""

from __future__ import annotations

import ssl
from contextlib import suppress
from functools import partial

import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    WebSocketServer,
    open_websocket_url,
    serve_websocket,
)

from benchmarks.subject import HOST, Mode, announce, main

NO_LIMIT = 2**40


async def echo(request: WebSocketRequest) -> None:
    # A client that is gone by now would end the server.
    with suppress(ConnectionClosed):
        websocket = await request.accept()
        while True:
            await websocket.send_message(await websocket.get_message())


class Hall:
    """What one says here, all hear."""

    def __init__(self) -> None:
        self._present: set[WebSocketConnection] = set()

    async def enter(self, request: WebSocketRequest) -> None:
        websocket = await request.accept()
        self._present.add(websocket)
        try:
            with suppress(ConnectionClosed):
                while True:
                    await self.publish(await websocket.get_message())
        finally:
            self._present.discard(websocket)

    async def publish(self, message: str | bytes) -> None:
        # Its documentation proposes nothing; a task for each would be slower.
        for websocket in list(self._present):
            with suppress(ConnectionClosed):
                await websocket.send_message(message)


async def serve(context: ssl.SSLContext) -> None:
    plain = partial(serve_websocket, host=HOST, port=0, max_message_size=NO_LIMIT)
    modes = {
        Mode.ECHO: partial(plain, echo, ssl_context=None),
        Mode.TLS: partial(plain, echo, ssl_context=context),
        Mode.BROADCAST: partial(plain, Hall().enter, ssl_context=None),
    }
    async with trio.open_nursery() as nursery:
        ports: dict[Mode, int] = {}
        for mode, listen in modes.items():
            server: WebSocketServer = await nursery.start(listen)
            ports[mode] = server.port
        announce(ports)


async def talk(url: str, message: str, in_flight: int) -> None:
    with suppress(ConnectionClosed):
        async with open_websocket_url(url, max_message_size=NO_LIMIT) as websocket:
            for _ in range(in_flight):
                await websocket.send_message(message)
            while True:
                await websocket.get_message()
                await websocket.send_message(message)


if __name__ == "__main__":
    main(trio.run, serve, talk)
