"""Noticing that the computer has slept.

This module owns which clocks tell it, and the one task for each run of trio that compares them. It
knows nothing of connections.

On most systems trio's clock stands still while the computer sleeps: what was due in 20 s still is
when it wakes. Some other clock runs on, and the two have parted by as much as the computer slept.
Clocks of the system are compared with each other, and never with trio's, which a test may jump
ahead. Under a clock that a test moves nobody looks, unless the test brings a `Lookout`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final, TypeAlias, final

import trio
from trio.lowlevel import RunVar

#: How many seconds pass between two looks at the clocks, and so after waking, until it is noticed.
#: A look each second takes about a second of processor time in an hour, however many ask.
LOOK: Final = 1.0

#: A sleep of fewer seconds than this does not count. A leap second, or a small correction of the
#: wall clock, must not look like one where the wall clock is what there is.
SHORTEST_SLEEP: Final = 2.0

#: Gives how many seconds the computer has slept, since any moment that stays the same.
Asleep: TypeAlias = Callable[[], float]

#: For each system, a clock that runs on in sleep and one that stands still, which do not part
#: otherwise: what the second is corrected by, the first is, too.
PAIRS: Final = {
    "linux": ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"),
    "android": ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"),
    "darwin": ("CLOCK_MONOTONIC_RAW", "CLOCK_UPTIME_RAW"),
}


@final
class Lookout:
    """Tells whoever asked to be told that the computer has slept, within `LOOK` after it woke.

    Args:
        asleep: how long it has slept so far; `None` if nobody is to be told.
    """

    def __init__(self, asleep: Asleep | None) -> None:
        self._asleep = asleep
        self._before = 0.0
        #: What to call. A dictionary, because it keeps the order.
        self._told: dict[Callable[[], None], None] = {}
        #: Whether the task is there. It ends when it finds nobody to tell.
        self._looking = False

    @trio.lowlevel.enable_ki_protection
    def add(self, tell: Callable[[], None]) -> None:
        """Call `tell` each time that the computer has slept, until `remove`.

        It must neither raise nor block: it is called in a task of trio's own.
        """
        if self._asleep is None:
            return
        if not self._told:
            self._before = self._asleep()
        self._told[tell] = None
        if not self._looking:
            self._looking = True
            trio.lowlevel.spawn_system_task(self._look)

    def remove(self, tell: Callable[[], None]) -> None:
        self._told.pop(tell, None)

    async def _look(self) -> None:
        """The system task: trio cancels it when the program's own tasks are over."""
        while self._told:
            await trio.sleep(LOOK)
            if self._has_slept():
                for tell in [*self._told]:
                    tell()
        self._looking = False

    def _has_slept(self) -> bool:
        """Whether the computer has slept since this was last asked."""
        assert self._asleep is not None
        before, self._before = self._before, self._asleep()
        return self._before - before >= SHORTEST_SLEEP


#: The lookout of a run of trio. A test may set one of its own, before anything else asks for it.
LOOKOUT: Final = RunVar[Lookout]("the lookout of trio_ws")


def lookout() -> Lookout:
    """The one of this run."""
    try:
        return LOOKOUT.get()
    except LookupError:
        found = Lookout(system_clocks() if _is_time_real() else None)
        LOOKOUT.set(found)
        return found


def _is_time_real() -> bool:
    """Whether trio's clock moves by itself, rather than by a test."""
    clock = trio.lowlevel.current_clock()
    return clock.deadline_to_sleep_time(clock.current_time() + LOOK) < 2 * LOOK


@trio.lowlevel.enable_ki_protection
async def sleep_or_wake(seconds: float) -> bool:
    """Sleep as `trio.sleep` does, or until the computer has slept, if it does so meanwhile.

    Returns:
        Whether it was cut short by that.
    """
    woken = trio.Event()
    look = lookout()
    look.add(woken.set)
    try:
        with trio.move_on_after(seconds):
            await woken.wait()
    finally:
        look.remove(woken.set)
    return woken.is_set()


def system_clocks(system: str = sys.platform) -> Asleep:
    """What tells on this system how long it has slept.

    Where no two clocks tell, the wall clock has to do. There, setting it forward looks like a
    sleep.
    """
    if sys.platform == "win32":  # pragma: no cover - Windows
        return _windows_clocks()
    try:
        running, halting = (getattr(time, name) for name in PAIRS[system])
        time.clock_gettime(running)
    except (KeyError, AttributeError, OSError):  # an old kernel or a sandbox may not have it
        return lambda: time.time() - time.monotonic()
    return lambda: time.clock_gettime(running) - time.clock_gettime(halting)


if sys.platform == "win32":  # pragma: no cover - Windows

    def _windows_clocks() -> Asleep:
        """All of Python's clocks run on in sleep there. This one of the system's does not."""
        import ctypes  # noqa: PLC0415 - no other system needs it

        halting = ctypes.windll.kernel32.QueryUnbiasedInterruptTime
        ticks = ctypes.c_ulonglong()  # of 100 ns

        def asleep() -> float:
            halting(ctypes.byref(ticks))
            return time.perf_counter() - ticks.value / 10_000_000

        return asleep
