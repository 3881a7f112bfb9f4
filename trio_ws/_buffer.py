"""Bytes in any wrapping: what has Python's buffer protocol, taken as the bytes that it is made of.

``len`` counts the items of an array, and `bytes` of a number makes so many zeros. So whatever is
taken from the application as bytes goes through here before anything is counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in `collections.abc` from Python 3.12 on


def bytes_of(data: Buffer, what: str) -> bytes:
    """The bytes of `data`, safe from changes that its owner makes later.

    Of an array of any shape these are the bytes of its items in C order, even where it is a slice
    of a larger one.

    Args:
        data: anything with the buffer protocol.
        what: the beginning of a sentence for errors, that says what it has to be.

    Raises:
        TypeError: it has no buffer, or one that holds objects rather than bytes.
        ValueError: it has been released or closed.
    """
    if isinstance(data, bytes):
        return data
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"{what}, not {type(data).__name__}") from None
    with view:
        if view.format.endswith("O"):  # its bytes are addresses in this process
            raise TypeError(f"{what}, not an array of Python objects")
        return view.tobytes()
