"""`compressors`: the same one for many connections, and nothing of one in what another sends."""

from __future__ import annotations

import random
import sys
import threading
import zlib
from types import FrameType

import pytest
from hypothesis import given, strategies as st

from trio_ws import Deflate
from trio_ws._protocol.compressors import give_back, take_compressor
from trio_ws._protocol.deflate import Deflater, deflate_alone

TAIL = b"\x00\x00\xff\xff"


def make_deflater(*, bits: int = 12, takeover: bool = False) -> Deflater:
    return Deflater(Deflate(), bits=bits, takeover=takeover)


def inflate_alone(data: bytes, *, bits: int = 15) -> bytes:
    """What a peer makes of it that got nothing before."""
    inflater = zlib.decompressobj(-bits)
    plain = b""
    data += TAIL
    while data:
        # Little by little: only then does zlib see how far back the data refers.
        plain += inflater.decompress(data, 64)
        data = inflater.unconsumed_tail
    return plain


SECRET = b"the password is correct horse battery staple; "


@pytest.mark.parametrize("bits", range(9, 16))
def test_what_one_connection_sent_is_not_referred_to_by_another(bits: int) -> None:
    one, other = make_deflater(bits=bits), make_deflater(bits=bits)
    for _ in range(3):
        assert inflate_alone(one.deflate(SECRET, final=True), bits=bits) == SECRET
        data = other.deflate(SECRET + b"yes", final=True)
        assert inflate_alone(data, bits=bits) == SECRET + b"yes"
        # As if it were the first that was ever compressed.
        compressor = zlib.compressobj(3, zlib.DEFLATED, -bits, 5)
        fresh = compressor.compress(SECRET + b"yes") + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert data + TAIL == fresh


message_parts = st.lists(
    st.one_of(
        st.binary(max_size=500),
        st.builds(lambda piece, times: piece * times, st.binary(max_size=9), st.integers(0, 3000)),
    ),
    min_size=1,
    max_size=3,
)


@given(
    st.lists(st.tuples(st.sampled_from(["one", "other", "all"]), message_parts), max_size=8),
    st.integers(9, 15),
)
def test_whatever_was_compressed_before_each_message_stands_alone(
    messages: list[tuple[str, list[bytes]]], bits: int
) -> None:
    deflaters = {"one": make_deflater(bits=bits), "other": make_deflater(bits=bits)}
    for sender, parts in messages:
        if sender == "all":
            data = deflate_alone((3, bits, 5), b"".join(parts))
        else:
            *first, last = parts
            deflate = deflaters[sender].deflate
            data = b"".join(deflate(part, final=False) for part in first)
            data += deflate(last, final=True)
        assert inflate_alone(data, bits=bits) == b"".join(parts)


def test_two_messages_in_fragments_at_once_do_not_mix() -> None:
    one, other = make_deflater(), make_deflater()
    first = one.deflate(SECRET, final=False)
    second = other.deflate(b"nothing ", final=False)
    first += one.deflate(SECRET, final=True)
    second += other.deflate(b"at all", final=True)
    assert inflate_alone(first) == SECRET * 2
    assert inflate_alone(second) == b"nothing at all"


@pytest.mark.parametrize("takeover", [True, False])
def test_what_is_interrupted_half_way_is_in_no_later_message(takeover: bool) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(frame: FrameType, event: str, argument: object) -> None:
        if event == "c_call" and getattr(argument, "__name__", "") == "flush":
            raise Interrupted

    one, other = make_deflater(takeover=takeover), make_deflater(takeover=takeover)
    with pytest.raises(Interrupted):
        try:
            sys.setprofile(interrupt)
            one.deflate(SECRET, final=True)
        finally:
            sys.setprofile(None)
    for deflater in (one, other):
        assert inflate_alone(deflater.deflate(b"hello", final=True)) == b"hello"


def test_who_takes_a_compressor_has_it_alone() -> None:
    parameters = (3, 12, 5)
    one, other = take_compressor(parameters), take_compressor(parameters)
    assert one is not other
    give_back(parameters, one)
    assert take_compressor(parameters) is one
    assert take_compressor((3, 11, 5)) is not one


def test_threads_do_not_mix_their_messages() -> None:
    wrong: list[bytes] = []

    def compress(seed: int) -> None:
        deflater, rng = make_deflater(), random.Random(seed)
        for _ in range(300):
            message = str(seed).encode() * rng.randrange(3000)
            if inflate_alone(deflater.deflate(message, final=True)) != message:
                wrong.append(message)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=compress, args=[seed]) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
