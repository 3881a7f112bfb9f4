"""A chat and its tests: in memory, with time that flies and a network that fails."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing

from trio_ws import (
    ConnectionClosed,
    ConnectionLost,
    ConnectionRejected,
    Message,
    Request,
    Response,
    WebSocket,
    open_websocket_url,
)
from trio_ws.testing import (
    FaultyStream,
    OpenWebSocketTo,
    open_pair,
    open_test_app,
    open_test_server,
    open_test_websocket,
)

# ---------------------------------------------------------------------------
# The application
# ---------------------------------------------------------------------------


class Chat:
    """What one member says, all hear. Who says nothing for ten minutes is shown out."""

    patience = 600

    def __init__(self) -> None:
        self.members: set[WebSocket] = set()

    async def __call__(self, ws: WebSocket) -> None:
        self.members.add(ws)
        try:
            with trio.move_on_after(self.patience) as silence:
                async for message in ws:
                    silence.deadline = trio.current_time() + self.patience
                    await self.say(message)
            if silence.cancelled_caught:
                await ws.aclose(4000, "nothing to say?")
        finally:
            self.members.remove(ws)

    async def say(self, message: Message) -> None:
        for member in self.members.copy():
            with suppress(ConnectionClosed):
                await member.send(message)


def doorman(request: Request) -> Response | None:
    if request.path == "/health":
        return Response(200, body="OK\n")
    if request.path == "/come-in":
        return Response(303, {"Location": "/welcome", "Set-Cookie": f"name={request.query}"})
    if "name" not in request.cookies:
        return Response(401, body="Who are you?\n")
    if request.path == "/welcome":
        return Response(200, body=f"Welcome, {request.cookies['name']}!\n")
    return None


# ---------------------------------------------------------------------------
# Its tests
# ---------------------------------------------------------------------------


async def test_one_member() -> None:
    async with open_test_websocket(Chat(), "/chat") as ws:
        await ws.send("hello?")
        assert await ws.receive() == "hello?"


async def test_two_members() -> None:
    async with (
        open_test_app(Chat()) as app,
        app.websocket("/chat") as ada,
        app.websocket("/chat") as bob,
    ):
        await ada.send("Hello, Bob!")
        assert await bob.receive() == "Hello, Bob!"


async def test_doorman() -> None:
    async with open_test_app(Chat(), process_request=doorman) as app:
        health = await app.get("/health")
        assert (health.status, health.body) == (200, b"OK\n")

        with pytest.raises(ConnectionRejected) as caught:
            async with app.websocket("/chat"):
                pass
        assert caught.value.response.status == 401

        async with app.websocket("/chat", headers={"Cookie": "name=Ada"}) as ws:
            await ws.send("It is me.")


async def test_everybody_has_a_name() -> None:
    async with open_test_app(Chat(), process_request=doorman) as app:
        ada, bob = app.client(), app.client(remote_address=("192.0.2.1", 50000))
        welcome = await ada.post("/come-in?Ada", max_redirects=1)
        assert welcome.text == "Welcome, Ada!\n"
        async with ada.websocket("/chat") as ws:  # with her cookie
            assert ws.request.cookies == {"name": "Ada"}

        with pytest.raises(ConnectionRejected):
            async with bob.websocket("/chat"):
                pass


async def broken(ws: WebSocket) -> None:
    await ws.send(str(1 / 0))


async def test_an_error_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_test_websocket(broken) as ws:
            await ws.receive()


async def test_what_the_client_sees_of_an_error() -> None:
    async with open_test_websocket(broken, server_options={"on_handler_error": "log"}) as ws:
        with pytest.raises(ConnectionLost, match="1011"):
            await ws.receive()


async def test_silence(autojump_clock: trio.testing.MockClock) -> None:
    async with open_test_websocket(Chat()) as ws:
        await trio.sleep(599)
        await ws.send("I am thinking.")
        assert await ws.receive() == "I am thinking."
        assert (await ws.wait_closed()).code == 4000
        assert trio.current_time() == pytest.approx(599 + 600)


async def test_a_member_whose_network_is_cut() -> None:
    chat = Chat()
    async with open_test_app(chat) as app:
        stream = FaultyStream(app.connect())
        async with app.websocket() as ada, app.websocket(stream=stream) as bob:
            await ada.send("Are you there?")
            await bob.receive()
            stream.cut()
            assert (await bob.wait_closed()).code == 1006
            await ada.receive()
            await ada.send("Bob?")
            assert await ada.receive() == "Bob?"
            assert len(chat.members) == 1


async def test_over_a_real_network() -> None:
    async with open_test_server(Chat()) as server, open_websocket_url(server.urls[0]) as ws:
        await ws.send("hello?")
        assert await ws.receive() == "hello?"


async def test_what_members_hear() -> None:
    chat = Chat()
    async with open_pair() as (ada, member):
        chat.members.add(member)
        await chat.say("Welcome!")
        assert await ada.receive() == "Welcome!"


async def test_with_a_fixture(open_websocket_to: OpenWebSocketTo) -> None:
    ws = await open_websocket_to(Chat(), "/chat")
    await ws.send("hello?")
    assert await ws.receive() == "hello?"
