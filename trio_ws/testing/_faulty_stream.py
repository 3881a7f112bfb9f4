"""A stream that fails on purpose: slow, in small pieces, stalled, cut or failing.

This module owns the faults. It knows only trio's streams.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import trio

from .._buffer import bytes_of

T = TypeVar("T")


class FaultyStream(trio.abc.Stream):
    """Another stream with faults: slow, in small pieces, stalled, cut or failing.

    Operations are sends, receives and half-closes, counted together from 1. Faults can be planned
    with the arguments or made to happen at any moment with the methods; any of them may be
    combined. The stream is half-closeable where the other is.

    Args:
        stream: the stream that works. It is closed with this one.
        delay: seconds before each piece that is sent or received.
        max_send: the most bytes that go out in one piece. With `delay` this makes a slow link;
            without, there are more moments at which a send can be cancelled half-way.
        max_receive: the most bytes that one receive gives. 1 shows code that relies on boundaries.
        stall_at: the number of the operation at which the stream stalls, as by `stall`.
        cut_at: the number of the operation at which it is cut, as by `cut`.
        cut_after_sent, cut_after_received: it is cut when this many bytes have passed.
        fail_at: the number of the operation at which it fails, as by `fail`.
        error: the type of the exception that a send raises when the stream is cut, and every
            operation when it has failed. Not every stream keeps to trio's errors, so try `OSError`
            too.
        half_close: False hides that `stream` can be half-closed; TLS, for one, cannot.

    Attributes:
        stream: the stream that works.
        operations: how many operations have begun.
        bytes_sent, bytes_received: how many bytes have passed.
        closed: whether this stream was closed.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        delay: float = 0,
        max_send: int | None = None,
        max_receive: int | None = None,
        stall_at: int | None = None,
        cut_at: int | None = None,
        cut_after_sent: int | None = None,
        cut_after_received: int | None = None,
        fail_at: int | None = None,
        error: type[Exception] = trio.BrokenResourceError,
        half_close: bool = True,
    ) -> None:
        if not isinstance(stream, trio.abc.Stream):
            raise TypeError(f"a stream is a trio.abc.Stream, not {stream!r}")
        self.stream = stream
        self.operations: int = 0
        self.bytes_sent: int = 0
        self.bytes_received: int = 0
        self.closed: bool = False

        if not delay >= 0:
            raise ValueError(f"delay is in seconds, and not negative as {delay!r} is")
        self._delay = delay
        self._max_send = _count("max_send", max_send)
        self._max_receive = _count("max_receive", max_receive)
        self._cut_after_sent = _count("cut_after_sent", cut_after_sent)
        self._cut_after_received = _count("cut_after_received", cut_after_received)
        self._plan = [
            (_count("stall_at", stall_at), self.stall),
            (_count("cut_at", cut_at), self.cut),
            (_count("fail_at", fail_at), self.fail),
        ]
        self._error = error

        self._cut = False
        self._sends, self._receives = _Direction(), _Direction()

        can_half_close = half_close and isinstance(stream, trio.abc.HalfCloseableStream)
        if can_half_close and type(self) is FaultyStream:
            self.__class__ = _HalfCloseableFaultyStream  # its type is how others tell

    def __repr__(self) -> str:
        states = {
            "closed": self.closed,
            "cut": self._cut,
            "sends fail": self._sends.failed,
            "receives fail": self._receives.failed,
            "sends stalled": not self._sends.may_go_on.is_set(),
            "receives stalled": not self._receives.may_go_on.is_set(),
        }
        state = ", ".join(name for name, holds in states.items() if holds) or "working"
        return (
            f"<FaultyStream {state}, {self.operations} operations, {self.bytes_sent} bytes sent, "
            f"{self.bytes_received} received>"
        )

    # Faults…

    def stall(self) -> None:
        """From now on, nothing goes out and nothing comes in: operations wait."""
        self.stall_sends()
        self.stall_receives()

    def stall_sends(self) -> None:
        """From now on, nothing goes out."""
        self._sends.stall()

    def stall_receives(self) -> None:
        """From now on, nothing comes in."""
        self._receives.stall()

    def go_on(self) -> None:
        """End a stall. Operations that waited go on."""
        self._sends.may_go_on.set()
        self._receives.may_go_on.set()

    def cut(self) -> None:
        """From now on, receives find the end of the stream and sends raise, even those that wait.

        The other end does not notice before this one is closed.
        """
        self._cut = True
        self._interrupt()

    def fail(self) -> None:
        """From now on, every operation raises, even those that wait."""
        self._receives.failed = True
        self._receives.interrupt()
        self.fail_sends()

    def fail_sends(self) -> None:
        """From now on, sends raise, even those that wait, while receives go on."""
        self._sends.failed = True
        self._sends.interrupt()

    def _interrupt(self) -> None:
        self._sends.interrupt()
        self._receives.interrupt()

    # Operations…

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        data = bytes_of(data, "data is a buffer, such as bytes")
        try:
            await self._operate(self._sends, partial(self._send, data))
        except _Cut:
            raise self._error("injected cut") from None

    async def _send(self, data: bytes) -> None:
        while True:
            await self._wait(self._sends)
            left = _left(self._cut_after_sent, self.bytes_sent)
            piece = data[: _least(self._max_send, left)]
            await self.stream.send_all(piece)
            self.bytes_sent += len(piece)
            if self.bytes_sent == self._cut_after_sent:
                self.cut()
            data = data[len(piece) :]
            if not data:
                return

    async def wait_send_all_might_not_block(self) -> None:
        with suppress(_Cut):  # a send would not block now: it would raise
            await self._attempt(self._sends, self._wait_until_send_might_not_block)

    async def _wait_until_send_might_not_block(self) -> None:
        await self._sends.may_go_on.wait()
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            return await self._operate(self._receives, partial(self._receive, max_bytes))
        except _Cut:
            return b""

    async def _receive(self, max_bytes: int | None) -> bytes | bytearray:
        await self._wait(self._receives)
        left = _left(self._cut_after_received, self.bytes_received)
        data = await self.stream.receive_some(_least(max_bytes, self._max_receive, left))
        self.bytes_received += len(data)
        if self.bytes_received == self._cut_after_received:
            self.cut()
        return data

    async def aclose(self) -> None:
        self.closed = True
        self._interrupt()
        await self.stream.aclose()

    async def _wait(self, direction: _Direction) -> None:
        await direction.may_go_on.wait()
        if self._delay:
            await trio.sleep(self._delay)

    async def _operate(self, direction: _Direction, operation: Callable[[], Awaitable[T]]) -> T:
        """Count an operation, set off the faults that are planned for it, and attempt it."""
        await trio.lowlevel.checkpoint()
        self.operations += 1
        for number, fault in self._plan:
            if number == self.operations:
                fault()
        return await self._attempt(direction, operation)

    async def _attempt(self, direction: _Direction, operation: Callable[[], Awaitable[T]]) -> T:
        """Run an operation until a fault interrupts it. An earlier fault does so at once.

        Raises:
            _Cut: the stream is cut.
        """
        if direction.scope is not None:
            raise trio.BusyResourceError("another task is using this stream")
        with trio.CancelScope() as scope:
            direction.scope = scope
            if self.closed or self._cut or direction.failed:
                direction.interrupt()
            try:
                return await operation()
            finally:
                direction.scope = None
        if self.closed:
            raise trio.ClosedResourceError("this stream was closed")
        if direction.failed:
            raise self._error("injected fault")
        raise _Cut


class _HalfCloseableFaultyStream(FaultyStream, trio.abc.HalfCloseableStream):
    async def send_eof(self) -> None:
        try:
            await self._operate(self._sends, self._send_eof)
        except _Cut:
            raise self._error("injected cut") from None

    async def _send_eof(self) -> None:
        assert isinstance(self.stream, trio.abc.HalfCloseableStream)
        await self._wait(self._sends)
        await self.stream.send_eof()


class _Direction:
    """Sends or receives: whether they go on, and a scope around the one that has begun."""

    def __init__(self) -> None:
        self.may_go_on = trio.Event()
        self.may_go_on.set()
        self.failed = False
        self.scope: trio.CancelScope | None = None

    def stall(self) -> None:
        if self.may_go_on.is_set():  # otherwise a task may be waiting for this event
            self.may_go_on = trio.Event()

    def interrupt(self) -> None:
        if self.scope is not None:
            self.scope.cancel()


class _Cut(Exception):
    """An operation found its stream cut."""


def _count(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise ValueError(f"{name} is at least 1, or None for never, not {value!r}")
    return value


def _left(limit: int | None, used: int) -> int | None:
    return None if limit is None else limit - used


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
