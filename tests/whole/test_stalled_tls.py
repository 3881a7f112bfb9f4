"""Peers that stall anywhere in TLS: how much each makes a server hold, and that it does not add up.

The server is a process of its own, whose memory is the system's word. With TRIO_WS_SOAK=1 in the
environment, there are a thousand peers.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import trio
import trustme

from tests.helpers import BINARY, HOST, PATIENCE, REQUEST, frame
from tests.whole.server_process import SOAK, Server, report, server_process
from trio_ws._transport.tls import AHEAD

PEERS = 1000 if SOAK else 40

#: How many waves of them there are. What the first leaves, the others use again.
WAVES = 3 if SOAK else 2

KIB = 1024

AUTHORITY = trustme.CA()
CONTEXT = ssl.create_default_context()
AUTHORITY.configure_trust(CONTEXT)


class Peer:
    """A client whose TLS is in memory, so that it says as much of a record as it likes."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection((HOST, server.port), timeout=PATIENCE)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = CONTEXT.wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)

    def say(self) -> bytes:
        """What it says first: a ClientHello."""
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def shake_hands(self) -> None:
        self.socket.sendall(self.say())
        while True:
            self.incoming.write(self.socket.recv(65536))
            with suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                break
        self.send(REQUEST)
        self.incoming.write(self.socket.recv(65536))

    def encrypt(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()

    def send(self, data: bytes) -> None:
        self.socket.sendall(self.encrypt(data))


def stop_in_the_client_hello(peer: Peer) -> None:
    hello = peer.say()
    peer.socket.sendall(hello[: len(hello) // 2])


def stop_after_the_client_hello(peer: Peer) -> None:
    peer.socket.sendall(peer.say())


def stop_in_a_record(peer: Peer) -> None:
    peer.shake_hands()
    record = peer.encrypt(frame(BINARY, bytes(16_000)))
    peer.socket.sendall(record[:-100])


def stop_reading(peer: Peer) -> None:
    """It asks for echoes until the server takes no more."""
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.shake_hands()
    peer.socket.settimeout(0.02)
    message = peer.encrypt(frame(BINARY, bytes(16_000)))
    with suppress(TimeoutError):
        for _ in range(200):
            peer.socket.sendall(message)
            message = peer.encrypt(frame(BINARY, bytes(16_000)))


@contextmanager
def tls_server(tmp_path: Path) -> Iterator[Server]:
    path = tmp_path / "certificate"
    AUTHORITY.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(path)
    with server_process(certificate=str(path), max_connections=2 * PEERS) as server:
        yield server


#: At most how many bytes the server holds for each, over what it has while there are none. Holes in
#: the heap make that half as much again after some waves. A peer that stops reading fills its queue
#: and what is to be sent, as over TCP, where that is 750 KiB. TLS adds what it encrypts ahead.
BOUNDS: dict[Callable[[Peer], None], int] = {
    stop_in_the_client_hello: 96 * KIB,
    stop_after_the_client_hello: 96 * KIB,
    stop_in_a_record: 96 * KIB,
    stop_reading: 1024 * KIB + AHEAD,
}


@pytest.mark.parametrize("stall", BOUNDS)
async def test_a_peer_that_stalls_in_tls_takes_little_and_leaves_nothing(
    stall: Callable[[Peer], None], tmp_path: Path
) -> None:
    with tls_server(tmp_path) as server:
        with ExitStack() as stack:  # what the first connections need for all
            for _ in range(10):
                peer = Peer(server)
                stack.enter_context(peer.socket)
                stall(peer)
        before = server.memory()
        grown: list[int] = []
        for _ in range(WAVES):
            with ExitStack() as stack:
                for _ in range(PEERS):
                    peer = Peer(server)
                    stack.enter_context(peer.socket)
                    stall(peer)
                await trio.sleep(0.1)
                grown.append(server.memory() - before)
            with trio.fail_after(PATIENCE):
                while server.sockets() > 5:
                    await trio.sleep(0.01)
    report(each=[f"{size / PEERS / KIB:.1f} KiB" for size in grown])
    assert max(grown) / PEERS < BOUNDS[stall]
    assert grown[-1] < 2 * grown[0]
