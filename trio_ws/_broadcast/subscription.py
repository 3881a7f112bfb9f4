"""The blocks of `Broadcast.subscribe` and `Broadcast.open_channel`.

This module owns what a block has subscribed to, and unsubscribes when the block is left.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import final

import trio

from .._connection.websocket import WebSocket
from .catching_up import CatchUp
from .history import StartingPoint, checked_position, position_of
from .to_channel import BroadcastChannel, ToChannel
from .to_websocket import ToWebSocket
from .topics import Topics, check_topics


@final
class Subscription:
    """What `Broadcast.subscribe` gives: a context manager, to be used once.

    ``async with`` is always right. ``with`` is for a broadcast that has nothing to wait for: one
    without `state`, and without a backplane that keeps positions.

    Attributes:
        websocket: the connection.
        recovered: whether a position was given, and everything that came after it was sent in
            order, before what is new. Otherwise the connection was sent the history that is kept or
            its `state`, as a newcomer is: the position led nowhere, or not all that came after it
            is kept, or the broker was away, or the connection is slow and had no room. The client
            should then load all of its state again, if it has not just been sent that.
    """

    __slots__ = (
        "_all_topics",
        "_catch_up",
        "_delivery",
        "_entered",
        "_left",
        "_position",
        "_topics",
        "recovered",
        "websocket",
    )

    def __init__(
        self,
        all_topics: Topics,
        catch_up: CatchUp,
        delivery: ToWebSocket,
        topics: tuple[str, ...],
        position: StartingPoint,
    ) -> None:
        self.websocket: WebSocket = delivery.websocket
        self.recovered: bool = False
        self._all_topics = all_topics
        self._catch_up = catch_up
        self._delivery = delivery
        #: What it has, and from where on. Before the block is entered: what it will have.
        self._topics: dict[str, str] = dict.fromkeys(topics, "")
        self._position = position
        self._entered = self._left = False

    @property
    def topics(self) -> frozenset[str]:
        """The topics to which this block has subscribed the connection."""
        return frozenset(self._topics)

    @property
    def positions(self) -> dict[str, str]:
        """For each topic the position from which on it hears everything, as clients give it back.

        That is the position of the newest message at the moment of subscribing, and is for clients
        that hear nothing for a while: they come back with it all the same. It is empty where the
        broker was away.
        """
        return dict(self._topics)

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> Subscription:
        if self._catch_up.must_wait:
            raise RuntimeError(
                "subscribing has to wait here, for the state or for the backplane: write "
                "`async with broadcast.subscribe(…)`"
            )
        wanted = self._begin()
        self.recovered = self._add_now(wanted, self._position)
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Subscription:
        await trio.lowlevel.checkpoint()
        wanted = self._begin()
        try:
            self.recovered = await self._add(wanted, self._position)
        except BaseException:
            self._end()
            raise
        return self

    def _begin(self) -> tuple[str, ...]:
        if self._entered:
            raise RuntimeError("a subscription is entered once: call subscribe() again")
        wanted = tuple(self._topics)
        self._all_topics.check_open()
        self._check_new(wanted)
        self._entered = True
        self._topics.clear()
        self._all_topics.enter(self.websocket)
        return wanted

    @trio.lowlevel.enable_ki_protection
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._left = True
        self._all_topics.exit(self.websocket)
        self.discard(*self._topics)

    @trio.lowlevel.enable_ki_protection
    def add(self, *topics: str, position: StartingPoint = None) -> bool:
        """Subscribe to more topics. Topics that it has already change nothing.

        Returns:
            What `recovered` says, for these topics.

        Raises:
            TypeError: a topic or `position` is of a wrong type.
            ValueError: the connection is subscribed to one of them by another block.
            RuntimeError: it has to wait, for `state` or for a backplane that keeps positions. Call
                `add_wait`.
            trio.ClosedResourceError: the block was left, or not entered yet, or the broadcast is
                over.
        """
        wanted = self._wanted(topics, checked_position(position))
        if self._catch_up.must_wait:
            raise RuntimeError(
                "subscribing has to wait here, for the state or for the backplane: write "
                "`await subscription.add_wait(…)`"
            )
        return self._add_now(wanted, position)

    @trio.lowlevel.enable_ki_protection
    async def add_wait(self, *topics: str, position: StartingPoint = None) -> bool:
        """`add`, after waiting for what is to be sent first. It is possible in any case.

        If it is cancelled or raises, it has subscribed to none of these topics. What was sent of
        some of them until then may have reached the client.

        Raises:
            StateUnavailable: there is no state; see `open_broadcast`.
        """
        self._wanted(topics, checked_position(position))
        await trio.lowlevel.checkpoint()
        return await self._add(self._wanted(topics, position), position)

    @trio.lowlevel.enable_ki_protection
    def discard(self, *topics: str) -> None:
        """Unsubscribe from topics. Topics that it does not have change nothing."""
        for topic in topics:
            if topic in self._topics:
                del self._topics[topic]
                self._all_topics.leave(self._delivery, topic)

    def _wanted(self, topics: tuple[str, ...], position: StartingPoint) -> tuple[str, ...]:
        """Those of the topics that it has not."""
        check_topics(topics)
        self._check_inside()
        wanted = tuple(topic for topic in dict.fromkeys(topics) if topic not in self._topics)
        self._check_new(wanted)
        return wanted

    def _check_inside(self) -> None:
        if not self._entered or self._left:
            raise trio.ClosedResourceError("this is not inside the block of subscribe()")
        self._all_topics.check_open()

    def _check_new(self, topics: tuple[str, ...]) -> None:
        for topic in topics:
            self._all_topics.check_new(self.websocket, topic)

    def _add_now(self, topics: tuple[str, ...], position: StartingPoint) -> bool:
        recovered = bool(topics)
        for topic in topics:
            self._topics[topic] = ""
            recovered &= self._catch_up.join_now(
                self._delivery, topic, position_of(position, topic)
            )
            if topic in self._topics:  # `on_change` may have discarded it
                self._note(topic)
        return recovered

    async def _add(self, topics: tuple[str, ...], position: StartingPoint) -> bool:
        recovered = bool(topics)
        try:
            for topic in topics:
                recovered &= await self._catch_up.join(
                    self._delivery, topic, position_of(position, topic)
                )
                self._note(topic)
                self._check_inside()
        except BaseException:
            self.discard(*topics)
            raise
        return recovered

    def _note(self, topic: str) -> None:
        record = self._all_topics.find(topic)
        self._topics[topic] = record.window.text if record is not None else ""

    def __repr__(self) -> str:
        topics = ", ".join(map(repr, self._topics)) or "nothing"
        return f"<Subscription of {self.websocket.id} to {topics}>"


@final
class ChannelBlock(AbstractAsyncContextManager[BroadcastChannel]):
    """What `Broadcast.open_channel` gives: a context manager, to be used once."""

    def __init__(
        self, topics: Topics, catch_up: CatchUp, delivery: ToChannel, position: StartingPoint
    ) -> None:
        self._topics = topics
        self._catch_up = catch_up
        self._delivery = delivery
        self._position = position_of(position, delivery.topic)
        self._entered = False

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> BroadcastChannel:
        await trio.lowlevel.checkpoint()
        if self._entered:
            raise RuntimeError("a channel is opened once: call open_channel() again")
        self._topics.check_open()
        self._entered = True
        delivery = self._delivery
        channel = delivery.channel
        channel.recovered = await self._catch_up.join(delivery, delivery.topic, self._position)
        return channel

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._topics.leave(self._delivery, self._delivery.topic)
        self._delivery.channel.close()
