"""What comes from the broker: each message once, in order, and a notice where some are missing.

This module owns the memory of how far each publisher has come. It knows neither brokers nor tasks.
"""

from __future__ import annotations

from collections import OrderedDict

from .._log import LoggerLike
from ._base import BackplaneMessage, Deliver, Gap, ignore
from ._envelope import Envelope, InvalidEnvelope, decode

#: How many publishers are remembered for each topic: many more processes than anybody expects. The
#: publisher that has been silent for longest is forgotten first, so that processes that come and go
#: do not add up. A repeated or lost message of a forgotten publisher is not noticed.
MAX_ORIGINS = 1024


class Incoming:
    """The check of what comes, before it is delivered.

    Args:
        origin: our own. Messages that we published ourselves are not delivered.
        logger: gets a record of malformed messages.
    """

    def __init__(self, origin: bytes, logger: LoggerLike) -> None:
        self._origin = origin
        self._logger = logger
        # For each topic, the number of each origin's last message.
        self._last: dict[str, OrderedDict[bytes, int]] = {}
        self._deliver: Deliver = ignore
        self._gap: Gap = ignore
        self.delivered = 0
        self.duplicates = 0
        self.malformed = 0
        self.gaps = 0

    def open(self, deliver: Deliver, gap: Gap) -> None:
        self._deliver = deliver
        self._gap = gap

    def receive(self, topic: str, data: bytes) -> None:
        """Deliver the message in `data`, unless it is our own or a repeated one."""
        try:
            envelope = decode(data)
        except InvalidEnvelope as exc:
            self.complain(topic, str(exc))
        else:
            self._check_order(topic, envelope)

    def _check_order(self, topic: str, envelope: Envelope) -> None:
        origin, number, previous, message, kept = envelope
        ours = origin == self._origin
        last = self._last.get(topic)
        if last is None:
            last = self._last[topic] = OrderedDict()
        before = last.get(origin)
        if before is not None:
            if number <= before:
                # A publisher that lost its connection before the broker's answer sends again.
                self.duplicates += not ours
                return
            if previous > before and not ours:
                self.announce_gap(topic)
        self._remember(last, envelope)
        if not ours:
            self.delivered += 1
            self._deliver(BackplaneMessage(topic, message, kept, None, None))

    def _remember(self, last: OrderedDict[bytes, int], envelope: Envelope) -> None:
        last[envelope.origin] = envelope.number
        last.move_to_end(envelope.origin)
        if len(last) > MAX_ORIGINS:
            last.popitem(last=False)

    def note(self, topic: str, data: bytes | None) -> None:
        """Remember a message as one that was here, without delivering it.

        It was published before anybody here subscribed to the topic.
        """
        if (envelope := _envelope_in(data)) is not None:
            self._remember(self._last.setdefault(topic, OrderedDict()), envelope)

    def has_had(self, topic: str, data: bytes | None) -> bool:
        """Whether this message, or a later one of the same publisher, was here before."""
        envelope = _envelope_in(data)
        last = self._last.get(topic)
        if envelope is None or last is None:
            return False
        return envelope.number <= last.get(envelope.origin, 0)

    def announce_gap(self, topic: str | None) -> None:
        self.gaps += 1
        self._gap(topic)

    def complain(self, topic: str, problem: str) -> None:
        """Count something that is not a message. Log it at growing intervals, to spare the log."""
        self.malformed += 1
        if self.malformed.bit_count() == 1:
            self._logger.warning(
                "ignored data that is not a message, on topic %r: %s (%d so far)",
                topic,
                problem,
                self.malformed,
            )

    def forget(self, topic: str) -> None:
        """Drop what is remembered of a topic, which nobody here wants any more."""
        self._last.pop(topic, None)


def _envelope_in(data: bytes | None) -> Envelope | None:
    try:
        return decode(data) if data is not None else None
    except InvalidEnvelope:
        return None
