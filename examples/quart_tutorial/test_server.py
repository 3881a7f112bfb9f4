"""Its tests, which need neither a port nor a browser: python -m pytest examples/quart_tutorial"""

import pytest

from trio_ws.testing import open_test_app

from .server import application

AS_JSON = {"Content-Type": "application/json"}


async def test_echo() -> None:
    async with (
        application() as router,
        open_test_app(router) as app,
        app.websocket("/ws") as ws,
    ):
        await ws.send("hello")
        assert await ws.receive() == "echo hello"


async def test_everybody_gets_what_one_sends() -> None:
    async with (
        application() as router,
        open_test_app(router) as app,
        app.websocket("/api/v2/ws") as ada,
        app.websocket("/api/v2/ws") as bob,
    ):
        await ada.send("hello")
        assert [await ada.receive(), await bob.receive()] == ["hello", "hello"]


async def test_everybody_gets_what_is_posted() -> None:
    async with (
        application() as router,
        open_test_app(router) as app,
        app.websocket("/api/v2/ws") as ada,
        app.websocket("/ws") as echo,
    ):
        response = await app.post("/api/v2/messages", json={"message": "news"})
        assert (response.status, response.json()) == (201, {"told": 1})
        assert await ada.receive() == "news"

        await echo.send("anything else?")  # it got none of that
        assert await echo.receive() == "echo anything else?"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (AS_JSON, "{}", 400),
        (AS_JSON, '{"message": 1}', 400),
        (AS_JSON, "[]", 400),
        (AS_JSON, "news", 400),
        ({}, '{"message": "news"}', 415),
    ],
)
async def test_only_messages_can_be_posted(headers: dict[str, str], body: str, status: int) -> None:
    async with application() as router, open_test_app(router) as app:
        response = await app.post("/api/v2/messages", headers, body)
        assert response.status == status


async def test_the_page_and_its_files() -> None:
    async with application() as router, open_test_app(router) as app:
        page = await app.get("/")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "new WebSocket" in (await app.get("/live.js")).body.decode()
