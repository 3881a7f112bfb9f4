"""Which topics are wanted here, and which of them the broker knows.

This module knows neither brokers nor messages.
"""

from __future__ import annotations

import trio
from trio.lowlevel import ParkingLot


class Interest:
    """The topics that this process subscribes to."""

    def __init__(self) -> None:
        #: The topics, in the order in which they were first wanted. Read only.
        self.wanted: dict[str, None] = {}
        self._changed: dict[str, None] = {}
        #: The topics that `take_changes` has reported. The removal of any other is not reported, so
        #: that topics which come and go during an outage leave nothing behind.
        self._told: set[str] = set()
        self._unconfirmed: set[str] = set()
        self._known: set[str] = set()  # confirmed by the broker, in this session or an earlier one
        self._moved = ParkingLot()
        self._closed = False

    def add(self, topic: str) -> bool:
        """Want a topic. Returns whether it is a new one."""
        if topic in self.wanted:
            return False
        self.wanted[topic] = None
        self._unconfirmed.add(topic)
        self._change(topic)
        return True

    def remove(self, topic: str) -> bool:
        """Stop wanting a topic. Returns whether it was wanted."""
        if topic not in self.wanted:
            return False
        del self.wanted[topic]
        self._unconfirmed.discard(topic)
        self._known.discard(topic)
        if topic in self._told:
            self._change(topic)
        else:
            self._changed.pop(topic, None)
        return True

    def _change(self, topic: str) -> None:
        self._changed[topic] = None
        self._moved.unpark_all()

    def take_changes(self) -> list[str]:
        """The topics that came, went, or did both since the last call."""
        changed, self._changed = self._changed, {}
        self._told.difference_update(changed)
        self._told.update(topic for topic in changed if topic in self.wanted)
        return list(changed)

    def confirm(self, topic: str) -> bool:
        """Note that the broker knows a topic. Returns whether it did before.

        If so, the connection was lost in between, and messages may be missing.
        """
        if topic not in self.wanted:
            return False
        self._unconfirmed.discard(topic)
        repeated = topic in self._known
        self._known.add(topic)
        self._moved.unpark_all()
        return repeated

    def lose(self) -> None:
        """Note that the broker is away. It will know no topic when it comes back."""
        self._unconfirmed = set(self.wanted)
        self._moved.unpark_all()

    def is_confirmed(self, topic: str) -> bool:
        return topic not in self._unconfirmed

    async def wait_moved(self) -> None:
        """Wait until anything changes."""
        await self._moved.park()

    async def wait_for_changes(self) -> None:
        """Wait until `take_changes` has something to report."""
        await trio.lowlevel.checkpoint()
        while not self._changed:
            await self._moved.park()

    async def wait_confirmed(self) -> None:
        """Wait until the broker knows every topic that is wanted.

        Raises:
            trio.ClosedResourceError: the backplane has ended.
        """
        await trio.lowlevel.checkpoint()
        while self._unconfirmed and not self._closed:
            await self._moved.park()
        if self._closed:
            raise trio.ClosedResourceError("the backplane has ended")

    def close(self) -> None:
        self._closed = True
        self._moved.unpark_all()
