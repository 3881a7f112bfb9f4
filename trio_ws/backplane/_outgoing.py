"""Published and not yet taken by the broker: a queue that never makes anybody wait.

This module owns the bound and the order. It knows neither brokers nor envelopes: it is given bytes.

A batch is taken from the queue to be sent, and stays here until each of its messages is settled:
when the connection breaks, what was not settled is sent again first, so that the order is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import trio
from trio.lowlevel import ParkingLot

#: What goes to the broker at once: enough that a round trip costs each message little, and not
#: much to send again.
BATCH_MESSAGES = 256
BATCH_BYTES = 256 * 1024


class Item(NamedTuple):
    """One message of the queue."""

    number: int
    topic: str
    data: bytes


class Outgoing:
    """See the module.

    Args:
        max_messages: how many may wait; `math.inf` for any number.
        max_bytes: how many bytes may wait. A message that is larger than this by itself may wait
            alone.
    """

    def __init__(self, max_messages: float, max_bytes: float) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._waiting: deque[Item] = deque()
        self._sending: deque[Item] = deque()
        self._moved = ParkingLot()
        self.queued_bytes = 0
        self.sent = 0
        self.refused = 0
        self.dropped = 0
        self.closed = False

    @property
    def queued_messages(self) -> int:
        return len(self._waiting)

    def has_room(self, size: int) -> bool:
        """Whether one more of so many bytes may wait without another being dropped for it."""
        return not self._waiting or (
            len(self._waiting) < self._max_messages and self.queued_bytes + size <= self._max_bytes
        )

    def put(self, item: Item) -> None:
        """Take one more, at the cost of the oldest where there is no room; never waits."""
        if self.closed:
            self.dropped += 1
            return
        self._waiting.append(item)
        self.queued_bytes += len(item.data)
        while len(self._waiting) > 1 and (
            len(self._waiting) > self._max_messages or self.queued_bytes > self._max_bytes
        ):
            self._take()
            self.dropped += 1
        self._moved.unpark_all()

    def _take(self) -> Item:
        item = self._waiting.popleft()
        self.queued_bytes -= len(item.data)
        return item

    async def wait_for_room(self, size: int) -> None:
        """Return when there is room for so many bytes, or no need for it any more."""
        await trio.lowlevel.checkpoint()
        while not self.has_room(size) and not self.closed:
            await self._moved.park()

    async def next_batch(self) -> Sequence[Item]:
        """What to send next, as soon as there is something: what was not settled comes first."""
        await trio.lowlevel.checkpoint()
        while not self._sending:
            if not self._waiting:
                await self._moved.park()
            self._fill()
        return tuple(self._sending)

    def _fill(self) -> None:
        size = 0
        while self._waiting and len(self._sending) < BATCH_MESSAGES and size < BATCH_BYTES:
            item = self._take()
            size += len(item.data)
            self._sending.append(item)
        self._moved.unpark_all()

    def settle(self, *, refused: bool = False) -> None:
        """The oldest that is being sent was taken by the broker, or refused for good."""
        self._sending.popleft()
        self.refused += refused
        self.sent += not refused
        self._moved.unpark_all()

    async def wait_settled(self, number: int) -> None:
        """Return when nothing up to `number` is here any more.

        Raises:
            trio.ClosedResourceError: it was closed.
        """
        await trio.lowlevel.checkpoint()
        while not self.closed and self._oldest <= number:
            await self._moved.park()
        if self.closed:
            raise trio.ClosedResourceError("the backplane has ended")

    @property
    def _oldest(self) -> float:
        for queue in (self._sending, self._waiting):
            if queue:
                return queue[0].number
        return inf

    def close(self) -> None:
        """Drop all that is left, and whatever comes."""
        self.closed = True
        self.dropped += len(self._sending) + len(self._waiting)
        self._sending.clear()
        self._waiting.clear()
        self.queued_bytes = 0
        self._moved.unpark_all()
