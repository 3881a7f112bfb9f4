"""The one way from a broadcast into a connection: posting messages, and taking them back.

This module owns what a broadcast may do with a connection, and no more. It knows frames and where
they wait. It does not know topics or policies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import final

from .._protocol.prepared import Prepared
from .._protocol.wire import Wire
from .ending import Ending
from .line import Parcel
from .outbox import Outbox, post_to_all


@final
class Outlet:
    """One subscription's way into a connection. The connection does not refer to it.

    No method waits or raises, except `wait_for_progress`.

    Args:
        outbox: takes the frames.
        wire: makes them.
        ending: closes the connection if its peer is too slow.
        note_sent: called with each message that is out, or on its way; `None` if nobody wants to
            know.
        check_turn: raises if the running task would wait for itself.
    """

    __slots__ = ("_check_turn", "_ending", "_note_sent", "_outbox", "_wire")

    def __init__(
        self,
        outbox: Outbox,
        wire: Wire,
        ending: Ending,
        *,
        note_sent: Callable[[str | bytes], None] | None,
        check_turn: Callable[[], None],
    ) -> None:
        self._outbox = outbox
        self._wire = wire
        self._ending = ending
        self._note_sent = note_sent
        self._check_turn = check_turn

    @property
    def plain_below(self) -> float:
        """A message of less weight than this may go out as `Prepared.plain`, and by `Outlets`.

        No message may if somebody has to be told of each one.
        """
        return -inf if self._note_sent is not None else self._wire.prepared_is_plain_below

    @property
    def is_closed(self) -> bool:
        """Whether the connection is closing or closed, so that nothing is sent any more."""
        return self._outbox.is_sealed

    def waiting(self) -> tuple[int, int]:
        """How many messages could be taken back, whoever posted them, and the bytes of these."""
        return self._outbox.in_line()

    def frame_of(self, message: Prepared) -> bytes:
        """The frame in which this connection gets a message."""
        return self._wire.frame_of_prepared(message)

    def post_now(self, frame: bytes, messages: Sequence[Prepared]) -> bool:
        """Send a frame, if nothing has to go out before it. It cannot be taken back.

        Args:
            frame: one frame, or several in one piece.
            messages: what these hold.

        Returns:
            Whether it was sent. If not, nothing was done.
        """
        if not self._outbox.post_now(frame, messages=len(messages)):
            return False
        if self._note_sent is not None:
            for message in messages:
                self._note_sent(message.data)
        return True

    def post(self, parcel: Parcel, frame: bytes) -> None:
        """Put a frame in line, after `post_now` did nothing."""
        self._outbox.post(parcel, frame)

    def take_back(self, parcel: Parcel) -> None:
        """Take a frame out of the line again."""
        self._outbox.take_back(parcel)

    def exchange(self, parcel: Parcel, frame: bytes) -> bool:
        """Put another frame in the place of one that waits, unless that would overtake others.

        Returns:
            Whether that was done.
        """
        return self._outbox.exchange(parcel, frame)

    def note_sent(self, message: str | bytes) -> None:
        """A message that was posted has left the line."""
        if self._note_sent is not None:
            self._note_sent(message)

    def disconnect(self, code: int, reason: str) -> None:
        """Throw away all that waits, and close the connection: its peer is too slow."""
        self._outbox.drop_parcels()
        self._ending.close(code, reason, failed=True)

    async def wait_for_progress(self) -> None:
        """Return when bytes have gone out, when the connection ends, or after `wake`.

        Raises:
            RuntimeError: it would wait for a message that this task itself sends in fragments.
        """
        self._check_turn()
        await self._outbox.wait_for_progress()

    def wake(self) -> None:
        """Let the tasks that wait for progress look again."""
        self._outbox.wake()


@final
class Outlets:
    """The outlets of several connections that get the same frame. They do not change."""

    __slots__ = ("_outboxes",)

    def __init__(self, outlets: Iterable[Outlet]) -> None:
        self._outboxes = [outlet._outbox for outlet in outlets]

    def post_now(self, frame: bytes) -> list[int]:
        """`Outlet.post_now` to each; the positions of those for which it did nothing."""
        return post_to_all(self._outboxes, frame)
