"""What is over is freed at once, however it ended and whatever it was used for.

A cycle of references keeps a connection, its buffers and its compression windows until the garbage
collector looks, which in a busy program is late. So here the collector is off.
"""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import ssl
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import (
    HOST,
    REQUEST,
    TEXT,
    RawPeer,
    echo,
    open_client_with_raw_server,
    open_server,
    open_server_with_raw_client,
    reset,
    tcp_pair,
)
from tests.tls_helpers import tls_contexts
from trio_ws import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionLost,
    ConnectionRejected,
    Handler,
    HandshakeError,
    Response,
    WebSocket,
    WebSocketServer,
    as_stream,
    open_broadcast,
    open_websocket_url,
    serve_websocket,
    wrap_client_stream,
)
from trio_ws._nursery import open_bare_nursery
from trio_ws.testing import open_test_websocket

pytestmark = pytest.mark.autojump

Reference = weakref.ref[WebSocket]

#: pytest keeps what is logged, tracebacks included.
QUIET = logging.getLogger("test_freeing")
QUIET.setLevel(logging.CRITICAL + 1)


@pytest.fixture(autouse=True)
def the_collector_is_off() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@contextmanager
def no_cycle() -> Iterator[list[Reference]]:
    """Nothing is left that only the collector would free, and none of these connections."""
    gc.collect()
    references: list[Reference] = []
    yield references
    alive = [ws for reference in references if (ws := reference()) is not None]
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        count = gc.collect()
        frames = [each.f_code for each in gc.garbage if isinstance(each, FrameType)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not alive
    assert not count, f"{count} objects in cycles, among them the frames of {frames}"


class Boom(Exception):
    """What the application raises."""


# ---------------------------------------------------------------------------
# What a connection is used for when it ends
# ---------------------------------------------------------------------------


async def iterate(ws: WebSocket) -> None:
    async for _ in ws:
        pass


async def receive(ws: WebSocket) -> None:
    while True:
        await ws.receive()


async def poll(ws: WebSocket) -> None:
    while True:
        with suppress(trio.WouldBlock):
            ws.receive_nowait()
        await trio.sleep(0.01)


async def send(ws: WebSocket) -> None:
    while True:
        await ws.send(b"x" * 100_000)


async def send_small(ws: WebSocket) -> None:
    while True:
        await ws.send("x")
        await trio.sleep(0.01)


async def send_without_waiting(ws: WebSocket) -> None:
    while True:
        with suppress(trio.WouldBlock):
            ws.send_nowait("x")
        await trio.sleep(0.01)


async def ping(ws: WebSocket) -> None:
    while True:
        await ws.ping()


async def in_a_nursery(ws: WebSocket) -> None:
    async with ws.open_nursery() as nursery:
        nursery.start_soon(send_without_waiting, ws)
        await iterate(ws)


async def in_a_silent_nursery(ws: WebSocket) -> None:
    async with ws.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)


async def in_pieces(ws: WebSocket) -> None:
    while True:
        async with ws.receive_message() as chunks:
            async for _ in chunks:
                pass


async def in_fragments(ws: WebSocket) -> None:
    async with ws.open_message("binary") as writer:
        while True:
            await writer.send(b"x" * 1000)
            await trio.sleep(0.01)


async def publish(ws: WebSocket) -> None:
    async with open_broadcast(max_queued_messages=2) as broadcast:
        with broadcast.subscribe(ws, "t"):
            for _ in range(20):
                broadcast.publish(b"x" * 100_000, "t")
            await iterate(ws)


async def as_a_stream(ws: WebSocket) -> None:
    async for _ in as_stream(ws):
        pass


async def wait(ws: WebSocket) -> None:
    await ws.wait_closed()


async def raise_it(ws: WebSocket) -> None:
    await trio.sleep(0.1)
    raise Boom


async def raise_it_in_a_nursery(ws: WebSocket) -> None:
    async with ws.open_nursery() as nursery:
        nursery.start_soon(raise_it, ws)
        await iterate(ws)


async def cancel_the_nursery(ws: WebSocket) -> None:
    async with ws.open_nursery() as nursery:
        nursery.start_soon(send_without_waiting, ws)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()


USES = (
    iterate,
    receive,
    poll,
    send,
    send_small,
    send_without_waiting,
    ping,
    in_a_nursery,
    in_a_silent_nursery,
    in_pieces,
    in_fragments,
    publish,
    as_a_stream,
    wait,
    raise_it,
    raise_it_in_a_nursery,
    cancel_the_nursery,
)

# ---------------------------------------------------------------------------
# How it ends
# ---------------------------------------------------------------------------

End = Callable[[WebSocket, RawPeer, trio.CancelScope], Awaitable[object]]


def peer_closes(code: int | None) -> End:
    async def end(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
        await peer.send_close(code)

    return end


async def peer_hangs_up(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    await peer.stream.aclose()


async def peer_resets(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    assert isinstance(peer.stream, trio.SocketStream)
    reset(peer.stream)


async def peer_is_wrong(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    await peer.send_frame(0x5)


async def peer_leaves_half(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    await peer.send_frame(TEXT, b"half a message", fin=False)
    await trio.sleep(0.01)
    await peer.stream.aclose()


async def peer_is_silent(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    pass


async def we_close(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    await ws.aclose()


async def we_are_cancelled(ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    scope.cancel()


ENDS: dict[str, End] = {
    "1000": peer_closes(1000),
    "1002": peer_closes(1002),
    "4000": peer_closes(4000),
    "no code": peer_closes(None),
    "EOF": peer_hangs_up,
    "reset": peer_resets,
    "violation": peer_is_wrong,
    "half a message": peer_leaves_half,
    "ping timeout": peer_is_silent,
    "aclose": we_close,
    "cancellation": we_are_cancelled,
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("opener", [open_server_with_raw_client, open_client_with_raw_server])
async def test_a_connection_is_freed_however_it_ends(opener: Any, end: str, use: Any) -> None:
    with no_cycle() as references:
        for caught_inside in (True, False):
            await converse(opener, use, ENDS[end], references, caught_inside=caught_inside)
            await trio.testing.wait_all_tasks_blocked()


async def converse(
    opener: Any,
    use: Callable[[WebSocket], Awaitable[object]],
    end: End,
    references: list[Reference],
    *,
    caught_inside: bool,
) -> None:
    streams = await tcp_pair()
    with trio.fail_after(20), trio.CancelScope() as scope:
        try:
            async with (
                trio.open_nursery() as nursery,
                opener(streams=streams, ping_interval=0.2, ping_timeout=0.2, close_timeout=0.2) as (
                    ws,
                    peer,
                ),
            ):
                references.append(weakref.ref(ws))
                nursery.start_soon(end_soon, end, ws, peer, scope)
                if caught_inside:
                    with suppress(ConnectionClosed, trio.ClosedResourceError, Boom):
                        await use(ws)
                else:
                    await use(ws)
        except* (ConnectionClosed, trio.ClosedResourceError, Boom):
            pass


async def end_soon(end: End, ws: WebSocket, peer: RawPeer, scope: trio.CancelScope) -> None:
    await trio.sleep(0.05)
    await end(ws, peer, scope)


# ---------------------------------------------------------------------------
# On a server that goes on
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("end", ["1000", "4000", "EOF", "reset", "violation", "half a message"])
async def test_a_server_keeps_nothing_of_a_handler_however_its_connection_ends(
    end: str, use: Any
) -> None:
    with no_cycle() as references:
        options = {"logger": QUIET, "ping_interval": 0.2, "ping_timeout": 0.2, "close_timeout": 0.2}
        async with open_server(remember(references, use), **options) as server:
            stream = await trio.open_tcp_stream(HOST, server.port)
            peer = RawPeer(stream, masks=True)
            await peer.send(REQUEST)
            await trio.sleep(0.05)
            (ws,) = server.connections
            await ENDS[end](ws, peer, trio.CancelScope())
            del ws
            await trio.sleep(1)
            assert not server.connections
            assert [reference() for reference in references] == [None]
        await trio.aclose_forcefully(stream)


async def raise_what_it_was_given(ws: WebSocket) -> None:
    async for message in ws:
        raise Boom(message)


async def close(ws: WebSocket) -> None:
    async for _ in ws:
        await ws.aclose(4000)


def fail_again(ws: WebSocket, exc: Exception) -> None:
    raise exc


@pytest.mark.parametrize(
    ("handler", "options"),
    [
        (echo, {"idle_timeout": 0.1}),
        (echo, {"max_lifetime": 0.1}),
        (echo, {"max_message_size": 5}),
        (close, {}),
        (raise_what_it_was_given, {}),
        (raise_what_it_was_given, {"on_handler_error": lambda ws, exc: None}),
        (raise_what_it_was_given, {"on_handler_error": fail_again}),
        (raise_it_in_a_nursery, {}),
        (publish, {"idle_timeout": 0.1}),
    ],
)
async def test_a_server_keeps_nothing_of_a_connection_that_is_over(
    handler: Any, options: dict[str, Any]
) -> None:
    with no_cycle() as references:
        async with open_server(remember(references, handler), logger=QUIET, **options) as server:
            await talk(server)
            await trio.testing.wait_all_tasks_blocked()
            assert [reference() for reference in references] == [None]


def remember(references: list[Reference], handler: Any) -> Any:
    async def remembering(ws: WebSocket) -> None:
        references.append(weakref.ref(ws))
        await handler(ws)

    return remembering


async def talk(server: WebSocketServer, **options: Any) -> None:
    with suppress(ConnectionLost):
        async with open_websocket_url(server.urls[0], **options) as ws:
            await ws.send("a message")
            async for _ in ws:
                pass


async def stay(ws: WebSocket) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("handler", [echo, stay])
@pytest.mark.parametrize("code", [1001, 1012])
async def test_a_server_that_is_closed_keeps_nothing(handler: Any, code: int) -> None:
    with no_cycle() as references:
        async with open_server(remember(references, handler), grace_period=0.1) as server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk, server)
                await trio.sleep(0.05)
                await server.aclose(code)


@pytest.mark.parametrize("handler", [echo, stay])
async def test_a_server_that_is_cancelled_keeps_nothing(handler: Any) -> None:
    with no_cycle() as references:
        handler = remember(references, handler)
        serve = partial(serve_websocket, handler, HOST, 0, grace_period=0.1)
        async with trio.open_nursery() as clients, trio.open_nursery() as servers:
            clients.start_soon(talk, await servers.start(serve))
            await trio.sleep(0.05)
            servers.cancel_scope.cancel()


async def test_a_server_that_raises_what_its_handler_did_keeps_nothing() -> None:
    with no_cycle() as references:
        handler = remember(references, raise_what_it_was_given)
        with pytest.raises(Boom):
            async with open_server(handler, on_handler_error="propagate") as server:
                await talk(server)


async def test_a_test_of_a_handler_that_raises_keeps_nothing() -> None:
    # trio's memory streams refer to each other, so that only the connections are looked at.
    references: list[Reference] = []
    with pytest.raises(Boom):
        await talk_in_memory(remember(references, raise_what_it_was_given), references)
    await trio.testing.wait_all_tasks_blocked()
    assert [reference() for reference in references] == [None, None]


async def talk_in_memory(handler: Handler, references: list[Reference]) -> None:
    async with open_test_websocket(handler) as ws:
        references.append(weakref.ref(ws))
        await ws.send("a message")
        await ws.receive()


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
            async with wrap_client_stream(stream, "wss://x/") as ws:
                await ws.send("x")
                assert await ws.receive() == "x"
            assert stream.version().startswith("TLS")


# ---------------------------------------------------------------------------
# Handshakes that fail
# ---------------------------------------------------------------------------


def refuse(request: object) -> Response:
    return Response(403)


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
@pytest.mark.parametrize("how", ["waits", "hangs up", "resets", "is there at the end"])
async def test_a_server_keeps_nothing_of_a_handshake_that_fails(request_: bytes, how: str) -> None:
    with no_cycle():
        async with open_server(echo, open_timeout=1) as server:
            stream = await trio.open_tcp_stream(HOST, server.port)
            if request_:
                await stream.send_all(request_)
            await trio.testing.wait_all_tasks_blocked()
            if how == "waits":
                await trio.sleep(2)
            elif how == "resets":
                reset(stream)
            elif how == "hangs up":
                await stream.aclose()
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
@pytest.mark.parametrize("how", ["waits", "hangs up", "resets"])
async def test_a_client_keeps_nothing_of_a_handshake_that_fails(response: bytes, how: str) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if response:
            await stream.send_all(response)
        if how == "waits":
            await trio.sleep(2)
        elif how == "resets":
            reset(stream)
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


# ---------------------------------------------------------------------------
# The nursery behind them
# ---------------------------------------------------------------------------


async def cancel_itself(nursery: trio.Nursery, scope: trio.CancelScope) -> None:
    nursery.cancel_scope.cancel()
    await trio.sleep_forever()


async def be_cancelled_from_outside(nursery: trio.Nursery, scope: trio.CancelScope) -> None:
    scope.cancel()
    await trio.sleep_forever()


async def fail_alone(nursery: trio.Nursery, scope: trio.CancelScope) -> None:
    nursery.cancel_scope.cancel()
    raise Boom


async def fail_with_a_task(nursery: trio.Nursery, scope: trio.CancelScope) -> None:
    async def fail_in_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Boom

    nursery.start_soon(fail_in_the_end)
    await trio.testing.wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()
    raise Boom


BODIES = (
    cancel_itself,
    be_cancelled_from_outside,
    fail_alone,
    fail_with_a_task,
)


@pytest.mark.parametrize("body", BODIES)
async def test_a_bare_nursery_leaves_no_cycle(body: Any) -> None:
    async def open_it() -> None:
        with trio.CancelScope() as scope:
            try:
                async with open_bare_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    await body(nursery, scope)
            except* Boom:
                pass

    with no_cycle():
        await open_it()


# ---------------------------------------------------------------------------
# The exceptions themselves
# ---------------------------------------------------------------------------


async def raised_by(use: Callable[[WebSocket], Awaitable[object]], end: End) -> Exception:
    """What a receiver is told of the end, without what it was told by."""
    client, server = await tcp_pair()
    async with open_server_with_raw_client(streams=(client, server), close_timeout=0.2) as (
        ws,
        peer,
    ):
        await end(ws, peer, trio.CancelScope())
        with pytest.raises((ConnectionClosed, trio.ClosedResourceError)) as info:
            await use(ws)
    return info.value


@pytest.mark.parametrize("end", ["1000", "1002", "no code", "EOF", "reset", "violation", "aclose"])
@pytest.mark.parametrize("use", [receive, send, ping])
async def test_an_exception_that_is_kept_can_be_copied_and_pickled(use: Any, end: str) -> None:
    error = await raised_by(use, ENDS[end])
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


async def test_what_this_side_closed_is_not_kept_by_the_exception_that_says_so() -> None:
    async with open_server_with_raw_client(close_timeout=0.2) as (ws, _):
        await ws.aclose()
        with pytest.raises(trio.ClosedResourceError, match="this side closed") as info:
            await ws.receive()
    error = info.value.with_traceback(None)
    reference = weakref.ref(ws)
    del info, ws
    await trio.testing.wait_all_tasks_blocked()
    assert reference() is None, error


async def test_a_nursery_tells_our_close_of_another_connection_from_its_own() -> None:
    async with (
        open_server_with_raw_client(close_timeout=0.1) as (one, _),
        open_server_with_raw_client(close_timeout=0.1) as (other, _),
    ):
        await other.aclose()
        with pytest.RaisesGroup(trio.ClosedResourceError):
            async with one.open_nursery():
                await other.receive()
        async with one.open_nursery() as nursery:
            nursery.start_soon(one.aclose)
            await trio.sleep(1)
            await one.receive()
