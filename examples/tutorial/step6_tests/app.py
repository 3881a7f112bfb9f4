"""Rooms, each with its applause, those who are there, and what came before."""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from trio_ws import Request, Response, Router, WebSocket
from trio_ws.live import open_live

PAGE = Path(__file__).with_name("index.html").read_text("utf-8")
ROOMS = {"lobby", "kitchen", "garden"}


def may_enter(ws: WebSocket, room: str) -> bool:
    return room in ROOMS


def name_of(ws: WebSocket, room: str) -> str:
    return ws.request.query_params.get("name", "somebody")[:20]


@asynccontextmanager
async def application() -> AsyncGenerator[Router, None]:
    claps = Counter[str]()

    async def state_of(room: str) -> dict[str, int]:
        return {"claps": claps[room]}

    def clap(ws: WebSocket, room: str, data: object) -> None:
        claps[room] += 1
        live.publish({"claps": claps[room], "by": name_of(ws, room)}, room)

    router = Router()
    router.live_module("/live.js")

    @router.get("/rooms/<room>")
    def page(request: Request, room: str) -> str | Response:
        return PAGE if room in ROOMS else Response(404, body="There is no such room.\n")

    async with open_live(
        authorize=may_enter, identify=name_of, state=state_of, on_message=clap
    ) as live:
        router.websocket("/live")(live)
        yield router
