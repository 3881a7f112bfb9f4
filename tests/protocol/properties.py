"""Streams of frames that are right and then mutated a little, and what a wire makes of them.

Bytes drawn at random hardly get beyond the first header. The budget is fixed, and the examples are
always the same.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings, strategies as st

from tests.helpers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Decoded,
    decode as decode_frames,
    frame,
    xor,
)
from tests.protocol.reference import Closed, Control, Event as Expected
from trio_ws._protocol.deflate import Agreement, Deflate
from trio_ws._protocol.events import Close, Fragment, Ping, Pong, Role, Violation
from trio_ws._protocol.wire import Wire

LIMITS = [0, 10, 100, 300, 1000, 70_000, math.inf, math.inf, math.inf, math.inf]


def budget(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Part:
    """A message (in fragments, perhaps), or a control frame between others."""

    opcode: int
    payload: bytes
    cuts: tuple[int, ...] = ()
    compressed: bool = False
    ends: str = ""  # where its DEFLATE stream ends, with BFINAL=1: "early" or "late"


@dataclass(frozen=True)
class Mutation:
    change: Callable[[bytearray, int, int], None]
    at_header: bool
    position: int
    value: int


payloads = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=30).map(str.encode),
    st.builds(lambda piece, times: piece * times, st.binary(max_size=4), st.integers(0, 400)),
    st.builds(bytes, st.sampled_from([125, 126, 127, 65535, 65536])),
)

messages = st.builds(
    Part,
    opcode=st.sampled_from([TEXT, BINARY]),
    payload=payloads,
    cuts=st.lists(st.integers(0, 60), max_size=4).map(lambda cuts: tuple(sorted(cuts))),
    compressed=st.booleans(),
    ends=st.sampled_from(["", "", "", "early", "late"]),
)

controls = st.one_of(
    st.builds(Part, st.sampled_from([PING, PONG]), st.binary(max_size=125)),
    st.builds(
        lambda code, reason: Part(CLOSE, code.to_bytes(2, "big") + reason),
        st.sampled_from([999, 1000, 1004, 1005, 1006, 1011, 1014, 1015, 2999, 3000, 4999, 5000]),
        st.one_of(st.binary(max_size=20), st.text(max_size=20).map(str.encode)),
    ),
    st.builds(Part, st.just(CLOSE), st.binary(max_size=1)),
)

# Mostly messages: whatever follows a Close frame is wasted.
parts = st.lists(
    st.tuples(st.sampled_from("mmmmmc"), messages, controls).map(
        lambda drawn: drawn[1] if drawn[0] == "m" else drawn[2]
    ),
    max_size=6,
)


# What a mutation does to a stream at one place, with a number that says how…


def flip(stream: bytearray, at: int, value: int) -> None:
    stream[at] ^= 1 << value % 8


def mark(stream: bytearray, at: int, value: int) -> None:
    """Say that a message is compressed: always at a header."""
    stream[at] |= 0x40


def set_to(stream: bytearray, at: int, value: int) -> None:
    stream[at] = value


def delete(stream: bytearray, at: int, value: int) -> None:
    del stream[at]


def double(stream: bytearray, at: int, value: int) -> None:
    stream[at:at] = stream[at : at + 1 + value % 8]


def insert(stream: bytearray, at: int, value: int) -> None:
    stream.insert(at, value)


def cut(stream: bytearray, at: int, value: int) -> None:
    del stream[at:]


def swap(stream: bytearray, at: int, value: int) -> None:
    other = value % len(stream)
    stream[at], stream[other] = stream[other], stream[at]


mutations = st.lists(
    st.builds(
        Mutation,
        st.sampled_from([flip, flip, mark, set_to, delete, double, insert, cut, swap]),
        st.booleans(),
        st.integers(0, 2**20),
        st.integers(0, 255),
    ),
    max_size=3,
)


def make_frame(
    opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, mask: bool = True
) -> bytes:
    """`helpers.frame`, but with the same key each time, so that examples can be told again."""
    made = frame(opcode, payload, fin=fin, rsv=rsv, mask=False)
    if not mask:
        return made
    head, key = made[: len(made) - len(payload)], b"\x81k\x00\xf3"
    return head[:1] + bytes([head[1] | 0x80]) + head[2:] + key + xor(payload, key)


def build(parts: Iterable[Part], *, mask: bool, deflate: bool, takeover: bool) -> list[bytes]:
    """The frames of `parts`."""
    frames: list[bytes] = []
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    for part in parts:
        payload, compressed = part.payload, deflate and part.compressed
        if part.opcode not in (TEXT, BINARY):
            # Between the fragments of the last message, now and then.
            where = len(frames) - (len(payload) % 3 == 0 and len(frames) > 1)
            frames.insert(where, make_frame(part.opcode, payload, mask=mask))
            continue
        if compressed:
            if not takeover:
                compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
            payload = b""
            if part.ends == "early":
                payload = compressor.compress(part.payload[:7]) + compressor.flush(zlib.Z_FINISH)
                compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
            rest = part.payload[7:] if part.ends == "early" else part.payload
            payload += compressor.compress(rest)
            if part.ends == "late":
                payload += compressor.flush(zlib.Z_FINISH)
            else:
                payload += compressor.flush(zlib.Z_SYNC_FLUSH)
                payload = payload[:-4]
            if part.ends:
                compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
        ends = [*part.cuts, max(len(payload), *part.cuts, 0)] if part.cuts else [len(payload)]
        start = 0
        for index, end in enumerate(ends):
            frames.append(
                make_frame(
                    CONTINUATION if index else part.opcode,
                    payload[start:end],
                    fin=index == len(ends) - 1,
                    rsv=4 if compressed and not index else 0,
                    mask=mask,
                )
            )
            start = end
    return frames


def mutated(frames: list[bytes], mutations: Iterable[Mutation]) -> bytes:
    stream = bytearray(b"".join(frames))
    headers = [0]
    for each in frames:
        headers.append(headers[-1] + len(each))
    for mutation in mutations:
        if not stream:
            break
        at = mutation.position
        if mutation.at_header:
            at = headers[at % len(headers)] + at // len(headers) % 3
        at %= len(stream)
        if mutation.change is mark:
            at = headers[mutation.position % len(headers)] % len(stream)
        mutation.change(stream, at, mutation.value)
    return bytes(stream)


def make_wire(
    role: Role, limit: float, *, deflate: bool, takeover: bool = True, decode_text: bool = True
) -> Wire:
    agreement = Agreement(server_context_takeover=takeover, client_context_takeover=takeover)
    return Wire(
        role,
        max_message_size=limit,
        deflate=(Deflate(), agreement) if deflate else None,
        decode_text=decode_text,
    )


def in_reference_terms(events: Iterable[Decoded]) -> tuple[list[Expected], int | None]:
    """Whole messages and control events, and the code of the violation that ended them."""
    result: list[Expected] = []
    pieces: list[Any] = []
    for event in events:
        match event:
            case Fragment(data, final):
                pieces.append(data)
                if final:
                    result.append(type(data)().join(pieces))
                    pieces = []
            case Ping(payload):
                result.append(Control("ping", payload))
            case Pong(payload):
                result.append(Control("pong", payload))
            case Close(code, reason):
                result.append(Closed(code, reason))
            case Violation(code, _):
                return result, code
            case _:
                result.append(event)
    return result, None


def pieces_of(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    ends = sorted(cut % (len(stream) + 1) for cut in cuts)
    return [stream[a:b] for a, b in zip([0, *ends], [*ends, len(stream)], strict=True)]


def feed(wire: Wire, pieces: Iterable[bytes]) -> list[Decoded]:
    return decode_frames(wire, *pieces)
