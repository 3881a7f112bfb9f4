"""Plain frames to messages and back, fast. No I/O, no state, no opinion.

Nearly every message comes in one *plain* frame: text or binary, FIN set, no reserved bit, masked as
its sender must mask it, the length in its shortest form (RFC 6455 section 5.2). This module takes
such frames apart and puts them together, hundreds in one pass where a read brought that many. It
decides nothing: a frame that is not plain, or not all here, is left where it is, for `wire` to deal
with.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .masking import REPEATS, SHORT, SPARE, mask, new_key

#: The bit that marks the last frame of a message, or its only one.
FIN = 0x80

#: The first byte of a frame: FIN and the opcode.
CONTINUATION = 0x80
TEXT = 0x81
BINARY = 0x82
CLOSE = 0x88
PING = 0x89
PONG = 0x8A

#: The bit that marks the first frame of a compressed message (RFC 7692 section 6).
RSV1 = 0x40

#: How a plain frame begins.
PLAIN = frozenset({TEXT, BINARY})

#: The second byte: the bit that says that a masking key follows; and, in place of a length, the two
#: values that say that the length follows in two bytes or in eight.
MASKED = 0x80
TWO_BYTES_LENGTH = 126
EIGHT_BYTES_LENGTH = 127

#: The longest head: two bytes, eight of length, four of key.
MAX_HEAD = 14

_read_length2 = struct.Struct("!H").unpack_from
_read_length8 = struct.Struct("!Q").unpack_from
_write_head2 = struct.Struct("!BBH").pack
_write_head8 = struct.Struct("!BBQ").pack


# ---------------------------------------------------------------------------
# Taking apart
# ---------------------------------------------------------------------------


def take_masked_messages(
    data: bytes, position: int, limit: float, most: int, *, decode_text: bool = True
) -> tuple[list[str | bytes], int]:
    """Take the messages of the whole plain frames, masked as clients do, from `position` on.

    It stops at the first frame that is anything else, is not all here, is longer than `limit`, or
    holds text that is not UTF-8.

    Args:
        data: what came from the network.
        position: where a frame begins, or where `data` ends.
        limit: the most bytes of payload.
        most: how many messages to take.
        decode_text: whether text becomes `str`; otherwise it is checked, and left as bytes.

    Returns:
        The messages, and where the first frame begins that was not taken.
    """
    messages: list[str | bytes] = []
    payload: bytes | bytearray
    number = int.from_bytes
    size = len(data)
    end = size - 5  # before this there is room for the shortest head
    # Nothing is called in this loop that is not built in, for short messages: a call of ours would
    # cost as much as half a frame. So `wire` and `mask` have some of these lines again.
    while most and position < end:
        first = data[position]
        if first not in PLAIN:
            break
        length = data[position + 1] - MASKED  # below 0 where the frame is not masked
        start = position + 6
        if length >= TWO_BYTES_LENGTH:
            long = length == EIGHT_BYTES_LENGTH
            start = position + (14 if long else 8)
            if start > size:
                break
            (length,) = (_read_length8 if long else _read_length2)(data, position + 2)
            if length < (2**16 if long else TWO_BYTES_LENGTH):  # not the shortest form
                break
        stop = start + length
        # A length of 64 bits needs no test here: so many bytes are never in `data`.
        if length < 0 or stop > size or length > limit:
            break
        key = data[start - 4 : start]
        if length < SHORT:  # as `mask` does it: a call would cost a third more
            pattern = number(key) * REPEATS[length] >> SPARE[length]
            payload = (number(data[start:stop]) ^ pattern).to_bytes(length)
        else:
            payload = mask(data, start, stop, key)
        if first == TEXT:
            try:
                messages.append(payload.decode() if decode_text else checked_utf8(payload))
            except UnicodeDecodeError:
                break  # the messages before it are good; `wire` says what is wrong with this one
        else:
            messages.append(bytes(payload))
        position = stop
        most -= 1
    return messages, position


def take_unmasked_messages(
    data: bytes, position: int, limit: float, most: int, *, decode_text: bool = True
) -> tuple[list[str | bytes], int]:
    """`take_masked_messages`, for frames that a server sends, which are not masked."""
    messages: list[str | bytes] = []
    end = len(data) - 1
    while most and position < end:
        first = data[position]
        if first not in PLAIN:
            break
        length = data[position + 1]
        start = position + 2
        if length >= TWO_BYTES_LENGTH:
            long = length == EIGHT_BYTES_LENGTH
            start = position + (10 if long else 4)
            if start > len(data):
                break
            (length,) = (_read_length8 if long else _read_length2)(data, position + 2)
            if length < (2**16 if long else TWO_BYTES_LENGTH):
                break
        stop = start + length
        if stop > len(data) or length > limit:
            break
        payload = data[start:stop]
        if first == TEXT:
            try:
                messages.append(payload.decode() if decode_text else checked_utf8(payload))
            except UnicodeDecodeError:
                break
        else:
            messages.append(payload)
        position = stop
        most -= 1
    return messages, position


def checked_utf8(payload: bytes | bytearray) -> bytes:
    """`payload` as it is, if it is UTF-8.

    Raises:
        UnicodeDecodeError: it is not.
    """
    if not payload.isascii():  # ten times as fast as decoding
        payload.decode()
    return bytes(payload)


class Head(NamedTuple):
    """Everything that a frame has before its payload."""

    first: int
    masked: bool
    right_length: bool
    """Whether the length is in its shortest form, and has no more than 63 bits (section 5.2)."""
    length: int
    """Of the payload."""
    size: int
    """Of the head itself, masking key included."""


def read_head(data: bytes, position: int) -> Head | None:
    """The head that begins at `position`, right or wrong; `None` before its length is known.

    The masking key need not be here yet.
    """
    if len(data) - position < 2:
        return None
    first, second = data[position], data[position + 1]
    length, size, shortest = second & ~MASKED, 2, 0
    if length == TWO_BYTES_LENGTH:
        size, shortest, read = 4, TWO_BYTES_LENGTH, _read_length2
    elif length == EIGHT_BYTES_LENGTH:
        size, shortest, read = 10, 2**16, _read_length8
    else:
        read = None
    if position + size > len(data):
        return None
    if read is not None:
        (length,) = read(data, position + 2)
    masked = second >= MASKED
    return Head(first, masked, shortest <= length < 2**63, length, size + 4 * masked)


# ---------------------------------------------------------------------------
# Putting together
# ---------------------------------------------------------------------------


def make_masked_frame(first: int, payload: bytes) -> bytes:
    """A whole frame, in one piece, with a fresh key."""
    key = new_key()
    return make_head(first, len(payload), MASKED) + key + mask(payload, 0, len(payload), key)


def make_head(first: int, length: int, mask_bit: int = 0) -> bytes:
    """A frame's head, up to the key."""
    if length < TWO_BYTES_LENGTH:
        return SHORT_HEADS[first][mask_bit | length]
    if length < 2**16:
        return _write_head2(first, mask_bit | TWO_BYTES_LENGTH, length)
    return _write_head8(first, mask_bit | EIGHT_BYTES_LENGTH, length)


_OF_MESSAGES = (CONTINUATION, TEXT, BINARY, TEXT | RSV1, BINARY | RSV1)

#: Looking them up takes half as long as making them.
SHORT_HEADS = {
    first: [bytes((first, second)) for second in range(256)]
    for first in (*_OF_MESSAGES, *(first & ~FIN for first in _OF_MESSAGES), CLOSE, PING, PONG)
}


def masked_size(length: int) -> int:
    """How many bytes a frame takes that a client sends with so many bytes of payload."""
    if length < TWO_BYTES_LENGTH:
        return 6 + length
    return (8 if length < 2**16 else MAX_HEAD) + length


def masked_frame(frame: bytes) -> bytes:
    """The same frame as a client sends it."""
    head = read_head(frame, 0)
    assert head is not None
    return make_masked_frame(head.first, frame[head.size :])
