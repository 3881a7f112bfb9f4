"""One message for many connections, encoded and compressed once.

This module owns which forms of a frame exist. Who gets which is the wire's.
"""

from __future__ import annotations

from math import inf

from .deflate import SAMPLE_FROM, Deflater, is_compressible
from .frames import BINARY, RSV1, TEXT, make_head


class Prepared:
    """A message for many wires: each form of it is made once, when the first of them needs it.

    Args:
        data: the message.
        compress: whether to compress it, where that was agreed on; `None` leaves it to each wire's
            threshold, unless it is large and of a kind that does not get smaller.

    Raises:
        UnicodeEncodeError: a `str` with lone surrogates.
    """

    __slots__ = ("_deflated", "_start", "data", "plain", "weight")

    def __init__(self, data: str | bytes, *, compress: bool | None = None) -> None:
        first, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
        self.data: str | bytes = data
        #: The whole frame, neither compressed nor masked.
        self.plain: bytes = make_head(first, len(payload)) + payload
        self._start = len(self.plain) - len(payload)
        #: What is held against a threshold.
        self.weight: float = len(payload)
        if compress is not None:
            self.weight = inf if compress else -1
        elif self.weight >= SAMPLE_FROM and not is_compressible(payload):
            self.weight = -1
        self._deflated: dict[tuple[int, int, int], bytes] | None = None

    @property
    def bytes_compressed(self) -> int:
        """How many bytes compressing took in, over all forms."""
        return len(self._deflated or ()) * (len(self.plain) - self._start)

    def deflated(self, deflater: Deflater) -> bytes:
        """The whole frame as `deflater` makes it, beginning with this message; not masked."""
        if self._deflated is None:
            self._deflated = {}
        frame = self._deflated.get(deflater.parameters)
        if frame is None:
            payload = deflater.deflate(self.plain[self._start :], final=True)
            frame = make_head(self.plain[0] | RSV1, len(payload)) + payload
            self._deflated[deflater.parameters] = frame
        return frame
