"""What every test gets: loud async generators, and a check that it leaves nothing behind."""

from __future__ import annotations

import functools
import gc
import inspect
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from signal import setitimer  # now: a test takes it away
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import settings

# How long an example takes is the machine's business.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

#: After so many seconds, a test waits for what will not come: several times what any of them takes
#: on a busy machine. Zero is no limit.
LIMIT = 0 if os.environ.get("TRIO_WS_SOAK") == "1" else 240


def pytest_configure(config: pytest.Config) -> None:
    # The proxies of the machine that runs the tests are none of theirs.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    # What ignores SIGINT, as a script's `make test &` does, has all that it starts ignore it, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers", "autojump: the clock jumps over every wait in which nothing else can happen"
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # pytest-trio takes a clock from an argument of the test; for a whole module a mark is shorter.
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = limited(item.obj)
            if item.get_closest_marker("autojump"):
                item.add_marker(pytest.mark.trio(run=run_autojumped), append=False)


def limited(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """A test that fails after `LIMIT`, and shows where each of its tasks waits.

    Not by a deadline of trio's: a clock that jumps would jump to it while a test waits for a thread
    or a process, and some tests look at when trio wakes next.
    """

    @functools.wraps(test)
    async def until_it_takes_too_long(**arguments: Any) -> None:
        soon = trio.lowlevel.current_trio_token().run_sync_soon
        waited: BaseException | None = None
        with trio.CancelScope() as scope, alarm(lambda: soon(scope.cancel), give_up):
            try:
                await test(**arguments)
            except BaseException as exc:
                waited = exc
                raise
        if scope.cancelled_caught:
            raise trio.TooSlowError(f"the test still waits after {LIMIT} s") from waited

    return until_it_takes_too_long


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    with alarm(give_up):
        return (yield)


pytest_runtest_setup = pytest_runtest_teardown = pytest_runtest_call


def give_up() -> None:
    pytest.fail(f"it still runs after {LIMIT} s")


@contextmanager
def alarm(*calls: Callable[[], None]) -> Iterator[None]:
    """Unless this ends before, do the first after `LIMIT`, and each of the others a while later."""
    left = iter(calls)
    before = signal.signal(signal.SIGALRM, lambda *_: next(left, give_up)())
    setitimer(signal.ITIMER_REAL, LIMIT, 10)
    try:
        yield
    finally:
        setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def pytest_collection_finish() -> None:
    """Keep what was imported out of the collection after each test, which is most of its cost."""
    gc.collect()
    gc.freeze()


def run_autojumped(async_fn: Any, *args: Any, **kwargs: Any) -> Any:
    kwargs["clock"] = kwargs.get("clock") or trio.testing.MockClock(autojump_threshold=0)
    return trio.run(async_fn, *args, **kwargs)


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    """Sockets that a test opens are closed when it ends; trio itself sees to the tasks."""
    before = open_descriptors()
    yield
    gc.collect()
    left = {
        name: target
        for name in open_descriptors() - before
        if (target := _target(name)).startswith("socket:")
    }
    assert not left, f"descriptors left open: {left}"


def _target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""
