"""What holds for any bytes whatever: properties, with a fixed budget and always the same examples.

The frames are generated right and then mutated a little, because bytes drawn at random hardly get
beyond the first header. What they mean is said by `reference` beside this file, and without
compression by wsproto alone.
"""

from __future__ import annotations

import importlib
import math
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import h11
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings, strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Ping as WsprotoPing,
    Pong as WsprotoPong,
    TextMessage,
)

import trio_ws
from tests.conftest import run_autojumped
from tests.helpers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    REQUEST,
    TEXT,
    Decoded,
    close_frame,
    decode as decode_frames,
    frame,
    untraced,
    xor,
)
from tests.protocol.reference import (
    Closed,
    Control,
    Event as Expected,
    Failure,
    decode,
    disagreement,
)
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


# ---------------------------------------------------------------------------
# Streams
# ---------------------------------------------------------------------------


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
    kind: str
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

mutations = st.lists(
    st.builds(
        Mutation,
        st.sampled_from(
            ["flip", "flip", "mark", "set", "delete", "double", "insert", "cut", "swap"]
        ),
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
        match mutation.kind:
            case "flip":
                stream[at] ^= 1 << mutation.value % 8
            case "mark":
                stream[headers[mutation.position % len(headers)] % len(stream)] |= 0x40
            case "set":
                stream[at] = mutation.value
            case "delete":
                del stream[at]
            case "double":
                stream[at:at] = stream[at : at + 1 + mutation.value % 8]
            case "insert":
                stream.insert(at, mutation.value)
            case "cut":
                del stream[at:]
            case "swap":
                other = mutation.value % len(stream)
                stream[at], stream[other] = stream[other], stream[at]
    return bytes(stream)


# ---------------------------------------------------------------------------
# Decoding
# ---------------------------------------------------------------------------


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


def check_against_reference(
    stream: bytes,
    cuts: list[int],
    *,
    role: Role = Role.SERVER,
    limit: float,
    deflate: bool,
    takeover: bool,
) -> None:
    """In one go, cut and byte by byte: what the reference says, and three times the same."""
    expected = decode(
        stream, limit=limit, masked=role is Role.SERVER, deflate=deflate, takeover=takeover
    )
    ends: list[int | None] = []
    ways = [[stream], pieces_of(stream, cuts)]
    if len(stream) < 20_000:
        ways.append([bytes([byte]) for byte in stream])
    for pieces in ways:
        wire = make_wire(role, limit, deflate=deflate, takeover=takeover)
        with untraced():  # it would take three times as long
            events, code = in_reference_terms(feed(wire, pieces))
        problem = disagreement(expected, events, code, deflate=deflate)
        assert problem is None, f"{problem}, in {len(pieces)} pieces"
        ends.append(code)
    # In what is inflated in one go, the limit may be noticed before what came first, text that is
    # not UTF-8, and data that is no DEFLATE before the limit (rule 1).
    last = expected[-1] if expected else None
    depends = deflate and isinstance(last, Failure) and len(last.codes) > 1
    assert depends or len(set(ends)) == 1, f"the end depends on how it was cut: {ends}"


@budget(1500)
@given(
    parts,
    mutations,
    st.lists(st.integers(0, 2**17), max_size=8),
    st.sampled_from(LIMITS),
    st.sampled_from(["plain", "deflate", "deflate without takeover"]),
)
def test_a_server_decodes_what_the_rfcs_say(
    parts: list[Part], changes: list[Mutation], cuts: list[int], limit: float, mode: str
) -> None:
    deflate, takeover = mode != "plain", mode != "deflate without takeover"
    frames = build(parts, mask=True, deflate=deflate, takeover=takeover)
    stream = mutated(frames, changes)
    check_against_reference(stream, cuts, limit=limit, deflate=deflate, takeover=takeover)


@budget(400)
@given(
    parts,
    mutations,
    st.lists(st.integers(0, 2**17), max_size=8),
    st.sampled_from(LIMITS),
    st.booleans(),
)
def test_a_client_decodes_what_the_rfcs_say(
    parts: list[Part], changes: list[Mutation], cuts: list[int], limit: float, deflate: bool
) -> None:
    stream = mutated(build(parts, mask=False, deflate=deflate, takeover=True), changes)
    check_against_reference(
        stream, cuts, role=Role.CLIENT, limit=limit, deflate=deflate, takeover=True
    )


@budget(300)
@given(
    parts,
    mutations,
    st.lists(st.integers(0, 2**17), max_size=8),
    st.sampled_from(LIMITS),
    st.tuples(st.booleans(), st.booleans()),
)
def test_text_that_is_not_decoded_is_the_same_text_and_refused_where_that_is(
    parts: list[Part],
    changes: list[Mutation],
    cuts: list[int],
    limit: float,
    how: tuple[bool, bool],
) -> None:
    mask, deflate = how
    role = Role.SERVER if mask else Role.CLIENT
    stream = mutated(build(parts, mask=mask, deflate=deflate, takeover=True), changes)
    for pieces in ([stream], pieces_of(stream, cuts)):
        decoded, code = in_reference_terms(feed(make_wire(role, limit, deflate=deflate), pieces))
        wire = make_wire(role, limit, deflate=deflate, decode_text=False)
        left, same_code = in_reference_terms(feed(wire, pieces))
        assert left == [each.encode() if isinstance(each, str) else each for each in decoded]
        assert same_code == code
        assert {type(each) for each in left} <= {bytes, Control, Closed}  # no bytearray


@budget(500)
@given(parts, mutations)
def test_without_compression_and_limits_it_is_wsproto(
    parts: list[Part], changes: list[Mutation]
) -> None:
    stream = mutated(build(parts, mask=True, deflate=False, takeover=True), changes)
    alone = Connection(ConnectionType.SERVER)
    alone.receive_data(stream)
    expected: list[Any] = []
    pieces: list[Any] = []
    unknown = False
    for event in alone.events():
        if isinstance(event, (TextMessage, BytesMessage)):
            pieces.append(event.data if isinstance(event.data, str) else bytes(event.data))
            if event.message_finished:
                expected.append(type(pieces[0])().join(pieces))
                pieces = []
        elif isinstance(event, CloseConnection):
            expected.append(int(event.code))
            unknown = event.reason == "CLOSE with unknown reserved code"
            break
        else:
            assert isinstance(event, (WsprotoPing, WsprotoPong))
            kind = "ping" if isinstance(event, WsprotoPing) else "pong"
            expected.append(Control(kind, bytes(event.payload)))

    wire = make_wire(Role.SERVER, math.inf, deflate=False)
    events, code = in_reference_terms(feed(wire, [stream]))
    ours: list[Any] = [each.code if isinstance(each, Closed) else each for each in events]
    if code is not None:
        ours.append(code)
    # Three differences. A frame out of sequence is refused at its header, which wsproto does when a
    # part of its payload is there. Half a surrogate is refused at once, where wsproto waits for the
    # other half. 1014 is registered, which wsproto does not know, so that it does not get as far as
    # the reason.
    early = ("a data frame out of sequence", "text that is not UTF-8")
    if isinstance(wire.end, Violation) and wire.end.reason in early and len(ours) > len(expected):
        ours.pop()
    if unknown and ours and ours[-1] in {1014, 1007}:
        assert (ours.pop(), expected.pop()) in {(1014, 1002), (1007, 1002)}
    assert ours == expected


# ---------------------------------------------------------------------------
# No bytes break it
# ---------------------------------------------------------------------------


@budget(300)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda parts, changes, mask: mutated(
                build(parts, mask=mask, deflate=True, takeover=True), changes
            ),
            parts,
            mutations,
            st.booleans(),
        ),
    ),
    st.lists(st.integers(0, 2**17), max_size=8),
    st.sampled_from(LIMITS),
    st.sampled_from(Role),
    st.booleans(),
)
def test_receiving_never_raises_and_never_holds_more_than_the_limit(
    stream: bytes, cuts: list[int], limit: float, role: Role, deflate: bool
) -> None:
    wire = make_wire(role, limit, deflate=deflate)
    held = 0
    for event in feed(wire, [*pieces_of(stream, cuts), b"", stream]):
        assert isinstance(event, (str, bytes, Fragment, Ping, Pong, Close, Violation))
        if isinstance(event, Fragment):
            held += size(event.data)
            assert held <= limit
            held = 0 if event.final else held
        elif isinstance(event, (str, bytes)):
            assert size(event) <= limit
        elif isinstance(event, (Ping, Pong)):
            assert len(event.payload) <= 125
        elif isinstance(event, (Close, Violation)):
            assert wire.end is event
            assert event.code in {1002, 1007, 1009} or isinstance(event, Close)


def size(data: str | bytes) -> int:
    return len(data.encode()) if isinstance(data, str) else len(data)


def repeated(piece: bytes) -> Callable[[int], bytes]:
    return lambda size: piece * (size // len(piece))


def bomb(size: int) -> bytes:
    return frame(BINARY, zlib.compress(bytes(size * 200), 9, -15), rsv=4)


GROWING: dict[str, tuple[Callable[[int], bytes], int]] = {
    "one message": (lambda size: frame(TEXT, b"x" * size), 65536),
    "one message in small pieces": (lambda size: frame(TEXT, b"x" * size), 7),
    "small messages": (repeated(frame(TEXT, b"hello")), 65536),
    "fragments": (
        lambda size: frame(BINARY, fin=False) + frame(CONTINUATION, b"xy", fin=False) * (size // 8),
        65536,
    ),
    "pings byte by byte": (repeated(frame(PING, b"x" * 20)), 1),
    "compressed messages": (repeated(frame(TEXT, b"\xf2H\xcd\xc9\xc9\x07\x00", rsv=4)), 65536),
    "streams that end": (
        lambda size: frame(BINARY, b"\x03\x00" * (size // 2), rsv=4, fin=False),
        4096,
    ),
    "one message that inflates": (bomb, 65536),
    "after the end": (lambda size: close_frame(1000) + bytes(size), 100),
}


@pytest.mark.parametrize("kind", GROWING)
def test_the_time_grows_with_the_size_and_no_faster(kind: str) -> None:
    make, step = GROWING[kind]

    def measure(size: int) -> float:
        stream = make(size)
        pieces = [stream[start : start + step] for start in range(0, len(stream), step)]
        best = math.inf
        for _ in range(3):
            wire = make_wire(Role.SERVER, math.inf, deflate=True)
            started = time.thread_time()
            for piece in pieces:
                for _event in wire.receive(piece):
                    pass
            best = min(best, time.thread_time() - started)
        return best

    # Eight times the size: quadratic would be 64 times the time. A hundredth of a second is for
    # what does not grow.
    with untraced():
        small, large = measure(8_000), measure(64_000)
    assert large < 30 * small + 0.01, f"{small:.6f} s, and {large:.6f} s for 8 times as much"


# ---------------------------------------------------------------------------
# Handshakes
# ---------------------------------------------------------------------------

LINES = REQUEST.split(b"\r\n")

lines = st.one_of(
    st.sampled_from(LINES),
    st.sampled_from(
        [
            b"",
            b" folded",
            b"Content-Length: 5",
            b"Content-Length: -1",
            b"Transfer-Encoding: chunked",
            b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            b"Sec-WebSocket-Protocol: a, b",
            b"Host: [::1]:80",
            b"Host: xn--\xff",
            b"Origin: https://example.org",
            b"Connection: close",
            b"Expect: 100-continue",
            b"X: " + b"y" * 17_000,
            b"HEAD / HTTP/1.1",
            b"GET * HTTP/1.0",
            b"PRI * HTTP/2.0",
        ]
    ),
    st.binary(max_size=30),
    st.builds(lambda name, value: name + b": " + value, st.binary(max_size=5), st.binary()),
)

requests = st.one_of(
    st.binary(max_size=200),
    st.lists(lines, max_size=12).map(b"\r\n".join),
    st.builds(
        lambda changes: b"\r\n".join(
            [line for index, line in enumerate(LINES[:-2]) if changes.get(index) != b""]
            + [line for line in changes.values() if line]
            + [b"", b""]
        ),
        st.dictionaries(st.integers(0, 8), lines, max_size=3),
    ),
    st.builds(
        lambda changes, rest: mutated([REQUEST], changes) + rest,
        mutations,
        st.binary(max_size=30),
    ),
)


async def shake_hands(data: bytes, *, hang_up: bool) -> tuple[BaseException | None, bytes]:
    """What a server makes of it: the error if it did not open, and what it answered."""
    theirs, ours = trio.testing.memory_stream_pair()
    error: BaseException | None = None
    answer = bytearray()

    async def read_answer() -> None:
        async for piece in theirs:
            answer.extend(piece)

    with trio.fail_after(60):  # by the clock that jumps
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_answer)
            await theirs.send_all(data)
            if hang_up:
                await theirs.send_eof()
            try:
                async with trio_ws.wrap_server_stream(ours, open_timeout=5) as websocket:
                    await websocket.send("open")
            except (trio_ws.HandshakeError, trio_ws.ConnectionClosed) as exc:
                error = exc
            await theirs.aclose()
            nursery.cancel_scope.cancel()
    return error, bytes(answer)


@budget(400)
@given(requests, st.booleans())
def test_a_handshake_of_any_bytes_opens_or_is_a_handshake_error(data: bytes, hang_up: bool) -> None:
    error, answer = run_autojumped(lambda: shake_hands(data, hang_up=hang_up))
    if isinstance(error, (trio_ws.InvalidRequest, trio_ws.ConnectionRejected)):
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(answer)
        response = reader.next_event()
        assert isinstance(response, h11.Response)
        assert response.status_code == error.response.status
        assert 400 <= response.status_code < 500
    elif isinstance(error, trio_ws.HandshakeError):
        assert type(error) is (trio_ws.ConnectionFailed if hang_up else trio_ws.HandshakeTimeout)
        assert not answer
    else:
        # What came after the request may have been wrong, and so ended the connection.
        assert answer.startswith(b"HTTP/1.1 101 ")


# ---------------------------------------------------------------------------
# Fuzzing
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["wire", "handshake"])
def test_what_fuzzing_begins_with_is_right(target: str) -> None:
    module = importlib.import_module(f"tests.fuzz.{target}")
    for seed in module.seeds():
        for end in range(len(seed) + 1):
            module.one_input(seed[:end])
