"""Admission to a server: `max_connections`, handshakes that fail, and refused clients."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.helpers import HOST, PATIENCE, REQUEST, echo, open_server
from tests.server.server_helpers import Boom, connect, memory_server, open_bare_server
from trio_ws import ConnectionRejected, Request, Response, Router, open_websocket_url
from trio_ws._transport.opening import REFUSAL_LINGER
from trio_ws.testing import open_test_app


async def test_connections_beyond_max_connections_get_503() -> None:
    async with open_server(echo, max_connections=1) as server:
        async with open_websocket_url(server.urls[0]) as ws:
            await ws.send("in")
            assert await ws.receive() == "in"
            with pytest.raises(ConnectionRejected) as caught:
                async with open_websocket_url(server.urls[0]):
                    raise AssertionError
            assert caught.value.response.status == 503
        async with open_websocket_url(server.urls[0]) as ws:
            await ws.send("in again")
            assert await ws.receive() == "in again"
        assert server.statistics().refused_total == 1


async def test_a_handshake_that_fails_unexpectedly_is_logged_once_and_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def explode() -> None:
        raise KeyError("a bug in somebody's stream")

    async with memory_server(echo) as (server, listener, _):
        client, bad = trio.testing.memory_stream_pair()
        bad.receive_stream.receive_some_hook = explode
        await listener.deliver(bad)
        assert await client.receive_some() == b""
        async with connect(listener, await listener.connect()) as ws:
            await ws.send("fine")
            assert await ws.receive() == "fine"
        assert server.statistics().refused_total == 1
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


class StuckStream(trio_ws.testing.FaultyStream):
    """Raises what no trio stream does when it is closed."""

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            raise KeyError("a bug in somebody's stream")


async def test_a_stream_that_cannot_be_closed_is_logged_and_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with memory_server(echo) as (_, listener, _):
        for leave_early in (True, False):
            client, bad = trio.testing.memory_stream_pair()
            await listener.deliver(StuckStream(bad))
            if leave_early:
                await client.aclose()
                continue
            async with connect(listener, client) as ws:
                await ws.send("fine")
                assert await ws.receive() == "fine"
        async with connect(listener, await listener.connect()) as ws:
            await ws.send("fine")
            assert await ws.receive() == "fine"
    assert "the stream could not be closed" in caplog.text


async def fail_when_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise Boom


async def test_a_process_request_that_fails_when_it_is_cancelled_stays_in_its_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def process_request(request: trio_ws.Request) -> None:
        if request.path == "/chat":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail_when_cancelled)
                await trio.sleep_forever()

    async with open_server(echo, process_request=process_request, open_timeout=0.1) as server:
        async with open_websocket_url(server.urls[0]) as ws:
            stream = await trio.open_tcp_stream(HOST, server.port)
            async with stream:
                await stream.send_all(REQUEST)
                assert await stream.receive_some() == b""
            await ws.send("fine")
            assert await ws.receive() == "fine"
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


async def test_system_exit_in_process_request_ends_the_server_with_it() -> None:
    def process_request(request: trio_ws.Request) -> None:
        raise SystemExit(4)

    with pytest.raises(SystemExit) as caught:
        async with open_bare_server(echo, process_request=process_request) as server:
            with pytest.raises(trio_ws.HandshakeError):
                async with open_websocket_url(server.urls[0]):
                    raise AssertionError
            await trio.sleep_forever()
    assert caught.value.code == 4


@pytest.mark.autojump
async def test_a_client_too_many_that_says_nothing_gets_503_after_a_second() -> None:
    async with open_test_app(echo, max_connections=1) as app:
        async with app.websocket("/"), app.connect() as silent:
            start = trio.current_time()
            assert (await silent.receive_some()).startswith(b"HTTP/1.1 503 ")
            assert trio.current_time() - start == REFUSAL_LINGER


def answer_probe(request: Request) -> Response | None:
    return Response(200, body="alive") if request.path == "/health" else None


@pytest.mark.parametrize("kind", ["hook", "router"])
async def test_a_full_server_answers_health_checks(kind: str) -> None:
    handler: Any = echo
    if kind == "router":
        handler = Router()
        handler.websocket("/")(echo)
        handler.get("/health")(lambda request: "alive")
    hook = answer_probe if kind == "hook" else None
    async with open_test_app(handler, max_connections=1, process_request=hook) as app:
        async with app.websocket("/") as ws:
            for _ in range(2):
                response = await app.get("/health")
                assert (response.status, response.text) == (200, "alive")
                assert response.headers["Connection"] == "close"
            with pytest.raises(ConnectionRejected):
                async with app.websocket("/"):
                    raise AssertionError
            await ws.send("still here")
            assert await ws.receive() == "still here"
        assert app.server.statistics().connections_total == 1


async def test_a_full_server_answers_a_few_pages_at_a_time() -> None:
    leave = trio.Event()

    async def wait(request: Request) -> str:
        await leave.wait()
        return "at last"

    router = Router()
    router.websocket("/")(echo)
    router.get("/wait")(wait)
    async with open_test_app(router, max_connections=1) as app:
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await app.get("/wait")).status)

        async with app.websocket("/"), trio.open_nursery() as nursery:
            for _ in range(18):  # 16 at a time, as the option says
                nursery.start_soon(ask)
            with trio.fail_after(PATIENCE):
                while len(statuses) < 2:
                    await trio.lowlevel.checkpoint()
            assert statuses == [503, 503]
            leave.set()
        assert statuses[2:] == [200] * 16


async def test_clients_that_are_being_refused_do_not_count() -> None:
    async with open_server(echo, max_connections=1) as server:
        refused: list[trio.SocketStream] = []
        async with open_websocket_url(server.urls[0]):
            for _ in range(3):  # they linger: they do not hang up
                refused.append(await trio.open_tcp_stream(HOST, server.port))
                await refused[-1].send_all(REQUEST)
                assert b"503" in await refused[-1].receive_some()
        async with open_websocket_url(server.urls[0]) as ws:
            await ws.send("in")
            assert await ws.receive() == "in"
        for stream in refused:
            await stream.aclose()


@pytest.mark.autojump
async def test_clients_that_are_being_refused_do_not_hold_up_a_shutdown() -> None:
    async with open_test_app(echo, max_connections=1, grace_period=0.1) as app:
        async with app.websocket("/"), app.connect() as lingering:
            await lingering.send_all(REQUEST)
            assert b"503" in await lingering.receive_some()
            start = trio.current_time()
            await app.server.aclose()
            assert trio.current_time() - start < REFUSAL_LINGER / 2


async def test_a_client_that_leaves_while_it_is_refused_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with memory_server(echo, max_connections=1) as (server, listener, _):
        async with connect(listener, await listener.connect()):
            client, ours = trio.testing.memory_stream_pair()
            await client.aclose()
            await listener.deliver(ours)
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().refused_total == 1
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.autojump
async def test_a_refusal_of_what_was_there_at_once_counts_and_ends_with_the_server() -> None:
    async with open_server(echo) as server:
        with socket.create_connection((HOST, server.port)) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")  # asks for no WebSocket
            while server.statistics().handshakes == 0:
                await trio.lowlevel.checkpoint()
            start = trio.current_time()
            await server.aclose()
            assert trio.current_time() - start < REFUSAL_LINGER
            assert sock.recv(20).startswith(b"HTTP/1.1 426 ")


@pytest.mark.autojump
async def test_empty_lines_that_are_there_at_once_are_no_request_and_have_a_deadline() -> None:
    async with open_server(echo) as server:
        with socket.create_connection((HOST, server.port)) as sock:
            sock.sendall(b"\r\n\r\n")
            with trio.fail_after(PATIENCE):
                while not server.statistics().refused_total:
                    await trio.sleep(1)
            assert sock.recv(20) == b""
