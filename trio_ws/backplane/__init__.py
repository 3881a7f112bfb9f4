"""Joins the `Broadcast`s of several processes or hosts.

Read `_base` first: it says what a broadcast expects of a backplane. `_redis` has everything that
knows Redis. Nothing here knows what a broadcast is.
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
