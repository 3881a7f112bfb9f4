"""A dashboard that shows how its own server is doing: what is plotted is all measured, and live.

The pages make the load themselves. Each sends messages, as many as its slider says, and the server
sends them back. Open a few, and see what it takes.
"""

import argparse
import signal
import time
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
PAGE = (HERE / "index.html").read_text("utf-8")

INTERVAL = 0.5  # seconds between two samples
HISTORY = 125  # samples that a new page gets: a minute, and a little more


class Meter:
    """What has happened since the last sample."""

    def __init__(self) -> None:
        self._started = trio.current_time()
        self._messages = self._bytes = self._total = 0
        self._begin()

    def count(self, message: str | bytes) -> None:
        self._messages += 1
        self._bytes += len(message)

    def _begin(self) -> None:
        self._total += self._messages
        self._messages = self._bytes = 0
        self._clock, self._processor = trio.current_time(), time.process_time()

    def sample(self, visitors: int) -> dict[str, float]:
        """Rates per second; the processor time as a share of one core; the delay in seconds."""
        elapsed = trio.current_time() - self._clock
        sample = {
            "time": time.time(),
            "uptime": trio.current_time() - self._started,
            "visitors": visitors,
            "total": self._total + self._messages,
            "messages": self._messages / elapsed,
            "bytes": self._bytes / elapsed,
            "processor": (time.process_time() - self._processor) / elapsed,
            # How much later than it asked for a task got its turn.
            "delay": elapsed - INTERVAL,
        }
        self._begin()
        return sample


async def publish_samples(meter: Meter, broadcast: Broadcast) -> None:
    await trio.sleep(INTERVAL)
    meter.sample(0)  # what it takes to start the server is not to be seen
    while True:
        await trio.sleep(INTERVAL)
        broadcast.publish_json(meter.sample(len(broadcast)), "samples")


@asynccontextmanager
async def application() -> AsyncGenerator[Router, None]:
    meter = Meter()
    router = Router()
    router.static("/static", HERE.parent / "static")
    router.live_module("/live.js")

    @router.get("/")
    def page(request: Request) -> str:
        return PAGE

    async with open_broadcast(history=HISTORY) as broadcast, trio.open_nursery() as nursery:

        @router.websocket("/ws")
        async def visit(ws: WebSocket) -> None:
            with broadcast.subscribe(ws, "samples"):
                async for message in ws:
                    meter.count(message)
                    await ws.send(message)

        nursery.start_soon(publish_samples, meter, broadcast)
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
