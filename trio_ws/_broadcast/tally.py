"""What is counted, and what subscribers did not get.

This module owns the reports for the application.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass
from typing import final

from .._connection.websocket import WebSocket
from .policies import Disconnect, Latest, SlowReaderPolicy


@final
@dataclass(frozen=True, slots=True)
class Dropped:
    """What a slow subscriber did not get.

    Attributes:
        websocket: whose subscription it was, or `None` for a channel.
        topic: what the message was published to.
        message: the message.
        policy: what made the decision. If it is a `Disconnect`, the subscriber was disconnected
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
        channels: those of `Broadcast.open_channel`.
        topics: what there are subscribers or a history of.
        published: messages, those of other processes among them.
        delivered: how often one was handed to a subscriber, to be sent at once or to wait.
        dropped: how often one was dropped because a subscriber was too slow.
        replaced: how often one was replaced by a newer one with its key, before it was sent.
        disconnected: how many subscribers were disconnected because they were too slow.
        queued_messages, queued_bytes: what waits now for all of them, counted once for each.
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
    """What all subscribers of a broadcast did not get: counted, and noted down to be reported."""

    def __init__(self, logger: logging.Logger, *, reporting: bool) -> None:
        self.logger = logger
        self.dropped = self.replaced = self.disconnected = 0
        #: Whether anybody wants reports, and those that were not made yet.
        self.reporting = reporting
        self.reports: list[Dropped] = []

    def drop(self, report: Dropped) -> None:
        if isinstance(report.policy, Disconnect):
            self.disconnected += 1
        else:
            self.dropped += 1
        if self.reporting:
            self.reports.append(report)

    def key_of(self, policy: Latest, message: str | bytes) -> Hashable:
        """The message's key; one that no other has where it cannot be told."""
        try:
            key = policy.key(message) if policy.key is not None else None
            hash(key)
        except Exception:
            # The mistake is the application's, but not the publisher's.
            self.logger.exception("the key of Latest failed, over %.100r", message)
            return object()
        return key
