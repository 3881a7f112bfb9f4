"""Sending: whose turn it is, how a message becomes a frame, and how that gets to the outbox.

This module owns the order in which tasks send. The outbox owns the bytes. It finishes each frame
that it was handed, so a task that is cancelled never leaves half of one behind.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Literal, NoReturn, final

import trio

from .._errors import CloseCode
from .._log import ConnectionLogger
from .._metering import SEND_WAIT, Meter
from .._nursery import protected_context
from .._pacing import DEFLATE_WORK, SENT_FOR_ONE, spend
from .._protocol.deflate import AT_ONCE, IN_STEPS_FROM
from .._protocol.events import Event, Fragment
from .._protocol.stepwise import StepwiseMessage
from .._protocol.wire import LARGE, Wire
from .ending import OPEN, Ending
from .frame_log import log_frame
from .inbox import Inbox
from .liveness import Liveness
from .outbox import Outbox
from .outlet import Outlet
from .pieces import MessageWriter
from .reading import Reading


@final
class Sender:
    """The sending half of one connection; see the module."""

    __slots__ = (
        "_ending",
        "_heavy_from",
        "_inbox",
        "_liveness",
        "_logger",
        "_meter",
        "_notes_messages",
        "_outbox",
        "_reading",
        "_turn",
        "_wire",
        "messages_sent",
    )

    def __init__(
        self,
        wire: Wire,
        inbox: Inbox,
        outbox: Outbox,
        *,
        reading: Reading,
        ending: Ending,
        liveness: Liveness,
        logger: ConnectionLogger,
        meter: Meter | None,
    ) -> None:
        self._wire = wire
        self._inbox = inbox
        self._outbox = outbox
        self._reading = reading
        self._ending = ending
        self._liveness = liveness
        self._logger = logger
        self._meter = meter
        #: Whose turn it is to wait for room or to send in fragments; made when first needed.
        self._turn: trio.Lock | None = None
        #: From how many bytes on a message is work beyond that of an ordinary call.
        self._heavy_from = min(LARGE, wire.compresses_from)
        #: Whether somebody wants to know of each message. Looked up once, because it is asked for
        #: with each.
        self._notes_messages = liveness.counts_idleness or logger.shows_frames
        self.messages_sent = 0

    # Messages…

    async def send_in_turn(self, data: str | bytes, *, compress: bool | None) -> None:
        """Send where `send_now` was in vain: wait for one's turn and for room.

        A large message is made into a frame meanwhile: compressed, or encoded, and masked. Tasks
        that send wait for it; what a broadcast posts, and control frames, do not.
        """
        self._ending.check_use()
        async with self._my_turn():
            steps = self._wire.begin_steps(data, compress=compress)
            if steps is not None:
                await self._take_steps(steps.step)
            elif len(data) >= IN_STEPS_FROM:
                compress = False
            self._write_message(data, compress=compress, steps=steps)

    async def _take_steps(self, step: Callable[[], bool]) -> None:
        """Take each step, and let others run. If it is cancelled, nothing has happened."""
        while step():
            await trio.lowlevel.checkpoint()
        if self._ending.state is not OPEN:
            await self.raise_closed()

    def send_now(self, data: str | bytes, *, compress: bool | None, may_wait: bool) -> bool:
        """Send, if that is possible without waiting for one's turn; else return false.

        Args:
            data: the message.
            compress: see `WebSocket.send`.
            may_wait: whether it can be sent later. What takes long to make then has to be.
        """
        outbox = self._outbox
        if (
            self._ending.state is not OPEN
            or outbox.unsent > outbox.high_water
            or (self._turn is not None and self._turn.locked())
        ):
            return False
        if len(data) < self._heavy_from:
            # `_write_message` once more, for nearly all: a call is a thirtieth of a small echo.
            outbox.write(self._wire.message(data, compress=compress), self._inbox.waiting)
            self.messages_sent += 1
            if self._notes_messages:
                self.note_sent(data)
            return True
        if len(data) >= IN_STEPS_FROM:
            if may_wait and self._wire.may_take_steps(data, compress=compress):
                return False
            if compress is None and len(data) > AT_ONCE:
                compress = False
        self._write_message(data, compress=compress, steps=None)
        return True

    def _write_message(
        self, data: str | bytes, *, compress: bool | None, steps: StepwiseMessage | None
    ) -> None:
        """Write a message; a large one may have been made in `steps`."""
        outbox = self._outbox
        if len(data) < LARGE:
            outbox.write(self._wire.message(data, compress=compress), self._inbox.waiting)
        elif steps is not None:
            head, pieces = self._wire.message_of_steps(data, steps)
            outbox.write(head, payload=pieces)
        else:
            head, payload = self._wire.large_message(data, compress=compress)
            outbox.write(head, payload=(payload,))
        self.messages_sent += 1
        if len(data) >= self._heavy_from:
            compressed = compress is not False and len(data) >= self._wire.compresses_from
            spend(DEFLATE_WORK * len(data) if compressed else len(data) // SENT_FOR_ONE)
        if self._notes_messages:
            self.note_sent(data)

    def note_sent(self, data: str | bytes) -> None:
        """A message is out, or on its way. Not worth the call unless `_notes_messages`."""
        log_frame(self._logger, "sent %s", [data])
        self._liveness.note_message()

    @protected_context
    async def open_message(
        self,
        kind: Literal["text", "binary"],
        *,
        compress: bool | None,
        checkpoint: Callable[[], Awaitable[None]],
    ) -> AsyncGenerator[MessageWriter, None]:
        """Send a message in fragments, which no other message comes between.

        Each fragment begins with a `checkpoint`.
        """
        empty: str | bytes = "" if kind == "text" else b""
        ending, outbox = self._ending, self._outbox
        async with self._my_turn():
            send = partial(self._send_fragment, compress=compress, checkpoint=checkpoint)
            writer = MessageWriter(type(empty), send)
            outbox.hold()
            try:
                yield writer
                if ending.state is not OPEN:
                    await self.raise_closed()
            except BaseException:  # whatever it is, it goes on its way
                # A message cannot be taken back half-sent, and the peer would wait for the rest.
                if ending.state is OPEN:
                    ending.fail(CloseCode.INTERNAL_ERROR, "a message was left unfinished")
                raise
            finally:
                writer._close()
            last = self._wire.fragment(empty, final=True, compress=compress)
            self.write(Fragment(empty, final=True), last)
            if outbox.release():
                # What was posted meanwhile follows only now, and comes between this message and
                # the next in the peer's window (RFC 7692 section 7.2.2), but not in ours.
                self._wire.restart_compression()
            self.messages_sent += 1
            self._liveness.note_message()

    @trio.lowlevel.enable_ki_protection
    async def _send_fragment(
        self,
        data: str | bytes,
        *,
        compress: bool | None,
        checkpoint: Callable[[], Awaitable[None]],
    ) -> None:
        await checkpoint()
        await self.wait_to_send()
        deflation = self._wire.begin_fragment_in_steps(data, compress=compress)
        if deflation is not None:
            await self._take_steps(deflation.step)
        frame = self._wire.fragment(data, final=False, compress=compress, deflation=deflation)
        self.write(Fragment(data, final=False), frame)

    # Frames…

    def write(self, event: Event, frame: bytes) -> None:
        """Write the frame of `event`, which may come between two fragments if it is a control."""
        log_frame(self._logger, "sent %s", event)
        self._outbox.write(frame)

    # Broadcasts…

    def make_outlet(self) -> Outlet:
        """What a broadcast publishes through; see `outlet`."""
        return Outlet(
            self._outbox,
            self._wire,
            self._ending,
            note_sent=self.note_sent if self._notes_messages else None,
            check_turn=self._refuse_within_own_message,
        )

    # Waiting…

    @protected_context
    async def _my_turn(self) -> AsyncGenerator[None, None]:
        """Wait for those who came first, then for room, and find the connection open."""
        self._refuse_within_own_message()
        if self._turn is None:
            self._turn = trio.Lock()
        started = trio.current_time()
        waiting = True
        try:
            async with self._turn:
                await self.wait_to_send()
                waiting = False
                self._note_wait(started)
                yield
        finally:
            if waiting:  # in vain: it was cancelled, or the connection ended
                self._note_wait(started)

    def _note_wait(self, started: float) -> None:
        if self._meter is not None:
            self._meter.observe(SEND_WAIT, trio.current_time() - started)

    def _refuse_within_own_message(self) -> None:
        """Raise where this task would wait for the end of a message that it sends in fragments."""
        if self._turn and self._turn.statistics().owner is trio.lowlevel.current_task():
            raise RuntimeError("this task is inside open_message(): finish that message first")

    async def wait_to_send(self) -> None:
        """Wait for room, and find the connection still open."""
        await self._reading.wait_for(self._outbox.wait_for_room)
        if self._ending.state is not OPEN:
            await self.raise_closed()

    async def raise_closed(self) -> NoReturn:
        """Raise why nothing can be sent, after waiting for the verdict if there is none yet."""
        if self._ending.reason is None:
            await self._ending.wait_until_finished()
        raise self._ending.error()
