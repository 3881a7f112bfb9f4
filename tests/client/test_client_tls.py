"""Clients over TLS: certificates, names, refusals."""

from __future__ import annotations

import ssl
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.client.client_helpers import AUTHORITY, LOOPBACK, Resolver, open_and_leave, tcp_server
from tests.handshake.handshake_helpers import read_head
from tests.helpers import echo
from trio_ws import (
    ConnectionFailed,
    ConnectionRejected,
    Request,
    Response,
    WebSocketServer,
    open_websocket,
    open_websocket_url,
    wrap_client_stream,
)


@pytest.mark.parametrize("host", ["localhost", LOOPBACK])
async def test_a_trusted_certificate_for_the_host_is_accepted(
    host: str, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with tcp_server(ssl_context=server_tls) as server:
        url = f"wss://{host}:{server.port}/"
        async with open_websocket_url(url, ssl_context=trusting) as websocket:
            await websocket.send("hello")
            assert await websocket.receive() == "hello"
            assert websocket.request.scheme == "wss"
            assert websocket.remote_address == (LOOPBACK, server.port)


async def test_an_ssl_context_makes_a_host_and_port_secure(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with tcp_server(ssl_context=server_tls) as server:
        async with open_websocket("localhost", server.port, ssl_context=trusting) as websocket:
            assert websocket.request.scheme == "wss"
        with pytest.raises(ConnectionFailed, match="certificate verify failed"):
            async with open_websocket("localhost", server.port, use_ssl=True):
                pytest.fail("it was opened")


async def test_a_certificate_may_be_for_another_name_that_the_client_gives(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    asked: list[str | None] = []
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("inner.example").configure_cert(tls)
    tls.sni_callback = lambda _, name, __: asked.append(name)
    async with tcp_server(ssl_context=tls) as server:
        options: Any = {"ssl_context": trusting, "server_hostname": "inner.example"}
        async with open_websocket_url(f"wss://{LOOPBACK}:{server.port}/", **options) as ws:
            assert asked == ["inner.example"]
            assert ws.request.headers["Host"] == f"{LOOPBACK}:{server.port}"
        with pytest.raises(ConnectionFailed, match="handshake with other.example failed.*mismatch"):
            options["server_hostname"] = "other.example"
            await open_and_leave(f"wss://{LOOPBACK}:{server.port}/", **options)


@pytest.mark.parametrize("url", ["ws://u:xyzzy@h/", "ws://h/"])
async def test_a_server_s_name_without_tls_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="server_hostname is for wss:// URLs, and 'ws://h/'"):
        await open_and_leave(url, server_hostname="h")
    with pytest.raises(ValueError, match="server_hostname is for wss:// URLs"):
        async with open_websocket("h", 80, server_hostname="h"):
            pass


async def test_a_redirect_leaves_the_name_of_the_server_behind(
    trusting: ssl.SSLContext,
) -> None:
    def certified(name: str) -> ssl.SSLContext:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        AUTHORITY.issue_cert(name).configure_cert(tls)
        return tls

    async with tcp_server(ssl_context=certified("localhost")) as target:
        there = f"https://localhost:{target.port}/there"

        def redirect(request: Request) -> Response:
            return Response(302, {"Location": there if request.path == "/here" else "/here"})

        tls = certified("inner.example")
        async with tcp_server(ssl_context=tls, process_request=redirect) as server:
            url = f"wss://{LOOPBACK}:{server.port}/"
            options: Any = {"ssl_context": trusting, "server_hostname": "inner.example"}
            async with open_websocket_url(url, max_redirects=2, **options) as ws:
                assert ws.request.target == "/there"


async def test_the_system_s_trust_does_not_cover_just_anybody(server_tls: ssl.SSLContext) -> None:
    async with tcp_server(ssl_context=server_tls) as server:
        with pytest.raises(ConnectionFailed, match="TLS handshake with localhost failed") as caught:
            await open_and_leave(f"wss://localhost:{server.port}/")
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_a_certificate_for_another_host_is_refused(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(lambda host: LOOPBACK))
    async with tcp_server(ssl_context=server_tls) as server:
        with pytest.raises(ConnectionFailed, match="Hostname mismatch") as caught:
            await open_and_leave(f"wss://other.example:{server.port}/", ssl_context=trusting)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_a_name_with_the_root_s_dot_has_the_certificate_of_the_one_without(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(lambda host: LOOPBACK))
    async with tcp_server(ssl_context=server_tls) as server:
        await open_and_leave(f"wss://localhost.:{server.port}/", ssl_context=trusting)


async def test_a_client_that_was_refused_says_goodbye(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    ends: list[bytes] = []

    async def refuse(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await read_head(stream)
        await stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        ends.append(bytes(await stream.receive_some(1)))  # raises where TLS is cut off

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, refuse, 0, server_tls, host=LOOPBACK)
        [listener] = await nursery.start(serve)
        port = listener.transport_listener.socket.getsockname()[1]
        with pytest.raises(ConnectionRejected):
            await open_and_leave(f"wss://localhost:{port}/", ssl_context=trusting)
        with trio.fail_after(5):
            while not ends:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert ends == [b""]


async def test_a_server_without_tls_is_a_failed_connection() -> None:
    async with tcp_server() as server:
        with pytest.raises(ConnectionFailed, match="the peer may not speak TLS"):
            await open_and_leave(f"wss://localhost:{server.port}/")


async def test_tls_may_run_over_a_unix_socket(
    tmp_path: Path, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    path = str(tmp_path / "app.sock")
    unix = trio.socket.socket(trio.socket.AF_UNIX)
    await unix.bind(path)
    unix.listen()
    listener = trio.SSLListener(trio.SocketListener(unix), server_tls)
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(trio_ws.serve_listeners, echo, [listener])
        await open_and_leave("wss://localhost/", path=path, ssl_context=trusting)
        await server.aclose()


async def test_tls_of_one_s_own_is_only_a_stream(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with tcp_server(ssl_context=server_tls) as server:
        stream = await trio.open_ssl_over_tcp_stream(
            "localhost", server.port, ssl_context=trusting, https_compatible=True
        )
        async with wrap_client_stream(stream, "wss://localhost/") as websocket:
            await websocket.send("hello")
            assert await websocket.receive() == "hello"
