"""Waking up on time. Without help, trio may wake up to a millisecond late.

On Linux, trio waits in ``epoll``, whose timeout is in whole milliseconds. That is more than many a
server takes to answer, and latency counts from the time at which a message was due. So a timer of
the system's sends this process a signal when the next message is due. A signal wakes trio, which
then looks at its clock. Where there are no such signals, as on Windows, trio wakes as it can; the
report says how late messages were.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

#: The timer counts in whole microseconds and may cut off the rest. To be early by that much would
#: cost a millisecond: trio would wait once more.
_MICROSECOND: Final = 1e-6


@contextmanager
def open_alarm() -> Generator[Callable[[float], object], None, None]:
    """A function that has this process wake up in so many seconds. The last call counts.

    It takes the process's SIGALRM and its real-time timer, and belongs into the main thread.
    """
    if not hasattr(signal, "setitimer"):
        yield lambda _: None
        return
    before = signal.signal(signal.SIGALRM, _do_nothing)
    try:
        yield _wake_after
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """A signal without a handler would end the process."""


def _wake_after(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds + _MICROSECOND)
