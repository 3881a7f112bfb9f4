"""Equal strings, kept once: most of what one peer says about itself, the others also say.

`sys.intern` is not for strings that strangers choose. Free-threaded CPython, and every CPython 3.12
before 3.12.7, never forgets what was interned, so that each new header value would be a leak.
"""

from __future__ import annotations

from functools import lru_cache

#: How many strings are remembered, and how long one of them may be: 128 KiB at the most.
MOST = 512
LONGEST = 256


def interned(text: str) -> str:
    """`text`, or one equal to it that is in use already."""
    return _first_of(text) if len(text) <= LONGEST else text


@lru_cache(MOST)
def _first_of(text: str) -> str:
    return text
