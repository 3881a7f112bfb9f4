"""Plain sockets: read and written through their descriptors.

A plain trio socket on a POSIX system is written to without waiting, so that most sends need no task
switch. To the connections above it looks like any other transport; see `stream`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Sequence
from contextlib import suppress

import trio

from .._addresses import TLS, Address
from .._nursery import raise_as_is
from .stream import RECEIVE_SIZE, Buffer, OwnTransport, Transport
from .system import Failure, SystemAddress, broken, failure_of, readable

#: See `RECEIVE_SIZE`.
LARGE_RECEIVE_SIZE = 256 * 1024

#: How many bytes the kernel takes that it cannot send yet. More would only wait there, out of reach
#: of keepalive and policies.
NOT_SENT_LOW_WATER = 16 * 1024


class SocketTransport(Transport):
    """A plain socket that does not block, read and written through its descriptor.

    `receive` waits until it is readable, and does not try before. Its caller has mostly read all
    there was, so that trying would cost a system call and an exception each time.
    """

    __slots__ = ("_receive_size", "_socket")

    def __init__(self, sock: socket.socket, peer: SystemAddress) -> None:
        self._socket = sock
        self._peer = readable(peer)
        self._receive_size = RECEIVE_SIZE

    is_direct = True

    @property
    def plain_socket(self) -> socket.socket | None:
        return self._socket

    def _descriptor(self) -> int:
        # Asked for every time: if somebody else closed the socket, another connection may have its
        # number by now.
        descriptor = self._socket.fileno()
        if descriptor < 0:
            raise trio.ClosedResourceError("the socket was closed")
        return descriptor

    def wait_until_readable(self) -> Awaitable[None]:
        return trio.lowlevel.wait_readable(self._descriptor())  # noqa: ASYNC105 - the caller does

    async def receive(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._descriptor())
            data = self.receive_nowait()
            if data is not None:  # else the system was mistaken, as select(2) says it may be
                return data

    def receive_nowait(self) -> bytes | None:
        try:
            # Of a closed socket it is -1, and the system refuses that.
            data = os.read(self._socket.fileno(), self._receive_size)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise_as_is(failure_of(exc))
        self._receive_size = RECEIVE_SIZE if len(data) < RECEIVE_SIZE else LARGE_RECEIVE_SIZE
        return data

    def receive_into_nowait(self, place: memoryview) -> int | None:
        try:
            size = os.readv(self._socket.fileno(), (place,))
        except BlockingIOError:
            return None
        except OSError as exc:
            raise_as_is(failure_of(exc))
        # What comes next is likely to be read into place as well, but for its head.
        self._receive_size = RECEIVE_SIZE
        return size

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        try:
            if len(buffers) == 1:
                return os.write(self._socket.fileno(), buffers[0])
            return os.writev(self._socket.fileno(), buffers)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise_as_is(failure_of(exc))

    async def wait_until_writable(self) -> None:
        # `end_waits` ends it in the same way. Where the socket is closed, the next try says so.
        with suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_writable(self._descriptor())

    def end_waits(self) -> None:
        trio.lowlevel.notify_closing(self._socket)

    async def send_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest := rest[self.send_nowait([rest]) :]:
            await self.wait_until_writable()

    def is_drained(self) -> bool:
        return not self.receive_nowait()

    def has_left(self) -> bool:
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    @property
    def is_through(self) -> bool:
        return True

    async def send_eof(self, *, below_tls: bool = False) -> bool:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise broken(exc) from exc
        return True

    async def _leave_tls(self) -> None:
        """There is none."""

    # trio's own way of closing a stream takes two turns of the scheduler. A socket needs none.

    async def aclose(self) -> None:
        self._close()

    async def aclose_forcefully(self) -> None:
        self._close()

    def drop(self) -> None:
        self._socket.close()

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    @property
    def below_tls(self) -> trio.abc.Stream:
        return trio.SocketStream(trio.socket.from_stdlib_socket(self._socket))

    @property
    def scheme(self) -> str:
        return "ws"

    @property
    def tls(self) -> TLS | None:
        return None

    @property
    def local_address(self) -> Address:
        try:
            return readable(self._socket.getsockname())
        except OSError:  # somebody else closed it
            return None


def send_to_all(
    sockets: Sequence[socket.socket | None], data: Buffer
) -> dict[int, int | Failure | None]:
    """Send the same bytes to each of these sockets, as far as it takes them without waiting.

    The system takes nearly all of the time. Calling a function for each socket would take half as
    much again.

    Returns:
        For each position at which not all bytes were sent: how many were, perhaps 0; or why none
        ever will be; or `None` if it has no socket.
    """
    exceptions: dict[int, int | Failure | None] = {}
    size = len(data)
    for position, sock in enumerate(sockets):
        if sock is None:
            exceptions[position] = None
            continue
        try:
            sent = sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            exceptions[position] = failure_of(exc)
            continue
        if sent < size:
            exceptions[position] = sent
    return exceptions


def wrap_stream(stream: trio.abc.Stream, *, own: bool = False) -> Transport:
    """The transport that suits `stream` on this platform.

    Args:
        stream: what is read and written from now on.
        own: nobody else has it or will ever use it.
    """
    if not isinstance(stream, trio.SocketStream) or not is_plain(stream):
        # A stream that is closed already says so itself.
        return OwnTransport(stream) if own else Transport(stream)
    sock = shared_socket(stream)
    try:
        peer = sock.getpeername()
    except OSError:  # the peer is gone already
        peer = None
    return SocketTransport(sock, peer)


def is_plain(holder: trio.SocketStream | trio.SocketListener) -> bool:
    return os.name == "posix" and holder.socket.fileno() >= 0


def shared_socket(holder: trio.SocketStream | trio.SocketListener) -> socket.socket:
    """The system's socket under that of trio, which keeps it.

    trio's socket does not give it away. So its descriptor is moved to one that is known here, and
    the holder gets a socket of trio's around that. Closing either closes both. To ask this one
    anything takes a tenth of the time.
    """
    wrapped = holder.socket
    family, kind, protocol = wrapped.family, wrapped.type, wrapped.proto
    sock = socket.socket(family, kind, protocol, fileno=wrapped.detach())
    holder.socket = trio.socket.from_stdlib_socket(sock)
    return sock
