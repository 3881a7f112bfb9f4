"""The policies for a slow reader that has no room for a message, and the bounds of that room.

This module owns the values. `slow_readers` acts on them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeAlias, final

from .._arguments import check_plain
from .._errors import CloseCode, check_close_arguments
from .._options import check_limit


@final
@dataclass(frozen=True, slots=True)
class DropOldest:
    """The oldest message that waits is dropped. For streams whose newest part matters."""


@final
@dataclass(frozen=True, slots=True)
class DropNewest:
    """The new message is dropped. For work that must be finished in the order in which it came."""


@final
@dataclass(frozen=True, slots=True)
class Latest:
    """Of the messages with the same key, only the newest waits. For states: prices, positions.

    It takes the place of the older one, so that no key stays at the end of the line for ever.
    Nothing overtakes a message of `WebSocket.send`: if one was sent in between, the newer message
    gets a new place behind it. If there are more keys than room, the oldest message is dropped.

    Args:
        key: called with a message as a subscriber gets it; returns its key. By default all messages
            have the same key. Messages of different topics never have the same key.
    """

    key: Callable[[str | bytes], Hashable] | None = None

    def __post_init__(self) -> None:
        if self.key is not None:
            check_plain("key", self.key, "a message")


@final
@dataclass(frozen=True, slots=True)
class Disconnect:
    """The subscriber is disconnected, and may come back. For streams that must have no gaps.

    A connection loses what waits for it. It is sent a Close frame with this code and reason, which
    it gets if it reads on within `close_timeout`, and its handler ends as with any other end of the
    connection. A channel ends once what waits in it has been received.

    Raises:
        ValueError: a Close frame may not carry `code` or `reason`.
    """

    code: int = CloseCode.TRY_AGAIN_LATER
    reason: str = "too slow"

    def __post_init__(self) -> None:
        check_close_arguments(self.code, self.reason)


#: What may be done about a subscriber that is too slow.
SlowReaderPolicy: TypeAlias = DropOldest | DropNewest | Latest | Disconnect


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait for one subscriber, and the policy for more."""

    policy: SlowReaderPolicy
    max_queued_messages: float
    max_queued_bytes: float

    def __post_init__(self) -> None:
        if not isinstance(self.policy, SlowReaderPolicy):
            raise TypeError(
                "policy is DropOldest(), DropNewest(), Latest() or Disconnect(), "
                f"not {self.policy!r}"
            )
        check_limit("max_queued_messages", self.max_queued_messages)
        check_limit("max_queued_bytes", self.max_queued_bytes)
