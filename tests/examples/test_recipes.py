"""The recipes: over other libraries and with them, from a thread, in guest mode, and the log."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.examples.scripts import EXAMPLES, PATIENCE, output_of, running
from tests.helpers import echo, kill, open_server
from tests.test_reasons import client_tls, server_tls
from trio_ws import (
    ConnectionEnded,
    ConnectionFailed,
    ConnectionLost,
    ConnectionRejected,
    Request,
    Response,
    WebSocket,
    basic_auth,
    open_websocket_url,
    wrap_client_stream,
)

#: What `ssh -W` does, without SSH.
RELAY = """
import os, socket, sys, threading
peer = socket.create_connection(("localhost", int(sys.argv[1])))
def out():
    while data := peer.recv(65536):
        os.write(1, data)
    os._exit(0)
threading.Thread(target=out, daemon=True).start()
while data := os.read(0, 65536):
    peer.sendall(data)
"""


def recipe(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / "recipes" / f"{name}.py"))


@pytest.mark.parametrize("name", ["over_httpx", "from_a_thread"])
async def test_a_client_says_hello(name: str) -> None:
    with trio.fail_after(PATIENCE):
        async with open_server(echo) as server:
            assert await output_of(f"recipes/{name}.py", "--url", server.urls[0]) == [
                "Hello world!"
            ]


async def test_a_program_serves_on_a_socket_of_systemd(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    program = [sys.executable, str(EXAMPLES / "recipes" / "from_systemd.py")]
    with trio.fail_after(PATIENCE):
        process = await trio.lowlevel.open_process(
            ["systemd-socket-activate", "--listen", str(path), *program], stderr=subprocess.PIPE
        )
        try:
            assert process.stderr is not None
            await process.stderr.receive_some()  # it listens
            async with open_websocket_url("ws://localhost/", path=path) as ws:
                await ws.send("Hello world!")
                assert await ws.receive() == "Hello world!"
        finally:
            await kill(process)


async def test_guest_mode_on_asyncio() -> None:
    with trio.fail_after(PATIENCE):
        lines = await output_of("recipes/in_guest_mode.py")
    # In Python's development mode, asyncio logs what took 0.1 s, on a busy machine for example.
    slow = [line for line in lines if line.startswith("Executing <")]
    assert [line for line in lines if line not in slow] == ["Hello world!"]


async def test_through_a_command() -> None:
    with trio.fail_after(PATIENCE):
        async with open_server(echo) as server:
            relay = [sys.executable, "-c", RELAY, str(server.port)]
            arguments = ["--url", "ws://inside.localhost/", "--", *relay]
            assert await output_of("recipes/over_ssh.py", *arguments) == ["Hello world!"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('{"type": "steal"}', "Invalid value 'steal' - at `$.type`"),
        ('{"type": "add"}', "Object missing required field `item`"),
        ('{"type": "add", "item": "tea", "count": 0}', "Expected `int` >= 1 - at `$.count`"),
        ('{"type": "clear", "x": 1}', "Object contains unknown field `x`"),
        ("nonsense", "JSON is malformed: invalid character (byte 4)"),
        ("[" * 4000, "Expected `object`, got `array`"),
        (b'{"type": "add", "item": "\xff"}', "'utf-8' codec can't decode byte 0xff"),
        (r'{"type": "\ud800"}', "Input data was truncated"),
        ('{"type": "' + "é" * 100 + '"}', "Invalid value '" + "é" * 54),
    ],
)
async def test_typed_messages_are_checked_and_wrong_ones_close_the_connection(
    message: str | bytes, reason: str
) -> None:
    async with open_server(recipe("with_msgspec")["shop"]) as server:
        async with open_websocket_url(server.urls[0]) as ws:
            await ws.send_json({"type": "add", "item": "tea"})
            await ws.send_json({"type": "add", "item": "tea", "count": 2})
            assert await ws.receive_json() == {"type": "basket", "items": {"tea": 1}}
            assert await ws.receive_json() == {"type": "basket", "items": {"tea": 3}}
            await ws.send_json({"type": "clear"})
            assert await ws.receive_json() == {"type": "basket", "items": {}}
            await ws.send(message)
            with pytest.raises(ConnectionLost) as caught:
                await ws.receive()
    assert caught.value.reason.code == 1003
    assert caught.value.reason.reason.startswith(reason)


# Logging…


async def logged(name: str, *arguments: str, message: str) -> tuple[list[dict[str, Any]], str]:
    """What a program logs about a connection with this message: lines of JSON, and the rest."""
    async with running(f"recipes/{name}.py", "--port", "0", *arguments) as server:
        while not (line := await server.read_line()).startswith("Serving on ws"):
            pass  # on a busy machine, the start may hold up other tasks for long enough to say so
        async with open_websocket_url(line.split()[2]) as ws:
            await ws.send(message)
            assert await ws.receive() == message
        while not any("101, 1000 (normal closure)" in line for line in server.lines):
            await server.read_line()
        lines = [*server.lines, *await server.interrupt()]
    written = [json.loads(line) for line in lines if line.startswith("{")]
    return written, "\n".join(line for line in lines if not line.startswith("{"))


async def test_lines_of_json_have_the_connection_and_frames_where_they_are_asked_for() -> None:
    with trio.fail_after(PATIENCE):
        lines, _ = await logged("with_logging", "--frames", message="hello")
    lines = [line for line in lines if line["level"] != "WARNING"]  # of a busy machine
    told = [(line["level"], line["logger"], line["message"]) for line in lines]
    assert told[:3] == [
        ("DEBUG", "trio_ws", "received text 'hello' (5 long)"),
        ("INFO", "echo", "echoes 5 characters"),
        ("DEBUG", "trio_ws", "sent text 'hello' (5 long)"),
    ]
    assert len({line["connection_id"] for line in lines}) == 1


async def test_a_task_that_holds_up_all_others_is_found_with_its_line() -> None:
    with trio.fail_after(PATIENCE):
        lines, rest = await logged("with_logging", message="block")
    source = (EXAMPLES / "recipes/with_logging.py").read_text("utf-8").splitlines()
    (blocking,) = [number for number, line in enumerate(source, 1) if "time.sleep(" in line]
    assert f"line {blocking} in echo" in rest
    slow = [line["message"] for line in lines if line["level"] == "WARNING"]
    pattern = re.compile(r"a task ran for \d+\.\d+ s, up to echo, line \d+")
    assert any(pattern.fullmatch(line) for line in slow)


async def test_structlog_writes_the_lines_of_the_library_as_its_own() -> None:
    with trio.fail_after(PATIENCE):
        lines, _ = await logged("with_structlog", message="hello")
    ours, theirs = lines
    assert (ours["event"], ours["length"]) == ("echoes", 5)
    assert "101, 1000 (normal closure)" in theirs["event"]
    assert ours["connection_id"] == theirs["connection_id"]
    assert theirs["level"] == "info"


# Over httpx…


@asynccontextmanager
async def over_httpx(
    url: str, client: httpx.AsyncClient | None = None, **options: Any
) -> AsyncGenerator[WebSocket, None]:
    async with client or httpx.AsyncClient(trust_env=False) as opened:
        stream = recipe("over_httpx")["HttpxStream"](opened, url)
        async with wrap_client_stream(stream, url, **options) as ws:
            yield ws


async def test_messages_of_any_size_go_over_httpx_both_ways() -> None:
    async with open_server(echo, ssl_context=server_tls()) as server:
        client = httpx.AsyncClient(verify=client_tls(), trust_env=False)
        async with over_httpx(f"wss://localhost:{server.port}/", client) as ws:
            for message in ("", "é" * 1000, bytes(1_000_000)):
                await ws.send(message)
                assert await ws.receive() == message
            async with ws.open_nursery() as nursery:
                nursery.start_soon(ws.send, "at once")
                assert await ws.receive() == "at once"


async def test_httpx_authenticates() -> None:
    hook = basic_auth({"ada": "lovelace"})
    async with open_server(echo, process_request=hook) as server:
        url = f"ws://localhost:{server.port}/"
        client = httpx.AsyncClient(auth=("ada", "lovelace"), trust_env=False)
        async with over_httpx(url, client) as ws:
            assert await ws.ping() > 0


async def test_a_refusal_over_httpx_is_ours() -> None:
    def refuse(request: Request) -> Response:
        return Response(429, {"Retry-After": "3"}, "Not so fast.\n" * 10_000)

    async with open_server(echo, process_request=refuse) as server:
        with pytest.raises(ConnectionRejected, match="Not so fast") as caught:
            async with over_httpx(f"ws://localhost:{server.port}/"):
                pass
    assert caught.value.retry_after == 3


async def test_a_failure_of_httpx_is_ours() -> None:
    async with open_server(echo) as server:
        url = f"ws://localhost:{server.port}/"
    with pytest.raises(ConnectionFailed, match="in the handshake: all attempts to connect"):
        async with over_httpx(url):
            pass


async def test_an_end_over_httpx_is_in_order() -> None:
    async def leave(ws: WebSocket) -> None:
        await ws.send("bye")

    async with open_server(leave) as server, over_httpx(f"ws://localhost:{server.port}/") as ws:
        assert [message async for message in ws] == ["bye"]
        assert (await ws.wait_closed()).code == 1000


# Over a command…


async def test_a_command_that_fails_is_a_failed_connection() -> None:
    open_command = recipe("over_ssh")["open_command"]
    with trio.fail_after(PATIENCE), pytest.raises(ConnectionFailed):
        async with open_command(sys.executable, "-c", "") as stream:
            async with wrap_client_stream(stream, "ws://inside.localhost/"):
                pass


async def test_a_command_ends_with_its_connection_however_that_ends() -> None:
    open_command = recipe("over_ssh")["open_command"]
    async with open_server(echo) as server:
        relay = (sys.executable, "-c", RELAY, str(server.port))
        for message in ("", bytes(1_000_000)):
            with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
                async with open_command(*relay) as stream:
                    async with wrap_client_stream(stream, "ws://inside.localhost/") as ws:
                        await ws.send(message)
                        assert await ws.receive() == message
                        scope.cancel()
                        await trio.sleep_forever()
        with trio.fail_after(PATIENCE):
            while server.connections:
                await trio.sleep(0.01)


# From a thread…


def use_in_a_thread(url: str) -> None:
    open_blocking = recipe("from_a_thread")["open_blocking"]
    with open_blocking(url) as ws:
        with pytest.raises(trio.TooSlowError):
            ws.receive(timeout=0.01)
        for message in ("text", bytes(100_000)):
            ws.send(message)
            assert ws.receive() == message
        received: list[str | bytes] = []
        other = threading.Thread(target=lambda: received.append(ws.receive()))
        other.start()
        ws.send("for the other")
        other.join()
        assert received == ["for the other"]
        ws.send("leave")
        with pytest.raises(ConnectionEnded):
            ws.receive()
    with pytest.raises(ZeroDivisionError), open_blocking(url) as ws:
        raise ZeroDivisionError
    with pytest.raises(ConnectionRejected), open_blocking(f"{url}refused"):
        pass


async def test_a_blocking_facade_does_what_async_code_does() -> None:
    async def echo_until_leave(ws: WebSocket) -> None:
        async for message in ws:
            if message == "leave":
                return
            await ws.send(message)

    def refuse(request: Request) -> Response | None:
        return Response(403) if request.path == "/refused" else None

    async with open_server(echo_until_leave, process_request=refuse) as server:
        url = f"ws://localhost:{server.port}/"
        with trio.fail_after(PATIENCE):
            await trio.to_thread.run_sync(partial(use_in_a_thread, url))
        assert threading.active_count() < 20
