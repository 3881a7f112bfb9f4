"""A site with a router, for tests of routers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.handshake.handshake_helpers import MemoryServer
from trio_ws import Request, Router, WebSocket, wrap_client_stream


class Site:
    """A router with one route of each kind, and what they were called with."""

    def __init__(self) -> None:
        self.router = router = Router()
        self.calls: list[dict[str, object]] = []

        @router.websocket("/chat/<room>")
        async def chat(ws: WebSocket, room: str) -> None:
            await ws.send(f"in {room}")
            async for message in ws:
                await ws.send(message)

        @router.websocket("/both")
        async def both(ws: WebSocket) -> None:
            await ws.send("both")

        @router.get("/both")
        def page(request: Request) -> str:
            return "<p>both</p>"

        @router.get("/rooms/")
        def rooms(request: Request) -> list[str]:
            return ["a", "b"]

        @router.websocket("/slash/")
        async def slash(ws: WebSocket) -> None:
            await ws.send("slash")

        @router.post("/rooms/<room>/publish")
        async def publish(request: Request, room: str) -> None:
            self.calls.append({"room": room, "body": request.body})

        @router.route("/rooms/<int:room>", methods=["get", "Delete"])
        def room(request: Request, room: int) -> dict[str, Any]:
            return {"room": room, "method": request.method}


async def connect(server: MemoryServer, path: str, **options: Any) -> list[str | bytes]:
    """The first message of a WebSocket at this path."""
    url = f"ws://example.org{path}"
    async with wrap_client_stream(server.connect(), url, **options) as ws:
        return [await ws.receive()]


def pages(request: Request) -> Iterator[str]:
    yield "one"


async def room(ws: WebSocket, number: int) -> None: ...
