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
            ends as soon as it has begun does not count. `None` for as long as the delay before it.
        jitter: up to which share of each delay is left out at random, so that many processes that
            lost the same peer do not come back at the same moment.
        shortest: what is left of a delay is at least this many seconds.
        at_once: after a success, try again without a delay.
    """

    def __init__(
        self,
        *,
        first: float,
        longest: float,
        steady: float | None,
        jitter: float = 0.0,
        shortest: float = 0.0,
        at_once: bool = False,
    ) -> None:
        self._first = first
        self._longest = longest
        self._steady = steady
        self._jitter = jitter
        self._shortest = shortest
        self._at_once = at_once
        self._next = min(first, longest)
        self._last = shortest

    def has_held(self, lasted: float) -> bool:
        """Whether what held for `lasted` seconds was a success."""
        return lasted >= (self._last if self._steady is None else self._steady)

    def delay(self, lasted: float, *, least: float = 0.0) -> float:
        """Seconds to wait, after something that held for `lasted` seconds (-inf: never).

        Args:
            lasted: how long it held.
            least: the peer asks for so many seconds. The delay comes on top, because others were
                told the same.
        """
        if self.has_held(lasted):
            self._next = min(self._first, self._longest)
            if self._at_once:
                return 0.0
        shortest = max(self._shortest, self._next * (1 - self._jitter))
        self._last = least + random.uniform(shortest, self._next)  # noqa: S311 - no secret
        self._next = min(2 * self._next, self._longest)
        return self._last
