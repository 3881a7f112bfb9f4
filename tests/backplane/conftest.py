"""A Redis server of its own for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.backplane.redis_server import RedisServer, run_redis


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncGenerator[RedisServer, None]:
    async with run_redis(tmp_path) as server:
        yield server
