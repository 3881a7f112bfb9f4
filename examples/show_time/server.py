"""A clock for each visitor, which ticks when it likes. Open the page that it names."""

import argparse
import random
import signal
from datetime import UTC, datetime
from pathlib import Path

import trio

from trio_ws import Request, Router, WebSocket, WebSocketServer, serve_websocket

HERE = Path(__file__).parent
PAGE = (HERE / "index.html").read_text("utf-8")

router = Router()
router.static("/static", HERE.parent / "static")
router.live_module("/live.js")


@router.get("/")
def page(request: Request) -> str:
    return PAGE


@router.websocket("/ws")
async def show_time(ws: WebSocket) -> None:
    async with ws.open_nursery():  # ends with the connection, in the middle of a sleep too
        while True:
            await ws.send(datetime.now(UTC).isoformat())
            await trio.sleep(random.uniform(0.2, 1.5))


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
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
