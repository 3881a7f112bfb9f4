"""`serve_websocket` and `serve_listeners`: ports, names, URLs, TLS, Unix sockets, options."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.helpers import AT_ONCE, HOST, REQUEST, echo, open_server
from tests.tls_helpers import tls_contexts
from trio_ws import (
    ConnectionEnded,
    ConnectionLost,
    WebSocket,
    open_websocket_url,
    serve_listeners,
    serve_websocket,
)


async def test_the_server_knows_its_port_urls_and_connections() -> None:
    inside = trio.Event()

    async def handler(ws: WebSocket) -> None:
        assert ws in server.connections
        inside.set()
        await echo(ws)

    async with open_server(handler) as server:
        assert server.urls == (f"ws://{HOST}:{server.port}/",)
        assert repr(server) == f"<WebSocketServer serving on {server.urls[0]}, 0 connections>"
        async with open_websocket_url(server.urls[0]) as ws:
            await inside.wait()
            assert len(server.connections) == 1
            await ws.send("hello")
            assert await ws.receive() == "hello"
            assert isinstance(ws.remote_address, tuple)
            assert ws.remote_address == (HOST, server.port)
        statistics = server.statistics()
        assert statistics.connections_total == 1
        with pytest.raises(AttributeError):
            server.connections.clear()  # type: ignore[attr-defined]
    assert repr(server) == f"<WebSocketServer stopped on {server.urls[0]}, 0 connections>"
    assert server.port in range(1024, 65536)


async def test_every_interface_has_one_port_and_a_url() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, echo, None, 0)
        assert {int(url.rstrip("/").rpartition(":")[2]) for url in server.urls} == {server.port}
        for url in server.urls:
            async with open_websocket_url(url) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
        await server.aclose()


class Names(trio.abc.HostnameResolver):
    """A machine of which "example.test" is a name for two addresses."""

    async def getaddrinfo(self, host: Any, port: Any, *how: Any) -> Any:
        assert host == b"example.test"
        return [
            entry
            for address in (HOST, "127.0.0.2")
            for entry in socket.getaddrinfo(address, port, *how)
        ]

    async def getnameinfo(self, *what: Any) -> Any:
        raise NotImplementedError


async def test_a_name_with_two_addresses_has_one_port_and_one_url_with_the_name_in_it() -> None:
    trio.socket.set_custom_hostname_resolver(Names())
    async with open_server(echo, host="example.test") as server:
        assert server.urls == (f"ws://example.test:{server.port}/",)
        for host in ("example.test", HOST, "127.0.0.2"):
            async with trio_ws.open_websocket(host, server.port) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"


async def test_a_url_of_a_tls_server_suits_a_certificate_for_its_name() -> None:
    server_context, client_context = tls_contexts("localhost")
    async with open_server(echo, host="localhost", ssl_context=server_context) as server:
        assert server.urls == (f"wss://localhost:{server.port}/",)
        async with open_websocket_url(server.urls[0], ssl_context=client_context) as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"


async def test_tls_with_a_certificate() -> None:
    server_context, client_context = tls_contexts("localhost")
    async with open_server(echo, ssl_context=server_context) as server:
        assert server.urls == (f"wss://{HOST}:{server.port}/",)
        url = f"wss://localhost:{server.port}/"
        async with open_websocket_url(url, ssl_context=client_context) as ws:
            assert ws.request.scheme == "wss"
            await ws.send("x" * 100_000)
            assert await ws.receive() == "x" * 100_000
            await ws.aclose(4000, "over TLS")
        assert ws.close_reason is not None
        assert ws.close_reason.code == 4000


async def test_tls_peers_end_quickly_whoever_closes_and_after_a_violation() -> None:
    server_context, client_context = tls_contexts("localhost")
    reasons: list[Any] = []

    async def close_soon(ws: WebSocket) -> None:
        if ws.request.path == "/server-closes":
            await ws.aclose(4001)
        with pytest.raises((ConnectionLost, ConnectionEnded, trio.ClosedResourceError)):
            while True:
                await ws.receive()
        reasons.append((await ws.wait_closed()).code)

    async with open_server(close_soon, ssl_context=server_context) as server:
        base = f"wss://localhost:{server.port}"
        with trio.fail_after(AT_ONCE):
            async with open_websocket_url(
                f"{base}/server-closes", ssl_context=client_context
            ) as ws:
                assert (await ws.wait_closed()).code == 4001
            tcp = await trio.open_tcp_stream(HOST, server.port)
            tls = trio.SSLStream(tcp, client_context, server_hostname="localhost")
            await tls.send_all(REQUEST)
            await tls.send_all(bytes([0x83, 0x80, 0, 0, 0, 0]))
            received = b""
            try:
                while data := await tls.receive_some():
                    received += data
            except trio.BrokenResourceError:
                pass  # the goodbye of TLS is left out; some versions of Python do not mind
            finally:
                await trio.aclose_forcefully(tls)
            assert received.endswith(b"Invalid opcode 0x3")
    assert reasons == [4001, 1002]


async def test_a_unix_socket_listener(tmp_path: Path) -> None:
    path = str(tmp_path / "ws.sock")
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(path)
    sock.listen()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_listeners, echo, [trio.SocketListener(sock)])
        assert server.urls == ()
        assert repr(server) == "<WebSocketServer serving on no TCP port, 0 connections>"
        with pytest.raises(AttributeError, match="no TCP port"):
            _ = server.port
        async with open_websocket_url("ws://localhost/", path=path) as ws:
            assert ws.remote_address == path
            await ws.send("hello")
            assert await ws.receive() == "hello"
        await server.aclose()


async def test_a_wrong_option_closes_the_listeners_and_says_what_is_wrong() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    with pytest.raises(ValueError, match="grace_period"):
        await serve_listeners(echo, [listener], grace_period=-1)
    assert listener.socket.fileno() == -1
    wrong: Any = None
    with pytest.raises(TypeError, match="handler"):
        await serve_websocket(wrong, HOST, 0)
    wrong = True
    with pytest.raises(TypeError, match="ssl_context"):
        await serve_websocket(echo, HOST, 0, ssl_context=wrong)
    with pytest.raises(ValueError, match="no listener"):
        await serve_listeners(echo, [])

    async def nobody_awaits_this(ws: WebSocket, exc: Exception) -> None:
        raise AssertionError

    wrong = nobody_awaits_this
    with pytest.raises(TypeError, match="plain function"):
        await serve_websocket(echo, HOST, 0, on_handler_error=wrong)
