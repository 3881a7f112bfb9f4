"""`Router`: hooks, their order, and their answers."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.web.router_helpers import connect
from tests.web.web_helpers import http, open_site
from trio_ws import (
    Accept,
    ConnectionRejected,
    Request,
    Response,
    Router,
    WebSocket,
    wrap_client_stream,
)


async def test_hooks_are_asked_in_order_and_the_first_response_is_the_answer() -> None:
    asked: list[str] = []

    def hook(name: str, answer: Any = None) -> Any:
        async def ask_later(request: Request) -> Any:
            asked.append(name)
            await trio.lowlevel.checkpoint()
            return answer

        return ask_later

    router = Router(before=[hook("router"), lambda request: None])
    inner = Router(before=hook("inner"))
    router.mount("/in", inner, before=hook("mount"))

    @inner.get("/page", before=[hook("one"), hook("two", Response(418)), hook("three")])
    def page(request: Request) -> None:
        raise AssertionError("it was refused")

    async with open_site(router, process_request=hook("server")) as (_, client):
        assert (await client.ask(http("GET /in/page"))).status == 418
        assert asked == ["server", "router", "mount", "inner", "one", "two"]
        asked.clear()
        assert (await client.ask(http("GET /nowhere"))).status == 404
        assert asked == ["server"]


async def test_a_hook_may_refuse_a_websocket_with_any_status_and_body() -> None:
    router = Router()

    def members_only(request: Request) -> Response | None:
        if request.path_values["room"] == "secret":
            return Response(402, {"X-Price": "3"}, "Pay first.\n")
        return None

    @router.websocket("/chat/<room>", before=members_only)
    async def chat(ws: WebSocket, room: str) -> None:
        await ws.send(room)

    async with open_site(router) as (server, _):
        assert await connect(server, "/chat/lobby") == ["lobby"]
        with pytest.raises(ConnectionRejected) as rejection:
            await connect(server, "/chat/secret")
    response = rejection.value.response
    assert (response.status, response.body) == (402, b"Pay first.\n")
    assert response.headers["X-Price"] == "3"


async def test_hooks_choose_the_terms_of_a_websocket_together() -> None:
    router = Router(before=lambda request: Accept("b", {"X-First": "1"}))

    @router.websocket("/")
    async def talk(ws: WebSocket) -> None:
        await ws.send(ws.subprotocol or "none")

    @router.websocket("/last", before=lambda request: Accept(headers={"X-Last": "2"}))
    async def last(ws: WebSocket) -> None:
        await talk(ws)

    @router.websocket("/none", before=lambda request: Accept(None))
    async def none(ws: WebSocket) -> None:
        await talk(ws)

    async with open_site(router, process_request=lambda request: Accept("a")) as (server, _):
        for path, chosen, names in (
            ("/", "b", ["X-First"]),
            ("/last", "b", ["X-First", "X-Last"]),
            ("/none", "none", ["X-First"]),
        ):
            url = f"ws://example.org{path}"
            stream = server.connect()
            async with wrap_client_stream(stream, url, subprotocols=["a", "b"]) as ws:
                assert await ws.receive() == chosen
                assert [name for name in ws.response.headers if name.startswith("X")] == names


@pytest.mark.parametrize(
    ("line", "hook", "what"),
    [
        ("GET /", lambda request: 1 / 0, "division by zero"),
        ("GET /", lambda request: "yes", "returns None, Accept or Response"),
        ("GET /", lambda request: Accept(), "asks for no WebSocket"),
    ],
)
async def test_a_failing_hook_is_500_and_one_record(
    line: str, hook: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    router = Router(before=hook)
    router.get("/")(lambda request: "never reached")
    async with open_site(router) as (_, client):
        assert (await client.ask(http(line))).status == 500
    (record,) = caplog.records
    assert "a hook failed for GET /" in record.getMessage()
    assert record.exc_info is not None
    assert what in str(record.exc_info[1])


async def test_data_of_a_hook_is_there_for_the_endpoint_and_for_nobody_else() -> None:
    class Visits(list[str]):
        pass

    def remember(request: Request) -> None:
        assert Visits not in request.context
        request.context[Visits] = Visits([request.path])

    router = Router(before=remember)

    @router.post("/<name>")
    async def page(request: Request, name: str) -> list[str]:
        return request.context[Visits]

    @router.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.send_json(websocket.context[Visits])

    async with open_site(router) as (server, client):
        for name in "ab":
            assert (
                await client.ask(http(f"POST /{name}", b"x"))
            ).body == b'["/%s"]' % name.encode()
        assert await connect(server, "/ws") == ['["/ws"]']
