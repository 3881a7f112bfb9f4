"""Bytes to the wire: what the reference says they mean, in either role, however they are cut."""

from __future__ import annotations

import math

from tests.helpers import BINARY, CONTINUATION, PING, TEXT, close_frame, frame
from tests.protocol.properties import feed, in_reference_terms, make_wire
from tests.protocol.reference import decode, disagreement
from trio_ws._protocol.events import Role

_LIMITS = (math.inf, 0, 100, 5000)


def one_input(data: bytes) -> None:
    """The first byte says how the wire is made, the second how large the pieces are."""
    if len(data) < 2:
        return
    how, step, stream = data[0], max(data[1], 1), data[2:]
    role = Role.CLIENT if how & 1 else Role.SERVER
    deflate, takeover, limit = not how & 2, not how & 4, _LIMITS[how >> 3 & 3]
    expected = decode(
        stream, limit=limit, masked=role is Role.SERVER, deflate=deflate, takeover=takeover
    )
    for pieces in (
        [stream],
        [stream[start : start + step] for start in range(0, len(stream), step)],
    ):
        wire = make_wire(role, limit, deflate=deflate, takeover=takeover)
        events, code = in_reference_terms(feed(wire, pieces))
        problem = disagreement(expected, events, code, deflate=deflate)
        assert problem is None, f"{problem}, in {len(pieces)} pieces of {how:#x}"


def seeds() -> list[bytes]:
    """The first inputs."""
    made = []
    for how, mask in ((0, True), (1, False), (16, True), (2, True)):
        for stream in (
            frame(TEXT, b"hello", mask=mask) + close_frame(1000, "bye", mask=mask),
            frame(TEXT, b"\xf2H\xcd\xc9\xc9\x07\x00", rsv=4, mask=mask) * 2,
            frame(TEXT, b"\xf3H\xcd\xc9\xc9\x07\x00\x00", rsv=4, mask=mask),
            frame(BINARY, b"\xf2H", rsv=4, fin=False, mask=mask)
            + frame(PING, b"x", mask=mask)
            + frame(CONTINUATION, b"\xcd\xc9\xc9\x07\x00", mask=mask),
            frame(BINARY, bytes(200), mask=mask),
        ):
            made.append(bytes([how, 3]) + stream)
    return made
