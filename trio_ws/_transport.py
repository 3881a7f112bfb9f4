"""Bytes in, bytes out: the only file that knows sockets.

A plain trio socket on a POSIX system is written to without waiting, which is what makes most sends
free of a task switch; any other `trio.abc.Stream` (TLS, memory, an HTTP library's upgraded stream)
is driven through trio's own interface. Above this file the two look the same.

Errors leave here as trio's: `trio.BrokenResourceError` for a connection that failed, with the
cause kept, and `trio.ClosedResourceError` for one that this side closed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, Literal, cast

import trio

from ._http import Address

#: One read. A larger one brings more frames to handle in one go; 64 KiB is what trio reads, too.
RECEIVE_SIZE = 64 * 1024

#: What closing may raise and nobody needs to know.
_GONE = (
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.BusyResourceError,
    OSError,
)


class Transport:
    """Any `trio.abc.Stream`: every write waits for a turn of the task that flushes."""

    __slots__ = ("_stream",)

    #: How much is written in one go at the most. A stream that is not a socket does not tell how
    #: far it has come before it has taken all, and progress is what a slow peer is judged by.
    flush_size = 16 * 1024

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive(self) -> bytes:
        """The next bytes, as many as there are; ``b""`` at the end of file.

        Cancelling it loses nothing.
        """
        # Streams that are not trio's may raise OSError, here and below.
        try:
            return bytes(await self._stream.receive_some(RECEIVE_SIZE))
        except OSError as exc:
            raise trio.BrokenResourceError(str(exc)) from exc

    def send_nowait(self, data: bytes) -> int:
        """Write what goes out without waiting and say how many bytes that was, perhaps 0."""
        return 0

    async def send_some(self, data: bytes) -> int:
        """Wait until at least one byte of `data` is written and say how many were.

        When it is cancelled, an unknown part has been written.
        """
        try:
            await self._stream.send_all(data)
        except OSError as exc:
            raise trio.BrokenResourceError(str(exc)) from exc
        return len(data)

    async def send_eof(self, *, below_tls: bool = False) -> bool:
        """Say that nothing more will be sent, while still reading. False if the stream cannot.

        TLS cannot. `below_tls` shuts down the TCP connection under it instead: a last resort,
        because the peer's TLS is left without its goodbye.
        """
        stream: object = self._stream
        if below_tls:
            stream = _below_tls(stream)
        if not isinstance(stream, trio.abc.HalfCloseableStream):
            return False
        try:
            await stream.send_eof()
        except OSError as exc:
            raise trio.BrokenResourceError(str(exc)) from exc
        return True

    async def discard_until_eof(self) -> None:
        """Read and throw away until the peer, too, has nothing more to say, or is gone.

        Closing a TCP connection that has unread data resets it, and a reset may overtake the last
        bytes written, the Close frame among them (RFC 1122 section 4.2.2.13).
        """
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await self.receive():
                pass

    async def aclose(self) -> None:
        """Close in the stream's own manner (TLS says goodbye). When cancelled, still closed."""
        with suppress(*_GONE):
            await self._stream.aclose()

    async def aclose_forcefully(self) -> None:
        """Close without another byte. Never waits, also not for its caller's cancellation."""
        with trio.CancelScope(shield=True), suppress(*_GONE):
            await trio.aclose_forcefully(self._stream)

    @property
    def scheme(self) -> str:
        return "wss" if isinstance(self._stream, trio.SSLStream) else "ws"

    @property
    def local_address(self) -> Address:
        return socket_address(self._stream, "getsockname")

    @property
    def remote_address(self) -> Address:
        return socket_address(self._stream, "getpeername")


class SocketTransport(Transport):
    """A plain socket, written to at once through its descriptor."""

    __slots__ = ("_socket",)

    flush_size = 64 * 1024

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._socket = stream.socket

    def send_nowait(self, data: bytes) -> int:
        # Asked for every time: were the socket closed behind our back, the number that it had
        # might by now belong to another connection.
        descriptor = self._socket.fileno()
        if descriptor < 0:
            raise trio.ClosedResourceError("the socket was closed")
        try:
            return os.write(descriptor, data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise trio.BrokenResourceError(f"socket connection broken: {exc}") from exc

    async def send_some(self, data: bytes) -> int:
        while True:
            await self._stream.wait_send_all_might_not_block()
            if sent := self.send_nowait(data):
                return sent


def wrap_stream(stream: trio.abc.Stream) -> Transport:
    """The transport that suits `stream` on this platform."""
    if isinstance(stream, trio.SocketStream) and os.name == "posix":
        return SocketTransport(stream)
    return Transport(stream)


def socket_address(stream: object, method: Literal["getsockname", "getpeername"]) -> Address:
    """What the socket of a stream or listener says, TLS looked through; `None` without a socket."""
    try:
        address: object = getattr(_below_tls(stream).socket, method)()
    except (AttributeError, OSError):  # no socket, or one whose peer is gone already
        return None
    if isinstance(address, tuple):
        host, port = cast("tuple[str, int]", address[:2])
        return host, port
    return os.fsdecode(cast("str | bytes", address)) or None


def _below_tls(stream: Any) -> Any:
    """What TLS, and TLS in TLS, runs over."""
    for name in ("transport_stream", "transport_listener"):
        while hasattr(stream, name):
            stream = getattr(stream, name)
    return stream
