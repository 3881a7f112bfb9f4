"""How a published message gets to one subscriber, and what becomes of it where there is no room.

This module owns the policies' deeds. It does not know who publishes and what is subscribed to: it
is given messages, one by one, and never waits and never raises.

A connection's messages wait in its own outbox, where they keep their order with what is sent to it
directly, and can be taken back until their turn comes (see `_line`). A channel's wait in the
channel.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, final

import trio

from .._connection.line import Parcel
from .._connection.outbox import Outbox, post_to_all
from .._connection.websocket import WebSocket
from .._protocol.prepared import Prepared
from .._transport.stream import Buffer
from .policies import Disconnect, DropNewest, Latest, Limits, SlowReaderPolicy

#: Up to this many bytes of a history are written together.
JOIN_UP_TO = 64 * 1024


@final
@dataclass(frozen=True, slots=True)
class Dropped:
    """What a slow subscriber did not get.

    Attributes:
        websocket: whose subscription it was, or `None` for a channel.
        topic: what the message was published to.
        message: the message.
        policy: what made the decision. If it is a `Disconnect`, the subscriber was disconnected
            over this message, and what waited before it is also lost.
    """

    websocket: WebSocket | None
    topic: str
    message: str | bytes
    policy: SlowReaderPolicy


class Tally:
    """What all subscribers of a broadcast did not get: counted, and noted down to be reported."""

    def __init__(self, logger: logging.Logger, *, reporting: bool) -> None:
        self.logger = logger
        self.dropped = self.replaced = self.disconnected = 0
        #: Whether anybody wants reports, and those that were not made yet.
        self.reporting = reporting
        self.reports: list[Dropped] = []

    def drop(self, report: Dropped) -> None:
        if isinstance(report.policy, Disconnect):
            self.disconnected += 1
        else:
            self.dropped += 1
        if self.reporting:
            self.reports.append(report)

    def key_of(self, policy: Latest, message: str | bytes) -> Hashable:
        """The message's key; one that no other has where it cannot be told."""
        try:
            key = policy.key(message) if policy.key is not None else None
            hash(key)
        except Exception:
            # The mistake is the application's, but not the publisher's.
            self.logger.exception("the key of Latest failed, over %.100r", message)
            return object()
        return key


def has_room(limits: Limits, messages: int, bytes_queued: int, size: int) -> bool:
    """Whether one more of `size` bytes may wait. Where none waits, it may be of any size."""
    return not messages or (
        messages < limits.max_queued_messages and bytes_queued + size <= limits.max_queued_bytes
    )


# ---------------------------------------------------------------------------
# To a connection
# ---------------------------------------------------------------------------


@final
class _Waiting(Parcel):
    """A message in the line of a connection."""

    __slots__ = ("_delivery", "key", "message", "replayed", "size", "topic")

    def __init__(
        self, delivery: ToWebSocket, message: Prepared, topic: str, size: int, *, replayed: bool
    ) -> None:
        super().__init__()
        self._delivery = delivery
        self.message = message
        self.topic = topic
        #: Of its frame.
        self.size = size
        #: It is a part of a history, for which the bounds are not meant.
        self.replayed = replayed
        self.key: Hashable = None

    def leave(self, *, sent: bool) -> None:
        self._delivery._left(self, sent=sent)


@final
class ToWebSocket:
    """One subscription of a connection. It may have several, which share the bounds."""

    __slots__ = (
        "_by_key",
        "_limits",
        "_outbox",
        "_replayed_bytes",
        "_replayed_messages",
        "_tally",
        "_waiting",
        "_wire",
        "plain_below",
        "websocket",
    )

    def __init__(self, websocket: WebSocket, limits: Limits, tally: Tally) -> None:
        self.websocket = websocket
        self._outbox = websocket._outbox
        self._wire = websocket._wire
        #: For what weight a message goes out as it is, and nothing but the frame is to be thought
        #: of: nobody counts idle time, or logs.
        self.plain_below = -inf if websocket._notes_messages else self._wire.shares_plain_below
        self._limits = limits
        self._tally = tally
        #: What waits, the oldest first; made for the first.
        self._waiting: OrderedDict[_Waiting, None] | None = None
        #: The same by topic and key, where the policy is `Latest`.
        self._by_key: dict[Hashable, _Waiting] | None = None
        #: How much of it is history.
        self._replayed_messages = self._replayed_bytes = 0

    def deliver(self, message: Prepared, topic: str) -> bool:
        """Hand over a message; false if it was dropped, or the connection is over."""
        frame = self._wire.shared(message)
        if self._outbox.post_now(frame):
            self.websocket._note_sent(message.data)
            return True
        return not self._outbox.is_sealed and self._wait_in_line(message, frame, topic)

    def _wait_in_line(self, message: Prepared, frame: Buffer, topic: str) -> bool:
        policy = self._limits.policy
        key: Hashable = None
        if isinstance(policy, Latest):
            key = (topic, self._tally.key_of(policy, message.data))
            if self._replace(key, message, frame):
                return True
        if not self.has_room(len(frame)) and not self._make_room(policy, message, frame, topic):
            return False
        parcel = _Waiting(self, message, topic, len(frame), replayed=False)
        if key is not None:
            self._index[key] = parcel
            parcel.key = key
        self._post(parcel, frame)
        return True

    def _post(self, parcel: _Waiting, frame: Buffer) -> None:
        if self._waiting is None:
            self._waiting = OrderedDict()
        self._waiting[parcel] = None
        self._outbox.post(parcel, frame)

    @property
    def _index(self) -> dict[Hashable, _Waiting]:
        if self._by_key is None:
            self._by_key = {}
        return self._by_key

    def _replace(self, key: Hashable, message: Prepared, frame: Buffer) -> bool:
        """Put a message where an older one with its key waits; false if there is no such place.

        The older one is then gone all the same, unless something was sent after it: if it were
        taken back each time, a key that changes often would be at the end of the line for ever.
        """
        older = self._index.get(key)
        if older is None or not self._outbox.may_be_exchanged(older):
            return False
        self._tally.replaced += 1
        grows = len(frame) - older.size
        if grows > 0 and not self.has_room(grows):
            self._take_back(older)
            return False
        self._outbox.exchange(older, frame)
        older.message, older.size = message, len(frame)
        return True

    def _make_room(
        self, policy: SlowReaderPolicy, message: Prepared, frame: Buffer, topic: str
    ) -> bool:
        """Do what the policy says, and say whether the message may wait now."""
        if isinstance(policy, Disconnect):
            self._outbox.drop_parcels()
            self.websocket._begin_close(policy.code, policy.reason, failed=True)
        elif not isinstance(policy, DropNewest):
            while self._waiting and not self.has_room(len(frame)):
                oldest = next(iter(self._waiting))
                self._take_back(oldest)
                self._drop(oldest.message, oldest.topic)
            if self.has_room(len(frame)):  # else it is another subscription that takes all of it
                return True
        self._drop(message, topic)
        return False

    def _drop(self, message: Prepared, topic: str) -> None:
        self._tally.drop(Dropped(self.websocket, topic, message.data, self._limits.policy))

    def _take_back(self, parcel: _Waiting) -> None:
        self._outbox.take_back(parcel)
        self._forget(parcel)

    def _left(self, parcel: _Waiting, *, sent: bool) -> None:
        self._forget(parcel)
        if sent:
            self.websocket._note_sent(parcel.message.data)

    def _forget(self, parcel: _Waiting) -> None:
        assert self._waiting is not None
        del self._waiting[parcel]
        if parcel.replayed:
            self._replayed_messages -= 1
            self._replayed_bytes -= parcel.size
        if self._by_key is not None and self._by_key.get(parcel.key) is parcel:
            del self._by_key[parcel.key]

    def replay(self, messages: list[Prepared], topic: str) -> bool:
        """Hand over a history; false if some of it was left out.

        It may be longer than the bounds, on top of which it waits. Otherwise a reader that is too
        slow for it would be disconnected over it each time it comes back. But a connection for
        which something waits already, perhaps of the history that it was given a moment ago, gets
        no more than the bounds allow.
        """
        left: deque[tuple[Prepared, Buffer]] = deque(
            (message, self._wire.shared(message)) for message in messages
        )
        if self._outbox.messages_in_line:
            self._shorten(left)
        complete = len(left) == len(messages)
        while left and self._write_some(left):
            pass
        for message, frame in left:
            self._replayed_messages += 1
            self._replayed_bytes += len(frame)
            self._post(_Waiting(self, message, topic, len(frame), replayed=True), frame)
        return complete

    def _shorten(self, messages: deque[tuple[Prepared, Buffer]]) -> None:
        """Keep the newest messages, as many as the bounds leave room for."""
        total = sum(len(frame) for _, frame in messages)
        queued, size = self._outbox.messages_in_line, self._outbox.bytes_in_line
        limits = self._limits
        while messages and (
            queued + len(messages) > limits.max_queued_messages
            or size + total > limits.max_queued_bytes
        ):
            total -= len(messages.popleft()[1])

    def _write_some(self, messages: deque[tuple[Prepared, Buffer]]) -> bool:
        """Write the first of these together, if they need not wait."""
        frames: list[Buffer] = []
        size = 0
        for _, frame in messages:
            frames.append(frame)
            size += len(frame)
            if size >= JOIN_UP_TO:
                break
        if not self._outbox.post_now(b"".join(frames), messages=len(frames)):
            return False
        for _ in frames:
            self.websocket._note_sent(messages.popleft()[0].data)
        return True

    def has_room(self, size: int) -> bool:
        """Whether a message of so many bytes would be taken without touching another."""
        outbox = self._outbox
        messages = outbox.messages_in_line - self._replayed_messages
        return has_room(self._limits, messages, outbox.bytes_in_line - self._replayed_bytes, size)

    async def wait_for_progress(self) -> None:
        """Return when something that waited has gone out, or the connection ends."""
        await self._outbox.wait_for_progress()

    @property
    def is_over(self) -> bool:
        """Whether the connection is closing, so that nothing is sent any more."""
        return self._outbox.is_sealed

    def end(self) -> None:
        """Nothing more will come: let those see it who wait for progress. What waits goes out."""
        self._outbox.wake()

    def queued(self) -> tuple[int, int]:
        """How many messages wait for the connection, and how many bytes they take."""
        return self._outbox.messages_in_line, self._outbox.bytes_in_line


class _Group(NamedTuple):
    """Subscribers for which the same messages go out as they are, and where these go."""

    plain_below: float
    deliveries: list[ToWebSocket]
    outboxes: list[Outbox]

    def without(self, excluded: Collection[WebSocket]) -> _Group:
        left = [each for each in self.deliveries if each.websocket not in excluded]
        return _Group(self.plain_below, left, [each._outbox for each in left])


@final
class Audience:
    """Subscribers that get a message together. It does not change."""

    __slots__ = ("_groups",)

    def __init__(self, deliveries: Iterable[ToWebSocket]) -> None:
        groups: dict[float, _Group] = {}
        for each in deliveries:
            group = groups.setdefault(each.plain_below, _Group(each.plain_below, [], []))
            group.deliveries.append(each)
            group.outboxes.append(each._outbox)
        self._groups = tuple(groups.values())

    def deliver(self, message: Prepared, topic: str, excluded: Collection[WebSocket]) -> int:
        """`ToWebSocket.deliver` to each of them; to how many it was handed."""
        count = 0
        for group in self._groups:
            if excluded:
                group = group.without(excluded)  # noqa: PLW2901
            left = group.deliveries
            if message.weight < group.plain_below:
                # Nearly always this is all. What it takes for each decides what a broadcast costs.
                in_vain = post_to_all(group.outboxes, message.plain)
                count += len(left) - len(in_vain)
                left = [left[position] for position in in_vain]
            for each in left:
                count += each.deliver(message, topic)
        return count


# ---------------------------------------------------------------------------
# To a channel
# ---------------------------------------------------------------------------


class _Item(NamedTuple):
    """A message that waits in a channel."""

    data: str | bytes
    size: int
    key: Hashable = None
    replayed: bool = False
    """It is a part of a history, for which the bounds are not meant."""


@final
class ToChannel:
    """One memory channel. It has no bounds of its own: they are held here, in bytes too."""

    def __init__(self, topic: str, limits: Limits, tally: Tally) -> None:
        self.topic = topic
        self._limits = limits
        self._tally = tally
        self._send, self.channel = trio.open_memory_channel[str | bytes](inf)
        #: Our own end, to take messages back. What is open besides is the application's.
        self._receive = self.channel.clone()
        #: What waits in the channel, as far as it has not been received since we last looked.
        self._items: deque[_Item] = deque()
        #: How many of them are history, and how many bytes the others are.
        self._replayed = 0
        self._bytes = 0

    def deliver(self, message: Prepared) -> bool:
        """Hand over a message; false if it was dropped, or nobody receives any more."""
        self._look()
        if self._is_over:
            return False
        policy = self._limits.policy
        key = self._tally.key_of(policy, message.data) if isinstance(policy, Latest) else None
        item = _Item(message.data, len(message.plain), key)
        if isinstance(policy, Latest) and self._replace(item):
            return True
        if not self._has_room(item) and not self._make_room(policy, item):
            return False
        self._put(item)
        return True

    @property
    def _is_over(self) -> bool:
        statistics = self._receive.statistics()
        return statistics.open_receive_channels < 2 or not statistics.open_send_channels

    def _look(self) -> None:
        """Forget what was received."""
        waiting = self._receive.statistics().current_buffer_used
        while len(self._items) > waiting:
            self._pop()

    def _has_room(self, item: _Item) -> bool:
        messages = len(self._items) - self._replayed
        return has_room(self._limits, messages, self._bytes, item.size)

    def _put(self, item: _Item) -> None:
        self._items.append(item)
        self._replayed += item.replayed
        self._bytes += item.size
        self._send.send_nowait(item.data)

    def _pop(self) -> _Item:
        item = self._items.popleft()
        self._replayed -= item.replayed
        self._bytes -= item.size
        return item

    def _take(self) -> _Item:
        """Take back the oldest."""
        self._receive.receive_nowait()
        return self._pop()

    def _replace(self, item: _Item) -> bool:
        """Put a message where an older one with its key waits; false if there is no such place.

        A channel has no places, so all of it is taken out and put in again. That is no more than
        the bounds allow, and only for a reader that is slow.
        """
        same = (other for other in self._items if other.key == item.key and not other.replayed)
        older = next(same, None)
        if older is None:
            return False
        self._tally.replaced += 1
        bytes_queued = self._bytes + item.size - older.size
        fits = bytes_queued <= self._limits.max_queued_bytes or len(self._items) == 1
        for other in [self._take() for _ in range(len(self._items))]:
            if other is not older:
                self._put(other)
            elif fits:
                self._put(item)
        return fits

    def _make_room(self, policy: SlowReaderPolicy, item: _Item) -> bool:
        """Do what the policy says, and say whether the message may wait now."""
        if isinstance(policy, Disconnect):
            self._send.close()
        elif not isinstance(policy, DropNewest):
            while not self._has_room(item):
                self._drop(self._take())
            return True
        self._drop(item)
        return False

    def _drop(self, item: _Item) -> None:
        self._tally.drop(Dropped(None, self.topic, item.data, self._limits.policy))

    def replay(self, messages: list[Prepared]) -> None:
        """Put a history into the channel, on top of its bounds."""
        for message in messages:
            self._put(_Item(message.data, 0, replayed=True))

    def queued(self) -> tuple[int, int]:
        """How many messages wait, and how many bytes they take."""
        self._look()
        return len(self._items), self._bytes

    def end(self) -> None:
        """Nothing more will come; what waits can still be received."""
        self._send.close()

    def close(self) -> None:
        """Nobody will receive any more."""
        for channel in (self._send, self._receive, self.channel):
            channel.close()
