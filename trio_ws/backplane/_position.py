"""Where a message stands in the history of its topic.

This module owns the form in which clients get a position and give it back. It knows no broker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import final

#: What a client may give back: an epoch, and an offset of up to 18 digits without leading zeros.
#: Every such number fits the 64-bit integers that brokers count with.
_FORM = re.compile(r"([A-Za-z0-9]{1,64})-(0|[1-9][0-9]{0,17})", re.ASCII)


@final
@dataclass(frozen=True, slots=True)
class Position:
    """The place of a message in the history of its topic.

    ``str(position)`` is what clients get and give back, for example ``"9f3ac1d2e4b5-42"``. They
    need not understand it.

    Attributes:
        epoch: names one life of the history, by 1 to 64 ASCII letters and digits. A history that is
            lost and begun anew has another one.
        offset: counts the kept messages of the topic in this epoch, from 1, without a hole. 0 is
            the place before the first message.

    Raises:
        TypeError, ValueError: an attribute is not as described here.
    """

    epoch: str
    offset: int

    def __post_init__(self) -> None:
        if isinstance(self.offset, bool) or not isinstance(self.offset, int):
            raise TypeError(f"an offset is a number of messages, not {self.offset!r}")
        if not isinstance(self.epoch, str):
            raise TypeError(f"an epoch is a str, not {self.epoch!r}")
        if not (0 < len(self.epoch) <= 64 and self.epoch.isascii() and self.epoch.isalnum()):
            raise ValueError(f"an epoch is 1 to 64 ASCII letters and digits, not {self.epoch!r}")
        if self.offset < 0:
            raise ValueError(f"an offset is 0 or more messages, not {self.offset!r}")

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"

    @staticmethod
    def parse(text: str) -> Position | None:
        """The position that a client gave back; `None` if this text is none.

        A client may have made it up. No `str` raises anything here, and the result says nothing
        about whether there is such a message.
        """
        found = _FORM.fullmatch(text)
        return Position(found[1], int(found[2])) if found is not None else None
