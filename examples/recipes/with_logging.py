"""A server that logs lines of JSON, and says which task holds up all others.

Send it "block" to see that: `trio-ws connect ws://localhost:8765`. With --frames, each frame is
logged, too.
"""

import argparse
import faulthandler
import logging
import time

import trio

from trio_ws import JSONFormatter, WebSocket, WebSocketServer, serve_websocket

log = logging.getLogger("echo")


def configure_logging(*, frames: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if frames:
        logging.getLogger("trio_ws").setLevel(logging.DEBUG)


async def echo(ws: WebSocket) -> None:
    of_this_one = logging.LoggerAdapter(log, {"connection_id": ws.id})
    async for message in ws:
        of_this_one.info("echoes %d characters", len(message))
        if message == "block":
            time.sleep(0.6)  # noqa: ASYNC251 - a mistake, for others to find
        await ws.send(message)


class SlowSteps(trio.abc.Instrument):
    """Logs each task that runs for longer than `limit` seconds without letting others run."""

    def __init__(self, limit: float = 0.05) -> None:
        self._limit = limit
        self._began = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        seconds = time.perf_counter() - self._began
        if seconds > self._limit:
            where = [
                f"{frame.f_code.co_name}, line {line}"
                for frame, line in task.iter_await_frames()
                if not frame.f_globals["__name__"].startswith("trio")
            ]
            log.warning("a task ran for %.3f s, up to %s", seconds, " > ".join(where))


async def watch_the_loop(limit: float = 0.3) -> None:
    """Print where the program is, when the event loop stands still for `limit` seconds."""
    try:
        while True:
            faulthandler.dump_traceback_later(limit)  # anew: the one before is given up
            await trio.sleep(limit / 3)
    finally:
        faulthandler.cancel_dump_traceback_later()


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_the_loop)
        server: WebSocketServer = await nursery.start(serve_websocket, echo, "localhost", port)
        print(f"Serving on {server.urls[0]} (Ctrl-C ends it)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    parser.add_argument("--frames", action="store_true", help="log each frame")
    arguments = parser.parse_args()
    configure_logging(frames=arguments.frames)
    try:
        trio.run(main, arguments.port, instruments=[SlowSteps()])
    except* KeyboardInterrupt:
        pass
