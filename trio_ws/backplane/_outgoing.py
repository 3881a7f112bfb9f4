"""Messages that are published and that the broker has not accepted: a queue that never blocks.

This module owns the bound and the order. It knows neither brokers nor envelopes, only bytes.

A batch leaves the queue to be sent, and is kept here until each of its messages is settled. When
the connection breaks, the messages in flight are sent again before any others, which keeps the
order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import trio
from trio.lowlevel import ParkingLot

#: How much is sent to the broker in one batch: enough that a round trip costs each message little,
#: and not much to send again.
BATCH_MESSAGES = 256
BATCH_BYTES = 256 * 1024


class Item(NamedTuple):
    """One message of the queue."""

    number: int
    topic: str
    data: bytes


class Outgoing:
    """The queue to the broker.

    Args:
        max_messages: how many messages may wait; `math.inf` for any number.
        max_bytes: how many bytes may wait. A single message that is larger may wait alone.
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
        """Whether a message of `size` bytes fits, without another being dropped for it."""
        return not self._waiting or (
            len(self._waiting) < self._max_messages and self.queued_bytes + size <= self._max_bytes
        )

    def put(self, item: Item) -> list[int]:
        """Add a message. If there is no room for it, the oldest messages are dropped.

        Returns:
            The numbers of those that were dropped.
        """
        if self.closed:
            self.dropped += 1
            return [item.number]
        dropped: list[int] = []
        self._waiting.append(item)
        self.queued_bytes += len(item.data)
        # The new message itself stays, even where it alone is over the bound.
        while len(self._waiting) > 1 and (
            len(self._waiting) > self._max_messages or self.queued_bytes > self._max_bytes
        ):
            dropped.append(self._pop_oldest().number)
        self.dropped += len(dropped)
        self._moved.unpark_all()
        return dropped

    def _pop_oldest(self) -> Item:
        item = self._waiting.popleft()
        self.queued_bytes -= len(item.data)
        return item

    async def wait_for_room(self, size: int) -> None:
        """Wait until a message of `size` bytes fits, or the queue is closed."""
        await trio.lowlevel.checkpoint()
        while not self.has_room(size) and not self.closed:
            await self._moved.park()

    async def next_batch(self) -> Sequence[Item]:
        """Wait for something to send. Messages in flight when the connection broke come first."""
        await trio.lowlevel.checkpoint()
        while not self._sending:
            if not self._waiting:
                await self._moved.park()
            self._fill()
        return tuple(self._sending)

    def _fill(self) -> None:
        size = 0
        while self._waiting and len(self._sending) < BATCH_MESSAGES and size < BATCH_BYTES:
            item = self._pop_oldest()
            size += len(item.data)
            self._sending.append(item)
        self._moved.unpark_all()

    def settle(self, *, refused: bool = False) -> None:
        """Note the broker's answer to the oldest message in flight: accepted, or refused."""
        self._sending.popleft()
        self.refused += refused
        self.sent += not refused
        self._moved.unpark_all()

    async def wait_settled(self, number: int) -> None:
        """Wait until every message up to `number` is settled or dropped.

        Raises:
            trio.ClosedResourceError: the queue was closed.
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
        """Drop everything, and everything that is put from now on."""
        self.closed = True
        self.dropped += len(self._sending) + len(self._waiting)
        self._sending.clear()
        self._waiting.clear()
        self.queued_bytes = 0
        self._moved.unpark_all()
