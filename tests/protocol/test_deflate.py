"""`deflate`, and what the wire makes of it: windows, bounds, control frames."""

from __future__ import annotations

import math
import random
import time
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.headers import parse_extension

from tests.helpers import (
    BINARY,
    CONTINUATION,
    FIN,
    PING,
    TEXT,
    Decoded,
    close_code,
    close_frame,
    decode,
    frame,
    open_pair,
    open_server_with_raw_client,
    parse_frame,
)
from tests.protocol.deflate_helpers import NAME, RSV1
from trio_ws import ConnectionLost, Deflate
from trio_ws._protocol.deflate import Agreement, Deflater, Inflater
from trio_ws._protocol.events import Close, Fragment, Ping, Role, Violation
from trio_ws._protocol.negotiation import client_check, client_offer
from trio_ws._protocol.prepared import Prepared
from trio_ws._protocol.wire import Wire

pytestmark = [pytest.mark.autojump, pytest.mark.usefixtures("engine")]


def deflated(data: bytes, *, bits: int = 15, mode: int = zlib.Z_SYNC_FLUSH) -> bytes:
    """`data` as a client sends it, by the book."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -bits)
    result = compressor.compress(data) + compressor.flush(mode)
    return result[:-4] if mode == zlib.Z_SYNC_FLUSH else result


def wire(limit: float = 2**20, agreement: Agreement | None = None, **settings: Any) -> Wire:
    agreed = (Deflate(**settings), agreement or Agreement())
    return Wire(Role.SERVER, max_message_size=limit, deflate=agreed)


# Windows…


@pytest.mark.parametrize("server", [True, False])
@pytest.mark.parametrize(
    ("own", "agreed", "bits"),
    [(None, None, 12), (None, 15, 12), (None, 10, 10), (15, None, 15), (15, 11, 11), (9, 15, 9)],
)
def test_we_look_back_no_further_than_agreed_and_by_default_no_further_than_4_kib(
    server: bool, own: int | None, agreed: int | None, bits: int
) -> None:
    settings = Deflate(server_window_bits=own, client_window_bits=own)
    agreement = Agreement(*((agreed, None) if server else (None, agreed)))
    _, deflater = agreement.codecs(settings, server=server)
    assert deflater.parameters == (settings.level, bits, settings.mem_level)


def memory_of_inflating(agreed: int | None, *, server: bool) -> int:
    """The memory that inflating keeps between messages."""
    agreement = Agreement(*((None, agreed) if server else (agreed, None)))
    data = deflated(bytes(100_000), bits=9)
    tracemalloc.start()
    try:
        inflater, _ = agreement.codecs(Deflate(), server=server)
        inflater.inflate(data, 100_000)
        inflater.finish(0)
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("server", [True, False])
def test_inflating_takes_the_memory_that_was_agreed_on(server: bool) -> None:
    memory_of_inflating(None, server=server)  # what only the first time takes, coverage's part too
    largest = memory_of_inflating(None, server=server)
    assert largest == pytest.approx(memory_of_inflating(15, server=server), abs=500)
    for agreed, window in ((12, 2**12), (9, 2**9), (8, 2**9)):
        saved = largest - memory_of_inflating(agreed, server=server)
        assert saved == pytest.approx(2**15 - window, abs=500)


@pytest.mark.parametrize("role", list(Role))
def test_where_256_bytes_are_allowed_nothing_is_marked(role: Role) -> None:
    """zlib cannot look back that little; and nobody has to compress (RFC 7692 section 6)."""
    agreement = Agreement(8, 8)
    sender = Wire(role, max_message_size=2**20, deflate=(Deflate(threshold=0), agreement))
    other = Role.SERVER if role is Role.CLIENT else Role.CLIENT
    plain = Wire(other, max_message_size=2**20)
    text = "x" * 100_000
    sent = [
        sender.message(text),
        sender.message(text, compress=True),
        b"".join(sender.large_message(text, compress=True)),
        sender.fragment(text, final=False, compress=True) + sender.fragment("", final=True),
        sender.frame_of_prepared(Prepared(text)),
        sender.frame_of_prepared(Prepared(text, compress=True)),
    ]
    for data in sent:
        pieces = [str(getattr(event, "data", event)) for event in decode(plain, data)]
        assert "".join(pieces) == text
    assert sender.prepared_is_plain_below == (-math.inf if sender.masks else math.inf)
    assert sender.compression_sent is None
    # What comes is inflated as ever.
    data = frame(TEXT, deflated(b"y" * 500, bits=9), rsv=RSV1, mask=not sender.masks)
    assert decode(sender, data) == ["y" * 500]


# Messages…


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("bits", [9, 12, 15])
async def test_messages_of_every_size_survive_both_ways(takeover: bool, bits: int) -> None:
    settings = Deflate(
        threshold=0,
        server_window_bits=bits,
        client_window_bits=bits,
        server_context_takeover=takeover,
        client_context_takeover=takeover,
    )
    rng = random.Random(1)
    messages: list[str | bytes] = [b"", "", "é" * 1000, b"x" * 100_000, rng.randbytes(70_000)]
    options = {"compression": settings}
    async with open_pair(client=options, server=options) as (one, other):
        for sender, receiver in ((one, other), (other, one)):
            for message in messages * 2:
                await sender.send(message)
                assert await receiver.receive() == message
        ratio = one.statistics().compression_sent
        assert ratio is not None
        assert ratio > 1
        assert other.statistics().compression_received == ratio


def is_marked(frame: bytes) -> bool:
    return bool(frame[0] & 0x40)


async def test_messages_below_the_threshold_go_as_they_are_unless_told_otherwise() -> None:
    sender = wire(threshold=100)
    assert not is_marked(sender.message("x" * 99))
    assert is_marked(sender.message("x" * 100))
    assert is_marked(sender.message("x", compress=True))
    assert not is_marked(sender.message("x" * 1000, compress=False))
    large = b"x" * 100_000
    assert is_marked(sender.large_message(large)[0])
    assert not is_marked(sender.large_message(large, compress=False)[0])
    assert sender.large_message(large, compress=False)[1] == large
    # In fragments nobody knows; the first fragment's word counts, and only it is marked.
    first, last = sender.fragment("x", final=False), sender.fragment("y", final=True)
    assert is_marked(first)
    assert not is_marked(last)
    assert not is_marked(sender.fragment("x", final=False, compress=False))
    assert not is_marked(sender.fragment("y", final=True, compress=True))


RANDOM = random.Random(1).randbytes(200_000)
LOG = b"2026-11-28 08:00:00 INFO a line of a log\n" * 5000


def test_a_large_message_that_does_not_get_smaller_goes_as_it_is() -> None:
    sender = wire()
    assert is_marked(sender.large_message(LOG)[0])
    assert not is_marked(sender.large_message(RANDOM)[0])
    assert is_marked(sender.large_message(RANDOM, compress=True)[0])
    assert is_marked(sender.large_message(RANDOM[:20_000] + LOG)[0])
    assert not is_marked(sender.frame_of_prepared(Prepared(RANDOM)))
    assert is_marked(sender.frame_of_prepared(Prepared(RANDOM, compress=True)))
    assert is_marked(sender.frame_of_prepared(Prepared(LOG)))


def test_a_smaller_message_is_sampled_after_one_that_did_not_get_smaller() -> None:
    sender = wire()
    sent = [LOG[:5000], RANDOM[:5000], RANDOM[5000:9000], RANDOM[:2000], LOG[:5000], LOG[:1500]]
    assert [is_marked(sender.message(data)) for data in sent] == [
        *[True, True],  # nothing was known
        *[False, False],
        *[True, True],
    ]


def test_the_first_fragment_says_whether_the_message_gets_smaller() -> None:
    sender = wire()
    assert not is_marked(sender.fragment(RANDOM[:2000], final=False))
    assert not is_marked(sender.fragment(LOG, final=True))
    assert is_marked(sender.fragment(LOG[:2000].decode(), final=False))
    assert len(sender.fragment(LOG.decode(), final=True)) < len(LOG) / 10
    assert is_marked(sender.fragment(RANDOM[:500], final=False))  # too little to judge by
    sender.fragment(b"", final=True)
    assert is_marked(sender.fragment(RANDOM, final=False, compress=True))


def test_trying_to_compress_what_does_not_get_smaller_takes_little_time() -> None:
    # Side by side and in processor time: compressing all of it takes about thirty times as long.
    def least_time(compress: bool | None) -> float:
        times: list[float] = []
        for _ in range(5):
            sender = wire()
            start = time.thread_time()
            for _ in range(10):
                sender.large_message(RANDOM, compress=compress)
            times.append(time.thread_time() - start)
        return min(times)

    assert least_time(None) < least_time(True) / 4


async def test_messages_of_both_kinds_in_any_order_survive() -> None:
    messages = [LOG, RANDOM, LOG[:3000], RANDOM[:3000], RANDOM[:3000], LOG[:3000], LOG]
    async with open_pair() as (one, other):
        for message in messages:
            await one.send(message)
            assert await other.receive() == message
            async with one.open_message("binary") as writer:
                await writer.send(message)
            assert await other.receive() == message


async def test_a_message_in_fragments_is_compressed_as_one() -> None:
    async with open_pair() as (one, other):
        async with one.open_message("text") as writer:
            await writer.send("abc" * 1000)
            await one.ping()
            await writer.send("abc" * 1000)
        assert await other.receive() == "abc" * 2000
        async with one.open_message("binary", compress=False) as writer:
            await writer.send(b"plain")
        assert await other.receive() == b"plain"
        sent = one.statistics()
        assert sent.compression_sent is not None
        assert sent.compression_sent > 50


def test_control_frames_between_compressed_fragments_do_not_touch_the_state() -> None:
    data = deflated(b"some text that repeats, some text that repeats")
    receiver = wire()
    events = decode(
        receiver,
        frame(TEXT, data[:10], fin=False, rsv=RSV1),
        frame(PING, b"\x00\x00\xff\xff"),
        frame(CONTINUATION, data[10:]),
        frame(TEXT, data, rsv=RSV1),
    )
    pieces = "".join(str(event.data) for event in events if isinstance(event, Fragment))
    assert pieces == "some text that repeats, some text that repeats"
    assert [event for event in events if isinstance(event, Ping)] == [Ping(b"\x00\x00\xff\xff")]
    assert events[-1] == pieces


@pytest.mark.parametrize("ending", [b"", b"\x00"])
def test_streams_that_end_early_are_followed_by_others(ending: bytes) -> None:
    receiver = wire()
    data = deflated(b"Hello", mode=zlib.Z_FINISH) + ending
    for _ in range(3):
        assert decode(receiver, frame(TEXT, data, rsv=RSV1)) == ["Hello"]
    if not ending:
        assert decode(receiver, frame(TEXT, data * 3, rsv=RSV1)) == ["HelloHelloHello"]
    assert decode(wire(), frame(TEXT, deflated(b"plain"), rsv=RSV1)) == ["plain"]


def test_the_example_of_the_rfc_for_an_early_end() -> None:
    data = bytes([0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00])  # RFC 7692 section 7.2.3.4
    assert decode(wire(), frame(TEXT, data, rsv=RSV1)) == ["Hello"]


def test_junk_after_an_early_end_is_1007_and_many_streams_are_1009() -> None:
    start = deflated(b"Hello", mode=zlib.Z_FINISH)
    events = decode(wire(), frame(TEXT, start + b"\xff" * 1000, rsv=RSV1))
    assert events[-1] == Violation(1007, "data that is not DEFLATE")
    events = decode(wire(10_000), frame(BINARY, b"\x03\x00" * 1000, rsv=RSV1))
    assert events == [Violation(1009, "message over 10000 bytes")]


def test_history_goes_on_from_a_stream_that_began_within_the_message_before() -> None:
    ended = deflated(b"Hello", mode=zlib.Z_FINISH)
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    text = b"some text that comes again, "
    first = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
    second = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(second) < len(text) / 2
    assert decode(
        wire(),
        frame(TEXT, ended + first[:-4], rsv=RSV1),
        frame(TEXT, second[:-4], rsv=RSV1),
    ) == ["Hello" + text.decode(), text.decode()]


def in_batches(receiver: Wire, data: bytes) -> list[int]:
    """How many messages each event has."""
    return [len(event) for event in receiver.receive(data) if isinstance(event, list)]


@pytest.mark.parametrize("limit", [2**20, math.inf])
def test_compressed_messages_that_one_read_brings_come_together(limit: float) -> None:
    text, binary = (
        frame(TEXT, deflated(b"x" * 200), rsv=RSV1),
        frame(BINARY, deflated(b"y"), rsv=RSV1),
    )
    assert decode(wire(limit), text * 2 + binary) == ["x" * 200, "x" * 200, b"y"]
    assert in_batches(wire(limit), text * 2 + binary) == [3]
    assert wire(limit).receive_messages(text * 2 + binary[:-1]) == (["x" * 200] * 2, 2 * len(text))
    plain = frame(TEXT, b"plain")
    assert in_batches(wire(limit), plain + text + plain * 2 + text + frame(PING) + text) == [5, 1]
    assert in_batches(wire(limit), text * 100) == [64, 36]
    small = Wire(Role.SERVER, max_message_size=limit, deflate=(Deflate(), Agreement()), batch=2)
    assert in_batches(small, text * 5) == [2, 2, 1]
    assert in_batches(small, text + plain * 3 + text) == [2, 2, 1]


@pytest.mark.parametrize("limit", [2**20, math.inf])
def test_messages_that_become_large_come_one_by_one(limit: float) -> None:
    bomb = frame(BINARY, deflated(bytes(2**19)), rsv=RSV1)
    assert in_batches(wire(limit), bomb * 64) == [1] * 64
    some = frame(BINARY, deflated(bytes(2**15)), rsv=RSV1)
    assert in_batches(wire(limit), some * 5) == [2, 2, 1]


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_without_a_limit_a_frame_that_stays_small_comes_whole_and_others_in_pieces(
    size: int, takeover: bool
) -> None:
    noise = random.Random(1).randbytes(20_000)
    large = (noise * (size // len(noise) + 1))[:size]
    agreement = Agreement(client_context_takeover=takeover)
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    frames = b""
    for message in (noise, large, noise):
        if not takeover:
            compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
        data = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert len(data) > 1024 or takeover
        frames += frame(BINARY, data[:-4], rsv=RSV1)
    receiver = wire(math.inf, agreement)
    first, *pieces, last = decode(receiver, frames)
    assert (first, last) == (noise, noise)
    if size <= 2**20:
        assert pieces == [large]
    else:
        assert b"".join(piece.data for piece in pieces if isinstance(piece, Fragment)) == large  # type: ignore[misc] # a message of bytes
        assert max(len(piece.data) for piece in pieces if isinstance(piece, Fragment)) < 2**20
    assert receiver.compression_received == pytest.approx(
        (2 * len(noise) + size) / len(frames), rel=0.01
    )


@pytest.mark.parametrize("compressed", [False, True])
def test_only_fragments_that_are_compressed_are_taken_apart_little_by_little(
    compressed: bool,
) -> None:
    data = random.Random(1).randbytes(100_000)
    part, rest = data[:50_000], data[50_000:]
    if compressed:
        whole = deflated(data)
        part, rest = whole[:50_000], whole[50_000:]
    # A compressed message before and after, so that one does not decide for the next.
    other = frame(BINARY, deflated(b"a"), rsv=RSV1, fin=False) + frame(CONTINUATION, b"")
    first = frame(BINARY, part, rsv=RSV1 if compressed else 0, fin=False)
    message = first + frame(PING, b"") + frame(CONTINUATION, rest)
    events = decode(wire(math.inf), other + message + other)
    pieces = [each.data for each in events if isinstance(each, Fragment) and len(each.data) > 1]
    assert b"".join(pieces) == data  # type: ignore[arg-type] # of bytes, as the message is
    assert (len(pieces) == 2) is not compressed
    assert compressed is (max(map(len, pieces)) < 3000)


def test_a_frame_above_the_limit_and_a_step_is_refused_whatever_it_inflates_to() -> None:
    data = (deflated(b"x" * 6000) + b"\x00\x00\xff\xff" + b"\x00\x00\x00\xff\xff" * 250_000)[:-4]
    for limit, code in ((5000, 1009), (2**21, None)):
        (event,) = decode(wire(limit), frame(BINARY, data, rsv=RSV1))
        assert (event.code if isinstance(event, Violation) else None) == code


@pytest.mark.parametrize("cut", [False, True])
def test_a_compressed_message_without_payload_is_empty(cut: bool) -> None:
    data = frame(TEXT, b"", rsv=RSV1) + frame(BINARY, deflated(b"next"), rsv=RSV1)
    pieces = [data[:1], data[1:]] if cut else [data]
    first, last = decode(wire(), *pieces)
    assert (first.data if isinstance(first, Fragment) else first) == ""
    assert last == b"next"


def test_what_is_discarded_is_not_inflated_and_its_frames_are_still_taken_apart() -> None:
    receiver = wire()
    receiver.discard()
    whole = frame(BINARY, deflated(bytes(1000)), rsv=RSV1)
    part = frame(BINARY, deflated(bytes(1000)), rsv=RSV1, fin=False)
    events = decode(receiver, whole + part + frame(CONTINUATION, b"\x00") + close_frame(1000))
    assert events[-1] == Close(1000, "")
    assert receiver.bytes_inflated == 0


def test_what_is_wrong_in_a_frame_that_may_become_large_is_1007() -> None:
    data = deflated(random.Random(1).randbytes(2000)) + b"\xff" * 10
    assert decode(wire(math.inf), frame(BINARY, data, rsv=RSV1)) == [
        Violation(1007, "data that is not DEFLATE")
    ]


@pytest.mark.parametrize("wrong", [b"\xff" * 10, deflated(b"\xff"), deflated(bytes(5001))])
def test_what_is_right_before_a_compressed_message_that_is_wrong_is_received(wrong: bytes) -> None:
    right = frame(TEXT, deflated(b"right"), rsv=RSV1) * 2
    data = right + frame(TEXT, wrong, rsv=RSV1) + right
    receiver = wire(5000)
    (messages, violation) = receiver.receive(data)
    assert messages == ["right"] * 2
    assert isinstance(violation, Violation)
    assert receiver.end is violation
    # A task in receive leaves what is wrong to the reader task.
    receiver = wire(5000)
    assert receiver.receive_messages(data) == (["right"] * 2, len(right))
    assert receiver.end is None
    assert receiver.receive_messages(data[len(right) :]) == ([], 0)
    assert list(receiver.receive(data[len(right) :])) == [violation]
    assert receiver.receive_messages(right)[0] == []


def test_a_frame_out_of_sequence_is_1002_before_its_payload_is_looked_at() -> None:
    whole = frame(TEXT, deflated(b"x"), rsv=RSV1)
    part = frame(TEXT, deflated(b"x"), fin=False, rsv=RSV1)
    for before, after in (
        (whole, frame(CONTINUATION, b"\xff\xff\xff")),
        (part, frame(TEXT, b"\xff", rsv=RSV1)),
    ):
        events = decode(wire(), before, after)
        assert events[-1] == Violation(1002, "a data frame out of sequence")


def test_compressed_text_that_is_not_utf_8_is_1007() -> None:
    for text in (b"\xff", b"half a surrogate \xed\xa0", "é".encode()[:1]):
        receiver = wire()
        (event,) = decode(receiver, frame(TEXT, deflated(text), rsv=RSV1))
        assert event == Violation(1007, "text that is not UTF-8")


def test_data_that_is_no_deflate_is_1007() -> None:
    events = decode(wire(), frame(BINARY, b"\xff" * 10, rsv=RSV1))
    assert [event.code for event in events if isinstance(event, Violation)] == [1007]


@pytest.mark.parametrize("excess", [-1, 0, 1, 2])
@pytest.mark.parametrize("fragments", [1, 3])
def test_a_message_inflates_to_the_limit_and_not_a_byte_further(
    excess: int, fragments: int
) -> None:
    limit = 5000
    data = deflated(bytes(limit + excess - 64 * (fragments - 1)))
    size = len(data) // fragments + 1
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    assert len(parts) == fragments
    receiver = wire(limit)
    events: list[Decoded] = []
    for index, part in enumerate(parts):
        opcode, rsv = (CONTINUATION, 0) if index else (BINARY, RSV1)
        events += decode(receiver, frame(opcode, part, fin=index == fragments - 1, rsv=rsv))
    if excess <= 0:
        total = sum(len(event.data if isinstance(event, Fragment) else event) for event in events)
        assert total == limit + excess - 64 * (fragments - 1)
    else:
        assert events[-1] == Violation(1009, f"message over {limit} bytes")


def test_a_bomb_is_refused_at_the_limit() -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(compressor.compress(bytes(2**20)) for _ in range(200)) + compressor.flush()
    receiver = wire()
    head = frame(BINARY, bomb, rsv=RSV1)
    events = decode(receiver, head[:65536], head[65536:])
    assert events[-1] == Violation(1009, "message over 1048576 bytes")
    assert sum(len(event.data) for event in events if isinstance(event, Fragment)) <= 2**20


def test_without_a_limit_everything_inflates() -> None:
    receiver = wire(float("inf"))
    events = decode(receiver, frame(BINARY, deflated(bytes(3 * 2**20)), rsv=RSV1))
    pieces = [event.data for event in events if isinstance(event, Fragment)]
    assert b"".join(pieces) == bytes(3 * 2**20)  # type: ignore[arg-type] # a message of bytes


def test_a_marked_continuation_and_marked_control_frames_are_violations() -> None:
    receiver = wire()
    events = decode(
        receiver,
        frame(TEXT, deflated(b"x"), fin=False, rsv=RSV1),
        frame(CONTINUATION, b"", rsv=RSV1),
    )
    assert [event.code for event in events if isinstance(event, Violation)] == [1002]
    events = decode(wire(), frame(PING, b"", rsv=RSV1))
    assert [event.code for event in events if isinstance(event, Violation)] == [1002]


def test_a_message_that_compresses_badly_may_be_longer_on_the_wire_than_inflated() -> None:
    data = random.Random(3).randbytes(5000)
    payload = deflated(data)
    assert len(payload) > 5000
    assert decode(wire(5000), frame(BINARY, payload, rsv=RSV1)) == [data]


def test_empty_blocks_without_end_run_into_the_limit() -> None:
    receiver = wire(1000)
    empty = b"\x00\x00\x00\xff\xff" * 1000
    events = decode(receiver, *[frame(BINARY, empty, fin=False, rsv=RSV1)])
    events += decode(receiver, *[frame(CONTINUATION, empty, fin=False)] * 30)
    assert events[-1] == Violation(1009, "message over 1000 bytes")


def test_nothing_is_allocated_before_the_first_message_that_needs_it() -> None:
    deflater = Deflater(Deflate(), bits=12, takeover=True)
    inflater = Inflater(bits=15, takeover=True)

    def idle() -> tuple[bool, bool]:
        return deflater.idle, inflater.idle

    assert idle() == (True, True)
    deflater.deflate(b"x", final=True)
    inflater.inflate(deflated(b"x"), 100)
    assert idle() == (False, False)


def test_without_takeover_nothing_is_kept_between_messages() -> None:
    deflater = Deflater(Deflate(), bits=12, takeover=False)
    inflater = Inflater(bits=15, takeover=False)
    for _ in range(2):
        data = deflater.deflate(b"x" * 100, final=True)
        assert inflater.inflate(data, 100) == b"x" * 100
        assert inflater.finish(0) == b""
        assert deflater.idle
        assert inflater.idle


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.one_of(st.binary(max_size=2000), st.text(max_size=500)), max_size=6),
    st.booleans(),
    st.data(),
)
def test_any_chunking_of_compressed_messages_gives_the_same(
    messages: list[str | bytes], takeover: bool, data: st.DataObject
) -> None:
    agreement = Agreement(
        12, 12, server_context_takeover=takeover, client_context_takeover=takeover
    )
    agreed = (Deflate(threshold=0), agreement)
    sender = Wire(Role.CLIENT, max_message_size=2**20, deflate=agreed)
    stream = b"".join(sender.message(message) for message in messages) + sender.close(1000, "")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    receiver = Wire(Role.SERVER, max_message_size=2**20, deflate=agreed)
    result: list[Any] = []
    pieces: list[Any] = []
    for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for event in decode(receiver, stream[a:b]):
            if isinstance(event, Fragment):
                pieces.append(event.data)
                if event.final:
                    result.append(type(event.data)().join(pieces))
                    pieces = []
            else:
                result.append(event)
    assert result == [*messages, Close(1000, "")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=3000), max_size=5))
def test_websockets_reads_what_we_compress_and_we_what_it_compresses(
    messages: list[bytes],
) -> None:
    """Another implementation's extension, frame by frame."""
    settings = Deflate(threshold=0)
    offer = parse_extension(client_offer(settings))[0][1]
    factory = ServerPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=12)
    parameters, theirs = factory.process_request_params(offer, [])
    answer = NAME + "".join(
        f"; {name}" + (f"={value}" if value else "") for name, value in parameters
    )
    agreement = client_check(answer)
    ours = Wire(Role.CLIENT, max_message_size=2**20, deflate=(settings, agreement))
    for message in messages:
        first, payload, _ = parse_frame(ours.message(message)) or (0, b"", 0)
        decoded = theirs.decode(Frame(Opcode.BINARY, payload, rsv1=bool(first & 0x40)))
        assert decoded.data == message
        encoded = theirs.encode(Frame(Opcode.BINARY, message))
        data = frame(BINARY, bytes(encoded.data), rsv=RSV1 if encoded.rsv1 else 0, mask=False)
        assert decode(ours, data) == [message]


async def test_a_marked_frame_without_an_agreement_is_a_violation() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        assert "Sec-WebSocket-Extensions" not in ws.response.headers
        await peer.send_frame(TEXT, deflated(b"x"), rsv=RSV1)
        with pytest.raises(ConnectionLost, match="1002"):
            await ws.receive()
        first, payload = await peer.receive_frame() or (0, b"")
        assert first == FIN | 8
        assert close_code(payload) == 1002
        await peer.stream.aclose()
