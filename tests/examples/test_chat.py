"""The example with a chat: rooms, people, history and names, without a browser."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
import trio

from examples.chat.server import HISTORY, LONGEST_LINE, application
from trio_ws import ConnectionLost, WebSocket
from trio_ws.testing import MemoryApp, open_test_app

pytestmark = pytest.mark.autojump

V1 = "trio-ws.live.v1"


@asynccontextmanager
async def chatting() -> AsyncGenerator[MemoryApp, None]:
    with trio.fail_after(600):
        async with application() as router, open_test_app(router) as app:
            yield app


class Person:
    """Somebody in a room."""

    def __init__(self, ws: WebSocket, room: str) -> None:
        self.ws = ws
        self.room = room
        self._said = 0

    async def say(self, text: str, line_id: str | None = None) -> None:
        self._said += 1
        line = {"id": line_id or f"{id(self)}-{self._said}", "text": text}
        await self.ws.send_json({"type": "send", "topic": self.room, "data": line})

    async def next(self, kind: str) -> dict[str, Any]:
        while (message := await self.ws.receive_json())["type"] != kind:
            pass
        message_of_this_kind: dict[str, Any] = message
        return message_of_this_kind

    async def hear(self) -> str:
        text: str = (await self.next("message"))["data"]["text"]
        return text

    async def see(self) -> tuple[list[str], list[str]]:
        """Who has come, and who has gone."""
        change = await self.next("presence")
        return sorted(change["joined"]), change["left"]


@asynccontextmanager
async def entering(
    app: MemoryApp, name: str, room: str, position: str | None = None
) -> AsyncGenerator[Person, None]:
    async with app.websocket(f"/live?name={quote(name)}", subprotocols=[V1]) as ws:
        asked = {"type": "subscribe", "topic": room, "position": position, "presence": True}
        await ws.send_json(asked)
        yield Person(ws, room)


async def test_the_room_is_told_when_somebody_comes_and_goes() -> None:
    async with chatting() as app, entering(app, "Bob", "lobby") as bob:
        assert await bob.see() == (["Bob"], [])
        async with entering(app, "Ada", "lobby"):
            assert await bob.see() == (["Ada"], [])
            async with entering(app, "Ada", "lobby") as ada:  # in a second window
                assert await ada.see() == (["Ada", "Bob"], [])
        assert await bob.see() == ([], ["Ada"])


async def test_lines_stay_in_their_room() -> None:
    async with (
        chatting() as app,
        entering(app, "Ada", "lobby") as ada,
        entering(app, "Kay", "kitchen") as kay,
    ):
        await ada.say("in the lobby")
        await kay.say("in the kitchen")
        assert await ada.hear() == "in the lobby"
        assert await kay.hear() == "in the kitchen"


async def test_newcomers_get_the_last_lines_and_those_who_come_back_what_they_missed() -> None:
    async with chatting() as app:
        async with entering(app, "Ada", "lobby") as ada:
            for number in range(HISTORY + 10):
                await ada.say(str(number))
            lines = [await ada.next("message") for _ in range(HISTORY + 10)]
        texts = [str(number) for number in range(HISTORY + 10)]
        async with entering(app, "Bob", "lobby") as bob:
            assert (await bob.next("subscribed"))["recovered"] is False
            assert [await bob.hear() for _ in range(HISTORY)] == texts[10:]
        async with entering(app, "Bob", "lobby", lines[-3]["position"]) as bob:
            assert (await bob.next("subscribed"))["recovered"] is True
            assert [await bob.hear() for _ in range(2)] == texts[-2:]
        async with entering(app, "Bob", "lobby", lines[0]["position"]) as bob:
            assert (await bob.next("subscribed"))["recovered"] is False
            assert [await bob.hear() for _ in range(HISTORY)] == texts[10:]


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 25])
async def test_names_that_are_none_are_refused_for_good(name: str) -> None:
    async with chatting() as app, entering(app, name, "lobby") as person:
        with pytest.raises(ConnectionLost) as caught:
            await person.hear()
        assert caught.value.reason.code == 1008


@pytest.mark.parametrize("room", ["x" * 25, "a room", "a/b"])
async def test_rooms_that_are_none_are_refused(room: str) -> None:
    async with chatting() as app, entering(app, "Ada", room) as ada:
        assert (await ada.next("error"))["code"] == "forbidden"


@pytest.mark.parametrize(
    "line",
    [
        "hello",
        {"text": "hello"},
        {"id": "x" * 33, "text": "hello"},
        {"id": "1", "text": "x" * (LONGEST_LINE + 1)},
    ],
)
async def test_lines_that_are_none_are_refused(line: object) -> None:
    async with chatting() as app, entering(app, "Ada", "lobby") as ada:
        await ada.ws.send_json({"type": "send", "topic": "lobby", "id": "1", "data": line})
        assert (await ada.next("error"))["code"] == "refused"


async def test_names_may_be_of_any_script() -> None:
    async with chatting() as app, entering(app, "張", "küche") as person:
        assert await person.see() == (["張"], [])


async def test_several_workers_without_redis_are_told_what_they_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIO_WS_WORKER", "1")
    monkeypatch.delenv("REDIS_URL", raising=False)
    with pytest.raises(RuntimeError, match="set REDIS_URL"):
        async with application():
            pass
