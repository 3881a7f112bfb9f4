"""One call for all who need its answer at the same moment.

This module knows nothing of what is called.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class _Batch(Generic[T]):
    """Those who wait for one call."""

    def __init__(self) -> None:
        self.is_over = trio.Event()
        self.answers: list[T] = []


class Shared(Generic[T]):
    """Calls a function for all who wait. Whoever comes while it runs shares the next call.

    Args:
        nursery: where it runs. A task that waits may be cancelled, and the call goes on.
        function: raises nothing.
    """

    def __init__(self, nursery: trio.Nursery, function: Callable[[], Awaitable[T]]) -> None:
        self._nursery = nursery
        self._function = function
        self._next: _Batch[T] | None = None
        self._is_running = False

    async def get(self) -> T | None:
        """The answer of a call that begins from now on; `None` if the nursery ended before it."""
        batch = self._next
        if batch is None:
            batch = self._next = _Batch[T]()
            if not self._is_running:
                self._is_running = True
                self._nursery.start_soon(self._run)
        await batch.is_over.wait()
        return batch.answers[0] if batch.answers else None

    async def _run(self) -> None:
        batch: _Batch[T] | None = None
        try:
            while self._next is not None:
                batch, self._next = self._next, None
                batch.answers.append(await self._function())
                batch.is_over.set()
        finally:
            self._is_running = False
            for each in (batch, self._next):
                if each is not None:
                    each.is_over.set()
