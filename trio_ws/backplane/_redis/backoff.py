"""How long to wait before the next try. This module knows no clock and no broker."""

from __future__ import annotations

import random

#: Seconds before the first new try, and at most before any.
FIRST_DELAY = 0.05
LAST_DELAY = 2.0

#: A connection that held for this many seconds was a good one, and the next delay is the first
#: again. One that is dropped as soon as it is made, as Redis drops the slow, does not count.
STEADY = 2.0


class Backoff:
    """Twice as long each time, less up to a half at random, lest many processes come at once."""

    def __init__(self) -> None:
        self._longest = FIRST_DELAY

    def delay(self, lasted: float) -> float:
        """Seconds to wait, after a connection that held for `lasted` seconds."""
        if lasted >= STEADY:
            self._longest = FIRST_DELAY
        delay = self._longest * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._longest = min(2 * self._longest, LAST_DELAY)
        return delay
