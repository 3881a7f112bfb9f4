"""A chat with rooms. It shows who is there, and whoever comes gets the last lines of the room.

Several of these servers are one chat, if they share a Redis server:

    python examples/chat/server.py --port 8765 --redis redis://localhost
    python examples/chat/server.py --port 8766 --redis redis://localhost
"""

import argparse
import json
import re
import secrets
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
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
from trio_ws.backplane import Backplane, RedisBackplane

HERE = Path(__file__).parent
PAGE = (HERE / "index.html").read_text("utf-8")

HISTORY = 50  # lines that a room remembers
LONGEST_LINE = 2000  # bytes, which are at least 500 characters
REMINDER = 10  # seconds; a page forgets the people of a server that was silent for thrice as long

BAD_NAME = 4000  # to live.js, a code from 4000 on means: do not come back


class People:
    """Who is in which room of this server.

    Each server says who is in its rooms, and the pages put it together. So a server need not know
    what others there are, and the people of one that is gone are forgotten.
    """

    def __init__(self, broadcast: Broadcast, *backplanes: Backplane) -> None:
        self._broadcast = broadcast
        self._backplanes = backplanes
        self._server = secrets.token_hex(4)
        self._rooms: defaultdict[str, Counter[str]] = defaultdict(Counter)

    @asynccontextmanager
    async def presence(self, ws: WebSocket, room: str, name: str) -> AsyncGenerator[None, None]:
        with self._broadcast.subscribe(ws, f"people/{room}"):
            await self._wait_subscribed()
            self._rooms[room][name] += 1  # the same name may be there twice
            # A newcomer wants to know who is there: all servers are asked, this one too.
            self._broadcast.publish(room, "who is there?")
            try:
                yield
            finally:
                self._rooms[room] -= Counter([name])  # which drops it, if that was the last
                self._show(room)
                if not self._rooms[room]:
                    del self._rooms[room]

    def _show(self, room: str) -> None:
        people = {"server": self._server, "people": sorted(self._rooms[room])}
        self._broadcast.publish_json(people, f"people/{room}")

    async def _wait_subscribed(self) -> None:
        # What others say before Redis knows of a subscription would be missed. So whoever is shown
        # as being there hears them; without Redis, there is nobody else to be heard.
        with trio.move_on_after(2):
            for backplane in self._backplanes:
                await backplane.wait_subscribed()

    async def answer(self) -> None:
        async with self._broadcast.open_channel(
            "who is there?", policy=Latest(key=str)
        ) as questions:
            async for room in questions:
                if room in self._rooms:
                    self._show(str(room))

    async def remind(self) -> None:
        while True:
            await trio.sleep(REMINDER)
            for room in self._rooms:
                self._show(room)


def server_of(message: str | bytes) -> str:
    server: str = json.loads(message)["server"]
    return server


def with_id(line: str | bytes, position: str, topic: str) -> str:
    """A page that comes back says which line was its last, so it is told where each one stands."""
    return json.dumps({"id": position, **json.loads(line)})


async def chat(ws: WebSocket, room: str, lines: Broadcast, people: People) -> None:
    query = ws.request.query_params
    name = query.get("name", "").strip()
    if not (0 < len(name) <= 24 and name.isprintable() and re.fullmatch(r"[\w-]{1,24}", room)):
        await ws.aclose(BAD_NAME, "Names have at most 24 letters")
        return
    since = query.get("since") or None
    async with lines.subscribe(ws, f"lines/{room}", position=since) as subscription:
        if since is not None and not subscription.recovered:
            await ws.send_json({"missed": True})
        async with people.presence(ws, room, name):
            async for text in ws:
                line = {"name": name, "text": str(text), "time": datetime.now(UTC).isoformat()}
                lines.publish_json(line, f"lines/{room}")


@asynccontextmanager
async def application(*, redis: str | None = None) -> AsyncGenerator[Router, None]:
    router = Router()
    router.static("/static", HERE.parent / "static")

    @router.get("/")
    def page(request: Request) -> str:
        return PAGE

    # A backplane serves one broadcast.
    backplanes = [RedisBackplane(redis) for _ in range(2)] if redis else []
    of_lines, of_people = backplanes or (None, None)
    # Lines must not be missing: who is too slow for them has to come back. Of the lists of people
    # only the newest of each server counts.
    async with (
        open_broadcast(history=HISTORY, envelope=with_id, backplane=of_lines) as lines,
        open_broadcast(policy=Latest(key=server_of), backplane=of_people) as broadcast,
        trio.open_nursery() as nursery,
    ):
        people = People(broadcast, *backplanes)
        nursery.start_soon(people.answer)
        nursery.start_soon(people.remind)

        @router.websocket("/ws/<room>")
        async def enter(ws: WebSocket, room: str) -> None:
            await chat(ws, room, lines, people)

        yield router
        nursery.cancel_scope.cancel()


async def main(port: int, redis: str | None) -> None:
    async with application(redis=redis) as router, trio.open_nursery() as nursery:
        serve = partial(serve_websocket, router, "localhost", port, max_message_size=LONGEST_LINE)
        server: WebSocketServer = await nursery.start(serve)
        print(f"Open http://localhost:{server.port}/ (Ctrl-C ends it)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    parser.add_argument("--redis", metavar="URL", help="share the chat with other servers")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        trio.run(main, arguments.port, arguments.redis)
    except* KeyboardInterrupt:
        pass
