"""Bytes in, bytes out: the only file that knows sockets.

A plain trio socket on a POSIX system is written to without waiting, which is what makes most sends
free of a task switch; any other `trio.abc.Stream` (TLS, memory, an HTTP library's upgraded stream)
is driven through trio's own interface. Above this file the two look the same.

Errors leave here as trio's: `trio.BrokenResourceError` for a connection that failed, with the
cause kept, and `trio.ClosedResourceError` for one that this side closed.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeAlias, cast

import trio

from .._arguments import FOR_CLIENTS
from .._http.interning import shared
from .._http.values import Address
from .._reasons import reason_of

#: What can be written.
Buffer: TypeAlias = bytes | bytearray | memoryview

#: An address as the system gives it, for a socket of any family.
SystemAddress: TypeAlias = tuple[Any, ...] | str | bytes | None

#: One read: the more it brings, the more frames are handled in one go. The larger one takes a third
#: less time for each byte of large messages, and is for connections where the last read was full.
RECEIVE_SIZE = 64 * 1024
LARGE_RECEIVE_SIZE = 256 * 1024

#: How many connections are accepted before other tasks may run.
MOST_ACCEPTED = 16

#: What accept(2) may say of one connection, which is then lost, and not of the listener: the client
#: or its network was gone before it was accepted, or a firewall forbids it. No system has them all.
LOST_CONNECTION: set[int] = {
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "ECONNRESET", "EPERM", "EPROTO", "ETIMEDOUT"),
        *("ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENONET"),
        *("ENOPROTOOPT", "ENOSR", "EOPNOTSUPP", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"),
    )
    if hasattr(errno, name)
}

#: What the system says of a socket that was closed.
_CLOSED = {errno.EBADF, errno.ENOTSOCK}

#: How many turns of the scheduler it takes, at most, to read what is there through TLS.
_STEPS_OF_A_READ = 4

#: How many bytes the kernel takes from us before the peer takes them from it.
NOT_SENT_LOW_WATER = 16 * 1024

#: What closing may raise and nobody needs to know.
_GONE = (
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.BusyResourceError,
    OSError,
)


class Transport:
    """Any `trio.abc.Stream`: every write waits for a turn of the task that flushes."""

    __slots__ = ("_peer", "_stream")

    #: Whether it can be written to without waiting.
    immediate = False

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        # Once both sides have hung up, the system no longer knows, and the log still asks.
        self._peer = socket_address(stream, "getpeername")

    @property
    def plain_socket(self) -> socket.socket | None:
        """What can be written to without waiting, if it is `immediate`."""
        return None

    async def receive(self) -> bytes:
        """The next bytes, at least one; ``b""`` at the end of file.

        Cancelling it loses nothing.
        """
        # Streams that are not trio's may raise OSError, here and below.
        try:
            return bytes(await self._stream.receive_some(RECEIVE_SIZE))
        except OSError as exc:
            raise _broken(exc) from exc

    def receive_nowait(self) -> bytes | None:
        """What `receive` would give, where that is known without waiting; else `None`."""
        return None

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        """Write what goes out without waiting and say how many bytes that was, perhaps 0."""
        return 0

    async def wait_until_writable(self) -> None:
        """Wait until `send_nowait` is worth another try. Only where that is `immediate`."""
        raise NotImplementedError

    async def send_all(self, data: bytes) -> None:
        """Write all of it. When it is cancelled, an unknown part has been written."""
        try:
            await self._stream.send_all(data)
        except OSError as exc:
            raise _broken(exc) from exc

    def is_drained(self) -> bool:
        """Whether the peer has sent nothing but what was read, as far as is known; what it did
        send is thrown away.
        """
        return False

    def has_left(self) -> bool:
        """Whether the peer has hung up, with nothing to say before that, as far as is known.

        Nobody knows of a stream that is no socket. With TLS, a peer that has hung up has left
        whatever it said before, because nothing can be sent to it any more.
        """
        below = self.below_tls
        return isinstance(below, trio.SocketStream) and _is_hung_up(below.socket.fileno())

    @property
    def is_through(self) -> bool:
        """Whether something can be sent: not in the middle of a TLS handshake."""
        tls: Any = self._stream
        if isinstance(self._stream, trio.SSLStream):
            try:
                tls.selected_alpn_protocol()
            except trio.NeedHandshakeError:
                return False
        return True

    async def send_eof(self, *, below_tls: bool = False) -> bool:
        """Say that nothing more will be sent, while still reading. False if the stream cannot.

        TLS cannot. `below_tls` shuts down the TCP connection under it instead: a last resort,
        because the peer's TLS is left without its goodbye.
        """
        stream = self.below_tls if below_tls else self._stream
        if not isinstance(stream, trio.abc.HalfCloseableStream):
            return False
        try:
            await stream.send_eof()
        except OSError as exc:
            raise _broken(exc) from exc
        return True

    async def discard_until_eof(self) -> None:
        """Read and throw away until the peer has nothing more to say either, or is gone.

        Closing a TCP connection that has unread data resets it, and a reset may overtake the last
        bytes written, the Close frame among them (RFC 1122 section 4.2.2.13).
        """
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await self.receive():
                pass

    async def end(self) -> None:
        """Say that nothing more will be sent, then read and throw away until the peer says that.

        It is for the caller to say how long. TLS says its goodbye at once and not when it is
        closed, or the peer would wait for it that long (RFC 9112 section 9.8).
        """
        await self._leave_tls()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.send_eof()
        await self.discard_until_eof()

    async def _leave_tls(self) -> None:
        """Exchange goodbyes, and go on below TLS. Cancelled, it has said its own."""
        while isinstance(stream := self._stream, trio.SSLStream):
            below = cast("trio.abc.Stream", stream.transport_stream)
            # OpenSSL refuses to say goodbye while there is data to read.
            await self._discard_what_is_here()
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await stream.unwrap()
            self._stream = below

    async def _discard_what_is_here(self) -> None:
        """Read and throw away until reading would wait: until a task that reads makes no step."""
        pieces = 0

        @trio.lowlevel.enable_ki_protection
        async def discard() -> None:
            nonlocal pieces
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while await self.receive():
                    pieces += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(discard)
            before = -1
            while before != pieces:
                before = pieces
                for _ in range(_STEPS_OF_A_READ):
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    async def aclose(self) -> None:
        """Close in the stream's own manner (TLS says goodbye). When cancelled, still closed."""
        with suppress(*_GONE):
            await self._stream.aclose()

    async def aclose_forcefully(self) -> None:
        """Close without another byte. Never waits, also not for its caller's cancellation."""
        with trio.CancelScope(shield=True), suppress(*_GONE):
            await trio.aclose_forcefully(self._stream)

    @property
    def below_tls(self) -> trio.abc.Stream:
        """The stream itself, or what TLS runs over."""
        stream: trio.abc.Stream = _below_tls(self._stream)
        return stream

    @property
    def scheme(self) -> str:
        # A stream in memory, without TLS, may ask to be taken for one that has it.
        is_tls = isinstance(self._stream, trio.SSLStream)
        return "wss" if is_tls or getattr(self._stream, "stands_for_tls", False) else "ws"

    @property
    def local_address(self) -> Address:
        return socket_address(self._stream, "getsockname")

    @property
    def remote_address(self) -> Address:
        return self._peer


class SocketTransport(Transport):
    """A plain socket that does not block, read and written through its descriptor.

    `receive` waits until it is readable, and does not try before: the reader task has always had
    all there was, so that trying would cost a system call and an exception each time.
    """

    __slots__ = ("_receive_size", "_socket")

    immediate = True

    def __init__(self, sock: socket.socket, peer: SystemAddress) -> None:
        self._socket = sock
        self._peer = _readable(peer)
        self._receive_size = RECEIVE_SIZE

    @property
    def plain_socket(self) -> socket.socket:
        return self._socket

    def _descriptor(self) -> int:
        # Asked for every time: if the socket was closed behind our back, its number may by now
        # belong to another connection.
        descriptor = self._socket.fileno()
        if descriptor < 0:
            raise trio.ClosedResourceError("the socket was closed")
        return descriptor

    async def receive(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._descriptor())
            data = self.receive_nowait()
            if data is not None:  # else the system was mistaken, which it may be
                return data

    def receive_nowait(self) -> bytes | None:
        try:
            data = os.read(self._descriptor(), self._receive_size)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise _broken(exc) from exc
        self._receive_size = RECEIVE_SIZE if len(data) < RECEIVE_SIZE else LARGE_RECEIVE_SIZE
        return data

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        try:
            if len(buffers) == 1:
                return os.write(self._descriptor(), buffers[0])
            return os.writev(self._descriptor(), buffers)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise _broken(exc) from exc

    async def wait_until_writable(self) -> None:
        await trio.lowlevel.wait_writable(self._descriptor())

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
            raise _broken(exc) from exc
        return True

    async def _leave_tls(self) -> None:
        """There is none."""

    # trio's own way to close a stream takes two turns of the scheduler; the socket needs none.

    async def aclose(self) -> None:
        self._close()

    async def aclose_forcefully(self) -> None:
        self._close()

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
    def local_address(self) -> Address:
        try:
            return _readable(self._socket.getsockname())
        except OSError:  # it was closed behind our back
            return None


def _is_hung_up(descriptor: int) -> bool:
    """Whether a socket's peer has closed, or at least shut down its side; or we have."""
    if not hasattr(select, "poll"):  # pragma: no cover - Windows
        return False
    if descriptor < 0:
        return True
    poll = select.poll()
    # Linux tells the end of file apart from data. Elsewhere it is part of POLLHUP.
    poll.register(descriptor, getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))


def _broken(exc: OSError) -> trio.BrokenResourceError:
    return trio.BrokenResourceError(reason_of(exc))


def failure_of(exc: OSError) -> trio.BrokenResourceError | trio.ClosedResourceError:
    """What trio's stream raises where its socket raises `exc`; to be handed on, not raised."""
    if exc.errno in _CLOSED:
        return trio.ClosedResourceError("the socket was closed")
    failure = _broken(exc)
    # Its traceback would keep the caller's frame, and all that this knows of.
    failure.__cause__ = exc.with_traceback(None)
    return failure


class OwnTransport(Transport):
    """A stream that nobody else has, so that nothing of it has to be left when it is closed.

    trio's `SSLStream` refers to itself, and keeps the buffers of TLS: 46 KiB for each connection
    that would wait for the garbage collector.
    """

    __slots__ = ("_whole",)

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        # What it was before TLS was left.
        self._whole: object = stream

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            self._forget()

    async def aclose_forcefully(self) -> None:
        await super().aclose_forcefully()
        self._forget()

    def _forget(self) -> None:
        was_tls = isinstance(self._whole, trio.SSLStream)
        if was_tls:
            _forget_itself(self._whole)


def _forget_itself(thing: object) -> None:
    """Delete those of its attributes that refer back to it, directly or by a method of it."""
    attributes = vars(thing)
    for name, value in list(attributes.items()):
        if any(getattr(each, "__self__", None) is thing for each in gc.get_referents(value)):
            del attributes[name]


def wrap_stream(stream: trio.abc.Stream, *, own: bool = False) -> Transport:
    """The transport that suits `stream` on this platform.

    Args:
        stream: what is read and written from now on.
        own: nobody else has it, or will ever use it.
    """
    if not isinstance(stream, trio.SocketStream) or not _is_plain(stream):
        # A stream that is closed already says so itself.
        return OwnTransport(stream) if own else Transport(stream)
    sock = _shared_socket(stream)
    try:
        peer = sock.getpeername()
    except OSError:  # it is gone already
        peer = None
    return SocketTransport(sock, peer)


def _is_plain(holder: trio.SocketStream | trio.SocketListener) -> bool:
    return os.name == "posix" and holder.socket.fileno() >= 0


def _shared_socket(holder: trio.SocketStream | trio.SocketListener) -> socket.socket:
    """The system's socket in that of trio, which does not give it away.

    So trio's is given one. Closing that closes this, and asking this one anything takes a tenth of
    the time.
    """
    wrapped = holder.socket
    family, kind, protocol = wrapped.family, wrapped.type, wrapped.proto
    sock = socket.socket(family, kind, protocol, fileno=wrapped.detach())
    holder.socket = trio.socket.from_stdlib_socket(sock)
    return sock


# ---------------------------------------------------------------------------
# Accepting
# ---------------------------------------------------------------------------


class Acceptor:
    """Any `trio.abc.Listener`: one connection at a time."""

    def __init__(self, listener: trio.abc.Listener[trio.abc.Stream]) -> None:
        self._listener = listener

    async def accept(self) -> list[Transport]:
        """Wait for connections, and take those that are there. There may be none, after all.

        Cancelling it loses nothing.

        Raises:
            OSError: the listener's own.
            trio.ClosedResourceError: it was closed.
        """
        return [wrap_stream(await self._listener.accept(), own=True)]


class SocketAcceptor(Acceptor):
    """A plain listening socket: trio's own way takes three times as long for each connection.

    Args:
        listener: the socket's.
        lost: called with the error where the system says that a connection ended before it was
            accepted.
    """

    def __init__(self, listener: trio.SocketListener, lost: Callable[[OSError], None]) -> None:
        super().__init__(listener)
        self._lost = lost
        self._socket = _shared_socket(listener)
        is_tcp = self._socket.family in (socket.AF_INET, socket.AF_INET6)
        #: Whether each socket has to be prepared. Linux gives it what the listener's has.
        self._prepares = is_tcp and sys.platform != "linux"
        if is_tcp:
            prepare(self._socket)

    async def accept(self) -> list[Transport]:
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("the listener was closed")
        await trio.lowlevel.wait_readable(self._socket)
        accepted: list[Transport] = []
        # Attempts are counted, and not connections: those that fail also take time.
        for _ in range(MOST_ACCEPTED):
            try:
                sock, peer = self._socket.accept()
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno in LOST_CONNECTION:
                    self._lost(exc)
                    continue
                if exc.errno in _CLOSED:  # after it had become readable
                    raise trio.ClosedResourceError("the listener was closed") from None
                if accepted:
                    break  # the next call will say it
                raise
            sock.setblocking(False)
            if self._prepares:  # pragma: no cover - not on Linux
                prepare(sock)
            accepted.append(SocketTransport(sock, peer))
        return accepted


def prepare(sock: socket.socket) -> None:
    """What `trio.SocketStream` does: no delays, and no hoard of unsent bytes in the kernel."""
    with suppress(OSError):  # macOS refuses where the client has left again
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # pragma: no branch - not every system has it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_LOW_WATER)


def wrap_listener(
    listener: trio.abc.Listener[trio.abc.Stream], lost: Callable[[OSError], None]
) -> Acceptor:
    """The acceptor that suits `listener` on this platform; see `SocketAcceptor` for `lost`."""
    if isinstance(listener, trio.SocketListener) and _is_plain(listener):
        return SocketAcceptor(listener, lost)
    return Acceptor(listener)


# ---------------------------------------------------------------------------
# Given by others
# ---------------------------------------------------------------------------


def check_stream(stream: object) -> None:
    """
    Raises:
        TypeError: it is no stream, but a socket for example.
    """
    if not isinstance(stream, trio.abc.Stream):
        raise TypeError(f"a stream is a trio.abc.Stream, not {stream!r}{_wrap_hint(stream)}")


async def check_listeners(listeners: Sequence[object]) -> None:
    """
    Raises:
        TypeError: one is no listener, but a socket for example.
        ValueError: there is none, one is there twice, or its TLS is for clients.
        trio.ClosedResourceError: one was closed.
    """
    if not listeners:
        raise ValueError("there is no listener to serve")
    for number, listener in enumerate(listeners):
        await _check_listener(listener)
        if any(listener is other for other in listeners[:number]):
            raise ValueError(f"a listener is there twice: {listener!r}")


async def _check_listener(listener: object) -> None:
    if not isinstance(listener, trio.abc.Listener):
        hint = _wrap_hint(listener, "trio.SocketListener")
        raise TypeError(f"a listener is a trio.abc.Listener, not {listener!r}{hint}")
    if isinstance(listener, trio.SSLListener):
        tls = cast("trio.SSLListener[trio.abc.Stream]", listener)
        await _check_listener(tls.transport_listener)
        await _try_tls(tls)
    elif isinstance(listener, trio.SocketListener) and listener.socket.fileno() < 0:
        raise trio.ClosedResourceError("a listener was closed before it was served")


def _wrap_hint(given: object, wrapper: str = "trio.SocketStream") -> str:
    if isinstance(given, trio.socket.SocketType):
        return f": wrap it in {wrapper}"
    if hasattr(given, "fileno") and hasattr(given, "getsockname"):
        return f": wrap it, {wrapper}(trio.socket.from_stdlib_socket(…))"
    return ""


class _Trial(trio.abc.Listener[trio.abc.Stream]):
    """A listener with one client, which says nothing."""

    def __init__(self) -> None:
        self._ends = trio.socket.socketpair()

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return trio.SocketStream(self._ends[0])

    async def aclose(self) -> None:
        for end in self._ends:
            end.close()
        await trio.lowlevel.checkpoint()


async def _try_tls(listener: trio.SSLListener[trio.abc.Stream]) -> None:
    """Accept a client: a listener does not say which context it has, only whether it will do."""
    beneath = listener.transport_listener
    async with _Trial() as trial:
        listener.transport_listener = trial
        try:
            await listener.accept()
        except ssl.SSLError as exc:
            raise ValueError(FOR_CLIENTS) from exc
        except AttributeError as exc:
            raise TypeError("a listener for TLS was given something that is no SSLContext") from exc
        finally:
            listener.transport_listener = beneath


# ---------------------------------------------------------------------------
# Addresses
# ---------------------------------------------------------------------------


def socket_address(stream: object, method: Literal["getsockname", "getpeername"]) -> Address:
    """What the socket of a stream or listener says, TLS looked through; `None` without a socket."""
    try:
        return _readable(getattr(_below_tls(stream).socket, method)())
    except (AttributeError, OSError):  # no socket, or one whose peer is gone already
        return None


def _readable(address: SystemAddress) -> Address:
    if isinstance(address, (str, bytes)):
        return os.fsdecode(address) or None
    if isinstance(address, tuple) and len(address) > 1 and isinstance(address[0], str):
        return shared(address[0]), address[1]
    return None  # it has none, or is of another family: VSOCK's are two numbers


def _below_tls(stream: Any) -> Any:
    """What TLS, and TLS in TLS, runs over."""
    for name in ("transport_stream", "transport_listener"):
        while hasattr(stream, name):
            stream = getattr(stream, name)
    return stream
