"""Token buckets: so many in a second, and after a quiet time one second's worth at once.

This module owns the arithmetic. It knows neither what is counted nor whose it is, and no clock: the
caller says what time it is.

A bucket holds what comes in one second, and at least one token: with 0.1 a second, one may be taken
at once, and another ten seconds later. It begins full. It is kept as a single number, the time when
it will be full again if nothing more is taken.
"""

from __future__ import annotations

from typing import final

#: Times are floating-point numbers. What lacks less than this many seconds lacks nothing, or a peer
#: that keeps to its rate exactly would be too fast by a rounding error.
ROUNDING = 1e-6


@final
class Bucket:
    """See the module. `rate` is how many tokens come in a second; with `math.inf` it is bottomless.

    Attributes:
        full_at: when it is full again.
        seconds_each: how long a token takes to come.
        depth: how many seconds it takes to fill it when it is empty.
    """

    __slots__ = ("depth", "full_at", "seconds_each")

    def __init__(self, rate: float, now: float) -> None:
        self.seconds_each = 1 / rate
        self.depth = max(1.0, self.seconds_each)
        self.full_at = now

    def missing(self, count: float, now: float) -> float:
        """In how many seconds so many tokens will have come, whether it can hold them or not.

        0 if they are there.
        """
        seconds = max(self.full_at, now) + count * self.seconds_each - self.depth - now
        return seconds if seconds > ROUNDING else 0.0

    def take(self, count: float, now: float) -> None:
        """Take so many tokens. Those that are missing are owed, and taken as they come."""
        self.full_at = max(self.full_at, now) + count * self.seconds_each
