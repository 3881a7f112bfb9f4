"""Who is subscribed to which topic, and what was published there before.

This module owns the subscribers and the newest messages of each topic, and forgets topics that
nobody wants any more. It does not know how a message gets to a subscriber, nor what the application
is told.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from threading import get_ident
from typing import Final, TypeAlias

import trio

from .._connection.websocket import WebSocket
from .._protocol.prepared import Prepared
from .._threads import in_other_thread
from ..backplane._base import Backplane
from ..backplane._position import Position
from .history import Window
from .own_messages import OwnMessages
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


#: Where a subscriber's messages go.
Delivery: TypeAlias = "ToWebSocket | ToChannel"


class Topic:
    """The subscribers of one topic, and its newest messages."""

    __slots__ = (
        "_audience",
        "_behind",
        "channels",
        "joining",
        "name",
        "oldest_wanted",
        "websockets",
        "window",
    )

    def __init__(self, name: str, window: Window) -> None:
        self.name: str = name
        self.window: Window = window
        self._audience: Audience | None = None
        self.websockets: dict[WebSocket, ToWebSocket] = {}
        self.channels: dict[ToChannel, None] = {}
        #: Those that will be subscribed once what came before is here.
        self.joining: set[WebSocket | ToChannel] = set()
        #: Behind which offset somebody wants to have all messages, and asks for them.
        self.oldest_wanted: int | None = None
        #: The subscribers that get nothing until they were sent a state.
        self._behind: dict[Delivery, None] = {}

    @property
    def is_wanted(self) -> bool:
        return bool(self.websockets or self.channels or self.joining)

    def has(self, websocket: WebSocket) -> bool:
        """Whether a connection is subscribed, or about to be."""
        return websocket in self.websockets or websocket in self.joining

    def add(self, delivery: Delivery) -> None:
        if isinstance(delivery, ToWebSocket):
            self.websockets[delivery.websocket] = delivery
            self._audience = None
        else:
            self.channels[delivery] = None

    def remove(self, delivery: Delivery) -> None:
        self._behind.pop(delivery, None)
        if isinstance(delivery, ToWebSocket):
            del self.websockets[delivery.websocket]
            self._audience = None
        else:
            del self.channels[delivery]

    def subscribers(self) -> list[Delivery]:
        return [*self.websockets.values(), *self.channels]

    # Those that missed something…

    def leave_behind(self) -> None:
        """Give the subscribers nothing more until `catch_up`."""
        self._behind = dict.fromkeys(self.subscribers())
        self._audience = None

    @property
    def behind(self) -> list[Delivery]:
        return list(self._behind)

    def catch_up(self) -> None:
        """Let those that were left behind have what comes from now on."""
        self._behind.clear()
        self._audience = None

    # A message is published…

    def deliver(self, message: Prepared, excluded: Collection[WebSocket]) -> int:
        """Hand a message to all subscribers but the excluded; to how many it was handed."""
        if self._audience is None:  # somebody came or went
            self._audience = Audience(
                each for each in self.websockets.values() if each not in self._behind
            )
        count = self._audience.deliver(message, self.name, excluded)
        for channel in list(self.channels):  # a key function could change the original
            if channel not in self._behind:
                count += channel.deliver(message, self.name)
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
        own: the messages on their way through the backplane.
        on_change: called with a topic whenever a connection has subscribed to it or left it.
    """

    def __init__(
        self,
        history: int,
        max_idle: float,
        backplane: Backplane | None,
        own: OwnMessages,
        on_change: Callable[[str], None],
    ) -> None:
        self._history_size = history
        self._max_idle = max_idle
        self._backplane = backplane
        self._own = own
        self._on_change = on_change
        self._topics: dict[str, Topic] = {}
        #: Those that are there for their history only, the least recently used first.
        self._idle: OrderedDict[str, None] = OrderedDict()
        #: How many subscriptions each connection has.
        self._subscriptions: dict[WebSocket, int] = {}
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

    def find(self, topic: str) -> Topic | None:
        return self._topics.get(topic)

    def deliveries(self, topic: str) -> dict[WebSocket, ToWebSocket]:
        """The connections that are subscribed to a topic. The caller does not change it."""
        record = self._topics.get(topic)
        return record.websockets if record is not None else {}

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

    def named(self, topic: str | None) -> list[Topic]:
        """The topic of this name, if there is one; with `None` all of them."""
        names = list(self._topics) if topic is None else [topic]
        return [self._topics[name] for name in names if name in self._topics]

    # A message is published…

    def record(self, topic: str, *, keep: bool) -> Topic | None:
        """The topic to which a message is published, made if a history is to keep the message.

        If it was made, `keep_or_forget` has to follow.

        Returns:
            `None` if it has neither subscribers nor a history.
        """
        if keep and self._history_size:
            return self._get(topic)
        return self._topics.get(topic)

    def note_gap(self, topic: str | None) -> list[Topic]:
        """Messages of a topic, or with `None` of any topic, may be missing before this moment.

        So no position of before leads here any more.

        Returns:
            The topics.
        """
        records = self.named(topic)
        for record in records:
            record.window.epoch = _new_epoch()
        return records

    # Somebody comes or goes…

    def enter(self, websocket: WebSocket) -> None:
        """Count one more subscription of a connection, to whatever topics."""
        self._subscriptions[websocket] = self._subscriptions.get(websocket, 0) + 1

    def exit(self, websocket: WebSocket) -> None:
        if not self.is_over:
            self._subscriptions[websocket] -= 1
            if not self._subscriptions[websocket]:
                del self._subscriptions[websocket]

    def check_new(self, websocket: WebSocket, topic: str) -> None:
        record = self._topics.get(topic)
        if record is not None and record.has(websocket):
            raise ValueError(f"this connection is subscribed to {topic!r} already")

    def begin(self, delivery: Delivery, topic: str) -> Topic:
        """Keep a topic and its messages for somebody who is about to be subscribed."""
        record = self._get(topic)
        self._idle.pop(topic, None)
        record.joining.add(_subscriber(delivery))
        record.window.hold()
        return record

    def give_up(self, delivery: Delivery, record: Topic) -> None:
        """End what `begin` began."""
        record.joining.remove(_subscriber(delivery))
        record.window.release()
        self.keep_or_forget(record)

    def admit(
        self, delivery: Delivery, record: Topic, messages: list[Prepared], *, recovered: bool
    ) -> bool:
        """Subscribe, and send what came before; false if some of that was left out.

        `recovered` says whether it is all that came after a position.
        """
        around = None
        if isinstance(delivery, ToWebSocket):
            around = delivery.around(record.name, record.window.text, recovered=recovered)
        complete = delivery.replay(messages, record.name, around)
        record.add(delivery)
        if isinstance(delivery, ToWebSocket):
            self._on_change(record.name)
        return complete

    def leave(self, delivery: Delivery, topic: str) -> None:
        record = self._topics.get(topic)
        if record is None:
            return  # the broadcast is over
        record.remove(delivery)
        self.keep_or_forget(record)
        if isinstance(delivery, ToWebSocket):
            delivery.sink.wake()  # a publisher need not wait for it any more
            self._on_change(topic)

    # Topics come and go…

    def _get(self, topic: str) -> Topic:
        """The topic, made if there is none yet."""
        record = self._topics.get(topic)
        if record is None:
            record = self._topics[topic] = Topic(topic, self._make_window())
            if self._backplane is not None:
                self._backplane.subscribe(topic)
        return record

    def _make_window(self) -> Window:
        if self._backplane is not None and self._backplane.keeps_positions:
            return Window(self._history_size, None)
        return Window(self._history_size, Position(_new_epoch(), 0))

    def keep_or_forget(self, record: Topic) -> None:
        """Forget a topic that nobody wants, unless its history is among those that are kept."""
        if record.is_wanted or self._topics.get(record.name) is not record:
            return
        self._idle.pop(record.name, None)
        if not record.window:
            self._forget(record.name)
            return
        self._idle[record.name] = None
        if len(self._idle) > self._max_idle:
            oldest, _ = self._idle.popitem(last=False)
            self._forget(oldest)

    def _forget(self, topic: str) -> None:
        del self._topics[topic]
        self._own.forget(topic)
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


def _subscriber(delivery: Delivery) -> WebSocket | ToChannel:
    return delivery.websocket if isinstance(delivery, ToWebSocket) else delivery


def _new_epoch() -> str:
    """The name of one life of a topic's history. No other has it, in this process or another."""
    return os.urandom(6).hex()


def _tell_nobody(_: str) -> None:
    """Nobody comes or goes any more."""
