"""Clients that open their own stream: TCP, TLS, Unix sockets, redirects, and one deadline."""

from __future__ import annotations

import errno
import socket
import ssl
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

import trio_ws
from tests.handshake.handshake_helpers import (
    ACCEPTING,
    echo,
    memory_server,
    read_all,
    read_head,
    request_fields,
    scripted_server,
    scripted_tcp_server,
)
from tests.helpers import PATIENCE, frame
from trio_ws import (
    ConnectionFailed,
    ConnectionRejected,
    HandshakeTimeout,
    InvalidResponse,
    InvalidURL,
    Request,
    Response,
    TooManyRedirects,
    WebSocketServer,
    open_websocket,
    open_websocket_url,
    wrap_client_stream,
)

LOOPBACK = "127.0.0.1"
GOODBYE = frame(8, b"\x03\xe8", mask=False)


@asynccontextmanager
async def tcp_server(
    host: str = LOOPBACK, ssl_context: ssl.SSLContext | None = None, **options: Any
) -> AsyncGenerator[WebSocketServer, None]:
    """An echo server on a port that the system picks."""
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[WebSocketServer]) -> None:
            await trio_ws.serve_websocket(
                echo, host, 0, ssl_context=ssl_context, task_status=task_status, **options
            )

        server = await nursery.start(serve)
        yield server
        await server.aclose()


async def open_and_leave(url: str, **options: Any) -> None:
    async with open_websocket_url(url, **options):
        pass


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
    with pytest.raises(InvalidURL, match="no URL or part of one"):
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


class Resolver(trio.abc.HostnameResolver):
    """Names as a test wants them."""

    def __init__(self, look_up: Callable[[str], Any]) -> None:
        self._look_up = look_up

    async def getaddrinfo(  # type: ignore[override] # bytes, from trio
        self, host: bytes, port: int, *args: Any, **kwargs: Any
    ) -> Any:
        await trio.lowlevel.checkpoint()
        address = self._look_up(host.decode())
        if address is None:
            await trio.sleep_forever()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in address.split()]

    async def getnameinfo(self, *args: Any) -> tuple[str, str]:
        raise NotImplementedError


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
    async with tcp_server() as server:
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
# TLS
# ---------------------------------------------------------------------------

AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def server_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("localhost", LOOPBACK).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


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
        with pytest.raises(ConnectionFailed, match="TLS handshake with localhost failed"):
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
        async with wrap_client_stream(stream, "wss://example.org/") as websocket:
            await websocket.send("hello")
            assert await websocket.receive() == "hello"


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
        with pytest.raises(HandshakeTimeout):
            await open_and_leave(f"{scheme}://{LOOPBACK}:{port}/", open_timeout=0.1)
        with trio.fail_after(PATIENCE):
            await read_all(streams[0])  # and nothing is left of it


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_cancelled_opening_leaves_no_socket(scheme: str) -> None:
    async with silent_server() as (port, streams):
        with trio.move_on_after(0.1) as scope:
            await open_and_leave(f"{scheme}://{LOOPBACK}:{port}/")
        assert scope.cancelled_caught
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
    """What only this test raises."""


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
async def test_what_the_block_raises_comes_out_as_the_same_object(
    exception: BaseException,
) -> None:
    async with memory_server() as server:
        with pytest.raises(type(exception)) as caught:
            async with wrap_client_stream(server.connect(), "ws://example.org/"):
                raise exception
    assert caught.value is exception


async def test_what_the_block_raises_comes_out_of_every_entry_point_alike() -> None:
    async with tcp_server() as server:
        url = f"ws://{LOOPBACK}:{server.port}/"
        for entry in (open_websocket_url(url), open_websocket(LOOPBACK, server.port)):
            exception = Mine()
            with pytest.raises(Mine) as caught:
                async with entry:
                    raise exception
            assert caught.value is exception


# ---------------------------------------------------------------------------
# Redirects
# ---------------------------------------------------------------------------


def redirect(location: str, status: int = 302) -> bytes:
    text = f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    return text.encode("latin-1")


def path_of(head: bytes) -> str:
    return head.split(b" ")[1].decode()


async def test_redirects_are_not_followed_unless_asked_for() -> None:
    async with scripted_tcp_server(lambda head: redirect("/there")) as (port, requests):
        with pytest.raises(ConnectionRejected) as caught:
            await open_and_leave(f"ws://{LOOPBACK}:{port}/")
    assert caught.value.response.status == 302
    assert caught.value.response.headers["Location"] == "/there"
    assert len(requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    ["/there", "there", "ws://{}/there", "http://{}/there", "//{}/there", "/there#fragment"],
)
async def test_a_redirect_is_followed_when_asked_for(status: int, location: str) -> None:
    def respond(head: bytes) -> bytes:
        if path_of(head) == "/there":
            return ACCEPTING + GOODBYE
        host = request_fields(head)["Host"]
        return redirect(location.format(host), status)

    async with scripted_tcp_server(respond) as (port, requests):
        url = f"ws://{LOOPBACK}:{port}/here"
        async with open_websocket_url(url, max_redirects=1, close_timeout=0.01) as websocket:
            assert websocket.request.target == "/there"
    assert list(map(path_of, requests)) == ["/here", "/there"]


@pytest.mark.parametrize("status", [200, 300, 304, 403])
async def test_another_status_is_no_redirect_whatever_its_location(status: int) -> None:
    async with scripted_tcp_server(lambda head: redirect("/there", status)) as (port, requests):
        with pytest.raises(ConnectionRejected, match=f"HTTP status {status}"):
            await open_and_leave(f"ws://{LOOPBACK}:{port}/", max_redirects=10)
    assert len(requests) == 1


async def test_a_redirect_to_nowhere_is_a_rejection() -> None:
    def respond(head: bytes) -> bytes:
        return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"

    async with scripted_tcp_server(respond) as (port, _):
        with pytest.raises(ConnectionRejected, match="HTTP status 302"):
            await open_and_leave(f"ws://{LOOPBACK}:{port}/", max_redirects=10)


@pytest.mark.parametrize("limit", [1, 10])
async def test_a_loop_of_redirects_ends_at_the_limit(limit: int) -> None:
    async with scripted_tcp_server(lambda head: redirect("/")) as (port, requests):
        with pytest.raises(TooManyRedirects, match=f"more than {limit} redirects") as caught:
            await open_and_leave(f"ws://{LOOPBACK}:{port}/", max_redirects=limit)
    assert len(requests) == limit + 1
    assert isinstance(caught.value.__cause__, ConnectionRejected)


async def test_the_odd_characters_of_a_location_go_out_encoded() -> None:
    def respond(head: bytes) -> bytes:
        return redirect("/caf\xc3\xa9 {}") if path_of(head) == "/" else ACCEPTING + GOODBYE

    async with scripted_tcp_server(respond) as (port, requests):
        await open_and_leave(f"ws://{LOOPBACK}:{port}/", max_redirects=1, close_timeout=0.01)
    assert path_of(requests[1]) == "/caf%C3%A9%20%7B%7D"


@pytest.mark.parametrize("second", ["/there", "/elsewhere"])
async def test_a_redirect_to_two_places_leads_nowhere(second: str) -> None:
    def respond(head: bytes) -> bytes:
        if path_of(head) == "/there":
            return ACCEPTING + GOODBYE
        return redirect(f"/there\r\nLocation: {second}")

    async with scripted_tcp_server(respond) as (port, _):
        url = f"ws://{LOOPBACK}:{port}/"
        with pytest.raises(ConnectionRejected):
            await open_and_leave(url)
        if second == "/there":  # it is one place after all
            await open_and_leave(url, max_redirects=1, close_timeout=0.01)
        else:
            with pytest.raises(InvalidResponse, match="redirects to more than one place"):
                await open_and_leave(url, max_redirects=1)


async def test_a_redirect_that_names_a_user_is_an_invalid_response() -> None:
    async with scripted_tcp_server(lambda head: redirect("http://u:p@h/")) as (port, requests):
        with pytest.raises(InvalidResponse, match="it names a user"):
            await open_and_leave(f"ws://{LOOPBACK}:{port}/", max_redirects=1)
    assert len(requests) == 1


@pytest.mark.parametrize("location", ["ftp://h/", "http://[bad/", "/a\\b", "http://h:0/"])
async def test_a_redirect_to_what_is_no_websocket_is_an_invalid_response(location: str) -> None:
    async with scripted_tcp_server(lambda head: redirect(location)) as (port, _):
        with pytest.raises(InvalidResponse, match="the server redirects to") as caught:
            await open_and_leave(f"ws://{LOOPBACK}:{port}/", max_redirects=1)
    assert isinstance(caught.value.__cause__, InvalidURL)


@pytest.mark.parametrize("location", ["ws://{}:{}/", "http://{}:{}/"])
async def test_a_redirect_never_gives_up_tls(
    location: str, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with scripted_tcp_server(lambda head: ACCEPTING) as (port, requests):
        moved = trio_ws.Response(301, {"Location": location.format(LOOPBACK, port)})
        async with tcp_server(
            ssl_context=server_tls, process_request=lambda asked: moved
        ) as server:
            with pytest.raises(InvalidResponse, match="would give up TLS"):
                await open_and_leave(
                    f"wss://localhost:{server.port}/", ssl_context=trusting, max_redirects=10
                )
    assert not requests


async def test_an_ssl_context_that_would_not_be_used_is_a_mistake(
    trusting: ssl.SSLContext,
) -> None:
    with pytest.raises(ValueError, match="for wss:// URLs"):
        await open_and_leave("ws://localhost:1/", ssl_context=trusting)


async def test_a_redirect_may_take_up_tls(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with tcp_server(ssl_context=server_tls) as server:
        target = f"https://localhost:{server.port}/there"
        async with scripted_tcp_server(lambda head: redirect(target)) as (port, _):
            url = f"ws://{LOOPBACK}:{port}/"
            async with open_websocket_url(url, ssl_context=trusting, max_redirects=1) as websocket:
                assert websocket.request.scheme == "wss"
                assert websocket.request.target == "/there"


CREDENTIALS = {"Cookie": "a=1", "X-Other": "y", "Proxy-Authorization": "z"}


async def test_credentials_stay_within_their_origin() -> None:
    def respond(head: bytes) -> bytes:
        return ACCEPTING + GOODBYE if path_of(head) == "/there" else redirect("/there")

    async with scripted_tcp_server(respond) as (port, requests):
        await open_and_leave(
            f"ws://user:secret@{LOOPBACK}:{port}/",
            max_redirects=1,
            headers=CREDENTIALS,
            close_timeout=0.01,
        )
    for head in requests:
        fields = request_fields(head)
        assert fields["Authorization"] == "Basic dXNlcjpzZWNyZXQ="
        assert fields["Cookie"] == "a=1"
        assert fields["X-Other"] == "y"


@pytest.mark.parametrize("own", [{}, {"Authorization": "Bearer x"}])
async def test_credentials_are_not_sent_to_another_origin_nor_back_from_there(
    own: dict[str, str],
) -> None:
    ports: list[int] = []

    def respond_elsewhere(head: bytes) -> bytes:
        return redirect(f"http://{LOOPBACK}:{ports[0]}/back")

    async with scripted_tcp_server(respond_elsewhere) as (elsewhere, requests_elsewhere):

        def respond(head: bytes) -> bytes:
            if path_of(head) == "/back":
                return ACCEPTING + GOODBYE
            return redirect(f"http://{LOOPBACK}:{elsewhere}/")

        async with scripted_tcp_server(respond) as (port, requests):
            ports.append(port)
            await open_and_leave(
                f"ws://user:secret@{LOOPBACK}:{port}/",
                max_redirects=2,
                headers={**CREDENTIALS, **own},
                close_timeout=0.01,
            )
    assert "Authorization" in request_fields(requests[0])
    for head in (requests_elsewhere[0], requests[1]):
        fields = request_fields(head)
        assert {"Authorization", "Cookie", "Proxy-Authorization"}.isdisjoint(fields)
        assert fields["X-Other"] == "y"


async def test_a_redirect_within_a_unix_socket_stays_there_and_another_leaves_it(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "app.sock")
    unix = trio.socket.socket(trio.socket.AF_UNIX)
    await unix.bind(path)
    unix.listen()
    async with tcp_server() as elsewhere, trio.open_nursery() as nursery:

        def process_request(asked: trio_ws.Request) -> trio_ws.Response:
            there = f"http://{LOOPBACK}:{elsewhere.port}/out"
            return trio_ws.Response(302, {"Location": "/in" if asked.path == "/" else there})

        async def serve(*, task_status: trio.TaskStatus[WebSocketServer]) -> None:
            await trio_ws.serve_listeners(
                echo,
                [trio.SocketListener(unix)],
                task_status=task_status,
                process_request=process_request,
            )

        server = await nursery.start(serve)
        async with open_websocket_url("ws://example.org/", path=path, max_redirects=2) as websocket:
            assert websocket.remote_address == (LOOPBACK, elsewhere.port)
            assert websocket.request.target == "/out"
        await server.aclose()


async def test_a_stream_that_was_given_follows_no_redirects() -> None:
    async with scripted_server(redirect("/there")) as stream:
        with pytest.raises(ConnectionRejected):
            async with wrap_client_stream(stream, "ws://example.org/"):
                pytest.fail("it was opened")
