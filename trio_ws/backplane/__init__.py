"""Joins the `Broadcast`s of several processes or hosts.

Read `_base` first: it is what every backplane is to a broadcast. `_redis` has everything that knows
Redis. What a broadcast is does not come in here.
"""

from ._base import Backplane, BackplaneError, BackplaneStatistics, Deliver, Gap, HistoryEntry
from ._memory import MemoryBackplane, MemoryHub
from ._redis.backplane import RedisBackplane, RedisOptions

__all__ = [
    "Backplane",
    "BackplaneError",
    "BackplaneStatistics",
    "Deliver",
    "Gap",
    "HistoryEntry",
    "MemoryBackplane",
    "MemoryHub",
    "RedisBackplane",
    "RedisOptions",
]
