"""What is counted, and what subscribers did not get.

This module owns the reports for the application.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, final

from .._connection.websocket import WebSocket
from .._log import LoggerLike
from .._metering import DISCONNECTED, DROPPED, REPLACED, Meter, Numbers
from .policies import Disconnect, DropNewest, DropOldest, Latest, SlowReaderPolicy


@final
@dataclass(frozen=True, slots=True)
class Dropped:
    """What a slow subscriber did not get.

    Attributes:
        websocket: whose subscription it was, or `None` for a channel.
        topic: what the message was published to.
        message: the message.
        policy: the policy that decided so. If it is a `Disconnect`, the subscriber was disconnected
            over this message, and what waited before it is also lost.
    """

    websocket: WebSocket | None
    topic: str
    message: str | bytes
    policy: SlowReaderPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastStatistics:
    """A snapshot of a broadcast.

    Attributes:
        subscribers: connections that are subscribed to anything.
        channels: channels of `Broadcast.open_channel` that are open.
        topics: topics that have subscribers or a history.
        published: messages, including those of other processes.
        delivered: how often a message was handed to a subscriber, to be sent at once or to wait.
        dropped: how often a message was dropped because a subscriber was too slow.
        replaced: how often a message was replaced by a newer one with its key before it was sent.
        disconnected: how many subscribers were disconnected because they were too slow.
        members: how many blocks of `Broadcast.join` are open, or linger, in this process.
        malformed: messages about presence that made no sense and were ignored.
        queued_messages, queued_bytes: what waits now. A message that waits for several subscribers
            counts once for each of them.
    """

    subscribers: int
    channels: int
    topics: int
    published: int
    delivered: int
    dropped: int
    replaced: int
    disconnected: int
    members: int
    malformed: int
    queued_messages: int
    queued_bytes: int


#: What metrics call the policies that drop messages.
_LABELS: Final[dict[type[SlowReaderPolicy], str]] = {
    DropOldest: "drop_oldest",
    DropNewest: "drop_newest",
    Latest: "latest",
}


class Tally:
    """Counts what the subscribers of a broadcast did not get, and collects the reports of it.

    Args:
        logger: where the exceptions of the application's functions go.
        reporting: whether anybody wants reports.
        meter: is told how long messages waited, if metrics are on.
    """

    def __init__(self, logger: LoggerLike, *, reporting: bool, meter: Meter | None) -> None:
        self.logger = logger
        self.meter: Meter | None = meter
        #: How often a message was dropped, and with `Disconnect` its subscriber, by the policy.
        self.drops: dict[type[SlowReaderPolicy], int] = dict.fromkeys(
            (DropOldest, DropNewest, Latest, Disconnect), 0
        )
        self.replaced: int = 0
        #: How often a message was handed over and had to wait, or took the place of one that did.
        self.delayed: int = 0
        #: Whether anybody wants reports.
        self.reporting = reporting
        #: Those that the application has yet to be given.
        self.reports: list[Dropped] = []

    def drop(self, report: Dropped) -> None:
        self.drops[type(report.policy)] += 1
        if self.reporting:
            self.reports.append(report)

    @property
    def dropped(self) -> int:
        return sum(self.drops.values()) - self.disconnected

    @property
    def disconnected(self) -> int:
        return self.drops[Disconnect]

    def measure(self, numbers: Numbers) -> None:
        """Add what was counted to the numbers of a meter."""
        for policy, label in _LABELS.items():
            numbers[DROPPED.places[label,]] += self.drops[policy]
        numbers[REPLACED.start] += self.replaced
        numbers[DISCONNECTED.start] += self.disconnected

    def key_of(self, policy: Latest, message: str | bytes) -> Hashable:
        """The message's key. If the function fails, it is a key that no other message has."""
        try:
            key = policy.key(message) if policy.key is not None else None
            hash(key)
        except Exception:
            # Its author is not the publisher, who must not get the exception.
            self.logger.exception("the key of Latest failed, over %.100r", message)
            return object()
        return key
