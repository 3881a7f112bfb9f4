"""`watchdog`: one task, each connection at its time, and none kept alive by being watched."""

from __future__ import annotations

import gc
import weakref
from math import inf

import pytest
import trio
import trio.testing

from trio_ws._connection.watchdog import RELIEF, Watchdog

pytestmark = pytest.mark.autojump


class Watched:
    def __init__(self, *times: float) -> None:
        self.times = list(times)
        self.seen: list[float] = []

    def check(self, now: float) -> float:
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


class Unattended:
    """Wants to be looked at so many times."""

    def __init__(self, watchdog: Watchdog, times: int = 1) -> None:
        self.watchdog = watchdog
        self.times = times
        self.relieved: list[float] = []

    def relieve(self) -> None:
        self.relieved.append(trio.current_time())
        if len(self.relieved) < self.times:
            self.watchdog.relieve_soon(self)


async def test_what_is_unattended_is_looked_at_together_with_what_already_is() -> None:
    async with trio.open_nursery() as nursery:
        watchdog = Watchdog()
        early, late, later = [Unattended(watchdog) for _ in range(3)]
        start = trio.current_time()
        watchdog.relieve_soon(early)  # before it runs
        nursery.start_soon(watchdog.run)
        await trio.sleep(RELIEF / 2)
        watchdog.relieve_soon(late)
        await trio.sleep(RELIEF)
        assert early.relieved == late.relieved == [start + RELIEF]
        watchdog.relieve_soon(later)
        await trio.sleep(100)
        assert later.relieved == [pytest.approx(start + 2.5 * RELIEF)]
        assert len(early.relieved) == len(late.relieved) == 1
        nursery.cancel_scope.cancel()


async def test_what_is_still_unattended_is_looked_at_again_as_much_later() -> None:
    async with trio.open_nursery() as nursery:
        watchdog = Watchdog()
        nursery.start_soon(watchdog.run)
        start = trio.current_time()
        unattended = Unattended(watchdog, times=3)
        watchdog.relieve_soon(unattended)
        await trio.sleep(100)
        assert unattended.relieved == pytest.approx([start + k * RELIEF for k in (1, 2, 3)])
        nursery.cancel_scope.cancel()


async def test_relieving_and_watching_do_not_keep_each_other_waiting() -> None:
    async with trio.open_nursery() as nursery:
        watchdog = Watchdog()
        nursery.start_soon(watchdog.run)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        before, after = start + RELIEF / 4, start + 1
        watched = Watched(before, after)
        unattended = Unattended(watchdog)
        watchdog.watch(watched)
        watchdog.relieve_soon(unattended)
        await trio.sleep(100)
        assert watched.seen == [start, before, after]
        assert unattended.relieved == [start + RELIEF]
        nursery.cancel_scope.cancel()


async def test_what_nobody_asks_for_wakes_nobody() -> None:
    async with trio.open_nursery() as nursery:
        watchdog = Watchdog()
        nursery.start_soon(watchdog.run)
        watchdog.relieve_soon(Unattended(watchdog))
        await trio.sleep(1)
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == inf
        nursery.cancel_scope.cancel()
