"""A clock that ticks for everybody in the same moment. Open its page in a few windows."""

import argparse
import random
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import trio

from trio_ws import (
    Broadcast,
    Latest,
    Request,
    Router,
    WebSocket,
    WebSocketServer,
    open_broadcast,
    serve_websocket,
)

HERE = Path(__file__).parent
PAGE = (HERE / "index.html").read_text("utf-8")


async def sync_time(broadcast: Broadcast) -> None:
    while True:
        tick = {"time": datetime.now(UTC).isoformat(), "watching": len(broadcast)}
        broadcast.publish_json(tick, "time")
        await trio.sleep(random.uniform(0.2, 1.5))


@asynccontextmanager
async def application() -> AsyncGenerator[Router, None]:
    router = Router()
    router.static("/static", HERE.parent / "static")
    router.live_module("/live.js")

    @router.get("/")
    def page(request: Request) -> str:
        return PAGE

    # For a visitor whose connection is slow, a tick of the past is worth nothing.
    async with open_broadcast(policy=Latest()) as broadcast, trio.open_nursery() as nursery:

        @router.websocket("/ws")
        async def register(ws: WebSocket) -> None:
            with broadcast.subscribe(ws, "time"):
                await ws.wait_closed()

        nursery.start_soon(sync_time, broadcast)
        yield router
        nursery.cancel_scope.cancel()


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
