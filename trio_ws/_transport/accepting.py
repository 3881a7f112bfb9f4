"""From a listener to transports: accepting connections.

This module owns which errors of accept(2) mean that one connection was lost, and which that the
listener has failed.
"""

from __future__ import annotations

import errno
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import trio

from .sockets import NOT_SENT_LOW_WATER, SocketTransport, is_plain, shared_socket, wrap_stream
from .stream import Transport
from .system import CLOSED
from .tls import TLSTransport, context_of

#: How many connections are accepted before other tasks may run.
MOST_ACCEPTED = 16

#: The errors of accept(2) that mean one connection was lost: the client or its network was gone
#: before it was accepted, or a firewall forbids it. The listener goes on. No system has them all.
LOST_CONNECTION: set[int] = {
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "ECONNRESET", "EPERM", "EPROTO", "ETIMEDOUT"),
        *("ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENONET"),
        *("ENOPROTOOPT", "ENOSR", "EOPNOTSUPP", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"),
    )
    if hasattr(errno, name)
}


class Acceptor:
    """Any `trio.abc.Listener`: one connection at a time."""

    def __init__(self, listener: trio.abc.Listener[trio.abc.Stream]) -> None:
        self._listener = listener

    async def accept(self) -> list[Transport]:
        """Wait for connections, and accept those that are there: perhaps none, after all.

        Cancelling it loses nothing.

        Raises:
            OSError: the listener has failed.
            trio.ClosedResourceError: it was closed.
        """
        return [wrap_stream(await self._listener.accept(), own=True)]


class SocketAcceptor(Acceptor):
    """A plain listening socket. trio's own way takes three times as long for each connection.

    Args:
        listener: what has the socket.
        lost: called with the error when a connection ended before it was accepted.
    """

    def __init__(self, listener: trio.SocketListener, lost: Callable[[OSError], None]) -> None:
        super().__init__(listener)
        #: For TLS over what is accepted.
        self.context: ssl.SSLContext | None = None
        self._lost = lost
        self._socket = shared_socket(listener)
        is_tcp = self._socket.family in (socket.AF_INET, socket.AF_INET6)
        #: Whether each socket has to be prepared. On Linux, it inherits the listener's options, but
        #: those that wait already may have come before the listener had any.
        self._prepares = is_tcp
        self._always_prepares = is_tcp and sys.platform != "linux"
        if is_tcp:
            prepare(self._socket)

    async def accept(self) -> list[Transport]:
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("the listener was closed")
        await trio.lowlevel.wait_readable(self._socket)
        accepted: list[Transport] = []
        # Attempts are counted, not connections: failed ones take time, and other tasks must get
        # their turn.
        for _ in range(MOST_ACCEPTED):
            try:
                sock, peer = self._socket.accept()
            except BlockingIOError:
                self._prepares = self._always_prepares
                break
            except OSError as exc:
                if exc.errno in LOST_CONNECTION:
                    self._lost(exc)
                    continue
                if exc.errno in CLOSED:  # by another task, since it became readable
                    raise trio.ClosedResourceError("the listener was closed") from None
                if accepted:
                    break  # these must not be lost; the next call raises it
                raise
            sock.setblocking(False)
            if self._prepares:
                prepare(sock)
            if self.context is None:
                accepted.append(SocketTransport(sock, peer))
            else:
                accepted.append(TLSTransport(sock, peer, self.context))
        return accepted


def prepare(sock: socket.socket) -> None:
    """Set the options that `trio.SocketStream` sets: no delays, few unsent bytes in the kernel."""
    with suppress(OSError):  # macOS refuses if the client has left already
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # pragma: no branch - not every system has it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_LOW_WATER)


async def wrap_listener(
    listener: trio.abc.Listener[trio.abc.Stream], lost: Callable[[OSError], None]
) -> Acceptor:
    """The acceptor for `listener` on this platform; see `SocketAcceptor` for `lost`."""
    if isinstance(listener, trio.SocketListener) and is_plain(listener):
        return SocketAcceptor(listener, lost)
    if not isinstance(listener, trio.SSLListener):
        return Acceptor(listener)
    tls = cast("trio.SSLListener[trio.abc.Stream]", listener)
    below: object = tls.transport_listener
    if not isinstance(below, trio.SocketListener) or not is_plain(below):
        return Acceptor(tls)
    acceptor = SocketAcceptor(below, lost)  # at once: it prepares the listener
    acceptor.context = await context_of(tls)
    return acceptor
