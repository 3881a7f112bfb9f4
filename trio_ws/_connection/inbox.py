"""Messages received and not yet taken: the queue between the reader task and the receivers.

This module owns the bounds on what may wait, and the message that is still arriving. It knows
nothing of frames or sockets. The reader task, or a receiver that reads, puts in what the wire
decoded; the reader task waits here while there is no room; any number of tasks take out.

Whole messages wait in a queue. A task that waits for a message is handed it as it comes: no other
task can take it, and a cancellation that arrives later does not reach the task before it has seen
it. So each message goes to exactly one task. trio's memory channels do the same. This queue does
two things that a channel cannot: one read puts in hundreds of messages at once, bounded in bytes
(half the time of a channel for each), and an idle connection takes no memory for it (a channel
takes 1.3 KiB).
"""

from __future__ import annotations

import enum
from collections import deque
from contextlib import suppress
from io import BytesIO
from math import inf
from sys import getsizeof
from typing import cast

import trio
from trio.lowlevel import Abort, ParkingLot, RaiseCancelT, Task

from .._pacing import next_checkpoint
from .._protocol.events import Fragment, Messages

#: Neighbouring pieces shorter than this are held as one.
MERGE_BELOW = 4096

#: A text grows by its last piece when that is at least this part of it.
GROWS_BY = 8


class Intake(enum.Enum):
    """What becomes of a message that comes. It only ever goes down this list."""

    KEPT = "it waits for a task that takes it"
    DISCARDED = "it is thrown away; tasks that wait go on waiting"
    REFUSED = "none will come; tasks that wait are told"


KEPT = Intake.KEPT  # asked for with every message


class IncomingMessage:
    """The message that is still arriving: pieces so far, and which task will have them.

    While no task reads it piece by piece, it grows as it comes. Making one message of all its
    pieces at the end would take 40 ms for 64 MiB, which others would have to wait for.
    """

    __slots__ = ("_binary", "bytes_held", "came_at", "claimed", "complete", "pieces", "unwanted")

    def __init__(self) -> None:
        self.pieces: deque[str | bytes] = deque()
        #: In place of `pieces`, where it grows and is binary. It gives its bytes away uncopied.
        self._binary: BytesIO | None = None
        self.bytes_held = 0
        #: When the last piece of it came.
        self.came_at = -inf
        self.complete = False
        #: A task reads it piece by piece; else it goes into the queue when it is whole.
        self.claimed = False
        #: That task left early: what is still to come is thrown away.
        self.unwanted = False

    def add(self, fragment: Fragment) -> None:
        self.complete = fragment.final
        if self.unwanted:
            return
        data = fragment.data
        if not self.claimed and isinstance(data, bytes) and (self.bytes_held or not self.complete):
            if self._binary is None:
                self._binary = BytesIO()
            self._binary.write(data)
            self.bytes_held = getsizeof(self._binary)
            return
        self.pieces.append(data)
        self.bytes_held += getsizeof(data)
        if self.claimed:
            # A message that drips in must not be held as a thousand objects of fifty bytes each.
            if len(self.pieces) > 1 and len(data) < MERGE_BELOW > len(self.pieces[-2]):
                self._merge_last()
        else:
            self._grow()

    def _grow(self) -> None:
        # A text that drips in must not be copied for each drop: a drop waits until there are enough
        # of them. There are never more than a few pieces.
        pieces = self.pieces
        while len(pieces) > 1 and (self.complete or len(pieces[-1]) * GROWS_BY >= len(pieces[-2])):
            self._merge_last()

    def _merge_last(self) -> None:
        last = cast("str", self.pop())
        piece = cast("str", self.pop())  # or bytes, but always two of a kind
        # Nothing else refers to it, so a text grows where it is, if there is room behind it.
        piece += last
        self.pieces.append(piece)
        self.bytes_held += getsizeof(piece)

    def claim(self) -> None:
        """Give it out piece by piece from now on."""
        self.claimed = True
        if self._binary is not None:
            self.pieces.append(piece := self._binary.getvalue())
            self._binary = None
            self.bytes_held = getsizeof(piece)

    def pop(self) -> str | bytes:
        """Take back the last piece."""
        piece = self.pieces.pop()
        self.bytes_held -= getsizeof(piece)
        return piece

    def popleft(self) -> str | bytes:
        """Take the first piece."""
        piece = self.pieces.popleft()
        self.bytes_held -= getsizeof(piece)
        return piece

    def drop(self) -> None:
        self.unwanted = True
        self.pieces.clear()
        self.bytes_held = 0

    def whole(self) -> str | bytes:
        """All of it, once it is complete."""
        return self.pieces[0] if self._binary is None else self._binary.getvalue()


class Inbox:
    """See the module. `max_messages` and `max_bytes` may be `math.inf`."""

    __slots__ = (
        "_arrivals",
        "_bytes",
        "_came_back",
        "_claimants",
        "_incoming",
        "_intake",
        "_max_bytes",
        "_max_messages",
        "_polled",
        "_queue",
        "_queued_at",
        "_receivers",
        "_room",
        "taken_at",
        "waiting",
    )

    def __init__(self, max_messages: float, max_bytes: float) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        #: Whole messages; `None` instead of an empty queue, which would take 600 bytes.
        self._queue: deque[str | bytes] | None = None
        #: How many these are, and when the last of them came.
        self.waiting = 0
        self._queued_at = -inf
        self._bytes = 0
        #: The tasks that wait for a whole message, first come first served; see `receive`.
        self._receivers: dict[Task, list[str | bytes]] | None = None
        self._incoming: IncomingMessage | None = None
        #: How many tasks wait for a message to begin, so that they may claim it.
        self._claimants = 0
        self._intake = KEPT
        #: `poll` found nothing, and nothing has come since.
        self._polled = False
        #: When a task last took the last message that there was, or a piece of one, or claimed one.
        self.taken_at: float | None = None
        #: Whether a task has asked for more since then. Others may have waited all the time.
        self._came_back = False
        #: Where the reader waits for room, and tasks for a piece of a message.
        self._room: ParkingLot | None = None
        self._arrivals: ParkingLot | None = None

    def statistics(self) -> tuple[int, int]:
        """How many messages wait, and how many bytes they and the one still arriving take."""
        return self.waiting, self._bytes + (self._incoming.bytes_held if self._incoming else 0)

    # Putting in: the reader task, or a receiver that reads; never waits…

    def put(self, messages: Messages, now: float) -> bool:
        """Queue whole messages, which came just now.

        Returns:
            Whether a task that waited was handed the first of them.
        """
        if self._intake is not KEPT:
            return False
        self._polled = False
        handed_over = bool(self._receivers)
        if handed_over:
            messages = self._hand_over(messages, now)
        if messages:
            if self._queue is None:
                self._queue = deque(messages)
            else:
                self._queue.extend(messages)
            self.waiting += len(messages)
            self._bytes += sum(map(getsizeof, messages))
            self._queued_at = now
        if self._arrivals:
            self._arrivals.unpark_all()
        return handed_over

    def put_but_first(self, messages: Messages, now: float) -> str | bytes:
        """Put in all but the first, for the task that read them and takes the first itself.

        Only where no message waits: that one would be overtaken.
        """
        if len(messages) > 1:
            self.put(messages[1:], now)
        if not self.waiting:
            self._note_taken(now)
        return messages[0]

    def _hand_over(self, messages: Messages, now: float) -> Messages:
        """Give messages to the tasks that wait, and return those for which there is no task."""
        assert self._receivers is not None
        served = list(zip(self._receivers.items(), messages))  # noqa: B905 - whichever are fewer
        for (task, hands), message in served:
            del self._receivers[task]
            hands.append(message)
            trio.lowlevel.reschedule(task)
        self._note_taken(now)
        return messages[len(served) :]

    def _note_taken(self, now: float) -> None:
        self.taken_at = now
        self._came_back = False

    @property
    def in_hand_at(self) -> float | None:
        """When the application was last seen to have something to deal with; `None` for never.

        If no message waits, that is when the last one was taken. If some wait, a task is working
        through them: that is now. If some wait and no task ever took one, it is when they came.
        """
        if not self.waiting:
            return self.taken_at
        return self._queued_at if self.taken_at is None else trio.current_time()

    @property
    def is_awaited(self) -> bool:
        """Whether a task waits for a message, whole or in pieces."""
        return bool(self._receivers or self._claimants)

    @property
    def piece_came_at(self) -> float | None:
        """When the last piece came of the message that is still arriving; `None` if none is."""
        return None if self._incoming is None else self._incoming.came_at

    def put_fragment(self, fragment: Fragment, now: float) -> bool:
        """Add a piece to the message that is arriving, and queue the message if it was the last.

        Returns:
            Whether a task that waited was handed that message.
        """
        if self._intake is not KEPT:
            return False
        if self._incoming is None:
            self._incoming = IncomingMessage()
        incoming = self._incoming
        incoming.add(fragment)
        incoming.came_at = now
        self._polled = False
        handed_over = False
        if fragment.final:
            self._incoming = None
            if not incoming.claimed:
                handed_over = self.put([incoming.whole()], now)
        if self._arrivals and not incoming.unwanted:
            self._came_back = False  # it is there, but has not been taken yet
            self._arrivals.unpark_all()
        return handed_over

    @property
    def full(self) -> bool:
        """Whether the reader has to wait before it reads again."""
        if self._intake is not KEPT:
            return False
        if self.waiting >= self._max_messages:
            return True
        incoming = self._incoming
        if incoming is None:
            return self._bytes >= self._max_bytes
        if self._bytes + incoming.bytes_held < self._max_bytes:
            return False
        return incoming.claimed or not self._wanted

    @property
    def _wanted(self) -> bool:
        """Whether a task waits for the next message, or polls for it.

        That message is then let in whatever its size. Otherwise the reader task would wait for a
        receiver to make room, and the receiver for the rest of the message, for ever.
        """
        return self._polled or bool(self._receivers)

    async def wait_for_room(self) -> None:
        """Return as soon as `full` is false."""
        while self.full:
            await self._wait_for_receivers()

    async def wait_until(self, time: float) -> None:
        """Wait until then, on trio's clock, or until what is put in is not kept any more."""
        with trio.move_on_at(time):
            while self._intake is KEPT:
                await self._wait_for_receivers()

    async def wait_until_caught_up(self) -> None:
        """Return when the receivers have dealt with all that came, as far as can be seen."""
        while not self._caught_up:
            await self._wait_for_receivers()

    async def _wait_for_receivers(self) -> None:
        if self._room is None:
            self._room = ParkingLot()
        await self._room.park()

    @property
    def _caught_up(self) -> bool:
        """Nothing waits, and the task that took the last message, if one did, came back."""
        if self._intake is not KEPT:
            return True
        if self.waiting:
            return False
        return self.taken_at is None or self._came_back

    def close(self) -> None:
        """Nothing more will come. What is queued can still be taken; half a message cannot."""
        self._intake = Intake.REFUSED
        self._incoming = None
        if self._receivers:
            for task in self._receivers:
                trio.lowlevel.reschedule(task)
            self._receivers = None
        self._wake_reader()
        if self._arrivals:
            self._arrivals.unpark_all()

    def discard(self) -> None:
        """Throw away what is queued, and from now on what comes. Receivers go on waiting."""
        if self._intake is KEPT:
            self._intake = Intake.DISCARDED
        self._incoming = None
        self._wake_reader()
        if self.waiting:
            self.taken_at = trio.current_time()
            self._queue = None
            self.waiting = self._bytes = 0

    # Taking out: any task…

    def receive_nowait(self) -> str | bytes:
        """The oldest message.

        Raises:
            trio.WouldBlock: there is none yet.
            trio.EndOfChannel: there is none, and none will come.
        """
        queue = self._queue
        if not queue:
            raise trio.EndOfChannel if self._intake is Intake.REFUSED else trio.WouldBlock
        message = queue.popleft()
        self.waiting -= 1
        self._bytes -= getsizeof(message)
        if not queue:
            self._queue = None
            self._note_taken(trio.current_time())
        if self._room:
            self._room.unpark_all()
        return message

    def poll(self) -> str | bytes:
        """`receive_nowait`, for a task that does not wait but comes back.

        Each poll that finds nothing lets in one more piece of a message that is larger than there
        is room for. A task that goes on polling gets the message, and one that stops has not let
        in all of it.
        """
        try:
            return self.receive_nowait()
        except trio.WouldBlock:
            self._polled = self._came_back = True
            self._wake_reader()
            raise

    async def receive(self) -> str | bytes | None:
        """Wait for the next message; `None` if none will come.

        Cancelling loses nothing.
        """
        if self.waiting:
            return self.receive_nowait()
        if self._intake is Intake.REFUSED:
            await next_checkpoint()()  # a task that asks again and again has to be cancellable
            return None
        self._came_back = True
        self._wake_reader()  # it may be waiting for a task to want a message
        if self._receivers is None:
            self._receivers = {}
        receivers, task = self._receivers, trio.lowlevel.current_task()

        def abort(raise_cancel: RaiseCancelT) -> Abort:
            del receivers[task]
            return Abort.SUCCEEDED

        hands = receivers[task] = list[str | bytes]()
        await trio.lowlevel.wait_task_rescheduled(abort)
        return hands[0] if hands else None

    async def claim(self) -> IncomingMessage:
        """Wait for a message to begin and claim it: the pieces that came, and those to come."""
        self._claimants += 1
        self._came_back = True
        try:
            while True:
                with suppress(trio.WouldBlock):
                    return _whole(self.receive_nowait())
                if self._incoming is not None and not self._incoming.claimed:
                    self._incoming.claim()
                    self._note_taken(trio.current_time())
                    return self._incoming
                await self._wait_for_arrival()
        finally:
            self._claimants -= 1

    async def next_piece(self, incoming: IncomingMessage) -> str | bytes | None:
        """Wait for the next piece of a claimed message; `None` after the last.

        Raises:
            trio.EndOfChannel: the connection ended in the middle of it.
        """
        if not (incoming.pieces or incoming.complete):
            self._came_back = True
        while not incoming.pieces:
            if incoming.complete:
                return None
            if self._intake is Intake.REFUSED:
                raise trio.EndOfChannel
            await self._wait_for_arrival()
        piece = incoming.popleft()
        self._note_taken(trio.current_time())
        self._wake_reader()
        return piece

    async def _wait_for_arrival(self) -> None:
        self._wake_reader()  # it may be waiting for us to have had enough
        if self._arrivals is None:
            self._arrivals = ParkingLot()
        await self._arrivals.park()

    def release(self, incoming: IncomingMessage) -> None:
        """Give up a claimed message: the rest of it, if any, is thrown away as it comes."""
        incoming.drop()
        self._wake_reader()

    def _wake_reader(self) -> None:
        """Let the reader see whether there is room now, or somebody who wants more."""
        if self._room:
            self._room.unpark_all()


def _whole(message: str | bytes) -> IncomingMessage:
    incoming = IncomingMessage()
    incoming.claimed = True
    incoming.add(Fragment(message, final=True))
    return incoming
