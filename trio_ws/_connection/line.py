"""In line to be written: frames in their order, some of which may still be taken back.

What is sent to many connections at once cannot wait for a slow one. Its frames stand in line as
*parcels*, in their place among all the others. The sender of a parcel may take it back, or put
another frame in its place, until its turn comes. This module owns that order. It does no I/O and
knows neither messages nor policies.
"""

from __future__ import annotations

from collections import OrderedDict

from .._transport.stream import Buffer


class Parcel:
    """The right to take back a frame."""

    __slots__ = ("barrier",)

    def __init__(self) -> None:
        #: What `Line.barriers` was when it was posted.
        self.barrier: int = 0

    def leave(self, *, sent: bool) -> None:
        """It has left the line, and nobody took it back: its turn came, or never will."""


class Line:
    """See the module. The outbox has counted what is in it as unsent."""

    __slots__ = ("_frames", "barriers", "messages", "size")

    def __init__(self) -> None:
        #: By their parcels; those that cannot be taken back by their number.
        self._frames: OrderedDict[Parcel | int, tuple[Buffer, ...]] = OrderedDict()
        #: How many frames were put here that cannot be taken back. A parcel with a smaller
        #: `barrier` stands before the last of these: another frame in its place would overtake it.
        self.barriers = 0
        #: How many parcels there are.
        self.messages = 0
        #: How many bytes their frames have.
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._frames)

    def put(self, *frame: Buffer) -> None:
        """Put a frame at the end for good: one buffer, or several that leave together."""
        self.barriers += 1
        self._frames[self.barriers] = frame

    def post(self, parcel: Parcel, frame: Buffer) -> None:
        """Put a frame at the end that may be taken back."""
        parcel.barrier = self.barriers
        self._frames[parcel] = (frame,)
        self.messages += 1
        self.size += len(frame)

    def take_back(self, parcel: Parcel) -> int:
        """Take a frame out of the line, and return its size."""
        (frame,) = self._frames.pop(parcel)
        size = len(frame)
        self.messages -= 1
        self.size -= size
        return size

    def exchange(self, parcel: Parcel, frame: Buffer) -> int:
        """Put another frame in its place, and return by how many bytes that is longer."""
        (before,) = self._frames[parcel]
        more = len(frame) - len(before)
        self._frames[parcel] = (frame,)
        self.size += more
        return more

    def advance(self, size: float) -> list[Buffer]:
        """Remove frames from the front until they have `size` bytes: their turn has come."""
        frames: list[Buffer] = []
        while self._frames and size > 0:
            who, frame = self._frames.popitem(last=False)
            frames += frame
            length = sum(map(len, frame))
            size -= length
            if isinstance(who, Parcel):
                self.messages -= 1
                self.size -= length
                who.leave(sent=True)
        return frames

    def drop_parcels(self) -> int:
        """Throw away all frames that can be taken back, and return how many bytes they had."""
        dropped = self.size
        for who in list(self._frames):
            if isinstance(who, Parcel):
                self.take_back(who)
                who.leave(sent=False)
        return dropped
