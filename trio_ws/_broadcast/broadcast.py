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

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TypeVar, final

import trio

from .._connection.websocket import WebSocket
from .._json import to_json
from .._metering import (
    DELIVERED,
    DELIVERY_TIME,
    PUBLISHED,
    SUBSCRIBERS,
    TOPICS,
    Meter,
    Numbers,
)
from .._pacing import DEFLATE_WORK, MESSAGE_WORK, spend
from .._protocol.message import Message, checked_message
from .._protocol.prepared import Prepared
from ..backplane._base import BackplaneMessage
from ..backplane._metering import measure_backplane
from ..backplane._position import Position
from .catching_up import CatchUp
from .encoding import Encoder
from .history import StartingPoint, checked_position
from .own_messages import PLAIN, Handling, OwnMessages
from .policies import Limits, SlowReaderPolicy
from .presence import Attendance, Membership, Presence
from .settings import Exclude, Settings
from .subscription import ChannelBlock, Subscription
from .tally import BroadcastStatistics, Tally
from .to_channel import BroadcastChannel, ToChannel
from .to_websocket import ToWebSocket
from .topics import INTERNAL, Topic, Topics, check_topics

#: How many bytes longer a message may be in the end than `publish_wait` expects: its position may
#: have more digits by then, or compression may not help.
SLACK = 64

T = TypeVar("T")


@final
class Broadcast:
    """Topics, their subscribers, and a way to reach them all. `open_broadcast` makes it.

    All methods belong to the trio loop that it was opened in; from another thread, use
    ``trio.from_thread.run_sync(broadcast.publish, message, topic)``. ``len(broadcast)`` is the
    number of connections that are subscribed to anything.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._backplane = backplane = settings.backplane
        #: The backplane, if its order is the order of all: what is published here comes back by it.
        self._in_order = backplane if backplane is not None and backplane.keeps_positions else None
        self._meter = settings.meter
        self._tally = Tally(
            settings.logger, reporting=settings.on_drop is not None, meter=settings.meter
        )
        self._prepare = Encoder(settings.envelope)
        self._own = OwnMessages()
        self._topics = Topics(
            settings.history, settings.max_idle_topics, backplane, self._own, self._tell_change
        )
        self._catch_up = CatchUp(
            self._topics,
            backplane=self._in_order,
            get_state=settings.state,
            max_recovered=settings.max_recovered,
            prepare=self._prepare,
            logger=settings.logger,
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
                all the old numbers. A message that is not kept has an empty position, because no
                client can come back to it.

        Returns:
            How many subscribers of this process it was handed to, channels included. For some it
            may be waiting. A subscriber that it was dropped for, or that is closing, does not
            count. With a backplane that keeps positions it is 0: nobody has the message until it
            comes back from the broker, in its order.

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
        if self._backplane is not None:
            token = self._backplane.publish(topic, data, keep=keep)
            if self._in_order is not None:
                self._published += 1
                handling = Handling(excluded, compress)
                if handling != PLAIN and self._topics.find(topic) is not None:
                    self._own.add(token, topic, handling)
                return 0
        return self._publish_here(data, topic, excluded=excluded, compress=compress, keep=keep)

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
        in the backplane's queue. If that keeps positions, it waits for nothing else: by the time
        that the message comes back, the room of a subscriber may be taken. When it is cancelled,
        the message was not published.

        Raises:
            As `publish`; `RuntimeError` if it would wait for the end of a message that this task
            itself sends by `WebSocket.open_message`.
        """
        data = _checked(message, topic)
        excluded = _as_set(exclude)
        await trio.lowlevel.checkpoint()
        size = self._size_of(data, topic) if self._in_order is None else 0
        while True:
            # Both must have room at the same moment. Others publish while this task waits for one
            # of them, so it looks at the other again.
            if self._backplane is not None and not self._topics.is_over:
                await self._backplane.wait_for_room(data)
            if self._in_order is not None:
                break
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

    def _size_of(self, data: str | bytes, topic: str) -> int:
        """How many bytes the frame of a message has at most."""
        record = self._topics.find(topic)
        position = "" if record is None else record.window.next
        size = len(self._prepare(data, position, topic).plain)
        return size + SLACK + size // 1000

    def _publish_here(
        self,
        data: str | bytes,
        topic: str,
        *,
        excluded: frozenset[WebSocket] = frozenset(),
        compress: bool | None = None,
        keep: bool,
    ) -> int:
        """Hand a message to the subscribers in this process, which gives it its position."""
        self._published += 1
        record = self._topics.record(topic, keep=keep)
        if record is None:
            Prepared(data)  # so that text without UTF-8 is an error even where nobody hears it
            return 0
        window = record.window
        place = window.offset
        try:
            # Only an envelope shows the position to anybody.
            position = window.next if keep and self._settings.envelope is not None else ""
            message = self._prepare(data, position, topic, compress=compress)
            if window.offset != place:
                raise RuntimeError("an envelope published to the topic that it was called for")
            if keep:
                window.append(message)
        finally:
            if not record.websockets:
                self._topics.keep_or_forget(record)
        return self._spread(message, record, excluded)

    def _spread(self, message: Prepared, record: Topic, excluded: frozenset[WebSocket]) -> int:
        if self._meter is None:
            count = record.deliver(message, excluded)
        else:
            count = self._deliver_metered(self._meter, message, record, excluded)
        self._delivered += count
        spend(count * MESSAGE_WORK + DEFLATE_WORK * message.bytes_compressed)
        if self._tally.reports:
            self._report()
        return count

    def _deliver_metered(
        self, meter: Meter, message: Prepared, record: Topic, excluded: frozenset[WebSocket]
    ) -> int:
        """Deliver, and note how long that took; for whom it has to wait, `slow_readers` does."""
        started, delayed = trio.current_time(), self._tally.delayed
        count = record.deliver(message, excluded)
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
        position: StartingPoint = None,
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
            position: that of the last message that the subscriber has. It is sent what came after
                that, and nothing else, if that is possible: `Subscription.recovered` says whether
                it is. It need not be checked, and may be any text that a client sends. If there are
                several topics, a mapping has one for each.

        Raises:
            TypeError, ValueError: an argument is wrong.

        On entering the block:

        Raises:
            trio.ClosedResourceError: the broadcast is over.
            ValueError: the connection is subscribed to one of the topics already.
            StateUnavailable: there is no state; see `open_broadcast`.
            RuntimeError: it has to wait, for `state` or for a backplane that keeps positions. Enter
                the block with ``async with``. That is possible in any case, and is a checkpoint.
        """
        if not isinstance(websocket, WebSocket):
            raise TypeError(f"a subscriber is a WebSocket, not {websocket!r}")
        check_topics(topics)
        limits = self._limits(policy, max_queued_messages, max_queued_bytes)
        delivery = ToWebSocket(websocket, limits, self._tally)
        return Subscription(
            self._topics, self._catch_up, delivery, topics, checked_position(position)
        )

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
        position: StartingPoint = None,
    ) -> AbstractAsyncContextManager[BroadcastChannel]:
        """A channel that gives any task the messages of a topic, for as long as a block goes on::

            async with broadcast.open_channel("news") as channel:
                async for message in channel:
                    ...

        Entering is a checkpoint. It waits for `state`, and for a backplane that keeps positions, as
        `subscribe` does. If it is cancelled, nothing was opened.

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
        return ChannelBlock(self._topics, self._catch_up, delivery, checked_position(position))

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
                as in a drain or a restart, the client will come back, perhaps to another process.
                So the member stays until it is seen again, or for `presence_lease`.

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

    async def _start(self, nursery: trio.Nursery) -> None:
        self._catch_up.open(nursery)
        if self._backplane is not None:
            await nursery.start(
                self._backplane.run,
                self._receive,
                self._note_gap,
                self._note_attached,
                self._own.lose,
            )
            nursery.start_soon(self._attendance.run)

    def _receive(self, message: BackplaneMessage) -> None:
        """Called by the backplane: a message came."""
        if self._topics.is_over:
            return
        if message.topic.startswith(INTERNAL):
            if message.token is None:
                self._attendance.receive(message.topic, message.message)
        elif self._in_order is not None:
            self._take(message)
        else:  # our own do not come, and were delivered already
            self._call(
                partial(self._publish_here, keep=message.kept), message.message, message.topic
            )

    def _take(self, received: BackplaneMessage) -> None:
        """Hand a message to the subscribers in this process, with the position that it has."""
        topic, data, _, position, token = received
        handling = PLAIN if token is None else self._own.take(token, topic)
        self._published += token is None
        record = self._topics.find(topic)
        if record is None:
            return
        try:
            text = "" if position is None else str(position)
            message = self._prepare(data, text, topic, compress=handling.compress)
        except Exception:
            self._settings.logger.exception("a message cannot be sent to subscribers")
            if position is not None:
                self._note_attached(topic, position)
            return
        if position is not None:
            record.window.append(message)
        self._spread(message, record, handling.excluded)
        self._catch_up.note_moved(record)

    def _note_attached(self, topic: str, position: Position) -> None:
        """Called by the backplane: everything after this position comes, and nothing before it."""
        record = self._topics.find(topic)
        if record is None:
            return
        record.window.begin(position)
        self._catch_up.note_moved(record)
        if record.subscribers():  # they have had what was before, or nothing is known of that
            self._call(self._settings.on_gap, self, topic)
            self._catch_up.start_over(record)

    def _note_gap(self, topic: str | None) -> None:
        """Called by the backplane: messages of other processes may be missing."""
        if topic is not None and topic.startswith(INTERNAL):
            return  # presence mends itself
        records = self._topics.note_gap(topic)
        self._call(self._settings.on_gap, self, topic)
        for record in records:
            self._catch_up.start_over(record)

    def _tell(self, topic: str | None, make: Callable[[str], str]) -> None:
        """Send something to the subscribers in this process alone. No history has it."""
        for record in self._topics.named(topic):
            record.deliver(Prepared(make(record.name)), frozenset())

    # The end…

    async def _say_goodbye(self) -> None:
        """Tell the other processes what is to be known of our members."""
        if self._backplane is not None:
            await self._attendance.say_goodbye()

    def _end(self) -> None:
        """End every subscription. Waits for nothing, and throws nothing away."""
        self._topics.end()
        self._catch_up.close()
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
