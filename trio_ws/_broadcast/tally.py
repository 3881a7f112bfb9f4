"""What subscribers did not get.

This module owns the counts, and the reports for the application.
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
