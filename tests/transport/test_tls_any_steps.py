"""TLS whatever the peer and the network do: `tests/fuzz/tls.py`, by hypothesis."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from tests.fuzz.tls import one_input

STEPS = st.tuples(st.integers(0, 15), st.one_of(st.integers(0, 10), st.integers(0, 255))).map(bytes)

#: Both of TLS are through after that.
SHAKEN = bytes([0, 9, 1, 9, 2, 0, 0, 9] * 3)


@settings(max_examples=100)
@given(
    how=st.integers(0, 31),
    start=st.sampled_from([b"", SHAKEN]),
    steps=st.lists(STEPS, max_size=20).map(b"".join),
    rest=st.binary(max_size=20),
)
def test_what_comes_is_what_the_peer_sent_or_a_documented_error(
    how: int, start: bytes, steps: bytes, rest: bytes
) -> None:
    """In any order of steps, with records that are changed, dropped, repeated, cut or invented."""
    one_input(bytes([how]) + start + steps + rest)
