"""The demo, for real: its server as a process. Its page is opened in `test_pages`."""

from __future__ import annotations

import http.client
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from examples.counter.server import Counter, InMemory, open_counter
from tests.examples.scripts import PATIENCE, Script, running
from trio_ws import (
    ConnectionLost,
    WebSocket,
    open_websocket_url,
    wrap_client_stream,
    wrap_server_stream,
)

COUNTER = "counter/server.py"


@asynccontextmanager
async def serving_counter() -> AsyncGenerator[tuple[Script, int], None]:
    async with running(COUNTER, "--port", "0") as server:
        line = await server.read_line()
        printed = re.fullmatch(r"http://localhost:(\d+)/", line.strip())
        assert printed, line
        yield server, int(printed[1])


async def receive_state(ws: WebSocket, **wanted: int) -> dict[str, Any]:
    """The first state that is as wanted. There may be others before it."""
    while True:
        state: dict[str, Any] = await ws.receive_json()
        if wanted.items() <= state.items():
            return state


# ---------------------------------------------------------------------------
# With WebSocket clients
# ---------------------------------------------------------------------------


async def test_clients_share_the_number_and_the_count_of_users() -> None:
    with trio.fail_after(PATIENCE):
        async with serving_counter() as (server, port):
            url = f"ws://localhost:{port}/ws"
            async with open_websocket_url(url) as first:
                assert await first.receive_json() == {"value": 0, "users": 1}
                async with open_websocket_url(url) as second:
                    assert await second.receive_json() == {"value": 0, "users": 2}
                    assert await first.receive_json() == {"value": 0, "users": 2}

                    await first.send("plus")
                    await first.send("plus")
                    await second.send("minus")
                    await receive_state(first, value=1)
                    await receive_state(second, value=1)
                await receive_state(first, users=1, value=1)
            assert await server.interrupt() == []


async def test_ctrl_c_says_goodbye_to_those_connected_and_is_quiet() -> None:
    with trio.fail_after(PATIENCE):
        async with (
            serving_counter() as (server, port),
            open_websocket_url(f"ws://localhost:{port}/ws") as ws,
        ):
            await ws.receive()
            assert await server.interrupt() == []
            assert (await ws.wait_closed()).code == 1001


async def test_a_message_of_any_other_kind_ends_that_connection_with_1003() -> None:
    with trio.fail_after(PATIENCE):
        async with serving_counter() as (server, port):
            url = f"ws://localhost:{port}/ws"
            async with open_websocket_url(url) as good, open_websocket_url(url) as bad:
                await receive_state(good, users=2)
                await bad.send("times")
                with pytest.raises(ConnectionLost) as caught:
                    await receive_state(bad, users=0)
                assert caught.value.reason.code == 1003
                await receive_state(good, users=1)
            assert await server.interrupt() == []


async def test_a_slow_reader_holds_up_nobody_and_gets_the_newest_state() -> None:
    @asynccontextmanager
    async def visit(counter: Counter, **options: Any) -> AsyncGenerator[WebSocket, None]:
        client_end, server_end = trio.testing.lockstep_stream_pair()

        async def serve() -> None:
            async with wrap_server_stream(server_end, max_send_buffer=1) as ws:
                await counter.serve(ws)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with wrap_client_stream(client_end, "ws://demo/ws", **options) as ws:
                yield ws

    with trio.fail_after(PATIENCE):
        async with (
            open_counter(InMemory()) as counter,
            visit(counter, max_queued_messages=1) as slow,
            visit(counter) as fast,
        ):
            await receive_state(fast, users=2)
            for value in range(1, 101):
                await fast.send("plus")
                await receive_state(fast, value=value)

            received = 1
            while (await slow.receive_json())["value"] < 100:
                received += 1
            assert received < 10


async def test_a_port_that_is_taken_is_said_so_in_one_line() -> None:
    with trio.fail_after(PATIENCE):
        async with (
            serving_counter() as (_, port),
            running(COUNTER, "--port", str(port)) as another,
        ):
            line = await another.read_line()
            how = "try --port 0; with make, ARGS=--port=0"
            assert line.startswith(f"Cannot serve on port {port} ({how}): ")
            assert "ddress already in use" in line
            assert await another.process.wait() == 1


# ---------------------------------------------------------------------------
# With HTTP
# ---------------------------------------------------------------------------


def fetch(port: int, path: str) -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection("localhost", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


async def test_the_page_and_its_websocket_share_a_port() -> None:
    with trio.fail_after(PATIENCE):
        async with serving_counter() as (server, port):
            status, headers, page = await trio.to_thread.run_sync(fetch, port, "/")
            assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
            assert page.startswith("<!DOCTYPE html>")
            for path, expected in (("/ws", 426), ("/favicon.ico", 404)):
                status, _, _ = await trio.to_thread.run_sync(fetch, port, path)
                assert status == expected
            assert await server.interrupt() == []


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = (Path(__file__).parents[2] / "examples/counter/index.html").read_text("utf-8")
    addresses = set(re.findall(r"\w+://[^\s\"'<>`$]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not something that is fetched
    assert not re.search(r"@import|url\(|<script src|<link rel=\"stylesheet", page)
