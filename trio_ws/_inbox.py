"""Received and not yet taken: the queue between a connection's reader task and its receivers.

This module owns the bounds on what may wait and the message that is still arriving. It knows
nothing of frames or sockets: the reader task puts in what the wire decoded and waits here while
there is no room; any number of tasks take out.

Whole messages travel in a trio memory channel, which gives each to exactly one task and loses
none to cancellation. The channel itself is unbounded, because one read may complete many messages
and the reader must put in all of them without waiting; the bounds are kept by `wait_for_room`.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from sys import getsizeof
from typing import cast

import trio
from trio.lowlevel import ParkingLot

from ._wire import Fragment

#: Neighbouring pieces shorter than this are held as one.
MERGE_BELOW = 4096


class IncomingMessage:
    """The message that is still arriving: pieces so far, and who will have them."""

    __slots__ = ("bytes_held", "claimed", "complete", "pieces", "unwanted")

    def __init__(self) -> None:
        self.pieces: deque[str | bytes] = deque()
        self.bytes_held = 0
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
        if self.pieces and len(self.pieces[-1]) < MERGE_BELOW and len(data) < MERGE_BELOW:
            # A message that drips in must not be held as a thousand objects of fifty bytes each.
            data = cast("str", self.pop()) + cast("str", data)  # or bytes, but always two of a kind
        self.pieces.append(data)
        self.bytes_held += getsizeof(data)

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

    def joined(self) -> str | bytes:
        if isinstance(self.pieces[0], str):
            return "".join(self.pieces)  # type: ignore[arg-type] # a message is all text or all bytes
        return b"".join(self.pieces)  # type: ignore[arg-type]


class Inbox:
    """See the module. `max_messages` and `max_bytes` may be `math.inf`."""

    __slots__ = (
        "_arrivals",
        "_bytes",
        "_closed",
        "_discarding",
        "_incoming",
        "_max_bytes",
        "_max_messages",
        "_messages",
        "_polled",
        "_receive",
        "_room",
        "_send",
        "taken_at",
    )

    def __init__(self, max_messages: float, max_bytes: float) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._send, self._receive = trio.open_memory_channel[str | bytes](math.inf)
        self._messages = 0
        self._bytes = 0
        self._incoming: IncomingMessage | None = None
        self._discarding = False
        self._closed = False
        #: `poll` found nothing, and nothing has come since.
        self._polled = False
        #: When a task last took a message, or a piece of one; `None` before the first.
        self.taken_at: float | None = None
        self._room = ParkingLot()
        self._arrivals = ParkingLot()

    def statistics(self) -> tuple[int, int]:
        """How many messages wait, and how many bytes they and the one still arriving take."""
        return self._messages, self._bytes + (self._incoming.bytes_held if self._incoming else 0)

    # Putting in: the reader task only, never waits…

    def put(self, message: str | bytes) -> None:
        """Queue a whole message."""
        if self._discarding:
            return
        self._messages += 1
        self._bytes += getsizeof(message)
        self._polled = False
        self._send.send_nowait(message)
        self._arrivals.unpark_all()

    def put_fragment(self, fragment: Fragment) -> None:
        """Add a piece to the message that is arriving, and queue the message if it was the last."""
        if self._discarding:
            return
        if self._incoming is None:
            self._incoming = IncomingMessage()
        incoming = self._incoming
        incoming.add(fragment)
        self._polled = False
        if fragment.final:
            self._incoming = None
            if not incoming.claimed:
                self.put(incoming.joined())
        self._arrivals.unpark_all()

    @property
    def full(self) -> bool:
        """Whether the reader has to wait before it reads again."""
        if self._discarding:
            return False
        if self._messages >= self._max_messages:
            return True
        incoming = self._incoming
        if incoming is None:
            return self._bytes >= self._max_bytes
        if self._bytes + incoming.bytes_held < self._max_bytes:
            return False
        return incoming.claimed or not self._wanted

    @property
    def _wanted(self) -> bool:
        """Whether somebody waits for the next message, or polls for it.

        That message is then let in whatever its size: the reader waiting for its receiver, and
        the receiver for the reader, would be waiting for ever.
        """
        return self._polled or self._receive.statistics().tasks_waiting_receive > 0

    async def wait_for_room(self) -> None:
        """Return as soon as `full` is false."""
        while self.full:
            await self._room.park()

    async def wait_until_caught_up(self) -> None:
        """Return when the receivers have dealt with all that came, as far as can be seen."""
        while not self._caught_up:
            await self._room.park()

    @property
    def _caught_up(self) -> bool:
        """Nothing waits, and whoever took the last message, if anybody did, came back for more."""
        if self._discarding:
            return True
        if self._messages:
            return False
        return self.taken_at is None or self._wanted or bool(self._arrivals)

    def close(self) -> None:
        """Nothing more will come. What is queued can still be taken; half a message cannot."""
        self._closed = self._discarding = True
        self._incoming = None
        self._send.close()
        self._room.unpark_all()
        self._arrivals.unpark_all()

    def discard(self) -> None:
        """Throw away what is queued, and from now on what comes. Receivers go on waiting."""
        self._discarding = True
        self._incoming = None
        self._room.unpark_all()
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self.take_nowait()

    # Taking out: any task…

    def take_nowait(self) -> str | bytes:
        """The oldest message.

        Raises:
            trio.WouldBlock: there is none yet.
            trio.EndOfChannel: there is none, and none will come.
        """
        message = self._receive.receive_nowait()
        self._taken(message)
        return message

    def poll(self) -> str | bytes:
        """`take_nowait`, by somebody who will not wait but come back.

        Each poll that finds nothing lets in one more piece of a message that is larger than there
        is room for: who polls on gets it, and who does not has not opened the door for all of it.
        """
        try:
            return self.take_nowait()
        except trio.WouldBlock:
            self._polled = True
            self._room.unpark_all()
            raise

    async def take(self) -> str | bytes:
        """Wait for the next message, after `take_nowait` found none. Cancelling loses nothing."""
        self._room.unpark_all()  # the reader may be waiting for somebody to want a message
        message = await self._receive.receive()
        self._taken(message)
        return message

    async def take_incoming(self) -> IncomingMessage:
        """Wait for a message to begin and claim it: the pieces that came, and those to come."""
        while True:
            with suppress(trio.WouldBlock):
                return _whole(self.take_nowait())
            if self._incoming is not None and not self._incoming.claimed:
                self._incoming.claimed = True
                return self._incoming
            await self._wait_for_arrival()

    async def next_piece(self, incoming: IncomingMessage) -> str | bytes | None:
        """Wait for the next piece of a claimed message; `None` after the last.

        Raises:
            trio.EndOfChannel: the connection ended in the middle of it.
        """
        while not incoming.pieces:
            if incoming.complete:
                return None
            if self._closed:
                raise trio.EndOfChannel
            await self._wait_for_arrival()
        piece = incoming.popleft()
        self.taken_at = trio.current_time()
        self._room.unpark_all()
        return piece

    async def _wait_for_arrival(self) -> None:
        self._room.unpark_all()  # the reader may be waiting for us to have had enough
        await self._arrivals.park()

    def release(self, incoming: IncomingMessage) -> None:
        """Give up a claimed message: the rest of it, if any, is thrown away as it comes."""
        incoming.drop()
        self._room.unpark_all()

    def _taken(self, message: str | bytes) -> None:
        self._messages -= 1
        self._bytes -= getsizeof(message)
        self.taken_at = trio.current_time()
        self._room.unpark_all()


def _whole(message: str | bytes) -> IncomingMessage:
    incoming = IncomingMessage()
    incoming.claimed = True
    incoming.add(Fragment(message, final=True))
    return incoming
