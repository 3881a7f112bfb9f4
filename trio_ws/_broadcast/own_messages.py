"""What is still to be known of a message of ours when it comes back from the broker.

This module owns whom such a message is not for, and whether it is compressed. It forgets what never
comes back.
"""

from __future__ import annotations

from typing import NamedTuple

from .._connection.websocket import WebSocket


class Handling(NamedTuple):
    """How a message goes to the subscribers of this process."""

    excluded: frozenset[WebSocket]
    compress: bool | None


#: For all subscribers, compressed as usual.
PLAIN = Handling(frozenset(), None)


class OwnMessages:
    """Messages on their way to the broker and back, by their tokens."""

    def __init__(self) -> None:
        self._by_topic: dict[str, dict[int, Handling]] = {}
        self._topics: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._topics)

    def add(self, token: int, topic: str, handling: Handling) -> None:
        self._by_topic.setdefault(topic, {})[token] = handling
        self._topics[token] = topic

    def take(self, token: int, topic: str) -> Handling:
        """How a message that came back is handled.

        Messages of ours come back in order, so those before it on its topic never will.
        """
        of_topic = self._by_topic.get(topic, {})
        while of_topic and (first := next(iter(of_topic))) < token:
            self._remove(first)
        return self._remove(token) if token in of_topic else PLAIN

    def lose(self, token: int) -> None:
        """Forget a message that nobody will get."""
        if token in self._topics:
            self._remove(token)

    def forget(self, topic: str) -> None:
        """Forget the messages of a topic, which nobody here wants any more."""
        for token in self._by_topic.pop(topic, {}):
            del self._topics[token]

    def _remove(self, token: int) -> Handling:
        topic = self._topics.pop(token)
        of_topic = self._by_topic[topic]
        handling = of_topic.pop(token)
        if not of_topic:
            del self._by_topic[topic]
        return handling
