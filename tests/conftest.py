"""What every test gets: loud async generators, and a check that it leaves nothing behind."""

from __future__ import annotations

import gc
import inspect
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import settings

# How long an example takes is the machine's business.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


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
        is_async = inspect.iscoroutinefunction(getattr(item, "obj", None))
        if is_async and item.get_closest_marker("autojump"):
            item.add_marker(pytest.mark.trio(run=run_autojumped), append=False)


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
