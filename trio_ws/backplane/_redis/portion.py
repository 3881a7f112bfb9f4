"""How many messages to ask the broker for, as it counts messages and not bytes.

This module owns the guess. It knows neither brokers nor topics.
"""

from __future__ import annotations

from collections.abc import Collection

#: How large one answer should be, in bytes: enough that a round trip costs each message little, and
#: little enough to hold. While an answer is parsed, it is in memory about three times.
READ_BYTES = 2**20

#: How many messages to ask for at first, and at most. The sizes of those to come are not known. In
#: the worst case, this many large ones follow as many small ones.
FIRST_MESSAGES = 8
MOST_MESSAGES = 32


class Portion:
    """As many messages as fit `READ_BYTES`, if none is larger than the largest of the last answer.

    The number begins small, doubles while more messages wait than were asked for, and begins anew
    when none wait. So the first answer of a backlog is short, whatever the size of its messages.
    """

    def __init__(self) -> None:
        self._messages = FIRST_MESSAGES
        self._largest = 1

    @property
    def messages(self) -> int:
        """How many to ask for, of all topics together; at least one."""
        return max(1, min(self._messages, READ_BYTES // self._largest))

    def note(self, sizes: Collection[int], *, more: bool) -> None:
        """Learn from an answer.

        Args:
            sizes: the sizes of its messages, in bytes.
            more: whether it had as many messages as were asked for, so that more may be waiting.
        """
        if sizes:
            self._largest = max(1, *sizes)
        if more:
            self._messages = min(2 * self._messages, MOST_MESSAGES)
        elif not sizes:
            self._messages = FIRST_MESSAGES
