"""aiohttp, on uvloop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from aiohttp import ClientSession, WSMsgType, web

from benchmarks.subject import HOST, Mode, announce, main, run_uvloop

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Seconds of silence after which it sends a ping; off by default.
KEEPALIVE = 20.0


async def echo(
    request: web.Request, *, compress: bool = False, heartbeat: float | None = None
) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse(max_msg_size=0, compress=compress, heartbeat=heartbeat)
    await websocket.prepare(request)
    async for message in websocket:
        if message.type is WSMsgType.TEXT:
            await websocket.send_str(message.data)
    return websocket


class Hall:
    """What one says here, all hear."""

    def __init__(self) -> None:
        self._present: set[web.WebSocketResponse] = set()

    async def enter(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(max_msg_size=0, compress=False)
        await websocket.prepare(request)
        self._present.add(websocket)
        try:
            async for message in websocket:
                for one in list(self._present):
                    await one.send_str(message.data)
        finally:
            self._present.discard(websocket)
        return websocket


async def listen(handler: Handler, context: ssl.SSLContext | None = None) -> int:
    """Serve it on a free port, without an access log."""
    application = web.Application()
    application.router.add_get("/", handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0, ssl_context=context).start()
    port: int = runner.addresses[0][1]
    return port


async def serve(context: ssl.SSLContext) -> None:
    announce(
        {
            Mode.ECHO: await listen(echo),
            Mode.TLS: await listen(echo, context),
            Mode.DEFLATE: await listen(partial(echo, compress=True)),
            Mode.BROADCAST: await listen(Hall().enter),
            Mode.BROADCAST_TLS: await listen(Hall().enter, context),
            Mode.IDLE: await listen(partial(echo, heartbeat=KEEPALIVE)),
            Mode.IDLE_DEFLATE: await listen(partial(echo, compress=True, heartbeat=KEEPALIVE)),
        }
    )
    await asyncio.Event().wait()


async def talk(url: str, message: str, in_flight: int) -> None:
    async with ClientSession() as session, session.ws_connect(url, max_msg_size=0) as websocket:
        for _ in range(in_flight):
            await websocket.send_str(message)
        async for _ in websocket:
            await websocket.send_str(message)


if __name__ == "__main__":
    main(run_uvloop, serve, talk)
