"""How much is done before other tasks get a turn, and how long they get.

This module owns the budgets. It knows nothing of connections.

A call that need not wait lets other tasks run about once in a hundred calls. But calls differ: one
compresses a kilobyte, another hands a message to a thousand connections. So what a call does beyond
the ordinary is counted as *work*, in bytes of about 3 ns each, and brings the next turn forward.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import cycle

from trio.lowlevel import checkpoint, checkpoint_if_cancelled

#: How many calls in a row may return without letting other tasks run. One trip through the
#: scheduler costs as much as several messages. This many calls take a tenth of a millisecond, which
#: is the longest that another task waits for them.
CALLS_PER_CHECKPOINT = 128

#: How much work may be done in a row. It takes a third of a millisecond.
WORK_PER_CHECKPOINT = 128 * 1024

#: How much each thing counts. A byte that inflating makes counts as one, and so does a copied byte.
MESSAGE_WORK = WORK_PER_CHECKPOINT // CALLS_PER_CHECKPOINT
FRAME_WORK = 4 * MESSAGE_WORK  # a frame that is not a message by itself
DEFLATE_WORK = 5  # for each byte that is compressed; most take 10 to 15 ns

#: How many bytes that are sent count as one. They are encoded and written in a third of a
#: nanosecond each; over TLS, or masked without NumPy, in one.
SENT_FOR_ONE = 4

#: How many seconds the tasks that read and write get to run once more, before a peer that seems to
#: be silent is given up. If the whole program stood still, its answer may be waiting to be read.
SECOND_LOOK = 0.05


class Pacer:
    """Makes every call a cancellation point, and about every hundredth one a full checkpoint."""

    __slots__ = ("_work_left", "next_checkpoint")

    def __init__(self) -> None:
        calls = [checkpoint_if_cancelled] * (CALLS_PER_CHECKPOINT - 2)
        #: Gives the function that the next call has to call and await before all else. (A counter
        #: would take twice as long.)
        self.next_checkpoint: Callable[[], Callable[[], Awaitable[None]]]
        self.next_checkpoint = cycle([*calls, _last_call, checkpoint]).__next__
        self._work_left = WORK_PER_CHECKPOINT

    def spend(self, work: int) -> None:
        """Count work that was done. When it is too much, the next call lets other tasks run."""
        self._work_left -= work
        if self._work_left <= 0:
            self._work_left = WORK_PER_CHECKPOINT
            while self.next_checkpoint() is not _last_call:
                pass


async def _last_call() -> None:
    """The same as the calls before it. The next one is a full checkpoint."""
    await checkpoint_if_cancelled()


#: One for all connections: a task that goes round a hundred of them must not have a hundred
#: budgets. (Threads with a trio loop each also share it; at worst one of them yields early.)
_pacer = Pacer()
next_checkpoint = _pacer.next_checkpoint
spend = _pacer.spend
