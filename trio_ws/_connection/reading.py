"""Who reads a connection: a task that waits in `receive`, or else the reader task.

The rule: a task that waits for the next message waits for the socket itself, for as long as it
takes, and the reader task stands by. The reader task reads only while no task is in `receive`.

This saves a switch between two tasks for each message, a fifth of what a message costs where
thousands of connections say a little. It is for plain sockets: only there is it certain that a
cancelled read loses nothing.

========  =======================  ==============================================================
reads     who waits for the peer   what ends it
========  =======================  ==============================================================
READER    the reader task          it handed a message to a task that waited for one: NOBODY
NOBODY    no task                  a task asks for the next message: RECEIVER
                                   a task waits for anything else, or time is up: READER
RECEIVER  a task in `receive`      it read messages and nothing else: NOBODY
                                   it read anything else, failed or was cancelled: READER
========  =======================  ==============================================================

While NOBODY reads, a task has just taken a message and will mostly come back for the next. If it
has not after a few milliseconds, the watchdog recalls the reader task. So a ping is answered, and
the end of the connection seen, within twice `RELIEF` whatever the application is busy with, and
forgetting to recall the reader task can delay a thing and never stop it.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import TypeVar, final

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task

from .._transport.stream import Transport

T = TypeVar("T")

#: Before a task waits for the socket it may look once, a turn of the scheduler later, whether
#: something is there already. A look costs less than waiting does, where it finds something, and is
#: lost where it does not. So after a look in vain the next waits begin at once: this many at first,
#: after each further one twice as many, up to a limit.
FIRST_PAUSE = 3
LONGEST_PAUSE = 63


class Reads(enum.Enum):
    """Who waits for what the peer sends."""

    READER = "the reader task"
    NOBODY = "no task"
    RECEIVER = "a task in receive"


NOBODY, RECEIVER = Reads.NOBODY, Reads.RECEIVER  # asked for with every message


@final
class Reading:
    """Who reads one connection; see the module.

    Args:
        relieve_soon: has `relieve` called after a few milliseconds.
    """

    __slots__ = (
        "_is_fresh",
        "_is_watched",
        "_news",
        "_pause",
        "_reader",
        "_relieve_soon",
        "_skip",
        "reads",
    )

    def __init__(self, relieve_soon: Callable[[Reading], None]) -> None:
        self._relieve_soon = relieve_soon
        self.reads = Reads.READER
        #: The reader task, while it stands by.
        self._reader: Task | None = None
        #: What it has to deal with when it is recalled.
        self._news: bytes | Exception | None = None
        #: How many waits still begin without a look, and how many did after the last vain one.
        self._skip = self._pause = FIRST_PAUSE
        #: Whether `relieve` will be called, and whether a task took a message since it last was.
        self._is_watched = self._is_fresh = False

    # The reader task's side…

    async def stand_by(self) -> bytes | None:
        """Let others read until it takes the reader task to do it.

        Returns:
            What came and is left to the reader task; ``b""`` is the end of file. `None`: nothing.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: what reading raised.
        """
        self._reader = trio.lowlevel.current_task()
        self._rest()
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        news, self._news = self._news, None
        if isinstance(news, Exception):
            try:
                raise news
            finally:
                del news  # it would keep this frame, and the frame it
        return news

    def _abort(self, raise_cancel: RaiseCancelT) -> Abort:
        # The reader task ends, and closes the socket: that also ends the wait of a receiver.
        self.reads = Reads.READER
        return Abort.SUCCEEDED

    # The receivers' side…

    async def receive(self, transport: Transport) -> bytes | None:
        """Read, where `NOBODY` does: the next bytes, or `None` where the reader task reads again.

        Whoever gets bytes deals with them, or recalls the reader task with what is left of them.
        Cancelling loses nothing.
        """
        self.reads = RECEIVER
        data: bytes | None = None
        failure: Exception | None = None
        try:
            if self._skip:
                self._skip -= 1
            else:
                data = await self._look(transport)
            if data is None:
                data = await transport.receive()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            failure = exc
        finally:
            if self.reads is not RECEIVER:
                data = None  # the reader task has ended, and nobody is to get anything any more
            else:
                self._rest()
                if data is None:
                    self.recall(failure)
            failure = None  # it would keep this frame, and the frame it
        return data

    async def _look(self, transport: Transport) -> bytes | None:
        await trio.lowlevel.checkpoint()
        data = transport.receive_nowait()
        self._pause = 0 if data is not None else min(2 * self._pause + 1, LONGEST_PAUSE)
        self._skip = self._pause
        return data

    # Everybody's side…

    def recall(self, news: bytes | Exception | None = None) -> None:
        """Have the reader task read again, beginning with `news`, if `NOBODY` reads."""
        if self.reads is NOBODY:
            assert self._reader is not None
            self.reads = Reads.READER
            self._news = news
            trio.lowlevel.reschedule(self._reader)
            self._reader = None

    async def wait_for(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Wait for anything but the next message: a pong, room, a piece of a message, the end.

        This is the one door for it, so that the reader task is there to bring it about.
        """
        self.recall()
        return await wait()

    # The watchdog's side…

    def _rest(self) -> None:
        self.reads = NOBODY
        self._is_fresh = True
        if not self._is_watched:
            self._is_watched = True
            self._relieve_soon(self)

    def relieve(self) -> None:
        """Recall the reader task if no task has come back to read."""
        self._is_watched = False
        if self.reads is NOBODY:
            if self._is_fresh:
                self._is_fresh = False
                self._is_watched = True
                self._relieve_soon(self)
            else:
                self.recall()
