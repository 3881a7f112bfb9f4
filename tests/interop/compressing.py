"""Compressed messages as other implementations send them."""

from __future__ import annotations

import zlib

TAIL = b"\x00\x00\xff\xff"


def deflated(data: bytes) -> bytes:
    """A message that refers to nothing before it, as any agreement allows."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
