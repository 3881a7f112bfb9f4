"""Handshakes leave nothing for the garbage collector: over TLS, and where they fail."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import HOST, echo, open_server, reset
from tests.tls_helpers import tls_contexts
from tests.whole.freeing_helpers import (
    QUIET,
    Boom,
    close,
    iterate,
    no_cycle,
    raise_what_it_was_given,
    remember,
    talk,
)
from trio_ws import (
    ConnectionFailed,
    ConnectionRejected,
    HandshakeError,
    Response,
    WebSocketServer,
    open_websocket_url,
    wrap_client_stream,
)

pytestmark = [pytest.mark.autojump, pytest.mark.usefixtures("the_collector_is_off")]


# ---------------------------------------------------------------------------
# Over TLS
# ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server, and for clients that trust it."""
    return tls_contexts(HOST)


async def leave_at_once(server: WebSocketServer, **options: Any) -> None:
    async with open_websocket_url(server.urls[0], **options):
        pass


async def be_cancelled(server: WebSocketServer, **options: Any) -> None:
    with trio.move_on_after(0.05):
        async with open_websocket_url(server.urls[0], **options) as ws:
            await ws.receive()


@pytest.mark.parametrize("handler", [echo, raise_what_it_was_given, close, iterate])
@pytest.mark.parametrize("client", [talk, leave_at_once, be_cancelled])
async def test_a_connection_over_tls_leaves_no_cycle(tls: Any, handler: Any, client: Any) -> None:
    context, trusting = tls
    with no_cycle() as references:
        handler = remember(references, handler)
        async with open_server(
            handler, ssl_context=context, idle_timeout=0.1, logger=QUIET
        ) as server:
            await client(server, ssl_context=trusting)
            await trio.testing.wait_all_tasks_blocked()
            assert [reference() for reference in references] == [None]


async def test_a_tls_handshake_that_fails_leaves_no_cycle(tls: Any) -> None:
    context, _ = tls
    with no_cycle():
        async with open_server(echo, ssl_context=context, logger=QUIET) as server:
            with pytest.raises(ConnectionFailed):
                await talk(server, ssl_context=ssl.create_default_context())  # trusts others
            async with await trio.open_tcp_stream(HOST, server.port) as stream:
                await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
                await trio.testing.wait_all_tasks_blocked()


def refuse(request: object) -> Response:
    return Response(403)


async def test_a_client_that_is_refused_over_tls_leaves_no_cycle(tls: Any) -> None:
    context, trusting = tls
    with no_cycle():
        async with open_server(echo, ssl_context=context, process_request=refuse) as server:
            with pytest.raises(ConnectionRejected):
                await talk(server, ssl_context=trusting)
            await trio.testing.wait_all_tasks_blocked()


async def test_a_tls_stream_that_was_handed_over_can_still_be_closed_and_looked_at(
    tls: Any,
) -> None:
    context, trusting = tls
    async with open_server(echo, ssl_context=context) as server:
        tcp = await trio.open_tcp_stream(HOST, server.port)
        async with trio.SSLStream(tcp, trusting, server_hostname=HOST) as stream:
            async with wrap_client_stream(stream, "wss://localhost/") as ws:
                await ws.send("x")
                assert await ws.receive() == "x"
            assert stream.version().startswith("TLS")


# ---------------------------------------------------------------------------
# Handshakes that fail
# ---------------------------------------------------------------------------


def fail(request: object) -> None:
    raise Boom


@pytest.mark.parametrize(
    "options",
    [
        {"process_request": refuse},
        {"process_request": fail},
        {"origins": ["https://example.org"]},
        {"max_connections": 1},
    ],
)
async def test_a_client_that_is_refused_leaves_no_cycle(options: dict[str, Any]) -> None:
    with no_cycle():
        async with open_server(echo, logger=QUIET, **options) as server:
            async with await trio.open_tcp_stream(HOST, server.port):  # one that does not ask
                with suppress(ConnectionRejected):
                    await talk(server)
            await trio.testing.wait_all_tasks_blocked()


async def wait(stream: trio.SocketStream) -> None:
    await trio.sleep(2)


async def reset_it(stream: trio.SocketStream) -> None:
    reset(stream)


async def hang_up(stream: trio.SocketStream) -> None:
    await stream.aclose()


async def stay(stream: trio.SocketStream) -> None:
    pass


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\x16\x03\x01",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
    ],
)
@pytest.mark.parametrize(
    "leave",
    [wait, hang_up, reset_it, stay],
    ids=["waits", "hangs up", "resets", "is there at the end"],
)
async def test_a_server_keeps_nothing_of_a_handshake_that_fails(
    request_: bytes, leave: Callable[[trio.SocketStream], Awaitable[None]]
) -> None:
    with no_cycle():
        async with open_server(echo, open_timeout=1) as server:
            stream = await trio.open_tcp_stream(HOST, server.port)
            if request_:
                await stream.send_all(request_)
            await trio.testing.wait_all_tasks_blocked()
            await leave(stream)
            await trio.testing.wait_all_tasks_blocked()
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"garbage",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ws://[\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
@pytest.mark.parametrize("leave", [wait, hang_up, reset_it], ids=["waits", "hangs up", "resets"])
async def test_a_client_keeps_nothing_of_a_handshake_that_fails(
    response: bytes, leave: Callable[[trio.SocketStream], Awaitable[None]]
) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if response:
            await stream.send_all(response)
        await leave(stream)
        await stream.aclose()

    with no_cycle():
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, answer, 0, host=HOST)
            (listener,) = await nursery.start(serve)
            port = listener.socket.getsockname()[1]
            with pytest.raises(HandshakeError):
                async with open_websocket_url(
                    f"ws://{HOST}:{port}", open_timeout=1, max_redirects=2
                ):
                    pass
            nursery.cancel_scope.cancel()
