"""How many messages to ask a broker for, which counts messages and not bytes.

This module owns the guess. It knows neither brokers nor topics.
"""

from __future__ import annotations

from collections.abc import Collection

#: What one answer is to bring, in bytes: enough that a round trip costs each message little, and
#: little enough to hold. While it is taken apart, it is in memory about three times.
READ_BYTES = 2**20

#: How many messages to ask for at first, and at most. The sizes of those to come are not known: in
#: the worst case so many large ones come after as many small ones.
FIRST_MESSAGES = 8
MOST_MESSAGES = 32


class Portion:
    """As many as fit `READ_BYTES`, if the next are no larger than the largest of the last answer.

    It begins small, doubles while more is waiting than it asks for, and begins anew when there is
    nothing. So the first of a backlog, whatever their size, are few.
    """

    def __init__(self) -> None:
        self._messages = FIRST_MESSAGES
        self._largest = 1

    @property
    def messages(self) -> int:
        """How many to ask for, of all topics together; at least one."""
        return max(1, min(self._messages, READ_BYTES // self._largest))

    def note(self, sizes: Collection[int], *, more: bool) -> None:
        """An answer came.

        Args:
            sizes: of the messages in it.
            more: whether it was as long as it could be, so that there may be more.
        """
        if sizes:
            self._largest = max(1, *sizes)
        if more:
            self._messages = min(2 * self._messages, MOST_MESSAGES)
        elif not sizes:
            self._messages = FIRST_MESSAGES
