"""Telling other processes who is here, and hearing who is there.

This module owns the tasks of presence and its topics on the backplane. What is told and what it
means, `roster` knows.

Each topic that somebody here is in or looks at has a presence topic. One more belongs to all
processes, and is listened to from the start: a process that ends leaves its will there.

While the broker is away, nothing is told and nobody is given up: the silence is not theirs. The
same goes for the time in which this process itself stood still, stopped by a signal or asleep with
its computer.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import Final, final

import trio
from trio.lowlevel import ParkingLot

from .._log import LoggerLike
from .._nursery import open_bare_nursery
from .._waking import lookout
from ..backplane._base import Backplane
from .presence_messages import InvalidMessage, Message, decode, encode
from .roster import Place, Roster
from .topics import INTERNAL

#: The presence topic of a topic, less its name; and the one of all processes.
PRESENCE: Final = INTERNAL + "presence:"
EVERYBODY: Final = INTERNAL + "processes"

#: What changes within this time goes out together. A single change does not wait for it.
PAUSE: Final = 0.02

#: How long others get to answer a process that asks who is in a topic, before it shows what it
#: knows: many times what an answer takes between processes that are not overloaded.
SETTLE: Final = 0.5

#: And how long the broker gets to subscribe us before that.
PATIENCE: Final = 2.0

#: How long the end of the broadcast waits for the broker to take the will.
FAREWELL: Final = 1.0


class Watchers:
    """Where tasks wait for somebody to come or go, a place for each topic."""

    __slots__ = ("_lots",)

    def __init__(self) -> None:
        self._lots: dict[str, ParkingLot] = {}

    def __len__(self) -> int:
        return len(self._lots)

    def __contains__(self, topic: str) -> bool:
        return topic in self._lots

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
class Herald:
    """Speaks with the other processes of one broadcast about who is there.

    Args:
        backplane: leads to them.
        roster: knows who is there.
        watchers: woken when a topic may be shown.
        logger: for messages that make no sense.
    """

    def __init__(
        self, backplane: Backplane, roster: Roster, watchers: Watchers, logger: LoggerLike
    ) -> None:
        self._backplane: Backplane = backplane
        self._roster: Roster = roster
        self._watchers: Watchers = watchers
        self._logger: LoggerLike = logger
        #: The topics of which the others were not asked yet.
        self._newcomers: list[str] = []
        self._opened: ParkingLot = ParkingLot()
        self._noted: ParkingLot = ParkingLot()
        self._is_deaf: bool = False
        self.malformed: int = 0

    # What the application does…

    def open(self, topic: str, now: float) -> Place:
        """The place of a topic. Of a new one, the others are asked."""
        place = self._roster.places.get(topic)
        if place is None:
            self._backplane.subscribe(PRESENCE + topic)
            place = self._roster.open(topic, now)
            place.settles = inf
            self._newcomers.append(topic)
            self._opened.unpark_all()
        return place

    def note_news(self) -> None:
        """There may be something to tell."""
        self._noted.unpark_all()

    # What the others say…

    def receive(self, topic: str, text: str | bytes) -> None:
        """A message came on one of our topics."""
        try:
            origin, message = decode(text)
        except InvalidMessage as exc:
            self.malformed += 1
            if self.malformed.bit_count() == 1:
                self._logger.warning(
                    "ignored what is no message about presence, on topic %r: %s (%d so far)",
                    topic,
                    exc,
                    self.malformed,
                )
            return
        about = None if topic == EVERYBODY else topic.removeprefix(PRESENCE)
        self._roster.hear(about, origin, message, trio.current_time())
        self.note_news()

    # The tasks…

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Tell and hear until cancelled."""
        look = lookout()
        look.add(self._note_sleep)
        try:
            self._backplane.subscribe(EVERYBODY)
            async with open_bare_nursery() as nursery:
                nursery.start_soon(self._introduce)
                nursery.start_soon(self._tell_news)
                nursery.start_soon(self._keep_telling)
        finally:
            look.remove(self._note_sleep)

    async def _introduce(self) -> None:
        """Ask about each new topic, as soon as the answers would be heard."""
        await self._wait_subscribed()
        self._roster.greet()
        self.note_news()
        quiet = trio.current_time() + SETTLE  # whoever has members says so by then
        while True:
            if not self._newcomers:
                await self._opened.park()
            # Those that are opened while this waits are next.
            topics, self._newcomers = self._newcomers, []
            await self._wait_subscribed()
            settles = trio.current_time()
            if self._roster.knows_others or settles < quiet:
                settles += SETTLE
            for topic in topics:
                self._roster.ask(topic, settles)
                self._watchers.wake(topic)
            self.note_news()

    async def _wait_subscribed(self) -> None:
        # Where it has ended, it ends us as well, and says why.
        with trio.move_on_after(PATIENCE), suppress(trio.ClosedResourceError):
            await self._backplane.wait_subscribed()

    async def _tell_news(self) -> None:
        """Tell what changes: all that has changed since a moment ago, together."""
        while True:
            if self._roster.has_news and self._is_connected:
                for topic, message in self._roster.news(trio.current_time()):
                    self._tell(topic, message)
                    await trio.lowlevel.checkpoint()
                await trio.sleep(PAUSE)
            else:
                await self._noted.park()

    async def _keep_telling(self) -> None:
        """Tell again and again that we are here, and give up those who do not."""
        interval = self._roster.tick_interval
        while True:
            due = trio.current_time() + interval
            await trio.sleep_until(due)
            now = trio.current_time()
            if not self._is_connected:
                self._is_deaf = True
                continue
            if self._is_deaf or now - due > interval * 5:
                self._is_deaf = False
                self._roster.resume(now)
            self._roster.expire(now)
            for topic, message in self._roster.routine(now):
                self._tell(topic, message)
            for topic in self._roster.forget(now, self._watchers.__contains__):
                self._backplane.unsubscribe(PRESENCE + topic)
            self.note_news()

    @property
    def _is_connected(self) -> bool:
        return self._backplane.statistics().connected

    def _note_sleep(self) -> None:
        """The computer has slept, and trio's clock with it: the others have given us up."""
        self._is_deaf = True

    def _tell(self, topic: str | None, message: Message) -> None:
        name = EVERYBODY if topic is None else PRESENCE + topic
        self._backplane.publish(name, encode(self._roster.origin, message), keep=False)

    async def say_goodbye(self) -> None:
        """Leave the will. Waits for the broker for `FAREWELL` at most, whatever is cancelled."""
        will = [*self._roster.will()]
        if not will or not self._is_connected:
            return
        for topic, message in will:
            self._tell(topic, message)
        # It may have ended before us.
        with trio.move_on_after(FAREWELL, shield=True), suppress(trio.ClosedResourceError):
            await self._backplane.flush()
