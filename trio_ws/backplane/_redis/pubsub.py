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
from .channels import Channels

if TYPE_CHECKING:
    from .link import Link, Word


@final
class PubSub:
    """The mode ``"pubsub"``.

    Args:
        prefix: the beginning of every channel's name.
        interest: which topics to listen to.
        incoming: gets the messages that come.
    """

    def __init__(self, prefix: str, interest: Interest, incoming: Incoming) -> None:
        self._channels = Channels(prefix, "", interest)
        self._interest = interest
        self._incoming = incoming

    async def start_session(self, link: Link, failovers: int) -> None:
        """Note that the connections are new. It does not matter to which server."""
        self._channels.start_session()

    def command(self, item: Item) -> tuple[Word, ...]:
        """The command that publishes a message."""
        return (b"PUBLISH", self._channels.name(item.topic), item.data)

    def note_sent(self, item: Item) -> None:
        """Note that Redis has accepted a message."""

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
            await self._channels.follow_all(link)
            task_status.started()
            while True:
                for topic in await self._channels.follow(link):
                    self._interest.confirm(topic)

    def _handle_push(self, push: list[Any]) -> None:
        match push:
            case [b"message", bytes(channel), bytes(data)]:
                topic = self._channels.topic(channel)
                if topic in self._interest.wanted:
                    self._incoming.receive(topic, data)
            case [b"subscribe", bytes(channel), _]:
                topic = self._channels.confirm(channel)
                if self._interest.confirm(topic):  # the second time: we were away in between
                    self._incoming.announce_gap(topic)
            case _:  # the confirmation of UNSUBSCRIBE
                pass
