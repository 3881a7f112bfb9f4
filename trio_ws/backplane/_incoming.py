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
            if envelope.origin != self._origin:
                self._take(topic, envelope)

    def _take(self, topic: str, envelope: Envelope) -> None:
        last = self._last.setdefault(topic, OrderedDict())
        before = last.get(envelope.origin)
        if before is None:
            if len(last) == MAX_ORIGINS:
                last.popitem(last=False)
        elif envelope.number <= before:
            # A publisher that was not told of its success sends again.
            self.duplicates += 1
            return
        elif envelope.previous > before:
            self.announce_gap(topic)
        last[envelope.origin] = envelope.number
        last.move_to_end(envelope.origin)
        self.delivered += 1
        self._deliver(topic, envelope.message, envelope.id)

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


def _nobody(*_: object) -> None:
    """Nothing is listening yet."""
