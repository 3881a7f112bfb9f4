"""What every kind of backplane shares: the queue out, the check of what comes in, the topics.

This module puts these pieces together and knows no broker. Each kind adds `_join`.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import OrderedDict

import trio

from .._log import LoggerLike
from .._options import check_limit
from .._protocol.message import Message, checked_message
from ._base import (
    Attached,
    Backplane,
    BackplaneError,
    BackplaneStatistics,
    Deliver,
    Gap,
    Lost,
    ignore,
)
from ._envelope import ORIGIN_SIZE, Envelope, encode, size_of
from ._incoming import Incoming
from ._interest import Interest
from ._outgoing import Item, Outgoing
from ._places import Places

#: How many messages may wait by default: at 1000 a second, 10 s without the broker.
MAX_QUEUED_MESSAGES = 10_000
#: How many bytes may wait by default: what one process can spare for that.
MAX_QUEUED_BYTES = 16 * 2**20

#: For how many topics the number of the last message is remembered. On a topic that was forgotten,
#: other processes cannot see whether messages before the next one are missing.
MAX_TOPICS = 65_536


class QueuedBackplane(Backplane):
    """A backplane, but for `_join`, which connects it to a broker."""

    def __init__(
        self, max_queued_messages: float, max_queued_bytes: float, logger: LoggerLike
    ) -> None:
        check_limit("max_queued_messages", max_queued_messages)
        check_limit("max_queued_bytes", max_queued_bytes)
        self._logger = logger
        self._origin = os.urandom(ORIGIN_SIZE)
        self._outgoing = Outgoing(max_queued_messages, max_queued_bytes)
        self._incoming = Incoming(self._origin, logger)
        self._places = Places(self._origin, self._incoming)
        self._lost: Lost = ignore
        self._interest = Interest()
        self._published = 0
        self._previous: OrderedDict[str, int] = OrderedDict()
        self._was_run = False
        self._connected = False
        self._connections = 0

    def publish(self, topic: str, message: Message, *, keep: bool = True) -> int:
        check_topic(topic)
        number = self._published + 1
        previous = self._previous.get(topic, 0)
        envelope = Envelope(self._origin, number, previous, checked_message(message), keep)
        data = encode(envelope)
        # Counted only now: a number that an error above had used up would look like a loss.
        self._published = number
        self._previous[topic] = number
        self._previous.move_to_end(topic)
        if len(self._previous) > MAX_TOPICS:
            self._previous.popitem(last=False)
        for dropped in self._outgoing.put(Item(number, topic, data)):
            self._lost(dropped)
        return number

    async def publish_wait(self, topic: str, message: Message, *, keep: bool = True) -> int:
        check_topic(topic)
        data = checked_message(message)
        await self.wait_for_room(data)
        return self.publish(topic, data, keep=keep)

    async def wait_for_room(self, message: Message) -> None:
        await self._outgoing.wait_for_room(size_of(checked_message(message)))

    async def flush(self) -> None:
        await self._outgoing.wait_settled(self._published)

    def subscribe(self, topic: str) -> None:
        check_topic(topic)
        self._interest.add(topic)

    def unsubscribe(self, topic: str) -> None:
        if self._interest.remove(topic):
            self._incoming.forget(topic)
            self._places.forget(topic)

    async def wait_subscribed(self) -> None:
        await self._interest.wait_confirmed()

    async def wait_attached(self, topic: str) -> None:
        if not self.keeps_positions:
            return await super().wait_attached(topic)
        await trio.lowlevel.checkpoint()
        while not self._interest.is_confirmed(topic):
            if not self._connected:
                raise BackplaneError("the broker is away")
            await self._interest.wait_moved()
        return None

    async def run(
        self,
        deliver: Deliver,
        gap: Gap,
        attached: Attached = ignore,
        lost: Lost = ignore,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        if self._was_run:
            raise RuntimeError("a backplane runs once, for one Broadcast: make another")
        self._was_run = True
        self._incoming.open(deliver, gap)
        self._places.open(deliver, attached)
        self._lost = lost
        try:
            await self._join(task_status)
        finally:
            self._note_lost()
            self._outgoing.close()
            self._interest.close()

    @abstractmethod
    async def _join(self, task_status: trio.TaskStatus[None]) -> None:
        """Send what is in `_outgoing`, pass what comes to `_incoming`, and follow `_interest`."""

    def _refuse(self, item: Item) -> None:
        """Note that the broker refused this message, the oldest in flight."""
        self._outgoing.settle(refused=True)
        self._lost(item.number)

    def _note_connected(self) -> None:
        self._connected = True
        self._connections += 1

    def _note_lost(self) -> None:
        self._connected = False
        self._interest.lose()

    def statistics(self) -> BackplaneStatistics:
        return BackplaneStatistics(
            connected=self._connected,
            connections=self._connections,
            queued_messages=self._outgoing.queued_messages,
            queued_bytes=self._outgoing.queued_bytes,
            published=self._published,
            sent=self._outgoing.sent,
            refused=self._outgoing.refused,
            dropped=self._outgoing.dropped,
            delivered=self._incoming.delivered,
            duplicates=self._incoming.duplicates,
            malformed=self._incoming.malformed,
            gaps=self._incoming.gaps,
        )


def check_topic(topic: object) -> None:
    if not isinstance(topic, str):
        raise TypeError(f"a topic that other processes share is a str, not {topic!r}")
    topic.encode()  # a ValueError for the caller now, and not later for the task that sends it
