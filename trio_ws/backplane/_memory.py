"""A backplane without a broker, for tests: it joins several `Broadcast`s of one process.

This module owns the hub that takes the place of the broker. A test can make the hub go away for a
while, forget messages, or lose one of its members. Messages are encoded and queued as they are for
a real broker.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from itertools import islice
from typing import final

import trio
from trio.lowlevel import ParkingLot

from .._log import LoggerLike
from .._nursery import open_bare_nursery
from .._pacing import next_checkpoint
from ._base import BackplaneError, Past
from ._envelope import decode
from ._outgoing import Item
from ._position import Position
from ._queued import MAX_QUEUED_BYTES, MAX_QUEUED_MESSAGES, QueuedBackplane, check_topic


@final
class _Log:
    """The kept messages of a topic, in one epoch."""

    def __init__(self, size: int) -> None:
        self.kept: deque[bytes] = deque(maxlen=size)
        self._epoch = os.urandom(6).hex()
        self._offset = 0

    @property
    def position(self) -> Position:
        """That of the newest message."""
        return Position(self._epoch, self._offset)

    def add(self, data: bytes) -> Position:
        self._offset += 1
        self.kept.append(data)
        return self.position

    def after(self, position: Position | None) -> list[bytes] | None:
        """All that came after a position; `None` if that is not what is kept."""
        if position is None or position.epoch != self._epoch:
            return None
        missing = self._offset - position.offset
        return self.newest(missing) if 0 <= missing <= len(self.kept) else None

    def newest(self, count: int) -> list[bytes]:
        return list(islice(self.kept, max(0, len(self.kept) - count), None))


@final
class MemoryHub:
    """What joins `MemoryBackplane` objects.

    Args:
        history: how many messages of each topic to keep. If it is more than 0, the backplanes keep
            positions (see `Backplane`).

    Attributes:
        reads: how often `Backplane.read` was answered.
    """

    def __init__(self, *, history: int = 0) -> None:
        self.reads: int = 0
        self._history_size = history
        self._logs: dict[str, _Log] = {}
        self._members: dict[MemoryBackplane, None] = {}
        self._cut_off: set[MemoryBackplane] = set()
        self._paused = False
        self._reached = ParkingLot()

    # Being away…

    def pause(self) -> None:
        """Go away, like a broker that restarts. Published messages wait in the queues."""
        self._paused = True
        for member in self._members:
            member._note_lost()

    def resume(self) -> None:
        """Come back, and then take the messages that waited.

        Without positions, there are gap notices for every subscribed topic.
        """
        if self._paused:
            self._paused = False
            for member in self._members:
                self._greet(member)
            self._reached.unpark_all()

    def cut_off(self, backplane: MemoryBackplane) -> None:
        """Be away for one backplane only, while the others go on."""
        self._cut_off.add(backplane)
        backplane._note_lost()

    def let_back(self, backplane: MemoryBackplane) -> None:
        """End `cut_off`."""
        if backplane in self._cut_off:
            self._cut_off.remove(backplane)
            if backplane in self._members:
                self._greet(backplane)
            self._reached.unpark_all()

    def _greet(self, member: MemoryBackplane) -> None:
        if self._reaches(member):
            member._greet()

    def _reaches(self, member: MemoryBackplane) -> bool:
        return not self._paused and member not in self._cut_off

    # Forgetting…

    def trim(self, topic: str, *, keep: int = 0) -> None:
        """Forget the messages of a topic but for the newest ones, as a broker does that is full."""
        kept = self._log(topic).kept
        while len(kept) > keep:
            kept.popleft()

    def lose_data(self) -> None:
        """Forget all messages and positions, like a broker that loses its data."""
        self._logs.clear()

    # For the members…

    def _join(self, member: MemoryBackplane) -> None:
        self._members[member] = None
        self._greet(member)

    def _leave(self, member: MemoryBackplane) -> None:
        self._members.pop(member, None)
        self._cut_off.discard(member)

    async def _wait_reached(self, member: MemoryBackplane) -> None:
        while not self._reaches(member):
            await self._reached.park()

    def _log(self, topic: str) -> _Log:
        return self._logs.setdefault(topic, _Log(self._history_size))

    def _route(self, item: Item) -> None:
        position = None
        if self._history_size and decode(item.data).kept:
            position = self._log(item.topic).add(item.data)
        for member in tuple(self._members):
            if self._reaches(member):
                member._receive(item, position)


@final
class MemoryBackplane(QueuedBackplane):
    """A backplane that reaches the others of the same `MemoryHub`. See `Backplane`.

    Nothing is lost unless a queue overflows or the hub forgets it. If the hub keeps no history,
    there are still gap notices after `MemoryHub.pause` and `MemoryHub.resume`, as there are with a
    real broker.

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
        self.keeps_positions: bool = hub._history_size > 0

    @trio.lowlevel.enable_ki_protection
    async def _join(self, task_status: trio.TaskStatus[None]) -> None:
        self._hub._join(self)
        try:
            async with open_bare_nursery() as nursery:
                if self.keeps_positions:
                    nursery.start_soon(self._follow)
                task_status.started()
                await self._send()
        finally:
            self._hub._leave(self)

    async def _send(self) -> None:
        while True:
            for item in await self._outgoing.next_batch():
                await next_checkpoint()()
                await self._hub._wait_reached(self)
                self._hub._route(item)
                self._outgoing.settle()

    # Which topics…

    def subscribe(self, topic: str) -> None:
        super().subscribe(topic)
        if self._connected and not self.keeps_positions:
            self._interest.confirm(topic)

    async def _follow(self) -> None:
        """Tell the hub of new topics a moment later, as a real broker learns of them."""
        while True:
            await self._interest.wait_for_changes()
            for topic in self._interest.take_changes():
                if self._connected:
                    self._bring(topic)

    def _greet(self) -> None:
        """Note that the hub is there, and knows every subscription."""
        self._note_connected()
        for topic in tuple(self._interest.wanted):
            self._bring(topic)

    def _bring(self, topic: str) -> None:
        """Join a topic, or go on with it after a break."""
        if self.keeps_positions and topic in self._interest.wanted:
            self._go_on(topic)
        if self._interest.confirm(topic) and not self.keeps_positions:
            self._incoming.announce_gap(topic)

    def _go_on(self, topic: str) -> None:
        log = self._hub._log(topic)
        place = self._places.get(topic)
        missed = log.after(place)
        if place is None or missed is None:
            self._places.attach(topic, log.position)
            return
        for offset, data in enumerate(missed, place.offset + 1):
            self._places.receive(topic, data, Position(place.epoch, offset))

    def _receive(self, item: Item, position: Position | None) -> None:
        if item.topic not in self._interest.wanted:
            return
        if self.keeps_positions:
            self._places.receive(item.topic, item.data, position)
        else:
            self._incoming.receive(item.topic, item.data)

    async def read(self, topic: str, after: Position | None, count: int) -> Past:
        if not self.keeps_positions:
            return await super().read(topic, after, count)
        check_topic(topic)
        await trio.lowlevel.checkpoint()
        if not self._connected:
            raise BackplaneError("the hub is away")
        self._hub.reads += 1
        log = self._hub._log(topic)
        if after is not None and after.epoch == log.position.epoch:
            count = min(count, max(0, log.position.offset - after.offset))
        return Past(log.position, tuple(decode(data).message for data in log.newest(count)))
