"""Tests of compression run with each engine that can do it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.protocol.deflate_helpers import ENGINES, only


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """What compresses meanwhile."""
    with only(request.param):
        yield request.param
