"""A backplane with positions that does what a test tells it, when the test tells it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from trio_ws import Message, Position
from trio_ws.backplane import (
    Attached,
    Backplane,
    BackplaneError,
    BackplaneMessage,
    BackplaneStatistics,
    Deliver,
    Gap,
    Lost,
    Past,
)


class StubBackplane(Backplane):
    keeps_positions = True

    def __init__(self) -> None:
        self.published: list[str | bytes | Message] = []
        self.attach_wait = trio.Event()
        self.reads: list[tuple[str, Position | None, int]] = []
        #: What `read` does.
        self.answer: Callable[[Position | None], Awaitable[Past]] = self.fail

    async def run(
        self,
        deliver: Deliver,
        gap: Gap,
        attached: Attached = lambda *_: None,
        lost: Lost = lambda _: None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self._deliver, self._attached, self.lose = deliver, attached, lost
        task_status.started()
        await trio.sleep_forever()

    # What a test tells…

    async def fail(self, after: Position | None) -> Past:
        raise BackplaneError("away")

    def attach(self, topic: str, position: Position) -> None:
        self._attached(topic, position)
        self.attach_wait.set()

    def deliver(self, topic: str, position: Position, token: int | None = None) -> None:
        self._deliver(BackplaneMessage(topic, str(position.offset), True, position, token))

    # What a broadcast calls…

    def publish(self, topic: str, message: Message, *, keep: bool = True) -> int:
        self.published.append(message)
        return len(self.published)

    async def publish_wait(self, topic: str, message: Message, *, keep: bool = True) -> int:
        return self.publish(topic, message, keep=keep)

    async def wait_for_room(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()

    async def flush(self) -> None: ...

    def subscribe(self, topic: str) -> None: ...

    def unsubscribe(self, topic: str) -> None: ...

    async def wait_subscribed(self) -> None: ...

    async def wait_attached(self, topic: str) -> None:
        await self.attach_wait.wait()

    async def read(self, topic: str, after: Position | None, count: int) -> Past:
        self.reads.append((topic, after, count))
        return await self.answer(after)

    def statistics(self) -> BackplaneStatistics:
        # Nothing is told over it that no test has told it.
        return BackplaneStatistics(
            connected=False,
            connections=0,
            queued_messages=0,
            queued_bytes=0,
            published=0,
            sent=0,
            refused=0,
            dropped=0,
            delivered=0,
            duplicates=0,
            malformed=0,
            gaps=0,
        )
