"""Masking, which every frame from a client has (RFC 6455 section 5.3): keys, and the XOR itself.

There are three ways to XOR, each the fastest for payloads of its size (microseconds, CPython 3.11):

     bytes     one big integer   bytes.translate   NumPy
        16                0.16              0.9      1.3
       125                0.28              1.0      1.6
     1,024                1.6               2.4      1.3
    16,384                 18                16      1.7
    65,536                 63                58      2.4

NumPy is used where it is installed (the extra ``speedups``); nothing else depends on it. To load it
takes 80 ms, and 20 MB of memory, so it is loaded for the first large frame. Servers load it before
they serve.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Callable, Iterator

#: `bytes.translate` passes over the data several times: fastest while it stays in the cache.
TRANSLATE_STEP = 64 * 1024

#: From which sizes on these are faster than one big integer.
WORDS_FROM = 1024
TRANSLATE_FROM = 12 * 1024

#: Below this size a multiplication repeats the key: a fifth less time for the whole frame.
SHORT = 126

#: For each such size, the number to multiply by, and how many bits too many the product then has at
#: its end.
REPEATS = [sum(1 << 32 * word for word in range(-(-size // 4))) for size in range(SHORT)]
SPARE = [8 * (-size % 4) for size in range(SHORT)]

#: How many keys are drawn from the system's entropy by one system call.
KEYS_AT_ONCE = 256


def mask(data: bytes | bytearray, start: int, stop: int, key: bytes) -> bytes | bytearray:
    """A part of `data` with `key` applied, which is also how a key is taken off again.

    Args:
        data: the bytes that hold the part.
        start: where the part begins.
        stop: where it ends.
        key: 4 bytes; the first of them goes with the first byte of the part.

    Returns:
        The result; a `bytearray` if that saves a copy.
    """
    size = stop - start
    if size >= _integer_below:
        masked = bytearray(memoryview(data)[start:stop])
        mask_in_place(masked, 0, size, key)
        return masked
    # Big-endian, so that the first byte of the key meets the first byte of the part, whatever the
    # length.
    if size < SHORT:
        pattern = int.from_bytes(key) * REPEATS[size] >> SPARE[size]
    else:
        pattern = int.from_bytes((key * (size // 4 + 1))[:size])
    return (int.from_bytes(data[start:stop]) ^ pattern).to_bytes(size)


def mask_in_place(buffer: bytearray, start: int, stop: int, key: bytes) -> None:
    """`mask`, where the part is: without a copy, if it is large."""
    if stop - start >= _integer_below:
        _mask_large(buffer, start, stop, key)
    else:
        buffer[start:stop] = mask(buffer, start, stop, key)


def _mask_by_translation(buffer: bytearray, start: int, stop: int, key: bytes) -> None:
    """Translate every fourth byte of the data with the table for one byte of the key."""
    tables = _tables()
    for begin in range(start, stop, TRANSLATE_STEP):
        end = min(begin + TRANSLATE_STEP, stop)
        for index, byte in enumerate(key):
            every_fourth = slice(begin + index, end, 4)
            buffer[every_fourth] = buffer[every_fourth].translate(tables[byte])


@functools.cache
def _tables() -> list[bytes]:
    """What XOR with each byte does to each byte."""
    unchanged = bytes(range(256))
    return [bytes(mask(unchanged, 0, 256, bytes([byte] * 4))) for byte in range(256)]


# Large payloads…


def load_numpy() -> None:
    """Find the fastest way for large payloads now, and not when the first one comes."""
    global _integer_below, _mask_large
    try:
        import numpy as np  # noqa: PLC0415 - an extra, and slow to load
    except ImportError:
        _integer_below, _mask_large = TRANSLATE_FROM, _mask_by_translation
        return

    def mask_by_words(buffer: bytearray, start: int, stop: int, key: bytes) -> None:
        """Eight bytes at a time; the odd ones at the end."""
        size = stop - start
        words = np.frombuffer(buffer, np.uint64, size // 8, start)
        words ^= np.frombuffer(key * 2, np.uint64)
        for index in range(size - size % 8, size):
            buffer[start + index] ^= key[index % 4]

    _integer_below, _mask_large = WORDS_FROM, mask_by_words


def _mask_first(buffer: bytearray, start: int, stop: int, key: bytes) -> None:
    load_numpy()
    mask_in_place(buffer, start, stop, key)


_integer_below = WORDS_FROM
_mask_large: Callable[[bytearray, int, int, bytes], None] = _mask_first


# Keys…


def turned(key: bytes, size: int) -> bytes:
    """The key for what follows `size` bytes: it repeats over the whole payload (section 5.3).

    The next piece goes on with the byte of it that comes next.
    """
    turn = size % 4
    return key[turn:] + key[:turn]


def new_key() -> bytes:
    """Four bytes that cannot be predicted (RFC 6455 section 10.3)."""
    global _keys  # noqa: PLW0603
    # One step of a built-in iterator, which no other thread can interrupt: two threads with a trio
    # loop each never get the same key.
    for (key,) in _keys:
        return key
    _keys = _draw_keys()
    return new_key()


def _draw_keys() -> Iterator[tuple[bytes]]:
    return struct.iter_unpack("4s", os.urandom(4 * KEYS_AT_ONCE))


_keys = _draw_keys()


def _forget_keys() -> None:
    """Run in a forked process: its parent goes on to use the keys that both have."""
    global _keys  # noqa: PLW0603
    _keys = _draw_keys()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(after_in_child=_forget_keys)
