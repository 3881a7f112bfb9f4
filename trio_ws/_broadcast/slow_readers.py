"""The bounded queue of one subscriber, and what becomes of a message that has no room in it.

This module carries out the policies, in the same way for connections and channels. The messages
themselves wait in a *sink*: for a connection, that is the line to its socket; for a channel, a
mailbox. Nothing here waits or raises.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeAlias, TypeVar, final

import trio

from .._connection.line import Parcel
from .._connection.outbox import JOIN_UP_TO
from .._connection.websocket import WebSocket
from .._metering import DELIVERY_TIME
from .._protocol.prepared import Prepared
from .policies import Disconnect, DropNewest, Latest, Limits, SlowReaderPolicy
from .tally import Dropped, Tally

#: Gives what goes out before and after a history. It is told whether all of that goes out.
Around: TypeAlias = "Callable[[bool], tuple[Prepared, Prepared | None]]"


@final
class QueuedMessage(Parcel):
    """A message of one queue."""

    __slots__ = ("_queue", "key", "message", "posted_at", "replayed", "size", "topic")

    def __init__(
        self, queue: AnyQueue, message: Prepared, topic: str, size: int, *, replayed: bool
    ) -> None:
        super().__init__()
        self._queue = queue
        self.message: Prepared = message
        self.topic: str = topic
        #: The length of its frame.
        self.size: int = size
        #: It belongs to a history, which waits on top of the bounds.
        self.replayed: bool = replayed
        #: When it was published, if metrics are on.
        self.posted_at: float = 0.0
        self.key: Hashable = None

    def leave(self, *, sent: bool) -> None:
        self._queue._left(self, sent=sent)


class Sink(Protocol):
    """Where the messages of a queue go, and where they wait until then.

    Other queues may have the same sink: the subscriptions of one connection share its line.
    """

    @property
    def is_closed(self) -> bool:
        """Nothing will go out any more."""
        ...

    def waiting(self) -> tuple[int, int]:
        """How many messages wait, of all queues, and how many bytes their frames have."""
        ...

    def frame_of(self, message: Prepared) -> bytes: ...

    def post_now(self, frame: bytes, messages: Sequence[Prepared]) -> bool:
        """Send these messages, whose frames are given in one piece, if nothing waits before them.

        Returns:
            Whether they went out. Else nothing was done.
        """
        ...

    def post(self, parcel: QueuedMessage, frame: bytes) -> None:
        """Let a message wait behind all the others."""

    def take_back(self, parcel: QueuedMessage) -> None:
        """Forget a message that waits, without calling `QueuedMessage.leave`."""

    def exchange(self, parcel: QueuedMessage, frame: bytes) -> bool:
        """Give its place to another message, unless that would overtake a message of no queue.

        Returns:
            Whether that was done.
        """
        ...

    def note_sent(self, message: str | bytes) -> None:
        """A message that waited has gone out."""

    def disconnect(self, code: int, reason: str) -> None:
        """End the subscriber, which is too slow. Nothing more is put in for it."""


S_co = TypeVar("S_co", bound=Sink, covariant=True)


class Queue(Generic[S_co]):
    """The messages of one subscription that wait.

    Args:
        sink: where they wait.
        limits: how much may wait in the sink, the messages of other queues included.
        tally: counts what does not get through.
    """

    __slots__ = (
        "_by_key",
        "_limits",
        "_replayed_bytes",
        "_replayed_messages",
        "_tally",
        "_waiting",
        "sink",
    )

    def __init__(self, sink: S_co, limits: Limits, tally: Tally) -> None:
        self.sink: S_co = sink
        self._limits = limits
        self._tally = tally
        #: What waits, the oldest first. Made for the first message: most readers are never slow.
        self._waiting: OrderedDict[QueuedMessage, None] | None = None
        #: The same by topic and key, where the policy is `Latest`.
        self._by_key: dict[Hashable, QueuedMessage] | None = None
        #: How much of it belongs to a history.
        self._replayed_messages = self._replayed_bytes = 0

    # A message comes…

    def deliver(self, message: Prepared, topic: str) -> bool:
        """Hand over a message; false if it was dropped, or the subscriber is gone."""
        sink = self.sink
        frame = sink.frame_of(message)
        # While a message of this queue waits, `post_now` can do nothing, and need not be asked.
        if not self._waiting and sink.post_now(frame, (message,)):
            return True
        if sink.is_closed or not self._enqueue(message, frame, topic):
            return False
        self._tally.delayed += 1
        return True

    def _enqueue(self, message: Prepared, frame: bytes, topic: str) -> bool:
        policy = self._limits.policy
        key: Hashable = None
        if isinstance(policy, Latest):
            key = (topic, self._tally.key_of(policy, message.data))
            if self._replace(key, message, frame):
                return True
        if not self.has_room(len(frame)) and not self._make_room(policy, message, frame, topic):
            return False
        parcel = QueuedMessage(self, message, topic, len(frame), replayed=False)
        if key is not None:
            if self._by_key is None:
                self._by_key = {}
            self._by_key[key] = parcel
            parcel.key = key
        self._post(parcel, frame)
        return True

    def _post(self, parcel: QueuedMessage, frame: bytes) -> None:
        if self._waiting is None:
            self._waiting = OrderedDict()
        self._note_time(parcel)
        # Before it is posted: if the sink is closed, `leave` is called at once.
        self._waiting[parcel] = None
        self.sink.post(parcel, frame)

    def has_room(self, size: int) -> bool:
        """Whether a message of so many bytes may wait without any other having to go.

        Where none waits, it may be of any size: otherwise it could never be sent.
        """
        messages, queued = self.sink.waiting()
        messages -= self._replayed_messages
        if not messages:
            return True
        limits = self._limits
        fits = queued - self._replayed_bytes + size <= limits.max_queued_bytes
        return fits and messages < limits.max_queued_messages

    # There is no room…

    def _make_room(
        self, policy: SlowReaderPolicy, message: Prepared, frame: bytes, topic: str
    ) -> bool:
        """Do what the policy says; true if the message may wait now."""
        if isinstance(policy, Disconnect):
            self.sink.disconnect(policy.code, policy.reason)
        elif not isinstance(policy, DropNewest):
            while self._waiting:  # else the messages of other queues take all the room
                oldest = next(iter(self._waiting))
                self._take_back(oldest)
                self._drop(oldest.message, oldest.topic)
                if self.has_room(len(frame)):
                    return True
        self._drop(message, topic)
        return False

    def _drop(self, message: Prepared, topic: str) -> None:
        self._tally.drop(Dropped(self._reader, topic, message.data, self._limits.policy))

    @property
    def _reader(self) -> WebSocket | None:
        """The connection that reports name; `None` for a channel."""
        return None

    def _replace(self, key: Hashable, message: Prepared, frame: bytes) -> bool:
        """Put a message where an older one with its key waits; false if it cannot have that place.

        A new place each time would leave a key that changes often at the end of the line for ever.
        """
        older = self._by_key.get(key) if self._by_key is not None else None
        if older is None:
            return False
        size = len(frame)
        fits = size <= older.size or self._may_grow(size - older.size)
        if not fits:
            self._take_back(older)
        elif self.sink.exchange(older, frame):
            older.message, older.size = message, size
            self._note_time(older)
        else:
            return False
        self._tally.replaced += 1
        return fits

    def _may_grow(self, more: int) -> bool:
        """Whether a message that waits may become so many bytes longer. The only one always may."""
        messages, queued = self.sink.waiting()
        queued += more - self._replayed_bytes
        only = messages - self._replayed_messages == 1
        return only or queued <= self._limits.max_queued_bytes

    # A message leaves…

    def _take_back(self, parcel: QueuedMessage) -> None:
        self.sink.take_back(parcel)
        self._remove(parcel)

    def _left(self, parcel: QueuedMessage, *, sent: bool) -> None:
        self._remove(parcel)
        if sent:
            self.sink.note_sent(parcel.message.data)
            meter = self._tally.meter
            if meter is not None and not parcel.replayed:
                meter.observe(DELIVERY_TIME, trio.current_time() - parcel.posted_at)

    def _note_time(self, parcel: QueuedMessage) -> None:
        if self._tally.meter is not None:
            parcel.posted_at = trio.current_time()

    def _remove(self, parcel: QueuedMessage) -> None:
        assert self._waiting is not None
        del self._waiting[parcel]
        if parcel.replayed:
            self._replayed_messages -= 1
            self._replayed_bytes -= parcel.size
        if self._by_key is not None and self._by_key.get(parcel.key) is parcel:
            del self._by_key[parcel.key]

    # What came before it…

    def replay(self, messages: list[Prepared], topic: str, around: Around | None = None) -> bool:
        """Hand over a history; false if some of it was left out.

        What `around` gives goes out in any case.

        A history waits on top of the bounds and may be longer than they allow. Otherwise a reader
        that is too slow for it would be disconnected over it each time it comes back. But if
        something waits for the subscriber already, perhaps from a history a moment ago, it gets no
        more than the bounds allow: it could ask for histories faster than it reads them.
        """
        frame_of = self.sink.frame_of
        left = deque((message, frame_of(message)) for message in messages)
        waiting, size = self.sink.waiting()
        if waiting:
            self._shorten(left, waiting, size)
        complete = len(left) == len(messages)
        if around is not None:
            first, last = around(complete)
            left.appendleft((first, frame_of(first)))
            if last is not None:
                left.append((last, frame_of(last)))
        while left and self._post_some(left):
            pass
        for message, frame in left:
            self._replayed_messages += 1
            self._replayed_bytes += len(frame)
            self._post(QueuedMessage(self, message, topic, len(frame), replayed=True), frame)
        return complete

    def _shorten(
        self, history: deque[tuple[Prepared, bytes]], messages_queued: int, bytes_queued: int
    ) -> None:
        """Remove the oldest messages until the bounds leave room for the others."""
        total = bytes_queued + sum(len(frame) for _, frame in history)
        limits = self._limits
        while history and (
            messages_queued + len(history) > limits.max_queued_messages
            or total > limits.max_queued_bytes
        ):
            total -= len(history.popleft()[1])

    def overflow(self) -> None:
        """Do what the policy says where something had to be left out that a reader cannot miss."""
        policy = self._limits.policy
        if isinstance(policy, Disconnect):
            self._tally.drops[Disconnect] += 1
            self.sink.disconnect(policy.code, policy.reason)

    def _post_some(self, history: deque[tuple[Prepared, bytes]]) -> bool:
        """Send the first of these together, if they need not wait."""
        frames: list[bytes] = []
        size = 0
        for _, frame in history:
            frames.append(frame)
            size += len(frame)
            if size >= JOIN_UP_TO:
                break
        messages = [message for message, _ in islice(history, len(frames))]
        if not self.sink.post_now(b"".join(frames), messages):
            return False
        for _ in messages:
            history.popleft()
        return True


AnyQueue: TypeAlias = Queue[Sink]
