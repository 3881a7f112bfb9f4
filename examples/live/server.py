"""The smallest live page: what anybody writes on the board, everybody reads, and misses nothing."""

import argparse
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from trio_ws import Request, Router, WebSocket, WebSocketServer, serve_websocket
from trio_ws.live import Refused, open_live

HERE = Path(__file__).parent
PAGE = (HERE / "index.html").read_text("utf-8")


@asynccontextmanager
async def application() -> AsyncGenerator[Router, None]:
    router = Router()
    router.static("/static", HERE.parent / "static")
    router.live_module("/live.js")

    @router.get("/")
    def page(request: Request) -> str:
        return PAGE

    def write(ws: WebSocket, topic: str, note: object) -> None:
        if not (isinstance(note, str) and 0 < len(note) <= 200):
            raise Refused("a note has 1 to 200 characters")
        live.publish(note, topic)

    async with open_live(authorize=lambda ws, topic: topic == "board", on_message=write) as live:
        router.websocket("/live")(live)
        yield router


async def main(port: int) -> None:
    async with application() as router, trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve_websocket, router, "localhost", port)
        print(f"Open http://localhost:{server.port}/ (Ctrl-C ends it)", flush=True)


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
