"""How fast a peer may send: `max_messages_per_second` and `max_bytes_per_second`.

This module owns what is counted, and when it has been earned. The reader task waits, or ends the
connection (`reader`).

- A message counts as one, however it comes. So does each ping, each pong, and each fragment of less
  than 1 KiB that is not its message's last: handling any of these takes about as long.
- Bytes are those of the frames that came, heads included. A message that came compressed counts as
  if it had not been.
"""

from __future__ import annotations

from typing import TypeAlias, final

from .._buckets import ROUNDING, Bucket
from .._errors import CloseCode
from .._protocol.events import Event, Fragment, Messages, Ping, Pong, Violation
from .._protocol.frames import masked_size
from .._protocol.wire import Wire

#: A number of messages, and how many bytes these are.
Cost: TypeAlias = tuple[int, int]


@final
class Rates:
    """What one client has earned. Times are trio's.

    Args:
        messages: the most in a second, or `math.inf`.
        size: the most bytes in a second, or `math.inf`.
        now: the time.
        wire: counts heads and small fragments, of messages that do not come whole.
        closes: a client that is too fast is closed, rather than made to wait.

    Attributes:
        held_back: messages that a receiver read and that were not earned yet, for the reader task.
    """

    __slots__ = (
        "_bytes",
        "_head_bytes",
        "_inflated",
        "_inflates",
        "_messages",
        "_small_fragments",
        "_wire",
        "closes",
        "held_back",
    )

    def __init__(
        self, messages: float, size: float, now: float, wire: Wire, *, closes: bool
    ) -> None:
        self._messages = Bucket(messages, now)
        self._bytes = Bucket(size, now)
        self._wire = wire
        #: How many of the wire's were counted.
        self._head_bytes = self._small_fragments = 0
        self._inflates = wire.may_inflate
        #: How much the wire had inflated when messages were last admitted.
        self._inflated = 0
        self.closes = closes
        self.held_back: Messages = []

    def admit(self, messages: Messages, now: float, size: int | None = None) -> bool:
        """Take what these messages cost, if all of it is there; else take nothing.

        Args:
            messages: any that came whole.
            now: the time.
            size: of their frames, as they came, if that is known.
        """
        if size is None or (self._inflates and self._wire.bytes_inflated != self._inflated):
            self._inflated = self._wire.bytes_inflated
            size = sum(map(_size, messages))
        # `missing` and `take` of both buckets, in place: calling them would double what this takes.
        counts, sizes = self._messages, self._bytes
        counts_full_at = counts.full_at if counts.full_at > now else now  # noqa: FURB136 - half the time
        counts_full_at += len(messages) * counts.seconds_each
        sizes_full_at = sizes.full_at if sizes.full_at > now else now  # noqa: FURB136 - the same
        sizes_full_at += size * sizes.seconds_each
        now += ROUNDING
        if counts_full_at > now + counts.depth or sizes_full_at > now + sizes.depth:
            return False
        counts.full_at, sizes.full_at = counts_full_at, sizes_full_at
        return True

    def earn(self, event: Event, now: float) -> float:
        """Take what this costs. Gives after how many seconds all of that will have been earned."""
        count, size = self._cost(event)
        seconds = max(self._messages.missing(count, now), self._bytes.missing(size, now))
        self._messages.take(count, now)
        self._bytes.take(size, now)
        return seconds

    def violation(self, now: float) -> Violation:
        """What a client did that did not wait until it had earned what it sent."""
        if self._messages.missing(0, now):
            why = f"max_messages_per_second is {1 / self._messages.seconds_each:g}"
        else:
            why = f"max_bytes_per_second is {1 / self._bytes.seconds_each:g}"
        return Violation(int(CloseCode.POLICY_VIOLATION), f"too fast: {why}")

    def _cost(self, event: Event) -> Cost:
        if isinstance(event, list):
            return len(event), sum(map(_size, event))
        if isinstance(event, Fragment):
            # The wire has counted a frame before it gives any of it.
            count = self._wire.small_fragments - self._small_fragments
            size = self._wire.head_bytes - self._head_bytes
            self._small_fragments += count
            self._head_bytes += size
            return count + event.final, size + _length(event.data)
        if isinstance(event, (Ping, Pong)):
            return 1, _size(event.payload)
        return 0, 0  # an end


def _size(message: str | bytes) -> int:
    """The size of its frame, if it is not compressed."""
    return masked_size(_length(message))


def _length(payload: str | bytes) -> int:
    """In bytes, for text as UTF-8."""
    if isinstance(payload, str) and not payload.isascii():
        return len(payload.encode())
    return len(payload)
