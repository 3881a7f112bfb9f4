"""Any trio stream, as the connections above want it: in memory, trio's TLS, an HTTP library's.

This module owns the interface that every transport has. Errors leave here as trio's:
`trio.BrokenResourceError` for a connection that failed, with the cause kept, and
`trio.ClosedResourceError` for one that this side closed.
"""

from __future__ import annotations

import gc
import socket
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeAlias, cast

import trio

from .._addresses import TLS, Address
from .system import GONE, below_tls, broken, is_hung_up, socket_address

#: What can be written.
Buffer: TypeAlias = bytes | bytearray | memoryview

#: How many bytes one read asks for. The more it brings, the more frames are handled together. A
#: socket whose last read was full is asked for `LARGE_RECEIVE_SIZE`, which takes a third less time
#: for each byte of large messages.
RECEIVE_SIZE = 64 * 1024

#: Reading what has arrived takes at most this many turns of the scheduler, through TLS.
_STEPS_OF_A_READ = 4

#: What closing may raise. Nobody needs to know.
_FAILED_TO_CLOSE = (*GONE, trio.BusyResourceError, OSError)


class Transport:
    """Any `trio.abc.Stream`: every write waits for a turn of the task that flushes."""

    __slots__ = ("_peer", "_stream")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        # Asked for now: once both sides have hung up, the system has forgotten it, and the log
        # still wants it.
        self._peer = socket_address(stream, "getpeername")

    #: Whether it reads and writes without waiting, and lets others wait for the socket alone
    #: (`wait_until_readable`, `wait_until_writable`, `end_waits`): a socket, also with our TLS.
    is_direct: ClassVar[bool] = False

    @property
    def plain_socket(self) -> socket.socket | None:
        """The socket, where nothing is in between: no TLS, no other stream.

        The same bytes may be sent to many of these at once. The answer never changes.
        """
        return None

    async def receive(self) -> bytes:
        """The next bytes, at least one; ``b""`` at the end of file.

        Cancelling it loses nothing.
        """
        # Streams that are not trio's may raise OSError, here and below.
        try:
            return bytes(await self._stream.receive_some(RECEIVE_SIZE))
        except OSError as exc:
            raise broken(exc) from exc

    def wait_until_readable(self) -> Awaitable[None]:
        """Wait until `receive_nowait` is worth a try. Only where it `is_direct`.

        Not async itself: a coroutine less for as long as an idle connection waits.
        """
        raise NotImplementedError

    def receive_nowait(self) -> bytes | None:
        """What `receive` would give, where that is known without waiting; else `None`."""
        return None

    def receive_into_nowait(self, place: memoryview) -> int | None:
        """`receive_nowait` into `place`: how many bytes came. Only where there is a `plain_socket`.

        Memory that is used again costs half as much as memory that each read gets anew.
        """
        raise NotImplementedError

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        """Write as much as goes out without waiting; how many bytes that was, perhaps 0.

        The next call has to begin with the bytes that did not go out: TLS has encrypted some.
        """
        return 0

    async def wait_until_writable(self) -> None:
        """Wait until `send_nowait` is worth another try. Only where it `is_direct`."""
        raise NotImplementedError

    def end_waits(self) -> None:
        """End the waits of other tasks at once. Only where it `is_direct`.

        `wait_until_writable` returns. `wait_until_readable` raises `trio.ClosedResourceError`.
        """
        raise NotImplementedError

    async def send_all(self, data: bytes) -> None:
        """Write all of it. When it is cancelled, an unknown part has been written."""
        try:
            await self._stream.send_all(data)
        except OSError as exc:
            raise broken(exc) from exc

    def is_drained(self) -> bool:
        """Whether nothing of the peer is unread, as far as is known. Something that is unread is
        thrown away.
        """
        return False

    def has_left(self) -> bool:
        """Whether the peer has hung up and everything it said was read, as far as is known.

        That cannot be known of a stream that is no socket. With TLS, a peer that has hung up has
        left even if something is unread, because nothing can be sent to it any more.
        """
        below = self.below_tls
        return isinstance(below, trio.SocketStream) and is_hung_up(below.socket.fileno())

    @property
    def is_through(self) -> bool:
        """Whether anything can be sent: not before the TLS handshake is through."""
        tls: Any = self._stream
        if isinstance(self._stream, trio.SSLStream):
            try:
                tls.selected_alpn_protocol()
            except trio.NeedHandshakeError:
                return False
        return True

    async def send_eof(self, *, below_tls: bool = False) -> bool:
        """Say that nothing more will be sent, and go on reading. False if the stream cannot do so.

        trio's TLS cannot. `below_tls` shuts down the TCP connection under it instead. That is a
        last resort, because the peer's TLS gets no goodbye.
        """
        stream = self.below_tls if below_tls else self._stream
        if not isinstance(stream, trio.abc.HalfCloseableStream):
            return False
        try:
            await stream.send_eof()
        except OSError as exc:
            raise broken(exc) from exc
        return True

    async def discard_until_eof(self) -> None:
        """Read and throw away what comes, until the peer has hung up or is gone.

        Closing a TCP connection that has unread data resets it, and a reset may overtake the last
        bytes written, the Close frame among them (RFC 1122 section 4.2.2.13).
        """
        with suppress(*GONE):
            while await self.receive():
                pass

    async def end(self) -> None:
        """Say that nothing more will be sent, then read and discard until the peer does the same.

        The caller limits how long that takes. TLS says its goodbye first, not when it is closed, or
        the peer would wait for it all that time (RFC 9112 section 9.8).
        """
        await self._leave_tls()
        with suppress(*GONE):
            await self.send_eof()
        await self.discard_until_eof()

    async def _leave_tls(self) -> None:
        """Exchange goodbyes, and go on below TLS. When it is cancelled, ours has been said."""
        while isinstance(stream := self._stream, trio.SSLStream):
            below = cast("trio.abc.Stream", stream.transport_stream)
            # OpenSSL refuses to say goodbye while there is data to read.
            await self._discard_what_is_here()
            with suppress(*GONE):
                await stream.unwrap()
            self._stream = below

    async def _discard_what_is_here(self) -> None:
        """Read and throw away until reading would wait: until a reading task gets no further."""
        pieces = 0

        @trio.lowlevel.enable_ki_protection
        async def discard() -> None:
            nonlocal pieces
            with suppress(*GONE):
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
        """Close as the stream does it (TLS says goodbye). When it is cancelled, it is closed."""
        with suppress(*_FAILED_TO_CLOSE):
            await self._stream.aclose()

    async def aclose_forcefully(self) -> None:
        """Close without sending another byte. It neither waits nor can be cancelled."""
        with trio.CancelScope(shield=True), suppress(*_FAILED_TO_CLOSE):
            await trio.aclose_forcefully(self._stream)

    def drop(self) -> None:
        """Close a socket that no task waits for, from anywhere: a finalizer, or outside of trio.

        A stream without a socket of trio's is left to its own finalizer.
        """
        wrapped = getattr(below_tls(self._stream), "socket", None)
        if isinstance(wrapped, trio.socket.SocketType) and wrapped.fileno() >= 0:
            socket.close(wrapped.detach())

    @property
    def below_tls(self) -> trio.abc.Stream:
        """The stream itself, or what TLS runs over."""
        stream: trio.abc.Stream = below_tls(self._stream)
        return stream

    @property
    def scheme(self) -> str:
        # For tests, a stream in memory may ask to be treated as one over TLS.
        is_tls = isinstance(self._stream, trio.SSLStream)
        return "wss" if is_tls or getattr(self._stream, "stands_for_tls", False) else "ws"

    @property
    def tls(self) -> TLS | None:
        """What to ask for a certificate or a cipher; `None` without TLS."""
        is_tls = isinstance(self._stream, trio.SSLStream)
        return cast("TLS", self._stream) if is_tls else None

    @property
    def local_address(self) -> Address:
        return socket_address(self._stream, "getsockname")

    @property
    def remote_address(self) -> Address:
        return self._peer


class OwnTransport(Transport):
    """A stream that nobody else has, so that it can be taken apart once it is closed.

    trio's `SSLStream` refers to itself and holds the buffers of TLS. Left whole, 46 KiB of each
    connection would wait for the garbage collector.
    """

    __slots__ = ("_whole",)

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        # `_stream` is what is below TLS once TLS was left.
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
    """Delete the attributes of a thing that refer back to it, directly or as its methods."""
    attributes = vars(thing)
    for name, value in list(attributes.items()):
        if any(getattr(each, "__self__", None) is thing for each in gc.get_referents(value)):
            del attributes[name]
