"""One message for many connections, encoded and compressed once.

This module owns the forms that the frame of such a message can have. Each wire chooses its own.
"""

from __future__ import annotations

from math import inf

from .compressors import Parameters
from .deflate import AT_ONCE, SAMPLE_FROM, deflate_alone, is_compressible
from .frames import BINARY, RSV1, TEXT, make_head


class Prepared:
    """A message for many wires. Each form of its frame is made once, when a wire first needs it.

    Args:
        data: the message.
        compress: whether wires that agreed on compression are to compress it. `None` leaves it to
            each wire's threshold, unless it is large and of a kind that does not get smaller, or
            so large that compressing it would hold up all others.

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
        #: The size to compare with a wire's threshold. It is infinite for a message that is to be
        #: compressed in any case, and below 0 for one that is not.
        self.weight: float = len(payload)
        if compress is not None:
            self.weight = inf if compress else -1
        elif self.weight > AT_ONCE or (self.weight >= SAMPLE_FROM and not is_compressible(payload)):
            self.weight = -1
        self._deflated: dict[Parameters, bytes] | None = None

    @property
    def bytes_compressed(self) -> int:
        """How many bytes were compressed, all forms together."""
        return len(self._deflated or ()) * (len(self.plain) - self._start)

    def deflated(self, parameters: Parameters) -> bytes:
        """The whole frame as a deflater with these parameters makes it; not masked.

        It refers to nothing before it.
        """
        if self._deflated is None:
            self._deflated = {}
        frame = self._deflated.get(parameters)
        if frame is None:
            payload = deflate_alone(parameters, self.plain[self._start :])
            frame = make_head(self.plain[0] | RSV1, len(payload)) + payload
            self._deflated[parameters] = frame
        return frame
