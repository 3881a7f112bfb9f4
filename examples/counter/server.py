"""A counter that all its visitors share: the page at /, its WebSocket at /ws, one port.

Open the page in several tabs, or on several machines, and press the buttons.

Several processes are one counter if they share a Redis server:

    cd examples/counter
    REDIS_URL=redis://localhost trio-ws serve server:application --workers 4
"""

import argparse
import os
import secrets
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Protocol

import trio

from trio_ws import (
    Broadcast,
    CloseCode,
    Latest,
    Request,
    Response,
    Router,
    WebSocket,
    WebSocketServer,
    open_broadcast,
    serve_websocket,
)
from trio_ws.backplane import Backplane, RedisBackplane

PAGE = Path(__file__).with_name("index.html").read_bytes()


class Number(Protocol):
    """Where the number is kept."""

    async def add(self, step: int) -> None: ...
    async def get(self) -> int: ...


class InMemory:
    def __init__(self) -> None:
        self._value = 0

    async def add(self, step: int) -> None:
        self._value += step

    async def get(self) -> int:
        return self._value


class Counter:
    """A number that all pages show, with how many they are.

    `pages` are those of this process. `everywhere` is shared with the other processes, if there
    are any. They are told that the number has changed, and not to what: each reads the newest.
    """

    def __init__(self, number: Number, pages: Broadcast, everywhere: Broadcast) -> None:
        self.number = number
        self.pages = pages
        self.everywhere = everywhere
        self._showing = trio.Lock()

    async def serve(self, ws: WebSocket) -> None:
        with (
            self.pages.subscribe(ws, "counter"),
            self.everywhere.join("counter", secrets.token_hex(8), websocket=ws),
        ):
            async for message in ws:
                match message:
                    case "plus":
                        await self.add(1)
                    case "minus":
                        await self.add(-1)
                    case _:
                        await ws.aclose(CloseCode.UNSUPPORTED_DATA, "say plus or minus")
                        return

    async def add(self, step: int) -> None:
        try:
            await self.number.add(step)
        finally:  # also if it was cancelled on the way: perhaps it has been added
            note_change(self.everywhere)

    async def follow_the_number(self) -> None:
        async with self.everywhere.open_channel("counter", policy=Latest()) as changes:
            async for _ in changes:
                await self.show()

    async def follow_the_users(self) -> None:
        async for _ in self.everywhere.presence("counter"):
            await self.show()

    async def show(self) -> None:
        """Tell the pages. One reads at a time, so none is told an older number after a newer."""
        async with self._showing:
            value = await self.number.get()
            users = self.everywhere.presence("counter").count
            self.pages.publish_json({"value": value, "users": users}, "counter")


def note_change(everywhere: Broadcast, topic: str | None = None) -> None:
    """Have all processes read the number; also called where one may have missed a change."""
    everywhere.publish("changed", "counter")


@asynccontextmanager
async def open_counter(
    number: Number, backplane: Backplane | None = None
) -> AsyncGenerator[Counter, None]:
    # Who is slow gets the newest state, and not all those that it missed.
    async with (
        open_broadcast(policy=Latest()) as pages,
        open_broadcast(on_gap=note_change, backplane=backplane) as everywhere,
        trio.open_nursery() as nursery,
    ):
        counter = Counter(number, pages, everywhere)
        nursery.start_soon(counter.follow_the_number)
        nursery.start_soon(counter.follow_the_users)
        yield counter
        nursery.cancel_scope.cancel()


def answer(request: Request) -> Response | None:
    """The page, and nothing else, for whoever does not ask for the WebSocket."""
    if request.path == "/ws":
        return None
    if request.path == "/":
        headers = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-cache"}
        return Response(200, headers, PAGE)
    return Response(404, body="There is nothing here.\n")


async def main(host: str, port: int) -> None:
    async with open_counter(InMemory()) as counter, trio.open_nursery() as nursery:
        serve = partial(serve_websocket, counter.serve, host, port, process_request=answer)
        server: WebSocketServer = await nursery.start(serve)
        print(f"http://{host}:{server.port}/", flush=True)


# In several processes…


@asynccontextmanager
async def open_in_redis(url: str) -> AsyncGenerator[Number, None]:
    """The number in Redis, which adds for all processes.

    While Redis is away, pages show what they have. A press of a button is an error then, and closes
    the connection with 1011; the page comes back.
    """
    from coredis import Redis  # noqa: PLC0415 - one process needs no Redis
    from coredis.exceptions import RedisError  # noqa: PLC0415
    from coredis.retry import NoRetryPolicy  # noqa: PLC0415

    # What was sent twice would be added twice. A server that stands still is as good as away.
    policy = NoRetryPolicy()
    redis = Redis.from_url(url, decode_responses=True, retry_policy=policy, stream_timeout=5)

    class InRedis:
        async def add(self, step: int) -> None:
            await redis.incrby("example:counter", step)

        async def get(self) -> int:
            while True:
                try:
                    return int(await redis.get("example:counter") or 0)
                except (RedisError, OSError):
                    await trio.sleep(1)  # the pages show what they have until it is back

    async with redis:
        yield InRedis()


@asynccontextmanager
async def application() -> AsyncGenerator[Router, None]:
    """For `trio-ws serve`."""
    router = Router()

    @router.get("/")
    def page(request: Request) -> Response | None:
        return answer(request)

    url = os.environ.get("REDIS_URL")
    if not url and "TRIO_WS_WORKER" in os.environ:
        raise RuntimeError(
            "several workers share the number by Redis: set REDIS_URL, "
            "for example to redis://localhost"
        )
    async with (
        open_in_redis(url) if url else nullcontext(InMemory()) as number,
        open_counter(number, RedisBackplane(url) if url else None) as counter,
    ):
        router.websocket("/ws")(counter.serve)
        yield router


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    arguments = parser.parse_args()
    problem = None
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of scripts
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        trio.run(main, arguments.host, arguments.port)
    except* KeyboardInterrupt:
        pass
    except* OSError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        how = "try --port 0; with make, ARGS=--port=0"
        problem = f"Cannot serve on port {arguments.port} ({how}): {error}"
    sys.exit(problem)
