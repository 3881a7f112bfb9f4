"""The asyncio server of `websockets`: /close closes with 4000, any other path echoes."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.interop.certificates import server_context
from tests.interop.messages import describe
from tests.interop.peers.reporting import report


async def handle(websocket: ServerConnection) -> None:
    assert websocket.request is not None
    if websocket.request.path == "/close":
        await websocket.close(4000, "bye")
    with suppress(ConnectionClosed):
        async for message in websocket:
            report("message", **describe(message))
            await websocket.send(message)
    report("closed", code=websocket.close_code, reason=websocket.close_reason)


async def main() -> None:
    async with serve(handle, "127.0.0.1", 0, max_size=None, ssl=server_context()) as server:
        report("listening", port=server.sockets[0].getsockname()[1])
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
