"""`Router`: what a path leads to, for WebSockets and for HTTP, and what leads nowhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest
import trio
import trio.testing
from werkzeug.routing import BaseConverter

from tests.handshake.handshake_helpers import MemoryServer, request as upgrade
from tests.helpers import HOST, open_server, socket_pair
from tests.web.web_helpers import HTTPClient, http, open_site
from trio_ws import (
    Accept,
    CloseCode,
    ConnectionEnded,
    ConnectionLost,
    ConnectionRejected,
    Request,
    Response,
    Router,
    WebSocket,
    open_websocket_url,
    serve_websocket,
    wrap_client_stream,
    wrap_server_stream,
)


class Site:
    """A router with one route of each kind, and what they were called with."""

    def __init__(self) -> None:
        self.router = router = Router()
        self.calls: list[dict[str, object]] = []

        @router.websocket("/chat/<room>")
        async def chat(ws: WebSocket, room: str) -> None:
            await ws.send(f"in {room}")
            async for message in ws:
                await ws.send(message)

        @router.websocket("/both")
        async def both(ws: WebSocket) -> None:
            await ws.send("both")

        @router.get("/both")
        def page(request: Request) -> str:
            return "<p>both</p>"

        @router.get("/rooms/")
        def rooms(request: Request) -> list[str]:
            return ["a", "b"]

        @router.websocket("/slash/")
        async def slash(ws: WebSocket) -> None:
            await ws.send("slash")

        @router.post("/rooms/<room>/publish")
        async def publish(request: Request, room: str) -> None:
            self.calls.append({"room": room, "body": request.body})

        @router.route("/rooms/<int:room>", methods=["get", "Delete"])
        def room(request: Request, room: int) -> dict[str, Any]:
            return {"room": room, "method": request.method}


async def connect(server: MemoryServer, path: str, **options: Any) -> list[str | bytes]:
    """What a WebSocket at this path says first."""
    url = f"ws://example.org{path}"
    async with wrap_client_stream(server.connect(), url, **options) as ws:
        return [await ws.receive()]


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


async def test_what_an_endpoint_returns_becomes_a_response() -> None:
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


# Hooks…


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


async def test_what_a_hook_finds_out_is_there_for_the_endpoint_and_for_nobody_else() -> None:
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


# URLs…


def test_url_for_gives_the_path_to_a_function_or_a_name() -> None:
    router = Site().router

    async def elsewhere(ws: WebSocket, where: str) -> None: ...

    router.websocket("/elsewhere/<path:where>", name="there")(elsewhere)
    assert router.url_for("chat", room="a b é?#") == "/chat/a%20b%20%C3%A9%3F%23"
    assert router.url_for("room", room=7) == "/rooms/7"
    assert router.url_for("room", room=7, page=2) == "/rooms/7?page=2"
    assert router.url_for("there", where="a/b") == "/elsewhere/a/b"
    assert router.url_for(elsewhere, where="c") == "/elsewhere/c"
    for endpoint, values in (
        ("nobody", {}),
        (print, {}),
        ("chat", {}),
        ("room", {"room": "seven"}),
        ("elsewhere", {"where": "it has another name"}),
    ):
        with pytest.raises(LookupError, match="there is no route for"):
            router.url_for(endpoint, **values)


def test_url_for_takes_the_route_that_the_values_are_for() -> None:
    router = Router()

    @router.get("/")
    @router.get("/<int:page>")
    def pages(request: Request, page: int = 0) -> str:
        return str(page)

    assert router.url_for(pages, page=3) == "/3"
    assert router.url_for(pages) == "/"


# Rules and mistakes…


async def test_rules_may_have_converters_of_their_own() -> None:
    class Hex(BaseConverter):
        regex = "[0-9a-f]+"

        def to_python(self, value: str) -> int:
            return int(value, 16)

    router = Router(converters={"hex": Hex})
    router.get("/<hex:number>")(lambda request, number: {"number": number})
    async with open_site(router) as (_, client):
        assert (await client.ask(http("GET /ff"))).body == b'{"number": 255}'
        assert (await client.ask(http("GET /fg"))).status == 404


def nothing(request: Request) -> None: ...


def nobody() -> None: ...


def pages(request: Request) -> Iterator[str]:
    yield "one"


async def chat(ws: WebSocket) -> None: ...


async def room(ws: WebSocket, number: int) -> None: ...


@pytest.mark.parametrize(
    ("mistake", "error", "what"),
    [
        (lambda router: router.get("no slash")(nothing), ValueError, "slash"),
        (lambda router: router.get("/<nope:a>")(nothing), LookupError, "nope"),
        (lambda router: router.get("/")("a name"), TypeError, "an endpoint is a function of a Req"),
        (
            lambda router: router.get("/")(nobody),
            TypeError,
            "the Request, .* suit nobody: too",
        ),
        (lambda router: router.get("/<a>")(nothing), TypeError, "the Request and a, .*keyword"),
        (lambda router: router.get("/")(pages), TypeError, "pages has a yield in it"),
        (lambda router: router.get(nothing), TypeError, r"a path is a str, .*: write @router.get"),
        (lambda router: router.get(7), TypeError, "a path is a str, not 7"),
        (
            lambda router: router.get("/", name=7)(nothing),
            TypeError,
            "name of a route is a str",
        ),
        (lambda router: router.websocket(nothing), TypeError, "a path is a str"),
        (
            lambda router: router.websocket("/")(nothing),
            TypeError,
            "a WebSocket .*: make nothing",
        ),
        (lambda router: router.websocket("/")(Router), TypeError, "not the class Router"),
        (
            lambda router: router.websocket("/<a>")(chat),
            TypeError,
            "WebSocket and a, .*keyword",
        ),
        (
            lambda router: router.route("/", methods=["A B"]),
            ValueError,
            "'A B' is no method",
        ),
        (lambda router: router.route("/", methods="GET"), TypeError, "methods is a list"),
        (lambda router: router.route("/", methods=[]), ValueError, "at least one method"),
        (lambda router: router.get("/", before="x")(nothing), TypeError, "a hook is a function"),
        (
            lambda router: router.get("/", before=None)(nothing),
            TypeError,
            "before is a hook, or a",
        ),
        (
            lambda router: router.get("/", before=nobody)(nothing),
            TypeError,
            "a hook is called",
        ),
        (
            lambda router: Router(before=cast("Any", nobody)),
            TypeError,
            "a hook is called with a Request",
        ),
        (lambda router: router.mount("/a/", Router()), ValueError, "slash"),
        (lambda router: router.mount(7, Router()), TypeError, "a path is a str, not 7"),
        (lambda router: router.static("s", "."), ValueError, "slash"),
        (lambda router: router.static("/<s>", "."), TypeError, "the Request and filename and s,"),
        (lambda router: router.mount("a", Router()), ValueError, "slash"),
        (lambda router: router.mount("/a", nothing), TypeError, "another Router"),
        (lambda router: router.static("/s", "/none"), NotADirectoryError, "no folder"),
    ],
)
def test_a_mistake_is_told_where_it_is_made(
    mistake: Any, error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        mistake(Router())


async def test_what_takes_more_than_its_path_captures_is_told_at_the_start() -> None:
    rooms = Router()
    rooms.websocket("/")(room)  # a path that it is mounted under may capture the number
    with trio.move_on_after(1):
        with pytest.raises(TypeError, match="'/' is called with the WebSocket, .*: missing"):
            await serve_websocket(rooms, HOST, 0)
    building = Router()
    building.mount("/<int:number>", rooms)
    building.check()
    with pytest.raises(TypeError, match="with the WebSocket and name, .*unexpected keyword"):
        building.mount("/by-name/<name>", rooms)


def test_without_werkzeug_a_router_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "werkzeug.routing", None)
    with pytest.raises(ImportError, match=r"needs werkzeug: pip install \"trio-ws\[routing\]\""):
        Router()


def test_the_package_needs_no_werkzeug_and_does_not_wait_for_it() -> None:
    program = "import sys, trio_ws; print('werkzeug' in sys.modules)"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


# A stream of one's own…


async def test_a_router_serves_a_single_stream_too() -> None:
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
