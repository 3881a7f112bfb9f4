"""A process of a cluster as the tests of backplanes see it: what was delivered, and its gaps."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from trio_ws.backplane import (
    Backplane,
    BackplaneMessage,
    BackplaneStatistics,
    MemoryBackplane,
    MemoryHub,
    Position,
)

LOGGER = logging.getLogger("trio_ws")


class Node:
    """A backplane, and what it has delivered."""

    def __init__(self, joined: Backplane) -> None:
        self.backplane = joined
        self.received: list[tuple[str, str | bytes]] = []
        #: The same, with where they stand and whose they are.
        self.messages: list[BackplaneMessage] = []
        self.gaps: list[str | None] = []
        self.attached: list[tuple[str, Position]] = []
        self.lost: list[int] = []

    def deliver(self, message: BackplaneMessage) -> None:
        self.received.append((message.topic, message.message))
        self.messages.append(message)

    def note_attached(self, topic: str, position: Position) -> None:
        self.attached.append((topic, position))

    @property
    def statistics(self) -> BackplaneStatistics:
        return self.backplane.statistics()


@asynccontextmanager
async def run(joined: Backplane, *topics: str) -> AsyncGenerator[Node, None]:
    """Run a backplane that is subscribed to `topics`."""
    node = Node(joined)
    async with trio.open_nursery() as nursery:
        for topic in topics:
            joined.subscribe(topic)
        await nursery.start(
            joined.run, node.deliver, node.gaps.append, node.note_attached, node.lost.append
        )
        yield node
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def run_two(
    hub: MemoryHub, *topics: str, **options: Any
) -> AsyncGenerator[tuple[Node, Node], None]:
    async with run(MemoryBackplane(hub, **options), *topics) as one:
        async with run(MemoryBackplane(hub), *topics) as other:
            yield one, other
