"""What `open_broadcast` is given: defaults, and the check of it.

This module owns the values. It does nothing with them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

from .._arguments import check_async, check_plain
from .._connection.websocket import WebSocket
from .._log import LoggerLike
from .._metering import Meter
from .._options import check_limit, check_logger
from ..backplane._base import Backplane
from .catching_up import GetState
from .encoding import Envelope
from .policies import Limits
from .presence import check_lease
from .tally import Dropped

#: How many messages may wait for one subscriber by default. A reader this far behind, at ten
#: messages a second, is half a minute late.
MAX_QUEUED_MESSAGES = 256

#: And how many bytes: with a million of them ahead of it, a ping still reaches a reader of
#: 0.5 Mbit/s within the default `ping_timeout`.
MAX_QUEUED_BYTES = 2**20

#: After how many seconds a process is given up. One that is alive speaks three times in that.
PRESENCE_LEASE = 10.0

#: How many topics without subscribers keep their history.
MAX_IDLE_TOPICS = 1024

#: How many messages a client that comes back may have missed, if the backplane keeps them: at ten a
#: second, a tunnel of a minute and a half.
MAX_RECOVERED = 1000

#: The connections that do not get a message.
Exclude: TypeAlias = WebSocket | Collection[WebSocket] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `open_broadcast` was given, checked."""

    limits: Limits
    history: int
    max_recovered: int
    max_idle_topics: float
    envelope: Envelope | None
    state: GetState | None
    on_drop: Callable[[Dropped], object] | None
    #: These two are called with the broadcast, which this file need not know.
    on_change: Callable[..., object] | None
    on_gap: Callable[..., object] | None
    backplane: Backplane | None
    presence_lease: float
    logger: LoggerLike
    meter: Meter | None

    def __post_init__(self) -> None:
        for name in ("history", "max_recovered"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(f"{name} is a number of messages, not {number!r}")
            if number < 0:
                raise ValueError(f"{name} is 0 or more messages, not {number!r}")
        check_limit("max_idle_topics", self.max_idle_topics)
        check_lease(self.presence_lease)
        functions = {
            "envelope": ("a message", "its position", "its topic"),
            "on_drop": ("a Dropped",),
            "on_change": ("the broadcast", "a topic"),
            "on_gap": ("the broadcast", "a topic or None"),
        }
        for name, arguments in functions.items():
            function = getattr(self, name)
            if function is not None:
                check_plain(name, function, *arguments)
        if self.state is not None:
            check_async("state", self.state, "a topic")
        if self.backplane is not None and not isinstance(self.backplane, Backplane):
            raise TypeError(f"backplane is a Backplane or None, not {self.backplane!r}")
        check_logger(self.logger)
