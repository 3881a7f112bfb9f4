"""A conversation that uses every part of a connection, and a cancellation at any step of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
import trio.testing

from tests.conftest import open_descriptors
from tests.helpers import PATIENCE
from trio_ws import WebSocket


async def converse(ws: WebSocket) -> None:
    await ws.send("text" * 100)
    assert await ws.receive() == "text" * 100
    async with ws.open_message("binary") as writer:
        await writer.send(b"a")
        await writer.send(b"b")
    async with ws.receive_message() as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"ab"  # type: ignore[misc]
    await ws.ping()
    await ws.aclose(4000, "done")


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope at the k-th step of the task that entered it."""

    def __init__(self, scope: trio.CancelScope, task: trio.lowlevel.Task, step: int) -> None:
        self.scope = scope
        self.task = task
        self.steps_left = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps_left -= 1
            if self.steps_left == 0:
                self.scope.cancel()


class CancelAtAnyStep(trio.abc.Instrument):
    """Cancels a scope at the k-th step from now on, whichever task takes it."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.steps_left = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps_left -= 1
        if self.steps_left == 0:
            self.scope.cancel()


async def nothing_left(tasks: int, descriptors: int) -> None:
    """Wait until there are no more of both than that."""
    with trio.fail_after(PATIENCE):
        while (
            trio.lowlevel.current_statistics().tasks_living > tasks
            or len(open_descriptors()) > descriptors
        ):
            await trio.sleep(0.001)


async def sweep(run: Callable[[], Awaitable[None]]) -> int:
    """Cancel `run` at every scheduling step, one by one; say how many there are."""
    await trio.testing.wait_all_tasks_blocked(0.05)
    tasks = trio.lowlevel.current_statistics().tasks_living
    descriptors = len(open_descriptors())
    for step in range(1, 500):
        with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
            instrument = CancelAtAnyStep(scope, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                await run()
            finally:
                trio.lowlevel.remove_instrument(instrument)
        await nothing_left(tasks, descriptors)
        if instrument.steps_left > 0:
            return step
    raise AssertionError("it never got through")
