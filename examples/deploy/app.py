"""An application with something to set up, for `trio-ws serve app:application --workers 2`."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from trio_ws import Handler, WebSocket, serve_websocket


class Service:
    """What all connections of one process share."""

    def __init__(self) -> None:
        self.name = f"worker {os.environ.get('TRIO_WS_WORKER', 'alone')}"
        self.seconds = 0

    async def count(self) -> None:
        while True:
            await trio.sleep(1)
            self.seconds += 1

    async def handler(self, ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(f"{self.name}, up for {self.seconds} s: {message!s}")


@asynccontextmanager
async def application() -> AsyncGenerator[Handler, None]:
    service = Service()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.count)
        yield service.handler  # the server runs here, until it is told to stop
        nursery.cancel_scope.cancel()


async def main() -> None:
    """What `trio-ws serve` does, less the signals."""
    async with application() as handler:
        await serve_websocket(handler, "localhost", 8765)


if __name__ == "__main__":
    trio.run(main)
