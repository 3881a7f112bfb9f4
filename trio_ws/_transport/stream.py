"""Any trio stream, as the connections above want it: TLS, memory, an HTTP library's upgraded one.

This module owns the interface that every transport has. Errors leave here as trio's:
`trio.BrokenResourceError` for a connection that failed, with the cause kept, and
`trio.ClosedResourceError` for one that this side closed.
"""

from __future__ import annotations

import gc
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeAlias, cast

import trio

from .._addresses import Address
from .system import GONE, below_tls, broken, is_hung_up, socket_address

#: What can be written.
Buffer: TypeAlias = bytes | bytearray | memoryview


#: One read: the more it brings, the more frames are handled in one go. The larger one takes a third
#: less time for each byte of large messages, and is for connections where the last read was full.
RECEIVE_SIZE = 64 * 1024


#: How many turns of the scheduler it takes, at most, to read what is there through TLS.
_STEPS_OF_A_READ = 4


#: What closing may raise and nobody needs to know.
_FAILED_TO_CLOSE = (*GONE, trio.BusyResourceError, OSError)


class Transport:
    """Any `trio.abc.Stream`: every write waits for a turn of the task that flushes."""

    __slots__ = ("_peer", "_stream")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        # Once both sides have hung up, the system no longer knows, and the log still asks.
        self._peer = socket_address(stream, "getpeername")

    @property
    def plain_socket(self) -> socket.socket | None:
        """The socket, where nothing is in between: no TLS, no other stream.

        Only such a transport reads and writes without waiting (`receive_nowait`, `send_nowait`,
        `wait_until_writable`). The answer never changes.
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

    def receive_nowait(self) -> bytes | None:
        """What `receive` would give, where that is known without waiting; else `None`."""
        return None

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        """Write what goes out without waiting and say how many bytes that was, perhaps 0."""
        return 0

    async def wait_until_writable(self) -> None:
        """Wait until `send_nowait` is worth another try. Only where there is a `plain_socket`."""
        raise NotImplementedError

    async def send_all(self, data: bytes) -> None:
        """Write all of it. When it is cancelled, an unknown part has been written."""
        try:
            await self._stream.send_all(data)
        except OSError as exc:
            raise broken(exc) from exc

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
        return isinstance(below, trio.SocketStream) and is_hung_up(below.socket.fileno())

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
            raise broken(exc) from exc
        return True

    async def discard_until_eof(self) -> None:
        """Read and throw away until the peer has nothing more to say either, or is gone.

        Closing a TCP connection that has unread data resets it, and a reset may overtake the last
        bytes written, the Close frame among them (RFC 1122 section 4.2.2.13).
        """
        with suppress(*GONE):
            while await self.receive():
                pass

    async def end(self) -> None:
        """Say that nothing more will be sent, then read and throw away until the peer says that.

        It is for the caller to say how long. TLS says its goodbye at once and not when it is
        closed, or the peer would wait for it that long (RFC 9112 section 9.8).
        """
        await self._leave_tls()
        with suppress(*GONE):
            await self.send_eof()
        await self.discard_until_eof()

    async def _leave_tls(self) -> None:
        """Exchange goodbyes, and go on below TLS. Cancelled, it has said its own."""
        while isinstance(stream := self._stream, trio.SSLStream):
            below = cast("trio.abc.Stream", stream.transport_stream)
            # OpenSSL refuses to say goodbye while there is data to read.
            await self._discard_what_is_here()
            with suppress(*GONE):
                await stream.unwrap()
            self._stream = below

    async def _discard_what_is_here(self) -> None:
        """Read and throw away until reading would wait: until a task that reads makes no step."""
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
        """Close in the stream's own manner (TLS says goodbye). When cancelled, still closed."""
        with suppress(*_FAILED_TO_CLOSE):
            await self._stream.aclose()

    async def aclose_forcefully(self) -> None:
        """Close without another byte. Never waits, also not for its caller's cancellation."""
        with trio.CancelScope(shield=True), suppress(*_FAILED_TO_CLOSE):
            await trio.aclose_forcefully(self._stream)

    @property
    def below_tls(self) -> trio.abc.Stream:
        """The stream itself, or what TLS runs over."""
        stream: trio.abc.Stream = below_tls(self._stream)
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
