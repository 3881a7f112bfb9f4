"""In line to be written: frames in their order, some of which may still be taken back.

What is sent to many connections at once cannot wait for a slow one. Its frames stand in line as
*parcels*: in their place among all the others; but whoever posted one may take it back, or put
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
        #: How many frames had been put in line that cannot be taken back: see `Line.barriers`.
        self.barrier = 0

    def leave(self, *, sent: bool) -> None:
        """It stands in line no more, and nobody took it back: its turn came, or never will."""


class Line:
    """See the module. What is in it has been counted by the outbox as unsent."""

    __slots__ = ("_frames", "barriers", "messages", "size")

    def __init__(self) -> None:
        #: By their parcels; those that cannot be taken back by their number.
        self._frames: OrderedDict[Parcel | int, Buffer] = OrderedDict()
        #: How many frames were put here that cannot be taken back. No parcel may overtake them.
        self.barriers = 0
        #: How many parcels there are, and how many bytes they take.
        self.messages = 0
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._frames)

    def put(self, frame: Buffer) -> None:
        """Put a frame at the end for good."""
        self.barriers += 1
        self._frames[self.barriers] = frame

    def post(self, parcel: Parcel, frame: Buffer) -> None:
        """Put a frame at the end that may be taken back."""
        parcel.barrier = self.barriers
        self._frames[parcel] = frame
        self.messages += 1
        self.size += len(frame)

    def take_back(self, parcel: Parcel) -> int:
        """Take a frame out of the line; how many bytes that were."""
        size = len(self._frames.pop(parcel))
        self.messages -= 1
        self.size -= size
        return size

    def exchange(self, parcel: Parcel, frame: Buffer) -> int:
        """Put another frame in its place; how many bytes that is more."""
        more = len(frame) - len(self._frames[parcel])
        self._frames[parcel] = frame
        self.size += more
        return more

    def take(self, most: float) -> list[Buffer]:
        """The next frames, whose turn has come: until they are `most` bytes or more."""
        taken: list[Buffer] = []
        while self._frames and most > 0:
            who, frame = self._frames.popitem(last=False)
            taken.append(frame)
            most -= len(frame)
            if isinstance(who, Parcel):
                self.messages -= 1
                self.size -= len(frame)
                who.leave(sent=True)
        return taken

    def drop_parcels(self) -> int:
        """Throw away all that can be taken back; how many bytes that were."""
        dropped = self.size
        for who in list(self._frames):
            if isinstance(who, Parcel):
                self.take_back(who)
                who.leave(sent=False)
        return dropped
