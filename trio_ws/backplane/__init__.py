"""Joins the `Broadcast`s of several processes or hosts.

Read `_base` first: it says what a broadcast expects of a backplane. `_redis` has everything that
knows Redis. Nothing here knows what a broadcast is.
"""

from ._base import (
    Attached,
    Backplane,
    BackplaneError,
    BackplaneMessage,
    BackplaneStatistics,
    Deliver,
    Gap,
    Lost,
    Past,
)
from ._memory import MemoryBackplane, MemoryHub
from ._position import Position
from ._redis.backplane import RedisBackplane, RedisKeywords, RedisOptions

__all__ = [
    "Attached",
    "Backplane",
    "BackplaneError",
    "BackplaneMessage",
    "BackplaneStatistics",
    "Deliver",
    "Gap",
    "Lost",
    "MemoryBackplane",
    "MemoryHub",
    "Past",
    "Position",
    "RedisBackplane",
    "RedisKeywords",
    "RedisOptions",
]
