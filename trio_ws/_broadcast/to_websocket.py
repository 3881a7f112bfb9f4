"""How a published message gets to a connection, and what becomes of it where there is no room.

This module owns the policies' deeds for connections. It does not know who publishes and what is
subscribed to: it is given messages, one by one, and never waits and never raises.

A connection's messages wait in its own outbox, where they keep their order with what is sent to it
directly, and can be taken back until their turn comes (see `line` in `_connection`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Iterable
from itertools import islice
from typing import NamedTuple, final

from .._connection.line import Parcel
from .._connection.outbox import JOIN_UP_TO
from .._connection.outlet import Outlets
from .._connection.websocket import WebSocket
from .._protocol.prepared import Prepared
from .policies import Disconnect, DropNewest, Latest, Limits, SlowReaderPolicy
from .tally import Dropped, Tally, has_room


@final
class WaitingMessage(Parcel):
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
        "_replayed_bytes",
        "_replayed_messages",
        "_tally",
        "_waiting",
        "outlet",
        "plain_below",
        "websocket",
    )

    def __init__(self, websocket: WebSocket, limits: Limits, tally: Tally) -> None:
        self.websocket = websocket
        self.outlet = websocket._make_outlet()
        self.plain_below = self.outlet.plain_below
        self._limits = limits
        self._tally = tally
        #: What waits, the oldest first; made for the first.
        self._waiting: OrderedDict[WaitingMessage, None] | None = None
        #: The same by topic and key, where the policy is `Latest`.
        self._by_key: dict[Hashable, WaitingMessage] | None = None
        #: How much of it is history.
        self._replayed_messages = self._replayed_bytes = 0

    def deliver(self, message: Prepared, topic: str) -> bool:
        """Hand over a message; false if it was dropped, or the connection is over."""
        frame = self.outlet.frame_of(message)
        if self.outlet.post_now(frame, (message,)):
            return True
        return not self.outlet.is_closed and self._wait_in_line(message, frame, topic)

    def _wait_in_line(self, message: Prepared, frame: bytes, topic: str) -> bool:
        policy = self._limits.policy
        key: Hashable = None
        if isinstance(policy, Latest):
            key = (topic, self._tally.key_of(policy, message.data))
            if self._replace(key, message, frame):
                return True
        if not self.has_room(len(frame)) and not self._make_room(policy, message, frame, topic):
            return False
        parcel = WaitingMessage(self, message, topic, len(frame), replayed=False)
        if key is not None:
            self._index[key] = parcel
            parcel.key = key
        self._post(parcel, frame)
        return True

    def _post(self, parcel: WaitingMessage, frame: bytes) -> None:
        if self._waiting is None:
            self._waiting = OrderedDict()
        self._waiting[parcel] = None
        self.outlet.post(parcel, frame)

    @property
    def _index(self) -> dict[Hashable, WaitingMessage]:
        if self._by_key is None:
            self._by_key = {}
        return self._by_key

    def _replace(self, key: Hashable, message: Prepared, frame: bytes) -> bool:
        """Put a message where an older one with its key waits; false if there is no such place.

        The older one is then gone all the same, unless something was sent after it: if it were
        taken back each time, a key that changes often would be at the end of the line for ever.
        """
        older = self._index.get(key)
        if older is None or not self.outlet.may_be_exchanged(older):
            return False
        self._tally.replaced += 1
        grows = len(frame) - older.size
        if grows > 0 and not self.has_room(grows):
            self._take_back(older)
            return False
        self.outlet.exchange(older, frame)
        older.message, older.size = message, len(frame)
        return True

    def _make_room(
        self, policy: SlowReaderPolicy, message: Prepared, frame: bytes, topic: str
    ) -> bool:
        """Do what the policy says, and say whether the message may wait now."""
        if isinstance(policy, Disconnect):
            self.outlet.disconnect(policy.code, policy.reason)
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

    def _take_back(self, parcel: WaitingMessage) -> None:
        self.outlet.take_back(parcel)
        self._forget(parcel)

    def _left(self, parcel: WaitingMessage, *, sent: bool) -> None:
        self._forget(parcel)
        if sent:
            self.outlet.note_sent(parcel.message.data)

    def _forget(self, parcel: WaitingMessage) -> None:
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
        left: deque[tuple[Prepared, bytes]] = deque(
            (message, self.outlet.frame_of(message)) for message in messages
        )
        if self.outlet.messages_waiting:
            self._shorten(left)
        complete = len(left) == len(messages)
        while left and self._write_some(left):
            pass
        for message, frame in left:
            self._replayed_messages += 1
            self._replayed_bytes += len(frame)
            self._post(WaitingMessage(self, message, topic, len(frame), replayed=True), frame)
        return complete

    def _shorten(self, messages: deque[tuple[Prepared, bytes]]) -> None:
        """Keep the newest messages, as many as the bounds leave room for."""
        total = sum(len(frame) for _, frame in messages)
        queued, size = self.outlet.messages_waiting, self.outlet.bytes_waiting
        limits = self._limits
        while messages and (
            queued + len(messages) > limits.max_queued_messages
            or size + total > limits.max_queued_bytes
        ):
            total -= len(messages.popleft()[1])

    def _write_some(self, messages: deque[tuple[Prepared, bytes]]) -> bool:
        """Write the first of these together, if they need not wait."""
        frames: list[bytes] = []
        size = 0
        for _, frame in messages:
            frames.append(frame)
            size += len(frame)
            if size >= JOIN_UP_TO:
                break
        together = [message for message, _ in islice(messages, len(frames))]
        if not self.outlet.post_now(b"".join(frames), together):
            return False
        for _ in frames:
            messages.popleft()
        return True

    def has_room(self, size: int) -> bool:
        """Whether a message of so many bytes would be taken without touching another."""
        outlet = self.outlet
        messages = outlet.messages_waiting - self._replayed_messages
        return has_room(self._limits, messages, outlet.bytes_waiting - self._replayed_bytes, size)

    async def wait_for_progress(self) -> None:
        """Return when something that waited has gone out, or the connection ends."""
        await self.outlet.wait_for_progress()

    @property
    def is_over(self) -> bool:
        """Whether the connection is closing, so that nothing is sent any more."""
        return self.outlet.is_closed

    def end(self) -> None:
        """Nothing more will come: let those see it who wait for progress. What waits goes out."""
        self.outlet.wake()

    def queued(self) -> tuple[int, int]:
        """How many messages wait for the connection, and how many bytes they take."""
        return self.outlet.messages_waiting, self.outlet.bytes_waiting


class Group(NamedTuple):
    """Subscribers for which the same messages go out as they are, and where these go."""

    plain_below: float
    deliveries: list[ToWebSocket]
    outlets: Outlets

    def without(self, excluded: Collection[WebSocket]) -> Group:
        left = [each for each in self.deliveries if each.websocket not in excluded]
        return Group(self.plain_below, left, Outlets(each.outlet for each in left))


@final
class Audience:
    """Subscribers that get a message together. It does not change."""

    __slots__ = ("_groups",)

    def __init__(self, deliveries: Iterable[ToWebSocket]) -> None:
        groups: dict[float, list[ToWebSocket]] = {}
        for each in deliveries:
            groups.setdefault(each.plain_below, []).append(each)
        self._groups = tuple(
            Group(plain_below, group, Outlets(each.outlet for each in group))
            for plain_below, group in groups.items()
        )

    def deliver(self, message: Prepared, topic: str, excluded: Collection[WebSocket]) -> int:
        """`ToWebSocket.deliver` to each of them; to how many it was handed."""
        count = 0
        for group in self._groups:
            if excluded:
                group = group.without(excluded)  # noqa: PLW2901
            left = group.deliveries
            if message.weight < group.plain_below:
                # Nearly always this is all. What it takes for each decides what a broadcast costs.
                in_vain = group.outlets.post_now(message.plain)
                count += len(left) - len(in_vain)
                left = [left[position] for position in in_vain]
            for each in left:
                count += each.deliver(message, topic)
        return count
