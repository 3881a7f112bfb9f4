"""What every test gets: loud async generators, and a check that it leaves nothing behind."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator

import pytest


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
