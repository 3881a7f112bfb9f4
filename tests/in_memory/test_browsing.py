"""`trio_ws.testing`: cookies, queries and redirects, as a browser handles them."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.in_memory.apps import describe, description
from trio_ws import (
    Accept,
    ConnectionRejected,
    InvalidURL,
    Request,
    Response,
    Router,
    TooManyRedirects,
)
from trio_ws.testing import FaultyStream, MemoryListener, open_test_app, open_test_websocket

pytestmark = pytest.mark.autojump


def redirect_to(request: Request) -> Response:
    status, _, location = request.query.partition(":")
    return Response(int(status), {"Location": location, "Set-Cookie": "way=1"})


def set_cookies(request: Request) -> Response:
    values = ("here=1", "there=2; Path=/there", "safe=3; Secure", "gone=4; Max-Age=0")
    return Response(200, [("Set-Cookie", value) for value in values])


def website() -> Router:
    router = Router()
    router.websocket("/ws")(describe)
    router.websocket("/moved", before=redirect_to)(describe)
    router.websocket("/in", before=lambda _: Accept(headers={"Set-Cookie": "in=1"}))(describe)
    router.websocket("/out", before=lambda _: Response(403, {"Set-Cookie": "in=0"}))(describe)
    router.get("/cookies")(set_cookies)
    for path in ("/what", "/there/what"):
        router.route(path, methods=["GET", "HEAD", "POST", "PUT"])(description)
    router.route("/moved", methods=["GET", "HEAD", "POST", "PUT"], name="moved")(redirect_to)
    return router


async def test_the_cookies_that_a_response_sets_go_with_the_next_request() -> None:
    async with open_test_app(website()) as app:
        assert (await app.get("/what")).json()["cookies"] == {}
        await app.get("/cookies")
        assert (await app.get("/what")).json()["cookies"] == {"here": "1"}
        assert (await app.get("/there/what")).json()["cookies"] == {"here": "1", "there": "2"}
        assert (await app.get("/what", {"Cookie": "own=5"})).json()["cookies"] == {"own": "5"}
        assert (await app.get("http://example.org/what")).json()["cookies"] == {}
        secure = await app.get("https://localhost/what")
        assert secure.json()["cookies"] == {"here": "1", "safe": "3"}
        async with app.websocket("/ws") as ws:
            assert (await ws.receive_json())["cookies"] == {"here": "1"}
        async with app.websocket("/ws", headers={"Cookie": "own=5"}) as ws:
            assert (await ws.receive_json())["cookies"] == {"own": "5"}
        app.cookies.clear()
        assert (await app.get("/what")).json()["cookies"] == {}


async def test_the_cookies_of_a_websocket_s_handshake_are_kept() -> None:
    async with open_test_app(website()) as app:
        async with app.websocket("/in"):
            pass
        assert (await app.get("/what")).json()["cookies"] == {"in": "1"}
        with pytest.raises(ConnectionRejected):
            async with app.websocket("/out"):
                raise AssertionError("never reached")
        assert (await app.get("/what")).json()["cookies"] == {"in": "0"}


async def test_each_client_has_its_own_cookies_and_address() -> None:
    async with open_test_app(website()) as app:
        ada, bob = (app.client(remote_address=("192.0.2.1", 1)), app.client())
        await ada.get("/cookies")
        assert repr(ada) == "<MemoryClient at 192.0.2.1:1 with here, safe, there>"
        assert repr(bob) == "<MemoryClient at a peer without address with no cookies>"
        seen = (await ada.get("/what")).json()
        assert (seen["cookies"], seen["address"]) == ({"here": "1"}, ["192.0.2.1", 1])
        for client in (app, bob):
            seen = (await client.get("/what")).json()
            assert (seen["cookies"], seen["address"]) == ({}, None)
        async with ada.websocket("/ws") as ws:
            assert (await ws.receive_json())["address"] == ["192.0.2.1", 1]


async def test_an_address_and_a_query_can_be_given_to_one_client_alone() -> None:
    address = ("2001:db8::1", 5)
    async with open_test_websocket(
        describe, "/ws?a=1", remote_address=address, params={"b": "&"}
    ) as ws:
        seen = await ws.receive_json()
    assert (seen["address"], seen["target"]) == (list(address), "/ws?a=1&b=%26")


async def test_a_trusted_proxy_can_be_played() -> None:
    options: Any = {"trusted_proxies": ["10.0.0.0/8"]}
    async with open_test_websocket(
        describe,
        remote_address=("10.0.0.1", 1),
        headers={"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"},
        server_options=options,
    ) as ws:
        seen = await ws.receive_json()
    assert (seen["address"], seen["scheme"]) == (["192.0.2.1", 0], "wss")


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({"q": "é &", "n": 1}, "/what?q=%C3%A9+%26&n=1"),
        ([("a", 1), ("a", 2)], "/what?a=1&a=2"),
        ({"a": [1, 2]}, "/what?a=1&a=2"),
        ({}, "/what"),
    ],
)
async def test_params_become_a_query(params: Any, target: str) -> None:
    async with open_test_app(website()) as app:
        assert (await app.get("/what", params=params)).json()["target"] == target


async def test_json_is_sent_as_json() -> None:
    async with open_test_app(website()) as app:
        seen = (await app.post("/what", json={"a": [1, None]})).json()
        assert (seen["body"], seen["type"]) == ('{"a": [1, null]}', "application/json")
        seen = (await app.post("/what", {"Content-Type": "a/b+json"}, json=None)).json()
        assert (seen["body"], seen["type"]) == ("null", "a/b+json")
        seen = (await app.post("/what", body="plain")).json()
        assert (seen["body"], seen["type"]) == ("plain", None)
        with pytest.raises(TypeError, match="a body or json, and not both"):
            await app.post("/what", body="x", json=1)
        with pytest.raises(ValueError, match="NaN"):
            await app.post("/what", json=float("nan"))


async def test_schemes_and_hosts_are_what_a_url_says() -> None:
    async with open_test_app(website()) as app:
        for url, scheme, host in (
            ("/what", "http", "localhost"),
            ("http://example.org:81/what", "http", "example.org:81"),
            ("https://example.org/what", "https", "example.org"),
            ("wss://example.org/what", "https", "example.org"),
        ):
            seen = (await app.get(url)).json()
            assert (seen["scheme"], seen["host"], seen["target"]) == (scheme, host, "/what")
        async with app.websocket("wss://example.org/ws") as ws:
            assert ws.request.scheme == "wss"
            seen = await ws.receive_json()
            assert (seen["scheme"], seen["host"]) == ("wss", "example.org")
        stream = app.connect(secure=True)
        async with app.websocket("/ws", stream=stream) as ws:
            assert (await ws.receive_json())["scheme"] == "wss"


async def test_redirects_are_followed_when_asked() -> None:
    async with open_test_app(website()) as app:
        response = await app.get("/moved?302:/what?x")
        assert (response.status, response.headers["Location"]) == (302, "/what?x")
        seen = (await app.get("/moved?302:/what?x", max_redirects=1)).json()
        assert (seen["target"], seen["cookies"]) == ("/what?x", {"way": "1"})
        twice = "/moved?302:/moved?302:/what"
        assert (await app.get(twice, max_redirects=1)).status == 302
        assert (await app.get(twice, max_redirects=5)).json()["target"] == "/what"
        with pytest.raises(InvalidURL):
            await app.get("/moved?302:ftp://example.org/", max_redirects=1)


@pytest.mark.parametrize(
    ("method", "status", "then"),
    [
        ("POST", 301, "GET"),
        ("POST", 302, "GET"),
        ("PUT", 303, "GET"),
        ("PUT", 302, "PUT"),
        ("POST", 307, "POST"),
        ("POST", 308, "POST"),
    ],
)
async def test_a_redirected_request_is_a_browser_s(method: str, status: int, then: str) -> None:
    async with open_test_app(website()) as app:
        headers = {"Authorization": "Basic x", "Content-Type": "text/x"}
        target = f"/moved?{status}:/what"
        response = await app.request(method, target, headers, "body", max_redirects=1)
        seen = response.json()
        kept = then != "GET"
        assert (seen["method"], seen["body"]) == (then, "body" if kept else "")
        assert (seen["type"], seen["authorization"]) == ("text/x" if kept else None, "Basic x")
        target = f"/moved?{status}:https://example.org/what"
        response = await app.request(method, target, headers, "body", max_redirects=1)
        seen = response.json()
        assert (seen["host"], seen["authorization"]) == ("example.org", None)


async def test_a_head_request_stays_one_when_it_is_redirected() -> None:
    async with open_test_app(website()) as app:
        response = await app.request("HEAD", "/moved?303:/what", max_redirects=1)
        assert (response.status, response.body) == (200, b"")


async def test_a_websocket_follows_redirects_when_asked() -> None:
    async with open_test_app(website()) as app:
        with pytest.raises(ConnectionRejected):
            async with app.websocket("/moved?302:/ws"):
                raise AssertionError("never reached")
        url = "/moved?302:wss://example.org/ws"
        headers = {"Authorization": "Basic x"}
        async with app.websocket(url, max_redirects=1, headers=headers) as ws:
            seen = await ws.receive_json()
            assert (seen["scheme"], seen["host"]) == ("wss", "example.org")
            assert seen["authorization"] is None
        assert [cookie.name for cookie in app.cookies] == ["way"]
        stream = FaultyStream(app.connect(), max_receive=1)
        async with app.websocket("/moved?302:/ws", max_redirects=1, stream=stream) as ws:
            assert (await ws.receive_json())["cookies"] == {"way": "1"}
        assert stream.closed
        with pytest.raises(TooManyRedirects):
            async with app.websocket("/moved?302:/moved?302:/ws", max_redirects=1):
                raise AssertionError("never reached")


@pytest.mark.parametrize("wrong", [{"nonsense": 1}, {"ssl_context": None}, {"max_redirects": -1}])
async def test_a_stream_is_closed_where_an_option_is_wrong(wrong: Any) -> None:
    async with open_test_app(website()) as app:
        stream = FaultyStream(app.connect())
        with pytest.raises((TypeError, ValueError)):
            async with app.websocket("/ws", stream=stream, **wrong):
                raise AssertionError("never reached")
        assert stream.closed
        with pytest.raises((TypeError, ValueError)):
            async with app.websocket("/ws", **wrong):
                raise AssertionError("never reached")


async def test_an_accepted_stream_is_one_as_trio_wants_it() -> None:
    async def make() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        async with MemoryListener() as listener:
            client = listener.connect()
            server = await listener.accept()
            assert isinstance(server, trio.abc.HalfCloseableStream)
            return client, server

    await trio.testing.check_half_closeable_stream(make, None)
