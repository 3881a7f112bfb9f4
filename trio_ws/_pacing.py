"""How often a call that need not wait lets other tasks run."""

from __future__ import annotations

from collections.abc import Awaitable

from trio.lowlevel import checkpoint, checkpoint_if_cancelled

#: How many calls in a row may return without letting other tasks run. One trip through the
#: scheduler costs as much as several messages; so many calls take a tenth of a millisecond, which
#: is the most that another task then waits for them.
CALLS_PER_CHECKPOINT = 64


class Pacer:
    """Makes every call a cancellation point, and every few dozenth one a full checkpoint."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls = 0

    def checkpoint(self) -> Awaitable[None]:
        """What every call awaits first."""
        self._calls += 1
        if self._calls < CALLS_PER_CHECKPOINT:
            return checkpoint_if_cancelled()  # noqa: ASYNC105 - the caller awaits it
        self._calls = 0
        return checkpoint()  # noqa: ASYNC105

    def restart(self) -> None:
        """The task that runs now has just let the others run."""
        self._calls = 0


#: One for all connections: a task that goes round a hundred of them must not have a hundred
#: budgets. (Threads with a trio loop each share it, too; at worst one of them yields early.)
pacer = Pacer()
