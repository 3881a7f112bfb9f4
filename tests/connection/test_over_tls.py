"""Connections over our TLS do what those over plain sockets do, from `receive` to broadcasts.

How TLS itself behaves is tested in `tests/transport/test_tls.py`.
"""

from __future__ import annotations

import itertools
import random
import socket
import ssl
import struct
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from math import inf
from typing import Any, TypeAlias

import pytest
import trio
import trio.testing
import trustme

from tests.connection.reading_helpers import let_receivers_read, receive_alone, send_text
from tests.helpers import (
    HOST,
    PATIENCE,
    REQUEST,
    TEXT,
    RawPeer,
    echo,
    forever,
    open_server,
    tcp_pair,
)
from tests.tls_helpers import tls_contexts
from tests.whole.sweeping import CancelAtStep, converse
from trio_ws import (
    CloseCode,
    ConnectionClosed,
    ConnectionLost,
    DropOldest,
    HandshakeError,
    Request,
    WebSocket,
    WebSocketServer,
    open_broadcast,
    open_websocket_url,
    wrap_client_stream,
    wrap_server_stream,
)

SERVER, CLIENT = tls_contexts(HOST)

TLSStream: TypeAlias = trio.SSLStream[trio.SocketStream]


class Keeping:
    """A handler that hands its connection over to the test, until that is done."""

    def __init__(self) -> None:
        self.come = trio.Event()
        self.done = trio.Event()

    async def __call__(self, ws: WebSocket) -> None:
        self.websocket = ws
        self.come.set()
        await self.done.wait()


@asynccontextmanager
async def open_both(**options: Any) -> AsyncGenerator[tuple[WebSocket, WebSocket], None]:
    """A client and the server's end of its connection."""
    keeping = Keeping()
    async with open_server(keeping, ssl_context=SERVER, **options) as server:
        async with open_websocket_url(server.urls[0], ssl_context=CLIENT) as client:
            with trio.fail_after(PATIENCE):
                await keeping.come.wait()
                try:
                    yield client, keeping.websocket
                finally:
                    keeping.done.set()


async def open_stream(server: WebSocketServer, context: ssl.SSLContext = CLIENT) -> TLSStream:
    stream = await trio.open_tcp_stream(HOST, server.port)
    return trio.SSLStream(stream, context, server_hostname=HOST)


@asynccontextmanager
async def open_raw(**options: Any) -> AsyncGenerator[tuple[WebSocket, RawPeer, TLSStream], None]:
    """The server's end of a connection, and a client that speaks bytes over trio's TLS."""
    keeping = Keeping()
    async with open_server(keeping, ssl_context=SERVER, **options) as server:
        stream = await open_stream(server)
        with trio.fail_after(PATIENCE):
            await stream.send_all(REQUEST)
            await keeping.come.wait()
            peer = RawPeer(stream, masks=True)
            while b"\r\n\r\n" not in peer.received:
                peer.received += await stream.receive_some()
            del peer.received[: peer.received.index(b"\r\n\r\n") + 4]
            try:
                yield keeping.websocket, peer, stream
            finally:
                keeping.done.set()
                await trio.aclose_forcefully(stream)


def asking_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server that demands a certificate, and a client that has one."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    client = ssl.create_default_context()
    authority.issue_cert(HOST).configure_cert(server)
    authority.issue_cert("ada@example.org").configure_cert(client)
    for context in (server, client):
        authority.configure_trust(context)
        context.set_alpn_protocols(["http/1.1"])
    server.verify_mode = ssl.CERT_REQUIRED
    return server, client


def name_of(request: Request) -> str:
    """Whose certificate the other side has shown."""
    assert request.tls is not None
    certificate: Any = request.tls.getpeercert()
    return str(certificate["subjectAltName"][0][1])


async def tell_name(ws: WebSocket) -> None:
    assert ws.tls is not None
    await ws.send_json([name_of(ws.request), ws.tls.version(), ws.tls.selected_alpn_protocol()])


async def test_a_handler_and_a_hook_read_the_certificate_that_the_client_shows() -> None:
    server_context, client_context = asking_contexts()
    asked: list[str] = []

    def judge(request: Request) -> None:
        asked.append(name_of(request))

    async with open_server(tell_name, ssl_context=server_context, process_request=judge) as server:
        async with open_websocket_url(server.urls[0], ssl_context=client_context) as ws:
            assert await ws.receive_json() == ["ada@example.org", "TLSv1.3", "http/1.1"]
            assert ws.tls is ws.request.tls
            assert name_of(ws.request) == HOST
    assert asked == ["ada@example.org"]


async def test_the_certificate_is_there_for_a_stream_that_was_brought_with_tls() -> None:
    server_context, client_context = asking_contexts()
    near, far = await tcp_pair()
    ours = trio.SSLStream(near, client_context, server_hostname=HOST)
    theirs = trio.SSLStream(far, server_context, server_side=True)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            async with wrap_server_stream(theirs) as ws:
                assert ws.tls is theirs
                await tell_name(ws)

        nursery.start_soon(serve)
        async with wrap_client_stream(ours, f"wss://{HOST}/") as ws:
            assert ws.tls is ours
            assert await ws.receive_json() == ["ada@example.org", "TLSv1.3", "http/1.1"]


async def test_without_tls_there_is_no_certificate_to_ask_for() -> None:
    async with open_server(echo) as server:
        async with open_websocket_url(server.urls[0]) as ws:
            assert ws.tls is None


async def test_a_task_in_receive_reads_from_tls_itself() -> None:
    async with open_raw() as (ws, peer, _):
        await let_receivers_read(ws, send_text(peer))
        for number in range(10):
            await peer.send_frame(TEXT, b"%d" % number)
            await trio.testing.wait_all_tasks_blocked()
            assert await receive_alone(ws) == f"{number}"


async def test_a_client_s_task_in_receive_reads_from_tls_itself() -> None:
    async with open_both() as (client, server):
        await let_receivers_read(client, server.send)
        for number in range(10):
            await server.send(f"{number}")
            await trio.testing.wait_all_tasks_blocked()
            assert await receive_alone(client) == f"{number}"


async def test_a_message_is_written_at_once() -> None:
    async with open_both() as ends:
        for one in ends:
            one.send_nowait("x" * 100_000)
            assert one.statistics().unsent_bytes == 0


async def test_answers_are_gathered_up_to_the_last_message_that_waits() -> None:
    async with open_both() as (client, server):
        for number in range(10):
            await client.send(f"{number}")
        await client.ping()  # they have all arrived
        unsent: list[bool] = []
        while server.statistics().queued_messages:
            server.send_nowait(server.receive_nowait())
            unsent.append(server.statistics().unsent_bytes > 0)
        assert unsent == [True] * 9 + [False]
        assert [await client.receive() for _ in range(10)] == [f"{n}" for n in range(10)]


async def test_messages_of_every_size_come_back_in_order() -> None:
    async with open_server(echo, ssl_context=SERVER, max_message_size=2**23) as server:
        options: Any = {"ssl_context": CLIENT, "max_message_size": 2**23}
        async with open_websocket_url(server.urls[0], **options) as client:
            sizes = [0, 1, 125, 126, 16_000, 16_384, 65_535, 65_536, 300_000, 5_000_000] * 2

            async def send() -> None:
                for size in sizes:
                    await client.send(bytes([size % 251]) * size)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                with trio.fail_after(PATIENCE):
                    for size in sizes:
                        assert await client.receive() == bytes([size % 251]) * size


async def test_a_broadcast_reaches_subscribers_over_tls_and_others_alike() -> None:
    async with open_broadcast() as broadcast, AsyncExitStack() as stack:
        ready: list[WebSocket] = []

        async def subscribe(ws: WebSocket) -> None:
            with broadcast.subscribe(ws, "news"):
                ready.append(ws)
                await forever()

        secure = await stack.enter_async_context(
            open_server(subscribe, ssl_context=SERVER, grace_period=0.01)
        )
        plain = await stack.enter_async_context(open_server(subscribe, grace_period=0.01))
        clients = [
            await stack.enter_async_context(open_websocket_url(url, ssl_context=context))
            for url, context in [
                (secure.urls[0], CLIENT),
                (plain.urls[0], None),
                (secure.urls[0], CLIENT),
            ]
        ]
        with trio.fail_after(PATIENCE):
            while len(ready) < len(clients):
                await trio.sleep(0.001)
            for number in range(100):
                assert broadcast.publish(f"{number}", "news") == 3
            for ws in ready:
                assert ws.statistics().unsent_bytes == 0
                assert ws.statistics().messages_sent == 100
            for client in clients:
                assert [await client.receive() for _ in range(100)] == [f"{n}" for n in range(100)]


async def test_a_slow_reader_over_tls_gets_what_its_policy_says() -> None:
    async with open_raw(compression=None) as (ws, _, stream), open_broadcast() as broadcast:
        with broadcast.subscribe(ws, "news", policy=DropOldest(), max_queued_messages=2):
            while ws.statistics().unsent_bytes == 0:
                ws.send_nowait(bytes(1_000_000))
            for number in range(5):
                broadcast.publish(f"{number}", "news")
            received = b""
            while not received.endswith(b"\x81\x014"):
                received = received[-12:] + await stream.receive_some()
            assert received.endswith(bytes(3) + b"\x81\x013\x81\x014")


async def test_a_peer_over_tls_that_never_reads_is_dropped_in_time() -> None:
    async with open_raw(ping_interval=0.2, ping_timeout=0.2, close_timeout=0.2) as (ws, _, __):
        with pytest.raises(ConnectionLost) as caught:
            while True:
                await ws.send(bytes(1_000_000))
        assert caught.value.reason.code == CloseCode.INTERNAL_ERROR


@pytest.mark.parametrize("code", [1000, 1002])
async def test_the_goodbye_of_tls_follows_the_close_frame(code: int) -> None:
    async with open_raw() as (_, peer, stream):
        if code == 1000:
            await peer.send_close(1000)
        else:
            await peer.send_frame(0x5)
        assert await peer.receive_close() == code
        assert await stream.receive_some() == b""  # without a goodbye, it would raise


async def test_a_client_over_tls_is_told_the_code_that_the_server_closes_with() -> None:
    async with open_both() as (client, server):
        await server.aclose(1001)
        assert (await client.wait_closed()).code == 1001


async def test_a_connection_that_is_cut_is_lost_for_a_reason() -> None:
    async with open_raw() as (ws, _, stream):
        await trio.aclose_forcefully(stream)
        with pytest.raises(ConnectionLost, match="EOF occurred in violation") as caught:
            await ws.receive()
        assert caught.value.reason.code == CloseCode.ABNORMAL_CLOSURE
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


async def test_a_client_too_many_is_told_so_after_the_tls_handshake() -> None:
    async with open_server(echo, ssl_context=SERVER, max_connections=1) as server:
        first = await open_stream(server)
        while not server.statistics().handshakes:
            await trio.sleep(0.001)
        stream = await open_stream(server)
        with trio.fail_after(PATIENCE):
            await stream.send_all(REQUEST)
            response = b""
            async for data in stream:
                response += data
        assert response.startswith(b"HTTP/1.1 503 ")
        await stream.aclose()
        await trio.aclose_forcefully(first)


async def test_no_handshake_keeps_others_waiting() -> None:
    async with open_server(echo, ssl_context=SERVER, open_timeout=0.5) as server:
        silent = [await trio.open_tcp_stream(HOST, server.port) for _ in range(20)]
        with trio.fail_after(PATIENCE):
            async with open_websocket_url(server.urls[0], ssl_context=CLIENT) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
            while server.statistics().refused_total < 20:
                await trio.sleep(0.01)
        for stream in silent:
            await trio.aclose_forcefully(stream)


class Turns(trio.abc.Instrument):
    """Counts the turns of tasks."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: object) -> None:
        self.count += 1


def misbehave(how: str, sock: socket.socket, unsent: bytes, dice: random.Random) -> None:
    """End a client's part, wherever it is in TLS."""
    if how == "half-close":
        sock.shutdown(socket.SHUT_WR)
    elif how == "garbage":
        sock.send(dice.randbytes(dice.choice([1, 5, 6, 100, 20_000])))
    elif how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    elif how == "half a record" and unsent:
        sock.send(unsent[: len(unsent) // 2 + 1])


@pytest.mark.parametrize("how", ["stall", "half-close", "garbage", "reset", "half a record"])
async def test_no_step_of_tls_at_which_a_peer_misbehaves_makes_the_server_spin(how: str) -> None:
    """A server with nothing to do runs no tasks, whatever it waits for."""
    dice = random.Random(how)
    turns = Turns()
    async with open_server(echo, ssl_context=SERVER, grace_period=0.01) as server:
        for steps in range(13):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = CLIENT.wrap_bio(incoming, outgoing, server_hostname=HOST)
            unsent, asked = b"", False
            with socket.create_connection((HOST, server.port)) as sock:
                sock.setblocking(False)
                for _ in range(steps):
                    with suppress(ssl.SSLWantReadError):
                        tls.do_handshake()
                        if not asked:
                            asked = True
                            tls.write(REQUEST + b"\x81\x85\0\0\0\0hello" * 100)
                        tls.read(1000)
                    unsent += outgoing.read()
                    unsent = unsent[sock.send(unsent[: dice.choice([7, 100, 100_000])]) :]
                    await trio.sleep(0.001)
                    with suppress(BlockingIOError):
                        incoming.write(sock.recv(dice.choice([100, 100_000])))
                misbehave(how, sock, unsent, dice)
                await trio.sleep(0.01)
                turns.count = 0
                trio.lowlevel.add_instrument(turns)
                await trio.sleep(0.01)
                trio.lowlevel.remove_instrument(turns)
                assert turns.count < 100


# Sweeps: a fault one step later each time…


async def respond(ws: WebSocket) -> None:
    with suppress(ConnectionClosed):
        async for message in ws:
            await ws.send(message)


async def test_cancelling_a_client_at_every_step_leaves_nothing() -> None:
    async with open_server(respond, ssl_context=SERVER) as server:
        for step in itertools.count(1):
            with trio.CancelScope() as scope:
                canceller = CancelAtStep(scope, trio.lowlevel.current_task(), step)
                trio.lowlevel.add_instrument(canceller)
                try:
                    async with open_websocket_url(server.urls[0], ssl_context=CLIENT) as ws:
                        await converse(ws)
                finally:
                    trio.lowlevel.remove_instrument(canceller)
            if not scope.cancelled_caught:
                break
        assert step > 10
        await until_empty(server)


async def until_empty(server: WebSocketServer) -> None:
    with trio.fail_after(PATIENCE):
        while server.connections or server.statistics().handshakes:
            await trio.sleep(0.001)


async def pass_on(source: trio.SocketStream, target: trio.SocketStream, left: float) -> None:
    """Pass on so many bytes, then cut both connections."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            piece = data[: int(min(left, len(data)))]
            await target.send_all(piece)
            left -= len(piece)
            if not left:
                break
    await source.aclose()
    await target.aclose()


async def relay(listener: trio.SocketListener, port: int, up: float, down: float) -> None:
    """Pass on what one client and the server say, so many bytes each way."""
    near = await listener.accept()
    far = await trio.open_tcp_stream(HOST, port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_on, near, far, up)
        nursery.start_soon(pass_on, far, near, down)


@pytest.mark.parametrize("cut", ["to the server", "to the client"])
async def test_a_cut_after_any_byte_is_a_documented_exception_and_leaves_nothing(cut: str) -> None:
    async with open_server(respond, ssl_context=SERVER, close_timeout=1) as server:
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        url = f"wss://{HOST}:{listener.socket.getsockname()[1]}/"
        endings: set[str] = set()
        async with listener:
            for size in range(1, 8000, 97):
                up, down = (size, inf) if cut == "to the server" else (inf, size)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(relay, listener, server.port, up, down)
                    ending = "done"
                    with trio.fail_after(PATIENCE):
                        try:
                            async with open_websocket_url(url, ssl_context=CLIENT) as ws:
                                await converse(ws)
                        except (HandshakeError, ConnectionClosed, trio.ClosedResourceError) as exc:
                            ending = type(exc).__name__
                endings.add(ending)
                if ending == "done":
                    break
        assert {"done", "ConnectionFailed", "ConnectionLost"} <= endings
        await until_empty(server)
