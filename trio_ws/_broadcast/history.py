"""The newest messages of a topic, and which of them came after a position.

This module knows nothing of connections, nor where messages come from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import TypeAlias

from .._protocol.prepared import Prepared
from ..backplane._position import Position

#: From where on a subscriber wants to catch up: a position, as it is or as a client gave it back,
#: or one for each topic.
StartingPoint: TypeAlias = Position | str | Mapping[str, Position | str] | None

#: How many messages more than its size a window holds for somebody who waits, and how many bytes of
#: them. Whoever needs more than that has to begin anew.
MAX_HELD = 2000
MAX_HELD_BYTES = 16 * 2**20


def checked_position(position: StartingPoint) -> StartingPoint:
    each = position.values() if isinstance(position, Mapping) else (position,)
    for one in each:
        if one is not None and not isinstance(one, (Position, str)):
            raise TypeError(
                f"position is a Position, what str() made of one, or one of these for each topic, "
                f"not {one!r}"
            )
    return position


def position_of(position: StartingPoint, topic: str) -> Position | None:
    """The position in one topic; `None` if there is none, or if a client made it up."""
    if isinstance(position, Mapping):
        position = position.get(topic)
    return Position.parse(position) if isinstance(position, str) else position


class Window:
    """The newest messages of a topic, without a hole.

    Args:
        size: how many. While somebody `hold`s it, it may be more.
        position: that of the newest message so far; `None` if it is not known yet.
    """

    __slots__ = ("_held_bytes", "_holders", "_kept", "_size", "epoch", "floor", "offset")

    def __init__(self, size: int, position: Position | None) -> None:
        self._size = size
        self._kept: deque[Prepared] = deque()
        self._holders = 0
        #: The bytes of messages that came since it is longer than its size.
        self._held_bytes = 0
        self.epoch: str = ""
        self.offset: int = 0
        #: Up to which offset messages cannot be had any more, not even by reading.
        self.floor: int = 0
        self.begin(position)

    def begin(self, position: Position | None) -> None:
        """Forget everything, and go on behind this position."""
        self._kept.clear()
        self._held_bytes = 0
        self.floor = 0
        self.epoch, self.offset = ("", 0) if position is None else (position.epoch, position.offset)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def position(self) -> Position | None:
        """That of the newest message; `None` if it is not known."""
        return Position(self.epoch, self.offset) if self.epoch else None

    @property
    def text(self) -> str:
        """The position of the newest message, as a text; empty if it is not known."""
        return f"{self.epoch}-{self.offset}" if self.epoch else ""

    @property
    def next(self) -> str:
        """The position of the next message, as a text."""
        return f"{self.epoch}-{self.offset + 1}"

    @property
    def first(self) -> int:
        """The offset behind which all messages are here."""
        return self.offset - len(self._kept)

    @property
    def wanted(self) -> int:
        """The offset behind which they would be here if it were full."""
        return max(self.floor, self.offset - self._size)

    def lacks(self, offset: int) -> bool:
        """Whether messages behind this offset are not here, and might be had by reading."""
        return self.floor <= offset < self.first

    # Messages come…

    def append(self, message: Prepared) -> None:
        """Add a new message."""
        self.offset += 1
        if self._size or self._holders:
            self._kept.append(message)
            if len(self._kept) > self._size:
                self._make_room(message)

    def _make_room(self, message: Prepared) -> None:
        if self._holders:
            self._held_bytes += len(message.plain)
            if self._held_bytes <= MAX_HELD_BYTES and len(self._kept) <= self._size + MAX_HELD:
                return
        self.trim()

    def trim(self) -> None:
        """Forget what is held beyond the size."""
        self._held_bytes = 0
        while len(self._kept) > self._size:
            self._kept.popleft()

    def prepend(self, messages: list[Prepared]) -> None:
        """Add older messages that were read, up to the oldest that is here."""
        self._kept.extendleft(reversed(messages))
        if not self._holders:
            self.trim()

    # Messages are looked for…

    def after(self, position: Position | None) -> list[Prepared] | None:
        """All that came after a position; `None` if it is not here, or the position is not."""
        if position is None or position.epoch != self.epoch:
            return None
        missing = self.offset - position.offset
        return self._last(missing) if 0 <= missing <= len(self._kept) else None

    def newest(self) -> list[Prepared]:
        """The newest messages, as many as its size."""
        return self._last(min(self._size, len(self._kept)))

    def _last(self, count: int) -> list[Prepared]:
        return list(islice(self._kept, len(self._kept) - count, None))

    def hold(self) -> None:
        """Keep what is here and what comes, within bounds, until `release`."""
        self._holders += 1

    def release(self) -> None:
        self._holders -= 1
        if not self._holders:
            self.trim()
