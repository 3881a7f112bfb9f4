"""A conversation that uses every part of a connection, and a cancellation at any step of it."""

from __future__ import annotations

import trio

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
