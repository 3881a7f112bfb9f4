"""Bytes to our TLS over a socket: what comes is what the peer sent, or an error that is documented.

The bytes are a programme: who does what next, the network included, which may change, drop and
invent what the peer says. What it says is encrypted anew each time, so that an input means the same
steps each time, and not the same bytes.
"""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import trio

from tests.tls_helpers import NAME, nothing_is_left_in_the_buffers, tls_contexts
from trio_ws._transport.tls import TLSTransport

T = TypeVar("T")

#: What either side says, over and over.
_TEXT = bytes(range(256)) * 1000


@functools.cache
def _contexts(version: ssl.TLSVersion) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server, client = tls_contexts(NAME)
    server.maximum_version = version
    return server, client


class Line:
    """Our end over a socket, and a peer that is in memory: the network between is the programme's.

    Attributes:
        on_the_way: what the peer has said, and our socket has not got.
        tampered: whether that is still what the peer said.
        written: how many bytes the peer has sent; `received`: how many of them came.
        queued: how many bytes we want to send; `sent`: how many of them are out; `taken`: how many
            the peer got.
        passed: how many bytes have gone through the network.
    """

    def __init__(self, *, is_server: bool, version: ssl.TLSVersion) -> None:
        server, client = _contexts(version)
        near, self.far = socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for end in (near, self.far):
            end.setblocking(False)
        self.near = near
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        if is_server:
            self.ours = TLSTransport(near, None, server)
            self.peer = client.wrap_bio(self.incoming, self.outgoing, server_hostname=NAME)
        else:
            self.ours = TLSTransport(near, None, client, server_hostname=NAME)
            self.peer = server.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.on_the_way = b""
        self.sent_late = False
        self.tampered = self.peer_is_through = self.peer_failed = self.ours_left = False
        self.peer_left = self.hung_up = self.broken = self.at_the_end = False
        self.passed = self.written = self.received = self.queued = self.sent = self.taken = 0

    # The peer…

    def let_peer_read(self, size: int) -> None:
        with suppress(BlockingIOError):
            self.passed += self.incoming.write(self.far.recv(size * 100))
        while not self.peer_failed:
            try:
                if not self.peer_is_through:
                    self.peer.do_handshake()
                    self.peer_is_through = True
                data = self.peer.read(65536)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                break
            except ssl.SSLError as exc:
                # What we say is never tampered with, but what we agreed on in the handshake may be.
                assert not self.peer_is_through or "ALERT" in str(exc.reason)
                self.peer_failed = True
                break
            if not data:  # we have said goodbye
                break
            assert data == _text(self.taken, len(data))
            self.taken += len(data)
        self.on_the_way += self.outgoing.read()

    def let_peer_write(self, size: int) -> None:
        if self.peer_is_through and not (self.peer_failed or self.peer_left) and size:
            with suppress(ssl.SSLError):
                self.written += self.peer.write(_text(self.written, size * 40))
        self.on_the_way += self.outgoing.read()

    def let_peer_leave(self, size: int) -> None:
        if self.peer_is_through and not self.peer_failed:
            self.peer_left = True
            with suppress(ssl.SSLError):
                self.peer.unwrap()
        self.on_the_way += self.outgoing.read()

    # The network…

    def deliver(self, size: int) -> None:
        if self.on_the_way and not self.hung_up:
            with suppress(BlockingIOError):
                gone = self.far.send(self.on_the_way[:size])
                self.on_the_way = self.on_the_way[gone:]
                self.passed += gone

    def deliver_much(self, size: int) -> None:
        self.deliver(size * 500)

    def change(self, position: int) -> None:
        if position < len(self.on_the_way):
            self.tampered = True
            changed = bytearray(self.on_the_way)
            changed[position] ^= position | 1
            self.on_the_way = bytes(changed)

    def drop(self, size: int) -> None:
        if self.on_the_way:
            self.tampered = True
            self.on_the_way = self.on_the_way[size + 1 :]

    def repeat(self, size: int) -> None:
        if size and self.on_the_way:
            self.tampered = True
            self.on_the_way = self.on_the_way[:size] + self.on_the_way

    def cut(self, size: int) -> None:
        self.deliver(size)
        self.tampered = self.hung_up = True
        self.far.shutdown(socket.SHUT_WR)

    def invent(self, said: bytes) -> None:
        if said:
            self.tampered = True
            self.on_the_way = said + self.on_the_way if said[0] & 1 else self.on_the_way + said

    # We…

    def receive(self, _: int = 0) -> None:
        data = self._try(self.ours.receive_nowait)
        if data:
            assert not self.at_the_end
            assert data == _text(self.received, len(data))
            self.received += len(data)
            assert self.received <= self.written
        elif data == b"":
            assert self.peer_left
            self.at_the_end = True

    def send(self, size: int) -> None:
        self.queued += size * 200
        self.sent_late |= self.ours_left
        left = self.queued - self.sent
        sent = self._try(lambda: self.ours.send_nowait([_text(self.sent, left)])) or 0
        assert 0 <= sent <= left
        self.sent += sent

    def leave(self, _: int) -> None:
        self.ours_left = True
        self.ours._say_goodbye()

    def _try(self, what: Callable[[], T]) -> T | None:
        """It may fail in the one documented way."""
        try:
            return what()
        except trio.BrokenResourceError:
            self.broken = True
            return None
        finally:
            assert nothing_is_left_in_the_buffers()

    # The end…

    def settle(self) -> None:
        """Where nobody tampered, everything arrives, whatever was done before."""
        before = None
        while before != (before := (self.passed, self.received, self.sent)):
            self.receive()
            self.let_peer_read(1000)
            self.deliver(65536)
            self.receive()
            if not self.ours_left:
                self.send(0)
        if not (self.tampered or self.sent_late):
            assert self.peer_is_through
            assert not self.broken
            assert self.received == self.written
            assert self.at_the_end is self.peer_left
            if not self.ours_left:
                assert self.sent == self.queued
                assert self.taken == self.queued or self.peer_left
        for _ in range(3):
            self.receive()  # neither hangs nor spins

    def close(self) -> None:
        self.near.close()
        self.far.close()


_STEPS = (
    Line.let_peer_read,
    Line.deliver_much,
    Line.receive,
    Line.send,
    Line.let_peer_write,
    Line.deliver,
    Line.let_peer_leave,
    Line.leave,
    Line.change,
    Line.drop,
    Line.repeat,
    Line.cut,
)


def one_input(data: bytes) -> None:
    """The first byte says which side is ours and what it speaks. Then each step has two bytes."""
    if not data:
        return
    how, position = data[0], 1
    version = ssl.TLSVersion.TLSv1_2 if how & 2 else ssl.TLSVersion.TLSv1_3
    line = Line(is_server=bool(how & 1), version=version)
    # Another connection, which shares the buffers.
    beside = Line(is_server=bool(how & 16), version=version) if how & 8 else None
    try:
        if how & 4:
            line.settle()  # the handshake
        while position + 2 <= len(data):
            kind, size = data[position], data[position + 1]
            position += 2
            if kind % 16 < len(_STEPS):
                _STEPS[kind % 16](line, size)
            else:
                line.invent(data[position : position + size])
                position += size
            if beside is not None:
                beside.let_peer_read(position * 10)
                beside.let_peer_write(position)
                beside.deliver(position * 10)
                beside.send(position)
        line.settle()
        if beside is not None:
            beside.settle()
    finally:
        line.close()
        if beside is not None:
            beside.close()


def _text(start: int, size: int) -> bytes:
    start %= 256
    return _TEXT[start : start + size]


def seeds() -> list[bytes]:
    """The first inputs."""
    shaken = bytes([0, 9, 1, 9, 2, 0, 0, 9] * 3)
    talk = bytes([4, 9, 3, 9, 1, 9, 2, 0, 0, 9])
    programmes = (
        shaken + talk,
        talk + bytes([5, 40, 2, 0, 8, 60, 1, 9, 2, 0]),
        talk + bytes([6, 0, 1, 1, 2, 0, 3, 9]),
        bytes([7, 0, 4, 3, 1, 1, 2, 0]),
        bytes([0, 0, 1, 9, 2, 0, 0, 99, 4, 9, 1, 99, 2, 0, 2, 0]),
        bytes([6, 0, 15, 2, 0, 0, 1, 9, 2, 0, 2, 0]),
        bytes([4, 3, 11, 30, 2, 0, 2, 0]),
        bytes([15, 4]) + b"\x17\x03\x03\0" + bytes([4, 1, 10, 20, 9, 5, 1, 9, 2, 0]),
    )
    return [bytes([how]) + programme for programme in programmes for how in (1, 14)]
