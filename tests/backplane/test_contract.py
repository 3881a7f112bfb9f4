"""The check of the contract finds what it is there to find."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from trio_ws.backplane import (
    Backplane,
    BackplaneMessage,
    BackplaneStatistics,
    MemoryBackplane,
    MemoryHub,
    Past,
    Position,
)
from trio_ws.testing import check_backplane

pytestmark = pytest.mark.autojump


class Wrapped(Backplane):
    """A memory backplane, of which a test makes one thing wrong."""

    def __init__(self, hub: MemoryHub) -> None:
        self.inner = MemoryBackplane(hub)
        self.keeps_positions: bool = self.inner.keeps_positions

    async def run(self, deliver: Any, gap: Any, *more: Any, **options: Any) -> None:
        await self.inner.run(deliver, gap, *more, **options)

    def publish(self, topic: Any, message: Any, *, keep: bool = True) -> int:
        return self.inner.publish(topic, message, keep=keep)

    async def publish_wait(self, topic: Any, message: Any, *, keep: bool = True) -> int:
        return await self.inner.publish_wait(topic, message, keep=keep)

    async def wait_for_room(self, message: Any) -> None:
        await self.inner.wait_for_room(message)

    async def flush(self) -> None:
        await self.inner.flush()

    def subscribe(self, topic: Any) -> None:
        self.inner.subscribe(topic)

    def unsubscribe(self, topic: str) -> None:
        self.inner.unsubscribe(topic)

    async def wait_subscribed(self) -> None:
        await self.inner.wait_subscribed()

    async def wait_attached(self, topic: str) -> None:
        await self.inner.wait_attached(topic)

    async def read(self, topic: str, after: Position | None, count: int) -> Past:
        return await self.inner.read(topic, after, count)

    def statistics(self) -> BackplaneStatistics:
        return self.inner.statistics()


class Swallows(Wrapped):
    async def run(self, deliver: Any, gap: Any, *more: Any, **options: Any) -> None:
        def swallow(message: BackplaneMessage) -> None:
            if message.message != b"passing":
                deliver(message)

        await self.inner.run(swallow, gap, *more, **options)


class NeverCancelled(Wrapped):
    async def flush(self) -> None:
        with trio.CancelScope(shield=True):
            await self.inner.flush()


class TakesAnything(Wrapped):
    def subscribe(self, topic: Any) -> None:
        if isinstance(topic, str):
            self.inner.subscribe(topic)


class NeverEnds(Wrapped):
    async def wait_subscribed(self) -> None:
        with suppress(trio.ClosedResourceError):
            await self.inner.wait_subscribed()


class RunsAgain(Wrapped):
    async def run(self, deliver: Any, gap: Any, *more: Any, **options: Any) -> None:
        if not self.inner._was_run:
            await self.inner.run(deliver, gap, *more, **options)


class ReadsWhileAway(Wrapped):
    async def read(self, topic: str, after: Position | None, count: int) -> Past:
        if not self.inner._connected:
            return Past(Position("x", 0), ())
        return await self.inner.read(topic, after, count)


class SaysNothingOfPositions(Wrapped):
    async def wait_attached(self, topic: str) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("wrong", "history", "promise"),
    [
        (Swallows, 200, "messages reach the others in order as they were"),
        (NeverCancelled, 0, "every async method can be cancelled"),
        (TakesAnything, 0, "wrong arguments are refused"),
        (NeverEnds, 0, "what waits ends with it"),
        (RunsAgain, 0, "what waits ends with it and it runs once"),
        (ReadsWhileAway, 200, "after an outage it goes on"),
        (SaysNothingOfPositions, 0, "it says that there are no positions"),
    ],
)
async def test_a_broken_promise_is_named(wrong: type[Wrapped], history: int, promise: str) -> None:
    hub = MemoryHub(history=history)

    @asynccontextmanager
    async def interrupt() -> AsyncGenerator[None, None]:
        hub.pause()
        try:
            yield
        finally:
            hub.resume()

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the note is looked at
        await check_backplane(lambda: wrong(hub), interrupt=interrupt)
    notes = getattr(caught.value, "__notes__", [])
    assert any(promise in note for note in notes), notes
