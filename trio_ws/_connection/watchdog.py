"""One task that looks at many connections when something may be due.

A sleeping task for each connection would be the largest part of what an idle connection costs. Here
a heap holds each connection's next time, and one task sleeps until the earliest. The connection
itself decides what is due then, a ping or its end. What nobody attends to for the moment is
looked at after a few milliseconds, all of it together: that may be asked for after every message,
and must cost next to nothing.
"""

from __future__ import annotations

import weakref
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Protocol

import trio

#: For how many seconds a connection may go without attention.
RELIEF = 0.003


class Watched(Protocol):
    """Anything that can be watched."""

    def check(self, now: float) -> float:
        """Do what is due and return when to look again; `math.inf` for never."""
        ...


class Unattended(Protocol):
    """What can be without attention for a moment."""

    def relieve(self) -> None:
        """See to it, if nobody does."""
        ...


class Watchdog:
    """Start `run` in a nursery; it goes on until it is cancelled."""

    def __init__(self) -> None:
        # Weak references, so that a connection that is over is not kept until its time comes. The
        # counter settles ties, because connections have no order.
        self._due: list[tuple[float, int, weakref.ref[Watched]]] = []
        self._counter = count()
        self._compact_at = 64
        self._nap = trio.CancelScope()
        #: What is unattended, and when that has to be looked at.
        self._unattended: list[Unattended] = []
        self._relief_at = inf

    def __len__(self) -> int:
        """How many entries there are, those of connections that are over included."""
        return len(self._due)

    def watch(self, watched: Watched) -> None:
        """Look at `watched` from now on."""
        self._schedule(watched, watched.check(trio.current_time()))

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        while True:
            with trio.CancelScope() as self._nap:
                due = self._due[0][0] if self._due else inf
                self._nap.deadline = min(due, self._relief_at)
                await trio.sleep_forever()
            now = trio.current_time()
            if now >= self._relief_at:
                self._relieve_all()
            self._check_due(now)

    def relieve_soon(self, unattended: Unattended) -> None:
        """Call its `relieve` after `RELIEF` seconds, or earlier: one look is for all."""
        if not self._unattended:
            self._relief_at = trio.current_time() + RELIEF
            self._wake_at(self._relief_at)
        self._unattended.append(unattended)

    def _relieve_all(self) -> None:
        unattended, self._unattended, self._relief_at = self._unattended, [], inf
        for one in unattended:
            one.relieve()

    def _check_due(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, _, reference = heappop(self._due)
            watched = reference()
            if watched is not None:
                self._schedule(watched, watched.check(now))

    def _drop_dead(self) -> None:
        """Drop entries of what is gone, when the heap has doubled: little work for each entry."""
        self._due = [entry for entry in self._due if entry[2]() is not None]
        heapify(self._due)
        self._compact_at = max(64, 2 * len(self._due))

    def _schedule(self, watched: Watched, due: float) -> None:
        if due < inf:
            if len(self._due) >= self._compact_at:
                self._drop_dead()
            heappush(self._due, (due, next(self._counter), weakref.ref(watched)))
            self._wake_at(due)

    def _wake_at(self, due: float) -> None:
        """Wake the task then, if it would sleep longer."""
        if due < self._nap.deadline:  # noqa: PLR1730 - setting it costs more than asking
            self._nap.deadline = due
