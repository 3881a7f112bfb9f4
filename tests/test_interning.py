"""`_interning`: equal strings are one, and strangers cannot make it grow."""

from __future__ import annotations

import sys

from trio_ws._http.headers import Headers
from trio_ws._interning import LONGEST, MOST, interned


def text(number: int) -> str:
    """Not a constant, which the compiler would have kept."""
    return f"text {number}"


def test_equal_strings_are_one() -> None:
    assert text(1) is not text(1)
    assert interned(text(1)) is interned(text(1))
    assert Headers({text(1)[:4]: "x"}) == Headers({"TEXT": "x"})


def test_no_more_is_kept_than_the_limits_say() -> None:
    first = interned(text(0))
    for number in range(1, MOST + 1):
        interned(text(number))
    assert interned(text(0)) is not first
    long = "x" * LONGEST
    assert interned(long) is interned("x" * int(LONGEST))
    longer = long + "x"
    assert interned(longer) is longer
    assert interned(long + "x") is not longer


def test_values_of_strangers_are_not_interned() -> None:
    headers = Headers._parsed([(b"X-Never-Seen-Before", b"neither seen before")])
    [(name, value)] = headers.fields
    assert sys.intern("".join(list(name))) is not name
    assert sys.intern("".join(list(value))) is not value
