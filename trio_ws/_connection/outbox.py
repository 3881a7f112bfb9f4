"""Encoded and not yet written: the one door through which a connection writes.

This module owns the order of bytes on their way out and the bound on how many wait. It knows
nothing of messages: it is given frames, and each goes out whole and in the order given.

The rule that makes `send` safe to cancel: a frame that was started is finished by the connection,
never by the task that sent it. `write` hands over a whole frame without waiting; what the socket
does not take at once is written by a task of the connection's nursery, which is started when there
is something left and ends when there is nothing.

A system call costs as much as a dozen frames. So where the sender has more to do at once, messages
in its queue that it will probably answer, its frames are gathered and written together: with the
last of them, or by the flusher, which runs as soon as the sender waits for anything at all.

What is posted, rather than written, may be taken back for as long as it waits. So it waits in a
line of its own kind, and from then on so does everything that is written after it. While a message
is sent in fragments, the line is held. What is in it then counts as unsent but not as waiting for
the peer: the fragments that it waits for must not wait for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from math import inf

import trio
from trio.lowlevel import ParkingLot

from .._transport.sockets import send_to_all
from .._transport.stream import Buffer, Transport
from .._transport.system import GONE, Failure
from .line import Line, Parcel

#: How many more messages have to wait for the sender before its frames are gathered, which costs
#: about three system calls itself.
GATHER_FROM = 3

#: How many gathered bytes are written even though more will follow.
GATHER_UP_TO = 16 * 1024

#: Up to this many bytes are copied together to be written, rather than listed one by one.
JOIN_UP_TO = 64 * 1024

#: The most buffers in one system call; POSIX promises 16, every system in use takes 1024.
MOST_BUFFERS = 64

#: How much a stream that is not a socket is given in one go. It does not tell how far it has come
#: before it has taken all of it, and progress is what a slow peer is judged by. So pieces become
#: larger, which costs TLS a quarter less for each byte, only while none takes more than `QUICK`
#: seconds.
PIECE = 16 * 1024
LARGEST_PIECE = 256 * 1024
QUICK = 0.1

#: How few bytes a second a peer may take and still show progress in time.
SLOWEST = 4 * 1024

#: How many bytes leave the line at a time. They cannot be taken back any more, so it is no more
#: than makes a system call worth its while.
TURN = 16 * 1024


class Outbox:
    """See the module.

    Args:
        transport: what to write to.
        high_water: `wait_for_room` waits while more bytes than this are unsent.
        start_task: starts a task in the connection's nursery.
        flush_soon: has `flush` called when the task that runs now waits.
        on_broken: told, once, that the transport cannot be written to any more.
        patience: for how many seconds a stream may make no progress that can be seen.
    """

    __slots__ = (
        "_blocked",
        "_broken",
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
        "_transport",
        "bytes_taken",
        "high_water",
        "is_sealed",
        "messages_posted",
        "moved_at",
        "probe_left_at",
        "unsent",
    )

    def __init__(
        self,
        transport: Transport,
        high_water: float,
        start_task: Callable[[Callable[[], Awaitable[None]]], None],
        flush_soon: Callable[[Outbox], None],
        on_broken: Callable[[Exception], None],
        *,
        patience: float = inf,
    ) -> None:
        self._transport = transport
        #: The socket, as long as a frame may go straight into it. See `_set_ready`.
        self._ready = transport.plain_socket
        self.high_water = high_water
        #: At this many bytes what was gathered is written even though more will follow.
        self._gather_up_to = min(GATHER_UP_TO, high_water + 1)
        self._start_task = start_task
        self._flush_soon = flush_soon
        self._on_broken = on_broken
        #: What waits, in order. The first may be the rest of a frame that was started.
        self._frames: list[Buffer] = []
        #: What waits behind that. Between two tasks' turns there is nothing in it unless there is
        #: something before it, or it is held.
        self._line: Line | None = None
        #: Nothing may leave the line.
        self._held = False
        #: The transport would not take all of it: until all is out, only the flushing task writes.
        self._blocked = False
        #: A pong, and for how many bytes to have gone out it is held back.
        self._owed: tuple[float, bytes] | None = None
        #: No more messages will come: see `seal`.
        self.is_sealed = False
        self._broken = False
        self._piece_size = PIECE
        self._largest_piece = int(max(PIECE, min(LARGEST_PIECE, SLOWEST * patience)))
        self._flushing: trio.CancelScope | None = None
        #: Woken whenever bytes have gone out, and when none ever will.
        self._moved: ParkingLot | None = None
        #: How many bytes wait.
        self.unsent = 0
        #: How many bytes were given to it to send, since the start.
        self.bytes_taken = 0
        #: How many messages of those that were posted are out, or on their way.
        self.messages_posted = 0
        self._progressed_at = 0.0
        #: When the peer last made room for bytes that had to wait for it.
        self.moved_at = -inf
        #: How many bytes have gone out once the last probe is out, and when it was; `math.inf`
        #: while it waits.
        self._probe_end = 0
        self.probe_left_at = -inf

    @property
    def has_room(self) -> bool:
        return self._leaving <= self.high_water

    @property
    def _leaving(self) -> int:
        """How many of the unsent bytes may go out as soon as the peer takes them: all but those of
        a line that is held.
        """
        return self.unsent - self.in_line()[1] if self._held else self.unsent

    @property
    def _gone(self) -> int:
        """How many bytes have gone out."""
        return self.bytes_taken - self.unsent

    @property
    def stalled_since(self) -> float:
        """When bytes last moved of those that the transport would not take; else `math.inf`."""
        return self._progressed_at if self._blocked else inf

    # Taking frames…

    def write(self, frame: Buffer, payload: Buffer = b"", *, following: int = 0) -> None:
        """Take a whole frame: out at once as far as possible, the rest as soon as possible.

        Never waits and never fails: a transport that broke is reported to `on_broken`, and what
        is written to it afterwards is dropped.

        Args:
            frame: in one piece, or only its head.
            payload: then what follows that.
            following: how many more messages wait for the sender, which may also answer those.
        """
        if self._broken:
            return
        size = len(frame) + len(payload)
        self.bytes_taken += size
        if not self._frames:
            if following < GATHER_FROM:
                self._write_at_once((frame, payload) if payload else (frame,), size)
                return
            self._flush_soon(self)
            self._ready = None
        self.unsent += size
        put = self._line.put if self._line and not self._held else self._frames.append
        put(frame)
        if payload:
            put(payload)
        if not self._blocked and (not following or self.unsent >= self._gather_up_to):
            self._write_what_waits()

    def _write_at_once(self, frame: Sequence[Buffer], size: int) -> None:
        """Write a frame that nothing waits before."""
        try:
            sent = self._transport.send_nowait(frame)
        except GONE as exc:
            self._break(exc)
            return
        if sent < size:
            self._finish_later(frame, sent, size)

    def _finish_later(self, frame: Sequence[Buffer], sent: int, size: int) -> None:
        self._frames += frame
        self.unsent += size
        self._forget(sent)
        self._block()

    def write_pong(self, frame: bytes, *, following: int = 0) -> None:
        """Write a pong, or hold it back while there is no room: only the newest is kept.

        This is what bounds the pongs that a peer can make us owe it (RFC 6455 section 5.5.3 lets
        an endpoint answer only the most recent ping).
        """
        if self.has_room:
            self.write(frame, following=following)
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
        # Where what stood before it was taken back, the probe's end is never reached.
        if self.probe_left_at == inf and (self._gone >= self._probe_end or not self._leaving):
            self.probe_left_at = trio.current_time()

    @property
    def _gone_when_there_is_room(self) -> float:
        """What `_gone` will be when all that may leave now has gone out, but for the high water.

        It is not enough to wait for `has_room`, because what is posted does not wait for that: a
        task that posts enough would keep others from sending for ever.
        """
        return self._gone + self._leaving - self.high_water

    async def wait_for_room(self) -> None:
        """Return when there is room for what is sent, or after `seal`.

        That is when, of what could leave at first, not more than the high-water mark is left.
        """
        gone = self._gone_when_there_is_room
        while not self.has_room and self._gone < gone and not self.is_sealed:
            await self.wait_for_progress()

    async def wait_until_empty(self) -> None:
        """Return when everything has been written, or nothing will be any more."""
        while self._frames:
            await self.wait_for_progress()

    async def wait_for_progress(self) -> None:
        """Return when bytes have gone out, or after `seal` or `stop`."""
        if self._moved is None:
            self._moved = ParkingLot()
        await self._moved.park()

    # Posting: frames that may be taken back while they wait…

    def post_now(self, frame: Buffer, *, messages: int = 1) -> bool:
        """Write a frame if nothing has to be written before it; else do nothing, and say so.

        As it would have to wait for nothing, it can no more be taken back than one that is written.

        Args:
            frame: or several, one after the other.
            messages: how many these are.
        """
        if self._frames or self._held or self.is_sealed:
            return False
        size = len(frame)
        self.bytes_taken += size
        self.messages_posted += messages
        self._write_at_once((frame,), size)
        return True

    def _post_the_rest(self, frame: bytes, outcome: int | Failure | None) -> bool:
        """`post_now`, where the socket did not take all of it.

        Args:
            frame: is counted already.
            outcome: see `send_to_all`; `None` as long as `_ready` is.
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
        """Put a frame in line, where `post_now` was in vain."""
        if self.is_sealed:
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
        """Put another frame in its place; false if that would overtake what was written since."""
        line = self._line
        assert line is not None
        if parcel.barrier != line.barriers:
            return False
        more = line.exchange(parcel, frame)
        self.bytes_taken += more
        self.unsent += more
        return True

    def drop_parcels(self) -> None:
        """Throw away all that can be taken back."""
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
        """Write what waits, and then only what is written: what is posted has to wait.

        Between the fragments of a message there must not be another (RFC 6455 section 5.4).
        """
        self._take_turn(inf)
        self._held = True
        self._set_ready()

    def release(self) -> bool:
        """Go on as usual; whether anything was posted meanwhile."""
        self._held = False
        waited = bool(self._line)
        if not self._frames:
            self._take_turn(TURN)
            self._write_what_waits()
        self._set_ready()
        return waited

    def _set_ready(self) -> None:
        clear = not (self._frames or self._held or self.is_sealed)
        self._ready = self._transport.plain_socket if clear else None

    def _take_turn(self, size: float) -> None:
        """Let the next in line, so many bytes of them, come forward to be written."""
        if self._line is not None and not self._held:
            messages = self._line.messages
            self._frames += self._line.take(size)
            self.messages_posted += messages - self._line.messages
            if not self._line:
                self._line = None

    # The end…

    def seal(self) -> None:
        """No more messages will come, only what ends the connection: let those who wait go on."""
        self.is_sealed = True
        self._owed = None
        self._ready = None
        if self._held:  # a message is left unfinished, and only a Close frame may follow
            self.drop_parcels()
        self.wake()

    def stop(self) -> None:
        """Write nothing more, also of what waits."""
        self.seal()
        self.drop_parcels()
        self._line = None
        self._broken = True
        self._frames = []  # a new one: the flushing task may be looking at the old
        self.unsent = 0
        self.wake()
        if self._flushing is not None:
            self._flushing.cancel()
        # Whose method this is has this outbox. Both are then freed when they are over, and not when
        # the garbage collector looks: a twentieth of what a short connection costs.
        self._on_broken = _ignore

    def wake(self) -> None:
        if self._moved:
            self._moved.unpark_all()

    def _break(self, exc: Exception) -> None:
        if not self._broken:
            on_broken = self._on_broken
            self.stop()
            on_broken(exc)

    # Writing…

    def flush(self) -> None:
        """Write what was gathered."""
        if not self._blocked:
            self._write_what_waits()

    def _write_what_waits(self) -> None:
        """Write as much as the transport takes at once."""
        try:
            while self._frames:
                buffers = self._frames[:MOST_BUFFERS]
                if len(buffers) > 1 and self.unsent <= JOIN_UP_TO:
                    buffers = [b"".join(self._frames)]
                    self._frames[:] = buffers
                size = sum(map(len, buffers))
                sent = self._transport.send_nowait(buffers)
                self._forget(sent)
                if sent < size:
                    self._block()
                    return
        except GONE as exc:
            self._break(exc)

    def _block(self) -> None:
        """Leave what waits to the flushing task, because the transport takes no more."""
        if not self._blocked:
            self._blocked = True
            self._progressed_at = trio.current_time()
            self._flushing = trio.CancelScope(shield=True)
            self._start_task(self._flush)

    @trio.lowlevel.enable_ki_protection
    async def _flush(self) -> None:
        # Shielded, so that it is the connection that ends this task, not a cancellation which has
        # yet to be turned into a closing handshake.
        assert self._flushing is not None
        with self._flushing:
            try:
                while self._frames:
                    await self._flush_some()
            except Exception as exc:  # of whatever kind, as the stream may be anybody's
                self._break(exc)
        self._flushing = None
        self._blocked = False

    async def _flush_some(self) -> None:
        if self._transport.plain_socket is not None:
            await self._transport.wait_until_writable()
            self.moved_at = trio.current_time()
            self._write_what_waits()
        else:
            piece = self._piece()
            started = trio.current_time()
            await self._transport.send_all(piece)
            quick = trio.current_time() - started <= QUICK
            if not quick:  # else the system may have had room, whatever became of the peer
                self.moved_at = trio.current_time()
            self._piece_size = min(2 * self._piece_size, self._largest_piece) if quick else PIECE
            if not self._broken:  # what was stopped meanwhile has nothing to forget
                self._forget(len(piece))

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

    def _forget(self, sent: int) -> None:
        """So many bytes of what waits have gone out."""
        if self._blocked and sent:
            self._progressed_at = trio.current_time()
        self.unsent -= sent
        frames = self._frames
        done = 0
        while sent:
            size = len(frames[done])
            if sent < size:
                frames[done] = memoryview(frames[done])[sent:]
                break
            sent -= size
            done += 1
        del frames[:done]
        if self._owed is not None and (self.has_room or self._gone >= self._owed[0]):
            frames.append(self._owed[1])
            self._count(len(self._owed[1]))
            self._owed = None
        self._note_probe()
        if not frames:
            self._take_turn(TURN)
        self._set_ready()
        self.wake()


def _ignore(_: Exception) -> None:
    """What is called from now on comes too late."""


def post_to_all(outboxes: Sequence[Outbox], frame: bytes) -> list[int]:
    """`post_now` to many; the positions of those for which it was in vain."""
    size = len(frame)
    exceptions = send_to_all([outbox._ready for outbox in outboxes], frame)
    for outbox in outboxes:  # what this loop does decides what a broadcast costs
        outbox.bytes_taken += size
        outbox.messages_posted += 1
    return [
        position
        for position, outcome in exceptions.items()
        if not outboxes[position]._post_the_rest(frame, outcome)
    ]
