"""Envelopes: any message comes out as it went in, and malformed bytes say why."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, strategies as st

from tests.backplane.backplane_helpers import LOGGER, Node
from trio_ws.backplane import MemoryBackplane, MemoryHub
from trio_ws.backplane._envelope import Envelope, InvalidEnvelope, decode, encode, size_of
from trio_ws.backplane._incoming import Incoming

pytestmark = pytest.mark.autojump


MESSAGES = st.one_of(st.text(), st.binary())


@given(
    st.binary(min_size=8, max_size=8),
    st.integers(1, 2**64 - 1),
    st.data(),
    MESSAGES,
    st.booleans(),
)
def test_an_envelope_comes_out_as_it_went_in(
    origin: bytes, number: int, data: st.DataObject, message: str | bytes, kept: bool
) -> None:
    envelope = Envelope(origin, number, data.draw(st.integers(0, number - 1)), message, kept)
    encoded = encode(envelope)
    assert decode(encoded) == envelope
    assert size_of(message) == len(encoded)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_envelope_or_say_why_they_are_none(data: bytes) -> None:
    for candidate in (data, b"\x01" + data, b"\x01\x01" + data):
        try:
            envelope = decode(candidate)
        except InvalidEnvelope as exc:
            assert str(exc)
        else:
            assert encode(envelope) == candidate


HEAD = struct.Struct("!BB8sQQ")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "it is empty"),
        (b"\x02" + bytes(40), "version 2, not 1"),
        (b"\x01\x00short", "7 bytes, less than the 26 of the head"),
        (HEAD.pack(1, 7, bytes(8), 1, 0), "kind 7 is unknown"),
        (HEAD.pack(1, 1, bytes(8), 1, 0) + b"\xff", "the text is not UTF-8"),
        (HEAD.pack(1, 0, bytes(8), 3, 3), "number 3 after number 3"),
    ],
)
def test_a_malformed_envelope_is_counted_logged_and_ignored(
    data: bytes, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(MemoryBackplane(MemoryHub()))
    incoming = Incoming(b"ourselves", LOGGER)
    incoming.open(node.deliver, node.gaps.append)
    incoming.receive("news", data)
    assert incoming.malformed == 1
    assert problem in caplog.text
    assert (node.received, node.gaps) == ([], [])


def test_a_flood_of_malformed_messages_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    incoming = Incoming(b"ourselves", LOGGER)
    for _ in range(1000):
        incoming.receive("news", b"")
    assert incoming.malformed == 1000
    assert len(caplog.records) == 10
