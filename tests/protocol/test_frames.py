"""`frames`: plain frames to messages and back, and everything else left where it is."""

from __future__ import annotations

from math import inf

import pytest

from tests.helpers import BINARY, CONTINUATION, FIN, PING, TEXT, close_frame, frame, parse_frame
from trio_ws._protocol.frames import (
    Head,
    make_head,
    make_masked_frame,
    read_head,
    take_masked_messages,
    take_unmasked_messages,
)

TAKE = pytest.mark.parametrize(
    ("take", "mask"),
    [(take_masked_messages, True), (take_unmasked_messages, False)],
    ids=["masked", "unmasked"],
)

SIZES = [0, 1, 3, 4, 125, 126, 127, 1023, 1024, 65535, 65536, 70000]


@TAKE
def test_whole_messages_of_every_size_are_taken_in_one_pass(take, mask) -> None:  # type: ignore[no-untyped-def]
    messages: list[str | bytes] = [bytes(size) for size in SIZES] + ["ä" * (n // 2) for n in SIZES]
    stream = b"".join(
        frame(BINARY, message, mask=mask)
        if isinstance(message, bytes)
        else frame(TEXT, message.encode(), mask=mask)
        for message in messages
    )
    assert take(stream, 0, inf, 1000) == (messages, len(stream))
    assert take(b"before" + stream, 6, inf, 1000) == (messages, len(stream) + 6)
    taken, position = take(stream, 0, inf, 3)
    assert taken == messages[:3]
    assert take(stream, position, inf, 1000) == (messages[3:], len(stream))


def long(payload: bytes, mask: bool, size: int = 2) -> bytes:
    """A frame whose length is not in its shortest form, but in `size` bytes."""
    made = frame(BINARY, payload, mask=mask)
    head, rest = made[: 2 if len(payload) < 126 else 4], made[2 if len(payload) < 126 else 4 :]
    length = len(payload).to_bytes(size, "big")
    return head[:1] + bytes([head[1] & 0x80 | (126 if size == 2 else 127)]) + length + rest


ODD = {
    "a control frame": lambda mask: frame(PING, b"x", mask=mask),
    "a Close frame": lambda mask: close_frame(1000, mask=mask),
    "the beginning of a fragmented message": lambda mask: frame(TEXT, b"x", fin=False, mask=mask),
    "a continuation": lambda mask: frame(CONTINUATION, b"x", mask=mask),
    "a reserved bit": lambda mask: frame(TEXT, b"x", rsv=4, mask=mask),
    "an unknown opcode": lambda mask: frame(3, b"x", mask=mask),
    "wrong masking": lambda mask: frame(TEXT, b"hello, hello", mask=not mask),
    "a length that is not minimal": lambda mask: long(b"x" * 125, mask),
    "a length of eight bytes that is not minimal": lambda mask: long(b"x" * 1000, mask, 8),
    "more than the limit": lambda mask: frame(BINARY, bytes(1001), mask=mask),
    "text that is not UTF-8": lambda mask: frame(TEXT, b"\xff", mask=mask),
}


@TAKE
@pytest.mark.parametrize("odd", ODD)
def test_the_first_frame_that_is_not_plain_is_left(odd, take, mask) -> None:  # type: ignore[no-untyped-def]
    before, after = frame(TEXT, b"before", mask=mask), frame(TEXT, b"after", mask=mask)
    stream = before + ODD[odd](mask) + after
    assert take(stream, 0, 1000, 10) == (["before"], len(before))


@TAKE
@pytest.mark.parametrize("size", [0, 5, 125, 126, 1024, 65536])
def test_a_frame_that_is_not_all_here_is_left(take, mask, size: int) -> None:  # type: ignore[no-untyped-def]
    before, cut = frame(BINARY, b"before", mask=mask), frame(BINARY, bytes(size), mask=mask)
    for length in (*range(20), len(cut) - 1):
        if length >= len(cut):
            continue
        assert take(before + cut[:length], 0, inf, 10) == ([b"before"], len(before))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 2**40])
@pytest.mark.parametrize("key", [b"", b"abcd"])
def test_a_head_is_read_as_soon_as_its_length_is_known(size: int, key: bytes) -> None:
    made = make_head(FIN | BINARY, size, 0x80 if key else 0)
    for length in range(len(made)):
        assert read_head(b"x" + made[:length], 1) is None
    expected = Head(FIN | BINARY, bool(key), True, size, len(made) + len(key))
    assert read_head(b"x" + made + key, 1) == expected
    assert read_head(made, 0) == expected


@pytest.mark.parametrize(
    ("second", "length", "right"),
    [
        (126, (125).to_bytes(2), False),
        (126, (126).to_bytes(2), True),
        (127, (2**16 - 1).to_bytes(8), False),
        (127, (2**16).to_bytes(8), True),
        (127, (2**63 - 1).to_bytes(8), True),
        (127, (2**63).to_bytes(8), False),
    ],
)
def test_a_length_that_is_not_minimal_or_has_64_bits_is_noticed(
    second: int, length: bytes, right: bool
) -> None:
    head = read_head(bytes([FIN | BINARY, second]) + length, 0)
    assert head is not None
    assert head.right_length is right


@pytest.mark.parametrize("size", [0, 1, 125, 126, 70000])
def test_a_masked_frame_is_what_a_server_expects(size: int) -> None:
    made = make_masked_frame(FIN | BINARY, b"x" * size)
    assert parse_frame(made) == (FIN | BINARY, b"x" * size, len(made))
    assert made[1] & 0x80
