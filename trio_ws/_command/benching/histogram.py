"""How often a time was how long, in memory that does not grow.

The idea is that of Gil Tene's HdrHistogram: the width of a bucket grows with what is in it. The
package of that name for Python is compiled, and would be one more dependency for these few lines.
"""

from __future__ import annotations

from math import ceil, nan
from typing import Final, final

#: A time has its bucket by its most significant bits, so many of them: the buckets are at most
#: 1/128 of the time wide.
_BITS: Final = 8
_HALF: Final = 1 << (_BITS - 1)

#: Times are counted in nanoseconds. Longer ones than this, 13 days, count as this.
_LONGEST: Final = (1 << 50) - 1


def _bucket(value: int) -> int:
    shift = max(value.bit_length() - _BITS, 0)
    return shift * _HALF + (value >> shift)


def _highest(bucket: int) -> int:
    """The longest time in a bucket."""
    shift = max(bucket // _HALF - 1, 0)
    return ((bucket - shift * _HALF + 1) << shift) - 1


@final
class Histogram:
    """Times in seconds. What it says of them is at most 1 % too much, and never too little.

    Attributes:
        count: how many there are.
        longest: the longest one, exactly; NaN if there is none.
    """

    def __init__(self) -> None:
        self.count = 0
        self.longest = nan
        self._buckets = [0] * (_bucket(_LONGEST) + 1)

    def record(self, seconds: float) -> None:
        """Add a time. One below 0 counts as 0."""
        nanoseconds = int(seconds * 1e9)
        if nanoseconds < 0:
            nanoseconds = 0
            seconds = 0.0
        elif nanoseconds > _LONGEST:
            nanoseconds = _LONGEST
        self._buckets[_bucket(nanoseconds)] += 1
        self.count += 1
        if not seconds <= self.longest:  # NaN at first
            self.longest = seconds

    def percentile(self, percent: float) -> float:
        """The time within which so many percent of them were over; NaN if there is none."""
        if not self.count:
            return nan
        # Rounded first: 99.9 % of a thousand are 999, whatever binary fractions make of it.
        wanted = max(ceil(round(self.count * percent / 100, 6)), 1)
        bucket, passed = -1, 0
        while passed < wanted:
            bucket += 1
            passed += self._buckets[bucket]
        return min(_highest(bucket) / 1e9, self.longest)
