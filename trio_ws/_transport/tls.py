"""TLS over a plain socket: read and written through the descriptor, like the socket itself.

This module owns when bytes are encrypted, and what becomes of those that the socket does not take.
OpenSSL speaks TLS: it reads from one buffer in memory and writes to another, and never waits.
`trio.SSLStream` does the same, with locks and a turn of the scheduler around it, because it may be
over any stream and used by several tasks. Here, one task reads and one task writes.

What OpenSSL has encrypted cannot be taken back, and has to go out before anything else. Where the
socket takes only part of it, the rest is kept. The bytes that it stands for are then reported as
sent little by little, as the rest goes out. The caller offers those that were not reported again,
as with any socket, and they are passed over.

TLS also has something to say of its own. In the handshake, `receive` waits until it has gone out.
After that it goes out where there is room, or else in front of the next message: an answer to a
KeyUpdate has time until then (RFC 8446 section 4.6.3).
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from typing import Concatenate, ParamSpec, TypeAlias, TypeVar, cast

import trio

from .sockets import LARGE_RECEIVE_SIZE, SocketTransport, wrap_stream
from .stream import RECEIVE_SIZE, Buffer, OwnTransport, Transport
from .system import GONE, SystemAddress, broken, is_hung_up

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D")
Method: TypeAlias = Callable[Concatenate["TLSTransport", P], R]

#: How many bytes one record holds at most (RFC 8446 section 5.1).
RECORD = 16 * 1024

#: How many bytes OpenSSL is given at once: whole records.
PIECE = 4 * RECORD

#: How many bytes are encrypted before the socket is asked to take them: the most that a peer which
#: does not read makes a connection hold twice. A large message may be 64 KiB and its head: that is
#: to be one system call.
AHEAD = 128 * 1024

#: Where one read brought more records than this, the next is for `RECEIVE_SIZE` again. A record of
#: one byte takes as long as one of a few hundred, so that 256 KiB of these would hold up others for
#: some 15 ms. With a KiB in each, it is one.
MANY_RECORDS = 256

#: How many bytes may wait of what TLS itself answers. A peer that has more to be answered does not
#: read, and asks on.
MOST_ANSWERS = 16 * 1024


class _Buffers:
    """The two buffers between OpenSSL and the sockets, and the place for what these give.

    Fresh memory for each large read would cost a tenth of what its bytes do.
    """

    __slots__ = ("busy", "incoming", "outgoing", "place")

    def __init__(self) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        #: A method of a connection runs that has something in them.
        self.busy = False
        #: What a read brings, and what becomes of it: that may end a record that came before.
        self.place = memoryview(bytearray(LARGE_RECEIVE_SIZE + RECORD))


class _OfThread(threading.local):
    """The buffers of all connections of a thread.

    They are empty whenever no method of a connection runs, and none of these waits. Buffers of its
    own would cost each connection tens of KiB, because they never shrink, and find no cache warm.
    """

    def __init__(self) -> None:
        self.buffers = _Buffers()


_of_thread = _OfThread()


def _alone(
    otherwise: D,
) -> Callable[[Callable[Concatenate[TLSTransport, P], R]], Method[P, R | D]]:
    """Let a method have the buffers for itself.

    While it runs, the interpreter may run something that sends on another connection: a finalizer,
    a signal handler, a callback of OpenSSL's. What two connections encrypt must not mix. So that
    call finds that the socket takes and has nothing now, and gives `otherwise`.
    """

    def decorate(method: Callable[Concatenate[TLSTransport, P], R]) -> Method[P, R | D]:
        @wraps(method)
        @trio.lowlevel.enable_ki_protection
        def alone(self: TLSTransport, /, *args: P.args, **kwargs: P.kwargs) -> R | D:
            buffers = self._buffers
            if buffers.busy:
                return otherwise
            buffers.busy = True
            try:
                return method(self, *args, **kwargs)
            except BaseException as exc:
                # What this connection leaves, if it was taken by surprise, is for no other.
                buffers.incoming.read()
                buffers.outgoing.read()
                if not isinstance(exc, GONE):
                    self._give_up()
                raise
            finally:
                buffers.busy = False

        return alone

    return decorate


class TLSTransport(SocketTransport):
    """TLS over a plain socket.

    The handshake is made by the first call that reads or writes, or by `shake_hands`. Cancelling
    either leaves the connection usable.

    Args:
        sock: which does not block.
        peer: its address.
        context: the server's or the client's.
        server_hostname: for a client: whose certificate it has to be.

    Raises:
        ssl.SSLError, ValueError: `context` is for the other side.
    """

    __slots__ = (
        "_buffers",
        "_committed",
        "_end",
        "_incoming",
        "_outgoing",
        "_rest",
        "_through",
        "_tls",
        "_unread",
    )

    def __init__(
        self,
        sock: socket.socket,
        peer: SystemAddress,
        context: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
    ) -> None:
        super().__init__(sock, peer)
        self._buffers = buffers = _of_thread.buffers
        self._incoming, self._outgoing = buffers.incoming, buffers.outgoing
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        #: Whether the handshake is over, nothing of it is left to be written, and TLS works.
        self._through = False
        #: What came behind the last message of the handshake, and was not received yet.
        self._unread = b""
        #: What was encrypted, and is still to be written.
        self._rest = memoryview(b"")
        #: How many of the caller's bytes that stands for.
        self._committed = 0
        #: Why nothing more can be read: the peer has said goodbye (``b""``), or TLS has failed.
        self._end: ssl.SSLError | bytes | None = None

    @property
    def plain_socket(self) -> None:
        return None

    # The handshake…

    async def shake_hands(self) -> None:
        """Complete the handshake, if it is not over.

        Raises:
            trio.BrokenResourceError: it failed, and the peer was told why if that was possible.
        """
        while not self._go_on():
            if self._rest:
                await self.wait_until_writable()
            else:
                await super().wait_until_readable()

    @_alone(otherwise=False)
    def _go_on(self) -> bool:
        return self._get_through()

    def _get_through(self) -> bool:
        """Go on with the handshake as far as possible without waiting, perhaps to its end.

        Raises:
            trio.BrokenResourceError: it failed, or TLS has failed since.
        """
        while not (self._through or self._unread):
            self._nothing_more()
            try:
                self._tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError as exc:
                raise self._failed(exc) from exc
            self._queue()
            if done and self._incoming.pending:
                place = self._buffers.place
                self._unread = bytes(place[: self._decrypt(place)])
            self._say()
            if self._rest:
                return False
            if done:
                self._through = not isinstance(self._end, ssl.SSLError)
                return True
            if not self._feed():
                return False
        return True

    def _feed(self) -> bool:
        """Give OpenSSL a piece of what has arrived, if anything has."""
        data = super().receive_nowait()
        if data is None:
            return False
        if not data:
            exc = _cut()
            raise self._failed(exc) from exc
        self._incoming.write(data)
        return True

    @property
    def is_through(self) -> bool:
        return self._through

    # Receiving…

    def wait_until_readable(self) -> Awaitable[None]:
        if self._end is not None or self._unread:
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105 - the caller does
        return super().wait_until_readable()

    async def receive(self) -> bytes:
        await self.shake_hands()
        while True:
            await self.wait_until_readable()
            data = self.receive_nowait()
            if data is not None:
                return data

    @_alone(otherwise=None)
    def receive_nowait(self) -> bytes | None:
        if not self._through and not self._get_through():
            return None
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        if self._end is not None:
            return self._nothing_more()
        place = self._buffers.place
        came = super().receive_into_nowait(place[: self._receive_size])
        if came is None:
            return None
        self._receive_size = RECEIVE_SIZE if came < RECEIVE_SIZE else LARGE_RECEIVE_SIZE
        if came:
            self._incoming.write(place[:came])
            size = self._decrypt(place)
            if size:
                return bytes(place[:size])
        else:
            self._end_unannounced()
        return self._nothing_more()

    def _decrypt(self, place: memoryview) -> int:
        """Put what the incoming bytes say into `place`, up to the last record that is whole.

        None are left.

        Returns:
            How many bytes that is.
        """
        incoming = self._incoming
        # typeshed takes what is read into a buffer for bytes, too.
        read = cast("Callable[[int, memoryview], int]", self._tls.read)
        size = records = 0
        try:
            # After the last whole record, OpenSSL would only raise that it wants more, which takes
            # as long as reading a record.
            while incoming.pending:
                came = read(RECORD, place[size:])
                if not came:
                    self._end = b""
                    break
                size += came
                records += 1
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # a goodbye, where ours was said before
            self._end = b""
        except ssl.SSLError as exc:
            self._fail(exc)
        if incoming.pending:
            incoming.read()  # nothing counts after the end
        if records > MANY_RECORDS:
            self._receive_size = RECEIVE_SIZE
        if self._outgoing.pending:
            self._answer()
        return size

    def _end_unannounced(self) -> None:
        """The peer has hung up without a goodbye."""
        if self._tls.context.options & ssl.OP_IGNORE_UNEXPECTED_EOF:
            self._end = b""
        else:
            self._fail(_cut())

    def _nothing_more(self) -> bytes | None:
        """What `receive_nowait` gives where nothing has come.

        Raises:
            trio.BrokenResourceError: TLS has failed.
        """
        if isinstance(self._end, ssl.SSLError):
            raise broken(self._end) from self._end
        return self._end

    def _fail(self, exc: ssl.SSLError) -> None:
        """TLS has failed: tell the peer why, if that goes without waiting."""
        # Its traceback would keep this frame alive, and with it the transport. So would that of an
        # exception that is being handled while TLS fails.
        self._end = exc.with_traceback(None)
        exc.__context__ = None
        self._through = False
        self._incoming.read()
        self._queue()
        with suppress(*GONE):
            self._say()

    def _give_up(self) -> None:
        """Data or records may be lost. Going on would leave a gap that nobody notices."""
        self._end = ssl.SSLError("interrupted in the middle of TLS")
        self._through = False
        self._unread = b""

    def _failed(self, exc: ssl.SSLError, what: str = "") -> trio.BrokenResourceError:
        self._fail(ssl.SSLError(what) if what else exc)
        return trio.BrokenResourceError(what) if what else broken(exc)

    # Sending…

    @_alone(otherwise=0)
    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        if self._rest or not self._through:
            return self._send_behind_the_rest(buffers)
        if len(buffers) == 1 and len(buffers[0]) <= PIECE:
            return self._send_encrypted(self._encrypt(buffers[0]))
        return self._send_from(buffers, 0)

    def _send_behind_the_rest(self, buffers: Sequence[Buffer]) -> int:
        if not self._get_through():
            return 0
        sent = self._send_rest()
        return sent if self._rest else self._send_from(buffers, sent)

    def _send_from(self, buffers: Sequence[Buffer], start: int) -> int:
        """Encrypt and write what comes after the first `start` bytes; how many are out in all."""
        sent = start
        size = 0
        for piece in _pieces(buffers, start):
            size += self._encrypt(piece)
            if size > AHEAD - PIECE:
                sent += self._send_encrypted(size)
                if self._rest:
                    return sent
                size = 0
        return sent + self._send_encrypted(size)

    def _encrypt(self, data: Buffer) -> int:
        if not data:
            return 0  # OpenSSL takes an empty one for the end
        try:
            return self._tls.write(data)
        except ssl.SSLWantReadError as exc:
            # In the middle of a renegotiation, which only TLS 1.2 has and nobody needs.
            raise self._failed(exc, "the peer renegotiates TLS") from exc
        except ssl.SSLError as exc:
            raise self._failed(exc) from exc

    def _send_encrypted(self, size: int) -> int:
        """Write what stands for `size` of the caller's bytes; how many of these are out."""
        encrypted = self._outgoing.read()
        if not encrypted:
            return 0
        sent = super().send_nowait((encrypted,))
        if sent == len(encrypted):
            return size
        self._rest = memoryview(encrypted)
        self._committed = size
        return self._note_sent(sent)

    def _send_rest(self) -> int:
        """Write what was encrypted before; how many of the caller's bytes are out with that."""
        done = 0
        while self._rest and (sent := super().send_nowait((self._rest,))):
            done += self._note_sent(sent)
        return done

    def _note_sent(self, sent: int) -> int:
        """So many bytes of the rest are out; how many of the caller's bytes that stands for.

        The last of them is out only when all of the rest is.
        """
        done = self._committed * sent // len(self._rest)
        self._rest = self._rest[sent:]
        self._committed -= done
        return done

    async def send_all(self, data: bytes) -> None:
        await self.shake_hands()
        await super().send_all(data)

    # What TLS has to say…

    def _queue(self) -> None:
        """Put what OpenSSL has to say behind all that was encrypted before."""
        if self._outgoing.pending:
            said = self._outgoing.read()
            self._rest = memoryview(bytes(self._rest) + said if self._rest else said)

    def _say(self) -> None:
        """Write all that was encrypted, as far as that goes. It is not to count as sent."""
        while self._rest and (sent := super().send_nowait((self._rest,))):
            self._note_sent(sent)

    def _answer(self) -> None:
        """Write what reading has led to: the answer to a KeyUpdate, or an alert."""
        self._queue()
        if not self._committed:  # else whoever writes that will write this too, and count it
            with suppress(*GONE):  # what was read counts all the same
                self._say()
        if len(self._rest) > AHEAD + MOST_ANSWERS:
            self._fail(ssl.SSLError("the peer makes TLS answer and does not read the answers"))

    # The end…

    def is_drained(self) -> bool:
        return not self.receive_nowait()

    def has_left(self) -> bool:
        # If something is unread, it has left all the same: nothing can be sent to it any more.
        return self._end is not None or is_hung_up(self._socket.fileno())

    @_alone(otherwise=None)
    def _say_goodbye(self) -> None:
        """Say close_notify, as far as that goes without waiting (RFC 8446 section 6.1)."""
        if not self._through:
            return
        with suppress(ssl.SSLError):  # it wants to read the peer's goodbye
            self._tls.unwrap()
        self._queue()
        with suppress(*GONE):
            self._say()

    async def send_eof(self, *, below_tls: bool = False) -> bool:
        """Say goodbye, and hang up as far as writing goes. What the peer still says can be read."""
        self._say_goodbye()
        while self._rest:
            await self.wait_until_writable()
            self._say()
        return await super().send_eof()

    async def aclose(self) -> None:
        self._say_goodbye()
        await super().aclose()

    @property
    def scheme(self) -> str:
        return "wss"

    @property
    def tls(self) -> ssl.SSLObject:
        return self._tls


def _cut() -> ssl.SSLError:
    """What OpenSSL says where there is no goodbye (RFC 8446 section 6.1)."""
    return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")


def _pieces(buffers: Sequence[Buffer], start: int) -> Iterator[Buffer]:
    """All but the first `start` bytes, in pieces of whole records; the last may be shorter.

    What does not fill a record is copied together with what follows: the head of a frame and what
    it holds go into one. All else is not copied.
    """
    last = buffers[-1] if buffers else b""
    head: list[memoryview] = []
    room = RECORD
    for buffer in buffers:
        view = memoryview(buffer)
        if start:
            skipped = min(start, len(view))
            start -= skipped
            view = view[skipped:]
        while view:
            whole = min(len(view), PIECE)
            if buffer is not last or len(view) > PIECE:
                whole -= whole % RECORD
            if whole and not head:
                yield view[:whole]
                view = view[whole:]
                continue
            head.append(view[:room])
            view = view[room:]
            room -= len(head[-1])
            if not room:
                yield b"".join(head)
                head, room = [], RECORD
    if head:
        yield head[0] if len(head) == 1 else b"".join(head)


async def open_tls(stream: trio.abc.Stream, context: ssl.SSLContext, name: str) -> Transport:
    """TLS with the server whose certificate is for `name`, with the handshake behind it.

    The stream belongs to the transport from now on. It is closed if the handshake fails.

    Raises:
        trio.BrokenResourceError: the handshake failed.
        ssl.SSLError, ValueError: `context` is for servers, or `name` is none.
    """
    transport = below = wrap_stream(stream, own=True)
    try:
        if below.plain_socket is not None:
            peer = below.remote_address
            transport = tls = TLSTransport(below.plain_socket, peer, context, server_hostname=name)
            await tls.shake_hands()
            return tls
        # TLS in TLS; and everything on Windows.
        stream_of_trio = trio.SSLStream(stream, context, server_hostname=name)
        transport = OwnTransport(stream_of_trio)
        await stream_of_trio.do_handshake()
    except BaseException:  # Cancelled included
        await transport.aclose_forcefully()
        raise
    return transport


# ---------------------------------------------------------------------------
# Listeners of trio
# ---------------------------------------------------------------------------


class _Trial(trio.abc.Listener[trio.abc.Stream]):
    """A listener with one client, which never says anything."""

    def __init__(self) -> None:
        self._ends = trio.socket.socketpair()

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return trio.SocketStream(self._ends[0])

    async def aclose(self) -> None:
        for end in self._ends:
            end.close()
        await trio.lowlevel.checkpoint()


async def context_of(listener: trio.SSLListener[trio.abc.Stream]) -> ssl.SSLContext:
    """The context of a listener, which does not show it, but the streams that it accepts do.

    Raises:
        Exception: what `listener` raises where its context is wrong.
    """
    beneath = listener.transport_listener
    async with _Trial() as trial:
        listener.transport_listener = trial
        try:
            stream = await listener.accept()
        finally:
            listener.transport_listener = beneath
        context: ssl.SSLContext = stream.context
        await OwnTransport(stream).aclose_forcefully()
    return context
