"""The shutdown of a server: handlers, clients in the handshake, failures, signals."""

from __future__ import annotations

import errno
import math
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from subprocess import PIPE
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.helpers import AT_ONCE, HOST, PATIENCE, REQUEST, echo, open_server
from tests.server.server_helpers import (
    Boom,
    MemoryListener,
    connect,
    memory_server,
    open_bare_server,
)
from tests.tls_helpers import tls_contexts
from trio_ws import (
    CloseReason,
    ConnectionEnded,
    Initiator,
    WebSocket,
    WebSocketServer,
    open_websocket_url,
    serve_listeners,
)
from trio_ws._nursery import open_bare_nursery
from trio_ws._server.shutdown import Shutdown
from trio_ws._transport.opening import REFUSAL_LINGER

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


async def cancel(server: WebSocketServer, scope: trio.CancelScope) -> None:
    scope.cancel()


async def close(server: WebSocketServer, scope: trio.CancelScope) -> None:
    await server.aclose()


STOPS = {"cancelled": cancel, "aclose": close}


@pytest.mark.autojump
@pytest.mark.parametrize("sent", [b"", REQUEST[:20], REQUEST], ids=["nothing", "half", "all"])
@pytest.mark.parametrize("how", STOPS)
async def test_a_client_in_the_handshake_is_told_503_at_shutdown(sent: bytes, how: str) -> None:
    async with memory_server(echo, process_request=wait_for_nothing) as (server, listener, scope):
        stream = await listener.connect()
        if sent:
            await stream.send_all(sent)
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().handshakes == 1
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(STOPS[how], server, scope)
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
async def test_a_shutdown_cuts_short_what_waits_when_it_begins_and_not_what_begins_later() -> None:
    shutdown = Shutdown()
    ended: list[str] = []

    async def wait() -> None:
        with shutdown.cutting_short(math.inf) as scope:
            await trio.sleep(math.inf)
        ended.append("cut short" if scope.cancelled_caught else "by itself")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        shutdown.begin(1012, "restart")
        shutdown.begin(1001, "again")
        with shutdown.cutting_short(trio.current_time() + 1) as later:
            await trio.testing.wait_all_tasks_blocked()
            assert ended == ["cut short"]
            await trio.sleep(math.inf)
        assert later.cancelled_caught
    assert shutdown.close == (1012, "restart")


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


async def test_a_client_that_sends_no_proxy_header_is_dropped_at_shutdown() -> None:
    options: Any = {"trusted_proxies": [HOST], "proxy_header": "PROXY"}
    async with open_server(echo, **options) as server:
        async with await trio.open_tcp_stream(HOST, server.port) as stream:
            while not server.statistics().handshakes:
                await trio.sleep(0.001)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.aclose)
                assert await stream.receive_some() == b""


async def test_over_tcp_a_drain_closes_all_with_1012() -> None:
    reasons: list[tuple[int, Initiator]] = []

    async def live(url: str, opened: trio.Event) -> None:
        async with open_websocket_url(url) as ws:
            opened.set()
            reason = await ws.wait_closed()
            reasons.append((reason.code, reason.initiator))

    start = trio.current_time()
    async with open_server(echo) as server, trio.open_nursery() as nursery:
        for _ in range(20):
            opened = trio.Event()
            nursery.start_soon(live, server.urls[0], opened)
            await opened.wait()
        nursery.start_soon(server.drain, 0.3)
        await trio.testing.wait_all_tasks_blocked()
        async with await trio.open_tcp_stream(HOST, server.port) as stream:
            await stream.send_all(REQUEST)
            assert b" 503 " in await stream.receive_some()
    assert reasons == [(1012, Initiator.REMOTE)] * 20
    assert trio.current_time() - start < AT_ONCE


# What ends a server…


async def test_a_handshake_that_completes_during_the_shutdown_is_closed_with_1001() -> None:
    asked, answer = trio.Event(), trio.Event()

    async def slow_request(request: trio_ws.Request) -> None:
        asked.set()
        with trio.CancelScope(shield=True):
            await answer.wait()

    async with open_server(echo, process_request=slow_request, grace_period=PATIENCE) as server:
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
            assert trio.current_time() - start < AT_ONCE  # not when grace_period is over
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


@asynccontextmanager
async def open_bare_memory_server(
    listener: MemoryListener,
) -> AsyncGenerator[WebSocketServer, None]:
    async with open_bare_nursery() as nursery:
        yield await nursery.start(serve_listeners, echo, [listener])


@pytest.mark.autojump
async def test_a_listener_that_breaks_shuts_the_server_down_and_raises_its_error() -> None:
    listener = MemoryListener()
    with pytest.raises(OSError, match="gone") as caught:
        async with open_bare_memory_server(listener):
            listener.error = OSError(errno.ENODEV, "gone")
            await listener.connect()
            await trio.sleep_forever()
    assert caught.value is listener.error


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
