"""`Router`: rules, URLs made from them, and mistakes told where they are made."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, cast

import pytest
import trio
import trio.testing
from werkzeug.routing import BaseConverter

from tests.helpers import HOST
from tests.web.router_helpers import Site, pages, room
from tests.web.web_helpers import http, open_site
from trio_ws import Request, Router, WebSocket, serve_websocket

# URLs…


def nobody() -> None: ...


async def chat(ws: WebSocket) -> None: ...


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


async def test_an_endpoint_that_takes_more_than_its_path_captures_is_told_at_the_start() -> None:
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
