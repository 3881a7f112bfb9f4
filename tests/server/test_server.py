"""`serve_websocket`, `serve_listeners`, `WebSocketServer`: handlers, errors, shutdown, logging."""

from __future__ import annotations

import errno
import gc
import logging
import signal
import socket
import struct
import sys
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.conftest import open_descriptors
from tests.helpers import (
    AT_ONCE,
    HOST,
    PATIENCE,
    REQUEST,
    TEXT,
    echo,
    fail_accepting,
    frame,
    open_server,
    reset,
)
from tests.tls_helpers import tls_contexts
from trio_ws import (
    CloseReason,
    ConnectionEnded,
    ConnectionLost,
    ConnectionRejected,
    Initiator,
    Response,
    WebSocket,
    WebSocketServer,
    open_websocket_url,
    serve_listeners,
    serve_websocket,
)
from trio_ws._handshake.both_sides import REFUSAL_LINGER
from trio_ws._nursery import open_bare_nursery
from trio_ws.testing import open_test_app


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Listens for `connect` calls in the same process, so that the clock may be jumped."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](0)
        self.error: BaseException | None = None

    async def connect(self) -> trio.abc.Stream:
        client, server = trio.testing.memory_stream_pair()
        await self.deliver(server)
        return client

    async def deliver(self, stream: trio.abc.Stream) -> None:
        await self._send.send(stream)

    async def accept(self) -> trio.abc.Stream:
        stream = await self._receive.receive()
        if self.error is not None:
            raise self.error
        return stream

    async def aclose(self) -> None:
        self._send.close()
        self._receive.close()
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def memory_server(
    handler: Any, **options: Any
) -> AsyncGenerator[tuple[WebSocketServer, MemoryListener, trio.CancelScope], None]:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def serve(task_status: trio.TaskStatus[WebSocketServer]) -> None:
            with scope:
                await serve_listeners(handler, [listener], task_status=task_status, **options)

        server = await nursery.start(serve)
        yield server, listener, scope
        scope.cancel()


def connect(listener: MemoryListener, stream: trio.abc.Stream, **options: Any) -> Any:
    return trio_ws.wrap_client_stream(stream, "ws://example.org/", **options)


# Serving…


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


async def fail_when_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise Boom


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


async def test_clients_that_are_being_refused_do_not_count() -> None:
    async with open_server(echo, max_connections=1) as server:
        refused: list[trio.SocketStream] = []
        async with open_websocket_url(server.urls[0]):
            for _ in range(3):  # they linger: they do not hang up
                refused.append(await trio.open_tcp_stream(HOST, server.port))
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


# Handlers that fail…


class Boom(Exception):
    pass


async def fail(ws: WebSocket) -> None:
    raise Boom(ws.request.path)


async def test_a_handlers_exception_is_logged_once_and_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: WebSocket) -> None:
        await (fail(ws) if ws.request.path == "/fail" else echo(ws))

    async with open_server(handler) as server:
        async with open_websocket_url(server.urls[0]) as other:
            async with open_websocket_url(server.urls[0] + "fail") as ws:
                assert (await ws.wait_closed()).code == 1011
            await other.send("fine")
            assert await other.receive() == "fine"
        assert server.statistics().handler_errors_total == 1
    errors = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(errors) == 1
    assert errors[0].exc_info is not None
    assert isinstance(errors[0].exc_info[1], Boom)
    assert len(errors[0].connection_id) == 8  # type: ignore[attr-defined]


async def test_a_handlers_exception_is_propagated_bare_when_asked_for() -> None:
    with pytest.raises(Boom) as caught:
        async with open_bare_server(fail, on_handler_error="propagate") as server:
            async with open_websocket_url(server.urls[0]) as ws:
                assert (await ws.wait_closed()).code == 1011
            await trio.sleep_forever()
    assert caught.value.args == ("/",)


@asynccontextmanager
async def open_bare_server(handler: Any, **options: Any) -> AsyncGenerator[WebSocketServer, None]:
    async with open_bare_nursery() as nursery:
        yield await nursery.start(
            lambda task_status: serve_websocket(
                handler, HOST, 0, task_status=task_status, **options
            )
        )


async def test_a_handlers_exception_goes_to_a_callable(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[str, type[Exception]]] = []

    def on_error(ws: WebSocket, exc: Exception) -> None:
        seen.append((ws.request.path, type(exc)))
        if ws.request.path == "/twice":
            raise KeyError("on_error fails, too")

    async with open_server(fail, on_handler_error=on_error) as server:
        for path in ("once", "twice"):
            async with open_websocket_url(server.urls[0] + path) as ws:
                assert (await ws.wait_closed()).code == 1011
    assert seen == [("/once", Boom), ("/twice", Boom)]
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert ["on_handler_error itself failed" in record.getMessage() for record in errors] == [True]


async def test_a_group_of_one_is_reported_as_that_one_and_a_group_of_two_as_a_group() -> None:
    seen: list[Exception] = []

    async def handler(ws: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, ws)
            if ws.request.path == "/two":
                nursery.start_soon(fail, ws)

    async with open_server(handler, on_handler_error=lambda _, exc: seen.append(exc)) as server:
        for path in ("one", "two"):
            async with open_websocket_url(server.urls[0] + path) as ws:
                await ws.wait_closed()
    assert isinstance(seen[0], Boom)
    assert isinstance(seen[1], ExceptionGroup)


async def test_a_group_with_cancellations_in_it_does_not_take_the_server_along() -> None:
    seen: list[Exception] = []

    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Boom

    async def handler(ws: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_late)
            nursery.start_soon(fail_late)
            nursery.start_soon(trio.sleep_forever)

    options: dict[str, Any] = {"on_handler_error": lambda _, exc: seen.append(exc)}
    async with open_server(handler, grace_period=0.1, **options) as server:
        async with trio.open_nursery() as nursery:
            async with open_websocket_url(server.urls[0]) as ws:
                nursery.start_soon(server.aclose)
                await ws.wait_closed()
    assert len(seen) == 1
    assert isinstance(seen[0], ExceptionGroup)


async def test_port_0_is_the_same_port_on_every_interface() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, echo, None, 0)
        ports = [int(url.rstrip("/").rpartition(":")[2]) for url in server.urls]
        assert ports == [server.port, server.port]
        await server.aclose()


async def test_a_failure_is_not_lost_to_a_cancellation_that_comes_as_well() -> None:
    failed = trio.Event()

    async def handler(ws: WebSocket) -> None:
        failed.set()
        raise Boom

    with pytest.raises(Boom):
        async with open_bare_nursery() as nursery:
            scope = trio.CancelScope()

            async def serve(task_status: trio.TaskStatus[WebSocketServer]) -> None:
                with scope:
                    await serve_websocket(
                        handler, HOST, 0, task_status=task_status, on_handler_error="propagate"
                    )

            server = await nursery.start(serve)
            async with open_websocket_url(server.urls[0]) as ws:
                await failed.wait()
                scope.cancel()
                await ws.wait_closed()


async def test_system_exit_in_a_handler_ends_the_server_with_it() -> None:
    async def handler(ws: WebSocket) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught:
        async with open_bare_server(handler) as server:
            async with open_websocket_url(server.urls[0]) as ws:
                await ws.wait_closed()
            await trio.sleep_forever()
    assert caught.value.code == 3


async def test_a_peer_that_disconnects_is_never_a_traceback_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    done = trio.Event()

    async def receiver(ws: WebSocket) -> None:
        try:
            await ws.receive()
        finally:
            done.set()

    async def in_a_nursery(ws: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver, ws)
            nursery.start_soon(trio.sleep_forever)

    for handler in (receiver, in_a_nursery, echo):
        async with open_server(handler) as server:
            for how in ("close", "eof", "reset", "garbage"):
                done = trio.Event()
                stream = await trio.open_tcp_stream(HOST, server.port)
                await stream.send_all(REQUEST)
                await stream.receive_some()
                if how == "close":
                    await stream.send_all(bytes([0x88, 0x80, 0, 0, 0, 0]))
                elif how == "garbage":
                    await stream.send_all(b"garbage")
                if how == "reset":
                    reset(stream)
                else:
                    await stream.aclose()
                if handler is not echo:
                    await done.wait()
            while server.connections:
                await trio.sleep(0.001)
    assert not [record for record in caplog.records if record.exc_info]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# The log…


async def test_there_is_one_access_line_per_connection_and_frames_at_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("mine")
    caplog.set_level(logging.DEBUG, logger="mine")
    async with open_server(echo, logger=logger, process_request=_page_or_socket) as server:
        async with open_websocket_url(server.urls[0] + "chat?x=1", logger=logger) as ws:
            await ws.send("hello")
            await ws.send(b"x" * 100)
            await ws.receive()
            await ws.receive()
            await ws.ping(b"p")
            async with ws.open_message("text") as writer:
                await writer.send("part")
            await ws.receive()
        with pytest.raises(ConnectionRejected):
            async with open_websocket_url(server.urls[0] + "page", logger=logger):
                raise AssertionError
    text = [record.getMessage() for record in caplog.records]
    access = [line for line in text if '"GET /chat?x=1" 101, 1000' in line]
    assert len(access) == 1
    assert "3 messages" in access[0]
    assert len([line for line in text if "answered with 404" in line]) == 1
    for expected in (
        "sent text 'hello' (5 long)",
        "received text 'hello' (5 long)",
        f"sent binary {b'x' * 40!r}… (100 long)",
        "received Ping b'p'",
        "received Pong b'p'",
        "received fragment 'part'",
        "sent Close 1000 ''",
        "received Close 1000 ''",
    ):
        assert any(expected in line for line in text), expected
    assert {record.name for record in caplog.records if "trio" not in record.name} == {"mine"}
    assert all(hasattr(record, "connection_id") for record in caplog.records)


def _page_or_socket(request: trio_ws.Request) -> Response | None:
    return Response(404, body="no such page") if request.path == "/page" else None


async def test_nothing_is_formatted_for_the_log_when_nobody_listens() -> None:
    logger = logging.getLogger("quiet")
    logger.setLevel(logging.ERROR)
    async with open_server(echo, logger=logger) as server:
        async with open_websocket_url(server.urls[0], logger=logger) as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"


# Shutting down…


@pytest.mark.autojump
async def test_cancelling_says_1001_to_all_and_lets_handlers_finish() -> None:
    events: list[str] = []

    async def handler(ws: WebSocket) -> None:
        async for message in ws:
            events.append(f"got {message!r}")
        await trio.sleep(3)
        events.append("finished")

    async with memory_server(handler) as (server, listener, scope):
        async with connect(listener, await listener.connect()) as ws:
            await ws.send("last")
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            scope.cancel()
            reason = await ws.wait_closed()
            assert (reason.code, reason.initiator) == (1001, Initiator.REMOTE)
        await trio.sleep(4)
        assert events == ["got 'last'", "finished"]
        assert trio.current_time() - start < 5
        assert not server.connections


@pytest.mark.autojump
async def test_stubborn_handlers_are_cancelled_after_grace_period() -> None:
    events: list[str] = []

    async def stubborn(ws: WebSocket) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            events.append(f"cancelled at {trio.current_time() - start:.1f}")
            raise

    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                server = await inner.start(
                    lambda task_status: serve_listeners(
                        stubborn, [listener], task_status=task_status, grace_period=2
                    )
                )
                stream = await listener.connect()

                async def client() -> None:
                    async with connect(listener, stream) as ws:
                        await ws.wait_closed()

                nursery.start_soon(client)
                await trio.testing.wait_all_tasks_blocked()
                assert len(server.connections) == 1
                start = trio.current_time()
                scope.cancel()
    assert events == ["cancelled at 2.0"]


@pytest.mark.autojump
async def test_shutdown_takes_at_most_grace_period_and_close_timeout() -> None:
    async def stubborn(ws: WebSocket) -> None:
        await trio.sleep_forever()

    start = 0.0
    async with memory_server(stubborn, grace_period=2, close_timeout=3) as (_, listener, scope):
        stream = await listener.connect()
        await stream.send_all(REQUEST)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        scope.cancel()
    assert trio.current_time() - start == pytest.approx(3)  # the two run at the same time


@pytest.mark.autojump
async def test_aclose_uses_its_code_waits_for_the_end_and_serving_returns() -> None:
    async with memory_server(echo) as (server, listener, _):
        async with connect(listener, await listener.connect()) as ws:
            with pytest.raises(ValueError, match="close code 1005"):
                await server.aclose(1005)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.aclose, 1012, "new version")
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(server.aclose)
                reason = await ws.wait_closed()
        assert (reason.code, reason.reason) == (1012, "new version")
        assert not server.connections


@pytest.mark.autojump
@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 3000, 4000])
async def test_aclose_ends_a_handlers_loop_whatever_its_code(code: int) -> None:
    ended: list[CloseReason | None] = []

    async def handler(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)
        with pytest.raises(ConnectionEnded):
            await ws.receive()
        with pytest.raises(ConnectionEnded):
            await ws.send("too late")
        ended.append(ws.close_reason)

    async with memory_server(handler) as (server, listener, _):
        async with connect(listener, await listener.connect()) as ws:
            await ws.send("here")
            assert await ws.receive() == "here"
            await server.aclose(code, "why")
            assert (await ws.wait_closed()).code == code
    assert ended == [CloseReason(code, "why", Initiator.LOCAL)]


async def wait_for_nothing(request: trio_ws.Request) -> None:
    await trio.sleep_forever()


@pytest.mark.autojump
@pytest.mark.parametrize("sent", [b"", REQUEST[:20], REQUEST], ids=["nothing", "half", "all"])
@pytest.mark.parametrize("how", ["cancelled", "aclose"])
async def test_a_client_in_the_handshake_is_told_503_at_shutdown(sent: bytes, how: str) -> None:
    async with memory_server(echo, process_request=wait_for_nothing) as (server, listener, scope):
        stream = await listener.connect()
        if sent:
            await stream.send_all(sent)
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().handshakes == 1
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            if how == "cancelled":
                scope.cancel()
            else:
                nursery.start_soon(server.aclose)
            answer = await stream.receive_some()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1\r\n" in answer
            assert trio.current_time() == start
            await stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().refused_total == 1
        assert server.statistics().handshakes == 0


@pytest.mark.autojump
async def test_a_router_s_hook_that_waits_at_shutdown_is_a_503() -> None:
    router = trio_ws.Router(before=wait_for_nothing)
    router.websocket("/chat")(echo)
    async with memory_server(router) as (server, listener, _):
        stream = await listener.connect()
        await stream.send_all(REQUEST)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 503 ")
            await stream.aclose()


@pytest.mark.autojump
@pytest.mark.parametrize("steps", range(12))
async def test_whenever_a_request_begins_in_a_shutdown_its_client_does_not_wait(steps: int) -> None:
    router = trio_ws.Router()
    router.get("/")(lambda request: "a page")
    async with memory_server(router) as (server, listener, _):
        stream = await listener.connect()
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert b" 200 " in await stream.receive_some()
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            with suppress(trio.BrokenResourceError):  # it was closed, as an idle one may be
                await stream.send_all(b"GET /")
            answer = await stream.receive_some()
            assert not answer or b" 503 " in answer
            assert trio.current_time() == start
            await stream.aclose()


@pytest.mark.autojump
async def test_a_client_that_is_accepted_as_the_server_stops_is_told_503() -> None:
    async with memory_server(echo) as (server, listener, _):
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose)
            stream = await listener.connect()
            start = trio.current_time()
            assert b" 503 " in await stream.receive_some()
            assert trio.current_time() == start
            await stream.aclose()


@pytest.mark.autojump
async def test_a_client_that_takes_no_503_holds_up_a_shutdown_for_a_second() -> None:
    async with memory_server(echo) as (server, listener, _):
        stream = await listener.connect()
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        await server.aclose()
        assert trio.current_time() - start == REFUSAL_LINGER
        await stream.aclose()


@pytest.mark.parametrize("through", [True, False])
async def test_a_tls_client_is_told_503_where_tls_is_through_and_dropped_where_it_is_not(
    through: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server_context, client_context = tls_contexts(HOST)
    async with open_server(echo, ssl_context=server_context, grace_period=PATIENCE) as server:
        stream = await trio.open_tcp_stream(HOST, server.port)
        tls = trio.SSLStream(stream, client_context, server_hostname=HOST)
        if through:
            await tls.do_handshake()
        while not server.statistics().handshakes:
            await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked(0.01)
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose)
            if through:
                assert (await tls.receive_some()).startswith(b"HTTP/1.1 503 ")
            else:
                assert await stream.receive_some() == b""
            await trio.aclose_forcefully(tls)
        assert trio.current_time() - start < AT_ONCE  # not when grace_period is over
    dropped = "dropped in the opening handshake: the server stops"
    assert (dropped in caplog.text) is not through


async def test_who_says_nothing_before_a_proxy_header_is_dropped_at_shutdown() -> None:
    options: Any = {"trusted_proxies": [HOST], "proxy_header": "PROXY"}
    async with open_server(echo, **options) as server:
        async with await trio.open_tcp_stream(HOST, server.port) as stream:
            while not server.statistics().handshakes:
                await trio.sleep(0.001)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.aclose)
                assert await stream.receive_some() == b""


# A client that does not wait…


class Gate:
    """A `process_request` that takes its time."""

    def __init__(self) -> None:
        self.entered, self.opens = trio.Event(), trio.Event()
        self.served: list[WebSocket] = []

    async def process_request(self, request: trio_ws.Request) -> None:
        self.entered.set()
        await self.opens.wait()

    async def handler(self, ws: WebSocket) -> None:
        self.served.append(ws)
        await echo(ws)


async def wait_until_refused(server: WebSocketServer) -> None:
    with trio.fail_after(PATIENCE):
        while not server.statistics().refused_total:
            await trio.sleep(0.001)


@pytest.mark.parametrize("how", [trio.SocketStream.aclose, reset])
@pytest.mark.parametrize("with_router", [False, True])
async def test_a_client_that_left_while_process_request_waited_is_not_handed_to_the_handler(
    how: Callable[[trio.SocketStream], Any], with_router: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    gate = Gate()
    router = trio_ws.Router(before=gate.process_request)
    router.websocket("/chat")(gate.handler)
    process_request = None if with_router else gate.process_request
    handler = router if with_router else gate.handler
    async with open_server(handler, process_request=process_request) as server:
        stream = await trio.open_tcp_stream(HOST, server.port)
        await stream.send_all(REQUEST)
        await gate.entered.wait()
        if (leaving := how(stream)) is not None:
            await leaving
        await trio.sleep(0.01)  # the kernel hands it over
        gate.opens.set()
        await wait_until_refused(server)
    assert not gate.served
    assert "left: the client hung up while it was decided whether to let it in" in caplog.text


async def test_a_tls_client_that_left_while_process_request_waited_is_not_handed_over_either() -> (
    None
):
    server_context, client_context = tls_contexts(HOST)
    gate = Gate()
    options: Any = {"ssl_context": server_context, "process_request": gate.process_request}
    async with open_server(gate.handler, **options) as server:
        stream = await trio.open_tcp_stream(HOST, server.port)
        tls = trio.SSLStream(stream, client_context, server_hostname=HOST)
        await tls.send_all(REQUEST)
        await gate.entered.wait()
        await trio.aclose_forcefully(tls)
        await trio.sleep(0.01)
        gate.opens.set()
        await wait_until_refused(server)
        assert not gate.served

        async with open_websocket_url(server.urls[0], ssl_context=client_context) as ws:
            await ws.send("one that stays")
            assert await ws.receive() == "one that stays"


async def test_what_a_client_said_before_it_left_is_handed_to_the_handler() -> None:
    gate = Gate()
    received: list[str | bytes] = []

    async def handler(ws: WebSocket) -> None:
        with pytest.raises(ConnectionLost):
            while True:
                received.append(await ws.receive())

    async with open_server(handler, process_request=gate.process_request) as server:
        async with await trio.open_tcp_stream(HOST, server.port) as stream:
            await stream.send_all(REQUEST)
            await gate.entered.wait()
            await stream.send_all(frame(TEXT, b"bye", mask=True))
            await stream.send_eof()
            await trio.sleep(0.01)
            gate.opens.set()
            assert b"101 Switching" in await stream.receive_some()
            while await stream.receive_some():
                pass
    assert received == ["bye"]


async def test_a_handshake_that_completes_during_the_shutdown_is_closed_with_1001() -> None:
    asked, answer = trio.Event(), trio.Event()

    async def slow_request(request: trio_ws.Request) -> None:
        asked.set()
        with trio.CancelScope(shield=True):
            await answer.wait()

    async with open_server(echo, process_request=slow_request) as server:
        async with trio.open_nursery() as nursery:
            stream = await trio.open_tcp_stream(HOST, server.port)
            await stream.send_all(REQUEST)
            await asked.wait()
            nursery.start_soon(server.aclose)
            await trio.testing.wait_all_tasks_blocked()
            answer.set()
            start = trio.current_time()
            received = b""
            while not received.endswith(b"\x88\x02\x03\xe9"):
                received += await stream.receive_some()
            assert received.startswith(b"HTTP/1.1 101 ")
            assert trio.current_time() - start < 2  # not when grace_period is over
            await stream.aclose()


async def test_only_the_first_failure_is_raised() -> None:
    both = trio.Event()

    async def handler(ws: WebSocket) -> None:
        await both.wait()
        raise Boom(ws.request.path)

    with pytest.raises(Boom):
        async with open_bare_server(handler, on_handler_error="propagate") as server:
            url = server.urls[0]
            async with open_websocket_url(url) as one, open_websocket_url(url) as other:
                both.set()
                await one.wait_closed()
                await other.wait_closed()
            await trio.sleep_forever()
    assert server.statistics().handler_errors_total == 2


@pytest.mark.autojump
async def test_an_exception_beside_the_server_still_shuts_it_down_in_good_order() -> None:
    codes: list[int] = []

    async def client(stream: trio.abc.Stream, listener: MemoryListener) -> None:
        async with connect(listener, stream) as ws:
            codes.append((await ws.wait_closed()).code)

    async with trio.open_nursery() as outside:
        with pytest.raises(ExceptionGroup):
            async with memory_server(echo) as (_, listener, _):
                outside.start_soon(client, await listener.connect(), listener)
                await trio.testing.wait_all_tasks_blocked()
                raise Boom
    assert codes == [1001]


@pytest.mark.autojump
async def test_a_listener_that_breaks_shuts_the_server_down_and_raises_its_error() -> None:
    listener = MemoryListener()
    with pytest.raises(OSError, match="gone") as caught:
        async with open_bare_memory_server(listener):
            listener.error = OSError(errno.ENODEV, "gone")
            await listener.connect()
            await trio.sleep_forever()
    assert caught.value is listener.error


@asynccontextmanager
async def open_bare_memory_server(
    listener: MemoryListener,
) -> AsyncGenerator[WebSocketServer, None]:
    async with open_bare_nursery() as nursery:
        yield await nursery.start(serve_listeners, echo, [listener])


SERVE_ALONE = """
import trio, trio_ws

class Status:
    def started(self, server):
        print(server.port, flush=True)

async def echo(ws):
    async for message in ws:
        await ws.send(message)

async def main():
    await trio_ws.serve_websocket(echo, "127.0.0.1", 0, task_status=Status())

try:
    trio.run(main)
except KeyboardInterrupt:
    print("bare", flush=True)
"""


async def test_ctrl_c_is_a_graceful_shutdown_and_a_bare_keyboard_interrupt() -> None:
    process = await trio.lowlevel.open_process([sys.executable, "-c", SERVE_ALONE], stdout=PIPE)
    assert process.stdout is not None
    async with process.stdout:
        port = int(await process.stdout.receive_some())
        async with open_websocket_url(f"ws://{HOST}:{port}") as ws:
            await ws.send("x")
            assert await ws.receive() == "x"
            process.send_signal(signal.SIGINT)
            assert (await ws.wait_closed()).code == 1001
        rest = b"".join([chunk async for chunk in process.stdout])
        await process.wait()
    assert rest.split() == [b"bare"]
    assert process.returncode == 0


# Many…


async def test_six_hundred_quick_connects_half_aborted_leave_nothing_behind() -> None:
    async with open_server(echo) as server:
        await trio.testing.wait_all_tasks_blocked()
        before_tasks = trio.lowlevel.current_statistics().tasks_living
        before_descriptors = len(open_descriptors())

        async def quick(number: int) -> None:
            if number % 2:
                async with open_websocket_url(server.urls[0]) as ws:
                    await ws.send("x")
                    assert await ws.receive() == "x"
                return
            stream = await trio.open_tcp_stream(HOST, server.port)
            await stream.send_all(REQUEST[: number % len(REQUEST)])
            if number % 4:
                await stream.aclose()
            else:
                reset(stream)

        limit = trio.CapacityLimiter(50)

        async def limited(number: int) -> None:
            async with limit:
                await quick(number)

        async with trio.open_nursery() as nursery:
            for number in range(600):
                nursery.start_soon(limited, number)
        with trio.move_on_after(PATIENCE):
            while (
                trio.lowlevel.current_statistics().tasks_living > before_tasks
                or len(open_descriptors()) > before_descriptors
            ):
                await trio.sleep(0.01)
        assert trio.lowlevel.current_statistics().tasks_living <= before_tasks
        assert len(open_descriptors()) <= before_descriptors
        assert server.statistics().connections == 0
        assert server.statistics().connections_total == 300


@pytest.mark.autojump
async def test_a_server_out_of_descriptors_says_so_waits_and_accepts_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Recovering(trio.abc.Listener[trio.abc.Stream]):
        """Fails a few times, and then lets one client in."""

        def __init__(self, stream: trio.abc.Stream) -> None:
            self.failures = 3
            self.streams = [stream]

        async def accept(self) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "too many open files")
            if not self.streams:
                await trio.sleep_forever()
            return self.streams.pop()

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    client, server_end = trio.testing.memory_stream_pair()
    listener = Recovering(server_end)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_ws.serve_listeners, echo, [listener])
        async with trio_ws.wrap_client_stream(client, "ws://example.org/") as ws:
            await ws.send("fine")
            assert await ws.receive() == "fine"
            assert 0.25 < trio.current_time() - start < 1
            assert shortages(caplog) == ["ERROR"]
            await trio.sleep(10)
            assert shortages(caplog) == ["ERROR", "WARNING"]
            assert "connections are accepted again, after 0.3 s" in caplog.text
        await server.aclose()


def shortages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if "accept" in record.message]


@pytest.mark.autojump
async def test_a_shortage_in_which_a_client_gets_in_now_and_then_is_one_shortage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As many clients wait as there are, and each that leaves makes room for one."""

    class Short(MemoryListener):
        turns = 0

        async def accept(self) -> trio.abc.Stream:
            self.turns += 1
            if self.turns % 2 and self.turns < 200:
                raise OSError(errno.ENFILE, "the system has no file to spare")
            return await super().accept()

    async with trio.open_nursery() as nursery:
        listeners = [Short(), Short()]
        server = await nursery.start(serve_listeners, echo, listeners)
        clients = [await listeners[number % 2].connect() for number in range(210)]
        await trio.sleep(10)
        assert shortages(caplog) == ["ERROR", "WARNING"]
        for client in clients:
            await client.aclose()
        await server.aclose()


async def test_an_error_of_accept_loses_one_connection_and_the_server_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    errors = fail_accepting(monkeypatch)
    async with open_server(echo) as server:
        for number in (errno.EPROTO, errno.ENETDOWN, errno.ETIMEDOUT):
            errors.append(OSError(number, "the network said so"))
            async with open_websocket_url(server.urls[0]) as ws:
                await ws.send("still there")
                assert await ws.receive() == "still there"
    assert caplog.text.count("a connection was lost before it was accepted: ") == 3


async def test_a_client_that_is_gone_before_it_is_accepted_is_only_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with open_server(echo) as server:
        with socket.create_connection((HOST, server.port)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with trio.fail_after(PATIENCE):
            while server.statistics().refused_total < 1:
                await trio.sleep(0.001)
        async with open_websocket_url(server.urls[0]) as ws:
            await ws.send("still there")
            assert await ws.receive() == "still there"
    assert "left: the connection broke in the handshake" in caplog.text


@pytest.mark.autojump
async def test_a_refusal_of_what_was_there_at_once_counts_and_ends_with_the_server() -> None:
    async with open_server(echo) as server:
        with socket.create_connection((HOST, server.port)) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")  # asks for no WebSocket
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


async def test_a_connection_that_is_over_is_freed_without_the_garbage_collector() -> None:
    served: list[weakref.ref[WebSocket]] = []

    async def handler(ws: WebSocket) -> None:
        served.append(weakref.ref(ws))
        await echo(ws)

    gc.disable()
    try:
        async with open_server(handler) as server:
            async with open_websocket_url(server.urls[0]) as ws:
                await ws.send("x")
                assert await ws.receive() == "x"
            with trio.fail_after(PATIENCE):
                while server.connections or served[0]() is not None:
                    await trio.sleep(0.001)
    finally:
        gc.enable()
