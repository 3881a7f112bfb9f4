"""One task that looks at many connections when something may be due.

A sleeping task for each connection would be the largest part of what an idle connection costs. Here
a heap holds each connection's next time, and one task sleeps until the earliest. `keepalive` does
what is due then: a ping, or the end.

The watchdog also knows which connections no task reads for the moment, because the task that read
a message is still busy with it. It recalls the reader task of a connection that is left unread for
longer than `RELIEF`. Connections are left with every message, so this must cost next to nothing:
the alarm for it is moved while connections are left often enough, and goes off only where one has
been left for too long.

Where thousands of tasks are ready to run, a turn of the scheduler takes longer than `RELIEF`, and a
task that was handed a message has not seen it yet. To recall the reader task then would be worse
than useless: it would read the next message too, and hand it over in yet another turn, and so on
with every message. So the watchdog gives all tasks their turn before it recalls any reader task.

When this computer has slept, something is due for every connection. A server may have thousands,
so no look takes more than `CHECKS_PER_TURN` of them before other tasks get their turn.
"""

from __future__ import annotations

import weakref
from heapq import heapify, heappop, heappush
from itertools import count, takewhile
from math import inf
from typing import Protocol

import trio

from .._waking import lookout

#: How many connections are checked in a row. A ping costs some 10 microseconds, so this takes about
#: a third of a millisecond.
CHECKS_PER_TURN = 32

#: How many seconds a connection may be left unread. After twice this time its reader task reads.
RELIEF = 0.0025


class Watched(Protocol):
    """Anything that can be watched."""

    def check(self, now: float) -> float:
        """Do what is due and return when to look again; `math.inf` for never."""
        ...

    def wake(self, now: float) -> None:
        """This computer has slept. `check` is called next."""
        ...


class Left(Protocol):
    """Anything that can be left unread for a moment."""

    def recall(self) -> None:
        """Let the reader task read again. It has to call `attend`."""
        ...


class Watchdog:
    """Start `run` in a nursery; it goes on until it is cancelled."""

    def __init__(self) -> None:
        # Weak references, so that a connection that is over is not kept until its time comes. The
        # counter settles ties, because connections have no order.
        self._due: list[tuple[float, int, weakref.ref[Watched]]] = []
        #: Those of them that have not been looked at since this computer woke, in no order.
        self._woken: list[tuple[float, int, weakref.ref[Watched]]] = []
        self._counter = count()
        self._compact_at = 64
        self._nap = trio.CancelScope()
        self._lookout = lookout()
        #: What no task reads, and since when; what has been left for longest comes first.
        self._left: dict[Left, float] = {}
        #: When the task looks at those next, at the latest; `math.inf` while there are none.
        self._relief_at = inf
        #: Leaving a connection after this time moves the other.
        self._move_from = -inf

    def __len__(self) -> int:
        """How many entries there are, those of connections that are over included."""
        return len(self._due) + len(self._woken)

    def watch(self, watched: Watched) -> None:
        """Look at `watched` from now on."""
        self._schedule(watched, watched.check(trio.current_time()))

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        try:
            while True:
                with trio.CancelScope() as self._nap:
                    self._set_alarm()
                    await trio.sleep_forever()
                now = trio.current_time()
                if now >= self._relief_at:
                    await self._relieve(now)
                self._check_due(now)
        finally:
            self._lookout.remove(self._wake)

    def leave(self, left: Left, now: float) -> None:
        """No task reads it from `now` on. Call its `recall` soon, unless `attend` comes first."""
        self._left[left] = now
        if now > self._move_from:
            # Moving the alarm costs a twentieth of what it costs if it goes off. It never goes off
            # while connections are left often enough, and attended to in time.
            self._move_alarm(now)

    def attend(self, left: Left) -> None:
        """A task reads it again."""
        self._left.pop(left, None)

    def _move_alarm(self, now: float) -> None:
        longest = next(iter(self._left.values()), None)
        if longest is None:
            self._relief_at, self._move_from = inf, -inf
        else:
            self._relief_at = longest + 2 * RELIEF
            self._move_from = longest + RELIEF
            if now > self._move_from:
                self._move_from = inf  # it has to go off
        self._set_alarm()

    async def _relieve(self, now: float) -> None:
        """Recall the reader tasks of what has been left for too long."""
        self._move_from = inf
        # A task that is ready to run takes its turn before the second of these is over.
        for _ in range(2):
            await trio.lowlevel.checkpoint()
        for left, _ in [*takewhile(lambda item: item[1] <= now - RELIEF, self._left.items())]:
            left.recall()
        self._move_alarm(trio.current_time())

    def _set_alarm(self) -> None:
        """Let the task sleep until something may be due."""
        due = self._due[0][0] if self._due else inf
        self._nap.deadline = -inf if self._woken else min(due, self._relief_at)

    def _wake(self) -> None:
        """This computer has slept: look at all."""
        self._woken += self._due
        self._due = []
        self._set_alarm()

    def _check_due(self, now: float) -> None:
        for _ in range(CHECKS_PER_TURN):
            if self._woken:
                watched = self._woken.pop()[2]()
                if watched is not None:
                    watched.wake(now)
            elif self._due and self._due[0][0] <= now:
                watched = heappop(self._due)[2]()
            else:
                break
            if watched is not None:
                self._schedule(watched, watched.check(now))
        if not (self._due or self._woken):
            self._lookout.remove(self._wake)

    def _drop_dead(self) -> None:
        """Drop entries of what is gone, when the heap has doubled: little work for each entry."""
        self._due = [entry for entry in self._due if entry[2]() is not None]
        heapify(self._due)
        self._compact_at = max(64, 2 * len(self._due))

    def _schedule(self, watched: Watched, due: float) -> None:
        if due < inf:
            if not self._due:
                self._lookout.add(self._wake)
            elif len(self._due) >= self._compact_at:
                self._drop_dead()
            heappush(self._due, (due, next(self._counter), weakref.ref(watched)))
            self._wake_at(due)

    def _wake_at(self, due: float) -> None:
        """Wake the task then, if it would sleep longer."""
        if due < self._nap.deadline:  # noqa: PLR1730 - setting it costs more than asking
            self._nap.deadline = due
