"""The last messages of a topic, their ids, and which of them a subscriber has missed.

This module knows nothing of connections.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from itertools import dropwhile
from typing import NamedTuple, TypeAlias

from .._protocol.prepared import Prepared

#: From which message on a subscriber wants to catch up: its id, or one for each topic.
Since: TypeAlias = str | Mapping[str, str] | None


def checked_since(since: Since) -> Since:
    if since is not None and not isinstance(since, (str, Mapping)):
        raise TypeError(f"since is the id of a message, or one for each topic, not {since!r}")
    return since


def since_of(since: Since, topic: str) -> str | None:
    return since.get(topic) if isinstance(since, Mapping) else since


class Ids:
    """Numbers the messages of one broadcast, and the gaps between them."""

    __slots__ = ("_epoch", "newest")

    def __init__(self) -> None:
        #: Another run of the program must not give the same id to another message.
        self._epoch = os.urandom(4).hex()
        #: The number of the last message, or the last gap.
        self.newest: int = 0

    def advance(self) -> int:
        """The number of a message or a gap that comes now."""
        self.newest += 1
        return self.newest

    @property
    def next_id(self) -> str:
        """The id of the message that will be numbered next, if no backplane gives it one."""
        return f"{self._epoch}-{self.newest + 1}"

    def number_of(self, message_id: str) -> int | None:
        """The number of a message with an id of ours, whatever its topic.

        The id may be anything that a client has made up.
        """
        epoch, _, digits = message_id.rpartition("-")
        if epoch != self._epoch or not digits.isascii() or not digits.isdigit():
            return None
        return int(digits) if len(digits) < 20 and int(digits) <= self.newest else None


class Kept(NamedTuple):
    """A message that was published."""

    number: int
    """It grows from message to message, over all topics."""
    id: str
    message: Prepared


class History:
    """The newest messages of a topic.

    Args:
        size: how many.
        lost: up to which number messages may have been there that are not here.
    """

    __slots__ = ("_kept", "lost")

    def __init__(self, size: int, lost: int) -> None:
        self._kept: deque[Kept] = deque(maxlen=size)
        self.lost: int = lost

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

    def since(self, message_id: str | None, ids: Ids) -> tuple[list[Prepared], bool]:
        """What came after a message, and whether more came that is lost.

        After an id that means nothing here, everything is new, and something may be lost.
        """
        if message_id is None:
            return self._everything(), False
        number = self._find(message_id)
        if number is None:
            # It is another topic's, or is not kept any more.
            number = ids.number_of(message_id)
        return (self._everything(), True) if number is None else self._after(number)

    def _find(self, message_id: str) -> int | None:
        return next((kept.number for kept in self._kept if kept.id == message_id), None)

    def _everything(self) -> list[Prepared]:
        return [kept.message for kept in self._kept]

    def _after(self, number: int) -> tuple[list[Prepared], bool]:
        newer = dropwhile(lambda kept: kept.number <= number, self._kept)
        return [kept.message for kept in newer], number < self.lost
