"""Encoded and not yet written: the one door through which a connection writes.

This module owns the order of bytes on their way out and the bound on how many wait. It knows
nothing of messages: it is given frames, and each goes out whole and in the order given.

The rule that makes `send` safe to cancel: a frame that was started is finished by the connection,
never by the task that sent it. `write` hands over a whole frame without waiting; what the socket
does not take at once is written by a task of the connection's nursery, which is started when there
is something left and ends when there is nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from trio.lowlevel import ParkingLot

from ._transport import Transport


class Outbox:
    """See the module.

    Args:
        transport: what to write to.
        high_water: `wait_for_room` waits while more bytes than this are unsent.
        start_task: starts the flushing task in the connection's nursery.
        on_broken: told, once, that the transport cannot be written to any more.
    """

    __slots__ = (
        "_broken",
        "_buffer",
        "_flushing",
        "_high_water",
        "_moved",
        "_on_broken",
        "_owed",
        "_sealed",
        "_start_task",
        "_transport",
        "bytes_taken",
        "progressed_at",
    )

    def __init__(
        self,
        transport: Transport,
        high_water: float,
        start_task: Callable[[Callable[[], Awaitable[None]]], None],
        on_broken: Callable[[Exception], None],
    ) -> None:
        self._transport = transport
        self._high_water = high_water
        self._start_task = start_task
        self._on_broken = on_broken
        self._buffer = bytearray()
        self._owed = b""
        self._sealed = False
        self._broken = False
        self._flushing: trio.CancelScope | None = None
        #: Woken whenever bytes have gone out, and when none ever will.
        self._moved = ParkingLot()
        #: How many bytes were given to it to send, since the start.
        self.bytes_taken = 0
        #: When the oldest unsent byte began to wait, or bytes last moved after that.
        self.progressed_at = trio.current_time()

    @property
    def unsent(self) -> int:
        """How many bytes wait."""
        return len(self._buffer)

    @property
    def has_room(self) -> bool:
        return len(self._buffer) <= self._high_water

    def write(self, frame: bytes) -> None:
        """Take a whole frame: out at once as far as possible, the rest as soon as possible.

        Never waits and never fails: a transport that broke is reported to `on_broken`, and what
        is written to it afterwards is dropped.
        """
        if self._broken:
            return
        self.bytes_taken += len(frame)
        if self._buffer:
            self._buffer += frame
            return
        try:
            sent = self._transport.send_nowait(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._break(exc)
            return
        if sent < len(frame):
            self.progressed_at = trio.current_time()
            self._buffer += frame[sent:] if sent else frame
            self._start_task(self._flush)

    def write_pong(self, frame: bytes) -> None:
        """Write a pong, or hold it back while there is no room: only the newest is kept.

        This is what bounds the pongs that a peer can make us owe it (RFC 6455 section 5.5.3 lets
        an endpoint answer only the most recent ping).
        """
        if self.has_room:
            self.write(frame)
        else:
            self._owed = frame

    async def wait_for_room(self) -> None:
        """Return when not more than the high-water mark is unsent, or after `seal`."""
        while not self.has_room and not self._sealed:
            await self._moved.park()

    async def wait_until_empty(self) -> None:
        """Return when everything has been written, or nothing will be any more."""
        while self._buffer:
            await self._moved.park()

    def seal(self) -> None:
        """No more messages will come, only what ends the connection: let those who wait go on."""
        self._sealed = True
        self._owed = b""
        self._moved.unpark_all()

    def stop(self) -> None:
        """Write nothing more, also of what waits."""
        self.seal()
        self._broken = True
        self._buffer = bytearray()  # a new one: the flushing task may be looking at the old
        self._moved.unpark_all()
        if self._flushing is not None:
            self._flushing.cancel()

    @trio.lowlevel.enable_ki_protection
    async def _flush(self) -> None:
        # Shielded, so that it is the connection that ends this task, not a cancellation which has
        # yet to be turned into a closing handshake.
        with trio.CancelScope(shield=True) as self._flushing:
            try:
                while self._buffer:
                    await self._flush_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                self._break(exc)
        self._flushing = None

    async def _flush_some(self) -> None:
        buffer = self._buffer
        sent = await self._transport.send_some(bytes(buffer[: self._transport.flush_size]))
        self.progressed_at = trio.current_time()
        del buffer[:sent]
        if self._owed and self.has_room:
            buffer += self._owed
            self.bytes_taken += len(self._owed)
            self._owed = b""
        self._moved.unpark_all()

    def _break(self, exc: Exception) -> None:
        if not self._broken:
            self.stop()
            self._on_broken(exc)
