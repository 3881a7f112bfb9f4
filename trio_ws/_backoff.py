"""How long to wait before the next try. This module knows no clock, and not what is tried."""

from __future__ import annotations

import random
from typing import final


@final
class Backoff:
    """Delays between tries: each is twice the one before it.

    Args:
        first, longest: the first delay and the longest, in seconds.
        steady: what held for this many seconds was a success, and the delays begin anew. One that
            ends as soon as it has begun does not count.
        jitter: up to which share of each delay is left out at random, so that many processes that
            lost the same peer do not come back at the same moment.
        at_once: after a success, try again without a delay.
    """

    def __init__(
        self,
        *,
        first: float,
        longest: float,
        steady: float,
        jitter: float = 0.0,
        at_once: bool = False,
    ) -> None:
        self._first = first
        self._longest = longest
        self._steady = steady
        self._jitter = jitter
        self._at_once = at_once
        self._next = first

    def delay(self, lasted: float) -> float:
        """Seconds to wait, after something that held for `lasted` seconds (-inf: never)."""
        if lasted >= self._steady:
            self._next = self._first
            if self._at_once:
                return 0.0
        delay = self._next * random.uniform(1 - self._jitter, 1)  # noqa: S311 - no secret
        self._next = min(2 * self._next, self._longest)
        return delay
