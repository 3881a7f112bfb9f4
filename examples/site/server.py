"""A site on one port: pages, files, a hook for other programs, a health check, and chat rooms.

Open the page it names in a few windows, or let a program speak to the room:

    curl --json '"hello from curl"' http://localhost:8765/rooms/lobby/publish
"""

import argparse
import html
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from trio_ws import (
    Broadcast,
    Request,
    Router,
    WebSocket,
    WebSocketServer,
    open_broadcast,
    serve_websocket,
)

HERE = Path(__file__).parent
PAGE = """<!doctype html><html lang=en>
<meta name=viewport content="width=device-width, initial-scale=1">
<link rel=icon href=/look/icon.svg>
<link rel=stylesheet href=/look/page.css>
<title>{title}</title>
<main><h1>{title}</h1>{content}</main>
"""


def rooms(broadcast: Broadcast, script: str) -> Router:
    """The routes of one room, which know nothing of where they will be mounted."""
    router = Router()

    @router.get("/")
    def page(request: Request, room: str) -> str:
        start = f"<script type=module src={script}></script>"
        return PAGE.format(title=html.escape(room), content=start)

    @router.websocket("/ws")
    async def talk(ws: WebSocket, room: str) -> None:
        with broadcast.subscribe(ws, room):
            async for message in ws:
                broadcast.publish(message, room)

    @router.post("/publish")
    def publish(request: Request, room: str) -> dict[str, int]:
        return {"told": broadcast.publish(str(request.json()), room)}

    return router


@asynccontextmanager
async def application() -> AsyncGenerator[Router, None]:
    router = Router()
    router.static("/static", HERE / "static", headers={"Cache-Control": "max-age=60"})
    router.static("/look", HERE.parent / "static", name="look")  # what the examples share

    @router.get("/")
    def index(request: Request) -> str:
        link = router.url_for("page", room="lobby")
        return PAGE.format(title="Rooms", content=f"<p><a href={link}>Enter the lobby</a></p>")

    async with open_broadcast() as broadcast:
        script = router.url_for("static", filename="chat.js")
        router.mount("/rooms/<room>", rooms(broadcast, script))

        @router.get("/health")
        def health(request: Request) -> dict[str, object]:
            return {"status": "ok", "rooms": broadcast.statistics().topics}

        yield router


async def main(port: int) -> None:
    async with application() as router, trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve_websocket, router, "localhost", port)
        print(f"Serving on {server.urls[0]}", flush=True)
        print(f"Open http://localhost:{server.port}/", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of scripts
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        trio.run(main, arguments.port)
    except* KeyboardInterrupt:
        pass
