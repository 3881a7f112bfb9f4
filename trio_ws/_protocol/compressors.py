"""Compressors, and those that wait to be used again.

This module owns what compresses. It knows nothing of messages and connections.

Making a compressor costs as much as compressing half a kilobyte, and its memory, 38 KiB and more,
is as often new to the processor's cache. So one that no connection needs any longer is kept here,
one for each set of parameters.
"""

from __future__ import annotations

import zlib
from typing import Protocol, TypeAlias

#: Level, window as a power of 2, and memory level.
Parameters: TypeAlias = tuple[int, int, int]

#: Ends what was compressed at a whole byte. What follows may refer to what was before, or not.
Z_SYNC_FLUSH, Z_FULL_FLUSH = zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH


class Compressor(Protocol):
    """zlib's compression object; the standard library does not export its type."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self, mode: int = ..., /) -> bytes: ...


_unused: dict[Parameters, Compressor] = {}


def take_compressor(parameters: Parameters) -> Compressor:
    """A compressor that refers to nothing before, for the caller alone.

    Whoever was interrupted, or failed, does not give it back: it may know of bytes that it has not
    given yet.
    """
    # Popping it is one step that no other thread can interrupt, and neither can a signal.
    compressor = _unused.pop(parameters, None)
    if compressor is None:
        level, bits, mem_level = parameters
        compressor = zlib.compressobj(level, zlib.DEFLATED, -bits, mem_level)
    return compressor


def give_back(parameters: Parameters, compressor: Compressor) -> None:
    """Let others use it: its last flush was `Z_FULL_FLUSH`, after which it refers to nothing."""
    _unused[parameters] = compressor
