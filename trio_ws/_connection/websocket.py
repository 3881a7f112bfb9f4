"""An open WebSocket connection: what the application may call.

This module owns the public methods, in the order of their headings, and hands each to one of the
parts behind it. It does not know how connections come about (`_client`, `_server`), what a frame
looks like (`_protocol`) or what a socket is (`_transport`).

The parts, and the tasks that run them:

- *Application tasks* send through `sender` and `outbox`, and receive from `inbox`.
- The *reader task* (`reader`) reads, decodes, answers pings, fills the inbox, and at the end shuts
  the transport down. While a task waits in `receive`, that task reads the next message itself, and
  the reader task stands by or does not exist (`reading`).
- The *watchdog*, one per server and one per client connection, has `keepalive` send pings and drop
  peers that are gone.
- `ending` holds how the connection ends, whoever ends it.

Ctrl-C may raise `KeyboardInterrupt` between any two lines of the application. It must not do so
between writing half a frame and remembering the other half, hence `enable_ki_protection` on every
method that leads to such a place; it costs nothing when the method is called.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal, TypeVar, final, overload

import trio

from .._addresses import TLS, Address, show_address
from .._errors import CloseCode, CloseReason, ConnectionEnded, UnexpectedMessage, close_code
from .._http.context import Context
from .._http.values import Request, Response
from .._json import to_json
from .._log import ConnectionLogger
from .._nursery import protected_context
from .._options import ConnectionOptions
from .._pacing import next_checkpoint
from .._protocol.events import Ping, Pong
from .._protocol.message import Message, checked_message
from .._threads import in_other_thread
from .._transport.stream import Transport
from .ending import OPEN, Ending, State
from .inbox import Inbox, IncomingMessage
from .keepalive import Keepalive
from .liveness import Liveness
from .nursery import open_nursery_until
from .opening import Opening
from .outbox import Outbox
from .pieces import MessageReader, MessageWriter
from .pings import SentPings, checked_payload
from .reader import Reader
from .reading import Reading
from .sender import Sender

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """A snapshot of one connection. Bytes are those of frames, headers included.

    Attributes:
        messages_received, messages_sent: whole messages, and those in fragments once complete.
        bytes_received, bytes_sent: what came from the transport, and what was given to it to send;
            not what was dropped before it left, at the end.
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
        "_ending",
        "_inbox",
        "_keepalive",
        "_liveness",
        "_logger",
        "_options",
        "_outbox",
        "_pings",
        "_reader",
        "_reading",
        "_received",
        "_sender",
        "_thread",
        "_transport",
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

    # Made at the start of its `Lifetime`, before anybody else has the connection.
    _outbox: Outbox
    _reading: Reading
    _reader: Reader
    _sender: Sender
    _keepalive: Keepalive

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
        #: In which everything happens. Each method looks, the quick ones without a call.
        self._thread = get_ident()

        self._options = options
        self._logger = logger
        self._transport = transport
        self._wire = opening.wire
        self._received = opening.trailing_data
        self._inbox = Inbox(options.max_queued_messages, options.max_queued_bytes)
        self._pings = SentPings()
        self._liveness = Liveness(options)
        self._ending = Ending(
            connection_id,
            self._wire,
            self._inbox,
            self._liveness,
            close_timeout=options.close_timeout,
            logger=logger,
        )

    # What it is and how it is doing…

    @property
    def state(self) -> State:
        """Open, closing (no more can be sent) or closed, the socket included."""
        return self._ending.state

    @property
    def tls(self) -> TLS | None:
        """The TLS under this connection; `None` without.

        Ask it for ``getpeercert()``, ``cipher()``, ``version()``, ``selected_alpn_protocol()``,
        ``get_channel_binding()`` and the like, which need not wait. Never read or write with it.
        It is an `ssl.SSLObject`, or the `trio.SSLStream` that you brought, which has the same
        methods. Behind a proxy that ends TLS, it is that of the proxy.
        """
        return self.request.tls

    @property
    def context(self) -> Context:
        """What the application keeps with this connection: that of its `request`."""
        return self.request.context

    @property
    def close_reason(self) -> CloseReason | None:
        """How the connection ended; `None` while that is not known yet."""
        return self._ending.reason

    @property
    def latency(self) -> float | None:
        """The last round trip in seconds, of `ping` or keepalive; `None` before the first."""
        return self._pings.latency

    def statistics(self) -> ConnectionStatistics:
        """What went each way so far, and what waits."""
        queued_messages, queued_bytes = self._inbox.statistics()
        return ConnectionStatistics(
            messages_received=self._reader.messages_received,
            messages_sent=self._sender.messages_sent + self._outbox.messages_posted,
            bytes_received=self._reader.bytes_received,
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
        reason = self._ending.reason
        end = f" {reason}" if reason else ""
        return (
            f"<WebSocket {self.id} {side} of {self.request.path!r} with {peer}, "
            f"{self._ending.state.value}{end}, {queued} queued, {self._outbox.unsent} bytes unsent>"
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

        A message of more than 64 KiB is compressed bit by bit, while other tasks run; one of more
        than 1 MiB is encoded, and masked by a client, in the same way. What other tasks send comes
        after it. A buffer other than `bytes` is copied at the call, before all else: 64 MiB hold
        other tasks up for some 40 ms.

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
        sender = self._sender
        if not sender.send_now(data, compress=compress, may_wait=True):
            await sender.send_in_turn(data, compress=compress)
        if self._ending.state is not OPEN:  # the write found the connection broken
            await sender.raise_closed()

    async def _checkpoint(self) -> None:
        """Where every async method starts."""
        await next_checkpoint()()
        self._check_thread()
        self._ending.check_use()

    @trio.lowlevel.enable_ki_protection
    def send_nowait(self, message: Message, *, compress: bool | None = None) -> None:
        """`send`, where it need not wait.

        After a failed write it cannot wait for the peer's reason, and reports 1006; `send` does.

        A message of more than 512 KiB goes uncompressed, unless `compress` is true: nothing else
        could run meanwhile, for 10 ms a mebibyte. It is encoded and masked at once, too, for 1 to
        3 ms a mebibyte.

        Raises:
            trio.WouldBlock: it would have to; nothing was sent. That is so also inside this task's
                own `open_message`, where trying again does not help.
        """
        if get_ident() != self._thread:
            raise in_other_thread("connection", "ws.send_nowait")
        data = message if isinstance(message, (str, bytes)) else checked_message(message)
        if self._ending.state is not OPEN:
            # Where a write failed, this cannot wait for why, even if a Close frame is unread.
            self._ending.lose_unread()
            raise self._ending.error()
        if not self._sender.send_now(data, compress=compress, may_wait=False):
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
        await self._checkpoint()
        async with self._sender.open_message(
            kind, compress=compress, checkpoint=self._checkpoint
        ) as writer:
            yield writer

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
        inbox = self._inbox
        if inbox.waiting:
            await next_checkpoint()()
            if inbox.waiting:  # if not, another task had its turn and took the last
                return inbox.receive_nowait()
        elif self._ending.is_ours:
            await next_checkpoint()()
        self._ending.check_use()
        # Waiting is a checkpoint. One more before it would cost a fiftieth of the message.
        message = await self._reader.next_message()
        if message is None:
            raise self._ending.no_more()
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
            return inbox.receive_nowait()
        self._ending.check_use()
        try:
            return inbox.poll()
        except trio.WouldBlock:
            self._reading.recall()  # somebody has to read, and this task does not wait
            raise
        except trio.EndOfChannel:
            raise self._ending.no_more()

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> str | bytes:
        # `receive` once more: calling it would take a fifth longer, and 200 bytes while it waits.
        if get_ident() != self._thread:
            raise in_other_thread("connection", "ws.send_nowait")
        inbox = self._inbox
        if inbox.waiting:
            await next_checkpoint()()
            if inbox.waiting:
                return inbox.receive_nowait()
        # Closing is how a handler leaves its own loop; whether this turn or another task did it.
        if self._ending.is_ours:
            await next_checkpoint()()
            raise StopAsyncIteration
        message = await self._reader.next_message()
        if message is not None:
            return message
        try:
            raise self._ending.no_more()
        except (ConnectionEnded, trio.ClosedResourceError):
            raise StopAsyncIteration from None

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
            incoming = await self._reading.wait_for(self._inbox.claim)
        except trio.EndOfChannel:
            raise self._ending.no_more()
        try:
            yield MessageReader(partial(self._next_piece, incoming))
        finally:
            self._inbox.release(incoming)

    @trio.lowlevel.enable_ki_protection
    async def _next_piece(self, incoming: IncomingMessage) -> str | bytes | None:
        await self._checkpoint()
        try:
            return await self._reading.wait_for(partial(self._inbox.next_piece, incoming))
        except trio.EndOfChannel:
            raise self._ending.no_more()

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
        data = os.urandom(4) if payload is None else checked_payload(payload)
        await self._checkpoint()
        await self._sender.wait_to_send()
        ping = self._pings.add(data)
        self._sender.write(Ping(data), self._wire.ping(data))
        try:
            await self._reading.wait_for(ping.done.wait)
        finally:
            self._pings.forget(ping)
        if ping.round_trip is None:
            await self._sender.raise_closed()
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
        data = checked_payload(payload)
        await self._checkpoint()
        await self._sender.wait_to_send()
        self._sender.write(Pong(data), self._wire.pong(data))

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
        in silence; `ConnectionLost` comes out of it bare, and so does a `KeyboardInterrupt` that is
        alone. Everything else is as with `trio.open_nursery`, exception groups included.
        """
        self._check_thread()
        async with open_nursery_until(self._ending) as nursery:
            yield nursery

    async def wait_closed(self) -> CloseReason:
        """Wait until the connection is over and its socket closed, and say how it ended."""
        self._check_thread()
        await trio.lowlevel.checkpoint()
        await self._ending.wait_until_finished()
        assert self._ending.reason is not None
        return self._ending.reason

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
        self._ending.aclose(given, reason)
        try:
            await trio.lowlevel.checkpoint()
            await self._ending.wait_until_finished()
        except BaseException:  # Cancelled or KeyboardInterrupt, and no time is left
            self._ending.abort()
            raise
