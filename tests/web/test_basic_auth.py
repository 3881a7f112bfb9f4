"""`basic_auth`, and the user that hooks pass on to handlers."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.handshake.handshake_helpers import memory_server
from tests.helpers import open_server
from tests.web.web_helpers import http, open_site
from trio_ws import (
    ConnectionRejected,
    Headers,
    Request,
    Response,
    Router,
    Username,
    WebSocket,
    basic_auth,
    open_websocket_url,
    wrap_client_stream,
)

USERS = {"ada": "lovelace", "grace": "höpper:1", "": ""}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def ask(hook: Callable[[Request], Any], authorization: str | None) -> tuple[Any, Request]:
    headers = {} if authorization is None else {"Authorization": authorization}
    request = Request("GET", "/", Headers(headers))
    answer = hook(request)
    return (await answer if inspect.isawaitable(answer) else answer), request


@pytest.mark.parametrize(
    ("authorization", "name"),
    [
        (basic("ada", "lovelace"), "ada"),
        (basic("ada", "lovelace").replace("Basic", "bAsIc"), "ada"),
        (basic("ada", "lovelace").replace(" ", "  "), "ada"),
        (basic("grace", "höpper:1"), "grace"),
        (basic("", ""), ""),
        (basic("ada", "Lovelace"), None),
        (basic("ada", "lovelace "), None),
        (basic("ada", ""), None),
        (basic("grace", "lovelace"), None),
        (basic("nobody", "lovelace"), None),
        (None, None),
        ("", None),
        ("Basic", None),
        ("Basic ", None),
        ("Basic !!!", None),
        ("Basic é", None),
        ("Basic YWRh", None),  # no colon
        ("Basic /////w==", None),  # no UTF-8
        (basic("ada", "lovelace").rstrip("=")[:-1], None),
        (basic("ada", "lovelace").replace("Basic", "Bearer"), None),
        (basic("ada", "lovelace") + ", " + basic("ada", "lovelace"), None),
    ],
)
async def test_a_user_who_knows_the_password_is_let_in(
    authorization: str | None, name: str | None
) -> None:
    answer, request = await ask(basic_auth(USERS, realm='a "chat"'), authorization)
    if name is None:
        assert answer.status == 401
        challenge = answer.headers["WWW-Authenticate"]
        assert challenge == r'Basic realm="a \"chat\"", charset="UTF-8"'
        assert Username not in request.context
    else:
        assert answer is None
        assert request.context[Username] == name


async def test_a_function_may_decide_sync_or_async() -> None:
    async def check_later(name: str, password: str) -> bool:
        await trio.lowlevel.checkpoint()
        return check(name, password)

    def check(name: str, password: str) -> bool:
        return (name, password) == ("ada", "lovelace")

    for hook in (basic_auth(check), basic_auth(check_later)):
        assert (await ask(hook, basic("ada", "lovelace")))[0] is None
        assert (await ask(hook, basic("ada", "x")))[0].status == 401


async def test_a_check_that_does_not_say_lets_nobody_in() -> None:
    hook = basic_auth(lambda name, password: name)  # type: ignore[arg-type, return-value] # what is tested
    with pytest.raises(TypeError, match="returns True or False, not 'ada'"):
        await ask(hook, basic("ada", "x"))


@pytest.mark.parametrize(
    ("users", "options", "error", "what"),
    [
        (["ada"], {}, TypeError, "a dict of passwords or a function, not list"),
        ({"ada": 1}, {}, TypeError, "a user name and a password are str"),
        ({"a:da": "x"}, {}, ValueError, "a user name with a ':'"),
        ({}, {"realm": "a\nb"}, ValueError, "printable ASCII"),
        ({}, {"realm": "é"}, ValueError, "printable ASCII"),
        ({}, {"realm": 1}, TypeError, "a realm is a str"),
    ],
)
def test_a_mistake_is_told_at_once(
    users: Any, options: Any, error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        basic_auth(users, **options)


async def test_basic_auth_guards_a_server_without_a_router() -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.send(ws.context[Username])

    async with memory_server(handler, process_request=basic_auth(USERS)) as server:
        url = "ws://ada:lovelace@example.org/"
        async with wrap_client_stream(server.connect(), url) as ws:
            assert await ws.receive() == "ada"
            assert Username not in ws.context, "that is the client's own"
        with pytest.raises(ConnectionRejected) as rejection:
            async with wrap_client_stream(server.connect(), "ws://ada:x@example.org/"):
                pass
        assert rejection.value.response.status == 401


async def test_basic_auth_guards_routes_of_both_kinds() -> None:
    router = Router()
    guard = basic_auth(USERS)

    @router.websocket("/ws", before=guard)
    async def ws(websocket: WebSocket) -> None:
        await websocket.send(f"hello {websocket.context[Username]}")

    @router.post("/publish", before=guard)
    def publish(request: Request) -> str:
        return request.context[Username]

    @router.get("/")
    def index(request: Request) -> str:
        return "for everybody"

    async with open_server(router) as server:
        url = f"ws://ada:lovelace@127.0.0.1:{server.port}/ws"
        async with open_websocket_url(url) as websocket:
            assert await websocket.receive() == "hello ada"
    async with open_site(router) as (_, client):
        assert (await client.ask(http())).status == 200
        known = http("POST /publish", b"x", Authorization=basic("ada", "lovelace"))
        assert (await client.ask(known)).body == b"ada"
        # A stranger's body is not read: the connection ends with the answer.
        response = await client.ask(http("POST /publish", b"x"))
        assert (response.status, response.headers["Connection"]) == (401, "close")
        assert await client.is_hung_up_on()


@pytest.mark.parametrize(
    ("header", "cookies"),
    [
        ([], {}),
        (["a=b"], {"a": "b"}),
        (["a=b; c=d;e = f "], {"a": "b", "c": "d", "e": "f"}),
        (["a=b; a=c", "a=d; g=h"], {"a": "b", "g": "h"}),
        (['a="b=c"; nonsense; ; =x'], {"a": '"b=c"', "": "x"}),
    ],
)
def test_cookies_are_as_they_were_sent(header: list[str], cookies: dict[str, str]) -> None:
    request = Request("GET", "/", Headers([("Cookie", value) for value in header]))
    assert request.cookies == cookies
    assert Response(200).status == 200
