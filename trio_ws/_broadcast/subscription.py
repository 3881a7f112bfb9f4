"""The blocks of `Broadcast.subscribe` and `Broadcast.open_channel`.

This module owns what a block has subscribed to, and unsubscribes when the block is left.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import final

import trio

from .._connection.websocket import WebSocket
from .history import Since, checked_since, since_of
from .to_channel import BroadcastChannel, ToChannel
from .to_websocket import ToWebSocket
from .topics import Topics, check_topics


@final
class Subscription:
    """What `Broadcast.subscribe` gives: a context manager, to be used once.

    Attributes:
        websocket: the connection.
        missed: whether messages are missing from the history that came on subscribing: some after
            `since` are not kept any more, or `since` is unknown, or the connection is slow and had
            no room for them. The client should load all of its state again.
    """

    __slots__ = (
        "_all_topics",
        "_delivery",
        "_entered",
        "_left",
        "_since",
        "_topics",
        "missed",
        "websocket",
    )

    def __init__(
        self,
        all_topics: Topics,
        delivery: ToWebSocket,
        topics: tuple[str, ...],
        since: Since,
    ) -> None:
        self.websocket: WebSocket = delivery.websocket
        self.missed: bool = False
        self._all_topics = all_topics
        self._delivery = delivery
        #: What it is subscribed to; before the block is entered, what it will be.
        self._topics: dict[str, None] = dict.fromkeys(topics)
        self._since = since
        self._entered = self._left = False

    @property
    def topics(self) -> frozenset[str]:
        """The topics to which this block has subscribed the connection."""
        return frozenset(self._topics)

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> Subscription:
        if self._entered:
            raise RuntimeError("a subscription is entered once: call subscribe() again")
        wanted = tuple(self._topics)
        self._all_topics.check_open()
        self._check_new(wanted)
        self._entered = True
        self._topics.clear()
        self._all_topics.enter(self.websocket)
        self._add(wanted, self._since)
        return self

    @trio.lowlevel.enable_ki_protection
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left = True
        self._all_topics.exit(self.websocket)
        self.discard(*self._topics)

    @trio.lowlevel.enable_ki_protection
    def add(self, *topics: str, since: Since = None) -> None:
        """Subscribe to more topics. Topics that it has already change nothing.

        Raises:
            TypeError: a topic or `since` is of a wrong type.
            ValueError: the connection is subscribed to one of them by another block.
            trio.ClosedResourceError: the block was left, or not entered yet, or the broadcast is
                over.
        """
        check_topics(topics)
        since = checked_since(since)
        if not self._entered or self._left:
            raise trio.ClosedResourceError("this is not inside the block of subscribe()")
        self._all_topics.check_open()
        wanted = tuple(topic for topic in dict.fromkeys(topics) if topic not in self._topics)
        self._check_new(wanted)
        self._add(wanted, since)

    @trio.lowlevel.enable_ki_protection
    def discard(self, *topics: str) -> None:
        """Unsubscribe from topics. Topics that it does not have change nothing."""
        for topic in topics:
            if topic in self._topics:
                del self._topics[topic]
                self._all_topics.leave(self._delivery, topic)

    def _check_new(self, topics: tuple[str, ...]) -> None:
        for topic in topics:
            if self.websocket in self._all_topics.deliveries(topic):
                raise ValueError(f"this connection is subscribed to {topic!r} already")

    def _add(self, topics: tuple[str, ...], since: Since) -> None:
        for topic in topics:
            self._topics[topic] = None
            if self._all_topics.join(self._delivery, topic, since_of(since, topic)):
                self.missed = True

    def __repr__(self) -> str:
        topics = ", ".join(map(repr, self._topics)) or "nothing"
        return f"<Subscription of {self.websocket.id} to {topics}>"


@final
class ChannelBlock(AbstractAsyncContextManager[BroadcastChannel]):
    """What `Broadcast.open_channel` gives: a context manager, to be used once."""

    def __init__(self, topics: Topics, delivery: ToChannel, since: Since) -> None:
        self._topics = topics
        self._delivery = delivery
        self._since = since
        self._entered = False

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> BroadcastChannel:
        await trio.lowlevel.checkpoint()
        if self._entered:
            raise RuntimeError("a channel is opened once: call open_channel() again")
        self._topics.check_open()
        self._entered = True
        self._topics.join_channel(self._delivery, since_of(self._since, self._delivery.topic))
        return self._delivery.channel

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._topics.leave_channel(self._delivery)
        self._delivery.channel.close()
