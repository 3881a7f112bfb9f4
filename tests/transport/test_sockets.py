"""`_transport`: sockets without waiting, any other stream, and errors of both."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.helpers import PATIENCE, reset, socket_pair, tcp_pair
from tests.tls_helpers import tls_contexts
from trio_ws._transport.sockets import LARGE_RECEIVE_SIZE, SocketTransport, wrap_stream
from trio_ws._transport.stream import RECEIVE_SIZE, Transport
from trio_ws._transport.system import socket_address
from trio_ws.testing import FaultyStream


class OtherLibrarysStream(FaultyStream, trio.abc.HalfCloseableStream):
    """A stream that raises `OSError`, as no trio stream does."""

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("eof")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("send")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        raise OSError("receive")

    async def aclose(self) -> None:
        await super().aclose()
        raise OSError("close")


class SocketOfAnotherFamily:
    """VSOCK's addresses are two numbers, Netlink's and CAN's are other things again."""

    def __init__(self, address: object) -> None:
        self.socket = self
        self.address = address

    def getsockname(self) -> object:
        return self.address


async def test_a_socket_is_written_to_without_waiting_until_it_is_full() -> None:
    one, other = socket_pair()
    async with one, other:
        transport = wrap_stream(one)
        assert isinstance(transport, SocketTransport)
        assert transport.send_nowait([b"hello"]) == 5
        assert transport.send_nowait([b"he", memoryview(b"llo")]) == 5
        assert await wrap_stream(other).receive() == b"hellohello"
        while transport.send_nowait([b"x" * 65536]):
            pass
        assert transport.send_nowait([b"x"]) == 0
        with trio.move_on_after(0.01) as scope:
            await transport.wait_until_writable()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wrap_stream(other).discard_until_eof)
            await transport.wait_until_writable()
            assert transport.send_nowait([b"x"]) == 1
            await one.send_eof()


async def test_a_full_read_is_followed_by_larger_ones_as_long_as_they_bring_much() -> None:
    one, other = await tcp_pair()
    async with one, other, trio.open_nursery() as nursery:
        transport = wrap_stream(one)
        nursery.start_soon(other.send_all, bytes(4 * 2**20))
        sizes = list[int]()
        while sum(sizes) < 4 * 2**20:
            await trio.sleep(0.001)
            sizes.append(len(await transport.receive()))
        assert sizes[0] == RECEIVE_SIZE
        assert RECEIVE_SIZE < max(sizes) <= LARGE_RECEIVE_SIZE
        await other.send_all(b"x")
        assert await transport.receive() == b"x"
        await other.send_all(bytes(RECEIVE_SIZE + 1))
        await trio.sleep(0.01)
        assert len(await transport.receive()) == RECEIVE_SIZE


async def test_a_spurious_wake_up_is_waited_out() -> None:
    class Mistaken(SocketTransport):
        calls = 0

        def receive_nowait(self) -> bytes | None:
            self.calls += 1
            return None if self.calls == 1 else super().receive_nowait()

    plain, far = socket.socketpair()
    plain.setblocking(False)
    with plain, far:
        transport = Mistaken(plain, None)
        far.sendall(b"x")
        assert await transport.receive() == b"x"
        assert transport.calls == 2
        assert transport.receive_nowait() is None


async def test_the_waits_of_other_tasks_can_be_ended_and_begun_again() -> None:
    one, other = socket_pair()
    async with one, other:
        transport = wrap_stream(one)
        ended: list[str] = []

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await transport.wait_until_readable()
            ended.append("read")

        async def write() -> None:
            await transport.wait_until_writable()
            ended.append("write")

        while transport.send_nowait([b"x" * 65536]):
            pass
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                nursery.start_soon(write)
                await trio.testing.wait_all_tasks_blocked()
                assert ended == []
                transport.end_waits()
            assert sorted(ended) == ["read", "write"]
            ended.clear()
        await other.send_all(b"data")
        assert await transport.receive() == b"data"


async def test_other_streams_take_nothing_without_waiting() -> None:
    one, other = trio.testing.memory_stream_pair()
    transport = wrap_stream(one)
    assert type(transport) is Transport
    assert transport.plain_socket is None
    assert not transport.is_direct
    assert transport.send_nowait([b"hello"]) == 0
    for wait in (transport.wait_until_readable, transport.wait_until_writable):
        with pytest.raises(NotImplementedError):
            await wait()
    with pytest.raises(NotImplementedError):
        transport.end_waits()
    with pytest.raises(NotImplementedError):
        transport.receive_into_nowait(memoryview(bytearray(1)))
    await transport.send_all(b"hello")
    assert await wrap_stream(other).receive() == b"hello"


async def test_a_broken_socket_is_a_broken_resource_with_its_cause() -> None:
    one, other = await tcp_pair()
    async with one:
        reset(other)
        transport = wrap_stream(one)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await transport.receive()
        assert isinstance(caught.value.__cause__, OSError)
        with pytest.raises(trio.BrokenResourceError) as caught:
            transport.send_nowait([b"x"])
        assert isinstance(caught.value.__cause__, OSError)


async def test_a_socket_closed_behind_our_back_is_never_written_to() -> None:
    one, other = socket_pair()
    async with other:
        transport = wrap_stream(one)
        one.socket.close()
        # The descriptor's number may belong to somebody else by now.
        stranger, listener = socket_pair()
        async with stranger, listener:
            with pytest.raises(trio.ClosedResourceError):
                transport.send_nowait([b"x"])


async def test_errors_of_other_libraries_streams_are_translated() -> None:
    transport = wrap_stream(OtherLibrarysStream(trio.testing.memory_stream_pair()[0]))
    operations: list[Callable[[], Awaitable[object]]] = [
        transport.receive,
        lambda: transport.send_all(b"x"),
        transport.send_eof,
    ]
    for operation in operations:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await operation()
        assert isinstance(caught.value.__cause__, OSError)
    await transport.discard_until_eof()
    await transport.aclose()
    await transport.aclose_forcefully()


async def test_eof_is_sent_where_the_stream_can_and_below_tls_only_when_asked() -> None:
    one, other = await tcp_pair()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    tls = wrap_stream(trio.SSLStream(one, context, server_side=True))
    async with one, other:
        assert tls.scheme == "wss"
        assert tls.remote_address == other.socket.getsockname()
        assert not await tls.send_eof()
        assert await tls.send_eof(below_tls=True)
        assert await other.receive_some() == b""
    faulty = wrap_stream(FaultyStream(trio.testing.memory_stream_pair()[0], half_close=False))
    assert not await faulty.send_eof(below_tls=True)


async def test_nothing_can_be_sent_before_the_handshake_of_an_application_s_tls() -> None:
    one, other = await tcp_pair()
    server, client = tls_contexts("localhost")
    ours = trio.SSLStream(one, server, server_side=True)
    theirs = trio.SSLStream(other, client, server_hostname="localhost")
    transport = wrap_stream(ours)
    async with one, other:
        answers = [transport.is_through]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.do_handshake)
            await ours.do_handshake()
        assert [*answers, transport.is_through] == [False, True]
    assert wrap_stream(trio.testing.memory_stream_pair()[0]).is_through


async def test_addresses_of_every_kind_of_stream(tmp_path: Path) -> None:
    one, other = await tcp_pair()
    async with one, other:
        transport = wrap_stream(one)
        assert transport.scheme == "ws"
        assert transport.local_address == wrap_stream(other).remote_address
        assert transport.remote_address == wrap_stream(other).local_address
        address = transport.remote_address
        reset(other)
        await transport.discard_until_eof()
        assert transport.remote_address == address
        assert wrap_stream(one).remote_address is None  # it was gone before it was asked for
        await transport.aclose()
        assert transport.local_address is None
    memory = wrap_stream(trio.testing.memory_stream_pair()[0])
    assert memory.local_address is None
    assert memory.remote_address is None

    path = os.fspath(tmp_path / "socket")
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(path)
    sock.listen()
    async with trio.SocketListener(sock) as listener:
        assert socket_address(listener, "getsockname") == path
        async with await trio.open_unix_socket(path) as near, await listener.accept() as far:
            assert wrap_stream(near).remote_address == path
            assert wrap_stream(far).remote_address is None


async def test_ipv6_addresses_are_host_and_port() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="::1")
    async with listener:
        address = socket_address(listener, "getsockname")
    assert isinstance(address, tuple)
    assert address[0] == "::1"
    assert len(address) == 2


@pytest.mark.parametrize("address", [(3, 1024), ("can0",), None, ()])
def test_addresses_of_other_families_are_not_known(address: object) -> None:
    assert socket_address(SocketOfAnotherFamily(address), "getsockname") is None


async def test_the_stream_and_the_transport_see_the_same_socket() -> None:
    one, other = socket_pair()
    async with other:
        transport = wrap_stream(one)
        plain = transport.plain_socket
        assert plain is not None
        assert plain.fileno() == one.socket.fileno()
        assert wrap_stream(trio.testing.memory_stream_pair()[0]).plain_socket is None
        await one.aclose()
        assert plain.fileno() == -1
        with pytest.raises(trio.ClosedResourceError):
            transport.send_nowait([b"x"])
        with pytest.raises(trio.ClosedResourceError):
            await wrap_stream(one).receive()


async def test_send_all_waits_where_the_socket_is_full() -> None:
    one, other = socket_pair()
    async with one, other, trio.open_nursery() as nursery:
        nursery.start_soon(wrap_stream(one).send_all, b"x" * 1_000_000)
        received = 0
        while received < 1_000_000:
            received += len(await other.receive_some())
    assert received == 1_000_000


# Fast paths do what they replaced…


class _AsTrio:
    """trio's own way of doing what a transport does."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.receive = stream.receive_some
        self.send_all = stream.send_all
        self.aclose = stream.aclose


async def _read_from_a_peer_that_reset(stream: Any, peer: trio.SocketStream) -> object:
    reset(peer)
    return await stream.receive()


async def _read_from_a_peer_that_left(stream: Any, peer: trio.SocketStream) -> object:
    await peer.aclose()
    return bytes(await stream.receive())


async def _read_what_came_before_the_peer_left(stream: Any, peer: trio.SocketStream) -> object:
    await peer.send_all(b"last words")
    await peer.aclose()
    return [bytes(await stream.receive()) for _ in range(2)]


async def _read_what_came_while_a_read_was_cancelled(
    stream: Any, peer: trio.SocketStream
) -> object:
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.receive()
    await peer.send_all(b"kept")
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.receive()
    return bytes(await stream.receive())


async def _read_after_closing(stream: Any, peer: trio.SocketStream) -> object:
    await stream.aclose()
    return await stream.receive()


async def _close_when_blocked(stream: Any) -> None:
    await trio.testing.wait_all_tasks_blocked()
    await stream.aclose()


async def _read_while_it_is_closed(stream: Any, peer: trio.SocketStream) -> object:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_close_when_blocked, stream)
        return await stream.receive()


async def _read_twice_at_once(stream: Any, peer: trio.SocketStream) -> object:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive)
        await trio.testing.wait_all_tasks_blocked()
        try:
            return await stream.receive()
        finally:
            nursery.cancel_scope.cancel()


async def _write_nothing(stream: Any, peer: trio.SocketStream) -> object:
    await stream.send_all(b"")
    await stream.send_all(b"something")
    return bytes(await peer.receive_some())


async def _write_to_a_peer_that_reset(stream: Any, peer: trio.SocketStream) -> object:
    reset(peer)
    while True:
        await stream.send_all(b"x")


async def _write_after_closing(stream: Any, peer: trio.SocketStream) -> object:
    await stream.aclose()
    return await stream.send_all(b"x")


async def _write_while_it_is_closed(stream: Any, peer: trio.SocketStream) -> object:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_close_when_blocked, stream)
        return await stream.send_all(bytes(50_000_000))


async def _write_more_than_fits(stream: Any, peer: trio.SocketStream) -> object:
    size = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, bytes(50_000_000))
        while size < 50_000_000:
            size += len(await peer.receive_some())
    return size


async def _close_twice(stream: Any, peer: trio.SocketStream) -> object:
    await stream.aclose()
    await stream.aclose()
    return bytes(await peer.receive_some())


async def _outcome(situation: Any, stream: Any, peer: trio.SocketStream) -> object:
    try:
        return await situation(stream, peer)
    except Exception as exc:
        while isinstance(exc, ExceptionGroup):
            (exc,) = exc.exceptions
        return type(exc), type(exc.__cause__)


@pytest.mark.parametrize(
    "situation",
    [
        _read_from_a_peer_that_reset,
        _read_from_a_peer_that_left,
        _read_what_came_before_the_peer_left,
        _read_what_came_while_a_read_was_cancelled,
        _read_after_closing,
        _read_while_it_is_closed,
        _read_twice_at_once,
        _write_nothing,
        _write_to_a_peer_that_reset,
        _write_after_closing,
        _write_while_it_is_closed,
        _write_more_than_fits,
        _close_twice,
    ],
    ids=lambda situation: situation.__name__.strip("_"),
)
async def test_in_every_situation_a_socket_does_what_trio_s_stream_does(situation: Any) -> None:
    outcomes: list[object] = []
    for wrap in (_AsTrio, wrap_stream):
        client, server = await tcp_pair()
        with trio.fail_after(PATIENCE):
            outcomes.append(await _outcome(situation, wrap(server), client))
        for stream in (client, server):
            await trio.aclose_forcefully(stream)
    assert outcomes[0] == outcomes[1]


async def test_a_socket_that_is_gone_cannot_be_shut_down() -> None:
    one, other = await tcp_pair()
    async with one:
        reset(other)
        transport = wrap_stream(one)
        await transport.discard_until_eof()
        with pytest.raises(trio.BrokenResourceError):
            await transport.send_eof()
        await transport.aclose()
        await transport.aclose()
        await transport.aclose_forcefully()


async def test_whether_the_peer_has_left_is_known_of_sockets() -> None:
    near, far = await tcp_pair()
    transport = wrap_stream(near)
    assert not transport.has_left()
    assert not Transport(near).has_left()  # as below TLS
    await far.send_all(b"x")
    await far.aclose()
    with trio.fail_after(PATIENCE):
        while not Transport(near).has_left():
            await trio.sleep(0.001)
    assert not transport.has_left()  # there is something to read first
    assert await transport.receive() == b"x"
    assert transport.has_left()
    await near.aclose()
    assert transport.has_left()
    assert Transport(near).has_left()
    assert not Transport(trio.testing.memory_stream_pair()[0]).has_left()


# Dropping…


@pytest.mark.parametrize("wrap", [wrap_stream, Transport])
def test_a_socket_may_be_dropped_where_no_trio_runs(
    wrap: Callable[[trio.abc.Stream], Transport],
) -> None:
    async def open_one() -> tuple[Transport, trio.SocketStream]:
        ours, theirs = socket_pair()
        return wrap(ours), theirs

    transport, peer = trio.run(open_one)
    transport.drop()
    transport.drop()

    async def read() -> bytes:
        async with peer:
            return bytes(await peer.receive_some())

    assert trio.run(read) == b""


async def test_a_stream_without_a_socket_is_left_to_its_own_finalizer() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    Transport(ours).drop()
    await ours.send_all(b"still open")
    assert await theirs.receive_some() == b"still open"
