"""What happened under a load: counts and times, each in one place.

A message counts by the time at which it was due, and an arrival by the time at which it came.
"""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import final

from .histogram import Histogram


@final
class Tally:
    """The counts and times of one run.

    Attributes:
        begin, until: the time that is measured, on trio's clock. Nothing is measured at first.
        opening: how long the opening handshakes took, name look-up, TCP and TLS included.
        refused: why connections could not be opened, and how many.
        lost: how connections ended that the load did not end, and how many.
        due: how many messages were to be sent in the time measured.
        latency: the time from when a message was due until its answer came.
        lag: the time from when a message was due until this program turned to it. It is a part of
            the latency, and not the server's doing.
        sent, sent_bytes: what the connections took in the time measured.
        received, received_bytes: what came in the time measured.
        strays: how many messages came at any time that answer none.
        unsent: how many messages the connections had not taken at the end.
        processor: for how many seconds this process ran in the time measured.
    """

    def __init__(self) -> None:
        self.begin = self.until = inf
        self.opening = Histogram()
        self.refused: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.due = 0
        self.latency = Histogram()
        self.lag = Histogram()
        self.sent = self.sent_bytes = 0
        self.received = self.received_bytes = 0
        self.strays = 0
        self.unsent = 0
        self.processor = 0.0

    @property
    def seconds(self) -> float:
        """How long the time measured was; 0 if the run ended before it."""
        return max(self.until - self.begin, 0.0) if self.begin < inf else 0.0

    @property
    def unanswered(self) -> int:
        """How many messages that were due got no answer."""
        return self.due - self.latency.count

    def note_due(self, due: float, now: float) -> None:
        """A message is due; this program turns to it now. None is due once time is up."""
        if due >= self.begin:
            self.due += 1
            self.lag.record(now - due)

    def note_sent(self, now: float, size: int) -> None:
        if self.begin <= now < self.until:
            self.sent += 1
            self.sent_bytes += size

    def note_received(self, now: float, size: int) -> None:
        if self.begin <= now < self.until:
            self.received += 1
            self.received_bytes += size

    def note_answer(self, due: float, now: float) -> None:
        if due >= self.begin:
            self.latency.record(now - due)
