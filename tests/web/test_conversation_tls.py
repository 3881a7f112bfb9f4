"""The end of an HTTP connection over TLS."""

from __future__ import annotations

import itertools
import logging
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.handshake.handshake_helpers import HookedStream, read_all, request as upgrade
from tests.helpers import AT_ONCE, open_server
from tests.tls_helpers import tls_contexts
from tests.web.web_helpers import HTTPClient, TestSite, http
from trio_ws import WebSocketServer, serve_listeners
from trio_ws._server import visit
from trio_ws._transport.opening import hang_up
from trio_ws._transport.sockets import wrap_stream
from trio_ws.testing import MemoryListener


@dataclass(frozen=True)
class TLS:
    """A server's side and a client's that trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def tls() -> TLS:
    return TLS(*tls_contexts("localhost"))


@asynccontextmanager
async def open_tls_site(
    tls: TLS, **options: Any
) -> AsyncGenerator[tuple[WebSocketServer, trio.SSLStream[Any]], None]:
    """A site behind TLS in memory, and a client that takes a missing goodbye for an error."""
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        serve = partial(serve_listeners, **options)
        listeners = [trio.SSLListener(listener, tls.server)]
        server = await nursery.start(serve, TestSite().router, listeners)
        stream = trio.SSLStream(listener.connect(), tls.client, server_hostname="localhost")
        yield server, stream
        await stream.aclose()
        await server.aclose()


ENDINGS = {
    "Connection: close": (http(Connection="close"), 200),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", 200),
    "a malformed request": (b"bad\r\n\r\n", 400),
    "no such WebSocket": (upgrade("GET /none HTTP/1.1"), 404),
    "requests that nobody reads": (http(Connection="close") + http() * 2000, 200),
    "a body that is too large": (http("POST /echo", b"x" * 3_000_000), 413),
}


@pytest.mark.autojump
@pytest.mark.parametrize(("data", "status"), ENDINGS.values(), ids=ENDINGS.keys())
async def test_over_tls_the_end_comes_with_the_last_response(
    data: bytes, status: int, tls: TLS
) -> None:
    async with open_tls_site(tls) as (server, stream), trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        started = trio.current_time()
        response = b""
        async for piece in stream:  # to the goodbye: without one, this would raise
            response += piece
        assert response.startswith(b"HTTP/1.1 %d " % status)
        assert trio.current_time() == started
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().http_connections == 0
        assert trio.current_time() == started, "the server does not wait for a client that left"


@pytest.mark.autojump
async def test_over_tls_a_client_that_does_not_leave_is_left_after_a_second(tls: TLS) -> None:
    async with open_tls_site(tls) as (server, stream):
        await stream.send_all(http(Connection="close"))
        started = trio.current_time()
        await read_all(stream)
        while server.statistics().http_connections:
            await trio.sleep(0.01)
        assert 0.99 < trio.current_time() - started < 1.1


async def test_over_tls_the_log_names_a_client_that_has_left(
    tls: TLS, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    async with open_server(TestSite().router, ssl_context=tls.server) as server:
        stream = await trio.open_ssl_over_tcp_stream(
            "localhost", server.port, ssl_context=tls.client
        )
        address = stream.transport_stream.socket.getsockname()
        async with stream:
            await stream.send_all(b"bad\r\n\r\n")
            await read_all(stream)
    assert f"{address[0]}:{address[1]} answered with 400" in caplog.text


async def test_over_tls_a_client_that_goes_on_sending_gets_its_answer_and_the_end(
    tls: TLS, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second is short where a busy machine runs the client as well, which must read meanwhile.
    monkeypatch.setattr(visit, "REFUSAL_LINGER", 3.0)
    async with open_server(TestSite().router, ssl_context=tls.server) as server:
        stream = await trio.open_ssl_over_tcp_stream(
            "localhost", server.port, ssl_context=tls.client
        )
        async with stream, trio.open_nursery() as nursery:

            async def send() -> None:
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(http("POST /echo", Content_Length="50000000"))
                    for _ in range(50):
                        await stream.send_all(b"x" * 1_000_000)

            nursery.start_soon(send)
            with trio.fail_after(AT_ONCE):
                assert (await HTTPClient(stream).response()).status == 413
                assert await HTTPClient(stream).is_hung_up_on()
            nursery.cancel_scope.cancel()


async def say_goodbye_with_a_fault(tls: TLS, unread: bytes, moment: int, *, fails: bool) -> int:
    """Hang up while an operation fails or is cancelled. Gives how many there were."""
    client_end, server_end = trio.testing.memory_stream_pair()
    scope = trio.CancelScope()
    armed: list[int] = []

    def hook(number: int) -> None:
        if armed and number - armed[0] == moment:
            if fails:
                raise trio.BrokenResourceError("cut")
            scope.cancel()

    below = HookedStream(server_end, hook)
    server = trio.SSLStream(below, tls.server, server_side=True)
    client = trio.SSLStream(client_end, tls.client, server_hostname="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        await server.do_handshake()
    armed.append(below.operations)

    async def converse() -> None:
        await client.send_all(unread)
        await read_all(client)
        await client.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse)
        transport = wrap_stream(server)
        with scope, trio.fail_after(5):
            await hang_up(transport)
            assert below.closed
        await transport.aclose_forcefully()  # as the server does, whatever happened
    assert below.closed
    return below.operations - armed[0]


@pytest.mark.parametrize("unread", [b"", b"x" * 100_000])
@pytest.mark.parametrize("fails", [False, True])
async def test_wherever_a_goodbye_of_tls_is_cancelled_or_fails_the_stream_is_closed(
    tls: TLS, unread: bytes, fails: bool
) -> None:
    for moment in itertools.count(1):
        if await say_goodbye_with_a_fault(tls, unread, moment, fails=fails) < moment:
            assert moment > 3
            return


@pytest.mark.autojump
@pytest.mark.parametrize("stopping", [False, True])
async def test_over_tls_an_idle_connection_ends_with_a_goodbye(tls: TLS, stopping: bool) -> None:
    async with open_tls_site(tls, keep_alive_timeout=30) as (server, stream):
        await HTTPClient(stream).ask(http())
        started = trio.current_time()
        if stopping:
            await server.aclose()
        assert await stream.receive_some(1) == b""
        assert trio.current_time() - started == (0 if stopping else 30)
