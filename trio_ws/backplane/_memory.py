"""A backplane without a broker, for tests: it joins several `Broadcast`s of one process.

This module owns the hub that takes the place of the broker. A test can make the hub go away for a
while. Messages are encoded and queued as they are for a real broker.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import final

import trio
from trio.lowlevel import ParkingLot

from .._log import LoggerLike
from .._pacing import next_checkpoint
from ._base import BackplaneError, HistoryEntry
from ._envelope import decode
from ._outgoing import Item
from ._queued import MAX_QUEUED_BYTES, MAX_QUEUED_MESSAGES, QueuedBackplane, select


@final
class MemoryHub:
    """What joins `MemoryBackplane` objects.

    Args:
        history: how many messages of each topic to keep for `Backplane.history`.
    """

    def __init__(self, *, history: int = 0) -> None:
        self._history_size = history
        self._history: dict[str, deque[bytes]] = {}
        self._members: dict[MemoryBackplane, None] = {}
        self._paused = False
        self._resumed = ParkingLot()

    def pause(self) -> None:
        """Go away, like a broker that restarts. Published messages wait in the queues."""
        self._paused = True
        for member in self._members:
            member._note_lost()

    def resume(self) -> None:
        """Come back: gap notices for every subscribed topic, then the messages that waited."""
        if self._paused:
            self._paused = False
            for member in self._members:
                member._greet()
            self._resumed.unpark_all()

    def _join(self, member: MemoryBackplane) -> None:
        self._members[member] = None
        if not self._paused:
            member._greet()

    def _leave(self, member: MemoryBackplane) -> None:
        self._members.pop(member, None)

    async def _wait_resumed(self) -> None:
        while self._paused:
            await self._resumed.park()

    def _route(self, item: Item) -> None:
        if self._history_size and decode(item.data).kept:
            kept = self._history.setdefault(item.topic, deque(maxlen=self._history_size))
            kept.append(item.data)
        for member in tuple(self._members):
            member._receive(item)


@final
class MemoryBackplane(QueuedBackplane):
    """A backplane that reaches the others of the same `MemoryHub`. See `Backplane`.

    Nothing is lost unless a queue overflows. There are still gap notices after `MemoryHub.pause`
    and `MemoryHub.resume`, as there are with a real broker.

    Args:
        hub: what joins this backplane to the others.
        max_queued_messages: how many messages may wait while the hub is away.
        max_queued_bytes: how many bytes may wait.
        logger: where records go.
    """

    def __init__(
        self,
        hub: MemoryHub,
        *,
        max_queued_messages: float = MAX_QUEUED_MESSAGES,
        max_queued_bytes: float = MAX_QUEUED_BYTES,
        logger: LoggerLike | None = None,
    ) -> None:
        given: object = hub
        if not isinstance(given, MemoryHub):
            raise TypeError(f"hub is a MemoryHub, not {given!r}")
        logger = logger or logging.getLogger("trio_ws")
        super().__init__(max_queued_messages, max_queued_bytes, logger)
        self._hub = hub
        self.keeps_history: bool = hub._history_size > 0

    @trio.lowlevel.enable_ki_protection
    async def _join(self, task_status: trio.TaskStatus[None]) -> None:
        self._hub._join(self)
        try:
            task_status.started()
            while True:
                for item in await self._outgoing.next_batch():
                    await next_checkpoint()()
                    await self._hub._wait_resumed()
                    self._hub._route(item)
                    self._outgoing.settle()
        finally:
            self._hub._leave(self)

    def _greet(self) -> None:
        """Note that the hub is there, and knows every subscription."""
        self._note_connected()
        for topic in tuple(self._interest.wanted):
            self._confirm(topic)

    def subscribe(self, topic: str) -> None:
        super().subscribe(topic)
        if self._connected:
            self._interest.confirm(topic)

    def _confirm(self, topic: str) -> None:
        if self._interest.confirm(topic):
            self._incoming.announce_gap(topic)

    def _receive(self, item: Item) -> None:
        if item.topic in self._interest.wanted:
            self._incoming.receive(item.topic, item.data)

    async def history(
        self, topic: str, *, count: int | None = None, since: str | None = None
    ) -> list[HistoryEntry]:
        if not self.keeps_history:
            return await super().history(topic)
        await trio.lowlevel.checkpoint()
        if not self._connected:
            raise BackplaneError("the hub is away")
        entries = [decode(data) for data in self._hub._history.get(topic, ())]
        return select([HistoryEntry(entry.id, entry.message) for entry in entries], count, since)
