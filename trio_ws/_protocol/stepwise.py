"""A large message that becomes a payload bit by bit, so that other tasks run in between.

This module owns the order of what is done to a large message: compressed, or encoded as UTF-8, and
then masked. It knows nothing of heads, and whoever takes the steps decides who runs in between.
"""

from __future__ import annotations

from typing import final

from .deflate import StepwiseDeflation
from .masking import mask, turned

#: From this many bytes or characters on, a message that goes uncompressed is encoded and masked in
#: steps of `PIECE`. All at once, 64 MiB would take 40 ms to encode and as long to mask.
PIECES_FROM = 2**20 + 1
PIECE = 256 * 1024


@final
class StepwiseMessage:
    """See the module. Whoever sends it may give it up before it is through.

    Args:
        data: the message.
        key: what to mask with; empty if this is not to be done.
        deflation: what compresses the message, if that is to be done.
    """

    __slots__ = ("_data", "_deflating", "_position", "_turned", "deflation", "key", "pieces")

    def __init__(
        self, data: str | bytes, *, key: bytes, deflation: StepwiseDeflation | None
    ) -> None:
        self._data: str | bytes | bytearray = data
        self._position = 0
        self._turned = key
        self._deflating = deflation is not None
        self.key: bytes = key
        self.deflation: StepwiseDeflation | None = deflation
        #: The payload, as far as it is made.
        self.pieces: list[bytes | bytearray] = []

    def step(self) -> bool:
        """Do the next piece of work; false if that was the last.

        Raises:
            UnicodeEncodeError: it is a `str` with lone surrogates.
        """
        if self._deflating:
            assert self.deflation is not None
            if self.deflation.step():
                return True
            self.deflation.end_message()
            self._data, self._deflating = self.deflation.deflated, False
        data, start = self._data, self._position
        stop = self._position = min(start + PIECE, len(data))
        piece: bytes | bytearray
        if isinstance(data, str):
            piece = data[start:stop].encode()  # never ends within a character
            if self.key:
                piece = mask(piece, 0, len(piece), self._turned)
        elif self.key:
            piece = mask(data, start, stop, self._turned)
        else:
            self.pieces.append(data)  # nothing is left to do
            return False
        self._turned = turned(self._turned, len(piece))
        self.pieces.append(piece)
        return stop < len(data)
