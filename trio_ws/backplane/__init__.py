"""Joins the `Broadcast`s of several processes or hosts."""

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
