"""What a load is to be: how many connections, how many messages, how large, for how long.

This module owns the plan and the messages. It does no I/O.
"""

from __future__ import annotations

import base64
import enum
import math
import random
from dataclasses import dataclass
from typing import Final, final

#: Each message begins with its number on its connection, in so many hexadecimal digits. By it an
#: answer is matched with the message. It is also the smallest size of a message.
NUMBER_SIZE: Final = 8

#: The rest of a message begins at one of so many places of the same random text. zlib looks back 32
#: KiB, so that a message is no mere repetition of the last ones.
_PLACES: Final = 65536

#: How far apart the texts of two successive messages begin: a prime number, so that every place has
#: its turn.
_STEP: Final = 4099


class Mode(enum.Enum):
    """What goes which way."""

    ECHO = "echo"  # each message is sent, and comes back as it was
    SEND = "send"  # messages are sent, and nothing is expected
    RECEIVE = "receive"  # nothing is sent, and what comes is counted


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A load.

    Attributes:
        connections: how many to open.
        rate: messages a second, on all connections together, at fixed times. `None` keeps
            `in_flight` messages under way on each connection.
        in_flight: how many those are.
        seconds: how long to measure.
        warmup: how many seconds to send before that. What was due then counts for nothing.
        drain: how many seconds to wait for answers at the end, at most.
        size: bytes of a message, at least `NUMBER_SIZE`.
        binary: whether messages are binary, and not text.
        mode: what goes which way. `Mode.SEND` needs a rate.
        open_at_once: how many connections may be in their opening handshake at a time.
    """

    connections: int = 1
    rate: float | None = None
    in_flight: int = 1
    seconds: float = 10.0
    warmup: float = 1.0
    drain: float = 5.0
    size: int = 100
    binary: bool = False
    mode: Mode = Mode.ECHO
    open_at_once: int = 50


@final
class Messages:
    """The messages of one load. Those of the same number are equal on all connections.

    Random letters and digits follow the number. They compress by a quarter.
    """

    def __init__(self, plan: Plan) -> None:
        self._size = plan.size
        self._rest = plan.size - NUMBER_SIZE
        length = _PLACES + self._rest
        noise = random.Random(1).randbytes(math.ceil(length * 3 / 4))  # noqa: S311 - no secrets
        self._bytes = base64.b64encode(noise)[:length]
        self._text = None if plan.binary else self._bytes.decode()

    def make(self, number: int) -> str | bytes:
        """The message of that number."""
        if self._text is None:
            return self._make_bytes(number)
        place = number * _STEP % _PLACES
        return f"{number:08x}{self._text[place : place + self._rest]}"

    def _make_bytes(self, number: int) -> bytes:
        place = number * _STEP % _PLACES
        return b"%08x%b" % (number, self._bytes[place : place + self._rest])

    def number_of(self, answer: bytes) -> int | None:
        """The number of the message that came back; `None` if this is no such message."""
        if len(answer) != self._size:
            return None
        try:
            number = int(answer[:NUMBER_SIZE], 16)
        except ValueError:
            return None
        return number if number >= 0 and answer == self._make_bytes(number) else None
