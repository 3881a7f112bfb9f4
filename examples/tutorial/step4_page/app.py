"""A page on which everybody claps, and sees how often everybody has."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from trio_ws import Broadcast, Latest, Request, Router, WebSocket, open_broadcast

PAGE = Path(__file__).with_name("index.html").read_text("utf-8")


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
async def application() -> AsyncGenerator[Router, None]:
    router = Router()
    router.live_module("/live.js")

    @router.get("/")
    def page(request: Request) -> str:
        return PAGE

    async with open_broadcast(policy=Latest()) as broadcast:
        router.websocket("/ws")(Applause(broadcast).handler)
        yield router
