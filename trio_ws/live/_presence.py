"""Telling clients who is in a topic: everybody at first, and then who comes and goes.

This module owns who wants to know. Who is there, in all processes, the broadcast knows. Changes are
written once for all who want them, and go out by a broadcast of this process alone.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, final

import trio

from .._broadcast.broadcast import Broadcast
from .._connection.websocket import WebSocket
from .._json import same_json
from . import _messages as messages


@final
class Onlookers:
    """Those who want to know who is in which topic.

    Args:
        broadcast: knows who is there.
        changes: reaches the onlookers.
        nursery: has a task for each topic that has onlookers.
    """

    def __init__(self, broadcast: Broadcast, changes: Broadcast, nursery: trio.Nursery) -> None:
        self._broadcast = broadcast
        self._changes = changes
        self._nursery = nursery
        #: The task of each topic, and for how many it runs.
        self._tasks: dict[str, tuple[trio.CancelScope, int]] = {}

    @contextmanager
    def watch(self, websocket: WebSocket, topic: str) -> Generator[None, None, None]:
        """Tell a client who is there, and each change, for as long as a block goes on."""
        scope, count = self._tasks.get(topic, (None, 0))
        if scope is None:
            scope = trio.CancelScope()
            told = self._broadcast.presence(topic).members
            self._nursery.start_soon(self._follow, topic, told, scope)
        self._tasks[topic] = scope, count + 1
        try:
            subscription = self._changes.subscribe(websocket, topic)
            subscription._delivery.greeting = self._everybody
            with subscription:
                yield
        finally:
            scope, count = self._tasks.pop(topic)
            if count > 1:
                self._tasks[topic] = scope, count - 1
            else:
                scope.cancel()

    def _everybody(self, topic: str, position: str, *, recovered: bool) -> tuple[str, None]:
        # A change of before that is told after this changes nothing any more.
        members = self._broadcast.presence(topic).members
        return messages.presence(topic, members, (), is_all=True), None

    async def _follow(self, topic: str, told: Mapping[str, Any], scope: trio.CancelScope) -> None:
        """Tell each change, from what the first onlooker was told on."""
        with scope:
            async for seen in self._broadcast.presence(topic):
                members, told_before, told = seen.members, told, seen.members
                joined = {
                    name: value
                    for name, value in members.items()
                    if name not in told_before or not same_json(told_before[name], value)
                }
                left = [name for name in told_before if name not in members]
                if joined or left:
                    self._changes.publish(messages.presence(topic, joined, left), topic)
