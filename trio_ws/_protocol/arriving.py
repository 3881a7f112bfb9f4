"""A plain frame that arrives in pieces: its payload, unmasked and decoded as it comes.

This module owns where a piece of a text may end. It knows nothing of messages and limits.
"""

from __future__ import annotations

import codecs

from .events import Fragment
from .frames import TEXT, Head
from .masking import mask


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
        self.left -= stop - start
        final = not self.left
        piece: bytes | bytearray = data[start:stop]
        if self._key:
            piece = mask(data, start, stop, self._key)
            # The key repeats over the whole payload (RFC 6455 section 5.3): the next piece goes on
            # with the byte of it that comes next.
            turn = (stop - start) % 4
            self._key = self._key[turn:] + self._key[:turn]
        if self._begun_character is None:
            return Fragment(bytes(piece), final)
        if self._begun_character:
            piece = self._begun_character + piece
        # Unless it is `final`, this stops before a character that is not complete. Whatever cannot
        # become UTF-8 it refuses at once, surrogates aside.
        text, read = codecs.utf_8_decode(piece, "strict", final)
        self._begun_character = bytes(piece[read:])
        if is_half_surrogate(self._begun_character):
            raise UnicodeDecodeError("utf-8", piece, read, len(piece), "half a surrogate")
        return Fragment(text if self._decode_text else bytes(piece[:read]), final)


def is_half_surrogate(end: bytes) -> bool:
    """Whether text ends in two of the three bytes of a surrogate, so that it cannot become UTF-8.

    RFC 3629 section 3 forbids surrogates. Python's decoder waits for the third byte before it
    refuses one; everything else that cannot become UTF-8 it refuses at once. A peer that stops
    there would be waited for.
    """
    return end[-2:-1] == b"\xed" and end[-1] >= 0xA0
