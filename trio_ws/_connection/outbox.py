"""Encoded and not yet written: the one door through which a connection writes.

This module owns the order of bytes on their way out and the bound on how many wait. It knows
nothing of messages: it is given frames, and each goes out whole and in the order given.

One rule makes `send` safe to cancel: the connection finishes a frame that was started, never the
task that sent it. `write` hands over a whole frame without waiting. What the socket does not take
at once is written by the flushing task, which runs in the connection's nursery, starts when
something is left over and ends when nothing is.

A system call costs as much as a dozen frames. So frames are gathered while their sender has more to
do at once: messages in its queue that it will probably answer. They are written together, with the
last of them, or by the flusher, which runs as soon as the sender waits for anything at all.

A frame that is posted, rather than written, may be taken back while it waits. It waits in a line
(see `line`), and everything written after it waits behind it there: frames keep their order. While
a message is sent in fragments, the line is held. What is in it then counts as unsent, but not as
waiting for the peer: it waits for the fragments, so they must not wait for it.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import TypeAlias

import trio
from trio.lowlevel import ParkingLot

from .._transport.sockets import send_to_all
from .._transport.stream import Buffer, Transport
from .._transport.system import GONE, Failure
from .line import Line, Parcel

#: Frames are gathered when at least this many more messages wait for the sender: gathering costs
#: about as much as three system calls.
GATHER_FROM = 3

#: This many gathered bytes are written, although more will follow.
GATHER_UP_TO = 16 * 1024

#: Up to this many bytes are copied together to be written, rather than listed one by one.
JOIN_UP_TO = 64 * 1024

#: The most buffers in one system call; POSIX promises 16, every system in use takes 1024.
MOST_BUFFERS = 64

#: How many bytes a stream that is not a socket is given at once. A slow peer is judged by its
#: progress, and such a stream shows none before it has taken the whole piece. With larger pieces,
#: TLS costs a quarter less a byte. So pieces grow, but only while none takes more than `QUICK`
#: seconds.
PIECE = 16 * 1024
LARGEST_PIECE = 256 * 1024
QUICK = 0.1

#: A peer that takes at least this many bytes a second shows progress in time, with pieces of any
#: size.
SLOWEST = 4 * 1024

#: How many bytes leave the line at a time: enough to be worth a system call, and no more, because
#: they cannot be taken back afterwards.
TURN = 16 * 1024


#: The function of a connection's task, and the function that starts such a task.
ConnectionTask: TypeAlias = Callable[[], Awaitable[None]]
StartTask: TypeAlias = Callable[[ConnectionTask], None]


class Taken(enum.Enum):
    """Which frames are still taken. It only ever goes down this list."""

    ALL = "all frames"
    THE_LAST = "only frames that end the connection; tasks that wait for room go on"
    NONE = "none; what waited is dropped"


ALL, NONE = Taken.ALL, Taken.NONE  # asked for with every message


class Outbox:
    """See the module.

    Args:
        transport: what to write to.
        high_water: `wait_for_room` waits while more bytes than this are unsent.
        start_task: starts a task in the connection's nursery.
        flush_soon: has `flush` called as soon as the running task waits.
        on_broken: called once, with the error, when the transport turns out to be broken.
        patience: for how many seconds a stream may show no progress.
    """

    __slots__ = (
        "_blocked",
        "_flush_soon",
        "_flushing",
        "_frames",
        "_gather_up_to",
        "_held",
        "_largest_piece",
        "_line",
        "_moved",
        "_on_broken",
        "_owed",
        "_piece_size",
        "_probe_end",
        "_progressed_at",
        "_ready",
        "_start_task",
        "_taken",
        "_transport",
        "bytes_taken",
        "high_water",
        "messages_posted",
        "moved_at",
        "probe_left_at",
        "unsent",
    )

    def __init__(
        self,
        transport: Transport,
        high_water: float,
        start_task: StartTask,
        flush_soon: Callable[[Outbox], None],
        on_broken: Callable[[Exception], None],
        *,
        patience: float = inf,
    ) -> None:
        self._transport = transport
        #: The socket, while a frame may go straight into it; else `None`. See `_set_ready`.
        self._ready = transport.plain_socket
        self.high_water = high_water
        # Gathering more than the high-water mark would make the sender wait.
        self._gather_up_to = min(GATHER_UP_TO, high_water + 1)
        self._start_task = start_task
        self._flush_soon = flush_soon
        self._on_broken = on_broken
        #: What waits, in order. The first may be the rest of a frame that was started.
        self._frames: list[Buffer] = []
        #: What waits behind that; made for the first. While a task runs none of these methods,
        #: something is in line only if `_frames` are before it or the line is held.
        self._line: Line | None = None
        #: Nothing may leave the line.
        self._held = False
        #: The transport did not take all of it. Until all is out, only the flushing task writes, or
        #: two writers would mix their frames.
        self._blocked = False
        #: A pong that is held back, and how many bytes must have gone out (see `_gone`) before it.
        self._owed: tuple[float, bytes] | None = None
        #: No more messages will come: see `seal`.
        self._taken = ALL
        self._piece_size = PIECE
        self._largest_piece = int(max(PIECE, min(LARGEST_PIECE, SLOWEST * patience)))
        self._flushing: trio.CancelScope | None = None
        #: Where tasks wait for bytes to go out; made for the first. They are also woken when none
        #: ever will.
        self._moved: ParkingLot | None = None
        #: How many bytes wait.
        self.unsent = 0
        #: How many bytes it was given since the start, those still unsent included.
        self.bytes_taken = 0
        #: How many posted messages cannot be taken back any more.
        self.messages_posted = 0
        self._progressed_at = 0.0
        #: When the peer last made room for bytes that had to wait for it.
        self.moved_at = -inf
        #: The last probe has left once this many bytes have gone out.
        self._probe_end = 0
        #: When it left; `math.inf` while it waits.
        self.probe_left_at = -inf

    @property
    def has_room(self) -> bool:
        return self._leaving <= self.high_water

    @property
    def _leaving(self) -> int:
        """How many unsent bytes wait for the peer alone: not those of a line that is held."""
        return self.unsent - self.in_line()[1] if self._held else self.unsent

    @property
    def _gone(self) -> int:
        """How many bytes have gone out."""
        return self.bytes_taken - self.unsent

    @property
    def stalled_since(self) -> float:
        """Since when the transport has taken nothing; `math.inf` where nothing waits for it."""
        return self._progressed_at if self._blocked else inf

    @property
    def is_sealed(self) -> bool:
        """Whether no more messages are taken."""
        return self._taken is not ALL

    # Taking frames…

    def write(self, frame: Buffer, following: int = 0, *, payload: Sequence[Buffer] = ()) -> None:
        """Write a whole frame: at once as far as possible, the rest as soon as possible.

        Never waits and never fails. A broken transport is reported to `on_broken`, and frames
        written after that are dropped.

        Args:
            frame: the frame in one piece, or only its head.
            following: how many more messages wait for the sender. Their answers may follow soon.
            payload: the pieces that follow the head. They are not copied, which would cost large
                ones much. Nothing comes in between.
        """
        if self._taken is NONE:
            return
        size = len(frame)
        if payload:
            size += sum(map(len, payload))
        self.bytes_taken += size
        if not self._frames:
            if following < GATHER_FROM:
                self._write_at_once((frame, *payload) if payload else (frame,), size)
                return
            # The sender may wait for anything after this, and nobody else would write the frame.
            self._flush_soon(self)
            self._ready = None
        self.unsent += size
        # Behind what was posted before it. Only the frames that a held line waits for go past it.
        if self._line and not self._held:
            self._line.put(frame, *payload)
        elif payload:
            self._frames += (frame, *payload)
        else:
            self._frames.append(frame)
        if not self._blocked and (not following or self.unsent >= self._gather_up_to):
            self._write_what_waits()

    def _write_at_once(self, frame: Sequence[Buffer], size: int) -> None:
        """Write a frame, where nothing waits before it."""
        try:
            sent = self._transport.send_nowait(frame[:MOST_BUFFERS])
        except GONE as exc:
            self._break(exc)
            return
        if sent < size:
            self._finish_later(frame, sent, size)

    def _finish_later(self, frame: Sequence[Buffer], sent: int, size: int) -> None:
        self._frames += frame
        self.unsent += size
        self._note_written(sent)
        self._block()

    def write_pong(self, frame: bytes, *, following: int = 0) -> None:
        """Write a pong. While there is no room, hold back the newest and drop the others.

        Otherwise a peer that pings and does not read could fill our memory with pongs. An endpoint
        may answer only the most recent ping (RFC 6455 section 5.5.3).
        """
        if self.has_room:
            self.write(frame, following)
        elif self._owed is None:
            self._owed = (self._gone_when_there_is_room, frame)
        else:
            self._owed = (self._owed[0], frame)

    def write_probe(self, frame: bytes) -> None:
        """Write a ping, and note when it has left: only from then on can it be answered."""
        self.write(frame)
        self._probe_end = self._gone + self._leaving
        self.probe_left_at = inf
        self._note_probe()

    def _note_probe(self) -> None:
        # `_probe_end` is never reached if frames before the probe were taken back. Once nothing is
        # left to write, it has left all the same.
        if self.probe_left_at == inf and (self._gone >= self._probe_end or not self._leaving):
            self.probe_left_at = trio.current_time()

    @property
    def _gone_when_there_is_room(self) -> float:
        """How many bytes will have gone out when only `high_water` is left of what may leave now.

        To wait for `has_room` alone would not do. Posting does not wait for room, so a task that
        posts enough would keep others from sending for ever.
        """
        return self._gone + self._leaving - self.high_water

    async def wait_for_room(self) -> None:
        """Return when there is room to send, or after `seal`.

        There is room when, of what could leave at the time of the call, no more than the high-water
        mark is left.
        """
        gone = self._gone_when_there_is_room
        while not self.has_room and self._gone < gone and self._taken is ALL:
            await self.wait_for_progress()

    async def wait_until_empty(self) -> None:
        """Return when everything has been written, or after `stop`."""
        while self._frames:
            await self.wait_for_progress()

    async def wait_for_progress(self) -> None:
        """Return when bytes have gone out, or after `seal` or `stop`."""
        if self._moved is None:
            self._moved = ParkingLot()
        await self._moved.park()

    # Posting: frames that may be taken back while they wait…

    def post_now(self, frame: Buffer, *, messages: int = 1) -> bool:
        """Write a frame, if nothing has to be written before it. It cannot be taken back.

        Args:
            frame: one frame, or several in one piece.
            messages: how many messages these are.

        Returns:
            Whether it was written. If not, nothing was done.
        """
        if self._frames or self._held or self._taken is not ALL:
            return False
        size = len(frame)
        self.bytes_taken += size
        self.messages_posted += messages
        self._write_at_once((frame,), size)
        return True

    def _post_the_rest(self, frame: bytes, outcome: int | Failure | None) -> bool:
        """Go on where `send_to_all` did not get a whole frame into the socket.

        Args:
            frame: what was to be sent. It has been counted.
            outcome: what `send_to_all` says of it: `None` if it was not given a socket.

        Returns:
            As `post_now`.
        """
        if isinstance(outcome, int):
            self._finish_later((frame,), outcome, len(frame))
        elif outcome is not None:
            self._break(outcome)
        else:
            self.bytes_taken -= len(frame)
            self.messages_posted -= 1
            return self.post_now(frame)
        return True

    def post(self, parcel: Parcel, frame: Buffer) -> None:
        """Put a frame in line, after `post_now` did nothing."""
        if self._taken is not ALL:
            parcel.leave(sent=False)
            return
        if self._line is None:
            self._line = Line()
        self._line.post(parcel, frame)
        self._count(len(frame))

    def take_back(self, parcel: Parcel) -> None:
        """Take a frame out of the line again."""
        assert self._line is not None
        self._count(-self._line.take_back(parcel))

    def exchange(self, parcel: Parcel, frame: Buffer) -> bool:
        """Put another frame in its place, unless that would overtake a frame written since.

        Returns:
            Whether that was done.
        """
        line = self._line
        assert line is not None
        if parcel.barrier != line.barriers:
            return False
        more = line.exchange(parcel, frame)
        self.bytes_taken += more
        self.unsent += more
        return True

    def drop_parcels(self) -> None:
        """Throw away all frames that can be taken back."""
        if self._line is not None:
            self._count(-self._line.drop_parcels())

    def _count(self, more: int) -> None:
        self.bytes_taken += more
        self.unsent += more

    def in_line(self) -> tuple[int, int]:
        """How many messages could be taken back, and how many bytes they have."""
        line = self._line
        return (line.messages, line.size) if line is not None else (0, 0)

    def hold(self) -> None:
        """Write what waits, and from then on let posted frames wait.

        No other message may come between the fragments of one (RFC 6455 section 5.4).
        """
        # Else the fragments would have to wait behind what was posted before them.
        self._advance_line(inf)
        self._held = True
        self._set_ready()

    def release(self) -> bool:
        """End `hold`; true if anything was posted meanwhile."""
        self._held = False
        waited = bool(self._line)
        if not self._frames:
            self._advance_line(TURN)
            self._write_what_waits()
        self._set_ready()
        return waited

    def _set_ready(self) -> None:
        # A frame that went past these would overtake them, cut a message in two, or follow a Close
        # frame (RFC 6455 section 5.5.1).
        clear = not (self._frames or self._held or self._taken is not ALL)
        self._ready = self._transport.plain_socket if clear else None

    def _advance_line(self, size: float) -> None:
        """Move the first frames of the line to those to be written: about so many bytes."""
        if self._line is not None and not self._held:
            messages = self._line.messages
            self._frames += self._line.advance(size)
            self.messages_posted += messages - self._line.messages
            if not self._line:
                self._line = None

    # The end…

    def seal(self) -> None:
        """Take no more messages, only what ends the connection, and wake all who wait."""
        if self._taken is ALL:
            self._taken = Taken.THE_LAST
        self._owed = None
        self._ready = None
        if self._held:
            # A message is left unfinished. Another after it would break the protocol; a Close frame
            # may follow (RFC 6455 section 5.4).
            self.drop_parcels()
        self.wake()

    def stop(self) -> None:
        """Write nothing more, and drop what waits."""
        self.seal()
        self.drop_parcels()
        self._line = None
        self._taken = NONE
        self._frames = []  # a new list, as the flushing task may be going through the old one
        self.bytes_taken -= self.unsent  # as with what is taken back: it has not been sent
        self.unsent = 0
        self.wake()
        if self._flushing is not None:
            self._flushing.cancel()
        # This is a method of the connection, which has this outbox. Without the cycle, both are
        # freed when they are over, and not when the garbage collector looks. That would be a
        # twentieth of what a short connection costs.
        self._on_broken = _ignore

    def wake(self) -> None:
        if self._moved:
            self._moved.unpark_all()

    def _break(self, exc: Exception) -> None:
        if self._taken is not NONE:
            on_broken = self._on_broken  # `stop` replaces it
            self.stop()
            on_broken(exc)

    # Writing…

    def flush(self) -> None:
        """Write the frames that were gathered."""
        if not self._blocked:
            self._write_what_waits()

    def _write_what_waits(self) -> None:
        """Write as much as the transport takes at once."""
        try:
            while self._frames:
                buffers = self._frames[:MOST_BUFFERS]
                # Small buffers cost less to copy than to list for the system one by one.
                if len(buffers) > 1 and self.unsent <= JOIN_UP_TO:
                    buffers = [b"".join(self._frames)]
                    self._frames[:] = buffers
                size = sum(map(len, buffers))
                sent = self._transport.send_nowait(buffers)
                self._note_written(sent)
                if sent < size:
                    self._block()
                    return
        except GONE as exc:
            self._break(exc)

    def _block(self) -> None:
        """The transport takes no more: leave what waits to the flushing task."""
        if not self._blocked:
            self._blocked = True
            self._progressed_at = trio.current_time()
            self._flushing = trio.CancelScope(shield=True)
            self._start_task(self._flush)

    @trio.lowlevel.enable_ki_protection
    async def _flush(self) -> None:
        # Shielded: the connection ends this task. If a cancellation from outside did, the Close
        # frame that this cancellation leads to could not be written any more.
        assert self._flushing is not None
        with self._flushing:
            try:
                while self._frames:
                    await self._flush_some()
            except Exception as exc:  # of any kind, because the application may bring the stream
                self._break(exc)
        self._flushing = None
        self._blocked = False

    async def _flush_some(self) -> None:
        if self._transport.is_direct:
            await self._transport.wait_until_writable()
            self.moved_at = trio.current_time()
            self._write_what_waits()
        else:
            piece = self._piece()
            started = trio.current_time()
            await self._transport.send_all(piece)
            quick = trio.current_time() - started <= QUICK
            if not quick:
                # It waited for the peer. A piece that is taken at once may only have gone into the
                # system's buffers, which says nothing of the peer.
                self.moved_at = trio.current_time()
            self._piece_size = min(2 * self._piece_size, self._largest_piece) if quick else PIECE
            if self._taken is not NONE:  # `stop` has dropped what waits, this piece included
                self._note_written(len(piece))

    def _piece(self) -> bytes:
        """The first bytes of what waits."""
        pieces: list[Buffer] = []
        room = self._piece_size
        for frame in self._frames:
            pieces.append(frame[:room])
            room -= len(pieces[-1])
            if not room:
                break
        return b"".join(pieces)

    def _note_written(self, sent: int) -> None:
        """So many bytes have gone out: let what is behind them follow, and wake waiting tasks."""
        if self._blocked and sent:
            self._progressed_at = trio.current_time()
        self.unsent -= sent
        frames = self._frames
        done = 0
        while sent:
            size = len(frames[done])
            if sent < size:
                frames[done] = memoryview(frames[done])[sent:]  # copies nothing
                break
            sent -= size
            done += 1
        del frames[:done]
        # A pong that was held back goes before the line: there was no room when it was its turn.
        if self._owed is not None and (self.has_room or self._gone >= self._owed[0]):
            frames.append(self._owed[1])
            self._count(len(self._owed[1]))
            self._owed = None
        self._note_probe()
        if not frames:
            self._advance_line(TURN)
        self._set_ready()
        self.wake()


def _ignore(_: Exception) -> None:
    """Called in place of `on_broken` once the outbox has stopped."""


def post_to_all(outboxes: Sequence[Outbox], frame: bytes) -> list[int]:
    """`post_now` to many at once; the positions of those for which it did nothing."""
    size = len(frame)
    exceptions = send_to_all([outbox._ready for outbox in outboxes], frame)
    # This loop and that of `send_to_all` decide what a broadcast costs, so exceptions come after.
    for outbox in outboxes:
        outbox.bytes_taken += size
        outbox.messages_posted += 1
    return [
        position
        for position, outcome in exceptions.items()
        if not outboxes[position]._post_the_rest(frame, outcome)
    ]
