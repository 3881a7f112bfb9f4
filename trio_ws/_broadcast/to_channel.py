"""How a published message gets to a channel, and what becomes of it where there is no room.

This module owns the policies' deeds for channels, as `to_websocket` does for connections. The
messages wait in the channel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from math import inf
from typing import NamedTuple, final

import trio

from .._protocol.prepared import Prepared
from .policies import Disconnect, DropNewest, Latest, Limits, SlowReaderPolicy
from .tally import Dropped, Tally, has_room


class _Item(NamedTuple):
    """A message that waits in a channel."""

    data: str | bytes
    size: int
    key: Hashable = None
    replayed: bool = False
    """It is a part of a history, for which the bounds are not meant."""


@final
class ToChannel:
    """One memory channel. It has no bounds of its own: they are held here, in bytes too."""

    def __init__(self, topic: str, limits: Limits, tally: Tally) -> None:
        self.topic = topic
        self._limits = limits
        self._tally = tally
        self._send, self.channel = trio.open_memory_channel[str | bytes](inf)
        #: Our own end, to take messages back. What is open besides is the application's.
        self._receive = self.channel.clone()
        #: What waits in the channel, as far as it has not been received since we last looked.
        self._items: deque[_Item] = deque()
        #: How many of them are history, and how many bytes the others are.
        self._replayed = 0
        self._bytes = 0

    def deliver(self, message: Prepared) -> bool:
        """Hand over a message; false if it was dropped, or nobody receives any more."""
        self._look()
        if self._is_over:
            return False
        policy = self._limits.policy
        key = self._tally.key_of(policy, message.data) if isinstance(policy, Latest) else None
        item = _Item(message.data, len(message.plain), key)
        if isinstance(policy, Latest) and self._replace(item):
            return True
        if not self._has_room(item) and not self._make_room(policy, item):
            return False
        self._put(item)
        return True

    @property
    def _is_over(self) -> bool:
        statistics = self._receive.statistics()
        return statistics.open_receive_channels < 2 or not statistics.open_send_channels

    def _look(self) -> None:
        """Forget what was received."""
        waiting = self._receive.statistics().current_buffer_used
        while len(self._items) > waiting:
            self._pop()

    def _has_room(self, item: _Item) -> bool:
        messages = len(self._items) - self._replayed
        return has_room(self._limits, messages, self._bytes, item.size)

    def _put(self, item: _Item) -> None:
        self._items.append(item)
        self._replayed += item.replayed
        self._bytes += item.size
        self._send.send_nowait(item.data)

    def _pop(self) -> _Item:
        item = self._items.popleft()
        self._replayed -= item.replayed
        self._bytes -= item.size
        return item

    def _take(self) -> _Item:
        """Take back the oldest."""
        self._receive.receive_nowait()
        return self._pop()

    def _replace(self, item: _Item) -> bool:
        """Put a message where an older one with its key waits; false if there is no such place.

        A channel has no places, so all of it is taken out and put in again. That is no more than
        the bounds allow, and only for a reader that is slow.
        """
        same = (other for other in self._items if other.key == item.key and not other.replayed)
        older = next(same, None)
        if older is None:
            return False
        self._tally.replaced += 1
        bytes_queued = self._bytes + item.size - older.size
        fits = bytes_queued <= self._limits.max_queued_bytes or len(self._items) == 1
        for other in [self._take() for _ in range(len(self._items))]:
            if other is not older:
                self._put(other)
            elif fits:
                self._put(item)
        return fits

    def _make_room(self, policy: SlowReaderPolicy, item: _Item) -> bool:
        """Do what the policy says, and say whether the message may wait now."""
        if isinstance(policy, Disconnect):
            self._send.close()
        elif not isinstance(policy, DropNewest):
            while not self._has_room(item):
                self._drop(self._take())
            return True
        self._drop(item)
        return False

    def _drop(self, item: _Item) -> None:
        self._tally.drop(Dropped(None, self.topic, item.data, self._limits.policy))

    def replay(self, messages: list[Prepared]) -> None:
        """Put a history into the channel, on top of its bounds."""
        for message in messages:
            self._put(_Item(message.data, 0, replayed=True))

    def queued(self) -> tuple[int, int]:
        """How many messages wait, and how many bytes they take."""
        self._look()
        return len(self._items), self._bytes

    def end(self) -> None:
        """Nothing more will come; what waits can still be received."""
        self._send.close()

    def close(self) -> None:
        """Nobody will receive any more."""
        for channel in (self._send, self._receive, self.channel):
            channel.close()
