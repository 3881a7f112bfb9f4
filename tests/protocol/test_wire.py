"""`wire`: bytes to events, events to bytes, and the same for every way of cutting them up."""

from __future__ import annotations

import struct
import tracemalloc
from math import inf
from typing import Any

import pytest
from hypothesis import given, strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from tests.helpers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    TEXT,
    Decoded,
    close_code,
    close_frame,
    decode,
    frame,
    parse_frame,
)
from trio_ws._protocol.deflate import Agreement, Deflate, Deflater
from trio_ws._protocol.events import Close, Event, Fragment, Ping, Pong, Role, Violation, show_event
from trio_ws._protocol.wire import Wire


def server(limit: float = 2**20) -> Wire:
    return Wire(Role.SERVER, max_message_size=limit)


def normalized(events: list[Decoded]) -> list[object]:
    """Events with the pieces of each message put together: what must not depend on chunks."""
    result: list[object] = []
    pieces: list[Any] = []
    for event in events:
        if not isinstance(event, Fragment):
            result.append(event)
            continue
        pieces.append(event.data)
        if event.final:
            result.append(type(event.data)().join(pieces))
            pieces = []
    return result


frames = st.one_of(
    st.builds(frame, st.sampled_from([TEXT, BINARY, PING, PONG]), st.binary(max_size=125)),
    st.builds(
        lambda parts, opcode: b"".join(
            frame(opcode if index == 0 else CONTINUATION, part, fin=index == len(parts) - 1)
            + frame(PING, b"between")
            for index, part in enumerate(parts)
        ),
        st.lists(st.binary(max_size=300), min_size=1, max_size=4),
        st.sampled_from([TEXT, BINARY]),
    ),
    st.builds(lambda text: frame(TEXT, text.encode()), st.text(max_size=200)),
    st.builds(close_frame, st.sampled_from([1000, 1014, 4000, 1005, 999]), st.text(max_size=20)),
    st.binary(max_size=30),
)


@given(st.lists(frames, max_size=8), st.data())
def test_any_chunking_of_any_bytes_gives_the_same_messages_and_the_same_end(
    parts: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole, cut = server(), server()
    assert normalized(decode(whole, stream)) == normalized(decode(cut, *chunks))
    bytewise = server()
    single = [bytes([byte]) for byte in stream]
    assert normalized(decode(bytewise, *single)) == normalized(decode(server(), stream))


@given(st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300)), max_size=10))
def test_what_one_role_sends_the_other_receives(messages: list[str | bytes]) -> None:
    for sender, receiver in ((Role.CLIENT, Role.SERVER), (Role.SERVER, Role.CLIENT)):
        sending = Wire(sender, max_message_size=2**20)
        receiving = Wire(receiver, max_message_size=2**20)
        data = b"".join(sending.message(message) for message in messages)
        assert decode(receiving, data) == messages


@given(st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300)), max_size=10))
def test_messages_are_those_of_wsproto_alone(messages: list[str | bytes]) -> None:
    client = Connection(ConnectionType.CLIENT)
    data = b"".join(
        client.send(TextMessage(data=m) if isinstance(m, str) else BytesMessage(data=m))
        for m in messages
    )
    assert decode(server(), data) == messages


def test_control_frames_are_events_of_their_own() -> None:
    events = decode(
        server(),
        frame(PING, b"1") + frame(PONG, b"2") + frame(TEXT, b"x") + close_frame(1014, "why"),
    )
    assert events == [Ping(b"1"), Pong(b"2"), "x", Close(1014, "why")]


def test_the_end_is_the_last_event_and_nothing_after_it_is_looked_at() -> None:
    wire = server()
    assert decode(wire, close_frame(None) + frame(TEXT, b"late"), b"\xff" * 100) == [
        Close(1005, "")
    ]
    assert wire.end is not None
    wire = server()
    events = decode(wire, frame(0x3) + frame(TEXT, b"late"), b"\xff" * 100)
    assert [type(event) for event in events] == [Violation]
    assert wire.end is not None


def test_the_end_of_a_closing_that_we_began_is_the_last_event() -> None:
    wire = server()
    wire.close(1000, "")
    assert decode(wire, close_frame(1000) + b"\xff" * 100, b"\xff" * 100) == [Close(1000, "")]


def test_the_limit_counts_payload_and_at_least_64_for_each_further_fragment() -> None:
    assert decode(server(10), frame(BINARY, b"x" * 10)) == [b"x" * 10]
    assert decode(server(10), frame(BINARY, b"x" * 11)) == [
        Violation(1009, "message over 10 bytes")
    ]
    wire = server(1000)
    assert wire.end is None
    parts = frame(BINARY, b"x", fin=False) + frame(CONTINUATION, b"", fin=False) * 15
    assert not any(isinstance(event, Violation) for event in decode(wire, parts))
    assert isinstance(decode(wire, frame(CONTINUATION))[-1], Violation)


@pytest.mark.parametrize("limit", [100, inf])
@pytest.mark.parametrize("role", Role)
def test_a_length_of_64_bits_breaks_the_protocol_whatever_the_limit(
    role: Role, limit: float
) -> None:
    head = bytes([FIN | BINARY, 0xFF if role is Role.SERVER else 0x7F]) + (2**63).to_bytes(8)
    for pieces in ([head + b"keys"], [bytes([byte]) for byte in head + b"keys"]):
        (violation,) = decode(Wire(role, max_message_size=limit), *pieces)
        assert isinstance(violation, Violation)
        assert violation.code == 1002


def test_a_header_that_a_read_cuts_within_its_masking_key_is_charged_once() -> None:
    fragments = [frame(BINARY, b"x" * 400, fin=False), frame(CONTINUATION, b"x" * 400)]
    stream = b"".join(fragments)
    for cut in range(len(stream)):
        events = decode(server(800), stream[:cut], stream[cut:])
        assert normalized(events) == [b"x" * 800]


@pytest.mark.parametrize("first", [FIN | 3, PING, FIN | PING])
def test_a_frame_that_must_be_wrong_is_refused_at_its_second_byte(first: int) -> None:
    """An unknown opcode, a control frame in fragments, one that is too long."""
    head = bytes([first, 0x80 | 126])
    for pieces in ([head], [head[:1], head[1:]]):
        assert [type(event) for event in decode(server(), *pieces)] == [Violation]


@pytest.mark.parametrize("cut", range(1, 12))
def test_after_a_frame_that_wsproto_judged_the_short_way_is_taken_again(cut: int) -> None:
    wire = server()
    odd = frame(PING, b"x" * 4) + frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b")
    events = decode(wire, odd[:cut], odd[cut:] + frame(TEXT, b"first") + frame(BINARY, b"second"))
    assert events == [
        Ping(b"xxxx"),
        Fragment("a", final=False),
        Fragment("b", final=True),
        "first",  # no fragments
        b"second",
    ]


def test_items_that_have_been_given_out_are_not_kept() -> None:
    """Memory as the allocator sees it, while 20 MiB pass through in pieces of one large frame."""
    wire = server(inf)
    decode(wire, b"")
    size, piece = 20 * 2**20, bytes(2**16)
    header = bytes([FIN | BINARY, 0xFF]) + size.to_bytes(8, "big") + bytes(4)
    tracemalloc.start()
    try:
        received = sum(_length(event) for event in decode(wire, header))
        for _ in range(size // len(piece)):
            received += sum(_length(event) for event in decode(wire, piece))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert received == size
    assert peak < 2**20


def _length(event: Decoded) -> int:
    assert isinstance(event, Fragment)
    return len(event.data)


def test_frames_may_be_sent_until_a_close_frame_went_either_way() -> None:
    wire = server()

    def may() -> tuple[bool, bool]:
        return wire.may_send, wire.may_close

    assert may() == (True, True)
    decode(wire, close_frame(1000))
    assert may() == (False, True)
    assert wire.close(1000, "") == b"\x88\x02\x03\xe8"
    assert may() == (False, False)


def test_a_close_frame_without_a_code_is_empty() -> None:
    assert server().close(1005, "") == b"\x88\x00"


CLOSE_PAYLOADS = [
    b"",
    b"\x03",
    *(struct.pack("!H", code) for code in (*range(990, 1020), *range(0, 65536, 331))),
    *(struct.pack("!H", code) for code in (2999, 3000, 4999, 5000, 65535)),
    b"\x03\xe8" + "why é €".encode(),
    b"\x03\xe8" + b"\xff",
    b"\x03\xe8" + "€".encode()[:2],
    b"\x03\xe8" + b"x" * 123,
    b"\x03\xe8" + b"x" * 124,
]


# Text that cannot become UTF-8…

#: The well-formed byte sequences: of the first byte, how the others go on (Unicode 3.9, table 3-7).
TAIL = range(0x80, 0xC0)
WELL_FORMED: dict[int, tuple[range, ...]] = {
    **dict.fromkeys(range(0x80), ()),
    **dict.fromkeys(range(0xC2, 0xE0), (TAIL,)),
    **dict.fromkeys(range(0xE1, 0xF0), (TAIL, TAIL)),
    0xE0: (range(0xA0, 0xC0), TAIL),
    0xED: (range(0x80, 0xA0), TAIL),
    **dict.fromkeys(range(0xF1, 0xF4), (TAIL, TAIL, TAIL)),
    0xF0: (range(0x90, 0xC0), TAIL, TAIL),
    0xF4: (range(0x80, 0x90), TAIL, TAIL),
}


def refused_at(data: bytes) -> int | None:
    """With how many bytes of it no others can make it UTF-8; `None` if some can."""
    expected: list[range] = []
    for count, byte in enumerate(data, 1):
        if expected:
            if byte not in expected.pop(0):
                return count
        elif byte in WELL_FORMED:
            expected = list(WELL_FORMED[byte])
        else:
            return count
    return None


def refused_by(wire: Wire, *pieces: bytes) -> int | None:
    """With how many of the pieces it is refused."""
    for count, piece in enumerate(pieces, 1):
        if decode(wire, piece) == [Violation(1007, "text that is not UTF-8")]:
            return count
        assert wire.end is None
    return None


def as_bytes(data: bytes) -> list[bytes]:
    return [bytes((byte,)) for byte in data]


#: Each side of every border in the table.
BORDERS = (0, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xED, 0xEE, 0xF4, 0xFF)


def test_two_bytes_are_refused_with_the_first_that_no_others_can_make_utf_8() -> None:
    """Every two there are, in a frame that has still more to come."""
    for number in range(2**16):
        data = number.to_bytes(2)
        wire = Wire(Role.CLIENT, max_message_size=100)
        assert decode(wire, frame(TEXT, bytes(10), mask=False)[:2]) == []
        assert refused_by(wire, *as_bytes(data)) == refused_at(data), data.hex()


@pytest.mark.parametrize("second", BORDERS)
@pytest.mark.parametrize("mask", [True, False])
def test_three_bytes_are_refused_with_the_first_that_no_others_can_make_utf_8(
    second: int, mask: bool
) -> None:
    """In a whole frame that comes byte by byte, and in fragments of a byte."""
    role = Role.SERVER if mask else Role.CLIENT
    for first in range(256):
        for third in (0x7F, 0x80, 0xBF, 0xC0):
            data = bytes((first, second, third))
            expected = refused_at(data)
            whole = frame(TEXT, data + bytes(5), mask=mask)
            start = len(whole) - 8
            wire = Wire(role, max_message_size=1000)
            assert decode(wire, whole[:start]) == []
            assert refused_by(wire, *as_bytes(whole[start : start + 3])) == expected, data.hex()
            fragments = [
                frame(TEXT if not index else CONTINUATION, byte, fin=False, mask=mask)
                for index, byte in enumerate(as_bytes(data))
            ]
            assert refused_by(Wire(role, max_message_size=1000), *fragments) == expected


@pytest.mark.parametrize("half", [b"\xed\xa0", b"\xed\xbf", b"text\xed\xa0"])
def test_half_a_surrogate_is_refused_however_it_comes(half: bytes) -> None:
    settings = Deflate()
    agreement = Agreement()
    packed = Deflater(settings, bits=15, takeover=True).deflate(half, final=False)
    agreed = Wire(Role.SERVER, max_message_size=100, deflate=(settings, agreement))
    assert refused_by(agreed, frame(TEXT, packed, fin=False, rsv=4)) == 1
    assert refused_by(server(), frame(TEXT, half, fin=False)) == 1
    assert refused_by(server(), frame(TEXT, half[:-1], fin=False), frame(0, half[-1:])) == 2
    assert refused_by(server(), frame(TEXT, half + b"\x80")[:-1]) == 1
    data = frame(BINARY, half, fin=False) + frame(CONTINUATION, b"\x80")
    assert normalized(decode(server(), data)) == [half + b"\x80"]
    data = frame(TEXT, b"\xed\x9f\xbf", fin=False) + frame(PING, half) + frame(CONTINUATION, b"!")
    assert normalized(decode(server(), data)) == [Ping(half), "\ud7ff!"]


@pytest.mark.parametrize("payload", CLOSE_PAYLOADS, ids=repr)
def test_a_close_frame_means_what_wsproto_says_it_means(payload: bytes) -> None:
    """One that comes in pieces is for wsproto to judge, one that is whole is read here."""
    data = frame(CLOSE, payload)
    (pieces,) = decode(server(), data[:1], data[1:])
    (whole,) = decode(server(), data)
    assert whole == pieces
    assert isinstance(whole, (Close, Violation))


@pytest.mark.parametrize("reason", ["", "why", "é" * 61, "é" * 62, "x" + "é" * 62, "€" * 50])
@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 3000, 4999])
def test_a_close_frame_is_the_one_that_wsproto_sends(code: int, reason: str) -> None:
    expected = Connection(ConnectionType.SERVER).send(CloseConnection(code=code, reason=reason))
    assert server().close(code, reason) == expected


def test_a_client_masks_with_a_fresh_key_each_time() -> None:
    wire = Wire(Role.CLIENT, max_message_size=100)
    made = [wire.message(b"same") for _ in range(50)]
    assert len(set(made)) > 45
    assert all(parse_frame(data) == (0x82, b"same", 10) for data in made)
    assert close_code(b"") is None


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        ("abc", "text 'abc' (3 long)"),
        (b"x" * 50, f"binary {b'x' * 40!r}… (50 long)"),
        (Fragment("ab", final=False), "fragment 'ab' (2 long)"),
        (Fragment(b"ab", final=True), "fragment b'ab' (2 long), the last"),
        (Ping(b"p"), "Ping b'p'"),
        (Pong(b"p"), "Pong b'p'"),
        (Close(1000, "x"), "Close 1000 'x'"),
        (Violation(1002, "bad"), "Violation 1002 'bad'"),
        (["abc", b"x"], "text 'abc' (3 long); binary b'x' (1 long)"),
    ],
)
def test_events_are_shown_in_one_line(event: Event, shown: str) -> None:
    assert show_event(event) == shown
