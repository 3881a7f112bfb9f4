"""Broadcasting: one publishes, many get the message, and no subscriber holds up another.

This module owns what a publisher and the application see of it: encoding a message once, waiting
for room, and calling the application's functions. Topics and their subscribers are in `topics`.
`slow_readers` decides what becomes of a message for a slow reader. The backplane speaks with other
processes.

All of it belongs to one trio loop and is plain code without awaits. When `publish` returns, every
subscriber has the message or has it in line. So nothing is ever half done, and no lock is needed.
The application's functions are called after that, and their exceptions are logged: a publisher must
not suffer for them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, final

import trio

from .._arguments import check_plain
from .._connection.websocket import WebSocket
from .._json import to_json
from .._log import LoggerLike
from .._metering import (
    DELIVERED,
    DELIVERY_TIME,
    METER,
    PUBLISHED,
    SUBSCRIBERS,
    TOPICS,
    Meter,
    Numbers,
    measured,
)
from .._nursery import open_bare_nursery, protected_context
from .._options import check_limit, check_logger
from .._pacing import DEFLATE_WORK, MESSAGE_WORK, spend
from .._protocol.message import Message, checked_message
from .._protocol.prepared import Prepared
from ..backplane._base import Backplane, BackplaneMessage
from ..backplane._metering import measure_backplane
from .history import Since, checked_since
from .policies import Disconnect, Limits, SlowReaderPolicy
from .presence import Attendance, Membership, Presence, check_lease
from .subscription import ChannelBlock, Subscription
from .tally import BroadcastStatistics, Dropped, Tally
from .to_channel import BroadcastChannel, ToChannel
from .to_websocket import ToWebSocket
from .topics import INTERNAL, Topic, Topics, check_topics

#: How many messages may wait for one subscriber by default. A reader this far behind, at ten
#: messages a second, is half a minute late.
MAX_QUEUED_MESSAGES = 256

#: And how many bytes: with a million of them ahead of it, a ping still reaches a reader of
#: 0.5 Mbit/s within the default `ping_timeout`.
MAX_QUEUED_BYTES = 2**20

#: After how many seconds a process is given up. One that is alive speaks three times in that.
PRESENCE_LEASE = 10.0

#: How many topics without subscribers keep their history.
MAX_IDLE_TOPICS = 1024

#: How many bytes longer a message may be in the end than `publish_wait` expects: its id may have
#: more digits by then, or compression may not help.
SLACK = 64

T = TypeVar("T")

#: Is given a message, its id and its topic, and returns what goes out.
Envelope: TypeAlias = Callable[[str | bytes, str, str], Message]

#: The connections that do not get a message.
Exclude: TypeAlias = WebSocket | Collection[WebSocket] | None


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
    presence_lease: float
    logger: LoggerLike
    meter: Meter | None

    def __post_init__(self) -> None:
        if isinstance(self.history, bool) or not isinstance(self.history, int):
            raise TypeError(f"history is a number of messages, not {self.history!r}")
        if self.history < 0:
            raise ValueError(f"history is 0 or more messages, not {self.history!r}")
        check_limit("max_idle_topics", self.max_idle_topics)
        check_lease(self.presence_lease)
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
        self._meter = settings.meter
        self._tally = Tally(
            settings.logger, reporting=settings.on_drop is not None, meter=settings.meter
        )
        self._topics = Topics(
            settings.history, settings.max_idle_topics, settings.backplane, self._tell_change
        )
        self._attendance = Attendance(
            settings.backplane,
            settings.presence_lease,
            self._topics.check_open,
            settings.logger,
        )
        self._published = self._delivered = 0

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

        Never waits. For a subscriber that cannot take it at once, the message is queued, as far as
        the bounds and the policy of that subscription allow. A subscriber that fails raises nothing
        here. After the end of the broadcast, nobody gets the message.

        The message is encoded once, and compressed at most once for each set of parameters that
        connections have agreed on. On one connection, published messages and those of
        `WebSocket.send` arrive in the order in which the calls returned.

        Args:
            message: `str` goes out as text, a buffer as binary.
            topic: any `str`. Topics need not be made: there is one while somebody is subscribed.
            exclude: a connection that does not get it, for example the sender's; or several.
                Subscribers in other processes are not affected.
            compress: as for `WebSocket.send_nowait`: more than 512 KiB only if it is true.
                A message of any size is encoded at once.
            keep: whether histories keep it, here and in other processes. False suits state rather
                than news, such as the number of people present: a later subscriber would be sent
                all the old numbers. A message that is not kept has an empty id, because no client
                can come back to it.

        Returns:
            How many subscribers of this process it was handed to, channels included. For some it
            may be waiting. A subscriber that it was dropped for, or that is closing, does not
            count.

        Raises:
            TypeError: `message` or `topic` is of a wrong type.
            ValueError: a `str` with lone surrogates, which UTF-8 cannot express.
        """
        self._topics.check_thread()
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
        if self._topics.is_over:
            return 0
        message_id = None if keep else ""
        if self._backplane is not None:
            self._backplane.publish(topic, data, keep=keep)
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

        So the slowest subscriber sets the pace, for up to `ping_interval + ping_timeout`, and no
        policy has to act. It does not wait for channels. With a backplane, it also waits for room
        in the backplane's queue. When it is cancelled, the message was not published.

        Raises:
            As `publish`; `RuntimeError` if it would wait for the end of a message that this task
            itself sends by `WebSocket.open_message`.
        """
        data = _checked(message, topic)
        excluded = _as_set(exclude)
        await trio.lowlevel.checkpoint()
        size = len(self._prepare(data, topic, self._topics.next_id, compress=compress).plain)
        size += SLACK + size // 1000
        while True:
            # Both must have room at the same moment. Others publish while this task waits for one
            # of them, so it looks at the other again.
            if self._backplane is not None and not self._topics.is_over:
                await self._backplane.wait_for_room(data)
            slow = self._first_without_room(topic, size, excluded)
            if slow is None:
                break
            await slow.sink.wait_for_progress()
        return self._publish(data, topic, excluded=excluded, compress=compress, keep=keep)

    def _first_without_room(
        self, topic: str, size: int, excluded: frozenset[WebSocket]
    ) -> ToWebSocket | None:
        for delivery in self._topics.deliveries(topic).values():
            waits = not delivery.sink.is_closed and not delivery.has_room(size)
            if waits and delivery.websocket not in excluded:
                return delivery
        return None

    def _prepare(
        self, data: str | bytes, topic: str, message_id: str, *, compress: bool | None
    ) -> Prepared:
        """Encode what goes out."""
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
        """Hand a message to the subscribers in this process.

        Its id is `None` if no backplane gave it one, and empty if no history is to keep it.
        """
        if message_id is None:
            message_id = self._topics.next_id
        number = self._topics.number()
        self._published += 1
        # Numbered before this: an envelope may publish, and two messages must not have one id.
        message = self._prepare(data, topic, message_id, compress=compress)
        record = self._topics.record(topic, number, message_id, message)
        if record is None:
            return 0
        if self._meter is None:
            count = record.deliver(message, topic, excluded)
        else:
            count = self._deliver_metered(self._meter, record, message, topic, excluded)
        self._delivered += count
        spend(count * MESSAGE_WORK + DEFLATE_WORK * message.bytes_compressed)
        if self._tally.reports:
            self._report()
        return count

    def _deliver_metered(
        self,
        meter: Meter,
        record: Topic,
        message: Prepared,
        topic: str,
        excluded: frozenset[WebSocket],
    ) -> int:
        """Deliver, and note how long that took; for whom it has to wait, `slow_readers` does."""
        started, delayed = trio.current_time(), self._tally.delayed
        count = record.deliver(message, topic, excluded)
        at_once = count - (self._tally.delayed - delayed)
        if at_once > 0:  # it is less than 0 after a key function that published
            meter.observe(DELIVERY_TIME, trio.current_time() - started, at_once)
        return count

    def _report(self) -> None:
        """Tell the application what was dropped.

        The application may publish when it is told. If that is dropped, it is only counted: reports
        about reports could go on for ever.
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
            # The function is at fault. The publisher or handler that is running now is not, and can
            # do nothing about it.
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

        The connection may be a server's or a client's. It can be used as before: published messages
        go out between those that are sent. If the broadcast keeps a history, each topic begins with
        that.

        When the block is left or the broadcast ends, nothing more is queued. Messages that wait
        already are still sent. If the connection ends, nothing is sent to it, and its handler has
        to leave the block: `async for` and `WebSocket.open_nursery` see to that.

        Args:
            websocket: the connection.
            topics: perhaps none at first; see `Subscription.add`.
            policy: what to do if it is too slow. This and the next two are by default what
                `open_broadcast` was given.
            max_queued_messages: how many messages may wait for this connection.
            max_queued_bytes: how many bytes of frames may.
            since: the id of the last message that the subscriber has. It is sent only what came
                after that. The id need not be checked: it may be anything that a client sends. A
                mapping has an id for each topic.

        Raises:
            TypeError, ValueError: an argument is wrong.

        On entering the block:

        Raises:
            trio.ClosedResourceError: the broadcast is over.
            ValueError: the connection is subscribed to one of the topics already.
        """
        if not isinstance(websocket, WebSocket):
            raise TypeError(f"a subscriber is a WebSocket, not {websocket!r}")
        check_topics(topics)
        limits = self._limits(policy, max_queued_messages, max_queued_bytes)
        delivery = ToWebSocket(websocket, limits, self._tally)
        return Subscription(self._topics, delivery, topics, checked_since(since))

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

        The channel ends when the broadcast does, or when its reader is too slow and the policy is
        `Disconnect`. What waits can still be received. Otherwise messages and arguments are those
        of `subscribe`.

        Raises:
            TypeError, ValueError: an argument is wrong.
            trio.ClosedResourceError: on entering the block: the broadcast is over.
        """
        check_topics((topic,))
        limits = self._limits(policy, max_queued_messages, max_queued_bytes)
        delivery = ToChannel(topic, limits, self._tally)
        return ChannelBlock(self._topics, delivery, checked_since(since))

    # Who is there…

    def __len__(self) -> int:
        return self._topics.connections

    def __bool__(self) -> bool:
        return True  # else ``if broadcast`` would ask whether anybody is subscribed

    def subscribers(self, topic: str) -> frozenset[WebSocket]:
        """The connections that are subscribed to a topic now, in this process."""
        return frozenset(self._topics.deliveries(topic))

    def join(
        self,
        topic: str,
        member_id: str,
        value: object = None,
        *,
        websocket: WebSocket | None = None,
    ) -> Membership:
        """Be present in a topic, for as long as a block goes on::

            with broadcast.join("lobby", user.id, {"name": user.name}, websocket=ws):
                async for message in ws:
                    ...

        All processes that share the backplane see it by `presence`. Whether anything is subscribed
        to the topic does not matter. The same id may be present several times, in other tabs or
        processes: it leaves with the last, and its value is that of the one who came last.

        Nothing here waits. Others learn of it a moment later, and of the end of the block as well.
        If this process is killed, its members are gone after `presence_lease`.

        Args:
            topic: any `str` that `publish` takes.
            member_id: who it is, in at most 256 bytes of UTF-8.
            value: what others are shown with it, a small value: at most 4096 bytes as JSON. They
                get a copy, as JSON makes it. `Membership.update` changes it.
            websocket: the connection whose user it is. If this side closes that with 1001 or 1012,
                as in a drain, a restart or at `max_lifetime`, the client will come back, perhaps
                to another process. So the member stays until it is seen again, or for
                `presence_lease`.

        Raises:
            TypeError, ValueError: an argument is wrong.

        On entering the block:

        Raises:
            trio.ClosedResourceError: the broadcast is over.
        """
        check_topics((topic,))
        if websocket is not None and not isinstance(websocket, WebSocket):
            raise TypeError(f"websocket is a WebSocket or None, not {websocket!r}")
        return Membership(self._attendance, topic, member_id, value, websocket)

    def presence(self, topic: str) -> Presence:
        """Who is in a topic, in all processes: those of `join`::

            async for snapshot in broadcast.presence("lobby"):
                await ws.send_json({"users": snapshot.count})

        The loop gives a `PresenceSnapshot` at once, and another whenever somebody has come, left or
        changed. Several changes between two steps of the loop are given as one. The loop ends when
        the broadcast does.

        `Presence.count` and `Presence.members` give what this process knows, without waiting. It
        knows what goes on in a topic while somebody here is in it, and for 30 s after each look at
        it. Otherwise the look has the other processes asked, and their answers come later.
        ``await anext(broadcast.presence(topic))`` waits for them, for half a second or so.
        """
        check_topics((topic,))
        return Presence(self._attendance, topic)

    def _tell_change(self, topic: str) -> None:
        self._call(self._settings.on_change, self, topic)

    def statistics(self) -> BroadcastStatistics:
        """How many subscribers there are, what was published, and what became of it."""
        waiting = self._topics.waiting()
        return BroadcastStatistics(
            subscribers=len(self),
            channels=waiting.channels,
            topics=len(self._topics),
            published=self._published,
            delivered=self._delivered,
            dropped=self._tally.dropped,
            replaced=self._tally.replaced,
            disconnected=self._tally.disconnected,
            members=self._attendance.roster.seats,
            malformed=self._attendance.malformed,
            queued_messages=waiting.messages,
            queued_bytes=waiting.bytes,
        )

    def _measure(self, numbers: Numbers) -> Iterator[None]:
        """A source of a meter. What waits for connections, these tell themselves."""
        numbers[SUBSCRIBERS.start] += len(self)
        numbers[TOPICS.start] += len(self._topics)
        numbers[PUBLISHED.start] += self._published
        numbers[DELIVERED.start] += self._delivered
        self._tally.measure(numbers)
        if self._backplane is not None:
            measure_backplane(self._backplane, numbers)
        yield

    def __repr__(self) -> str:
        state = "ended" if self._topics.is_over else "open"
        return (
            f"<Broadcast {state}, {len(self)} subscribers, {len(self._topics)} topics, "
            f"{self._published} published>"
        )

    # Other processes…

    def _receive(self, message: BackplaneMessage) -> None:
        """Called by the backplane: a message came. Our own were delivered already."""
        if self._topics.is_over or message.token is not None:
            return
        if message.topic.startswith(INTERNAL):
            self._attendance.receive(message.topic, message.message)
        else:
            message_id = None if message.kept else ""
            self._call(self._spread, message.message, message.topic, message_id)

    def _note_gap(self, topic: str | None) -> None:
        """Called by the backplane: messages of other processes may be missing."""
        if topic is not None and topic.startswith(INTERNAL):
            return  # presence mends itself
        self._topics.note_gap(topic)
        self._call(self._settings.on_gap, self, topic)

    # The end…

    def _end(self) -> None:
        """End every subscription. Waits for nothing, and throws nothing away."""
        self._topics.end()
        self._attendance.end()


def _checked(message: Message, topic: str) -> str | bytes:
    check_topics((topic,))
    return checked_message(message)


def _as_set(exclude: Exclude) -> frozenset[WebSocket]:
    if exclude is None:
        return frozenset()
    excluded = frozenset({exclude} if isinstance(exclude, WebSocket) else exclude)
    if not all(isinstance(each, WebSocket) for each in excluded):
        raise TypeError(f"exclude is a WebSocket or several, not {exclude!r}")
    return excluded


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
    presence_lease: float = PRESENCE_LEASE,
    logger: LoggerLike | None = None,
) -> AsyncGenerator[Broadcast, None]:
    """Publish to many connections at once, for as long as a block goes on::

        async with open_broadcast() as broadcast:

            async def relay(ws):
                with broadcast.subscribe(ws, "all"):
                    async for message in ws:
                        broadcast.publish(message, "all")

            await serve_websocket(relay, "localhost", 8765)

    Leaving the block ends every subscription and every channel, and waits for nothing. Messages
    that wait for connections are still sent as long as these live. Only where members of this
    process are known to others, it waits for up to a second until the backplane has taken what is
    to be told of them.

    A connection is slow while its socket takes no more. Published messages then wait for it, up to
    the bounds. Beyond these, the policy acts. The bounds are for each connection. The system holds
    more in its buffers, which they do not count.

    Args:
        policy: what to do about a subscriber that is too slow: by default
            ``Disconnect(1013, "too slow")``, because then nothing is missing without notice. Each
            subscription may have its own policy.
        max_queued_messages: how many messages may wait for one connection or channel.
        max_queued_bytes: how many bytes may. Where nothing waits, one message may be larger.
        history: how many messages a topic keeps, its last ones, to be sent to new subscribers.
        max_idle_topics: how many topics without subscribers keep their history. The least recently
            used is forgotten first.
        envelope: ``envelope(message, id, topic)``, called with each message. What it returns goes
            out instead. In this way clients learn the ids, to come back with one as `since`.
        on_drop: ``on_drop(dropped)``, called with a `Dropped` for each message that a subscriber
            did not get because it was slow. Messages replaced under `Latest` are only counted.
        on_change: ``on_change(broadcast, topic)``, called when a connection has subscribed to the
            topic or is no longer subscribed. It may publish.
        on_gap: ``on_gap(broadcast, topic)``, called when messages of other processes may be
            missing; the topic is `None` for all topics.
        backplane: joins this broadcast with those of other processes.
        presence_lease: after how many seconds without a word of a process its members are gone, and
            how long a member stays whose client was told to come back. A process that is busy or
            stopped for as long is gone until it has spoken again.
        logger: where exceptions of these functions go, or a `logging.LoggerAdapter`; ``trio_ws`` by
            default.

    These functions must not wait, and their exceptions are logged. Their signatures are checked
    when the block is entered.

    Raises:
        TypeError, ValueError: an argument is wrong.
        BackplaneError: the backplane's broker refused us at the start.
    """
    limits = Limits(
        Disconnect() if policy is None else policy, max_queued_messages, max_queued_bytes
    )
    meter = METER.get()
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
            presence_lease,
            logging.getLogger("trio_ws") if logger is None else logger,
            meter,
        )
    )
    with measured(broadcast._measure, meter):
        try:
            if backplane is None:
                yield broadcast
            else:
                async with open_bare_nursery() as nursery:
                    await nursery.start(backplane.run, broadcast._receive, broadcast._note_gap)
                    nursery.start_soon(broadcast._attendance.run)
                    try:
                        yield broadcast
                    finally:
                        broadcast._end()
                        await broadcast._attendance.say_goodbye()
                        nursery.cancel_scope.cancel()
        finally:
            broadcast._end()
