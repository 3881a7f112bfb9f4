"""Which topics are wanted here, and which of them the broker knows of.

This module knows neither brokers nor messages.
"""

from __future__ import annotations

import trio
from trio.lowlevel import ParkingLot


class Interest:
    """See the module."""

    def __init__(self) -> None:
        #: What is wanted, in the order in which it was first wanted. Read only.
        self.wanted: dict[str, None] = {}
        self._changed: dict[str, None] = {}
        #: What `take_changes` has told of. Only when this goes, it has to be told again, so that
        #: topics which come and go during an outage leave nothing behind.
        self._told: set[str] = set()
        self._unconfirmed: set[str] = set()
        self._known: set[str] = set()  # what the broker has confirmed, now or in an earlier life
        self._moved = ParkingLot()
        self._closed = False

    def add(self, topic: str) -> bool:
        """Whether it was not wanted before."""
        if topic in self.wanted:
            return False
        self.wanted[topic] = None
        self._unconfirmed.add(topic)
        self._change(topic)
        return True

    def remove(self, topic: str) -> bool:
        """Whether it was wanted before."""
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
        """The topics that came or went since the last call; some of them both."""
        changed, self._changed = self._changed, {}
        self._told.difference_update(changed)
        self._told.update(topic for topic in changed if topic in self.wanted)
        return list(changed)

    def confirm(self, topic: str) -> bool:
        """The broker knows of it; `True` if that is not the first time.

        What it has been published meanwhile may be missing then.
        """
        if topic not in self.wanted:
            return False
        self._unconfirmed.discard(topic)
        repeated = topic in self._known
        self._known.add(topic)
        self._moved.unpark_all()
        return repeated

    def lose(self) -> None:
        """The broker is away, and will know of nothing when it comes back."""
        self._unconfirmed = set(self.wanted)

    async def wait_for_changes(self) -> None:
        """Return when there are changes to take."""
        await trio.lowlevel.checkpoint()
        while not self._changed:
            await self._moved.park()

    async def wait_confirmed(self) -> None:
        """Return when the broker knows of all that is wanted.

        Raises:
            trio.ClosedResourceError: it was closed.
        """
        await trio.lowlevel.checkpoint()
        while self._unconfirmed and not self._closed:
            await self._moved.park()
        if self._closed:
            raise trio.ClosedResourceError("the backplane has ended")

    def close(self) -> None:
        self._closed = True
        self._moved.unpark_all()
