"""How many subscribers there are: now, and whenever that changes.

This module owns where tasks wait for subscribers to come or go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import final

import trio
from trio.lowlevel import ParkingLot

from .topics import Topics


class Watchers:
    """Where tasks wait for somebody to come or go, a place for each topic."""

    __slots__ = ("_lots",)

    def __init__(self) -> None:
        self._lots: dict[str, ParkingLot] = {}

    def __len__(self) -> int:
        return len(self._lots)

    def wake(self, topic: str) -> None:
        lot = self._lots.get(topic)
        if lot is not None:
            lot.unpark_all()

    def wake_all(self) -> None:
        for lot in self._lots.values():
            lot.unpark_all()

    async def wait(self, topic: str) -> None:
        """Return when the topic is woken. Cancelling it leaves nothing behind."""
        lot = self._lots.setdefault(topic, ParkingLot())
        try:
            await lot.park()
        finally:
            # The topic may have a new one by now, which others wait at.
            if not lot and self._lots.get(topic) is lot:
                del self._lots[topic]


@final
class Presence(AsyncIterator[int]):
    """What `Broadcast.presence` gives. It is no generator, so that nothing is left to be closed."""

    def __init__(self, topics: Topics, watchers: Watchers, topic: str) -> None:
        self._topics = topics
        self._watchers = watchers
        self._topic = topic
        self._given: int | None = None

    async def __anext__(self) -> int:
        await trio.lowlevel.checkpoint()
        while not self._topics.is_over:
            users = self._topics.present(self._topic)
            if users != self._given:
                self._given = users
                return users
            await self._watchers.wait(self._topic)
        raise StopAsyncIteration
