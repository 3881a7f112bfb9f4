"""Who reads a connection: a task that waits in `receive`, or else the reader task.

The rule: a task that waits for the next message waits for the socket itself, for as long as it
takes, and the reader task stands by. The reader task reads only while no task is in `receive`.

There need not be a reader task. It is started when it first has to read, and let go when it has
stood by for a while. A task takes 3 KiB, and a quarter of what the garbage collector looks through
for a connection is its. Most connections have none until they end.

This saves a switch between two tasks for each message, a fifth of what a message costs where
thousands of connections say a little. It is for transports that are direct, sockets with or without
TLS: only there is it certain that a cancelled read loses nothing.

========  =======================  ==============================================================
reads     who waits for the peer   what ends it
========  =======================  ==============================================================
READER    the reader task          it handed a message to a task that waited for one: NOBODY
NOBODY    no task                  a task asks for the next message: RECEIVER
                                   a task waits for anything else, or time is up: READER
RECEIVER  a task in `receive`      it read only messages, or a ping and a pong, and no other task
                                   waits: NOBODY
                                   it read anything else, failed or was cancelled: READER
                                   another task waits: READER
                                   the connection begins to end: READER
========  =======================  ==============================================================

A connection begins with NOBODY, unless only the reader task can read it.

While NOBODY reads, a task has just taken a message and will mostly come back for the next. If it
has not after a few milliseconds, and has had its turn, the watchdog recalls the reader task. So a
ping is answered, and the end of the connection seen, within twice `watchdog.RELIEF` whatever the
application is busy with, and forgetting to recall the reader task can delay a thing and never stop
it.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import TypeVar, final

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task

from .._transport.stream import Transport
from .._transport.system import GONE
from .outbox import ConnectionTask, StartTask
from .watchdog import Watchdog

T = TypeVar("T")

#: Before a task waits for the socket it may look once, a turn of the scheduler later, whether
#: something is there already. A look costs less than waiting does, where it finds something, and is
#: lost where it does not. So after the second look in vain in a row, the next wait begins at once;
#: after the third, the next three waits; then 7, 15, 31 and at most `LONGEST_PAUSE`. A connection
#: begins with `FIRST_PAUSE` of them.
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
        transport: what is read. Only one that `is_direct` may be left to receivers.
        watchdog: recalls the reader task where no task comes back.
        start_task: starts the reader task.
    """

    __slots__ = (
        "_news",
        "_pause",
        "_reader",
        "_resumed",
        "_run",
        "_skip",
        "_start_task",
        "_transport",
        "_watchdog",
        "reads",
    )

    def __init__(self, transport: Transport, watchdog: Watchdog, start_task: StartTask) -> None:
        self._transport = transport
        self._watchdog = watchdog
        self._start_task = start_task
        self.reads = Reads.READER
        #: The function of the reader task, from when the connection begins until it is over.
        self._run: ConnectionTask | None = None
        #: The reader task, when it has stood by and is to go on.
        self._resumed: Task | None = None
        #: The reader task, while it stands by.
        self._reader: Task | None = None
        #: What it has to deal with when it reads again.
        self._news: bytes | Exception | None = None
        #: How many waits still begin without a look, and how many will after the next vain one.
        self._skip = self._pause = FIRST_PAUSE

    # The reader task's side…

    def begin(self, run: ConnectionTask, received: bytes) -> None:
        """The connection is open. `run` is the reader task's, which has to take in `received`."""
        self._run = run
        if received or not self._transport.is_direct:
            self._resume(received or None)
        else:
            self.leave(trio.current_time())

    def end(self) -> None:
        """The connection is over. `run` is a method of what has this, and would make a cycle."""
        self._run = None

    async def stand_by(self) -> bool:
        """Let others read until it takes the reader task to do it; false where that is let go."""
        task = self._reader = trio.lowlevel.current_task()
        self.leave(trio.current_time())
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        # One that is let go may find another reader task started meanwhile.
        resumed = self._resumed is task
        if resumed:
            self._resumed = None
        return resumed

    def take_news(self) -> bytes | None:
        """What came and is left to the reader task, as it begins to read: `None` for nothing.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: what reading raised.
        """
        news, self._news = self._news, None
        if isinstance(news, Exception):
            try:
                raise news
            finally:
                del news  # it would keep this frame, and the frame it
        return news

    def _abort(self, raise_cancel: RaiseCancelT) -> Abort:
        # The reader task ends, and closes the socket: that also ends the wait of a receiver.
        self._watchdog.attend(self)
        self.reads = Reads.READER
        self._reader = None
        return Abort.SUCCEEDED

    def _resume(self, news: bytes | Exception | None) -> None:
        self.reads = Reads.READER
        self._news = news
        if self._reader is None:
            assert self._run is not None
            self._start_task(self._run)
        else:
            trio.lowlevel.reschedule(self._reader)
            self._reader, self._resumed = None, self._reader

    def let_go(self) -> None:
        """End the reader task, if it stands by."""
        if self._reader is not None:
            trio.lowlevel.reschedule(self._reader)
            self._reader = None

    # The receivers' side…

    async def receive(self) -> bytes | None:
        """Read, where `NOBODY` does: the next bytes, or `None` where the reader task reads again.

        A task that gets bytes calls `leave` or `hand_back` next. Cancelling loses nothing.
        """
        self._watchdog.attend(self)
        self.reads = RECEIVER
        transport = self._transport
        data: bytes | None = None
        failure: Exception | None = None
        try:
            if self._skip:
                self._skip -= 1
            else:
                await trio.lowlevel.checkpoint()
                if self.reads is RECEIVER:
                    data = transport.receive_nowait()
                    self._note_look(found=data is not None)
            # After each wait the reader task may be the one to read. It must find all there is.
            while data is None and self.reads is RECEIVER:
                await transport.wait_until_readable()
                if self.reads is RECEIVER:
                    data = transport.receive_nowait()
        except GONE as exc:
            failure = exc
        finally:
            if data is None and self.reads is RECEIVER:
                self._resume(failure)
            failure = None  # it would keep this frame, and the frame it
        return data

    def _note_look(self, *, found: bool) -> None:
        self._skip = 0 if found else self._pause
        self._pause = 0 if found else min(2 * self._pause + 1, LONGEST_PAUSE)

    def leave(self, now: float) -> None:
        """What came has been dealt with: the task that read it may come back for more."""
        self.reads = NOBODY
        self._watchdog.leave(self, now)

    def hand_back(self, news: bytes | None = None) -> None:
        """Have the reader task read again, beginning with what came and is for it."""
        self._resume(news)

    # Everybody's side…

    def recall(self) -> None:
        """Have the reader task read again, if `NOBODY` reads."""
        if self.reads is NOBODY:
            self._watchdog.attend(self)
            self._resume(None)

    def reclaim(self) -> None:
        """Have the reader task read again, whoever reads now: the connection begins to end.

        A task that waits in `receive` has to learn of the end when it is known. It cannot while it
        waits for the socket, where a peer that says nothing would keep it until the last.
        """
        if self.reads is RECEIVER:
            self._resume(None)
            self._transport.end_waits()
        else:
            self.recall()

    async def wait_for(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Wait for anything but the next message: a pong, room, a piece of a message, the end.

        This is the one door for it, so that the reader task is there to bring it about.
        """
        self.recall()
        return await wait()
