"""What goes over the broker: a message, who published it, and in which order.

This module owns the format and nothing else: bytes in, values out, no trio, no broker.

Version 1, in network byte order::

    1 byte   version: 1
    1 byte   kind: 0 for bytes, 1 for text in UTF-8; plus 2 if no history is to keep the message
    8 bytes  origin: random, one for each backplane instance
    8 bytes  number: counts what the origin publishes, from 1
    8 bytes  previous: the number of the origin's message before this one on the same topic; 0 if
             the origin remembers none
    the rest the message

The topic is not in the envelope: it is the name of the channel or stream. The number shows a
duplicate. The previous number shows a loss, even to a process that does not see the origin's other
topics.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

VERSION = 1
ORIGIN_SIZE = 8

_HEAD = struct.Struct("!BB8sQQ")
_BYTES, _TEXT, _PASSING = 0, 1, 2


class InvalidEnvelope(Exception):
    """The data is not an envelope of this version."""


class Envelope(NamedTuple):
    """One message on its way."""

    origin: bytes
    number: int
    previous: int
    message: str | bytes
    kept: bool = True


def encode(envelope: Envelope) -> bytes:
    origin, number, previous, message, kept = envelope
    kind = (_TEXT if isinstance(message, str) else _BYTES) | (0 if kept else _PASSING)
    data = message.encode() if isinstance(message, str) else message
    return _HEAD.pack(VERSION, kind, origin, number, previous) + data


def origin_of(data: bytes) -> bytes:
    """The origin in an envelope that `encode` made."""
    return data[2 : 2 + ORIGIN_SIZE]


def is_kept(data: bytes) -> bool:
    """Whether histories keep the message in an envelope that `encode` made."""
    return not data[1] & _PASSING


def size_of(message: str | bytes) -> int:
    """The length of an envelope that holds this message, in bytes."""
    size = len(message)
    if isinstance(message, str) and not message.isascii():
        size = len(message.encode())
    return _HEAD.size + size


def decode(data: bytes) -> Envelope:
    """The envelope in `data`.

    Raises:
        InvalidEnvelope: whatever is wrong with `data`. Nothing else is raised.
    """
    if data[:1] != bytes([VERSION]):
        raise InvalidEnvelope(f"version {data[0]}, not {VERSION}" if data else "it is empty")
    if len(data) < _HEAD.size:
        raise InvalidEnvelope(f"{len(data)} bytes, less than the {_HEAD.size} of the head")
    _, kind, origin, number, previous = _HEAD.unpack_from(data)
    if previous >= number:
        raise InvalidEnvelope(f"number {number} after number {previous}")
    if kind > _TEXT | _PASSING:
        raise InvalidEnvelope(f"kind {kind} is unknown")
    message: str | bytes = data[_HEAD.size :]
    if kind & _TEXT:
        try:
            message = data[_HEAD.size :].decode()
        except UnicodeDecodeError as exc:
            raise InvalidEnvelope("the text is not UTF-8") from exc
    return Envelope(origin, number, previous, message, not kind & _PASSING)
