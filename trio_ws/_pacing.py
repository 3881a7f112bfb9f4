"""How often a call that need not wait lets other tasks run."""

from __future__ import annotations

import trio

#: How many calls in a row may return without letting other tasks run. One trip through the
#: scheduler costs as much as several messages; a few dozen calls take a few hundred microseconds,
#: which is the most that another task then waits for them.
CALLS_PER_CHECKPOINT = 32


class Pacer:
    """Makes every call a cancellation point, and every few dozenth one a full checkpoint."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls = 0

    async def checkpoint(self) -> None:
        self._calls += 1
        if self._calls < CALLS_PER_CHECKPOINT:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._calls = 0
            await trio.lowlevel.checkpoint()


#: One for all connections: a task that goes round a hundred of them must not have a hundred
#: budgets. (Threads with a trio loop each share it, too; at worst one of them yields early.)
pacer = Pacer()
