"""A server that counts the claps of everybody, and tells everybody."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from trio_ws import Broadcast, Handler, Latest, WebSocket, open_broadcast


class Applause:
    def __init__(self, broadcast: Broadcast) -> None:
        self.broadcast = broadcast
        self.claps = 0

    async def handler(self, ws: WebSocket) -> None:
        with self.broadcast.subscribe(ws, "applause"):
            self.tell()
            async for _ in ws:
                self.claps += 1
                self.tell()

    def tell(self) -> None:
        self.broadcast.publish_json({"claps": self.claps}, "applause")


@asynccontextmanager
async def application() -> AsyncGenerator[Handler, None]:
    async with open_broadcast(policy=Latest()) as broadcast:
        yield Applause(broadcast).handler
