"""What is counted, and what subscribers did not get.

This module owns the reports for the application.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import final

from .._connection.websocket import WebSocket
from .._log import LoggerLike
from .policies import Disconnect, Latest, SlowReaderPolicy


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
    queued_messages: int
    queued_bytes: int


class Tally:
    """Counts what the subscribers of a broadcast did not get, and collects the reports of it."""

    def __init__(self, logger: LoggerLike, *, reporting: bool) -> None:
        self.logger = logger
        self.dropped: int = 0
        self.replaced: int = 0
        self.disconnected: int = 0
        #: Whether anybody wants reports.
        self.reporting = reporting
        #: Those that the application has yet to be given.
        self.reports: list[Dropped] = []

    def drop(self, report: Dropped) -> None:
        if isinstance(report.policy, Disconnect):
            self.disconnected += 1
        else:
            self.dropped += 1
        if self.reporting:
            self.reports.append(report)

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
