"""The example with a chat: rooms, people, history and names, without a browser."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from examples.chat.server import BAD_NAME, HISTORY, REMINDER, application
from trio_ws import ConnectionLost, WebSocket
from trio_ws.testing import MemoryApp, open_test_app

pytestmark = pytest.mark.autojump


@asynccontextmanager
async def chatting() -> AsyncGenerator[MemoryApp, None]:
    with trio.fail_after(600):
        async with application() as router, open_test_app(router) as app:
            yield app


async def hear(ws: WebSocket) -> dict[str, Any]:
    """The next line, or what else is said of lines."""
    while "people" in (message := await ws.receive_json()):
        pass
    line: dict[str, Any] = message
    return line


async def see(ws: WebSocket) -> list[str]:
    """The names of those in the room, each time that they change."""
    while "people" not in (message := await ws.receive_json()):
        pass
    people: list[str] = message["people"]
    return people


async def test_the_room_is_told_when_somebody_comes_and_goes() -> None:
    async with chatting() as app, app.websocket("/ws/lobby?name=Bob") as bob:
        assert await see(bob) == ["Bob"]
        async with app.websocket("/ws/lobby?name=Ada"):
            assert await see(bob) == ["Ada", "Bob"]
            async with app.websocket("/ws/lobby?name=Ada"):  # in a second window
                assert await see(bob) == ["Ada", "Bob"]
            assert await see(bob) == ["Ada", "Bob"]
        assert await see(bob) == ["Bob"]
        before = trio.current_time()
        assert await see(bob) == ["Bob"]  # a reminder
        assert trio.current_time() - before <= REMINDER


async def test_lines_stay_in_their_room() -> None:
    async with (
        chatting() as app,
        app.websocket("/ws/lobby?name=Ada") as ada,
        app.websocket("/ws/kitchen?name=Kay") as kay,
    ):
        await ada.send("in the lobby")
        await kay.send("in the kitchen")
        for ws, text in ((ada, "in the lobby"), (kay, "in the kitchen")):
            assert (await hear(ws))["text"] == text


async def test_newcomers_get_the_last_lines_and_those_who_come_back_what_they_missed() -> None:
    async with chatting() as app:
        async with app.websocket("/ws/lobby?name=Ada") as ada:
            for number in range(HISTORY + 10):
                await ada.send(str(number))
            lines = [await hear(ada) for _ in range(HISTORY + 10)]
        async with app.websocket("/ws/lobby?name=Bob") as bob:
            assert [await hear(bob) for _ in range(HISTORY)] == lines[10:]
        async with app.websocket(f"/ws/lobby?name=Bob&since={lines[-3]['id']}") as bob:
            assert [await hear(bob) for _ in range(2)] == lines[-2:]
        async with app.websocket(f"/ws/lobby?name=Bob&since={lines[0]['id']}") as bob:
            assert [await hear(bob) for _ in range(HISTORY)] == lines[10:]
            assert await hear(bob) == {"missed": True}


@pytest.mark.parametrize(
    "path",
    ["lobby", "lobby?name=", "lobby?name=%20", "lobby?name=a%0Ab", f"lobby?name={'x' * 25}",
     f"{'x' * 25}?name=Ada", "a%20room?name=Ada"],
)  # fmt: skip
async def test_names_that_are_none_are_refused_for_good(path: str) -> None:
    async with chatting() as app, app.websocket(f"/ws/{path}") as ws:
        with pytest.raises(ConnectionLost) as caught:
            await ws.receive()
        assert caught.value.reason.code == BAD_NAME


async def test_names_may_be_of_any_script() -> None:
    async with chatting() as app, app.websocket("/ws/k%C3%BCche?name=%E5%BC%B5") as ws:
        assert await see(ws) == ["張"]
