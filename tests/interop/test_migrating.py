"""What `docs/migrating/from-*.md` says behaves differently, asked of the libraries themselves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import pytest
import trio
import trio_websocket
import websockets.asyncio.client
import websockets.exceptions
import websockets.trio.client

import trio_ws
from tests.helpers import open_server
from tests.project.pages import ROOT
from trio_ws import (
    ConnectionEnded,
    ConnectionLost,
    ConnectionRejected,
    Request,
    Response,
    WebSocket,
    open_websocket_url,
)

#: Where the peer closes first, trio-websocket leaves its socket to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


class Boom(Exception):
    """What a block raises."""


@asynccontextmanager
async def aiohttp_connect(url: str) -> AsyncGenerator[aiohttp.ClientWebSocketResponse, None]:
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as ws:
        yield ws


Connect = Callable[[str], AbstractAsyncContextManager[Any]]

ON_TRIO: dict[str, Connect] = {
    "trio_ws": open_websocket_url,
    "websockets.trio": websockets.trio.client.connect,
    "trio-websocket": trio_websocket.open_websocket_url,
}
ON_ASYNCIO: dict[str, Connect] = {
    "websockets": websockets.asyncio.client.connect,
    "aiohttp": aiohttp_connect,
}
CLIENTS = {**ON_TRIO, **ON_ASYNCIO}


async def run(name: str, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run a client, on the event loop that it needs."""
    if name in ON_TRIO:
        return await function(CLIENTS[name], *args)
    return await trio.to_thread.run_sync(
        partial(asyncio.run, function(CLIENTS[name], *args))  # type: ignore[arg-type] # coroutines
    )


class Site:
    """A server that remembers how its connections ended."""

    def __init__(self) -> None:
        self.codes: list[int] = []

    async def handler(self, ws: WebSocket) -> None:
        if ws.request.path == "/4000":
            await ws.aclose(4000, "no")
        elif ws.request.path != "/1000":
            self.codes.append((await ws.wait_closed()).code)


def answer(request: Request) -> Response | None:
    return Response(302, {"Location": "/1000"}) if request.path == "/302" else None


@asynccontextmanager
async def open_site() -> AsyncGenerator[tuple[Site, str], None]:
    site = Site()
    with trio.fail_after(30):
        async with open_server(site.handler, process_request=answer) as server:
            yield site, f"ws://localhost:{server.port}"


# How a block ends…


async def raise_in_block(connect: Connect, url: str) -> None:
    with pytest.raises(Boom):
        async with connect(url):
            raise Boom


async def cancel_block_on_trio(connect: Connect, url: str) -> None:
    with trio.CancelScope() as scope:
        async with connect(url):
            scope.cancel()
            await trio.sleep_forever()


async def cancel_block_on_asyncio(connect: Connect, url: str) -> None:
    async def block() -> None:
        async with connect(url):
            opened.set()
            await asyncio.sleep(60)

    opened = asyncio.Event()
    task = asyncio.create_task(block())
    await opened.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("trio_ws", 1011),
        ("websockets", 1011),
        ("websockets.trio", 1011),
        ("trio-websocket", 1000),
        ("aiohttp", 1000),
    ],
)
async def test_what_the_peer_gets_when_a_block_raises(name: str, code: int) -> None:
    async with open_site() as (site, url):
        await run(name, raise_in_block, url)
    assert site.codes == [code]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("trio_ws", 1001),
        ("websockets", 1011),
        ("websockets.trio", 1006),
        ("trio-websocket", 1006),
        ("aiohttp", 1000),
    ],
)
async def test_what_the_peer_gets_when_a_block_is_cancelled(name: str, code: int) -> None:
    async with open_site() as (site, url):
        on_trio = name in ON_TRIO
        await run(name, cancel_block_on_trio if on_trio else cancel_block_on_asyncio, url)
    assert site.codes == [code]


# What a connection is told…


async def read_all(connect: Connect, url: str) -> None:
    async with connect(url) as ws:
        async for _ in ws:
            pass


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("trio_ws", ConnectionLost),
        ("websockets", websockets.exceptions.ConnectionClosedError),
        ("websockets.trio", websockets.exceptions.ConnectionClosedError),
        ("trio-websocket", TypeError),
        ("aiohttp", None),
    ],
)
async def test_what_a_loop_says_of_an_end_that_is_not_in_order(
    name: str, error: type[Exception] | None
) -> None:
    async with open_site() as (_, url):
        if error is None:
            await run(name, read_all, f"{url}/4000")
        else:
            with pytest.raises(error):
                await run(name, read_all, f"{url}/4000")


#: How each receives and sends.
RECEIVE = {"trio_ws": "receive", "aiohttp": "receive", "trio-websocket": "get_message"}
SEND = {"aiohttp": "send_str", "trio-websocket": "send_message"}


async def receive(name: str, connect: Connect, url: str) -> Any:
    async with connect(url) as ws:
        return await getattr(ws, RECEIVE.get(name, "recv"))()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("trio_ws", ConnectionEnded),
        ("websockets", websockets.exceptions.ConnectionClosedOK),
        ("websockets.trio", websockets.exceptions.ConnectionClosedOK),
        ("trio-websocket", trio_websocket.ConnectionClosed),
        ("aiohttp", None),
    ],
)
async def test_what_receiving_says_of_an_end_in_order(
    name: str, error: type[Exception] | None
) -> None:
    async with open_site() as (_, url):
        if error is None:
            message = await run(name, partial(receive, name), f"{url}/1000")
            assert message.type is aiohttp.WSMsgType.CLOSE
        else:
            with pytest.raises(error):
                await run(name, partial(receive, name), f"{url}/1000")


async def send_after_the_block(name: str, connect: Connect, url: str) -> None:
    async with connect(url) as ws:
        pass
    await getattr(ws, SEND.get(name, "send"))("text")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("trio_ws", trio.ClosedResourceError),
        ("websockets", websockets.exceptions.ConnectionClosedOK),
        ("websockets.trio", websockets.exceptions.ConnectionClosedOK),
        ("trio-websocket", trio_websocket.ConnectionClosed),
        ("aiohttp", aiohttp.ClientConnectionResetError),
    ],
)
async def test_what_using_a_connection_says_that_was_closed(
    name: str, error: type[Exception]
) -> None:
    async with open_site() as (_, url):
        with pytest.raises(error):
            await run(name, partial(send_after_the_block, name), url)


# Redirects, and tasks…


async def open_and_leave(connect: Connect, url: str) -> None:
    async with connect(url):
        pass


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("trio_ws", ConnectionRejected),
        ("websockets", None),
        ("websockets.trio", None),
        ("trio-websocket", trio_websocket.ConnectionRejected),
        ("aiohttp", None),
    ],
)
async def test_whether_redirects_are_followed(name: str, error: type[Exception] | None) -> None:
    async with open_site() as (_, url):
        if error is None:
            await run(name, open_and_leave, f"{url}/302")
        else:
            with pytest.raises(error):
                await run(name, open_and_leave, f"{url}/302")


async def receive_twice_on_asyncio(name: str, connect: Connect, url: str) -> None:
    async with connect(url) as ws:
        receive = getattr(ws, RECEIVE.get(name, "recv"))
        first = asyncio.create_task(receive())
        await asyncio.sleep(0)
        try:
            await receive()
        finally:
            first.cancel()
            await asyncio.wait([first])


@pytest.mark.parametrize(
    ("name", "error"),
    [("websockets", websockets.exceptions.ConcurrencyError), ("aiohttp", RuntimeError)],
)
async def test_two_tasks_that_receive_at_once_are_refused(
    name: str, error: type[Exception]
) -> None:
    async with open_site() as (_, url):
        with pytest.raises(error):
            await run(name, partial(receive_twice_on_asyncio, name), url)


def test_the_pages_name_only_methods_that_there_are() -> None:
    known = {*dir(trio_ws), *dir(WebSocket), *dir(trio_ws.Link)}
    for page in sorted((ROOT / "docs/migrating").glob("from-*.md")):
        text = page.read_text("utf-8")
        ours = [row.split(" | ")[1] for row in text.splitlines() if row.startswith("| `")]
        for method in re.findall(r"\b(?:ws|link)\.(\w+)", " ".join(ours)):
            assert method in known, (page.name, method)
