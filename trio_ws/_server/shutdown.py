"""The end of a server: whether it has begun, why, and which waits it cuts short.

This module owns that one mechanism. `server` decides in what order a server then ends, and `visit`
what to tell a client whose wait was cut short.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import final

import trio

from .._errors import CloseCode


@final
class Shutdown:
    """Begins once, and cuts short what waits for clients at that moment.

    Attributes:
        close: the code and reason of the Close frames that it sends.
        failures: what comes out of the server in the end, at most one. A list, so that whoever
            raises it can let go of it.
    """

    def __init__(self) -> None:
        self.close: tuple[int, str] = (int(CloseCode.GOING_AWAY), "")
        self.failures: list[BaseException] = []
        self._begun = trio.Event()
        self._waits: dict[trio.CancelScope, None] = {}

    @property
    def has_begun(self) -> bool:
        return self._begun.is_set()

    async def wait_begun(self) -> None:
        """Wait until it begins."""
        await self._begun.wait()

    def begin(self, code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Let the server end. Does nothing when it is ending already."""
        if not self._begun.is_set():
            self.close = (int(code), reason)
            self._begun.set()
            for wait in self._waits:
                wait.cancel()

    def fail(self, exc: BaseException) -> None:
        """Let the server end, and then raise `exc`, unless something else is raised already."""
        if not self.failures:
            self.failures.append(exc)
        self.begin()

    @contextmanager
    def cutting_short(self, deadline: float) -> Generator[trio.CancelScope, None, None]:
        """Wait within the block, until `deadline` at most, or until the shutdown begins.

        The scope says whether the block was cut short. A block that is entered after the shutdown
        began has only its deadline: this is how the client is told.
        """
        with trio.CancelScope(deadline=deadline) as scope:
            self._waits[scope] = None
            try:
                yield scope
            finally:
                del self._waits[scope]
