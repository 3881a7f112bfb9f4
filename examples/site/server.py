"""A site on one port: pages, files, a hook for other programs, a health check, and chat rooms.

Open the page it names in a few windows, or let a program speak to the room:

    curl --json '"hello from curl"' http://localhost:8765/rooms/lobby/publish
"""

import argparse
import html
import signal
from collections import defaultdict
from functools import partial
from pathlib import Path

import trio

from trio_ws import (
    ConnectionClosed,
    Request,
    Router,
    WebSocket,
    WebSocketServer,
    serve_websocket,
)

HERE = Path(__file__).parent

rooms: defaultdict[str, set[WebSocket]] = defaultdict(set)


def tell(room: str, text: str) -> int:
    """Tell everybody in a room, and say how many that were. Who does not keep up misses it."""
    told = 0
    for member in rooms.get(room, ()):
        try:
            member.send_nowait(text)
            told += 1
        except (trio.WouldBlock, ConnectionClosed):
            pass
    return told


chat = Router()


@chat.get("/")
def page(request: Request, room: str) -> str:
    script = router.url_for("static", filename="chat.js")
    return f"<!doctype html><title>{html.escape(room)}</title><script src={script}></script>"


@chat.websocket("/ws")
async def talk(ws: WebSocket, room: str) -> None:
    rooms[room].add(ws)
    try:
        async for message in ws:
            tell(room, str(message))
    finally:
        rooms[room].discard(ws)
        if not rooms[room]:
            del rooms[room]  # names of rooms are the visitors', and must not pile up


@chat.post("/publish")
async def publish(request: Request, room: str) -> dict[str, int]:
    return {"told": tell(room, str(request.json()))}


router = Router()
router.mount("/rooms/<room>", chat)
router.static("/static", HERE / "static", headers={"Cache-Control": "max-age=60"})


@router.get("/")
def index(request: Request) -> str:
    return f"<!doctype html><a href={router.url_for(page, room='lobby')}>Enter the lobby</a>"


@router.get("/health")
def health(request: Request) -> dict[str, object]:
    return {"status": "ok", "rooms": len(rooms)}


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, router, "localhost", port)
        server: WebSocketServer = await nursery.start(serve)
        print(f"Serving on {server.urls[0]}", flush=True)
        print(f"Open http://localhost:{server.port}/", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        trio.run(main, arguments.port)
    except* KeyboardInterrupt:
        pass
