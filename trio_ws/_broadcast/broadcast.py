"""Broadcasting: what one publishes, many get, and none of them holds up another.

This module owns topics: who is subscribed to which, their history, and who waits for somebody to
come or go. How a message gets to one subscriber is `to_websocket`'s and `to_channel`'s, and other
processes are the backplane's.

All of it belongs to one trio loop and is plain code without awaits: a message is with all its
subscribers, or in line for them, when `publish` returns. So nothing is ever half done, and no lock
is needed. What the application is told by its own functions, it is told after that, and what those
raise is logged: a publisher is not to suffer for it.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from threading import get_ident
from types import TracebackType
from typing import TypeAlias, TypeVar, final

import trio
from trio.lowlevel import ParkingLot

from .._arguments import check_plain
from .._connection.websocket import WebSocket
from .._json import to_json
from .._nursery import open_bare_nursery, protected_context
from .._options import check_limit, check_logger
from .._pacing import DEFLATE_WORK, MESSAGE_WORK, spend
from .._protocol.message import Message, checked_message
from .._protocol.prepared import Prepared
from .._threads import in_other_thread
from ..backplane._base import Backplane
from .history import History, Kept
from .policies import Disconnect, Limits, SlowReaderPolicy
from .tally import Dropped, Tally
from .to_channel import BroadcastChannel, ToChannel
from .to_websocket import Audience, ToWebSocket

#: How many messages may wait for one subscriber, unless it is said otherwise. A reader this far
#: behind, at ten messages a second, is half a minute late.
MAX_QUEUED_MESSAGES = 256

#: And how many bytes: with a million of them ahead of it, a ping still reaches a reader of
#: 0.5 Mbit/s within the default `ping_timeout`.
MAX_QUEUED_BYTES = 2**20

#: Of how many topics that nobody is subscribed to the history is kept.
MAX_IDLE_TOPICS = 1024

#: How much longer a message may be in the end than `publish_wait` thinks: by an id of more digits,
#: or by compression that fails.
SLACK = 64

T = TypeVar("T")

#: Makes what goes out of a message, its id and its topic.
Envelope: TypeAlias = Callable[[str | bytes, str, str], Message]

#: From which message on a subscriber wants to catch up: its id, or one for each topic.
Since: TypeAlias = str | Mapping[str, str] | None

#: The connections that do not get a message.
Exclude: TypeAlias = WebSocket | Collection[WebSocket] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastStatistics:
    """A snapshot of a broadcast.

    Attributes:
        subscribers: connections that are subscribed to anything.
        channels: those of `Broadcast.open_channel`.
        topics: what there are subscribers or a history of.
        published: messages, those of other processes among them.
        delivered: how often one was handed to a subscriber, to be sent at once or to wait.
        dropped: how often one was dropped because a subscriber was too slow.
        replaced: how often one was replaced by a newer one with its key, before it was sent.
        disconnected: how many subscribers were disconnected because they were too slow.
        queued_messages, queued_bytes: what waits now for all of them, counted once for each.
    """

    subscribers: int
    channels: int
    topics: int
    published: int
    delivered: int
    dropped: int
    replaced: int
    disconnected: int
    queued_messages: int
    queued_bytes: int


class _Topic:
    """The subscribers of one topic, and its history."""

    __slots__ = ("_audience", "channels", "history", "websockets")

    def __init__(self, history: History | None) -> None:
        self._audience: Audience | None = None
        self.websockets: dict[WebSocket, ToWebSocket] = {}
        self.channels: dict[ToChannel, None] = {}
        self.history = history

    @property
    def is_wanted(self) -> bool:
        return bool(self.websockets or self.channels)

    @property
    def audience(self) -> Audience:
        """The connections. Made again when somebody came or went."""
        if self._audience is None:
            self._audience = Audience(self.websockets.values())
        return self._audience

    def add(self, delivery: ToWebSocket) -> None:
        self.websockets[delivery.websocket] = delivery
        self._audience = None

    def remove(self, delivery: ToWebSocket) -> None:
        del self.websockets[delivery.websocket]
        self._audience = None


@dataclass(frozen=True, slots=True)
class _Settings:
    """What `open_broadcast` was given, checked."""

    limits: Limits
    history: int
    max_idle_topics: float
    envelope: Envelope | None
    on_drop: Callable[[Dropped], object] | None
    on_change: Callable[[Broadcast, str], object] | None
    on_gap: Callable[[Broadcast, str | None], object] | None
    backplane: Backplane | None
    logger: logging.Logger

    def __post_init__(self) -> None:
        if isinstance(self.history, bool) or not isinstance(self.history, int):
            raise TypeError(f"history is a number of messages, not {self.history!r}")
        if self.history < 0:
            raise ValueError(f"history is 0 or more messages, not {self.history!r}")
        check_limit("max_idle_topics", self.max_idle_topics)
        functions = {
            "envelope": ("a message", "its id", "its topic"),
            "on_drop": ("a Dropped",),
            "on_change": ("the broadcast", "a topic"),
            "on_gap": ("the broadcast", "a topic or None"),
        }
        for name, arguments in functions.items():
            function = getattr(self, name)
            if function is not None:
                check_plain(name, function, *arguments)
        if self.backplane is not None and not isinstance(self.backplane, Backplane):
            raise TypeError(f"backplane is a Backplane or None, not {self.backplane!r}")
        check_logger(self.logger)


@final
class Broadcast:
    """Topics, their subscribers, and a way to reach them all. `open_broadcast` makes it.

    All methods belong to the trio loop that it was opened in; from another thread, use
    ``trio.from_thread.run_sync(broadcast.publish, message, topic)``. ``len(broadcast)`` is the
    number of connections that are subscribed to anything.
    """

    def __init__(self, settings: _Settings) -> None:
        self._settings = settings
        self._backplane = settings.backplane
        self._tally = Tally(settings.logger, reporting=settings.on_drop is not None)
        self._topics: dict[str, _Topic] = {}
        #: Those of the topics that are there for their history only, the least recently used first.
        self._idle: OrderedDict[str, None] = OrderedDict()
        #: How many subscriptions each connection has.
        self._present: dict[WebSocket, int] = {}
        #: Where tasks wait for somebody to come or go.
        self._watchers: dict[str, ParkingLot] = {}
        self._over = False
        self._thread = get_ident()
        #: Of ids: another run of the program must not give the same to another message.
        self._epoch = os.urandom(4).hex()
        #: Of the last message, or the last gap.
        self._number = 0
        self._published = self._delivered = 0
        #: Up to which number messages may be forgotten with their topic.
        self._forgotten = 0

    # Publishing…

    @trio.lowlevel.enable_ki_protection
    def publish(
        self,
        message: Message,
        topic: str,
        *,
        exclude: Exclude = None,
        compress: bool | None = None,
        keep: bool = True,
    ) -> int:
        """Send a message to all subscribers of a topic.

        Never waits: for a subscriber that cannot take it at once it is queued, as far as the bounds
        and the policy of that subscription allow. What happens to a subscriber is never an
        exception here; after the end of the broadcast nobody gets it.

        The message is encoded once, and compressed at most once for each set of parameters that
        connections have agreed on. For one connection, what is published and what is sent by
        `WebSocket.send` keeps the order in which the calls returned.

        Args:
            message: `str` goes out as text, a buffer as binary.
            topic: any `str`. It need not exist: a topic is what somebody is subscribed to.
            exclude: a connection that does not get it, for example the one that it came from; or
                several. Subscribers in other processes are not affected.
            compress: as for `WebSocket.send`.
            keep: whether histories keep it, here and in other processes. False suits what is state
                rather than news, such as the number of people present: later subscribers would be
                sent all the old numbers. What is not kept has an empty id: no client can come back
                to it.

        Returns:
            How many subscribers of this process it was handed to, channels included. For some it
            may be waiting. Those that it was dropped for, or that are closing, do not count.

        Raises:
            TypeError: `message` or `topic` is not what it should be.
            ValueError: a `str` with lone surrogates, which UTF-8 cannot express.
        """
        self._check_thread()
        data = _checked(message, topic)
        excluded = _as_set(exclude)
        return self._publish(data, topic, excluded=excluded, compress=compress, keep=keep)

    def _publish(
        self,
        data: str | bytes,
        topic: str,
        *,
        excluded: frozenset[WebSocket],
        compress: bool | None,
        keep: bool,
    ) -> int:
        if self._over:
            return 0
        message_id = None if keep else ""
        if self._backplane is not None:
            message_id = self._backplane.publish(topic, data, keep=keep)
        return self._spread(data, topic, message_id, excluded=excluded, compress=compress)

    def publish_json(
        self,
        value: T,
        topic: str,
        *,
        exclude: Exclude = None,
        compress: bool | None = None,
        keep: bool = True,
        dumps: Callable[[T], str | bytes] = to_json,
    ) -> int:
        """Publish `value` as JSON in a text message. `dumps` may give `str` or UTF-8 `bytes`.

        Otherwise like `publish`; what `dumps` raises comes out as it is. Unless told otherwise,
        that is a `ValueError` for NaN and infinity, which are not JSON.
        """
        text = dumps(value)
        text = text if isinstance(text, str) else text.decode()
        return self.publish(text, topic, exclude=exclude, compress=compress, keep=keep)

    @trio.lowlevel.enable_ki_protection
    async def publish_wait(
        self,
        message: Message,
        topic: str,
        *,
        exclude: Exclude = None,
        compress: bool | None = None,
        keep: bool = True,
    ) -> int:
        """`publish`, after waiting until every connection that gets it has room for it.

        So the slowest subscriber sets the pace, for as long as `ping_interval + ping_timeout`, and
        no policy has to act. Channels are not waited for. With a backplane, it also waits for
        room in the backplane's queue. When it is cancelled, the message was not published.

        Raises:
            As `publish`; `RuntimeError` where it would wait for the end of a message that this task
            sends by `WebSocket.open_message`.
        """
        data = _checked(message, topic)
        excluded = _as_set(exclude)
        await trio.lowlevel.checkpoint()
        size = len(self._prepare(data, topic, self._local_id, compress=compress).plain)
        size += SLACK + size // 1000
        while True:
            # There has to be room in both at the same time: whatever waits for one of them looks at
            # the other anew, because others publish meanwhile.
            if self._backplane is not None and not self._over:
                await self._backplane.wait_for_room(data)
            slow = self._first_without_room(topic, size, excluded)
            if slow is None:
                break
            await slow.sink.wait_for_progress()
        return self._publish(data, topic, excluded=excluded, compress=compress, keep=keep)

    def _first_without_room(
        self, topic: str, size: int, excluded: frozenset[WebSocket]
    ) -> ToWebSocket | None:
        record = self._topics.get(topic)
        for delivery in record.websockets.values() if record is not None else ():
            waits = not delivery.sink.is_closed and not delivery.has_room(size)
            if waits and delivery.websocket not in excluded:
                return delivery
        return None

    @property
    def _local_id(self) -> str:
        """The id of the next message, if no backplane gives it one."""
        return f"{self._epoch}-{self._number + 1}"

    def _prepare(
        self, data: str | bytes, topic: str, message_id: str, *, compress: bool | None
    ) -> Prepared:
        """What goes out."""
        if self._settings.envelope is not None:
            data = checked_message(self._settings.envelope(data, message_id, topic))
        return Prepared(data, compress=compress)

    def _spread(
        self,
        data: str | bytes,
        topic: str,
        message_id: str | None,
        *,
        excluded: frozenset[WebSocket] = frozenset(),
        compress: bool | None = None,
    ) -> int:
        """Hand a message to the subscribers here.

        Its id is `None` if it has none yet, and empty if no history is to keep it.
        """
        if message_id is None:
            message_id = self._local_id
        self._number += 1
        self._published += 1
        message = self._prepare(data, topic, message_id, compress=compress)
        keep = bool(message_id and self._settings.history)
        record = self._topic(topic) if keep else self._topics.get(topic)
        if record is None:
            return 0
        if keep and record.history is not None:
            record.history.keep(Kept(self._number, message_id, message))
            self._tidy(topic)
        count = record.audience.deliver(message, topic, excluded)
        for channel in list(record.channels):  # a key function could change the original
            count += channel.deliver(message, topic)
        self._delivered += count
        spend(count * MESSAGE_WORK + DEFLATE_WORK * message.bytes_compressed)
        if self._tally.reports:
            self._report()
        return count

    def _report(self) -> None:
        """Tell the application what was dropped.

        What it publishes itself on hearing this is only counted if it is dropped, or that could go
        on for ever.
        """
        tally = self._tally
        reports, tally.reports = tally.reports, []
        tally.reporting = False
        try:
            for report in reports:
                self._call(self._settings.on_drop, report)
        finally:
            tally.reporting = True

    def _call(self, function: Callable[..., object] | None, *arguments: object) -> None:
        if function is None:
            return
        try:
            function(*arguments)
        except Exception:
            # It is told of something that has happened to somebody else: whoever caused that, a
            # publisher or another handler, can do nothing about its mistake.
            self._settings.logger.exception("%r failed", function)

    # Subscribing…

    def subscribe(
        self,
        websocket: WebSocket,
        *topics: str,
        policy: SlowReaderPolicy | None = None,
        max_queued_messages: float | None = None,
        max_queued_bytes: float | None = None,
        since: Since = None,
    ) -> Subscription:
        """Subscribe a connection to topics, for as long as a block goes on::

            with broadcast.subscribe(ws, "news", "weather"):
                async for message in ws:
                    ...

        The connection may be a server's or a client's. It goes on being used as before: what is
        published just arrives between what is sent. Each topic begins with its history, if the
        broadcast keeps one.

        When the block is left, or the broadcast ends, nothing more comes; what waits already is
        still sent. If the connection ends, it is not sent anything, and its handler has to leave
        the block: `async for` and `WebSocket.open_nursery` see to that.

        Args:
            websocket: the connection.
            topics: perhaps none at first; see `Subscription.add`.
            policy: what to do if it is too slow, if not what `open_broadcast` was given.
            max_queued_messages: how many messages may wait for this connection; the same.
            max_queued_bytes: how many bytes of frames; the same.
            since: the id of the last message that the subscriber has, to be sent only what came
                after it. It may be anything that a client says it is. A mapping has one for each
                topic, which is needed where the ids are a backplane's.

        Raises:
            TypeError, ValueError: an argument is wrong.

        On entering the block:

        Raises:
            trio.ClosedResourceError: the broadcast is over.
            ValueError: it is subscribed to one of the topics already.
        """
        if not isinstance(websocket, WebSocket):
            raise TypeError(f"a subscriber is a WebSocket, not {websocket!r}")
        _check_topics(topics)
        limits = self._limits(policy, max_queued_messages, max_queued_bytes)
        return Subscription(self, websocket, topics, limits, _checked_since(since))

    def _limits(
        self, policy: SlowReaderPolicy | None, messages: float | None, size: float | None
    ) -> Limits:
        default = self._settings.limits
        return Limits(
            default.policy if policy is None else policy,
            default.max_queued_messages if messages is None else messages,
            default.max_queued_bytes if size is None else size,
        )

    def open_channel(
        self,
        topic: str,
        *,
        policy: SlowReaderPolicy | None = None,
        max_queued_messages: float | None = None,
        max_queued_bytes: float | None = None,
        since: Since = None,
    ) -> AbstractAsyncContextManager[BroadcastChannel]:
        """A channel that gives any task the messages of a topic, for as long as a block goes on::

            async with broadcast.open_channel("news") as channel:
                async for message in channel:
                    ...

        Entering is a checkpoint and waits for nothing. If it is cancelled, nothing was opened.

        It ends when the broadcast does, and where the policy is `Disconnect` and it was too slow:
        what waits can still be received. Otherwise the arguments mean what they mean to
        `subscribe`, and the messages are the same.

        Raises:
            TypeError, ValueError: an argument is wrong.
            trio.ClosedResourceError: on entering the block: the broadcast is over.
        """
        _check_topics((topic,))
        limits = self._limits(policy, max_queued_messages, max_queued_bytes)
        return _OpenChannel(self, topic, limits, _checked_since(since))

    def _check_thread(self) -> None:
        if get_ident() != self._thread:
            raise in_other_thread("broadcast", "broadcast.publish")

    def _check_open(self) -> None:
        self._check_thread()
        if self._over:
            raise trio.ClosedResourceError("the block of open_broadcast() was left")

    def _topic(self, topic: str) -> _Topic:
        """What is known of a topic, from now on."""
        record = self._topics.get(topic)
        if record is None:
            size = self._settings.history
            history = History(size, self._forgotten) if size else None
            record = self._topics[topic] = _Topic(history)
            if self._backplane is not None:
                self._backplane.subscribe(topic)
        return record

    def _tidy(self, topic: str) -> None:
        """Forget what nobody wants any more."""
        record = self._topics[topic]
        self._idle.pop(topic, None)
        if record.is_wanted:
            return
        if record.history:
            self._idle[topic] = None
            if len(self._idle) > self._settings.max_idle_topics:
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

    def _enter(self, websocket: WebSocket) -> None:
        self._present[websocket] = self._present.get(websocket, 0) + 1

    def _exit(self, websocket: WebSocket) -> None:
        if not self._over:
            self._present[websocket] -= 1
            if not self._present[websocket]:
                del self._present[websocket]

    def _join(self, delivery: ToWebSocket, topic: str, since: str | None) -> bool:
        """Subscribe a connection; true if it has missed something."""
        record = self._topic(topic)
        self._idle.pop(topic, None)
        messages, missed = self._newer(record.history, since)
        complete = delivery.replay(messages, topic)
        record.add(delivery)
        self._tell_change(topic)
        return missed or not complete

    def _leave(self, delivery: ToWebSocket, topic: str) -> None:
        record = self._topics.get(topic)
        if record is None or record.websockets.get(delivery.websocket) is not delivery:
            return  # the broadcast is over
        record.remove(delivery)
        self._tidy(topic)
        delivery.sink.wake()
        self._tell_change(topic)

    def _join_channel(self, channel: ToChannel, since: str | None) -> None:
        self._check_open()
        record = self._topic(channel.topic)
        self._idle.pop(channel.topic, None)
        channel.replay(self._newer(record.history, since)[0], channel.topic)
        record.channels[channel] = None

    def _leave_channel(self, channel: ToChannel) -> None:
        record = self._topics.get(channel.topic)
        if record is not None and record.channels.pop(channel, channel) is None:
            self._tidy(channel.topic)

    # Looking back…

    def _newer(self, history: History | None, since: str | None) -> tuple[list[Prepared], bool]:
        """What came after the message with that id, and whether more did that is lost."""
        if history is None:
            return [], since is not None
        if since is None:
            return history.everything(), False
        number = self._number_of(since, history)
        return (history.everything(), True) if number is None else history.after(number)

    def _number_of(self, message_id: str, history: History) -> int | None:
        number = history.find(message_id)
        if number is not None:
            return number
        # It is of another topic, or no more kept, or whatever a client has made up.
        epoch, _, digits = message_id.rpartition("-")
        if epoch != self._epoch or not digits.isascii() or not digits.isdigit():
            return None
        return int(digits) if len(digits) < 20 and int(digits) <= self._number else None

    # Who is there…

    def __len__(self) -> int:
        return len(self._present)

    def __bool__(self) -> bool:
        return True  # also where nobody is there

    def subscribers(self, topic: str) -> frozenset[WebSocket]:
        """The connections that are subscribed to a topic now, in this process."""
        record = self._topics.get(topic)
        return frozenset(record.websockets) if record is not None else frozenset()

    def presence(self, topic: str) -> AsyncIterator[int]:
        """How many connections are subscribed to a topic: now, and whenever that has changed::

            async for users in broadcast.presence("lobby"):
                broadcast.publish_json({"users": users}, "lobby", keep=False)

        Changes that come while nobody asks are given as one. It ends when the broadcast does.
        """
        return _Presence(self, topic)

    def _tell_change(self, topic: str) -> None:
        watchers = self._watchers.get(topic)
        if watchers is not None:
            watchers.unpark_all()
        self._call(self._settings.on_change, self, topic)

    async def _wait_for_change(self, topic: str) -> None:
        watchers = self._watchers.setdefault(topic, ParkingLot())
        try:
            await watchers.park()
        finally:
            if not watchers and self._watchers.get(topic) is watchers:
                del self._watchers[topic]

    def statistics(self) -> BroadcastStatistics:
        """How many there are, what was published, and what became of it."""
        # A connection that is subscribed to several topics has one queue.
        connections = {
            websocket: delivery
            for record in self._topics.values()
            for websocket, delivery in record.websockets.items()
        }
        channels = [channel for record in self._topics.values() for channel in record.channels]
        queued = [delivery.sink.waiting() for delivery in connections.values()]
        queued += [channel.sink.waiting() for channel in channels]
        return BroadcastStatistics(
            subscribers=len(self),
            channels=len(channels),
            topics=len(self._topics),
            published=self._published,
            delivered=self._delivered,
            dropped=self._tally.dropped,
            replaced=self._tally.replaced,
            disconnected=self._tally.disconnected,
            queued_messages=sum(messages for messages, _ in queued),
            queued_bytes=sum(size for _, size in queued),
        )

    def __repr__(self) -> str:
        state = "ended" if self._over else "open"
        return (
            f"<Broadcast {state}, {len(self)} subscribers, {len(self._topics)} topics, "
            f"{self._published} published>"
        )

    # Other processes…

    def _take(self, topic: str, message: str | bytes, message_id: str) -> None:
        """A message of another process came. Called by the backplane."""
        if not self._over:
            self._call(self._spread, message, topic, message_id)

    def _note_gap(self, topic: str | None) -> None:
        """Messages of other processes may be missing. Called by the backplane."""
        self._number += 1
        for name, record in self._topics.items():
            if record.history is not None and topic in (None, name):
                record.history.lost = self._number
        self._call(self._settings.on_gap, self, topic)

    # The end…

    def _end(self) -> None:
        """End every subscription. Waits for nothing, and throws nothing away."""
        self._over = True
        topics, self._topics = self._topics, {}
        self._idle.clear()
        self._present.clear()
        for record in topics.values():
            for delivery in record.websockets.values():
                delivery.sink.wake()
            for channel in record.channels:
                channel.sink.end()
        for watchers in self._watchers.values():
            watchers.unpark_all()


@final
class Subscription:
    """What `Broadcast.subscribe` gives: a context manager, to be used once.

    Attributes:
        websocket: the connection.
        missed: whether messages are missing from what came on subscribing: some after `since` are
            not kept any more, or it is unknown; or the connection is slow and had no room for them.
            The client should load all of its state again.
    """

    __slots__ = (
        "_broadcast",
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
        broadcast: Broadcast,
        websocket: WebSocket,
        topics: tuple[str, ...],
        limits: Limits,
        since: Since,
    ) -> None:
        self.websocket: WebSocket = websocket
        self.missed: bool = False
        self._broadcast = broadcast
        self._delivery = ToWebSocket(websocket, limits, broadcast._tally)
        #: What it is subscribed to; before the block is entered, what it will be.
        self._topics: dict[str, None] = dict.fromkeys(topics)
        self._since = since
        self._entered = self._left = False

    @property
    def topics(self) -> frozenset[str]:
        """What the connection is subscribed to by this block."""
        return frozenset(self._topics)

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> Subscription:
        if self._entered:
            raise RuntimeError("a subscription is entered once: call subscribe() again")
        wanted = tuple(self._topics)
        self._broadcast._check_open()
        self._check_new(wanted)
        self._entered = True
        self._topics.clear()
        self._broadcast._enter(self.websocket)
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
        self._broadcast._exit(self.websocket)
        self.discard(*self._topics)

    @trio.lowlevel.enable_ki_protection
    def add(self, *topics: str, since: Since = None) -> None:
        """Subscribe to more topics. Those that it has already change nothing.

        Raises:
            TypeError: a topic or `since` is not what it should be.
            ValueError: the connection is subscribed to one of them by another block.
            trio.ClosedResourceError: the block was left, or not entered yet, or the broadcast is
                over.
        """
        _check_topics(topics)
        since = _checked_since(since)
        if not self._entered or self._left:
            raise trio.ClosedResourceError("this is not inside the block of subscribe()")
        self._broadcast._check_open()
        wanted = tuple(topic for topic in dict.fromkeys(topics) if topic not in self._topics)
        self._check_new(wanted)
        self._add(wanted, since)

    @trio.lowlevel.enable_ki_protection
    def discard(self, *topics: str) -> None:
        """Unsubscribe from topics. Those that it has not change nothing."""
        for topic in topics:
            if topic in self._topics:
                del self._topics[topic]
                self._broadcast._leave(self._delivery, topic)

    def _check_new(self, topics: tuple[str, ...]) -> None:
        for topic in topics:
            record = self._broadcast._topics.get(topic)
            if record is not None and self.websocket in record.websockets:
                raise ValueError(f"this connection is subscribed to {topic!r} already")

    def _add(self, topics: tuple[str, ...], since: Since) -> None:
        for topic in topics:
            self._topics[topic] = None
            if self._broadcast._join(self._delivery, topic, _since(since, topic)):
                self.missed = True

    def __repr__(self) -> str:
        topics = ", ".join(map(repr, self._topics)) or "nothing"
        return f"<Subscription of {self.websocket.id} to {topics}>"


@final
class _OpenChannel(AbstractAsyncContextManager[BroadcastChannel]):
    """The block of `Broadcast.open_channel`."""

    def __init__(self, broadcast: Broadcast, topic: str, limits: Limits, since: Since) -> None:
        self._broadcast = broadcast
        self._topic = topic
        self._limits = limits
        self._since = since
        self._delivery: ToChannel | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> BroadcastChannel:
        await trio.lowlevel.checkpoint()
        if self._delivery is not None:
            raise RuntimeError("a channel is opened once: call open_channel() again")
        self._broadcast._check_open()
        self._delivery = ToChannel(self._topic, self._limits, self._broadcast._tally)
        self._broadcast._join_channel(self._delivery, _since(self._since, self._topic))
        return self._delivery.channel

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._delivery is not None
        self._broadcast._leave_channel(self._delivery)
        self._delivery.channel.close()


@final
class _Presence(AsyncIterator[int]):
    """What `Broadcast.presence` gives. It is no generator, so that nothing is left to be closed."""

    def __init__(self, broadcast: Broadcast, topic: str) -> None:
        self._broadcast = broadcast
        self._topic = topic
        self._given: int | None = None

    async def __anext__(self) -> int:
        await trio.lowlevel.checkpoint()
        while not self._broadcast._over:
            users = len(self._broadcast.subscribers(self._topic))
            if users != self._given:
                self._given = users
                return users
            await self._broadcast._wait_for_change(self._topic)
        raise StopAsyncIteration


def _checked(message: Message, topic: str) -> str | bytes:
    _check_topics((topic,))
    return checked_message(message)


def _check_topics(topics: tuple[str, ...]) -> None:
    for topic in topics:
        if not isinstance(topic, str):
            # A message that was given in its place may be long, and is nobody else's business.
            raise TypeError(f"a topic is a str, not {type(topic).__name__}")


def _as_set(exclude: Exclude) -> frozenset[WebSocket]:
    if exclude is None:
        return frozenset()
    excluded = frozenset({exclude} if isinstance(exclude, WebSocket) else exclude)
    if not all(isinstance(each, WebSocket) for each in excluded):
        raise TypeError(f"exclude is a WebSocket or several, not {exclude!r}")
    return excluded


def _checked_since(since: Since) -> Since:
    if since is not None and not isinstance(since, (str, Mapping)):
        raise TypeError(f"since is the id of a message, or one for each topic, not {since!r}")
    return since


def _since(since: Since, topic: str) -> str | None:
    return since.get(topic) if isinstance(since, Mapping) else since


@protected_context
async def open_broadcast(
    *,
    policy: SlowReaderPolicy | None = None,
    max_queued_messages: float = MAX_QUEUED_MESSAGES,
    max_queued_bytes: float = MAX_QUEUED_BYTES,
    history: int = 0,
    max_idle_topics: float = MAX_IDLE_TOPICS,
    envelope: Envelope | None = None,
    on_drop: Callable[[Dropped], object] | None = None,
    on_change: Callable[[Broadcast, str], object] | None = None,
    on_gap: Callable[[Broadcast, str | None], object] | None = None,
    backplane: Backplane | None = None,
    logger: logging.Logger | None = None,
) -> AsyncGenerator[Broadcast, None]:
    """Publish to many connections at once, for as long as a block goes on::

        async with open_broadcast() as broadcast:

            async def relay(ws):
                with broadcast.subscribe(ws, "all"):
                    async for message in ws:
                        broadcast.publish(message, "all")

            await serve_websocket(relay, "localhost", 8765)

    Leaving the block ends every subscription and every channel, and waits for nothing. What waits
    for connections is still sent as long as they live.

    A connection is a slow one when its socket takes no more. What is published then waits for it,
    up to the bounds, and behind them the policy acts. The bounds count for each connection, and on
    top of them there is what the system holds in its buffers.

    Args:
        policy: what to do about a subscriber that is too slow: ``Disconnect(1013, "too slow")``
            unless it is said otherwise, because nothing is then missing without notice. Each
            subscription may have its own.
        max_queued_messages: how many messages may wait for one connection or channel.
        max_queued_bytes: how many bytes. Where nothing waits, one message may be larger.
        history: how many of its last messages a topic keeps, to be sent to new subscribers.
        max_idle_topics: of how many topics that nobody is subscribed to the history is kept; the
            least recently used is forgotten first.
        envelope: ``envelope(message, id, topic)``, called with each; what it returns goes out
            instead. So clients can learn the ids, to come back with as `since`.
        on_drop: ``on_drop(dropped)``, called with a `Dropped` for each message that a subscriber
            did not get because it was slow. Messages that are replaced under `Latest` are only
            counted.
        on_change: ``on_change(broadcast, topic)``, called when a connection has subscribed to the
            topic or is not subscribed any more. It may publish.
        on_gap: ``on_gap(broadcast, topic)``, with `None` for all topics, called when messages of
            other processes may be missing.
        backplane: joins this broadcast with those of other processes.
        logger: where the exceptions of these functions go; ``trio_ws`` by default.

    None of these functions may wait, and what they raise is logged. That they can be called so is
    checked here.

    Raises:
        TypeError, ValueError: an argument is wrong.
        BackplaneError: the backplane's broker refused us at the start.
    """
    limits = Limits(
        Disconnect() if policy is None else policy, max_queued_messages, max_queued_bytes
    )
    broadcast = Broadcast(
        _Settings(
            limits,
            history,
            max_idle_topics,
            envelope,
            on_drop,
            on_change,
            on_gap,
            backplane,
            logging.getLogger("trio_ws") if logger is None else logger,
        )
    )
    try:
        if backplane is None:
            yield broadcast
        else:
            async with open_bare_nursery() as nursery:
                await nursery.start(backplane.run, broadcast._take, broadcast._note_gap)
                try:
                    yield broadcast
                finally:
                    broadcast._end()
                    nursery.cancel_scope.cancel()
    finally:
        broadcast._end()
