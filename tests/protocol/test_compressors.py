"""`compressors`: the same one for many connections, and nothing of one in what another sends."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import zlib
from types import FrameType

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.protocol.deflate_helpers import only
from trio_ws import Deflate
from trio_ws._protocol.compressors import give_back, take_compressor
from trio_ws._protocol.deflate import Deflater, deflate_alone

pytestmark = pytest.mark.usefixtures("engine")

TAIL = b"\x00\x00\xff\xff"


def make_deflater(*, bits: int = 12, takeover: bool = False) -> Deflater:
    return Deflater(Deflate(), bits=bits, takeover=takeover)


def inflate_alone(data: bytes, *, bits: int = 15) -> bytes:
    """Inflate it as a peer does that got nothing before."""
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
    first = other.deflate(SECRET + b"yes", final=True)
    for _ in range(3):
        assert inflate_alone(one.deflate(SECRET, final=True), bits=bits) == SECRET
        data = other.deflate(SECRET + b"yes", final=True)
        assert inflate_alone(data, bits=bits) == SECRET + b"yes"
        assert data == first


message_parts = st.lists(
    st.one_of(
        st.binary(max_size=500),
        st.builds(lambda piece, times: piece * times, st.binary(max_size=9), st.integers(0, 3000)),
    ),
    min_size=1,
    max_size=3,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@pytest.mark.parametrize(
    ("level", "mem_level", "suits_isal"),
    [(0, 5, False), (1, 5, True), (3, 5, True), (3, 9, True), (3, 4, False), (4, 5, False)],
)
def test_isal_takes_the_levels_that_it_has_where_memory_is_not_short(
    engine: str, level: int, mem_level: int, suits_isal: bool
) -> None:
    parameters = (level, 12, mem_level)
    data = deflate_alone(parameters, SECRET * 20)
    assert inflate_alone(data) == SECRET * 20
    with only("zlib"):
        by_zlib = deflate_alone(parameters, SECRET * 20)
    assert (data != by_zlib) == (suits_isal and engine == "isal")


def test_what_is_installed_is_looked_for_when_it_is_first_needed() -> None:
    code = (
        "import sys, trio_ws; from trio_ws._protocol.compressors import take_compressor as take;"
        "assert 'isal' not in sys.modules; take((3, 12, 5)); assert 'isal' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("mem_level", range(1, 10))
@pytest.mark.parametrize("bits", range(9, 16))
def test_messages_refer_to_the_window_and_no_further(bits: int, mem_level: int) -> None:
    deflater = Deflater(Deflate(mem_level=mem_level), bits=bits, takeover=True)
    inflater = zlib.decompressobj(-bits)
    text = random.Random(bits).randbytes(40_000)
    for size in (10, 2**bits - 300, 2**bits, 2**bits + 300, 40_000):
        for _ in range(2):
            data = deflater.deflate(text[:size], final=True) + TAIL
            plain = b""
            while data:
                plain += inflater.decompress(data, 64)
                data = inflater.unconsumed_tail
            assert plain == text[:size]
