"""How often a call that need not wait lets other tasks run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import cycle

from trio.lowlevel import checkpoint, checkpoint_if_cancelled

#: How many calls in a row may return without letting other tasks run. One trip through the
#: scheduler costs as much as several messages; so many calls take a tenth of a millisecond, which
#: is the most that another task then waits for them.
CALLS_PER_CHECKPOINT = 128


class Pacer:
    """Makes every call a cancellation point, and about every hundredth one a full checkpoint."""

    __slots__ = ("next_checkpoint",)

    def __init__(self) -> None:
        calls = [checkpoint_if_cancelled] * (CALLS_PER_CHECKPOINT - 1)
        #: Gives what the next call is to call and await. (A counter would take twice as long.)
        self.next_checkpoint: Callable[[], Callable[[], Awaitable[None]]]
        self.next_checkpoint = cycle([*calls, checkpoint]).__next__

    def checkpoint(self) -> Awaitable[None]:
        """What every call awaits first."""
        return self.next_checkpoint()()


#: One for all connections: a task that goes round a hundred of them must not have a hundred
#: budgets. (Threads with a trio loop each share it, too; at worst one of them yields early.)
next_checkpoint = Pacer().next_checkpoint
