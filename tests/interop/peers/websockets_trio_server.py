"""The trio server of `websockets`: /close closes with 4000, any other path echoes."""

from __future__ import annotations

import functools
import sys
from contextlib import suppress

import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.server import Server, ServerConnection, serve

from tests.interop.messages import describe
from tests.interop.peers.reporting import report


async def handle(websocket: ServerConnection) -> None:
    assert websocket.request is not None
    if websocket.request.path == "/close":
        await websocket.aclose(4000, "bye")
    with suppress(ConnectionClosed):
        async for message in websocket:
            report("message", **describe(message))
            await websocket.send(message)
    report("closed", code=websocket.close_code, reason=websocket.close_reason)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        serving = functools.partial(serve, handle, 0, host="127.0.0.1", max_size=None)
        server: Server = await nursery.start(serving)
        report("listening", port=server.listeners[0].socket.getsockname()[1])
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
