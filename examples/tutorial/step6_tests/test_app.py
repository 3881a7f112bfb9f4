"""Tests of the rooms."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
from app import application

from trio_ws import WebSocket
from trio_ws.testing import MemoryApp, open_test_app


@asynccontextmanager
async def applause() -> AsyncGenerator[MemoryApp, None]:
    async with application() as router, open_test_app(router) as app:
        yield app


@asynccontextmanager
async def visit(
    app: MemoryApp, name: str, room: str, position: str | None = None
) -> AsyncGenerator[WebSocket, None]:
    async with app.websocket(f"/live?name={name}", subprotocols=["trio-ws.live.v1"]) as ws:
        await ws.send_json({"type": "subscribe", "topic": room, "position": position})
        yield ws


async def clap(ws: WebSocket, room: str) -> None:
    await ws.send_json({"type": "send", "topic": room, "data": "clap"})


async def get(kind: str, ws: WebSocket) -> Any:
    """The next message of this kind."""
    while (message := await ws.receive_json())["type"] != kind:
        pass
    return message


async def test_everybody_in_a_room_sees_the_same_count() -> None:
    async with (
        applause() as app,
        visit(app, "Ada", "lobby") as ada,
        visit(app, "Bob", "lobby") as bob,
    ):
        await get("current", bob)
        await clap(ada, "lobby")
        for ws in (ada, bob):
            assert (await get("message", ws))["data"] == {"claps": 1, "by": "Ada"}


async def test_the_kitchen_does_not_hear_the_lobby(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        applause() as app,
        visit(app, "Ada", "lobby") as ada,
        visit(app, "Bob", "kitchen") as bob,
    ):
        assert (await get("state", bob))["data"] == {"claps": 0}
        await clap(ada, "lobby")
        with trio.move_on_after(60) as minute:
            await get("message", bob)
        assert minute.cancelled_caught


async def test_who_comes_back_gets_what_was_missed() -> None:
    async with applause() as app, visit(app, "Ada", "lobby") as ada:
        async with visit(app, "Bob", "lobby") as bob:
            position = (await get("current", bob))["position"]
        await clap(ada, "lobby")
        await get("message", ada)

        async with visit(app, "Bob", "lobby", position) as bob:
            assert (await get("subscribed", bob))["recovered"]
            assert (await get("message", bob))["data"] == {"claps": 1, "by": "Ada"}


async def test_there_is_no_cellar() -> None:
    async with applause() as app:
        assert (await app.get("/rooms/lobby")).status == 200
        assert (await app.get("/rooms/cellar")).status == 404
        async with visit(app, "Ada", "cellar") as ada:
            assert (await get("error", ada))["code"] == "forbidden"
