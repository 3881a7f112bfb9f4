"""Clients with a cookie jar: what goes out, what is learned, and what stays where it is."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
import urllib.request
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
import pytest
import trio

from tests.client.client_helpers import open_and_leave
from tests.helpers import open_server
from tests.test_reasons import client_tls, server_tls
from trio_ws import (
    Accept,
    ClientOptions,
    ConnectionRejected,
    InvalidResponse,
    Request,
    Response,
    WebSocket,
    WebSocketServer,
    open_websocket_url,
    wrap_client_stream,
)

#: The value of every cookie, and found in nothing that is shown.
SECRET = "xyzzy"


def set_cookie(name: str, attributes: str = "") -> tuple[str, str]:
    return ("Set-Cookie", f"{name}={SECRET}{attributes}")


def answer(request: Request) -> Accept | Response | None:
    """A site that sets a cookie with every kind of response."""
    match request.path:
        case "/login":
            return Response(200, [set_cookie("login", "; HttpOnly; SameSite=Strict")], "Welcome.\n")
        case "/401":
            return Response(401, [set_cookie("refused")], "Who are you?\n")
        case "/302":
            return Response(302, [set_cookie("moved"), ("Location", "/ws")])
        case "/elsewhere":
            to = request.query_params["to"] or "ftp://nowhere/"
            return Response(302, [set_cookie("moved"), ("Location", to)])
        case "/page":
            return Response(200, (), " ".join(request.cookies))
        case "/two":
            return Accept(headers=[set_cookie("one"), set_cookie("two", "; Path=/deeper")])
        case "/secure":
            return Accept(headers=[set_cookie("safe", "; Secure"), set_cookie("plain")])
        case _:
            return None if request.is_upgrade else Response(404)


async def tell(ws: WebSocket) -> None:
    await ws.send(" ".join(ws.request.cookies))


@asynccontextmanager
async def open_site(**options: Any) -> AsyncGenerator[tuple[WebSocketServer, str], None]:
    """The site, and its URL without the scheme."""
    async with open_server(tell, process_request=answer, **options) as server:
        yield server, f"://localhost:{server.port}"


async def cookies_at(url: str, **options: Any) -> list[str]:
    """The names of the cookies that a WebSocket at `url` gets."""
    async with open_websocket_url(url, **options) as ws:
        return (await ws.receive_text()).split()


def names(jar: CookieJar) -> list[str]:
    return sorted(cookie.name for cookie in jar)


# With HTTP clients…


async def test_a_jar_is_shared_with_an_http_client_of_the_standard_library() -> None:
    jar = CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))

    def get(url: str) -> str:
        with opener.open(url) as response:
            return str(response.read().decode())

    async with open_site() as (_, site):
        await trio.to_thread.run_sync(get, f"http{site}/login")
        assert await cookies_at(f"ws{site}/ws", cookies=jar) == ["login"]
        await open_and_leave(f"ws{site}/two", cookies=jar)
        page = await trio.to_thread.run_sync(get, f"http{site}/page")
    assert page.split() == ["login", "one"]


async def test_a_jar_is_shared_with_httpx() -> None:
    async with open_site() as (_, site), httpx.AsyncClient(trust_env=False) as client:
        await client.get(f"http{site}/login")
        assert await cookies_at(f"ws{site}/ws", cookies=client.cookies.jar) == ["login"]
        await open_and_leave(f"ws{site}/two", cookies=client.cookies.jar)
        page = await client.get(f"http{site}/page")
    assert page.text.split() == ["login", "one"]


# What is learned, and what goes out…


async def test_cookies_are_learned_whatever_the_status() -> None:
    jar = CookieJar()
    async with open_site() as (_, site):
        with pytest.raises(ConnectionRejected):
            await open_and_leave(f"ws{site}/401", cookies=jar)
        assert names(jar) == ["refused"]
        with pytest.raises(ConnectionRejected):
            await open_and_leave(f"ws{site}/302", cookies=jar)
        assert names(jar) == ["moved", "refused"]
        await open_and_leave(f"ws{site}/two", cookies=jar)
        assert names(jar) == ["moved", "one", "refused", "two"]
        # "two" is for another path.
        assert await cookies_at(f"ws{site}/ws", cookies=jar) == ["refused", "moved", "one"]


async def test_a_cookie_of_a_redirect_goes_with_the_next_request() -> None:
    async with open_site() as (_, site):
        options: Any = {"cookies": CookieJar(), "max_redirects": 1}
        assert await cookies_at(f"ws{site}/302", **options) == ["moved"]


async def test_a_jar_is_asked_over_any_stream() -> None:
    jar = CookieJar()
    async with open_site() as (server, site):
        for expected in ("", "one"):
            stream = await trio.open_tcp_stream("localhost", server.port)
            async with wrap_client_stream(stream, f"ws{site}/two", cookies=jar) as ws:
                assert await ws.receive_text() == expected


async def test_secure_cookies_go_over_tls_alone() -> None:
    jar = CookieJar()
    async with open_site() as (_, plain), open_site(ssl_context=server_tls()) as (_, secure):
        tls: Any = {"cookies": jar, "ssl_context": client_tls()}
        await open_and_leave(f"wss{secure}/secure", **tls)
        assert names(jar) == ["plain", "safe"]
        assert await cookies_at(f"wss{secure}/ws", **tls) == ["safe", "plain"]
        assert await cookies_at(f"ws{plain}/ws", cookies=jar) == ["plain"]


async def test_a_cookie_in_the_headers_is_sent_instead_of_the_jar_s() -> None:
    jar = CookieJar()
    async with open_site() as (_, site):
        await open_and_leave(f"ws{site}/two", cookies=jar)
        own = {"cookie": f"own={SECRET}"}
        assert await cookies_at(f"ws{site}/ws", cookies=jar, headers=own) == ["own"]


async def test_the_jar_s_policy_decides() -> None:
    jar = CookieJar(DefaultCookiePolicy(blocked_domains=["localhost.local"]))
    async with open_site() as (_, site):
        await open_and_leave(f"ws{site}/two", cookies=jar)
    assert names(jar) == []


# What stays where it is…


async def test_no_cookie_goes_to_another_origin_on_a_redirect() -> None:
    jar = CookieJar()
    async with open_site() as (_, site), open_site() as (other, other_site):
        await open_and_leave(f"ws{site}/two", cookies=jar)
        # The port alone differs, which cookies do not know.
        url = f"ws{site}/elsewhere?to=ws{other_site}/ws"
        assert await cookies_at(url, cookies=jar, max_redirects=1) == []
        # Nor does the jar learn any from there.
        url = f"ws{site}/elsewhere?to=ws://127.0.0.1:{other.port}/elsewhere?to="
        with pytest.raises(InvalidResponse):
            await cookies_at(url, cookies=jar, max_redirects=2)
    assert {cookie.domain for cookie in jar} == {"localhost.local"}


async def test_cookies_are_in_no_log_error_or_repr(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    jar = CookieJar()
    async with open_site() as (_, site):
        await open_and_leave(f"ws{site}/two", cookies=jar)
        async with open_websocket_url(f"ws{site}/ws", cookies=jar) as ws:
            shown = [repr(ws), repr(ws.request), repr(ws.response)]
        with pytest.raises(ConnectionRejected) as caught:
            await open_and_leave(f"ws{site}/401", cookies=jar)
    shown += [repr(ClientOptions(cookies=jar)), *traceback.format_exception(caught.value)]
    assert SECRET in repr(jar)
    assert SECRET not in caplog.text
    assert SECRET not in "".join(shown)


# Mistakes…


@pytest.mark.parametrize("wrong", [{"a": SECRET}, f"a={SECRET}", httpx.Cookies({"a": SECRET}), []])
def test_cookies_that_are_no_jar_are_refused_without_being_shown(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"cookies is an http\.cookiejar\.CookieJar") as caught:
        ClientOptions(cookies=wrong)
    assert SECRET not in str(caught.value)


async def test_what_a_jar_raises_comes_out_and_leaves_nothing() -> None:
    class Broken(CookieJar):
        def __iter__(self) -> Iterator[Any]:
            return iter(())

        def extract_cookies(self, response: object, request: object) -> None:
            raise RuntimeError("the jar is broken")

    async with open_site() as (server, site):
        with pytest.raises(RuntimeError, match="the jar is broken"):
            await open_and_leave(f"ws{site}/ws", cookies=Broken())
        with trio.fail_after(5):
            while server.connections:
                await trio.sleep(0.01)


def test_a_client_without_a_jar_does_not_load_what_jars_need() -> None:
    code = (
        "import sys, trio_ws\n"
        "trio_ws.ClientOptions(cookies=None)\n"
        "assert 'http.cookiejar' not in sys.modules\n"
        "assert 'trio_ws._http.cookies' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
