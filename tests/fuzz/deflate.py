"""Bytes to compressors: whatever was sent before, a peer that uses zlib gets each message back."""

from __future__ import annotations

import zlib
from typing import Any

from tests.protocol.deflate_helpers import ENGINES, only
from trio_ws._protocol.deflate import Deflate, Deflater, Inflater, deflate_alone

_TAIL = b"\x00\x00\xff\xff"


def one_input(data: bytes) -> None:
    """The first byte says how it is compressed. Each piece begins with what is done with it."""
    if not data:
        return
    how, position = data[0], 1
    takeover, bits, mem_level = not how & 2, 9 + (how >> 2) % 7, (1, 5, 9)[how % 3]
    with only(ENGINES[how & 1]):
        deflater = Deflater(Deflate(mem_level=mem_level), bits=bits, takeover=takeover)
        ours, theirs = Inflater(bits=bits, takeover=takeover), zlib.decompressobj(-bits)
        while position + 2 <= len(data):
            kind, size = data[position], data[position + 1]
            message = data[position + 2 : position + 2 + size] * (1, 1, 50, 5000)[kind % 4]
            position += 2 + size
            if kind & 4:
                alone = deflate_alone(deflater.parameters, message)
                assert _inflate(zlib.decompressobj(-bits), alone) == message
                deflater.restart()
                theirs = zlib.decompressobj(-bits)
                continue
            half = len(message) // 2 if kind & 8 else 0
            deflated = deflater.deflate(message[:half], final=False) if half else b""
            deflated += deflater.deflate(message[half:], final=True)
            assert _inflate(theirs, deflated) == message
            # In one call or bit by bit, and not a byte more than there is room for.
            if kind & 16:
                assert ours.inflate_whole(deflated, len(message)) == message
            else:
                plain = ours.inflate(deflated, len(message))
                assert plain is not None
                assert plain + (ours.finish(len(message) - len(plain)) or b"") == message
            if not takeover:
                theirs = zlib.decompressobj(-bits)


def _inflate(inflater: Any, data: bytes) -> bytes:
    """Little by little: only then does zlib see how far back the data refers."""
    plain, data = b"", data + _TAIL
    while data:
        plain += inflater.decompress(data, 1000)
        data = inflater.unconsumed_tail
    return plain


def seeds() -> list[bytes]:
    """The first inputs."""
    words = b"".join(bytes([kind, 12]) + b"hello hello " for kind in range(32))
    return [bytes([how]) + words for how in (0, 1, 2, 3, 16, 17, 27)]
