"""Anything with Python's buffer protocol, as the bytes that it is made of.

``len`` counts the items of an array, and `bytes` of a number makes that many zeros. So everything
that the application gives as bytes goes through here before anything is counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in `collections.abc` from Python 3.12 on


def bytes_of(data: Buffer, what: str) -> bytes:
    """The bytes of `data`, safe from changes that its owner makes later.

    An array of any shape gives the bytes of its items in C order, even if it is a slice of a larger
    array.

    Args:
        data: anything with the buffer protocol.
        what: the beginning of the sentence in an error, which says what `data` has to be.

    Raises:
        TypeError: `data` has no buffer, or one that holds objects rather than bytes.
        ValueError: `data` has been released or closed.
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
