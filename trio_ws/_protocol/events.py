"""What a wire gives: messages, fragments of messages, pings, pongs, and one end.

This module owns the vocabulary of this room. It does nothing.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple, TypeAlias

from wsproto.connection import ConnectionType

from .._errors import CloseCode, may_be_sent


class Role(enum.Enum):
    """Which end of the connection this is: a client masks what it sends, a server does not."""

    CLIENT = ConnectionType.CLIENT
    SERVER = ConnectionType.SERVER


#: Messages that came in one frame each, in order.
Messages: TypeAlias = list[str | bytes]


class Fragment(NamedTuple):
    """A piece of a message that did not arrive in one frame and one read. May be empty."""

    data: str | bytes
    final: bool


class Ping(NamedTuple):
    """The peer asks for a pong with this payload (RFC 6455 section 5.5.2)."""

    payload: bytes


class Pong(NamedTuple):
    """An answer to one of our pings, or an unsolicited pong (RFC 6455 section 5.5.3)."""

    payload: bytes


class Close(NamedTuple):
    """The peer's Close frame; 1005 if it carried no code (RFC 6455 section 7.1.5)."""

    code: int
    reason: str


class Violation(NamedTuple):
    """The peer broke the protocol or a limit.

    The connection is to be failed with this code (RFC 6455 section 7.1.7).
    """

    code: int
    reason: str


Event: TypeAlias = Messages | Fragment | Ping | Pong | Close | Violation


def show_event(event: Event | str | bytes) -> str:
    """An event in a log line: what it is, and the beginning of what it holds."""
    if isinstance(event, list):
        return "; ".join(map(show_event, event))
    if isinstance(event, Fragment):
        last = ", the last" if event.final else ""
        return f"fragment {_shorten(event.data)}{last}"
    if isinstance(event, (Ping, Pong)):
        return f"{type(event).__name__} {event.payload!r}"
    if isinstance(event, (Close, Violation)):
        return f"{type(event).__name__} {event.code} {event.reason!r}"
    return f"{'text' if isinstance(event, str) else 'binary'} {_shorten(event)}"


def _shorten(data: str | bytes) -> str:
    return f"{data[:40]!r}{'…' if len(data) > 40 else ''} ({len(data)} long)"


class Refused(Exception):
    """A violation on its way up to where it becomes an event."""

    def __init__(self, code: CloseCode, why: str) -> None:
        super().__init__(why)
        self.violation = Violation(int(code), why)


# In our words, because wsproto's depend on how the bytes were cut up.
NOT_UTF8 = Violation(int(CloseCode.INVALID_PAYLOAD), "text that is not UTF-8")


def read_close(payload: bytes) -> Close | None:
    """What a Close frame says (RFC 6455 section 5.5.1); `None` if no peer may send it."""
    if not payload:
        return Close(CloseCode.NO_STATUS_RECEIVED, "")
    try:
        (code,) = CLOSE_CODE.unpack_from(payload)
        return Close(code, payload[2:].decode()) if may_be_sent(code) else None
    except (struct.error, UnicodeDecodeError):
        return None


CLOSE_CODE = struct.Struct("!H")
