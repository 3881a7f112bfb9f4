"""Rooms, each with its applause, in one process or in several that share a Redis server."""

import os
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from coredis import Redis
from coredis.retry import NoRetryPolicy

from trio_ws import Request, Response, Router, WebSocket
from trio_ws.backplane import Backplane, RedisBackplane
from trio_ws.live import open_live

PAGE = Path(__file__).with_name("index.html").read_text("utf-8")
ROOMS = {"lobby", "kitchen", "garden"}


class Claps:
    """The counts of all rooms, in this process."""

    def __init__(self) -> None:
        self.counts = Counter[str]()

    async def add(self, room: str) -> int:
        self.counts[room] += 1
        return self.counts[room]

    async def get(self, room: str) -> int:
        return self.counts[room]


class ClapsInRedis:
    """The counts of all rooms, in Redis, which adds for all processes."""

    def __init__(self, redis: Redis[str]) -> None:
        self.redis = redis

    async def add(self, room: str) -> int:
        return await self.redis.incr(f"claps:{room}")

    async def get(self, room: str) -> int:
        return int(await self.redis.get(f"claps:{room}") or 0)


def may_enter(ws: WebSocket, room: str) -> bool:
    return room in ROOMS


def name_of(ws: WebSocket, room: str) -> str:
    return ws.request.query_params.get("name", "somebody")[:20]


@asynccontextmanager
async def open_rooms(
    claps: Claps | ClapsInRedis, backplane: Backplane | None = None
) -> AsyncGenerator[Router, None]:
    async def state_of(room: str) -> dict[str, int]:
        return {"claps": await claps.get(room)}

    async def clap(ws: WebSocket, room: str, data: object) -> None:
        count = await claps.add(room)
        live.publish({"claps": count, "by": name_of(ws, room)}, room)

    router = Router()
    router.live_module("/live.js")

    @router.get("/rooms/<room>")
    def page(request: Request, room: str) -> str | Response:
        return PAGE if room in ROOMS else Response(404, body="There is no such room.\n")

    async with open_live(
        authorize=may_enter,
        identify=name_of,
        state=state_of,
        on_message=clap,
        backplane=backplane,
    ) as live:
        router.websocket("/live")(live)
        yield router


@asynccontextmanager
async def application() -> AsyncGenerator[Router, None]:
    url = os.environ.get("REDIS_URL")
    if url is None:
        async with open_rooms(Claps()) as router:
            yield router
    else:
        # A clap that is sent twice would count twice.
        redis = Redis.from_url(url, decode_responses=True, retry_policy=NoRetryPolicy())
        backplane = RedisBackplane(url, mode="streams")
        async with redis, open_rooms(ClapsInRedis(redis), backplane) as router:
            yield router
