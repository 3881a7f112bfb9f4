"""A chat with rooms. It shows who is there, and whoever comes gets the last lines of the room.

Several of these servers are one chat, if they share a Redis server:

    python examples/chat/server.py --port 8765 --redis redis://localhost
    python examples/chat/server.py --port 8766 --redis redis://localhost

So are several workers, in this folder:

    REDIS_URL=redis://localhost trio-ws serve server:application --workers 4 --max-message-size 4000

No line is lost or shown twice, whichever connection or server goes away in between: each line has
an id that its page has given it. The page sends it until it comes back, and shows an id once.
"""

import argparse
import os
import re
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio

from trio_ws import (
    CloseCode,
    Request,
    Router,
    WebSocket,
    WebSocketServer,
    serve_websocket,
)
from trio_ws.backplane import RedisBackplane
from trio_ws.live import Refused, open_live

HERE = Path(__file__).parent
PAGE = (HERE / "index.html").read_text("utf-8")

HISTORY = 50  # lines that a room remembers
LONGEST_LINE = 500  # characters, as the page allows
LONGEST_MESSAGE = 4000  # bytes, which is more than such a line can take


@dataclass(frozen=True)
class Person:
    """Who a connection belongs to."""

    name: str


def is_room(ws: WebSocket, topic: str) -> bool:
    return re.fullmatch(r"[\w-]{1,24}", topic) is not None


def name_in(ws: WebSocket, room: str) -> str:
    return ws.context[Person].name


@asynccontextmanager
async def application(*, redis: str | None = None) -> AsyncGenerator[Router, None]:
    router = Router()
    router.static("/static", HERE.parent / "static")
    router.live_module("/live.js")

    @router.get("/")
    def page(request: Request) -> str:
        return PAGE

    def say(ws: WebSocket, room: str, data: object) -> None:
        match data:
            case {"id": str(line_id), "text": str(text)} if (
                len(line_id) <= 32 and len(text) <= LONGEST_LINE
            ):
                time = datetime.now(UTC).isoformat()
                name = ws.context[Person].name
                live.publish({"id": line_id, "name": name, "text": text, "time": time}, room)
            case _:
                raise Refused("a line has an id, and a text of at most 500 characters")

    redis = redis or os.environ.get("REDIS_URL")
    if redis is None and "TRIO_WS_WORKER" in os.environ:
        raise RuntimeError(
            "several workers share the chat by Redis: set REDIS_URL, "
            "for example to redis://localhost"
        )
    backplane = RedisBackplane(redis, mode="streams") if redis else None
    async with open_live(
        authorize=is_room, on_message=say, identify=name_in, history=HISTORY, backplane=backplane
    ) as live:

        @router.websocket("/live", before=live.admit)
        async def enter(ws: WebSocket) -> None:
            name = ws.request.query_params.get("name", "").strip()
            if not (0 < len(name) <= 24 and name.isprintable()):
                await ws.aclose(CloseCode.POLICY_VIOLATION, "Names have at most 24 letters")
                return
            ws.context[Person] = Person(name)
            await live(ws)

        yield router


async def main(port: int, redis: str | None) -> None:
    async with application(redis=redis) as router, trio.open_nursery() as nursery:
        serve = partial(
            serve_websocket, router, "localhost", port, max_message_size=LONGEST_MESSAGE
        )
        server: WebSocketServer = await nursery.start(serve)
        print(f"Open http://localhost:{server.port}/ (Ctrl-C ends it)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    parser.add_argument("--redis", metavar="URL", help="share the chat with other servers")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of scripts
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        trio.run(main, arguments.port, arguments.redis)
    except* KeyboardInterrupt:
        pass
