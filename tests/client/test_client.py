"""Clients that open their own stream: TCP, Unix sockets, one deadline, and leaving."""

from __future__ import annotations

import errno
import socket
import traceback
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

import trio_ws
from tests.client.client_helpers import LOOPBACK, Resolver, open_and_leave, tcp_server
from tests.handshake.handshake_helpers import memory_server, read_all, scripted_tcp_server
from tests.helpers import PATIENCE, echo
from trio_ws import (
    ConnectionFailed,
    HandshakeTimeout,
    InvalidURL,
    WebSocketServer,
    open_websocket,
    open_websocket_url,
    wrap_client_stream,
)

# ---------------------------------------------------------------------------
# TCP
# ---------------------------------------------------------------------------


async def test_a_url_is_connected_to() -> None:
    async with tcp_server() as server:
        url = f"ws://{LOOPBACK}:{server.port}/a?b"
        async with open_websocket_url(url) as websocket:
            await websocket.send("hello")
            assert await websocket.receive() == "hello"
            assert websocket.request.target == "/a?b"
            assert websocket.request.remote_address == (LOOPBACK, server.port)
            assert websocket.request.headers["Host"] == f"{LOOPBACK}:{server.port}"


async def test_a_host_and_a_port_are_connected_to() -> None:
    async with (
        tcp_server() as server,
        open_websocket(LOOPBACK, server.port, "chat?x") as websocket,
    ):
        await websocket.send(b"hello")
        assert await websocket.receive() == b"hello"
        assert websocket.request.target == "/chat?x"


async def test_a_host_that_holds_more_than_a_host_is_an_invalid_url() -> None:
    with pytest.raises(InvalidURL, match="not a URL or a part of one"):
        async with open_websocket("user@example.org", 80):
            pytest.fail("it was opened")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_an_ipv6_address_is_connected_to_where_the_machine_has_them() -> None:
    # Where it has none, the address at least gets as far as the system's own refusal.
    if not has_ipv6():
        with pytest.raises(ConnectionFailed, match="cannot connect to ::1"):
            await open_and_leave("ws://[::1]:9/")
        return
    async with tcp_server("::1") as server:
        async with open_websocket_url(f"ws://[::1]:{server.port}/") as websocket:
            assert websocket.request.headers["Host"] == f"[::1]:{server.port}"
        async with open_websocket("::1", server.port) as websocket:
            assert websocket.remote_address == ("::1", server.port)


async def test_a_name_is_looked_up_and_every_address_tried() -> None:
    async with tcp_server() as server, open_websocket("localhost", server.port) as websocket:
        await websocket.send("hello")
        assert await websocket.receive() == "hello"


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


async def test_a_refused_connection_has_failed_with_its_cause() -> None:
    port = unused_port()
    with pytest.raises(ConnectionFailed, match="refused") as caught:
        await open_and_leave(f"ws://{LOOPBACK}:{port}/")
    assert str(caught.value) == f"cannot connect to {LOOPBACK}:{port}: Connection refused"
    assert caught.value.errno == errno.ECONNREFUSED
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_a_name_that_nobody_knows_is_a_failed_connection() -> None:
    def look_up(host: str) -> str:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    trio.socket.set_custom_hostname_resolver(Resolver(look_up))
    with pytest.raises(ConnectionFailed, match="Name or service not known") as caught:
        await open_and_leave("ws://nobody.example/")
    assert str(caught.value).startswith("cannot connect to nobody.example:80: ")
    assert isinstance(caught.value.__cause__, socket.gaierror)
    assert caught.value.errno is None  # it has another number, of another kind


async def test_several_addresses_that_refuse_are_one_short_error() -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(lambda _: "127.0.0.1 127.0.0.2 127.0.0.3"))
    port = unused_port()
    with pytest.raises(ConnectionFailed) as caught:
        await open_and_leave(f"ws://several.example:{port}/")
    assert str(caught.value) == f"cannot connect to several.example:{port}: Connection refused"
    assert caught.value.errno == errno.ECONNREFUSED
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.__cause__.__traceback__ is None
    text = "".join(traceback.format_exception(caught.value))
    assert "Group" not in text
    assert "several.example" in text


async def test_addresses_that_fail_in_different_ways_are_all_told() -> None:
    port = unused_port()
    # No connection can be made to a broadcast address.
    addresses = f"{LOOPBACK} 255.255.255.255"
    trio.socket.set_custom_hostname_resolver(Resolver(lambda _: addresses))
    with pytest.raises(ConnectionFailed, match="Connection refused, ") as caught:
        await open_and_leave(f"ws://several.example:{port}/")
    assert caught.value.errno is None
    assert isinstance(caught.value.__cause__, OSError)


async def test_an_internationalised_name_is_looked_up_and_sent_in_ascii() -> None:
    asked: list[str] = []

    def look_up(host: str) -> str:
        asked.append(host)
        return LOOPBACK

    trio.socket.set_custom_hostname_resolver(Resolver(look_up))
    async with tcp_server(hosts="*") as server:
        url = f"ws://faß.example:{server.port}/"
        async with open_websocket_url(url) as websocket:
            assert websocket.request.headers["Host"] == f"xn--fa-hia.example:{server.port}"
    assert asked == ["xn--fa-hia.example"]


# ---------------------------------------------------------------------------
# Unix sockets
# ---------------------------------------------------------------------------


async def test_a_unix_socket_is_connected_to_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    unix = trio.socket.socket(trio.socket.AF_UNIX)
    await unix.bind(str(path))
    unix.listen()
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(
            trio_ws.serve_listeners, echo, [trio.SocketListener(unix)]
        )
        for where in (path, str(path)):
            async with open_websocket_url("ws://example.org/chat", path=where) as websocket:
                await websocket.send("hello")
                assert await websocket.receive() == "hello"
                assert websocket.request.headers["Host"] == "example.org"
                assert websocket.remote_address == str(path)
        await server.aclose()


async def test_a_unix_socket_that_is_not_there_is_a_failed_connection(tmp_path: Path) -> None:
    path = tmp_path / "nothing.sock"
    with pytest.raises(ConnectionFailed, match=f"cannot connect to {path}: ") as caught:
        await open_and_leave("ws://localhost/", path=path)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


# ---------------------------------------------------------------------------
# The deadline
# ---------------------------------------------------------------------------


async def test_the_deadline_covers_the_look_up(autojump_clock: trio.testing.MockClock) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(lambda host: None))
    with pytest.raises(HandshakeTimeout):
        await open_and_leave("ws://slow.example/")
    assert trio.current_time() == 10


@asynccontextmanager
async def silent_server() -> AsyncGenerator[tuple[int, list[trio.SocketStream]], None]:
    """Accepts, and says nothing."""
    streams: list[trio.SocketStream] = []

    async def serve(stream: trio.SocketStream) -> None:
        streams.append(stream)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
            await trio.serve_tcp(serve, 0, host=LOOPBACK, task_status=task_status)

        [listener] = await nursery.start(run)
        yield listener.socket.getsockname()[1], streams
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_the_deadline_covers_tls_and_http(scheme: str) -> None:
    async with silent_server() as (port, streams):
        while not streams:  # a busy machine may take as long to connect
            with pytest.raises(HandshakeTimeout):
                await open_and_leave(f"{scheme}://{LOOPBACK}:{port}/", open_timeout=0.1)
        with trio.fail_after(PATIENCE):
            await read_all(streams[0])  # and nothing is left of it


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_cancelled_opening_leaves_no_socket(scheme: str) -> None:
    async with silent_server() as (port, streams):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_and_leave, f"{scheme}://{LOOPBACK}:{port}/")
            while not streams:
                await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught
        with trio.fail_after(PATIENCE):
            await read_all(streams[0])


async def test_an_opening_that_is_cancelled_before_it_began_leaves_no_socket() -> None:
    async with silent_server() as (port, streams):
        with trio.CancelScope() as scope:
            scope.cancel()
            await open_and_leave(f"ws://{LOOPBACK}:{port}/")
        assert scope.cancelled_caught
        assert not streams


async def test_the_deadline_covers_all_redirects_together() -> None:
    def respond(head: bytes) -> bytes:
        return b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"  # and a body that never comes

    async with scripted_tcp_server(respond) as (port, requests):
        with pytest.raises(HandshakeTimeout):
            await open_and_leave(f"ws://{LOOPBACK}:{port}/", max_redirects=10, open_timeout=0.2)
        assert len(requests) == 1


# ---------------------------------------------------------------------------
# Leaving
# ---------------------------------------------------------------------------


class Mine(Exception):
    """An exception that only these tests raise."""


@pytest.mark.parametrize(
    "exception",
    [
        Mine("x"),
        KeyError("x"),
        StopIteration("x"),
        StopAsyncIteration("x"),
        KeyboardInterrupt(),
        SystemExit(3),
        OSError("x"),
        trio.BrokenResourceError("x"),
        ExceptionGroup("x", [Mine("y")]),
    ],
    ids=repr,
)
async def test_an_error_of_the_block_comes_out_as_the_same_object(
    exception: BaseException,
) -> None:
    async with memory_server() as server:
        with pytest.raises(type(exception)) as caught:
            async with wrap_client_stream(server.connect(), "ws://example.org/"):
                raise exception
    assert caught.value is exception


async def test_an_error_of_the_block_comes_out_of_every_entry_point_alike() -> None:
    async with tcp_server() as server:
        url = f"ws://{LOOPBACK}:{server.port}/"
        for entry in (open_websocket_url(url), open_websocket(LOOPBACK, server.port)):
            exception = Mine()
            with pytest.raises(Mine) as caught:
                async with entry:
                    raise exception
            assert caught.value is exception
