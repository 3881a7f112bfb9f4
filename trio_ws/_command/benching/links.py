"""One connection of the load: what it was to send, what it has sent, and what was answered.

This module owns the order on one connection, and matches answers. `load` says when a message is
due.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from typing import final

import trio

from ..._connection.websocket import WebSocket
from ..._errors import ConnectionClosed, ConnectionLost
from .plan import Messages, Mode, Plan
from .tally import Tally


@final
class Unfinished:
    """The connections with messages under way."""

    def __init__(self) -> None:
        self._links: set[Link] = set()
        self._none: trio.Event | None = None

    def add(self, link: Link) -> None:
        self._links.add(link)

    def discard(self, link: Link) -> None:
        self._links.discard(link)
        if not self._links and self._none is not None:
            self._none.set()

    async def wait_none(self) -> None:
        """Return when there are none. No more messages are to become due by now."""
        if self._links:
            self._none = trio.Event()
            await self._none.wait()


@dataclass(frozen=True)
class Common:
    """What the connections of a load share.

    Attributes:
        unfinished: the connections with messages under way.
        nursery: for a task that may last as long as a connection.
    """

    plan: Plan
    messages: Messages
    tally: Tally
    unfinished: Unfinished
    nursery: trio.Nursery


class Link(ABC):
    """One connection. Messages are numbered from 0, in the order in which they are due.

    Args:
        ws: the connection, which receives text as bytes.
        common: what it shares with the others.
    """

    def __init__(self, ws: WebSocket, common: Common) -> None:
        self.ws = ws
        self._plan = common.plan
        self._messages = common.messages
        self._tally = common.tally
        self._unfinished = common.unfinished
        self._nursery = common.nursery
        self._is_over = False
        #: How many messages were due so far, how many of them the connection took, and how many
        #: are finished: answered, or sent where no answer is expected.
        self._planned = self._sent = self._finished = 0
        #: The number after the highest one that was answered, and the numbers below it that were
        #: not. So a server that answers nothing takes no memory.
        self._next = 0
        self._passed_over: set[int] = set()

    @abstractmethod
    def begin(self, start: float, place: int, total: int) -> None:
        """Messages are due from `start` on. This is connection number `place`, of so many."""

    @abstractmethod
    def _due(self, number: int) -> float:
        """When that message was due. It is asked once, when the message is answered."""

    @abstractmethod
    def _go_on(self, now: float) -> None:
        """An answer came."""

    # Sending…

    def post(self, due: float, now: float) -> None:
        """A message is due: send it now, or as soon as the connection takes it.

        The load does not wait for that. A message that waits is late, and its latency says so.
        """
        self._tally.note_due(due, now)
        if self._is_over:
            return
        self._unfinished.add(self)
        self._planned += 1
        if self._planned - self._sent > 1:
            return  # others wait before it
        try:
            self.ws.send_nowait(self._messages.make(self._sent))
        except trio.WouldBlock:
            self._nursery.start_soon(self._catch_up)
        except (ConnectionClosed, trio.ClosedResourceError):
            pass  # the receiving task learns of it too
        else:
            self._note_sent(now)

    async def _catch_up(self) -> None:
        with suppress(ConnectionClosed, trio.ClosedResourceError):
            while self._sent < self._planned:
                await self.ws.send(self._messages.make(self._sent))
                self._note_sent(trio.current_time())

    def _note_sent(self, now: float) -> None:
        self._sent += 1
        self._tally.note_sent(now, self._plan.size)
        if self._plan.mode is Mode.SEND:
            self._finish_one()

    def _finish_one(self) -> None:
        self._finished += 1
        if self._finished == self._planned:
            self._unfinished.discard(self)

    # Receiving…

    async def receive(self) -> None:
        """Take what comes, until the connection ends."""
        with suppress(ConnectionLost):  # the connection knows the reason
            async for message in self.ws:
                assert isinstance(message, bytes)
                self._take(message, trio.current_time())

    def _take(self, message: bytes, now: float) -> None:
        self._tally.note_received(now, len(message))
        if self._plan.mode is not Mode.ECHO:
            return
        number = self._messages.number_of(message)
        if number is None or not self._is_missing(number):
            self._tally.strays += 1
            return
        self._tally.note_answer(self._due(number), now)
        self._finish_one()
        self._go_on(now)

    def _is_missing(self, number: int) -> bool:
        """Whether this is the first answer to a message. It counts as answered from now on."""
        if number in self._passed_over:
            self._passed_over.remove(number)
            return True
        if not self._next <= number < self._planned:
            return False
        self._passed_over.update(range(self._next, number))
        self._next = number + 1
        return True

    # Ending…

    def give_up(self) -> None:
        """The connection is over, or is to end: no message on it is waited for any more."""
        if not self._is_over:
            self._is_over = True
            self._unfinished.discard(self)
            self._tally.unsent += self._planned - self._sent


@final
class PacedLink(Link):
    """The connections take turns, at fixed times, whether answers come or not.

    The load calls `post`, because one task can keep the times of all connections.
    """

    def begin(self, start: float, place: int, total: int) -> None:
        assert self._plan.rate is not None
        self._first = start + place / self._plan.rate
        self._distance = total / self._plan.rate

    def _due(self, number: int) -> float:
        return self._first + number * self._distance

    def _go_on(self, now: float) -> None:
        pass  # the next one is due when it is due


@final
class InFlightLink(Link):
    """Some messages under way at first. Each answer makes one more due, until time is up."""

    def begin(self, start: float, place: int, total: int) -> None:
        self._due_at: dict[int, float] = {}
        for _ in range(self._plan.in_flight):
            self._go_on(trio.current_time())

    def _go_on(self, now: float) -> None:
        if now < self._tally.until:
            self._due_at[self._planned] = now
            self.post(now, now)

    def _due(self, number: int) -> float:
        return self._due_at.pop(number)
