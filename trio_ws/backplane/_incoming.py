"""What comes from the broker: each message once, in order, and a notice where some are missing.

This module owns who has published what so far. It knows neither brokers nor tasks.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

from ._base import Deliver, Gap
from ._envelope import Envelope, InvalidEnvelope, decode

#: How many publishers are remembered for each topic: many more processes than one expects. Those
#: that have not published for the longest are forgotten, so that processes that come and go do not
#: add up. Of one that was forgotten, a repeated message or a loss is not told.
MAX_ORIGINS = 1024


class Incoming:
    """See the module.

    Args:
        origin: our own: what we published ourselves is not delivered.
        logger: told of what is malformed.
    """

    def __init__(self, origin: bytes, logger: logging.Logger) -> None:
        self._origin = origin
        self._logger = logger
        # For each topic, the number of the last message of each origin.
        self._last: dict[str, OrderedDict[bytes, int]] = {}
        self._deliver: Deliver = _nobody
        self._gap: Gap = _nobody
        self.delivered = 0
        self.duplicates = 0
        self.malformed = 0
        self.gaps = 0

    def open(self, deliver: Deliver, gap: Gap) -> None:
        self._deliver = deliver
        self._gap = gap

    def take(self, topic: str, data: bytes) -> None:
        """Deliver what is in `data`, if it is a message of another and not a repeated one."""
        try:
            envelope = decode(data)
        except InvalidEnvelope as exc:
            self.complain(topic, str(exc))
        else:
            self._take(topic, envelope)

    def _take(self, topic: str, envelope: Envelope) -> None:
        origin, number, previous, message, _ = envelope
        ours = origin == self._origin
        last = self._last.get(topic)
        if last is None:
            last = self._last[topic] = OrderedDict()
        before = last.get(origin)
        if before is not None:
            if number <= before:
                # A publisher that was not told of its success sends again.
                self.duplicates += not ours
                return
            if previous > before and not ours:
                self.announce_gap(topic)
        self._remember(last, envelope)
        if not ours:
            self.delivered += 1
            self._deliver(topic, message, envelope.id)

    def _remember(self, last: OrderedDict[bytes, int], envelope: Envelope) -> None:
        last[envelope.origin] = envelope.number
        last.move_to_end(envelope.origin)
        if len(last) > MAX_ORIGINS:
            last.popitem(last=False)

    def note(self, topic: str, data: bytes | None) -> None:
        """Take it as one that has been here. It was published before anybody here wanted it."""
        if (envelope := _envelope_in(data)) is not None:
            self._remember(self._last.setdefault(topic, OrderedDict()), envelope)

    def has_had(self, topic: str, data: bytes | None) -> bool:
        """Whether it has been here, or one that its publisher published after it."""
        envelope = _envelope_in(data)
        last = self._last.get(topic)
        if envelope is None or last is None:
            return False
        return envelope.number <= last.get(envelope.origin, 0)

    def announce_gap(self, topic: str | None) -> None:
        self.gaps += 1
        self._gap(topic)

    def complain(self, topic: str, problem: str) -> None:
        """Count something that is no message, and log it: not each time, lest it fill the log."""
        self.malformed += 1
        if self.malformed.bit_count() == 1:
            self._logger.warning(
                "ignored what is no message on topic %r: %s (%d so far)",
                topic,
                problem,
                self.malformed,
            )

    def forget(self, topic: str) -> None:
        """The topic is not wanted any more."""
        self._last.pop(topic, None)


def _envelope_in(data: bytes | None) -> Envelope | None:
    try:
        return decode(data) if data is not None else None
    except InvalidEnvelope:
        return None


def _nobody(*_: object) -> None:
    """Nothing is listening yet."""
