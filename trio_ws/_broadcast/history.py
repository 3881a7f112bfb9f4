"""The last messages of one topic, and which of them a subscriber that comes back has missed.

This module knows nothing of connections.
"""

from __future__ import annotations

from collections import deque
from itertools import dropwhile
from typing import NamedTuple

from .._protocol.prepared import Prepared


class Kept(NamedTuple):
    """A message that was published."""

    number: int
    """Greater than that of all before it, whatever their topic."""
    id: str
    message: Prepared


class History:
    """The newest `size` messages of a topic.

    Args:
        size: how many.
        lost: up to which number messages may have been there that are not here.
    """

    __slots__ = ("_kept", "lost")

    def __init__(self, size: int, lost: int) -> None:
        self._kept: deque[Kept] = deque(maxlen=size)
        self.lost = lost

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def newest(self) -> int:
        """The number of the newest message, or up to which some were lost."""
        return self._kept[-1].number if self._kept else self.lost

    def keep(self, kept: Kept) -> None:
        if len(self._kept) == self._kept.maxlen:
            self.lost = self._kept[0].number
        self._kept.append(kept)

    def find(self, message_id: str) -> int | None:
        """The number of a message that is kept."""
        return next((kept.number for kept in self._kept if kept.id == message_id), None)

    def everything(self) -> list[Prepared]:
        return [kept.message for kept in self._kept]

    def after(self, number: int) -> tuple[list[Prepared], bool]:
        """What came after that number, and whether some of it is not here any more."""
        newer = dropwhile(lambda kept: kept.number <= number, self._kept)
        return [kept.message for kept in newer], number < self.lost
