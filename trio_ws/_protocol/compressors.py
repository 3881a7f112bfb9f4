"""Compressors, of the fastest kind that is installed, and those that wait to be used again.

This module owns what compresses. It knows nothing of messages and connections.

ISA-L (the extra ``speedups``) makes messages as small as zlib's levels 1 to 3 do, in two thirds to
a third of the time. So it takes these levels. It has nothing beyond them, and inflating stays with
zlib: ISA-L takes longer for small messages, and what a peer sends is better read by what everybody
reads with. The page on compression has the figures.

Making a compressor costs as much as compressing half a kilobyte, and its memory, 38 KiB and more,
is as often new to the processor's cache. So one that no connection needs any longer is kept here,
one for each set of parameters.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from typing import Protocol, TypeAlias

#: Level, window as a power of 2, and memory level, as zlib has them.
Parameters: TypeAlias = tuple[int, int, int]

#: Ends what was compressed at a whole byte. What follows may refer to what was before, or not.
Z_SYNC_FLUSH, Z_FULL_FLUSH = zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH

#: The levels that ISA-L takes. All are its level 1: its others take more time or memory, for hardly
#: smaller messages.
_ISAL_LEVELS = (1, 2, 3)

#: The memory level at which ISA-L takes the least that it can: 30 KiB, and 80 once messages are
#: large. Whoever sets a lower one is short of memory, and gets zlib. With a higher one it is a
#: quarter faster with large messages, and takes up to 250 KiB.
_LEAST_MEMORY = 5


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
    return compressor if compressor is not None else _make_compressor(*parameters)


def give_back(parameters: Parameters, compressor: Compressor) -> None:
    """Let others use it: its last flush was `Z_FULL_FLUSH`, after which it refers to nothing."""
    _unused[parameters] = compressor


def _make_compressor(level: int, bits: int, mem_level: int) -> Compressor:
    suits_isal = level in _ISAL_LEVELS and mem_level >= _LEAST_MEMORY
    make_with_isal = _load_isal() if suits_isal else None
    if make_with_isal is not None:
        return make_with_isal(bits, 1 if mem_level == _LEAST_MEMORY else mem_level)
    return zlib.compressobj(level, zlib.DEFLATED, -bits, mem_level)


@cache
def _load_isal() -> Callable[[int, int], Compressor] | None:
    """What makes a compressor of a window and a memory level."""
    try:
        from isal import isal_zlib  # noqa: PLC0415 - an extra
    except ImportError:
        return None

    def make(bits: int, mem_level: int) -> Compressor:
        return isal_zlib.compressobj(1, zlib.DEFLATED, -bits, mem_level)  # pyright: ignore[reportUnknownMemberType] # its stub leaves one parameter open

    return make


def forget() -> None:
    """Look again for what is installed when the next compressor is made; for tests."""
    _unused.clear()
    _load_isal.cache_clear()
