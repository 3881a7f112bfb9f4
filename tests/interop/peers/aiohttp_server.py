"""The server of aiohttp: /close closes with 4000, any other path echoes."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import WSMsgType, web

from tests.interop.certificates import server_context
from tests.interop.messages import describe
from tests.interop.peers.reporting import report


async def handle(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse(autoclose=False)
    await websocket.prepare(request)
    if request.path == "/close":
        await websocket.close(code=4000, message=b"bye")
        report("closed", code=websocket.close_code, reason="bye")
        return websocket
    while (message := await websocket.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
        report("message", **describe(message.data))
        if message.type is WSMsgType.TEXT:
            await websocket.send_str(message.data)
        else:
            await websocket.send_bytes(message.data)
    report("closed", code=message.data, reason=message.extra or "")
    await websocket.close(code=message.data, message=(message.extra or "").encode())
    return websocket


async def main() -> None:
    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context())
    await site.start()
    report("listening", port=runner.addresses[0][1])
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
