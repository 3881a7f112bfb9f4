"""`_watchdog`: one task, each connection at its time, and none kept alive by being watched."""

from __future__ import annotations

import gc
import weakref
from math import inf

import pytest
import trio

from trio_ws._watchdog import Watchdog

pytestmark = pytest.mark.autojump


class Watched:
    def __init__(self, *times: float) -> None:
        self.times = list(times)
        self.seen: list[float] = []

    def _check(self, now: float) -> float:
        self.seen.append(now)
        return self.times.pop(0) if self.times else inf


async def test_each_is_looked_at_when_it_asked_to_be() -> None:
    async with trio.open_nursery() as nursery:
        watchdog = Watchdog()
        nursery.start_soon(watchdog.run)
        start = trio.current_time()
        late, early = Watched(start + 10, start + 20), Watched(start + 5, start + 5)
        watchdog.watch(late)
        await trio.sleep(1)
        watchdog.watch(early)  # before the time for which the task is asleep
        await trio.sleep(100)
        assert late.seen == [start, start + 10, start + 20]
        assert early.seen == [start + 1, start + 5, start + 5]
        nursery.cancel_scope.cancel()


async def test_the_places_of_what_is_over_are_given_back() -> None:
    watchdog = Watchdog()
    kept = [Watched(1e9) for _ in range(10)]
    for watched in kept:
        watchdog.watch(watched)
    for _ in range(1000):
        watchdog.watch(Watched(1e9))
    assert len(watchdog) <= 64


async def test_what_is_over_is_not_kept_by_being_watched() -> None:
    async with trio.open_nursery() as nursery:
        watchdog = Watchdog()
        nursery.start_soon(watchdog.run)
        watched = Watched(trio.current_time() + 10)
        reference = weakref.ref(watched)
        watchdog.watch(watched)
        del watched
        gc.collect()
        assert reference() is None
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
