"""Redis as a loudspeaker: PUBLISH and SUBSCRIBE.

This module owns the commands of this mode, and the meaning of their confirmations. A message that
is published while we are not connected never comes. Where that may have happened, there is a gap
notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import trio

from .._incoming import Incoming
from .._interest import Interest
from .._outgoing import Item

if TYPE_CHECKING:
    from .link import Link, Word

#: How many channels one command names. Redis runs a command without interruption, and all its other
#: clients wait.
CHANNELS_PER_COMMAND = 256


@final
class PubSub:
    """The mode ``"pubsub"``.

    Args:
        prefix: the beginning of every channel's name.
        interest: which topics to listen to.
        incoming: gets the messages that come.
    """

    def __init__(self, prefix: str, interest: Interest, incoming: Incoming) -> None:
        self._prefix = prefix.encode()
        self._interest = interest
        self._incoming = incoming
        # What Redis was told in this session, and what it has confirmed of that.
        self._told: set[str] = set()
        self._confirmed: set[str] = set()

    def start_session(self) -> None:
        """Note that the connections are new, so that Redis knows nothing about us."""
        self._told.clear()
        self._confirmed.clear()

    def commands(self, item: Item) -> list[tuple[Word, ...]]:
        """The commands that publish a message."""
        return [(b"PUBLISH", self._channel(item.topic), item.data)]

    @trio.lowlevel.enable_ki_protection
    async def listen(self, link: Link, other: Link, *, task_status: trio.TaskStatus[None]) -> None:
        """Subscribe to the topics that are wanted, as they change, until the connection breaks.

        Args:
            link: the connection that listens.
            other: the connection for everything else.
            task_status: told when Redis has subscribed us to all the topics that are wanted now.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.dispatch, self._handle_push)
            self._interest.take_changes()
            await self._follow(link, list(self._interest.wanted))
            task_status.started()
            while True:
                await self._interest.wait_for_changes()
                await self._follow(link, self._interest.take_changes())

    async def _follow(self, link: Link, changed: list[str]) -> None:
        wanted = self._interest.wanted
        gone = [topic for topic in changed if topic not in wanted and topic in self._told]
        new = [topic for topic in changed if topic in wanted and topic not in self._told]
        # A topic that went and came back at once is still subscribed to. Redis will not confirm it
        # again, and `wait_subscribed` would wait for ever.
        for topic in self._confirmed.intersection(changed):
            self._interest.confirm(topic)
        self._send(link, b"UNSUBSCRIBE", gone)
        self._send(link, b"SUBSCRIBE", new)
        self._told.update(new)
        self._told.difference_update(gone)
        self._confirmed.difference_update(gone)
        # SUBSCRIBE has no answer, but pushes. If Redis refuses it, the error comes as the answer to
        # the next command: this one.
        await link.request(b"PING")

    def _send(self, link: Link, command: bytes, topics: list[str]) -> None:
        channels = [self._channel(topic) for topic in topics]
        for start in range(0, len(channels), CHANNELS_PER_COMMAND):
            link.send(command, *channels[start : start + CHANNELS_PER_COMMAND])

    def _handle_push(self, push: list[Any]) -> None:
        match push:
            case [b"message", bytes(channel), bytes(data)]:
                topic = self._topic(channel)
                if topic in self._interest.wanted:
                    self._incoming.receive(topic, data)
            case [b"subscribe", bytes(channel), _]:
                topic = self._topic(channel)
                self._confirmed.add(topic)
                if self._interest.confirm(topic):  # the second time: we were away in between
                    self._incoming.announce_gap(topic)
            case _:  # the confirmation of UNSUBSCRIBE
                pass

    def _channel(self, topic: str) -> bytes:
        return self._prefix + topic.encode()

    def _topic(self, channel: bytes) -> str:
        return channel[len(self._prefix) :].decode()
