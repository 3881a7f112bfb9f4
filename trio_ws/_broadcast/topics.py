"""Who is subscribed to which topic, and what was published there before.

This module owns the subscribers and the history of each topic, and forgets topics that nobody wants
any more. It does not know how a message gets to a subscriber, nor what the application is told.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from threading import get_ident
from typing import Final

import trio

from .._connection.websocket import WebSocket
from .._protocol.prepared import Prepared
from .._threads import in_other_thread
from ..backplane._base import Backplane
from .history import History, Ids, Kept
from .to_channel import ToChannel
from .to_websocket import Audience, ToWebSocket

#: How the topics begin that processes use among themselves.
INTERNAL: Final = "\0trio_ws."


def check_topics(topics: tuple[str, ...]) -> None:
    for topic in topics:
        if not isinstance(topic, str):
            # A message that was given in its place may be long, and is nobody else's business.
            raise TypeError(f"a topic is a str, not {type(topic).__name__}")
        if topic.startswith(INTERNAL):
            raise ValueError(f"topics that begin with {INTERNAL!r} belong to trio_ws")


class Topic:
    """The subscribers of one topic, and its history."""

    __slots__ = ("_audience", "channels", "history", "websockets")

    def __init__(self, history: History | None) -> None:
        self._audience: Audience | None = None
        self.websockets: dict[WebSocket, ToWebSocket] = {}
        self.channels: dict[ToChannel, None] = {}
        self.history: History | None = history

    @property
    def is_wanted(self) -> bool:
        return bool(self.websockets or self.channels)

    def add(self, delivery: ToWebSocket) -> None:
        self.websockets[delivery.websocket] = delivery
        self._audience = None

    def remove(self, delivery: ToWebSocket) -> None:
        del self.websockets[delivery.websocket]
        self._audience = None

    def deliver(self, message: Prepared, name: str, excluded: Collection[WebSocket]) -> int:
        """Hand a message to all subscribers but the excluded; to how many it was handed."""
        if self._audience is None:  # somebody came or went
            self._audience = Audience(self.websockets.values())
        count = self._audience.deliver(message, name, excluded)
        for channel in list(self.channels):  # a key function could change the original
            count += channel.deliver(message, name)
        return count


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for all subscribers of a broadcast."""

    channels: int
    messages: int
    bytes: int


class Topics:
    """The topics of one broadcast.

    Args:
        history: how many messages each topic keeps.
        max_idle: how many topics without subscribers keep their history.
        backplane: is told in which topics this process is interested.
        on_change: called with a topic whenever a connection has subscribed to it or left it.
    """

    def __init__(
        self,
        history: int,
        max_idle: float,
        backplane: Backplane | None,
        on_change: Callable[[str], None],
    ) -> None:
        self._history_size = history
        self._max_idle = max_idle
        self._backplane = backplane
        self._on_change = on_change
        self._topics: dict[str, Topic] = {}
        #: Those that are there for their history only, the least recently used first.
        self._idle: OrderedDict[str, None] = OrderedDict()
        #: How many subscriptions each connection has.
        self._subscriptions: dict[WebSocket, int] = {}
        self._ids = Ids()
        #: Up to which number messages may have been forgotten with their topic.
        self._forgotten = 0
        self._thread = get_ident()
        #: The block of `open_broadcast` was left.
        self.is_over: bool = False

    def check_thread(self) -> None:
        if get_ident() != self._thread:
            raise in_other_thread("broadcast", "broadcast.publish")

    def check_open(self) -> None:
        self.check_thread()
        if self.is_over:
            raise trio.ClosedResourceError("the block of open_broadcast() was left")

    # What there is…

    def __len__(self) -> int:
        return len(self._topics)

    @property
    def connections(self) -> int:
        """How many connections are subscribed to anything."""
        return len(self._subscriptions)

    def deliveries(self, topic: str) -> dict[WebSocket, ToWebSocket]:
        """The connections that are subscribed to a topic. The caller does not change it."""
        record = self._topics.get(topic)
        return record.websockets if record is not None else {}

    def present(self, topic: str) -> int:
        return len(self.deliveries(topic))

    def waiting(self) -> Waiting:
        # A connection that is subscribed to several topics has one line.
        lines = {
            websocket: delivery.sink
            for record in self._topics.values()
            for websocket, delivery in record.websockets.items()
        }
        mailboxes = [
            channel.sink for record in self._topics.values() for channel in record.channels
        ]
        waiting = [line.waiting() for line in lines.values()]
        waiting += [mailbox.waiting() for mailbox in mailboxes]
        return Waiting(
            len(mailboxes),
            sum(messages for messages, _ in waiting),
            sum(size for _, size in waiting),
        )

    # A message is published…

    @property
    def next_id(self) -> str:
        """The id of the message that is published next, if no backplane gives it one."""
        return self._ids.next_id

    def number(self) -> int:
        """Number the message that is published now."""
        return self._ids.advance()

    def record(self, topic: str, number: int, message_id: str, message: Prepared) -> Topic | None:
        """Put a message into the history of its topic, unless its id is empty.

        Returns:
            The topic; `None` if it has neither subscribers nor a history.
        """
        if not message_id or not self._history_size:
            return self._topics.get(topic)
        record = self._get(topic)
        assert record.history is not None
        record.history.keep(Kept(number, message_id, message))
        self._tidy(topic)
        return record

    def note_gap(self, topic: str | None) -> None:
        """Messages of a topic, or with `None` of any topic, may be missing before this moment."""
        number = self._ids.advance()
        for name, record in self._topics.items():
            if record.history is not None and topic in (None, name):
                record.history.lost = number

    # Somebody comes or goes…

    def enter(self, websocket: WebSocket) -> None:
        """Count one more subscription of a connection, to whatever topics."""
        self._subscriptions[websocket] = self._subscriptions.get(websocket, 0) + 1

    def exit(self, websocket: WebSocket) -> None:
        if not self.is_over:
            self._subscriptions[websocket] -= 1
            if not self._subscriptions[websocket]:
                del self._subscriptions[websocket]

    def join(self, delivery: ToWebSocket, topic: str, since: str | None) -> bool:
        """Subscribe a connection, and send it what came before; true if some of that is missing."""
        record = self._get(topic)
        self._idle.pop(topic, None)
        messages, missed = self._newer(record, since)
        complete = delivery.replay(messages, topic)
        record.add(delivery)
        self._on_change(topic)
        return missed or not complete

    def leave(self, delivery: ToWebSocket, topic: str) -> None:
        record = self._topics.get(topic)
        if record is None or record.websockets.get(delivery.websocket) is not delivery:
            return  # the broadcast is over
        record.remove(delivery)
        self._tidy(topic)
        delivery.sink.wake()  # a publisher need not wait for it any more
        self._on_change(topic)

    def join_channel(self, channel: ToChannel, since: str | None) -> None:
        record = self._get(channel.topic)
        self._idle.pop(channel.topic, None)
        channel.replay(self._newer(record, since)[0], channel.topic)
        record.channels[channel] = None

    def leave_channel(self, channel: ToChannel) -> None:
        record = self._topics.get(channel.topic)
        if record is not None and record.channels.pop(channel, channel) is None:
            self._tidy(channel.topic)

    def _newer(self, record: Topic, since: str | None) -> tuple[list[Prepared], bool]:
        if record.history is None:
            return [], since is not None
        return record.history.since(since, self._ids)

    # Topics come and go…

    def _get(self, topic: str) -> Topic:
        """The topic, made if there is none yet."""
        record = self._topics.get(topic)
        if record is None:
            size = self._history_size
            history = History(size, self._forgotten) if size else None
            record = self._topics[topic] = Topic(history)
            if self._backplane is not None:
                self._backplane.subscribe(topic)
        return record

    def _tidy(self, topic: str) -> None:
        """Forget a topic that nobody wants, unless its history is among those that are kept."""
        record = self._topics[topic]
        self._idle.pop(topic, None)
        if record.is_wanted:
            return
        if record.history:
            self._idle[topic] = None
            if len(self._idle) > self._max_idle:
                oldest, _ = self._idle.popitem(last=False)
                self._forget(oldest)
        else:
            self._forget(topic)

    def _forget(self, topic: str) -> None:
        record = self._topics.pop(topic)
        if record.history is not None:
            self._forgotten = max(self._forgotten, record.history.newest)
        if self._backplane is not None:
            self._backplane.unsubscribe(topic)

    def end(self) -> None:
        """End every subscription. Waits for nothing, and throws nothing away."""
        self.is_over = True
        topics, self._topics = self._topics, {}
        self._idle.clear()
        self._subscriptions.clear()
        for record in topics.values():
            for delivery in record.websockets.values():
                delivery.sink.wake()
            for channel in record.channels:
                channel.sink.end()
        # This is a method of the broadcast, which refers to this. Without the cycle, both are freed
        # when they are over, and not when the garbage collector looks.
        self._on_change = _tell_nobody


def _tell_nobody(_: str) -> None:
    """Nobody comes or goes any more."""
