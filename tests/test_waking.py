"""`_waking`: a sleep of the computer is noticed within a second; nothing else looks like one."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import Laptop
from trio_ws import _waking
from trio_ws._waking import LOOK, LOOKOUT, SHORTEST_SLEEP, lookout, sleep_or_wake, system_clocks

# ---------------------------------------------------------------------------
# Sleeping, or being woken
# ---------------------------------------------------------------------------


@pytest.mark.autojump
async def test_a_sleep_that_nothing_happens_in_takes_its_time() -> None:
    Laptop()
    start = trio.current_time()
    assert await sleep_or_wake(3600) is False
    assert trio.current_time() - start == 3600


@pytest.mark.autojump
async def test_a_sleep_ends_within_a_second_after_the_computer_woke() -> None:
    laptop = Laptop()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def close_the_lid() -> None:
            await trio.sleep(30.5)
            laptop.sleep(3600)

        assert await sleep_or_wake(60) is True
        assert 30.5 <= trio.current_time() - start <= 30.5 + LOOK


@pytest.mark.autojump
async def test_all_who_sleep_are_woken_and_the_next_sleep_is_a_new_one() -> None:
    laptop = Laptop()
    woken: list[bool] = []

    async def back_off() -> None:
        woken.append(await sleep_or_wake(60))

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(back_off)
            await trio.sleep(10)
            laptop.sleep(60)
            await trio.sleep(2)
            assert woken == [True] * 3
        woken.clear()
    assert await sleep_or_wake(60) is False


@pytest.mark.autojump
@pytest.mark.parametrize("seconds", [0.0, 0.5])
async def test_a_sleep_that_is_over_before_the_next_look_is_not_cut_short(seconds: float) -> None:
    laptop = Laptop()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleep_or_wake, 60)  # it has the clocks looked at
        await trio.testing.wait_all_tasks_blocked()
        laptop.sleep(3600)
        start = trio.current_time()
        assert await sleep_or_wake(seconds) is False
        assert trio.current_time() - start == seconds


@pytest.mark.autojump
async def test_a_cancelled_sleep_leaves_nobody_to_be_told() -> None:
    Laptop()
    with trio.move_on_after(5) as scope:
        await sleep_or_wake(60)
    assert scope.cancelled_caught
    await trio.sleep(2 * LOOK)
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")


@pytest.mark.autojump
async def test_a_sleep_while_nobody_looked_is_none() -> None:
    laptop = Laptop()
    await sleep_or_wake(0.5)
    await trio.sleep(60)
    laptop.sleep(3600)
    assert await sleep_or_wake(60) is False


@pytest.mark.autojump
async def test_small_differences_between_the_clocks_are_no_sleep_however_many() -> None:
    laptop = Laptop()

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def jitter() -> None:
            for _ in range(100):
                await trio.sleep(LOOK)
                laptop.sleep(SHORTEST_SLEEP / 2)
                laptop.sleep(-3600)  # a wall clock that is set back

        assert await sleep_or_wake(100) is False


# ---------------------------------------------------------------------------
# Looking
# ---------------------------------------------------------------------------


async def test_under_a_clock_that_a_test_moves_nobody_looks(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    lookout().add(lambda: None)
    await trio.sleep(3600)
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_on_the_real_clock_one_task_looks_for_all_and_ends_when_nobody_asks() -> None:
    told: list[Any] = [lambda: None for _ in range(100)]
    tasks = trio.lowlevel.current_statistics().tasks_living
    for tell in told:
        lookout().add(tell)
    assert trio.lowlevel.current_statistics().tasks_living == tasks + 1
    for tell in told:
        lookout().remove(tell)
    with trio.fail_after(60):
        while trio.lowlevel.current_statistics().tasks_living > tasks:
            await trio.sleep(LOOK / 10)


async def test_a_look_in_progress_does_not_keep_a_program_from_ending() -> None:
    def run() -> None:
        async def main() -> None:
            lookout().add(lambda: None)

        trio.run(main)

    with trio.fail_after(60):
        await trio.to_thread.run_sync(run)


# ---------------------------------------------------------------------------
# The system's clocks
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("system", [None, "another"], ids=["this one", "one without such clocks"])
def test_while_the_computer_is_awake_nothing_is_noticed(system: str | None) -> None:
    asleep = system_clocks(system) if system else system_clocks()
    before = asleep()
    time.sleep(0.2)
    assert abs(asleep() - before) < 1


def test_where_the_clocks_are_missing_or_forbidden_the_wall_clock_has_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(clock: int) -> float:
        raise OSError("not here")

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(time, "clock_gettime", refuse)
    monkeypatch.setitem(_waking.PAIRS, "one without", ("CLOCK_NONE", "CLOCK_NONE"))
    asleep = [system_clocks(name) for name in ("linux", "another", "one without")]
    before = [each() for each in asleep]
    now += 3600
    for each, first in zip(asleep, before, strict=True):
        assert each() - first == pytest.approx(3600, abs=60)


async def test_a_run_keeps_its_lookout() -> None:
    assert lookout() is lookout() is LOOKOUT.get()
