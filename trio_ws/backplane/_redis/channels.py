"""Which channels Redis was told to send us, and which of them it has confirmed.

This module owns SUBSCRIBE and UNSUBSCRIBE, in one session. It knows nothing of what comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from .._interest import Interest

if TYPE_CHECKING:
    from .link import Link

#: How many channels one command names. Redis runs a command without interruption, and all its other
#: clients wait.
CHANNELS_PER_COMMAND = 256


@final
class Channels:
    """The channels of the topics that are wanted.

    Args:
        before: what each channel's name begins with, before the topic.
        after: what it ends with.
        interest: which topics are wanted.
    """

    def __init__(self, before: str, after: str, interest: Interest) -> None:
        self._before = before.encode()
        self._after = after.encode()
        self._interest = interest
        self._told: set[str] = set()
        self._confirmed: set[str] = set()

    def start_session(self) -> None:
        """Note that the connection is new, so that Redis knows nothing about us."""
        self._told.clear()
        self._confirmed.clear()

    async def follow_all(self, link: Link) -> None:
        """Subscribe to all topics that are wanted, at the beginning of a session."""
        self._interest.take_changes()
        await self._follow(link, list(self._interest.wanted))

    async def follow(self, link: Link) -> list[str]:
        """Wait for topics that come and go, and tell Redis.

        Returns:
            Those that went and came back at once. They are still subscribed to, so that Redis will
            not confirm them again.
        """
        await self._interest.wait_for_changes()
        changed = self._interest.take_changes()
        back = [topic for topic in changed if topic in self._confirmed]
        await self._follow(link, changed)
        return [topic for topic in back if topic in self._confirmed]

    async def _follow(self, link: Link, changed: list[str]) -> None:
        wanted = self._interest.wanted
        gone = [topic for topic in changed if topic not in wanted and topic in self._told]
        new = [topic for topic in changed if topic in wanted and topic not in self._told]
        self._send(link, b"UNSUBSCRIBE", gone)
        self._send(link, b"SUBSCRIBE", new)
        self._told.update(new)
        self._told.difference_update(gone)
        self._confirmed.difference_update(gone)
        # SUBSCRIBE has no answer, but pushes. If Redis refuses it, the error comes as the answer to
        # the next command: this one.
        await link.request(b"PING")

    def _send(self, link: Link, command: bytes, topics: list[str]) -> None:
        channels = [self.name(topic) for topic in topics]
        for start in range(0, len(channels), CHANNELS_PER_COMMAND):
            link.send(command, *channels[start : start + CHANNELS_PER_COMMAND])

    def confirm(self, channel: bytes) -> str:
        """Note that Redis has confirmed a subscription, and return its topic."""
        topic = self.topic(channel)
        self._confirmed.add(topic)
        return topic

    def name(self, topic: str) -> bytes:
        return self._before + topic.encode() + self._after

    def topic(self, channel: bytes) -> str:
        return channel[len(self._before) : len(channel) - len(self._after)].decode()
