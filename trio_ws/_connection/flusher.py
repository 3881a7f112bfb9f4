"""One task that writes what many connections have begun to gather.

An outbox may hold back a frame because its sender will probably send more at once. If the sender
waits for something else instead, this task writes the frame. It becomes ready to run when an outbox
begins to gather, so it runs when the sender lets other tasks run.
"""

from __future__ import annotations

from typing import Protocol

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task


class Gathering(Protocol):
    """Anything that can be flushed."""

    def flush(self) -> None:
        """Write what was gathered, unless it has been written. It never waits and never fails."""
        ...


class Flusher:
    """Start `run` in a nursery; it goes on until it is cancelled."""

    __slots__ = ("_due", "_task")

    def __init__(self) -> None:
        self._due: list[Gathering] = []
        #: The task, while it has nothing to do.
        self._task: Task | None = None

    def flush_soon(self, gathering: Gathering) -> None:
        """Flush `gathering` as soon as the running task waits for anything."""
        self._due.append(gathering)
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        while True:
            due, self._due = self._due, []
            for gathering in due:
                gathering.flush()
            if not self._due:
                self._task = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, raise_cancel: RaiseCancelT) -> Abort:
        self._task = None
        return Abort.SUCCEEDED
