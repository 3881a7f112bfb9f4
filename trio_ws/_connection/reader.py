"""The reader task: it takes in what the peer sends, and at the end shuts the transport down.

This module owns the way in for a message, up to the inbox or the hands of the task that waits. It
also owns the last steps of a connection: what is unsent goes out, the peer gets a moment to hang
up, and the socket is closed. `reading` decides who reads, and `ending` why a connection ends.

The reader task never waits for a writer: what it writes goes to the outbox, which takes frames
without waiting. While a task waits in `receive`, that task reads, and this one stands by or does
not exist.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from math import inf
from typing import Literal, TypeAlias, final

import trio

from .._errors import CloseCode
from .._log import ConnectionLogger
from .._pacing import FRAME_WORK, MESSAGE_WORK, WORK_PER_CHECKPOINT, next_checkpoint
from .._protocol.arriving import HEADROOM, PLACE_SIZE, borrow_place, return_place
from .._protocol.events import Event, Fragment, Messages, Ping, Pong, Role, Violation
from .._protocol.wire import Wire
from .._reasons import reason_of
from .._transport.stream import RECEIVE_SIZE, Transport
from .._transport.system import GONE
from .ending import OPEN, Ending
from .frame_log import log_frame
from .inbox import Inbox
from .liveness import Liveness
from .outbox import Outbox
from .pings import SentPings
from .rates import Rates
from .reading import NOBODY, Reading

#: Once both Close frames are through, or after a failure over a stream that cannot be shut down
#: one way, the peer gets this many seconds to hang up (RFC 6455 section 7.1.1).
LINGER = 1.0

#: When the peer closes or breaks the protocol, the application has this many seconds to answer what
#: came before, counted from when it took the last message (RFC 6455 section 5.5.1 allows an
#: endpoint to delay its Close frame for that).
LAST_ANSWERS = 1.0

#: A frame that lacks at least this much is received into place. The next read of the ordinary kind
#: would bring less.
IN_PLACE_FROM = RECEIVE_SIZE

#: How many pings and pongs a receiver handles itself. Where both ends ping at once, a ping and a
#: pong come together.
KEEPALIVE_FRAMES = 2

#: Called with each ping and pong that came.
Tell: TypeAlias = Callable[[Literal["ping", "pong"], bytes], object]


class Outcome(enum.Enum):
    """Why the reader task reads no more."""

    LET_GO = "receivers read; another reader task is started when there is need of one"
    LAST_FRAME = "the peer's last frame was read"
    OVER = "nothing more can be read"


@final
class Reader:
    """The reader task of one connection; see the module.

    Args:
        transport: is read, and closed at the end.
        wire: decodes what was read. Whole messages and pieces of them go to `inbox`, pongs to
            `pings`, and answers to pings to `outbox`.
        reading: knows who reads.
        ending: is told of the end that the peer or the network makes.
        liveness: is told when something came.
        logger: belongs to the connection.
        rates: how fast the peer may send, if that is limited.
        tell: is called with each ping and pong, if anybody wants to know.
    """

    __slots__ = (
        "_ending",
        "_inbox",
        "_liveness",
        "_logger",
        "_notes_messages",
        "_outbox",
        "_pings",
        "_rates",
        "_reading",
        "_tell",
        "_transport",
        "_wire",
        "bytes_received",
        "messages_received",
    )

    def __init__(
        self,
        transport: Transport,
        wire: Wire,
        inbox: Inbox,
        outbox: Outbox,
        pings: SentPings,
        *,
        reading: Reading,
        ending: Ending,
        liveness: Liveness,
        logger: ConnectionLogger,
        rates: Rates | None,
        tell: Tell | None,
    ) -> None:
        self._transport = transport
        self._wire = wire
        self._inbox = inbox
        self._outbox = outbox
        self._pings = pings
        self._reading = reading
        self._ending = ending
        self._liveness = liveness
        self._logger = logger
        #: Whether somebody wants to know of each message.
        self._notes_messages = liveness.counts_idleness or logger.shows_frames
        self._rates = rates
        self._tell = tell
        self.bytes_received = self.messages_received = 0

    # A receiving task's way…

    async def next_message(self) -> str | bytes | None:
        """Wait for the next message, where none is waiting; `None` if none will come.

        Cancelling loses nothing.
        """
        # A wait counts as a call. Otherwise the turn that other tasks get after so many calls would
        # come elsewhere in each batch of messages, and cut its answers into two writes. A peer that
        # answers these makes two batches of one.
        next_checkpoint()
        while self._reading.reads is NOBODY:
            data = await self._reading.receive()
            message = self._first_message(data) if data is not None else None
            if message is not None:
                return message
        return await self._inbox.receive()

    def _first_message(self, data: bytes) -> str | bytes | None:
        """The whole message that `data` begins with, if it does. All else goes where it belongs."""
        reading = self._reading
        messages, position = self._wire.receive_messages(data)
        if not messages:
            self._take_keepalive(data)
            return None
        self._liveness.heard_at = now = trio.current_time()
        self.bytes_received += position
        if self._rates is not None and not self._rates.admit(messages, now, position):
            # To wait for that is for the reader task: this one may be cancelled.
            self._rates.held_back = messages
            reading.hand_back(data[position:] or None)
            return None
        self._note_received(messages)
        message = self._inbox.put_but_first(messages, now)
        if position < len(data):
            reading.hand_back(data[position:])
        else:
            self._leave(now)
        return message

    def _take_keepalive(self, data: bytes) -> None:
        """Handle a ping and a pong, if a read brought these, and leave all else to the reader task.

        Idle connections read nothing else, and would have a reader task for its sake.
        """
        self._liveness.heard_at = now = trio.current_time()
        position = 0
        for _ in range(KEEPALIVE_FRAMES):
            event, stop = self._wire.receive_ping_or_pong(data, position)
            if event is None:
                break
            rates = self._rates
            if rates is not None and not rates.admit([event.payload], now, stop - position):
                break
            position = stop
            log_frame(self._logger, "received %s", event)
            self._handle(event, 0)
        self.bytes_received += position
        if 0 < position == len(data):  # at the end of file, both are 0
            self._leave(now)
        else:
            self._reading.hand_back(data[position:])

    def _leave(self, now: float) -> None:
        """All that a receiver read has been dealt with."""
        if self._inbox.is_awaited or self._pings.are_awaited:
            self._reading.hand_back()  # another task waits, which does not read while nobody does
        else:
            self._reading.leave(now)

    # The reader task's way…

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Read until this task is let go, or until the end, and then close the socket."""
        outcome = Outcome.OVER
        scope = self._ending.open_scope()
        try:
            with scope:
                try:
                    outcome = await self._read()
                    if outcome is Outcome.LAST_FRAME:
                        await self._outbox.wait_until_empty()
                        await self._hang_up()
                except GONE as exc:
                    self._ending.lose(exc, reason_of(exc))
                except Exception as exc:
                    # A mistake of ours, or of a stream that is not trio's. It ends this connection
                    # and no other, whichever nursery this is.
                    self._logger.exception("the connection failed")
                    self._ending.lose(exc, f"the connection failed: {exc!r}")
        finally:
            if outcome is Outcome.LET_GO:
                self._ending.close_scope(scope)
            else:
                await self._close()

    async def _close(self) -> None:
        """Close the socket, whatever came before. Nothing here can be cancelled."""
        self._tell = None  # it has the connection, which has this
        self._reading.end()
        self._outbox.stop()
        try:
            await self._transport.aclose_forcefully()
        except Exception:
            self._logger.exception("the stream could not be closed")
        finally:
            self._ending.settle()
            self._pings.give_up()

    async def _read(self) -> Outcome:
        data = await self._take_news()
        while self._wire.end is None:
            if data is None:
                data = await self._transport.receive()
            if not data:
                self._ending.lose(None, "the peer hung up without a Close frame")
                return Outcome.OVER
            self._liveness.heard_at = trio.current_time()
            handed_over = await self._take_in(data)
            if self._wire.left_of_frame >= IN_PLACE_FROM and self._transport.plain_socket:
                handed_over = await self._take_rest_of_frame()
            data = None
            if handed_over and self._may_stand_by:
                if not await self._reading.stand_by():
                    return Outcome.LET_GO
                data = await self._take_news()
        if self._ending.state is OPEN and self._wire.end.code != CloseCode.MESSAGE_TOO_BIG:
            # What came before was right, and one read may have brought both: whether it is answered
            # must not depend on how TCP cut up the bytes.
            await self._wait_for_last_answers()
        self._ending.heed_peer()
        return Outcome.LAST_FRAME

    async def _take_news(self) -> bytes | None:
        """Take over what a receiver read and left to this task, once there is room for more."""
        news = self._reading.take_news()
        if self._rates is not None:
            messages, self._rates.held_back = self._rates.held_back, []
            await self._put_as_earned(messages)
        if self._inbox.full:  # it read more than there was room for
            await self._wait_for_room()
        return news

    @property
    def _may_stand_by(self) -> bool:
        """Whether receivers may read from now on, after a task was handed the last message.

        It is likely to come back for the next. What no task waited for says nothing of that.
        """
        return (
            self._transport.is_direct
            and self._ending.state is OPEN
            and self._wire.end is None
            and self._wire.is_between_messages
            and not self._inbox.is_awaited
            and not self._pings.are_awaited
        )

    async def _take_in(self, data: bytes) -> bool:
        """Handle what a read brought, as far as there is room for it.

        Returns:
            Whether a task that waited for a message got one of it.
        """
        self.bytes_received += len(data)
        # Ten thousand frames fit into a read, and a thousand bytes may inflate to a megabyte.
        wire, inbox = self._wire, self._inbox
        work = pings = 0
        inflated = wire.bytes_inflated
        handed_over = False
        for event in wire.receive(data):
            if isinstance(event, list):  # nearly always
                if self._rates is not None:
                    handed_over |= await self._put_as_earned(event)
                else:
                    handed_over |= inbox.put(event, self._liveness.heard_at)
                    self._note_received(event)
                work += len(event) * MESSAGE_WORK
            elif self._rates is None or await self._earn(event):
                log_frame(self._logger, "received %s", event)
                handed_over |= self._handle(event, pings)
                pings += isinstance(event, Ping)
                work += FRAME_WORK
            if inbox.full:
                await self._wait_for_room()
            elif work + wire.bytes_inflated - inflated >= WORK_PER_CHECKPOINT:
                work, inflated = 0, wire.bytes_inflated
                await trio.lowlevel.checkpoint()
        return handed_over

    async def _take_rest_of_frame(self) -> bool:
        """Handle the rest of a large frame as it comes, received into place.

        Returns:
            As `_take_in`. Where the peer has hung up, the next read says so.
        """
        wire, inbox = self._wire, self._inbox
        handed_over = False
        while left := wire.left_of_frame:
            came, event = self._receive_in_place(min(left, PLACE_SIZE))
            if came and event is not None:
                self.bytes_received += came
                self._liveness.heard_at = trio.current_time()
                if self._rates is not None and not await self._earn(event):
                    break
                log_frame(self._logger, "received %s", event)
                handed_over = self._handle(event, 0)
                if inbox.full:
                    await self._wait_for_room()
            elif came == 0:
                break
            if came == PLACE_SIZE:  # there is likely to be more
                await trio.lowlevel.checkpoint()
            elif wire.left_of_frame:
                await self._transport.wait_until_readable()
        return handed_over

    def _receive_in_place(self, most: int) -> tuple[int | None, Fragment | Violation | None]:
        """How many bytes came, `None` if none have yet, and what the wire makes of them."""
        # Nothing is awaited while the place is borrowed: it is for all connections.
        place = borrow_place()
        try:
            with memoryview(place) as whole, whole[HEADROOM : HEADROOM + most] as room:
                came = self._transport.receive_into_nowait(room)
            return came, self._wire.receive_in_place(place, came) if came else None
        finally:
            return_place(place)

    async def _put_as_earned(self, messages: Messages) -> bool:
        """Put in messages, each as soon as the peer has earned it.

        Returns:
            Whether a task that waited was handed one of them.
        """
        assert self._rates is not None
        admitted = self._rates.admit(messages, trio.current_time())
        handed_over = False
        for batch in [messages] if admitted else [[message] for message in messages]:
            if not (admitted or await self._earn(batch)):
                break
            handed_over |= self._inbox.put(batch, self._liveness.heard_at)
            self._note_received(batch)
        return handed_over

    async def _earn(self, event: Event) -> bool:
        """Wait until the peer has earned what it sent. False if it had to wait, and is closed.

        What comes is not read meanwhile, a ping or a Close frame included.
        """
        assert self._rates is not None
        now = trio.current_time()
        seconds = self._rates.earn(event, now)
        # Once the connection ends, only the peer's Close frame, or why it broke, is looked for.
        if seconds and self._ending.state is OPEN:
            if self._rates.closes:
                self._wire.end = self._rates.violation(now)
                return False
            self._liveness.paused = True
            await self._inbox.wait_until(now + seconds)
            self._liveness.resume(trio.current_time())
        return True

    def _handle(self, event: Event, pings: int) -> bool:
        """Handle what is not a whole message; so many `pings` came in the same read before it.

        Returns:
            Whether it was the rest of a message, and a task that waited for that got it.
        """
        if isinstance(event, Fragment):
            if event.final:
                self.messages_received += 1
                self._liveness.note_message()
            return self._inbox.put_fragment(event, self._liveness.heard_at)
        if isinstance(event, Ping):
            self._send_pong(event.payload, before=pings)
            self._tell_of("ping", event.payload)
        elif isinstance(event, Pong):
            self._pings.answer(event.payload)
            self._tell_of("pong", event.payload)
        return False

    def _send_pong(self, payload: bytes, *, before: int) -> None:
        """Answer a ping; so many came in the same read `before` it."""
        if self._wire.may_send:
            log_frame(self._logger, "owed %s", Pong(payload))
            # The outbox may replace it by the answer to a later ping. Where many came together, it
            # is likely that another follows: the answers are gathered.
            self._outbox.write_pong(self._wire.pong(payload), following=before)

    def _tell_of(self, kind: Literal["ping", "pong"], payload: bytes) -> None:
        """Let the application know of it, if it wants to."""
        if self._tell is not None:
            try:
                self._tell(kind, payload)
            except Exception:
                self._logger.exception("on_ping_pong failed")

    def _note_received(self, messages: Messages) -> None:
        self.messages_received += len(messages)
        if self._notes_messages:
            log_frame(self._logger, "received %s", messages)
            self._liveness.note_message()

    async def _wait_for_room(self) -> None:
        self._liveness.paused = True
        await self._inbox.wait_for_room()
        self._liveness.resume(trio.current_time())

    # The last steps…

    async def _wait_for_last_answers(self) -> None:
        in_hand_at = self._inbox.in_hand_at
        if in_hand_at is not None:
            self._liveness.paused = True  # we do not listen any more, so silence says nothing
            self._ending.limit_nurseries()
            with trio.move_on_at(in_hand_at + LAST_ANSWERS):
                await self._inbox.wait_until_caught_up()

    async def _hang_up(self) -> None:
        """Close the TCP connection without cutting off the Close frame that is on its way."""
        is_server = self._wire.role is Role.SERVER
        # The server hangs up first (RFC 6455 section 7.1.1). Nothing is expected from a peer that
        # said Close; where nothing has come, closing sends a FIN behind our last bytes.
        if not (is_server and self._ending.has_peer_closed and self._transport.is_drained()):
            await self._linger(is_server=is_server)
        await self._transport.aclose()

    async def _linger(self, *, is_server: bool) -> None:
        """Let the peer hang up: unread bytes, if it is sending, would turn our FIN into a reset."""
        patience = LINGER
        if not self._ending.has_peer_closed:  # a violation: it may be in the middle of anything
            if await self._transport.send_eof(below_tls=True):
                patience = inf
        elif is_server and not await self._transport.send_eof():
            patience = 0.0
        with trio.move_on_after(patience):
            await self._transport.discard_until_eof()
