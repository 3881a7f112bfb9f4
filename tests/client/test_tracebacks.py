"""What a user sees of an error: what happened and what to do, in few lines, and public names."""

from __future__ import annotations

import re
import socket
import ssl
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import trio
import trustme

import trio_ws
import trio_ws.backplane
import trio_ws.live
import trio_ws.metrics
import trio_ws.testing
from tests.helpers import HOST, PATIENCE, echo, open_server
from trio_ws import (
    ConnectionFailed,
    ConnectionLost,
    ConnectionRejected,
    HandshakeTimeout,
    InvalidResponse,
    ProxyError,
    Request,
    Response,
    TooManyRedirects,
    WebSocket,
    open_broadcast,
    open_websocket_url,
    reconnecting,
)

AUTHORITY = trustme.CA()

#: Lines of a traceback that ends in a call of ours: those of the caller, one of ours, the error.
MOST_LINES = 12
#: The cause adds a line, and those in between.
MOST_LINES_OF_A_CAUSE = 4


def tls_of_server(host: str = "localhost", **certificate: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert(host, **certificate).configure_cert(context)
    return context


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def asking_for_a_certificate() -> ssl.SSLContext:
    context = tls_of_server()
    AUTHORITY.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def connect(url: str, **options: Any) -> None:
    async with open_websocket_url(url, **options) as ws:
        await ws.receive()


async def shown(
    use: Callable[[], Awaitable[object]], kind: type[Exception], most_lines: int = MOST_LINES
) -> str:
    """What Python prints of the error, in plain text; it is short and names nothing private."""
    with trio.fail_after(PATIENCE), pytest.raises(kind) as caught:
        await use()
    lines = traceback.format_exception(caught.value)
    text = "".join(lines)
    names = re.findall(r"^([\w.]+): ", text, re.MULTILINE)
    assert names[-1] == f"trio_ws.{kind.__name__}"
    assert [name for name in names if re.search(r"(^|\.)_", name)] == []
    assert len(names) <= 2
    assert text.count("\n") <= most_lines + MOST_LINES_OF_A_CAUSE * (len(names) - 1)
    return text


# Opening…


async def test_a_refused_connection() -> None:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port = sock.getsockname()[1]
        text = await shown(partial(connect, f"ws://{HOST}:{port}/"), ConnectionFailed)
    assert f"cannot connect to {HOST}:{port}: Connection refused" in text


async def test_a_host_that_is_not_known() -> None:
    text = await shown(partial(connect, "ws://nowhere.invalid/"), ConnectionFailed)
    assert "cannot connect to nowhere.invalid:80: " in text


@pytest.mark.parametrize(
    ("server", "client", "said"),
    [
        (tls_of_server, ssl.create_default_context, "give an ssl_context that trusts its issuer"),
        (partial(tls_of_server, "example.org"), trusting, "as server_hostname"),
        (
            partial(tls_of_server, not_after=datetime(2020, 1, 1, tzinfo=UTC)),
            trusting,
            "certificate has expired",
        ),
        (asking_for_a_certificate, trusting, "load one into the ssl_context"),
        (lambda: None, trusting, "the peer may not speak TLS"),
    ],
    ids=["untrusted", "another host's", "expired", "without one of its own", "no TLS"],
)
async def test_a_tls_handshake_that_fails(
    server: Callable[[], ssl.SSLContext | None], client: Callable[[], ssl.SSLContext], said: str
) -> None:
    async with open_server(echo, ssl_context=server()) as running:
        url = f"wss://localhost:{running.port}/"
        text = await shown(partial(connect, url, ssl_context=client()), ConnectionFailed)
    assert said in text


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncGenerator[str, None]:
    """A TCP server that says this to each client, or hangs up, or waits; the end of its URL."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            if answer is None:
                await trio.sleep_forever()
            await stream.send_all(answer)
            await stream.send_eof()
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield f"{HOST}:{listener.socket.getsockname()[1]}/"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (b"", ConnectionFailed, "hung up in the handshake; if the server speaks TLS, use wss://"),
        (b"\x15\x03\x01\x00\x02\x02\x46", InvalidResponse, "this is TLS, and not HTTP; use wss://"),
        (b"SSH-2.0-OpenSSH\r\n", InvalidResponse, "no"),
    ],
    ids=["nothing", "an alert of TLS", "something else"],
)
async def test_an_answer_that_is_none(answer: bytes, kind: type[Exception], said: str) -> None:
    async with answering(answer) as where:
        assert said in await shown(partial(connect, f"ws://{where}"), kind)


@pytest.mark.parametrize(
    ("scheme", "step"),
    [("ws", "waiting for the server's answer"), ("wss", f"shaking hands over TLS with {HOST}")],
)
async def test_a_server_that_says_nothing(scheme: str, step: str) -> None:
    async with answering(None) as where:
        opening = partial(connect, f"{scheme}://{where}", open_timeout=0.5)
        text = await shown(opening, HandshakeTimeout)
    assert f"took longer than 0.5 s: it was still {step}\n" in text


@pytest.mark.parametrize("status", [401, 403, 404, 302, 503])
async def test_a_refusal(status: int) -> None:
    def refuse(request: Request) -> Response:
        fields = {"Location": "/elsewhere"} if status == 302 else {}
        return Response(status, fields, "not here\n")

    async with open_server(echo, process_request=refuse) as server:
        text = await shown(partial(connect, server.urls[0]), ConnectionRejected)
        redirected = partial(connect, server.urls[0], max_redirects=1)
        if status == 302:
            assert "a redirect to /elsewhere (see max_redirects)" in text
            assert "more than 1" in await shown(redirected, TooManyRedirects)
    assert f"status {status}" in text
    assert ": not here\n" in text


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", ProxyError, "wants a user"),
        (b"\x15\x03\x01\x00\x02\x02\x46", ProxyError, "so its URL begins with https://"),
        (b"", ConnectionFailed, "the proxy gave no answer"),
        (b"what?", ProxyError, "no HTTP response to CONNECT"),
    ],
)
async def test_a_proxy_that_lets_nobody_through(
    answer: bytes, kind: type[Exception], said: str
) -> None:
    async with answering(answer) as where:
        via = partial(connect, "ws://server.example/", proxy=f"http://{where}")
        assert said in await shown(via, kind)


async def test_a_failure_that_ends_reconnecting() -> None:
    async def follow() -> None:
        async for _ in reconnecting(f"ws://{where}"):
            pass

    async with answering(b"SSH-2.0-OpenSSH\r\n") as where:
        text = await shown(follow, InvalidResponse, 16)
    assert "not a WebSocket response" in text


# Using…


USES = [WebSocket.receive, WebSocket.ping, partial(WebSocket.send, message="a")]


@pytest.mark.parametrize("use", USES, ids=["receive", "ping", "send"])
async def test_a_connection_that_is_lost(use: Callable[[WebSocket], Awaitable[object]]) -> None:
    async def leave(ws: WebSocket) -> None:
        await ws.aclose(4000, "no more")

    async def late() -> None:
        async with open_websocket_url(server.urls[0]) as ws:
            await ws.wait_closed()
            await use(ws)

    async with open_server(leave) as server:
        assert "4000, closed by the peer: no more" in await shown(late, ConnectionLost, 24)


async def test_a_connection_that_this_side_has_closed() -> None:
    async with open_server(echo) as server, open_websocket_url(server.urls[0]) as ws:
        await ws.aclose()
        with pytest.raises(trio.ClosedResourceError) as caught:
            await ws.receive()
    (line,) = traceback.format_exception_only(caught.value)
    assert line == "trio.ClosedResourceError: this side closed the WebSocket connection\n"


@pytest.mark.parametrize(
    "module",
    [trio_ws, trio_ws.backplane, trio_ws.live, trio_ws.metrics, trio_ws.testing],
    ids=lambda module: module.__name__,
)
def test_an_exception_says_where_it_can_be_imported_from(module: Any) -> None:
    for name in module.__all__:
        thing = getattr(module, name)
        if isinstance(thing, type) and issubclass(thing, BaseException):
            assert thing.__module__ == module.__name__


# In another way than ``async with``…


async def test_a_block_that_is_opened_in_the_wrong_way_says_the_right_one() -> None:
    block: Any = open_websocket_url("ws://localhost/")
    assert repr(block) == "<open_websocket_url(…), for 'async with'>"
    with pytest.raises(TypeError, match=r"^write 'async with open_websocket_url\(…\)', not"):
        with block:
            pass
    with pytest.raises(TypeError, match=r"^write 'async with open_broadcast\(…\)', not 'await'$"):
        await open_broadcast()  # type: ignore[misc] # the mistake
    with pytest.raises(AttributeError, match="'AsyncBlock' object has no attribute 'send'"):
        await block.send("hello")
