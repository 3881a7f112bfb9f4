"""A plain frame that arrives in pieces: its payload, unmasked and decoded as it comes.

This module owns where a piece of a text may end, and the places that large frames are received
into. It knows nothing of messages and limits.

Memory that a program gets from the system costs more when it is first touched than all else that is
done with a message: up to three microseconds for each 4 KiB. So the payload of a large frame is
received into a place that is used again and again, unmasked there, and decoded from there.
"""

from __future__ import annotations

import codecs

from .events import Fragment
from .frames import TEXT, Head
from .masking import mask, mask_in_place, turned

#: How many bytes of payload a place has room for: most messages fit in, and reading, unmasking and
#: decoding that many take half a millisecond with NumPy.
PLACE_SIZE = 2**20

#: Where they begin. Before them there is room for the beginning of a character that came before.
#: Words of eight bytes are unmasked fastest where they do not begin in between.
HEADROOM = 8

#: The places that nobody uses. A place is lent from a read until what came is decoded, with no
#: wait in between: so there are as many as threads that read at the same time, and connections that
#: wait for the rest of a large frame have none.
_free: list[bytearray] = []


def borrow_place() -> bytearray:
    """A place with room for `PLACE_SIZE` bytes behind `HEADROOM`; `return_place` it soon."""
    try:
        return _free.pop()  # one step, which no other thread can interrupt
    except IndexError:
        return bytearray(HEADROOM + PLACE_SIZE)


return_place = _free.append


class ArrivingFrame:
    """A plain frame of which a part is still to come."""

    __slots__ = ("_begun_character", "_decode_text", "_key", "left")

    def __init__(self, head: Head, key: bytes, *, decode_text: bool) -> None:
        #: How many bytes of payload are still to come.
        self.left = head.length
        self._key = key
        #: The bytes at the end of a text that begin a character and do not complete it; `None` for
        #: binary.
        self._begun_character = b"" if head.first == TEXT else None
        self._decode_text = decode_text

    def take_piece(self, data: bytes, start: int, stop: int) -> Fragment:
        """Take the next piece of the payload, which is from `start` to `stop` in `data`.

        Raises:
            UnicodeDecodeError: it belongs to a text, and can no longer become UTF-8.
        """
        piece: bytes | bytearray
        piece = mask(data, start, stop, self._key) if self._key else data[start:stop]
        if self._begun_character:
            piece = self._begun_character + piece
        return self._decode(piece, stop - start)

    def take_in_place(self, place: bytearray, size: int) -> Fragment:
        """`take_piece` of so many bytes, which are in a borrowed place. They are changed there."""
        start, stop = HEADROOM, HEADROOM + size
        if self._key:
            mask_in_place(place, start, stop, self._key)
        if self._begun_character:
            start -= len(self._begun_character)
            place[start:HEADROOM] = self._begun_character
        with memoryview(place) as whole, whole[start:stop] as piece:
            return self._decode(piece, size)

    def _decode(self, piece: bytes | bytearray | memoryview, size: int) -> Fragment:
        """The next `size` bytes of payload, unmasked, behind the beginning of a character."""
        self.left -= size
        final = not self.left
        if self._key:
            self._key = turned(self._key, size)
        if self._begun_character is None:
            return Fragment(bytes(piece), final)
        # Unless it is `final`, this stops before a character that is not complete. Whatever cannot
        # become UTF-8 it refuses at once, surrogates aside.
        text, read = codecs.utf_8_decode(piece, "strict", final)
        self._begun_character = bytes(piece[read:])
        if is_half_surrogate(self._begun_character):
            raise UnicodeDecodeError("utf-8", bytes(piece), read, len(piece), "half a surrogate")
        return Fragment(text if self._decode_text else bytes(piece[:read]), final)


def is_half_surrogate(end: bytes) -> bool:
    """Whether text ends in two of the three bytes of a surrogate, so that it cannot become UTF-8.

    RFC 3629 section 3 forbids surrogates. Python's decoder waits for the third byte before it
    refuses one; everything else that cannot become UTF-8 it refuses at once. A peer that stops
    there would be waited for.
    """
    return end[-2:-1] == b"\xed" and end[-1] >= 0xA0
