"""`Router`: where a path leads, for WebSockets and for HTTP."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.handshake.handshake_helpers import request as upgrade
from tests.helpers import open_server, socket_pair
from tests.web.router_helpers import Site, connect
from tests.web.web_helpers import HTTPClient, http, open_site
from trio_ws import (
    CloseCode,
    ConnectionEnded,
    ConnectionLost,
    ConnectionRejected,
    Request,
    Response,
    Router,
    open_websocket_url,
    wrap_client_stream,
    wrap_server_stream,
)

# WebSockets…


async def test_a_websocket_gets_what_its_path_says() -> None:
    async with open_site(Site().router) as (server, _):
        assert await connect(server, "/chat/lobby") == ["in lobby"]
        assert await connect(server, "/chat/a%20b%C3%A9?token=x") == ["in a bé"]
        assert await connect(server, "/both") == ["both"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nowhere", 404),
        ("/chat", 404),
        ("/chat/", 404),
        ("/chat/a/b", 404),
        ("/chat/a%2Fb", 404),
        ("/rooms/", 404),
        ("/rooms/1", 404),
    ],
)
async def test_a_websocket_that_nobody_serves_is_refused_before_it_is_open(
    path: str, status: int
) -> None:
    async with open_site(Site().router) as (server, _):
        with pytest.raises(ConnectionRejected) as rejection:
            await connect(server, path)
        assert rejection.value.response.status == status
        await trio.testing.wait_all_tasks_blocked()
        statistics = server.server.statistics()
        assert (statistics.connections_total, statistics.refused_total) == (0, 1)


async def test_a_websocket_is_redirected_to_the_path_with_its_slash() -> None:
    router = Site().router
    async with open_server(router) as server:
        url = server.urls[0] + "slash?a=b"
        with pytest.raises(ConnectionRejected) as rejection:
            async with open_websocket_url(url):
                pass
        response = rejection.value.response
        assert (response.status, response.headers["Location"]) == (308, "/slash/?a=b")
        async with open_websocket_url(url, max_redirects=1) as ws:
            assert await ws.receive() == "slash"
            assert ws.request.target == "/slash/?a=b"


async def test_another_method_for_a_websocket_is_405() -> None:
    async with open_site(Site().router) as (_, client):
        response = await client.ask(upgrade("POST /chat/a HTTP/1.1"))
        assert (response.status, response.headers["Allow"]) == (405, "GET")


# HTTP…


TABLE: dict[str, tuple[int, bytes | None]] = {
    "GET /both": (200, b"<p>both</p>"),
    "HEAD /both": (200, b""),
    "GET /rooms/": (200, b'["a", "b"]'),
    "GET /rooms": (308, None),
    "GET /rooms?a=%22b": (308, None),
    "GET /rooms/7": (200, b'{"room": 7, "method": "GET"}'),
    "DELETE /rooms/7": (200, b'{"room": 7, "method": "DELETE"}'),
    "HEAD /rooms/7": (200, b""),
    "GET /rooms/seven": (404, None),
    "GET /rooms/" + "9" * 5000: (404, None),
    "GET /nowhere": (404, None),
    "GET /chat/a": (426, None),
    "HEAD /chat/a": (426, b""),
    "POST /chat/a": (405, None),
    "POST /both": (405, None),
    "OPTIONS /both": (204, b""),
    "OPTIONS /chat/a": (204, b""),
    "OPTIONS /nowhere": (404, None),
    "BREW /both": (405, None),
}


@pytest.mark.parametrize(("line", "status", "body"), [(k, *v) for k, v in TABLE.items()])
async def test_a_method_and_a_path_lead_somewhere(
    line: str, status: int, body: bytes | None
) -> None:
    async with open_site(Site().router) as (_, client):
        response = await client.ask(http(line))
        assert response.status == status
        if body is not None:
            assert response.body == body
        if status == 308:
            assert response.headers["Location"] == line[4:].replace("/rooms", "/rooms/")
        if status == 426:
            assert response.headers["Upgrade"] == "websocket"
            assert response.headers["Connection"] == "Upgrade"
        assert (await client.ask(http("GET /both"))).status == 200, "the connection goes on"


async def test_a_refused_or_asked_for_method_names_the_others() -> None:
    async with open_site(Site().router) as (_, client):
        for line, allow in (
            ("POST /both", "GET, HEAD, OPTIONS"),
            ("OPTIONS /both", "GET, HEAD, OPTIONS"),
            ("PUT /rooms/7", "DELETE, GET, HEAD, OPTIONS"),
            ("OPTIONS /chat/a", "GET, OPTIONS"),
            ("POST /chat/a", "GET, OPTIONS"),
        ):
            assert (await client.ask(http(line))).headers["Allow"] == allow


async def test_the_value_of_an_endpoint_becomes_a_response() -> None:
    router = Router()
    pages: dict[str, Any] = {
        "str": "<p>é</p>",
        "dict": {"a": 1},
        "list": [1],
        "none": None,
        "response": Response.html("<p>no</p>", 404, {"X-A": "b"}),
        "json": Response.json({"a": "é"}, 201, {"Content-Language": "fr"}),
    }

    @router.get("/<what>")
    async def page(request: Request, what: str) -> Any:
        return pages[what]

    async with open_site(router) as (_, client):
        got = {what: await client.ask(http(f"GET /{what}")) for what in pages}
    assert (got["str"].status, got["str"].text) == (200, "<p>é</p>")
    assert got["str"].headers["Content-Type"] == "text/html; charset=utf-8"
    assert (got["dict"].body, got["list"].body) == (b'{"a": 1}', b"[1]")
    assert (got["none"].status, got["none"].body) == (204, b"")
    assert "Content-Length" not in got["none"].headers
    assert (got["response"].status, got["response"].headers["X-A"]) == (404, "b")
    assert (got["json"].status, got["json"].body) == (201, rb'{"a": "\u00e9"}')
    assert got["json"].headers["Content-Type"] == "application/json"


async def test_each_common_method_has_a_decorator() -> None:
    router = Router()
    before: list[str] = []
    for name in ("get", "post", "put", "patch", "delete"):

        def endpoint(request: Request) -> str:
            return request.method

        add = getattr(router, name)
        how = add("/<int:number>", name=name, before=lambda request: before.append(request.method))
        assert how(lambda request, number: f"{request.method} {number}")
        assert add("/")(endpoint) is endpoint
        assert router.url_for(name, number=7) == "/7"
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    async with open_site(router) as (_, client):
        for method in methods:
            assert (await client.ask(http(f"{method} /"))).text == method
            assert (await client.ask(http(f"{method} /3"))).text == f"{method} 3"
        refused = await client.ask(http("OPTIONS /"))
        assert {*refused.headers.tokens("Allow")} == {*methods, "HEAD", "OPTIONS"}
    assert before == methods


async def test_an_endpoint_gets_the_body() -> None:
    site = Site()
    async with open_site(site.router) as (_, client):
        assert (await client.ask(http("POST /rooms/a/publish", b"hello"))).status == 204
    assert site.calls == [{"room": "a", "body": b"hello"}]


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "///evil.example/",
        "/%5Cevil.example",
        "/%5C%5Cevil.example",
        "/a%0D%0AX:y",
    ],
)
async def test_a_redirect_leads_to_this_host(path: str) -> None:
    router = Router()
    router.get("/<name>/")(lambda request, name: name)
    async with open_site(router) as (_, client):
        response = await client.ask(http(f"GET {path}"))
        if response.status == 308:
            location = response.headers["Location"]
            assert location.startswith("/")
            assert not location.startswith(("//", "/\\"))
            assert response.headers.get("X") is None


# Routers under routers…


async def test_a_router_under_another_has_its_routes_before_and_after() -> None:
    outer, middle, inner = Router(), Router(), Router()
    inner.get("/early")(lambda request, team: f"early {team}")
    middle.mount("/<team>", inner)
    outer.mount("/teams", middle)

    @inner.get("/late")
    def late(request: Request, team: str) -> str:
        return f"late {team}"

    middle.get("/")(lambda request: "all")
    async with open_site(outer) as (_, client):
        assert (await client.ask(http("GET /teams/red/early"))).body == b"early red"
        assert (await client.ask(http("GET /teams/red/late"))).body == b"late red"
        assert (await client.ask(http("GET /teams/"))).body == b"all"
        assert (await client.ask(http("GET /teams"))).status == 308
    assert outer.url_for(late, team="a b") == "/teams/a%20b/late"
    assert inner.url_for(late) == "/late"
    assert repr(outer) == "<Router of 3 routes>"


def test_a_router_is_not_mounted_under_itself() -> None:
    one, two, three = Router(), Router(), Router()
    one.mount("/two", two)
    two.mount("/three", three)
    for outer, inner in ((one, one), (two, one), (three, one)):
        with pytest.raises(ValueError, match="under itself"):
            outer.mount("/x", inner)


# A stream of one's own…


async def test_a_router_serves_a_single_stream() -> None:
    router = Site().router
    for path, first in (("/chat/x", "in x"), ("/none", None)):
        client_stream, server_stream = socket_pair()

        async def serve(stream: trio.abc.Stream) -> None:
            try:
                async with wrap_server_stream(stream, process_request=router.admit) as ws:
                    await router(ws)
            except ConnectionRejected as exc:
                assert exc.response.status == 404

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, server_stream)
            try:
                async with wrap_client_stream(client_stream, f"ws://example.org{path}") as ws:
                    assert await ws.receive() == first
            except ConnectionRejected:
                assert first is None


async def test_a_router_that_was_not_asked_before_looks_it_up_itself() -> None:
    router = Site().router
    for path, code in (("/both", 1000), ("/none", CloseCode.POLICY_VIOLATION)):
        client_stream, server_stream = trio.testing.memory_stream_pair()

        async def serve(stream: trio.abc.Stream) -> None:
            async with wrap_server_stream(stream) as ws:
                await router(ws)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, server_stream)
            async with wrap_client_stream(client_stream, f"ws://example.org{path}") as ws:
                with pytest.raises((ConnectionEnded, ConnectionLost)) as closed:
                    while True:
                        await ws.receive()
                assert closed.value.reason.code == code


async def test_routes_may_be_added_while_it_serves() -> None:
    router = Router()
    async with open_site(router) as (server, client):
        assert (await client.ask(http("GET /new"))).status == 404
        router.get("/new")(lambda request: "new")
        assert (await client.ask(http("GET /new"))).body == b"new"
        other = HTTPClient(server.connect())
        async with other.stream:
            assert (await other.ask(http("GET /new"))).body == b"new"
