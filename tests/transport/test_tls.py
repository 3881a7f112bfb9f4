"""`tls`: our TLS over a socket, against TLS of trio, of the standard library and of OpenSSL.

The sockets are real. Where a peer is to do what no library does, it speaks through buffers in
memory, as ours does.
"""

from __future__ import annotations

import gc
import os
import random
import re
import socket
import ssl
import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias, cast

import pytest
import trio
import trio.testing
import trustme
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tests.helpers import HOST, PATIENCE, reset, socket_pair, tcp_pair
from tests.tls_helpers import over
from trio_ws._transport.accepting import wrap_listener
from trio_ws._transport.stream import RECEIVE_SIZE, Buffer
from trio_ws._transport.tls import AHEAD, MOST_ANSWERS, RECORD, TLSTransport

NAME = "example.org"
AUTHORITY = trustme.CA()

#: How long a record with one byte in it is: its head, that byte, its type, and a tag.
RECORD_OF_ONE = 5 + 1 + 1 + 16

TrioTLS: TypeAlias = trio.SSLStream[trio.SocketStream]


def server_context(version: ssl.TLSVersion | None = None, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert(NAME, *names).configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


SERVER, CLIENT = server_context(), client_context()
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


StreamPair: TypeAlias = tuple[trio.SocketStream, trio.SocketStream]


@asynccontextmanager
async def open_ends(
    side: str = "server",
    server: ssl.SSLContext = SERVER,
    client: ssl.SSLContext = CLIENT,
    streams: StreamPair | None = None,
) -> AsyncGenerator[tuple[TLSTransport, TrioTLS], None]:
    """Ours on that side, and trio's on the other; the handshake is still to come."""
    near, far = streams or await tcp_pair()
    if side == "server":
        ours = over(near, server)
        theirs = trio.SSLStream(far, client, server_hostname=NAME)
    else:
        ours = over(near, client, NAME)
        theirs = trio.SSLStream(far, server, server_side=True)
    with trio.fail_after(PATIENCE):
        try:
            yield ours, theirs
        finally:
            await ours.aclose_forcefully()
            await trio.aclose_forcefully(theirs)


@asynccontextmanager
async def open_through(
    side: str = "server",
    server: ssl.SSLContext = SERVER,
    client: ssl.SSLContext = CLIENT,
    streams: StreamPair | None = None,
) -> AsyncGenerator[tuple[TLSTransport, TrioTLS], None]:
    """The same, with the handshake behind them."""
    async with open_ends(side, server, client, streams) as (ours, theirs):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.do_handshake)
            await ours.shake_hands()
        yield ours, theirs


async def read(ours: TLSTransport, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await ours.receive()
    return data


async def read_theirs(theirs: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await theirs.receive_some()
    return data


#: A record that was changed on its way, in the words of OpenSSL before 3.2, and since.
DAMAGED = "(?i)bad record mac|a record was damaged"


@contextmanager
def broken(text: str) -> Generator[None, None, None]:
    """What fails, does so because TLS says this; the error of ``ssl`` is the cause."""
    with pytest.raises(trio.BrokenResourceError, match=text) as caught:
        yield
    assert isinstance(caught.value.__cause__, ssl.SSLError)


# Bytes in both directions…


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("side", ["server", "client"])
async def test_bytes_go_both_ways_whichever_side_is_ours(
    side: str, version: ssl.TLSVersion
) -> None:
    async with open_through(side, server_context(version)) as (ours, theirs):
        assert ours.is_direct
        assert ours.plain_socket is None
        assert ours.scheme == "wss"
        assert ours.local_address == theirs.transport_stream.socket.getpeername()
        assert ours.remote_address == theirs.transport_stream.socket.getsockname()
        for size in (1, RECORD - 1, RECORD, RECORD + 1, AHEAD, 1_000_001):
            data = os.urandom(size)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(theirs.send_all, data)
                assert await read(ours, size) == data
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, data)
                assert await read_theirs(theirs, size) == data


async def test_buffers_of_every_kind_and_size_arrive_in_order() -> None:
    async with open_through() as (ours, theirs):
        buffers: list[Buffer] = [
            b"",
            b"head",
            memoryview(b"-payload-")[1:8],
            bytearray(b"x" * RECORD),
            b"y" * 3,
        ]
        size = sum(map(len, buffers))
        assert ours.send_nowait(buffers) == size
        assert await read_theirs(theirs, size) == b"headpayload" + b"x" * RECORD + b"yyy"
        assert ours.send_nowait([]) == 0
        assert ours.send_nowait([b""]) == 0
        await ours.send_all(b"")
        await ours.send_all(b"end")
        assert await theirs.receive_some() == b"end"


async def test_the_head_of_a_frame_and_its_payload_go_into_one_record() -> None:
    async with open_through() as (ours, theirs):
        await theirs.send_all(b"x")  # it has read the session tickets after that
        assert await ours.receive() == b"x"
        below = theirs.transport_stream
        ours.send_nowait([b"head", b"payload"])
        assert await theirs.receive_some(1) == b"h"
        ours.send_nowait([b"head", b"payload"])
        record = bytes(await below.receive_some())
        assert record[:3] == b"\x17\x03\x03"
        assert int.from_bytes(record[3:5], "big") == len(record) - 5


async def test_much_that_has_arrived_is_read_together() -> None:
    async with open_through() as (ours, theirs):
        for _ in range(20):
            await theirs.send_all(b"x" * 1000)
        await trio.sleep(0.05)
        assert ours.receive_nowait() == b"x" * 20_000
        assert ours.receive_nowait() is None


async def test_tiny_records_are_not_read_by_the_hundred_thousand() -> None:
    """Each takes its time, and others are to have their turn."""
    async with open_with_memory() as (ours, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.shake_hands)
            await ours.shake_hands()
        for _ in range(20_000):
            peer.tls.write(b"x")
        together: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send)
            await trio.sleep(0.05)  # until much of it has arrived
            while sum(together) < 20_000:
                await ours.wait_until_readable()
                together.append(len(ours.receive_nowait() or b""))
        assert max(together) <= RECEIVE_SIZE // RECORD_OF_ONE + 1  # one had come in part before


# The handshake…


async def drip(source: trio.SocketStream, target: trio.SocketStream) -> None:
    """Pass on the bytes one at a time, and let others run between them."""
    target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    async for data in source:
        for byte in data:
            await target.send_all(bytes([byte]))
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("side", ["server", "client"])
async def test_a_handshake_may_come_byte_by_byte(side: str, version: ssl.TLSVersion) -> None:
    near, one = await tcp_pair()
    other, far = await tcp_pair()
    server = server_context(version)
    if side == "server":
        ours: TLSTransport = over(near, server)
        theirs = trio.SSLStream(far, CLIENT, server_hostname=NAME)
    else:
        ours = over(near, CLIENT, NAME)
        theirs = trio.SSLStream(far, server, server_side=True)
    with trio.fail_after(PATIENCE):
        async with near, one, other, far, trio.open_nursery() as nursery:
            nursery.start_soon(drip, one, other)
            nursery.start_soon(drip, other, one)
            nursery.start_soon(theirs.send_all, b"question")
            assert await read(ours, 8) == b"question"
            await ours.send_all(b"answer")
            assert await read_theirs(theirs, 6) == b"answer"
            nursery.cancel_scope.cancel()


async def test_nothing_waits_in_the_handshake_that_must_not() -> None:
    async with open_ends() as (ours, theirs):
        assert not ours.is_through
        assert ours.receive_nowait() is None
        assert ours.send_nowait([b"x"]) == 0
        assert not ours.has_left()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.send_all, b"x")
            while (data := ours.receive_nowait()) is None:
                await trio.sleep(0.001)
        assert data == b"x"
        assert ours.is_through


async def test_what_is_sent_first_waits_for_the_handshake() -> None:
    async with open_ends() as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, b"hello")
        assert await theirs.receive_some() == b"hello"


class InMemory:
    """A peer that decides what is in one segment of TCP."""

    def __init__(
        self,
        stream: trio.SocketStream,
        context: ssl.SSLContext = CLIENT,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.stream = stream
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_hostname=NAME, session=session
        )

    async def take(self) -> None:
        self.incoming.write(await self.stream.receive_some())

    async def send(self) -> None:
        await self.stream.send_all(self.outgoing.read())

    async def shake_hands(self, *, then: bytes = b"") -> None:
        """With `then`, that comes together with the last message of the handshake."""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self.send()
                await self.take()
        if then:
            self.tls.write(then)
        await self.send()

    def reads(self) -> bytes:
        try:
            return self.tls.read(100_000)
        except ssl.SSLWantReadError:
            return b"nothing yet"


@asynccontextmanager
async def open_with_memory(
    *,
    context: ssl.SSLContext = SERVER,
    peer_context: ssl.SSLContext = CLIENT,
    session: ssl.SSLSession | None = None,
) -> AsyncGenerator[tuple[TLSTransport, InMemory], None]:
    near, far = await tcp_pair()
    with trio.fail_after(PATIENCE):
        async with near, far:
            yield over(near, context), InMemory(far, peer_context, session)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("waits", [True, False])
async def test_a_request_that_comes_with_the_handshake_is_read_at_once(
    version: ssl.TLSVersion, waits: bool
) -> None:
    async with (
        open_with_memory(context=server_context(version)) as (ours, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer_shakes_hands_and_asks, peer)
        await ours.shake_hands()
        if waits:
            await ours.wait_until_readable()
        while (data := ours.receive_nowait()) is None:
            await trio.sleep(0.001)
        assert data == b"question"


async def peer_shakes_hands_and_asks(peer: InMemory) -> None:
    await peer.shake_hands(then=b"question")


@pytest.mark.parametrize("side", ["server", "client"])
async def test_a_handshake_that_was_cancelled_goes_on(side: str) -> None:
    async with open_ends(side) as (ours, theirs):
        for _ in range(3):
            with trio.CancelScope() as scope:
                scope.cancel()
                await ours.shake_hands()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.do_handshake)
            for _ in range(20):
                with trio.move_on_after(0.001):
                    await ours.shake_hands()
            await ours.shake_hands()
        await ours.send_all(b"x")
        assert await theirs.receive_some() == b"x"


async def test_a_handshake_for_which_there_is_no_room_waits_for_it() -> None:
    """A certificate of 50 KB to a client that reads late."""
    names = [f"{'x' * 50}-{number}.example.org" for number in range(700)]
    one, other = socket_pair()
    for end in (one, other):
        end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ours = over(one, server_context(None, *names))
    theirs = trio.SSLStream(other, CLIENT, server_hostname=NAME)
    with trio.fail_after(PATIENCE):
        async with one, other, trio.open_nursery() as nursery:
            hello = InMemory(other)
            with suppress(ssl.SSLWantReadError):
                hello.tls.do_handshake()
            await hello.send()
            nursery.start_soon(ours.shake_hands)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not ours.is_through
            assert ours.receive_nowait() is None
            assert ours.send_nowait([b"x"]) == 0
            await hello.shake_hands()
        await ours.aclose_forcefully()
    assert theirs.server_hostname == NAME


async def test_a_client_that_does_not_trust_us_says_why() -> None:
    async with open_ends(client=ssl.create_default_context()) as (ours, theirs):
        async with trio.open_nursery() as nursery:

            async def distrust() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await theirs.do_handshake()
                # trio does not send the alert that OpenSSL has written.
                await theirs.transport_stream.send_eof()

            nursery.start_soon(distrust)
            with broken("EOF occurred in violation of protocol"):
                await ours.receive()
        assert not ours.is_through
        with broken("EOF"):
            await ours.receive()
        with broken("EOF"):
            ours.send_nowait([b"x"])


@pytest.mark.parametrize("side", ["client", "server"])
async def test_an_alert_about_the_handshake_reaches_the_peer(side: str) -> None:
    asking = server_context()
    asking.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(asking)
    distrusting = ssl.create_default_context()
    contexts = (SERVER, distrusting) if side == "client" else (asking, CLIENT)
    ours_says, they_hear = {
        "client": ("certificate verify failed", "(?i)alert unknown ca"),
        "server": ("peer did not return a certificate", "(?i)alert certificate required"),
    }[side]
    async with open_ends(side, *contexts) as (ours, theirs), trio.open_nursery() as nursery:

        async def be_told() -> None:
            with pytest.raises(trio.BrokenResourceError) as caught:
                await theirs.receive_some()
            assert re.search(they_hear, str(caught.value.__cause__))

        nursery.start_soon(be_told)
        with broken(ours_says):
            await ours.shake_hands()


async def test_a_client_shows_its_certificate() -> None:
    asking, showing = server_context(), client_context()
    asking.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(asking)
    AUTHORITY.issue_cert("me@example.org").configure_cert(showing)
    async with open_through("server", asking, showing) as (ours, _):
        certificate = cast("dict[str, Any]", ours.tls.getpeercert())
        assert certificate["subjectAltName"] == (("email", "me@example.org"),)
    async with open_through("client", asking, showing) as (ours, theirs):
        await ours.send_all(b"x")
        assert await theirs.receive_some() == b"x"
        assert theirs.getpeercert()["subjectAltName"] == (("email", "me@example.org"),)


async def test_a_client_may_be_asked_for_its_certificate_later() -> None:
    """Post-handshake authentication (RFC 8446 section 4.6.2): the question goes with what is sent
    next, and the answer comes with what is received.
    """
    asking, showing = server_context(), client_context()
    asking.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(asking)
    AUTHORITY.issue_cert("me@example.org").configure_cert(showing)
    asking.post_handshake_auth = showing.post_handshake_auth = True
    near, far = await tcp_pair()
    server, client = over(near, asking), over(far, showing, NAME)
    with trio.fail_after(PATIENCE):
        async with near, far:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.shake_hands)
                nursery.start_soon(client.shake_hands)
            assert server.tls.getpeercert() is None
            server.tls.verify_client_post_handshake()
            server.send_nowait([b"question"])
            assert await client.receive() == b"question"
            client.send_nowait([b"answer"])
            assert await server.receive() == b"answer"
            certificate = cast("dict[str, Any]", server.tls.getpeercert())
            assert certificate["subjectAltName"] == (("email", "me@example.org"),)


async def test_connections_of_two_threads_do_not_share_buffers() -> None:
    async def talk(seed: int) -> None:
        dice = random.Random(seed)
        async with open_through() as (ours, theirs):
            for size in dice.choices([1, 1000, 100_000], k=30):
                data = dice.randbytes(size)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(theirs.send_all, data)
                    assert await read(ours, size) == data
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ours.send_all, data)
                    assert await read_theirs(theirs, size) == data

    async with trio.open_nursery() as nursery:
        for seed in range(3):
            nursery.start_soon(trio.to_thread.run_sync, trio.run, talk, seed)


@pytest.mark.parametrize("side", ["server", "client"])
async def test_the_name_is_sent_and_a_protocol_agreed_on(side: str) -> None:
    asked: list[object] = []
    server, client = server_context(), client_context()
    server.sni_callback = lambda _, name, __: asked.append(name)
    for context in (server, client):
        context.set_alpn_protocols(["http/1.1"])
    async with open_through(side, server, client) as (ours, theirs):
        assert ours.tls.selected_alpn_protocol() == "http/1.1"
        assert theirs.selected_alpn_protocol() == "http/1.1"
        assert asked == [NAME]
        assert ours.tls.version() == "TLSv1.3"


async def test_a_context_may_be_chosen_by_the_name() -> None:
    other = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert(NAME).configure_cert(other)
    chooses = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("elsewhere.example").configure_cert(chooses)

    def choose(tls: ssl.SSLObject, name: str, _: ssl.SSLContext) -> None:
        tls.context = other

    chooses.sni_callback = choose
    async with open_through("server", chooses) as (ours, theirs):
        await ours.send_all(b"x")
        assert await theirs.receive_some() == b"x"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_session_is_resumed(version: ssl.TLSVersion) -> None:
    context = server_context(version)
    session = None
    for resumed in (False, True):
        async with open_with_memory(context=context, session=session) as (ours, peer):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer_shakes_hands_and_asks, peer)
                assert await ours.receive() == b"question"
            await ours.send_all(b"answer")
            while (data := peer.reads()) == b"nothing yet":
                await peer.take()
            assert data == b"answer"
            assert ours.tls.session_reused is resumed
            session = peer.tls.session


async def test_session_tickets_alone_are_nothing_to_read() -> None:
    async with open_through("client") as (ours, theirs):
        await trio.sleep(0.01)
        assert ours.receive_nowait() is None
        await theirs.send_all(b"x")
        assert await ours.receive() == b"x"


# Writing where there is no room…


@pytest.mark.parametrize("seed", range(10))
async def test_every_byte_arrives_once_however_little_room_there_is(seed: int) -> None:
    dice = random.Random(seed)
    data = dice.randbytes(dice.choice([100, 20_000, 700_000]))
    near, far = socket_pair()
    near.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, dice.choice([4096, 65536]))
    async with open_through(streams=(near, far)) as (ours, theirs):
        sent = 0
        received = b""
        rest = memoryview(data)

        async def receive() -> None:
            nonlocal received
            while len(received) < len(data):
                received += await theirs.receive_some(dice.randint(1, 30_000))
                await trio.sleep(dice.random() / 1000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            while rest:
                cuts = sorted(dice.randint(0, len(rest)) for _ in range(2))
                buffers = [rest[: cuts[0]], rest[cuts[0] : cuts[1]], rest[cuts[1] :]]
                size = ours.send_nowait(buffers)
                assert 0 <= size <= len(rest)
                sent += size
                rest = rest[size:]
                if rest:
                    await ours.wait_until_writable()
        assert received == data


async def test_the_last_byte_counts_as_sent_only_when_the_socket_has_taken_it() -> None:
    one, other = socket_pair()
    async with one, other:
        ours = over(one, SERVER)
        peer = InMemory(other)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.shake_hands)
            await ours.shake_hands()
        rest = memoryview(bytes(10_000_000))
        while size := ours.send_nowait([rest]):
            rest = rest[size:]
        out = 10_000_000 - len(rest)
        received = 0
        other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw = b""

        async def read_all_there_is() -> None:
            nonlocal raw
            while True:
                raw += await other.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all_there_is)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        for start in range(0, len(raw), RECORD):
            peer.incoming.write(raw[start : start + RECORD])
            while (piece := peer.reads()) != b"nothing yet":
                received += len(piece)
        # The rest of a record that was cut may count for its part, but not for all.
        assert received <= out < received + RECORD


async def test_a_peer_that_never_reads_has_little_kept_for_it() -> None:
    async with open_through() as (ours, _):
        rest = memoryview(bytes(50_000_000))
        tracemalloc.start()
        try:
            while size := ours.send_nowait([rest]):
                rest = rest[size:]
            for _ in range(100):
                assert ours.send_nowait([rest]) == 0
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert rest
        assert kept < 2 * AHEAD


def resident() -> int:
    """How many bytes this process takes, with those of OpenSSL, which Python does not see."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_what_a_connection_has_carried_takes_no_memory_afterwards() -> None:
    """Two buffers for each connection would keep 40 KiB and more."""
    size, count = 60_000, 60
    async with AsyncExitStack() as stack:
        kept: list[TLSTransport] = []

        async def carry() -> None:
            near, far = await tcp_pair()
            await stack.enter_async_context(near)
            await stack.enter_async_context(far)
            ours, peer = over(near, SERVER), InMemory(far)
            kept.append(ours)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.shake_hands)
                await ours.shake_hands()
            peer.tls.write(bytes(size))
            await peer.send()
            await read(ours, size)
            await ours.send_all(bytes(size))
            received = 0
            while received < size:
                data = peer.reads()
                received += 0 if data == b"nothing yet" else len(data)
                if data == b"nothing yet":
                    await peer.take()

        with trio.fail_after(PATIENCE):
            for _ in range(10):
                await carry()
            before = resident()
            for _ in range(count):
                await carry()
        assert (resident() - before) / count < 40 * 1024


async def test_what_was_not_taken_goes_out_when_there_is_room() -> None:
    async with open_through() as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, b"x" * 3_000_000)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await theirs.send_all(b"meanwhile")
        assert await ours.receive() == b"meanwhile"
        assert await read_theirs(theirs, 3_000_000) == b"x" * 3_000_000


# What TLS says of its own…


@contextmanager
def openssl(command: str, *options: str) -> Generator[subprocess.Popen[bytes], None, None]:
    """A program of OpenSSL: what it is given is sent, and a line with one letter is a command."""
    with subprocess.Popen(
        ["openssl", command, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as client:
        try:
            yield client
        finally:
            client.kill()


@asynccontextmanager
async def open_to_openssl(
    version: ssl.TLSVersion, *options: str, context: ssl.SSLContext | None = None
) -> AsyncGenerator[tuple[TLSTransport, Callable[[bytes], None]], None]:
    """Ours as the server, and what writes to the client's standard input."""
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    tls = trio.SSLListener(listener, context or server_context(version))
    async with tls:
        acceptor = await wrap_listener(cast("Any", tls), lambda exc: None)
        host, port = listener.socket.getsockname()
        address = ("-connect", f"{host}:{port}", "-servername", NAME)
        with openssl("s_client", *address, *options) as client, trio.fail_after(PATIENCE):
            (ours,) = await acceptor.accept()
            assert isinstance(ours, TLSTransport)
            assert client.stdin is not None
            stdin = client.stdin

            def write(data: bytes) -> None:
                stdin.write(data)
                stdin.flush()

            await ours.shake_hands()
            yield ours, write
            await ours.aclose_forcefully()


class Wrapped(trio.abc.Listener[trio.abc.Stream]):
    """A listener of the application's own kind."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener

    async def accept(self) -> trio.abc.Stream:
        return await self._listener.accept()

    async def aclose(self) -> None:
        await self._listener.aclose()


async def test_tls_over_another_kind_of_listener_stays_trio_s() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    async with trio.SSLListener(Wrapped(listener), SERVER) as tls:
        acceptor = await wrap_listener(cast("Any", tls), lambda exc: None)
        with trio.fail_after(PATIENCE):
            async with await trio.open_tcp_stream(*listener.socket.getsockname()) as near:
                client = trio.SSLStream(near, CLIENT, server_hostname=NAME)
                (accepted,) = await acceptor.accept()
                assert not accepted.is_direct
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.send_all, b"x")
                    assert await accepted.receive() == b"x"
                assert isinstance(accepted.tls, trio.SSLStream)
                await accepted.aclose_forcefully()


async def test_nothing_is_taken_from_a_client_before_the_handshake_is_over(tmp_path: Path) -> None:
    """A resumed session could bring data at once, which anybody might have recorded and replayed
    (RFC 8446 section 8). Our tickets allow none.
    """
    session, early = tmp_path / "session", tmp_path / "early"
    early.write_bytes(b"early")
    first, second = ("-sess_out", str(session)), ("-sess_in", str(session))
    version = ssl.TLSVersion.TLSv1_3
    async with open_to_openssl(version, *first, context=SERVER) as (ours, _):
        await ours.send_all(b"x")
        while not session.exists() or b"END" not in session.read_bytes():
            await trio.sleep(0.01)
    command = ["openssl", "sess_id", "-in", str(session), "-noout", "-text"]
    assert b"Max Early Data: 0\n" in (await trio.run_process(command, capture_stdout=True)).stdout
    options = (*second, "-early_data", str(early))
    async with open_to_openssl(version, *options, context=SERVER) as (ours, write):
        write(b"late")
        assert await ours.receive() == b"late"
        assert ours.tls.session_reused


async def test_keys_are_updated_as_often_as_the_peer_asks() -> None:
    async with open_to_openssl(ssl.TLSVersion.TLSv1_3) as (ours, write):
        for number in range(5):
            write(b"K\n")
            await trio.sleep(0.1)  # it takes a command only where a read brings nothing else
            write(b"text %d\n" % number)
            text = b"text %d\n" % number
            assert await read(ours, len(text)) == text
            await ours.send_all(b"answer %d\n" % number)


async def test_a_renegotiation_that_the_client_asks_for_is_refused() -> None:
    async with open_to_openssl(ssl.TLSVersion.TLSv1_2) as (ours, write):
        write(b"before\n")
        assert await read(ours, 7) == b"before\n"
        write(b"R\n")
        with suppress(trio.BrokenResourceError):
            assert await ours.receive() == b""  # it leaves, when it is told no


class KeyUpdates:
    """Records that ask for a KeyUpdate in return (RFC 8446 sections 4.6.3, 5.2 and 7).

    No library lets a program make these. The secret is in the key log of the client.
    """

    def __init__(self, key_log: Path) -> None:
        _, _, secret = next(
            line for line in key_log.read_text().splitlines() if "CLIENT_TRAFFIC_SECRET_0" in line
        ).split()
        self._secret = bytes.fromhex(secret)

    def next(self) -> bytes:
        key, iv = self._expand("key", 32), self._expand("iv", 12)
        content = b"\x18\0\0\x01\x01" + b"\x16"  # update_requested, in a handshake record
        head = b"\x17\x03\x03" + (len(content) + 16).to_bytes(2, "big")
        self._secret = self._expand("traffic upd", 48)
        return head + AESGCM(key).encrypt(iv, content, head)  # it is the first under this key

    def _expand(self, label: str, length: int) -> bytes:
        name = b"tls13 " + label.encode()
        info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
        return HKDFExpand(SHA384(), length, info).derive(self._secret)


@asynccontextmanager
async def open_to_an_updater(
    tmp_path: Path,
) -> AsyncGenerator[tuple[TLSTransport, InMemory, KeyUpdates], None]:
    """Ours, a client, and its key updates."""
    context = client_context()
    context.keylog_filename = os.fspath(tmp_path / "keys")
    async with open_with_memory(peer_context=context) as (ours, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.shake_hands)
            await ours.shake_hands()
        cipher = peer.tls.cipher()
        assert cipher is not None
        assert cipher[0] == "TLS_AES_256_GCM_SHA384"
        yield ours, peer, KeyUpdates(tmp_path / "keys")


async def test_the_answer_to_a_key_update_goes_out_at_once_where_there_is_room(
    tmp_path: Path,
) -> None:
    async with open_to_an_updater(tmp_path) as (ours, peer, updates):
        await peer.take()
        assert peer.reads() == b"nothing yet"  # but session tickets
        await peer.stream.send_all(updates.next() + updates.next())
        await ours.wait_until_readable()
        assert ours.receive_nowait() is None
        await peer.take()
        await ours.send_all(b"under the new key")
        while (data := peer.reads()) == b"nothing yet":
            await peer.take()
        assert data == b"under the new key"


@pytest.mark.parametrize("has_room", [False, True])
async def test_the_answer_to_a_key_update_waits_for_room_behind_what_was_sent(
    tmp_path: Path, has_room: bool
) -> None:
    """Where there is room again, what was sent before still counts once, for whoever sent it."""
    async with open_to_an_updater(tmp_path) as (ours, peer, updates):
        rest = memoryview(bytes(20_000_000))
        while size := ours.send_nowait([rest]):
            rest = rest[size:]
        while has_room:
            await peer.take()
            with trio.move_on_after(0.001):
                await ours.wait_until_writable()
                break
        # OpenSSL writes the answer to the last one only when it is called again.
        await peer.stream.send_all(updates.next() + updates.next())
        await trio.sleep(0.01)
        assert ours.receive_nowait() is None
        received = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_all, bytes(rest) + b"the end")
            last = b""
            while last[-7:] != b"the end":
                data = peer.reads()
                if data == b"nothing yet":
                    await peer.take()
                else:
                    received += len(data)
                    last = last[-7:] + data
        assert received == 20_000_007


async def test_a_peer_that_makes_tls_answer_and_does_not_read_is_given_up(tmp_path: Path) -> None:
    async with open_to_an_updater(tmp_path) as (ours, peer, updates):
        rest = memoryview(bytes(20_000_000))
        while size := ours.send_nowait([rest]):
            rest = rest[size:]
        with broken("does not read the answers"):
            for number in range(MOST_ANSWERS):
                await peer.stream.send_all(updates.next())
                if number % 100 == 0:
                    await trio.sleep(0.001)
                assert ours.receive_nowait() is None


def write_certificate(path: Path) -> None:
    certificate = AUTHORITY.issue_cert(NAME)
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    path.write_bytes(certificate.private_key_pem.bytes() + chain)


async def test_a_message_in_the_middle_of_a_renegotiation_breaks_the_connection(
    tmp_path: Path,
) -> None:
    """Servers may ask for one, in TLS 1.2. OpenSSL encrypts nothing before it is over."""
    write_certificate(tmp_path / "certificate")
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    options = ("-port", str(port), "-cert", str(tmp_path / "certificate"), "-tls1_2")
    with openssl("s_server", *options) as server, trio.fail_after(PATIENCE):
        while True:
            try:
                stream = await trio.open_tcp_stream(HOST, port)
                break
            except OSError:
                await trio.sleep(0.01)
        async with stream:
            ours = over(stream, CLIENT, NAME)
            await ours.shake_hands()
            assert server.stdin is not None
            server.stdin.write(b"r\n")
            server.stdin.flush()
            await ours.wait_until_readable()
            assert ours.receive_nowait() is None
            with broken("the peer renegotiates TLS"):
                ours.send_nowait([b"x"])


# The end…


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("side", ["server", "client"])
async def test_closing_says_goodbye(side: str, version: ssl.TLSVersion) -> None:
    async with open_through(side, server_context(version)) as (ours, theirs):
        await ours.send_all(b"last words")
        await ours.aclose()
        await ours.aclose()
        assert await read_theirs(theirs, 10) == b"last words"
        assert await theirs.receive_some() == b""  # without the goodbye, it would raise


async def test_closing_in_the_handshake_says_nothing() -> None:
    async with open_ends() as (ours, theirs):
        await ours.aclose()
        assert await theirs.transport_stream.receive_some() == b""


@pytest.mark.parametrize("side", ["server", "client"])
async def test_a_goodbye_of_the_peer_is_the_end_and_stays_it(side: str) -> None:
    async with open_through(side) as (ours, theirs):
        await theirs.send_all(b"last words")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.unwrap)  # it waits for our goodbye, and keeps TCP open
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert not ours.has_left()
        assert await read(ours, 10) == b"last words"
        for _ in range(3):
            assert await ours.receive() == b""
            assert ours.receive_nowait() == b""
            await ours.wait_until_readable()
        assert ours.has_left()
        assert ours.is_drained()
        await ours.send_all(b"something more")  # TLS is over one way only
        assert await ours.send_eof()


async def test_what_follows_a_goodbye_counts_for_nobody() -> None:
    """All connections share the buffers to OpenSSL."""
    async with open_with_memory() as (ours, peer), open_through() as (others, theirs):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.shake_hands)
            await ours.shake_hands()
        peer.tls.write(b"last words")
        with suppress(ssl.SSLWantReadError):
            peer.tls.unwrap()
        await peer.stream.send_all(peer.outgoing.read() + b"garbage" * 1000)
        await trio.sleep(0.01)
        assert await ours.receive() == b"last words"
        await theirs.send_all(b"x")
        assert await others.receive() == b"x"
        await others.send_all(b"y")
        assert await theirs.receive_some() == b"y"
        assert await ours.receive() == b""


async def test_what_runs_while_one_connection_encrypts_cannot_mix_in_another() -> None:
    """A finalizer or a signal handler runs between any two lines; here, a trace function does."""
    async with open_through() as (ours, theirs), open_through() as (others, far):
        sent: list[tuple[int, bytes | None]] = []

        def interrupt(frame: object, event: str, arg: object) -> None:
            if event == "c_return" and getattr(arg, "__name__", "") == "write":
                sys.setprofile(None)
                sent.append((others.send_nowait([b"meanwhile"]), others.receive_nowait()))

        sys.setprofile(interrupt)
        try:
            assert ours.send_nowait([b"x" * 1000]) == 1000
        finally:
            sys.setprofile(None)
        assert sent == [(0, None)]
        assert await read_theirs(theirs, 1000) == b"x" * 1000
        await others.send_all(b"y")
        assert await read_theirs(far, 1) == b"y"


async def test_what_is_sent_in_the_middle_of_sending_has_to_wait() -> None:
    async with open_through() as (ours, theirs), open_through() as (others, _):
        sent: list[int] = []

        class Interrupting(list[bytes]):
            def __getitem__(self, index: Any) -> Any:
                sent.append(others.send_nowait([b"meanwhile"]))
                return super().__getitem__(index)

        assert ours.send_nowait(Interrupting([b"x"])) == 1
        assert sent
        assert not any(sent)
        assert await read_theirs(theirs, 1) == b"x"


@contextmanager
def surprise(after: str) -> Generator[None, None, None]:
    """Let memory run out after a call of OpenSSL."""

    def interrupt(frame: object, event: str, arg: object) -> None:
        if event == "c_return" and getattr(arg, "__name__", "") == after:
            sys.setprofile(None)
            raise MemoryError

    sys.setprofile(interrupt)
    try:
        with pytest.raises(MemoryError):
            yield
    finally:
        sys.setprofile(None)


async def test_what_a_connection_leaves_when_it_is_taken_by_surprise_is_for_no_other() -> None:
    async with open_through() as (ours, _), open_through() as (others, far):
        with surprise("write"):
            ours.send_nowait([b"for one alone"])
        await others.send_all(b"y")
        assert await read_theirs(far, 1) == b"y"


@pytest.mark.parametrize("what", ["read", "write"])
async def test_a_connection_that_is_taken_by_surprise_leaves_no_gap(what: str) -> None:
    async with open_through() as (ours, theirs):
        await theirs.send_all(b"lost")
        await ours.wait_until_readable()
        with surprise(what):
            if what == "read":
                ours.receive_nowait()
            else:
                ours.send_nowait([b"lost"])
        await theirs.send_all(b"what follows")
        with broken("interrupted in the middle of TLS"):
            await ours.receive()
        with broken("interrupted in the middle of TLS"):
            ours.send_nowait([b"what follows"])
        await ours.aclose()


async def test_a_failure_of_one_connection_is_none_of_others() -> None:
    async with open_through() as (ours, theirs), open_through() as (others, of_others):
        await theirs.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + b"wrong" * 2000)
        with broken(DAMAGED):
            await ours.receive()
        await of_others.send_all(b"x")
        assert await others.receive() == b"x"
        await others.send_all(b"y")
        assert await of_others.receive_some() == b"y"


async def test_nothing_can_be_sent_after_our_goodbye() -> None:
    async with open_through() as (ours, _):
        await ours.send_eof()
        with broken("(?i)protocol is shutdown"):
            ours.send_nowait([b"x"])


async def test_a_connection_that_is_cut_is_told_from_one_that_ended() -> None:
    async with open_through() as (ours, theirs):
        await theirs.send_all(b"last words")
        await theirs.transport_stream.send_eof()
        assert await read(ours, 10) == b"last words"
        for _ in range(3):
            with broken("EOF occurred in violation of protocol"):
                await ours.receive()
        assert ours.has_left()


async def test_an_application_may_take_a_cut_for_an_end() -> None:
    context = server_context()
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    async with open_through(server=context) as (ours, theirs):
        await theirs.send_all(b"last words")
        await theirs.transport_stream.send_eof()
        assert await read(ours, 10) == b"last words"
        for _ in range(3):
            assert await ours.receive() == b""
        await ours.send_all(b"an answer")
        assert await read_theirs(theirs, 9) == b"an answer"


async def test_nothing_is_sent_once_the_peer_was_cut_off() -> None:
    async with open_through() as (ours, theirs):
        await theirs.transport_stream.send_eof()
        with broken("EOF occurred in violation of protocol"):
            await ours.receive()
        assert not ours.is_through
        with broken("EOF occurred in violation of protocol"):
            ours.send_nowait([b"x"])


async def test_whether_the_peer_has_left_is_known_though_something_is_unread() -> None:
    async with open_through() as (ours, theirs):
        await theirs.send_all(b"unread")
        assert not ours.has_left()
        await trio.aclose_forcefully(theirs)
        while not ours.has_left():
            await trio.sleep(0.001)
        assert not ours.is_drained()


async def test_a_record_that_is_wrong_is_found_behind_those_that_are_right_and_told() -> None:
    async with open_through() as (ours, theirs):
        await theirs.send_all(b"right")
        await theirs.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + b"wrong" * 8)
        await trio.sleep(0.01)
        assert ours.receive_nowait() == b"right"
        for _ in range(3):
            with broken(DAMAGED):
                await ours.receive()
        with broken("."):
            ours.send_nowait([b"x"])
        with pytest.raises(trio.BrokenResourceError) as caught:
            await theirs.receive_some()
        assert "BAD_RECORD_MAC" in str(caught.value.__cause__)
        await ours.aclose()


async def test_a_peer_that_speaks_no_tls_is_told_apart() -> None:
    near, far = await tcp_pair()
    ours = over(near, SERVER)
    async with near, far:
        await far.send_all(b"GET / HTTP/1.1\r\n\r\n")
        with broken("(?i)http request"):
            await ours.receive()


async def test_a_goodbye_is_said_and_what_comes_after_it_is_read() -> None:
    async with open_through() as (ours, theirs):
        await theirs.send_all(b"unread")
        assert await ours.send_eof()
        assert await theirs.receive_some() == b""
        await theirs.send_all(b" and late")
        assert await read(ours, 15) == b"unread and late"
        await theirs.aclose()
        await ours.discard_until_eof()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("side", ["server", "client"])
async def test_the_peer_s_goodbye_after_ours_is_an_end_and_no_failure(
    side: str, version: ssl.TLSVersion
) -> None:
    async with (
        open_through(side, server_context(version)) as (ours, theirs),
        trio.open_nursery() as nursery,
    ):
        await ours.send_eof()
        assert await theirs.receive_some() == b""
        await theirs.send_all(b"last words")
        nursery.start_soon(theirs.aclose)
        assert await read(ours, 10) == b"last words"
        for _ in range(3):
            assert await ours.receive() == b""
        assert ours.has_left()


async def test_ending_waits_for_the_peer_and_for_no_longer() -> None:
    async with open_through() as (ours, theirs), trio.open_nursery() as nursery:
        await theirs.send_all(b"unread")
        nursery.start_soon(ours.end)
        assert await theirs.receive_some() == b""
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert nursery.child_tasks
        await theirs.aclose()


@pytest.mark.parametrize("unread", [b"", b"question"])
async def test_a_goodbye_may_follow_the_handshake_at_once(unread: bytes) -> None:
    async with open_with_memory() as (ours, peer):
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                await peer.shake_hands(then=unread)

            nursery.start_soon(ask)
            await ours.shake_hands()
        await ours.send_eof()
        while (data := peer.reads()) == b"nothing yet":
            await peer.take()
        assert data == b""


async def test_what_came_with_the_handshake_is_not_lost_to_a_goodbye() -> None:
    async with open_with_memory() as (ours, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer_shakes_hands_and_asks, peer)
            await ours.shake_hands()
        await ours.send_eof()
        peer.tls.write(b" and more")
        await peer.send()
        assert await read(ours, 17) == b"question and more"


async def test_a_wrong_record_right_behind_the_handshake_is_found_after_what_was_right() -> None:
    async with open_with_memory() as (ours, peer):
        while True:
            try:
                peer.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await peer.send()
                assert ours.receive_nowait() is None
                await peer.take()
        peer.tls.write(b"right")
        wrong = b"\x17\x03\x03\x00\x20" + b"wrong!!!" * 4
        await peer.stream.send_all(peer.outgoing.read() + wrong)
        await trio.sleep(0.01)
        assert await ours.receive() == b"right"
        for _ in range(2):
            with broken(DAMAGED):
                await ours.receive()
            with broken(DAMAGED):
                ours.send_nowait([b"x"])
        await ours.aclose()


async def test_a_goodbye_waits_behind_what_was_encrypted() -> None:
    async with open_through() as (ours, theirs), trio.open_nursery() as nursery:
        with trio.move_on_after(0.05):
            await ours.send_all(bytes(50_000_000))
        nursery.start_soon(ours.send_eof)
        while await theirs.receive_some():
            pass  # to the goodbye: without one, this would raise


async def test_it_is_closed_without_a_word_where_it_has_to_be() -> None:
    async with open_through() as (ours, theirs):
        await ours.aclose_forcefully()
        with pytest.raises(trio.BrokenResourceError):
            await theirs.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive()
        with pytest.raises(trio.ClosedResourceError):
            ours.send_nowait([b"x"])
        await ours.aclose()


async def test_a_peer_that_resets_breaks_it_with_the_system_s_reason() -> None:
    async with open_through() as (ours, theirs):
        reset(theirs.transport_stream)
        with pytest.raises(trio.BrokenResourceError, match="reset by peer"):
            await ours.receive()
        with pytest.raises(trio.BrokenResourceError):
            while True:
                ours.send_nowait([b"x"])
        await ours.aclose()


async def test_waits_end_when_they_are_to() -> None:
    async with open_through() as (ours, _):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await ours.wait_until_readable()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            ours.end_waits()


@pytest.mark.parametrize("fails", [True, False])
async def test_it_is_freed_without_the_garbage_collector(fails: bool) -> None:
    gc.collect()
    gc.disable()
    try:
        async with open_through() as (ours, theirs):
            await theirs.send_all(b"x")
            assert await ours.receive() == b"x"
            if fails:
                await theirs.transport_stream.send_all(b"garbage" * 10)
                with pytest.raises(trio.BrokenResourceError):
                    await ours.receive()
            await ours.aclose()
            reference = weakref.ref(ours.tls)
            del ours
        assert reference() is None
    finally:
        gc.enable()
