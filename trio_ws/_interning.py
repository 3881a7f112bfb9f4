"""Interning: equal strings are kept once. Most header fields of one peer are those of the others.

`sys.intern` is not for strings that strangers choose. Free-threaded CPython, and every CPython 3.12
before 3.12.7, never frees an interned string, so each new header value would be a leak.
"""

from __future__ import annotations

from functools import lru_cache

#: How many strings are kept, and how long one of them may be: together no more than 128 KiB.
MOST = 512
LONGEST = 256


def interned(text: str) -> str:
    """`text`, or an equal string that is already kept."""
    return _first_of(text) if len(text) <= LONGEST else text


@lru_cache(MOST)
def _first_of(text: str) -> str:
    return text
