"""`watchdog`: one task looks at each connection at its time, and keeps none alive."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise
from math import inf

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.helpers import Laptop
from trio_ws._connection.watchdog import CHECKS_PER_TURN, RELIEF, Watchdog
from trio_ws._waking import LOOK

pytestmark = pytest.mark.autojump


class Watched:
    def __init__(self, *times: float) -> None:
        self.times = list(times)
        self.seen: list[float] = []
        self.woken: list[float] = []

    def wake(self, now: float) -> None:
        self.woken.append(now)

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


class Left:
    """What nobody reads, until it is recalled."""

    def __init__(self, watchdog: Watchdog) -> None:
        self.watchdog = watchdog
        self.recalled: list[float] = []

    def leave(self) -> None:
        self.watchdog.leave(self, trio.current_time())

    def recall(self) -> None:
        self.watchdog.attend(self)
        self.recalled.append(trio.current_time())


@asynccontextmanager
async def running() -> AsyncGenerator[Watchdog, None]:
    async with trio.open_nursery() as nursery:
        watchdog = Watchdog()
        nursery.start_soon(watchdog.run)
        await trio.testing.wait_all_tasks_blocked()
        yield watchdog
        nursery.cancel_scope.cancel()


async def test_what_nobody_reads_is_recalled_within_twice_the_time() -> None:
    async with running() as watchdog:
        start = trio.current_time()
        left = [Left(watchdog) for _ in range(4)]
        for one in left:
            one.leave()
            await trio.sleep(RELIEF / 2)
        await trio.sleep(100)
        for number, one in enumerate(left):
            (recalled,) = one.recalled
            took = recalled - (start + number * RELIEF / 2)
            assert RELIEF <= took <= 2 * RELIEF + 1e-9  # what floats leave


async def test_what_is_left_before_the_watchdog_runs_is_recalled_as_well() -> None:
    watchdog = Watchdog()
    left = Left(watchdog)
    left.leave()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watchdog.run)
        await trio.sleep(3 * RELIEF)
        nursery.cancel_scope.cancel()
    assert len(left.recalled) == 1


async def test_what_is_read_again_in_time_is_not_recalled() -> None:
    async with running() as watchdog:
        left = Left(watchdog)
        for _ in range(10):
            left.leave()
            await trio.sleep(RELIEF / 2)
            watchdog.attend(left)
            watchdog.attend(left)  # which costs nothing and means nothing
            await trio.sleep(RELIEF)
        await trio.sleep(100)
        assert left.recalled == []


async def test_as_long_as_what_is_left_is_attended_to_in_time_the_watchdog_sleeps() -> None:
    async with running() as watchdog:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        for _ in range(40):
            one = Left(watchdog)
            one.leave()
            clock.jump(RELIEF / 4)
            watchdog.attend(one)
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            assert trio.lowlevel.current_statistics().seconds_to_next_deadline > 0
            assert trio.lowlevel.current_statistics().tasks_runnable == 0


async def test_what_is_forgotten_is_recalled_however_often_others_are_left() -> None:
    async with running() as watchdog:
        forgotten, other = Left(watchdog), Left(watchdog)
        start = trio.current_time()
        forgotten.leave()
        while not forgotten.recalled:
            await trio.sleep(RELIEF / 4)
            other.leave()
            watchdog.attend(other)
        (recalled,) = forgotten.recalled
        assert RELIEF <= recalled - start <= 2 * RELIEF


async def test_tasks_that_are_ready_take_their_turn_before_anything_is_recalled() -> None:
    async with running() as watchdog, trio.open_nursery() as nursery:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        left = [Left(watchdog) for _ in range(100)]
        turns = 0

        async def take_turn(one: Left) -> None:
            nonlocal turns
            turns += 1
            watchdog.attend(one)

        for one in left:
            one.leave()
            nursery.start_soon(take_turn, one)
        clock.jump(3 * RELIEF)  # a turn of the scheduler that takes long
        await trio.sleep(100)
        assert turns == 100
        assert [one.recalled for one in left] == [[]] * 100


async def test_what_nobody_reads_and_what_is_watched_do_not_keep_each_other_waiting() -> None:
    async with running() as watchdog:
        start = trio.current_time()
        before, after = start + RELIEF / 4, start + 1
        watched, left = Watched(before, after), Left(watchdog)
        watchdog.watch(watched)
        left.leave()
        await trio.sleep(100)
        assert watched.seen == [start, before, after]
        assert left.recalled == [start + 2 * RELIEF]


async def test_what_nobody_asks_for_wakes_nobody() -> None:
    async with running() as watchdog:
        Left(watchdog).leave()
        await trio.sleep(1)
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == inf


# After a sleep of this computer…


async def test_after_a_sleep_each_is_woken_and_looked_at_once() -> None:
    laptop = Laptop()
    async with running() as watchdog:
        start = trio.current_time()
        watched = [Watched(start + 100, start + 200) for _ in range(3)]
        for one in watched:
            watchdog.watch(one)
        await trio.sleep(10)
        laptop.sleep(3600)
        await trio.sleep(2)
        for one in watched:
            assert one.seen == [start, *one.woken]
            assert len(one.woken) == 1
        assert len(watchdog) == 3
        await trio.sleep(300)
        for one in watched:
            assert one.seen == [start, *one.woken, start + 200]


async def test_thousands_are_woken_a_few_in_each_turn_also_if_there_is_another_sleep() -> None:
    laptop = Laptop()
    async with running() as watchdog:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        watched = [Watched(1e9, 1e9, 1e9) for _ in range(1000)]
        for one in watched:
            watchdog.watch(one)
        del one
        watched.pop()  # it is over, and nobody is to look at it
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            laptop.sleep(3600)
            clock.jump(LOOK)
            woken = [sum(len(one.woken) for one in watched)]
            for _ in range(20):
                await trio.lowlevel.checkpoint()
                woken.append(sum(len(one.woken) for one in watched))
            steps = [after - before for before, after in pairwise(woken)]
            # Of two tasks, one may run as the last of a round and as the first of the next.
            assert 0 < max(steps) <= 2 * CHECKS_PER_TURN
        await trio.sleep(5)
        assert {len(one.woken) for one in watched} == {1, 2}
        assert len(watchdog) == len(watched)


async def test_nobody_looks_while_nothing_is_watched() -> None:
    laptop = Laptop()
    async with running() as watchdog:
        one = Watched(trio.current_time() + 10)
        watchdog.watch(one)
        await trio.sleep(20)
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == inf
        watchdog.watch(again := Watched(1e9, 1e9))
        laptop.sleep(3600)
        await trio.sleep(2)
        assert (one.woken, len(again.woken)) == ([], 1)
    await trio.sleep(2)
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline == inf
