"""Fixtures for more than one file of this folder."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.whole.server_process import Server, server_process


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with server_process() as running:
        yield running


@pytest.fixture
def the_collector_is_off() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()
