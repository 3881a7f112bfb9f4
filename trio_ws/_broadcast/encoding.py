"""What goes out of a message: the application's envelope, and the frame for all.

This module owns no message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, final

from .._protocol.message import Message, checked_message
from .._protocol.prepared import Prepared

#: Is given a message, its position and its topic, and returns what goes out.
Envelope: TypeAlias = Callable[[str | bytes, str, str], Message]


@final
class Encoder:
    """Makes what goes out of a message, its position (empty if it has none) and its topic."""

    __slots__ = ("_envelope",)

    def __init__(self, envelope: Envelope | None) -> None:
        self._envelope = envelope

    def __call__(
        self, data: str | bytes, position: str, topic: str, *, compress: bool | None = None
    ) -> Prepared:
        if self._envelope is not None:
            data = checked_message(self._envelope(data, position, topic))
        return Prepared(data, compress=compress)
