"""An open WebSocket connection: what the application holds, and the tasks behind it.

This module owns the life of a connection from the end of the opening handshake to the closed
socket. It does not know how connections come about (`_client`, `_server`), what a frame looks like
(`_protocol`) or what a socket is (`_transport`).

Who does what:

- The *reader task* reads, decodes, answers pings, fills the inbox, and at the end shuts the
  transport down. It is the only one that does any of these, and it never waits for a writer: what
  it writes goes to the outbox, which takes frames without waiting. It stands by while a task waits
  in `receive`, because that reads the next message itself; see `reading`.
- *Application tasks* send through the outbox and receive from the inbox.
- The *watchdog* (one per server, one per client connection) sends keepalive pings and drops peers
  that are gone.

How a connection ends. The task that notices calls one of these; the first reason given counts, and
a later call can only shorten the time:

    aclose          the application closes: a Close frame goes out, the peer's is awaited
    _begin_close    the server or a timeout closes; the handler may finish receiving
    _heed_end       the peer's Close frame came, which ours answers, or the peer broke the rules
    _fail           we give up: a Close frame goes out, with the verdict in it
    _write_failed   a write broke: the reader may still find out why
    _lose           the transport broke, or ended without a Close frame
    _abort          no time is left

The last steps are the reader task's: what is unsent goes out, the peer gets a moment to hang up,
the socket is closed (_lose and _abort skip to this one). A deadline of `close_timeout` runs from
the first of these calls to the closed socket, so that every one of them ends.

Ctrl-C may raise `KeyboardInterrupt` between any two lines of the application. It must not do so
between writing half a frame and remembering the other half, hence `enable_ki_protection` on every
method that leads to such a place; it costs nothing when the method is called.
"""

from __future__ import annotations

import enum
import json
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, final, overload

import trio

from .._addresses import Address, show_address
from .._buffer import bytes_of
from .._errors import (
    CloseCode,
    CloseReason,
    ConnectionClosed,
    ConnectionEnded,
    ConnectionLost,
    Initiator,
    UnexpectedMessage,
    close_code,
)
from .._http.context import Context
from .._http.values import Request, Response
from .._json import to_json
from .._log import ConnectionLogger
from .._nursery import forget_tracebacks, leaf_exceptions, protected_context, raise_as_is
from .._options import ConnectionOptions
from .._pacing import (
    DEFLATE_WORK,
    FRAME_WORK,
    MESSAGE_WORK,
    WORK_PER_CHECKPOINT,
    next_checkpoint,
    spend,
)
from .._protocol.events import (
    Close,
    Event,
    Fragment,
    Messages,
    Ping,
    Pong,
    Role,
    Violation,
    show_event,
)
from .._protocol.message import Message, checked_message
from .._protocol.wire import LARGE, MAX_CONTROL_PAYLOAD
from .._reasons import reason_of
from .._threads import in_other_thread
from .._transport.stream import Transport
from .._transport.system import GONE
from .flusher import Flusher
from .inbox import Inbox, IncomingMessage
from .liveness import Due, Liveness
from .opening import Opening
from .outbox import Outbox
from .outlet import Outlet
from .pieces import MessageReader, MessageWriter
from .pings import SentPings
from .reading import Reading, Reads
from .watchdog import Watchdog

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: Once both Close frames are through, or after a failure over a stream that cannot be shut down
#: one way, the peer gets this many seconds to hang up (RFC 6455 section 7.1.1).
LINGER = 1.0

#: When the peer closes or breaks the protocol, how many seconds the application has, from when it
#: took the last message, to answer what came before (RFC 6455 section 5.5.1 allows to delay the
#: Close frame for it).
LAST_ANSWERS = 1.0

#: After a failed write, how many seconds the reader has to find out why: the reason may be a Close
#: frame that arrived before the connection broke.
POST_MORTEM = 1.0


T = TypeVar("T")


class State(enum.Enum):
    """Where a connection is in its life. There is no state before OPEN: it is born open."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


OPEN, NOBODY = State.OPEN, Reads.NOBODY  # asked for with every message


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """A snapshot of one connection. Bytes are those of frames, headers included.

    Attributes:
        messages_received, messages_sent: whole messages, and those in fragments once complete.
        bytes_received, bytes_sent: what came from the transport, and what was given to it to send.
        queued_messages, queued_bytes: received and not yet taken, with what they take in memory.
        unsent_bytes: how much of `bytes_sent` is still here.
        latency: the last round trip in seconds, or `None` before the first pong.
        compression_sent, compression_received: of the messages that went compressed, their size
            before divided by their size after; `None` before the first.
    """

    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int
    queued_messages: int
    queued_bytes: int
    unsent_bytes: int
    latency: float | None
    compression_sent: float | None
    compression_received: float | None


def _checked_payload(payload: Buffer) -> bytes:
    """What a ping or a pong is to hold (RFC 6455 section 5.5)."""
    data = bytes_of(payload, "what a ping or pong holds is a buffer, such as bytes")
    if len(data) > MAX_CONTROL_PAYLOAD:
        raise ValueError(f"a ping or pong holds {MAX_CONTROL_PAYLOAD} bytes, not {len(data)}")
    return data


class _ClosedByUs(trio.ClosedResourceError):
    """A connection was used after this side had closed it.

    It has the connection's `id`, and not the connection, which it would keep alive, and which can
    neither be copied nor pickled.
    """

    def __init__(self, connection_id: str) -> None:
        super().__init__(connection_id)
        self.connection_id = connection_id

    def __str__(self) -> str:
        return "this side closed the WebSocket connection"


@final
class WebSocket(trio.abc.Channel[str | bytes]):
    """An open WebSocket connection. The library makes it; there is no state before open.

    Messages are `str` (text) or `bytes` (binary) in both directions, unless the option
    `decode_text` says otherwise. Any number of tasks may send, receive and close at the same time.
    Every async method is a cancellation point each time it is called, and lets other tasks run
    whenever it waits and at least once in a hundred calls or so.

    From another thread, call its methods by `trio.from_thread.run` or `trio.from_thread.run_sync`.
    Called directly, they raise `RuntimeError`.

    Attributes:
        id: eight hexadecimal digits that also mark this connection's log records.
        request, response: the opening handshake, as sent and received.
        subprotocol: the one agreed upon, or `None`.
        local_address, remote_address: of the stream; `None` where it has none. Behind trusted
            proxies, `remote_address` is the client's.
    """

    __slots__ = (
        "__weakref__",
        "_aclosed",
        "_bytes_received",
        "_close_reason",
        "_close_sent",
        "_finished",
        "_heavy_from",
        "_idles",
        "_inbox",
        "_liveness",
        "_logger",
        "_loss",
        "_messages_received",
        "_messages_sent",
        "_notes_messages",
        "_nursery_scopes",
        "_options",
        "_outbox",
        "_peer_said_close",
        "_pings",
        "_reader_scope",
        "_reading",
        "_state",
        "_thread",
        "_trailing_data",
        "_transport",
        "_turn",
        "_verbose",
        "_wire",
        "id",
        "local_address",
        "remote_address",
        "request",
        "response",
        "subprotocol",
    )

    id: str
    request: Request
    response: Response
    subprotocol: str | None
    local_address: Address
    remote_address: Address

    # Made by `_start`, before anybody else has the connection.
    _outbox: Outbox
    _reading: Reading

    def __init__(
        self,
        transport: Transport,
        opening: Opening,
        connection_id: str,
        options: ConnectionOptions,
        logger: ConnectionLogger,
    ) -> None:
        self.id = connection_id
        self.request = opening.request
        self.response = opening.response
        self.subprotocol = opening.subprotocol
        self.local_address = opening.request.local_address
        self.remote_address = opening.request.remote_address

        self._options = options
        self._logger = logger
        # Looked up once, for speed: a level that is changed is for connections opened later.
        self._verbose = logger.isEnabledFor(logging.DEBUG)

        self._transport = transport
        self._wire = opening.wire
        self._trailing_data = opening.trailing_data
        self._inbox = Inbox(options.max_queued_messages, options.max_queued_bytes)
        #: Whose turn it is to wait for room or to send in fragments; made when first needed.
        self._turn: trio.Lock | None = None
        self._pings = SentPings()

        #: In which everything happens. Each method looks, the quick ones without a call.
        self._thread = get_ident()
        self._state = OPEN
        #: Set once, when the outcome is known, which may be before the socket is closed.
        self._close_reason: CloseReason | None = None
        self._loss: Exception | None = None
        self._close_sent: int = CloseCode.NO_STATUS_RECEIVED
        self._peer_said_close = False
        #: The application called `aclose` (or left): using the connection is now its mistake.
        self._aclosed = False
        #: Where tasks wait for the closed socket; made for the first.
        self._finished: trio.Event | None = None
        #: Of the blocks of `open_nursery` that are open; made for the first.
        self._nursery_scopes: set[trio.CancelScope] | None = None
        #: Of the reader task. Its deadline is when the closing has to be over.
        self._reader_scope = trio.CancelScope(shield=True)

        self._messages_received = self._messages_sent = self._bytes_received = 0
        self._liveness = Liveness(options)
        # Looked up once, because they are asked for with every message.
        self._idles = self._liveness.counts_idleness
        self._notes_messages = self._idles or self._verbose
        #: From how many bytes on a message is work beyond that of an ordinary call.
        self._heavy_from = min(LARGE, self._wire.compresses_from)

    # What it is and how it is doing…

    @property
    def state(self) -> State:
        """Open, closing (no more can be sent) or closed, the socket included."""
        return self._state

    @property
    def context(self) -> Context:
        """What the application keeps with this connection: that of its `request`."""
        return self.request.context

    @property
    def close_reason(self) -> CloseReason | None:
        """How the connection ended; `None` while that is not known yet."""
        return self._close_reason

    @property
    def latency(self) -> float | None:
        """The last round trip in seconds, of `ping` or keepalive; `None` before the first."""
        return self._pings.latency

    def statistics(self) -> ConnectionStatistics:
        """What went each way so far, and what waits."""
        queued_messages, queued_bytes = self._inbox.statistics()
        return ConnectionStatistics(
            messages_received=self._messages_received,
            messages_sent=self._messages_sent + self._outbox.messages_posted,
            bytes_received=self._bytes_received,
            bytes_sent=self._outbox.bytes_taken,
            queued_messages=queued_messages,
            queued_bytes=queued_bytes,
            unsent_bytes=self._outbox.unsent,
            latency=self._pings.latency,
            compression_sent=self._wire.compression_sent,
            compression_received=self._wire.compression_received,
        )

    def __repr__(self) -> str:
        side = self._wire.role.name.lower()
        peer = show_address(self.remote_address)
        queued, _ = self._inbox.statistics()
        end = f" {self._close_reason}" if self._close_reason else ""
        return (
            f"<WebSocket {self.id} {side} of {self.request.path!r} with {peer}, "
            f"{self._state.value}{end}, {queued} queued, {self._outbox.unsent} bytes unsent>"
        )

    def _check_thread(self) -> None:
        if get_ident() != self._thread:
            raise in_other_thread("connection", "ws.send_nowait")

    # Sending…

    @trio.lowlevel.enable_ki_protection
    async def send(self, message: Message, *, compress: bool | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] # trio says "value"; here they are messages
        """Send a `str` as text or a buffer as binary (RFC 6455 section 5.6), in one frame.

        Returns as soon as the whole message is in the send buffer, in order. Waits, first come
        first served, while more than `max_send_buffer` bytes are unsent or another task sends a
        message in fragments. If it is cancelled, nothing of the message was sent.

        Args:
            message: `str`, bytes, or anything else with the buffer protocol, see `Message`. It may
                be changed as soon as this returns.
            compress: whether to compress it, where permessage-deflate was agreed on. `None` leaves
                it to the threshold of `Deflate`. False suits what is compressed or encrypted
                already, and secrets beside text that an attacker chooses.

        Raises:
            ConnectionEnded, ConnectionLost: the connection is over. What was sent before may not
                have arrived: TCP cannot tell.
            trio.ClosedResourceError: this side called `aclose`.
            TypeError: `message` is neither `str` nor a buffer of bytes.
            ValueError: a `str` with lone surrogates, which UTF-8 cannot express; a buffer that has
                been released or closed.
            RuntimeError: this task is inside its own `open_message`.
        """
        if get_ident() != self._thread:
            raise in_other_thread("connection", "ws.send_nowait")
        data = message if isinstance(message, (str, bytes)) else checked_message(message)
        await next_checkpoint()()
        if not self._send_now(data, compress=compress):
            if self._aclosed:
                raise self._closed_error()
            async with self._my_turn():
                self._send_now(data, compress=compress, waited=True)
        if self._state is not OPEN:  # the write found the connection broken
            await self._raise_closed()

    async def _wait(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Wait for anything but the next message.

        This is the one door for it, so that the reader task is there to bring about what is waited
        for: a pong, room, the end.
        """
        self._reading.recall()
        return await wait()

    async def _checkpoint(self) -> None:
        """Where every async method starts."""
        await next_checkpoint()()
        self._check_thread()
        if self._aclosed:
            raise self._closed_error()

    @trio.lowlevel.enable_ki_protection
    def send_nowait(self, message: Message, *, compress: bool | None = None) -> None:
        """`send`, where it need not wait.

        After a failed write it cannot wait for the peer's reason, and reports 1006; `send` does.

        Raises:
            trio.WouldBlock: it would have to; nothing was sent. That is so also inside this task's
                own `open_message`, where trying again does not help.
        """
        if get_ident() != self._thread:
            raise in_other_thread("connection", "ws.send_nowait")
        data = message if isinstance(message, (str, bytes)) else checked_message(message)
        if self._state is not OPEN:
            if self._close_reason is None and not self._aclosed:
                # A write failed, and this cannot wait for why, even if a Close frame is unread.
                assert self._loss is not None
                self._lose(None, reason_of(self._loss))
            raise self._closed_error()
        if not self._send_now(data, compress=compress):
            raise trio.WouldBlock

    async def send_json(self, value: T, *, dumps: Callable[[T], str | bytes] = to_json) -> None:
        """Send `value` as JSON in a text message. `dumps` may give `str` or UTF-8 `bytes`.

        Otherwise like `send`; what `dumps` raises comes out as it is. Unless told otherwise, that
        is a `ValueError` for NaN and infinity, which are not JSON.
        """
        text = dumps(value)
        await self.send(text if isinstance(text, str) else text.decode())

    @protected_context
    async def open_message(
        self, kind: Literal["text", "binary"], *, compress: bool | None = None
    ) -> AsyncGenerator[MessageWriter, None]:
        """Send one message in fragments (RFC 6455 section 5.4)::

            async with ws.open_message("text") as writer:
                async for line in log:
                    await writer.send(line)

        The message ends where the block ends. Other messages wait meanwhile; pings, pongs and the
        Close frame do not.

        A message cannot be taken back half-sent. So leaving the block by an exception, a
        cancellation included, fails the connection with 1011, rather than to leave it open with a
        message that will never end.

        Args:
            kind: what it is made of.
            compress: as for `send`; how long it will be is not known, so `None` means yes.

        Raises:
            As `send`; `ValueError` for another kind; `RuntimeError` where the task is already
            inside such a block.
        """
        if kind not in ("text", "binary"):
            raise ValueError(f"a message is 'text' or 'binary', not {kind!r}")
        empty: str | bytes = "" if kind == "text" else b""
        await self._checkpoint()
        async with self._my_turn():
            writer = MessageWriter(type(empty), partial(self._send_fragment, compress=compress))
            self._outbox.hold()
            try:
                yield writer
                if self._state is not OPEN:
                    await self._raise_closed()
            except BaseException:  # whatever it is, it goes on its way
                if self._state is OPEN:
                    self._fail(CloseCode.INTERNAL_ERROR, "a message was left unfinished")
                raise
            finally:
                writer._close()
            last = self._wire.fragment(empty, final=True, compress=compress)
            self._write(Fragment(empty, final=True), last)
            if self._outbox.release():
                # What was posted meanwhile follows only now, and comes between this message and
                # the next in the peer's window (RFC 7692 section 7.2.2), but not in ours.
                self._wire.restart_compression()
            self._messages_sent += 1
            if self._idles:
                self._liveness.note_message()

    @trio.lowlevel.enable_ki_protection
    async def _send_fragment(self, data: str | bytes, *, compress: bool | None) -> None:
        await self._checkpoint()
        await self._wait_to_send()
        frame = self._wire.fragment(data, final=False, compress=compress)
        self._write(Fragment(data, final=False), frame)

    @protected_context
    async def _my_turn(self) -> AsyncGenerator[None, None]:
        """Wait for those who came first, then for room, and find the connection open."""
        self._check_thread()
        self._refuse_within_own_message()
        if self._turn is None:
            self._turn = trio.Lock()
        async with self._turn:
            await self._wait_to_send()
            yield

    def _refuse_within_own_message(self) -> None:
        """Raise where this task would wait for the end of a message that it sends in fragments."""
        if self._turn and self._turn.statistics().owner is trio.lowlevel.current_task():
            raise RuntimeError("this task is inside open_message(): finish that message first")

    async def _wait_to_send(self) -> None:
        """Wait for room, and find the connection still open."""
        await self._wait(self._outbox.wait_for_room)
        if self._state is not OPEN:
            await self._raise_closed()

    def _send_now(self, data: str | bytes, *, compress: bool | None, waited: bool = False) -> bool:
        """Send, if that is possible without having `waited` for one's turn; else return false."""
        outbox = self._outbox
        if not waited and (
            self._state is not OPEN
            or outbox.unsent > outbox.high_water
            or (self._turn is not None and self._turn.locked())
        ):
            return False
        if len(data) < LARGE:
            frame = self._wire.message(data, compress=compress)
            outbox.write(frame, following=self._inbox.waiting)
        else:
            outbox.write(*self._wire.large_message(data, compress=compress))
        self._messages_sent += 1
        if len(data) >= self._heavy_from:
            compressed = compress is not False and len(data) >= self._wire.compresses_from
            spend(DEFLATE_WORK * len(data) if compressed else len(data))
        if self._notes_messages:
            self._note_sent(data)
        return True

    def _note_sent(self, data: str | bytes) -> None:
        """A message is out, or on its way. Not worth the call unless `_notes_messages`."""
        if self._verbose:
            self._logger.debug("sent %s", show_event([data]))
        if self._idles:
            self._liveness.note_message()

    def _make_outlet(self) -> Outlet:
        """What a broadcast publishes through; see `outlet`."""
        return Outlet(
            self._outbox,
            self._wire,
            note_sent=self._note_sent if self._notes_messages else None,
            close=partial(self._begin_close, failed=True),
            check_turn=self._refuse_within_own_message,
        )

    def _write(self, event: Event, frame: bytes) -> None:
        self._log_sent(event)
        self._outbox.write(frame)

    def _log_sent(self, event: Event) -> None:
        if self._verbose:
            self._logger.debug("sent %s", show_event(event))

    # Receiving…

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> str | bytes:
        """The next whole message. Cancelling it loses nothing.

        Several tasks may receive: each message goes to exactly one of them. Messages that came
        before the connection ended can still be received after it.

        Raises:
            ConnectionEnded: there are no more, the peer closed in good order. ``async for`` ends.
            ConnectionLost: there are no more, the connection ended in any other way.
            trio.ClosedResourceError: this side called `aclose`. ``async for`` ends.
        """
        if get_ident() != self._thread:
            raise in_other_thread("connection", "ws.send_nowait")
        await next_checkpoint()()
        inbox = self._inbox
        if inbox.waiting:
            return inbox.take_nowait()
        if self._aclosed:
            raise self._closed_error()
        message = await self._next_message()
        if message is None:
            raise self._no_more()
        return message

    @trio.lowlevel.enable_ki_protection
    def receive_nowait(self) -> str | bytes:
        """`receive`, where it need not wait.

        Raises:
            trio.WouldBlock: no message is there yet.
        """
        if get_ident() != self._thread:
            raise in_other_thread("connection", "ws.send_nowait")
        inbox = self._inbox
        if inbox.waiting:
            return inbox.take_nowait()
        if self._aclosed:
            raise self._closed_error()
        try:
            return inbox.poll()
        except trio.WouldBlock:
            self._reading.recall()  # somebody has to read, and this task does not wait
            raise
        except trio.EndOfChannel:
            raise self._no_more()

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> str | bytes:
        # `receive` once more: calling it would take a fifth longer, and 200 bytes while it waits.
        if get_ident() != self._thread:
            raise in_other_thread("connection", "ws.send_nowait")
        await next_checkpoint()()
        inbox = self._inbox
        if inbox.waiting:
            return inbox.take_nowait()
        # Closing is how a handler leaves its own loop; whether this turn or another task did it.
        if self._aclosed:
            raise StopAsyncIteration
        message = await self._next_message()
        if message is not None:
            return message
        try:
            raise self._no_more()
        except (ConnectionEnded, trio.ClosedResourceError):
            raise StopAsyncIteration from None

    async def _next_message(self) -> str | bytes | None:
        """Wait for the next message, where none is waiting; `None` if none will come."""
        if self._reading.reads is NOBODY:
            message = await self._read_message()
            if message is not None:
                return message
        return await self._inbox.take()

    async def _read_message(self) -> str | bytes | None:
        """Read the next message in the reader task's place, if a message is what comes next."""
        reading = self._reading
        data = await reading.receive(self._transport)
        if data is None:
            return None
        if self._state is not OPEN:  # what comes now is the reader task's to judge, or to discard
            reading.recall(data)
            return None
        messages, position = self._wire.receive_messages(data)
        if not messages:
            reading.recall(data)
            return None
        self._liveness.heard_at = now = trio.current_time()
        self._bytes_received += position
        self._note_received(messages)
        message = self._inbox.put_but_first(messages, now)
        if position < len(data) or self._inbox.is_awaited:
            reading.recall(data[position:] or None)
        return message

    async def receive_text(self) -> str:
        """`receive`, where the next message has to be text.

        Raises:
            UnexpectedMessage: it is binary. It has been taken, and is the exception's `message`.
            ConnectionEnded, ConnectionLost, trio.ClosedResourceError: as `receive`.
            RuntimeError: the option `decode_text` is off.
        """
        self._check_decodes_text()
        message = await self.receive()
        if not isinstance(message, str):
            raise UnexpectedMessage(message)
        return message

    async def receive_bytes(self) -> bytes:
        """`receive`, where the next message has to be binary.

        Raises:
            UnexpectedMessage: it is text. It has been taken, and is the exception's `message`.
            ConnectionEnded, ConnectionLost, trio.ClosedResourceError: as `receive`.
            RuntimeError: the option `decode_text` is off.
        """
        self._check_decodes_text()
        message = await self.receive()
        if isinstance(message, str):
            raise UnexpectedMessage(message)
        return message

    def _check_decodes_text(self) -> None:
        if not self._options.decode_text:
            raise RuntimeError(
                "with decode_text=False, text and binary cannot be told apart: use receive()"
            )

    @overload
    async def receive_json(self) -> Any: ...

    @overload
    async def receive_json(self, *, loads: Callable[[str | bytes], T]) -> T: ...

    async def receive_json(self, *, loads: Callable[[str | bytes], object] = json.loads) -> object:
        """The next message, parsed as JSON. Text and binary are both given to `loads`.

        Raises:
            As `receive`, and what `loads` raises: the message is then gone, the connection is not.
        """
        return loads(await self.receive())

    @protected_context
    async def receive_message(self) -> AsyncGenerator[MessageReader, None]:
        """Read one message as it arrives, without holding all of it::

            async with ws.receive_message() as chunks:
                async for chunk in chunks:
                    await file.write(chunk)

        Entering the block waits for a message to begin. Chunks are all `str` or all `bytes`, cut
        where the network cut them and never within a character; one may be empty. Leaving early,
        by whatever way, discards the rest of the message, and the connection goes on.
        `max_message_size` also counts here: a connection for larger messages is opened with a
        larger one, or with `math.inf`.

        Raises:
            As `receive`; the end of the connection in the middle of the message is an error of
            the iteration.
        """
        await self._checkpoint()
        try:
            incoming = await self._wait(self._inbox.take_incoming)
        except trio.EndOfChannel:
            raise self._no_more()
        try:
            yield MessageReader(partial(self._next_piece, incoming))
        finally:
            self._inbox.release(incoming)

    @trio.lowlevel.enable_ki_protection
    async def _next_piece(self, incoming: IncomingMessage) -> str | bytes | None:
        await self._checkpoint()
        try:
            return await self._wait(partial(self._inbox.next_piece, incoming))
        except trio.EndOfChannel:
            raise self._no_more()

    def _no_more(self) -> Exception:
        """What a receiver is told once everything was taken; its nurseries end with that."""
        self._cancel_nurseries()
        return self._closed_error()

    # Pinging…

    @trio.lowlevel.enable_ki_protection
    async def ping(self, payload: Buffer | None = None) -> float:
        """Send a ping (RFC 6455 section 5.5.2), wait for its pong, and return the seconds between.

        A peer may answer only the latest of several pings, so a pong counts for all before it.
        When it is cancelled, the ping may have been sent; its pong is then ignored.

        Args:
            payload: up to 125 bytes, as any buffer; by default random ones.

        Raises:
            ConnectionEnded, ConnectionLost: the connection ended first.
            trio.ClosedResourceError: this side called `aclose`.
            ValueError: the payload is too long.
            TypeError: it is no buffer of bytes.
        """
        data = os.urandom(4) if payload is None else _checked_payload(payload)
        await self._checkpoint()
        await self._wait_to_send()
        ping = self._pings.add(data)
        self._write(Ping(ping.payload), self._wire.ping(ping.payload))
        try:
            await self._wait(ping.done.wait)
        finally:
            self._pings.forget(ping)
        if ping.round_trip is None:
            await self._raise_closed()
        return ping.round_trip

    @trio.lowlevel.enable_ki_protection
    async def pong(self, payload: Buffer = b"") -> None:
        """Send a pong that nobody asked for (RFC 6455 section 5.5.3): a sign of life that is not
        answered.

        Pings of the peer are answered without this. It waits, fails and is cancelled like `send`.

        Args:
            payload: up to 125 bytes, as any buffer.

        Raises:
            ConnectionEnded, ConnectionLost: the connection is over.
            trio.ClosedResourceError: this side called `aclose`.
            ValueError: the payload is too long.
            TypeError: it is no buffer of bytes.
        """
        data = _checked_payload(payload)
        await self._checkpoint()
        await self._wait_to_send()
        self._write(Pong(data), self._wire.pong(data))

    def _send_pong(self, payload: bytes, *, before: int) -> None:
        """Answer a ping; so many came in the same read `before` it."""
        if self._wire.may_send:
            if self._verbose:
                self._logger.debug("owed %s", show_event(Pong(payload)))
            # The outbox may replace it by the answer to a later ping. Where many came together, it
            # is likely that another follows: the answers are gathered.
            self._outbox.write_pong(self._wire.pong(payload), following=before)

    # Living with it…

    @protected_context
    async def open_nursery(self) -> AsyncGenerator[trio.Nursery, None]:
        """A nursery that lives no longer than the connection::

            async with ws.open_nursery() as nursery:
                nursery.start_soon(producer, ws)
                async for message in ws:
                    await consumer(message)

        It is cancelled when the connection ends, from either side, and that cancellation does not
        leave the block. It does not come over messages that were received before: where some wait,
        or one was taken less than `close_timeout` ago and may still be in hand, the nursery goes on
        until a task asks for a message and there is none left, or that time is up. Else it is
        cancelled at once; where this side called `aclose`, when the closing is through.

        A task may learn of the end by an exception before it is cancelled. Of these,
        `ConnectionEnded`, and the `trio.ClosedResourceError` after our own `aclose`, end the block
        in silence; `ConnectionLost` comes out of it bare.
        Everything else is as with `trio.open_nursery`, exception groups included.
        """
        self._check_thread()
        scope = trio.CancelScope()
        if self._nursery_scopes is None:
            self._nursery_scopes = set()
        self._nursery_scopes.add(scope)
        if self._close_reason is not None:
            self._end_nurseries()
        failures: list[BaseException] = []
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    yield nursery
        except BaseExceptionGroup as group:
            failures = self._failures_in(group)
        finally:
            self._nursery_scopes.discard(scope)
        if failures:
            raise_as_is(failures.pop(0))

    def _failures_in(self, group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
        """What is to come out of `open_nursery`, where its tasks raised `group`."""
        _, rest = group.split(lambda exc: self._is_end_or_our_close(exc))  # noqa: PLW0108 - it takes no method
        if rest is not None:
            return [rest]
        return [exc for exc in leaf_exceptions(group) if isinstance(exc, ConnectionLost)]

    async def wait_closed(self) -> CloseReason:
        """Wait until the connection is over and its socket closed, and say how it ended."""
        self._check_thread()
        await trio.lowlevel.checkpoint()
        await self._wait_until_finished()
        assert self._close_reason is not None
        return self._close_reason

    async def _wait_until_finished(self) -> None:
        if self._state is not State.CLOSED:
            if self._finished is None:
                self._finished = trio.Event()
            await self._wait(self._finished.wait)

    def _is_end(self, exc: BaseException) -> bool:
        """Whether `exc` says no more than that this connection, and not another, is over."""
        return isinstance(exc, ConnectionClosed) and exc.reason is self._close_reason

    def _is_end_or_our_close(self, exc: BaseException) -> bool:
        """The same, for tasks that may learn in this way that another one called `aclose`."""
        return self._is_end(exc) or (isinstance(exc, _ClosedByUs) and exc.connection_id == self.id)

    def _end_nurseries(self) -> None:
        """End the nurseries of `open_nursery`, in time for their last messages to be handled."""
        in_hand_at = self._inbox.in_hand_at
        if in_hand_at is None or self._aclosed:
            self._cancel_nurseries()  # nothing is in hand, or nobody may ask for more
            return
        # A receiver that comes back for more ends them earlier; see _no_more.
        for scope in self._nursery_scopes or ():
            scope.deadline = min(scope.deadline, in_hand_at + self._options.close_timeout)

    def _cancel_nurseries(self) -> None:
        for scope in self._nursery_scopes or ():
            scope.cancel()

    # Closing…

    @trio.lowlevel.enable_ki_protection
    async def aclose(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close: what is unsent, then the closing handshake (RFC 6455 section 7), then the socket.

        Takes at most `close_timeout` seconds. Calling it again, or when the peer closed first,
        only waits for the end. Messages not yet received are discarded, and every other use of the
        connection from now on is a `trio.ClosedResourceError`; calls that are waiting already
        raise it when the closing is through. When it is cancelled, the socket is closed at once,
        and the peer may get the Close frame or not.

        Args:
            code: 1000–1003, 1007–1014 or 3000–4999; `None` for a Close frame without one, which
                counts as 1005 (RFC 6455 section 7.1.5).
            reason: up to 123 bytes in UTF-8; none without a code.

        Raises:
            ValueError: for any other code or reason; nothing was done.
            TypeError: for a code that is no `int` or a reason that is no `str`.
        """
        given = close_code(code, reason)
        self._check_thread()
        self._begin_aclose(given, reason)
        try:
            await trio.lowlevel.checkpoint()
            await self._wait_until_finished()
        except BaseException:  # Cancelled or KeyboardInterrupt, and no time is left
            self._abort()
            raise

    def _begin_aclose(self, code: int, reason: str) -> None:
        self._aclosed = True
        self._send_close(code, reason)
        self._inbox.discard()
        self._wire.discard()
        if self._state is State.CLOSED:
            self._cancel_nurseries()

    async def _leave(self, code: int) -> None:
        """`aclose`, where the block ends that the connection is for: it waits for nothing else."""
        self._begin_aclose(code, "")
        if self._state is not State.CLOSED:
            with trio.CancelScope(shield=True):
                await self._wait_until_finished()

    @trio.lowlevel.enable_ki_protection
    def _begin_close(self, code: int, reason: str, *, failed: bool = False) -> None:
        """Start closing without waiting, on behalf of the server rather than of the handler.

        The handler may still receive what came before, and then finds the connection ended: in
        good order, unless it `failed`.
        """
        if self._state is OPEN:
            self._send_close(code, reason)
            self._decide(CloseReason(code, reason, Initiator.LOCAL, failed=failed))

    def _send_close(self, code: int, reason: str) -> None:
        self._heed_end()
        if self._state is OPEN:
            self._write_close(code, reason)
            self._start_closing(self._options.close_timeout)

    def _heed_end(self) -> None:
        """Act on the peer's last frame, where it came and that has not been done yet.

        The reader task does so when the application has dealt with what came before. Whatever ends
        the connection earlier goes through here first: it was the peer that began it.
        """
        end = self._wire.end
        if isinstance(end, Violation):
            self._pronounce(end.code, end.reason)
        elif end is not None and not self._peer_said_close:
            self._peer_said_close = True
            self._answer(end)

    def _answer(self, close: Close) -> None:
        unasked = self._wire.may_close
        code = close.code
        if not unasked and code == CloseCode.NO_STATUS_RECEIVED:
            code = self._close_sent  # an answer without a code agrees with ours
        # Leaving by an exception sends 1011 (RFC 6455 section 7.4.1): that is no orderly end.
        raised = not unasked and self._close_sent == CloseCode.INTERNAL_ERROR
        by = Initiator.REMOTE if unasked else Initiator.LOCAL
        # Before the answer: a peer that is gone by now has closed all the same.
        self._decide(CloseReason(code, close.reason, by, failed=raised))
        if unasked:
            self._write_close(close.code, close.reason)
        self._start_closing(self._options.close_timeout)

    def _fail(self, code: int, reason: str) -> None:
        """Give the connection up, for what is not the peer's last frame."""
        self._heed_end()
        self._pronounce(code, reason)

    def _pronounce(self, code: int, reason: str) -> None:
        """_Fail the WebSocket Connection_ (RFC 6455 section 7.1.7)."""
        # Before it is told, which may fail.
        self._decide(CloseReason(code, reason, Initiator.LOCAL, failed=True))
        if self._wire.may_close:
            self._write_close(code, reason)
        self._start_closing(self._options.close_timeout)

    def _lose(self, exc: Exception | None, what: str) -> None:
        """The transport is gone, and with it what was unsent."""
        self._heed_end()
        if self._close_reason is None and self._loss is None:
            self._keep_loss(exc)
        self._start_closing(0)
        self._decide(CloseReason(CloseCode.ABNORMAL_CLOSURE, what, Initiator.REMOTE))

    def _write_failed(self, exc: Exception) -> None:
        if not isinstance(exc, GONE):
            self._logger.error("the stream failed: %r", exc, exc_info=exc)
        # What the peer said before the connection broke may still be there to be read, and it may
        # have been a Close frame with the reason. A reader that is paused will not get to it.
        if self._liveness.paused:
            self._lose(exc, reason_of(exc))
        else:
            if self._close_reason is None:
                self._keep_loss(exc)
            self._start_closing(min(POST_MORTEM, self._options.close_timeout))

    def _keep_loss(self, exc: Exception | None) -> None:
        """Remember what the transport said, as the cause of what the application will be told."""
        if exc is not None:
            forget_tracebacks(exc)
        self._loss = exc

    def _abort(self) -> None:
        """No time is left: the reader task closes the socket at its next turn."""
        self._start_closing(0)
        self._reader_scope.cancel()

    def _write_close(self, code: int, reason: str) -> None:
        self._close_sent = code
        self._write(Close(code, reason), self._wire.close(code, reason))

    def _start_closing(self, seconds: float) -> None:
        """From here on nothing is sent, and the reader task has this long to bring it to an end."""
        if self._state is OPEN:
            self._state = State.CLOSING
            self._outbox.seal()
            self._reading.recall()
        deadline = trio.current_time() + seconds
        self._reader_scope.deadline = min(self._reader_scope.deadline, deadline)

    def _decide(self, reason: CloseReason) -> None:
        """Say how it ended: nothing more will be received. The first to say so is right."""
        if self._close_reason is None:
            self._close_reason = reason
            if not self._aclosed:
                self._inbox.close()
                self._wire.discard()
                self._end_nurseries()

    async def _raise_closed(self) -> NoReturn:
        """Raise why nothing can be sent, after waiting for the verdict if there is none yet."""
        if self._close_reason is None:
            await self._wait_until_finished()
        raise self._closed_error()

    def _closed_error(self) -> Exception:
        if self._aclosed:
            return _ClosedByUs(self.id)
        reason = self._close_reason
        assert reason is not None
        error = ConnectionEnded(reason) if reason.orderly else ConnectionLost(reason)
        error.__cause__ = self._loss
        return error

    # The tasks behind it…

    def _start(self, nursery: trio.Nursery, flusher: Flusher, watchdog: Watchdog) -> None:
        """Start the reader task. From here on only `aclose` or the end of its peer ends it."""
        # These two call methods of the services. With methods of its own in them, a connection
        # would refer to itself, and be freed only when the garbage collector looks.
        self._outbox = Outbox(
            self._transport,
            self._options.max_send_buffer,
            nursery.start_soon,
            flusher.flush_soon,
            self._write_failed,
            patience=self._options.ping_interval + self._options.ping_timeout,
        )
        self._reading = Reading(watchdog.relieve_soon)
        nursery.start_soon(self._run)

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        try:
            with self._reader_scope:
                try:
                    if await self._read_until_over():
                        await self._outbox.wait_until_empty()
                        await self._hang_up()
                except GONE as exc:
                    self._lose(exc, reason_of(exc))
                except Exception as exc:
                    # A mistake of ours, or of a stream that is not trio's. It ends this connection
                    # and no other, whoever's nursery this is.
                    self._logger.exception("the connection failed")
                    self._lose(exc, f"the connection failed: {exc!r}")
        finally:
            # Nothing here can be cancelled: the socket is closed, whatever came before.
            self._outbox.stop()
            try:
                await self._transport.aclose_forcefully()
            except Exception:
                self._logger.exception("the stream could not be closed")
            finally:
                self._settle()

    async def _read_until_over(self) -> bool:
        """Read until the last frame; false if the peer hung up before that."""
        if self._trailing_data:
            await self._take(self._trailing_data)
            self._trailing_data = b""
        may_stand_by = False
        while self._wire.end is None:
            data = await self._reading.stand_by() if may_stand_by else None
            if may_stand_by and self._inbox.full:  # more came than one receiver could take
                await self._wait_for_room()
            if data is None:
                data = await self._transport.receive()
            if not data:
                self._lose(None, "the peer hung up without a Close frame")
                return False
            self._liveness.heard_at = trio.current_time()
            may_stand_by = await self._take(data) and self._may_stand_by
        end = self._wire.end
        if self._state is OPEN and end.code != CloseCode.MESSAGE_TOO_BIG:
            # What came before was right, and one read may have brought both: whether it is answered
            # must not depend on how TCP cut up the bytes.
            await self._wait_for_last_answers()
        self._heed_end()
        return True

    @property
    def _may_stand_by(self) -> bool:
        """Whether the next thing to come may well be a message, and a task to read it may come."""
        return (
            self._transport.plain_socket is not None
            and self._state is OPEN
            and self._wire.is_between_messages
            and not self._inbox.is_awaited
            and not self._pings.are_awaited
        )

    async def _take(self, data: bytes) -> bool:
        """Handle what a read brought, as far as there is room for it.

        Returns:
            Whether a task that waited for a message got one of it.
        """
        self._bytes_received += len(data)
        # Ten thousand frames fit into a read, and a thousand bytes may inflate to a megabyte.
        wire = self._wire
        work = pings = 0
        inflated = wire.bytes_inflated
        handed_over = False
        for event in wire.receive(data):
            if isinstance(event, list):  # nearly always
                handed_over |= self._inbox.put(event, self._liveness.heard_at)
                self._note_received(event)
                work += len(event) * MESSAGE_WORK
            elif isinstance(event, Ping):
                self._log_received(event)
                self._send_pong(event.payload, before=pings)
                self._tell("ping", event.payload)
                pings += 1
                work += FRAME_WORK
            else:
                self._log_received(event)
                handed_over |= self._handle(event)
                work += FRAME_WORK
            if self._inbox.full:
                await self._wait_for_room()
            elif work + wire.bytes_inflated - inflated >= WORK_PER_CHECKPOINT:
                work, inflated = 0, wire.bytes_inflated
                await trio.lowlevel.checkpoint()
        return handed_over

    def _note_received(self, messages: Messages) -> None:
        self._messages_received += len(messages)
        if self._notes_messages:
            self._log_received(messages)
            self._liveness.note_message()

    def _log_received(self, event: Event) -> None:
        if self._verbose:
            self._logger.debug("received %s", show_event(event))

    async def _wait_for_last_answers(self) -> None:
        in_hand_at = self._inbox.in_hand_at
        if in_hand_at is not None:
            self._liveness.paused = True  # we do not listen any more, so silence says nothing
            self._end_nurseries()  # their time runs from here, not from our answer
            with trio.move_on_at(in_hand_at + LAST_ANSWERS):
                await self._inbox.wait_until_caught_up()

    async def _wait_for_room(self) -> None:
        self._liveness.paused = True
        await self._inbox.wait_for_room()
        self._liveness.resume(trio.current_time())

    def _handle(self, event: Fragment | Pong | Close | Violation) -> bool:
        """Whether a task that waited for a message got this one."""
        if isinstance(event, Fragment):
            if event.final:
                self._messages_received += 1
                self._liveness.note_message()
            return self._inbox.put_fragment(event, self._liveness.heard_at)
        elif isinstance(event, Pong):
            self._pings.answer(event.payload)
            self._tell("pong", event.payload)
        return False

    def _tell(self, kind: Literal["ping", "pong"], payload: bytes) -> None:
        """Let the application know of it, if it wants to."""
        if self._options.on_ping_pong is not None:
            try:
                self._options.on_ping_pong(self, kind, payload)
            except Exception:
                self._logger.exception("on_ping_pong failed")

    async def _hang_up(self) -> None:
        """Close the TCP connection without cutting off the Close frame that is on its way."""
        is_server = self._wire.role is Role.SERVER
        # The server hangs up first (RFC 6455 section 7.1.1). Nothing is expected from a peer that
        # said Close; where nothing has come, closing sends a FIN behind our last bytes.
        if not (is_server and self._peer_said_close and self._transport.is_drained()):
            await self._linger(is_server=is_server)
        await self._transport.aclose()

    async def _linger(self, *, is_server: bool) -> None:
        """Let the peer hang up: unread bytes, if it is sending, would turn our FIN into a reset."""
        patience = LINGER
        if not self._peer_said_close:  # a violation: it may be in the middle of anything
            if await self._transport.send_eof(below_tls=True):
                patience = inf
        elif is_server and not await self._transport.send_eof():
            patience = 0.0
        with trio.move_on_after(patience):
            await self._transport.discard_until_eof()

    def _settle(self) -> None:
        """The socket is closed: everything that still waits for this connection learns it."""
        self._state = State.CLOSED
        self._decide(
            CloseReason(
                CloseCode.ABNORMAL_CLOSURE,
                reason_of(self._loss) if self._loss else "no Close frame came before we hung up",
                Initiator.REMOTE if self._loss else Initiator.LOCAL,
            )
        )
        if self._finished is not None:
            self._finished.set()
        if self._aclosed:
            # Tasks that wait inside `open_nursery` are cancelled before they are told.
            self._cancel_nurseries()
        self._inbox.close()
        self._pings.give_up()

    # Liveness: called by the watchdog…

    @trio.lowlevel.enable_ki_protection
    def _check(self, now: float) -> float:
        """Do what is due, and return when the watchdog has to look again."""
        if self._state is not OPEN:
            return inf
        due, again = self._liveness.check(now, self._outbox)
        if due is Due.PING:
            payload = os.urandom(4)
            self._pings.add_probe(payload)
            self._log_sent(Ping(payload))
            self._outbox.write_probe(self._wire.ping(payload))
        elif due in (Due.DROP_SILENT, Due.DROP_STALLED):
            # It is told so if that takes no waiting: it has had all its time.
            self._fail(CloseCode.INTERNAL_ERROR, due.value)
            self._abort()
        elif due in (Due.CLOSE_IDLE, Due.CLOSE_OLD):
            self._begin_close(CloseCode.NORMAL_CLOSURE, due.value)
        return again
