"""Whose turn it is: the places that a client may connect to, and when each may be tried again.

This module owns the order in which several URLs are tried, and the back-off of each. It does not
know the URLs: a place is a position in the list of them.

The order is shuffled once for each client, so that the clients of a server that is gone spread over
all others. A place that works is kept: it is tried again first. One that failed goes to the end.
"""

from __future__ import annotations

import random
from math import inf
from typing import final

import trio

from .._backoff import Backoff


@final
class Place:
    """A position in the list of URLs.

    Attributes:
        index: which.
        ready_at: before this time, on trio's clock, it is not tried.
    """

    __slots__ = ("_backoff", "_shortest", "index", "ready_at")

    def __init__(self, index: int, shortest: float, longest: float) -> None:
        self.index: int = index
        self.ready_at: float = -inf
        self._shortest = shortest
        # The first delay is a range, too: a server that goes down loses all its clients at once.
        self._backoff = Backoff(
            first=2 * shortest, longest=longest, steady=None, jitter=1.0, shortest=shortest
        )

    def has_held(self, lasted: float) -> bool:
        """Whether a connection of so many seconds proves that it works."""
        return self._backoff.has_held(lasted)

    def begin(self) -> None:
        """It is tried now. However well that goes, it is not tried again at once."""
        self.ready_at = trio.current_time() + self._shortest

    def put_off(self, lasted: float, *, least: float = 0.0) -> None:
        """Wait before the next try: the connection is over, or (-inf) there was none."""
        self.ready_at = trio.current_time() + self._backoff.delay(lasted, least=least)


@final
class Turns:
    """See the module.

    Args:
        count: how many places there are.
        shortest, longest: the delays before a place is tried again.
    """

    def __init__(self, count: int, shortest: float, longest: float) -> None:
        #: In the order in which they are tried.
        self._order = [Place(index, shortest, longest) for index in range(count)]
        random.shuffle(self._order)
        self._kept: Place | None = None

    def next_place(self) -> Place:
        """The place to try next: the one that works, or the first of those that are ready first."""
        if self._kept is not None:
            return self._kept
        now = trio.current_time()
        return min(self._order, key=lambda place: max(place.ready_at, now))

    def keep(self, place: Place) -> None:
        """It works: try it first."""
        self._kept = place

    def pass_over(self, place: Place) -> None:
        """It does not work: try all others before it."""
        if self._kept is place:
            self._kept = None
        self._order.remove(place)
        self._order.append(place)

    def wake(self) -> None:
        """Let all be tried at once."""
        for place in self._order:
            place.ready_at = -inf
