"""A process of a cluster as the tests of backplanes see it: what was delivered, and its gaps."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from trio_ws.backplane import Backplane, BackplaneStatistics, MemoryBackplane, MemoryHub

LOGGER = logging.getLogger("trio_ws")


class Node:
    """A backplane, and what it has delivered."""

    def __init__(self, joined: Backplane) -> None:
        self.backplane = joined
        self.received: list[tuple[str, str | bytes]] = []
        self.ids: list[str] = []
        self.gaps: list[str | None] = []

    def deliver(self, topic: str, message: str | bytes, message_id: str) -> None:
        self.received.append((topic, message))
        self.ids.append(message_id)

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
        await nursery.start(joined.run, node.deliver, node.gaps.append)
        yield node
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def run_two(
    hub: MemoryHub, *topics: str, **options: Any
) -> AsyncGenerator[tuple[Node, Node], None]:
    async with run(MemoryBackplane(hub, **options), *topics) as one:
        async with run(MemoryBackplane(hub), *topics) as other:
            yield one, other
