"""How far each topic was delivered, where the broker keeps positions.

This module owns the rule that nothing is delivered twice and nothing behind a hole. It knows
neither brokers nor tasks: where something is missing, the caller reads it.
"""

from __future__ import annotations

from ._base import Attached, BackplaneMessage, Deliver, ignore
from ._envelope import Envelope, InvalidEnvelope, decode
from ._incoming import Incoming
from ._position import Position


class Places:
    """The position of the last message that was delivered, for each topic.

    Args:
        origin: our own. Messages that we published are delivered with their token.
        incoming: counts, and logs what is malformed.
    """

    def __init__(self, origin: bytes, incoming: Incoming) -> None:
        self._origin = origin
        self._incoming = incoming
        self._places: dict[str, Position] = {}
        self._deliver: Deliver = ignore
        self._attached: Attached = ignore

    def open(self, deliver: Deliver, attached: Attached) -> None:
        self._deliver = deliver
        self._attached = attached

    def get(self, topic: str) -> Position | None:
        """Up to where a topic was delivered; `None` if it is not attached."""
        return self._places.get(topic)

    def attach(self, topic: str, position: Position) -> None:
        """Deliver a topic from this position on. The second time, that is a gap."""
        self._incoming.gaps += topic in self._places
        self._places[topic] = position
        self._attached(topic, position)

    def receive(self, topic: str, data: bytes, position: Position | None) -> bool:
        """Deliver a message, unless it was here before or the topic is not attached.

        Args:
            topic: where it was published.
            data: its envelope.
            position: its position; `None` if no history is to keep it.

        Returns:
            Whether the message was dealt with. If not, others of this epoch are missing before it.
        """
        place = self._places.get(topic)
        if place is None:
            return True
        if position is not None:
            if position.epoch != place.epoch:
                place = Position(position.epoch, position.offset - 1)
                self.attach(topic, place)
            if position.offset <= place.offset:
                self._incoming.duplicates += 1
                return True
            if position.offset > place.offset + 1:
                return False
            self._places[topic] = position
        try:
            self._hand_over(topic, decode(data), position)
        except InvalidEnvelope as exc:
            self._incoming.complain(topic, str(exc))
            if position is not None:  # whatever it was, it is missing
                self.attach(topic, position)
        return True

    def _hand_over(self, topic: str, envelope: Envelope, position: Position | None) -> None:
        token = envelope.number if envelope.origin == self._origin else None
        self._incoming.delivered += 1
        self._deliver(
            BackplaneMessage(topic, envelope.message, position is not None, position, token)
        )

    def forget(self, topic: str) -> None:
        """Detach a topic, which nobody here wants any more."""
        self._places.pop(topic, None)
