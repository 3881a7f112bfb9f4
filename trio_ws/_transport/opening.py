"""Reading and writing before a connection is open: heads, responses, and hanging up politely.

This module owns how a connection that breaks that early is reported: as `ConnectionFailed`. What
the bytes mean is up to the caller.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from typing import Protocol, TypeVar, final

import trio

from .._errors import ConnectionFailed, HandshakeTimeout
from .._reasons import connection_failed, root_of
from .stream import Transport
from .system import GONE

T_co = TypeVar("T_co", covariant=True)

#: How many seconds a client gets to read an HTTP response and hang up, and a server to send the
#: body of a refusal.
REFUSAL_LINGER = 1.0


class Collector(Protocol[T_co]):
    """Something that is fed bytes until it holds a whole one of what it collects."""

    def feed(self, data: bytes) -> None: ...

    def take(self) -> T_co | None:
        """What was collected, or `None` while more has to come."""
        ...


def glance(transport: Transport) -> bytes:
    """What has arrived already: mostly a whole request, because clients send it in one piece.

    Raises:
        ConnectionFailed: the connection broke.
    """
    try:
        return transport.receive_nowait() or b""
    except GONE as exc:
        raise broke(exc) from root_of(exc)


async def read_whole(transport: Transport, collector: Collector[T_co]) -> T_co:
    """Feed `collector` until it is satisfied. Does not wait if it is satisfied already.

    Raises:
        ConnectionFailed: the connection broke, or the peer hung up.
        Exception: whatever the collector objects to.
    """
    while (whole := collector.take()) is None:
        try:
            data = await transport.receive()
        except GONE as exc:
            raise broke(exc) from root_of(exc)
        if not data:
            raise ConnectionFailed("the peer hung up in the handshake")
        collector.feed(data)
    return whole


async def send_all(transport: Transport, data: bytes, deadline: float = inf) -> None:
    """Send all of it. This waits only for a peer that reads nothing.

    Raises:
        ConnectionFailed: the connection broke first.
        HandshakeTimeout: the peer did not take it before `deadline`, on trio's clock.
    """
    try:
        sent = transport.send_nowait([data])
        if sent < len(data):
            with trio.CancelScope(deadline=deadline) as scope:
                await transport.send_all(data[sent:])
            if scope.cancelled_caught:
                raise HandshakeTimeout("the peer did not read in the opening handshake")
    except GONE as exc:
        raise broke(exc) from root_of(exc)


async def respond_and_hang_up(transport: Transport, data: bytes) -> None:
    """Send the last response on this connection.

    Raises:
        ConnectionFailed: the connection broke first.
    """
    await send_all(transport, data)
    await hang_up(transport)


async def hang_up(transport: Transport) -> None:
    """Close after a response, so that the client gets to read all of it (RFC 9112 section 9.6)."""
    with trio.move_on_after(REFUSAL_LINGER):
        await transport.end()
    await transport.aclose()


@final
class _Opening:
    """How far an opening has come.

    Attributes:
        step: what it does or waits for, in words.
    """

    __slots__ = ("step",)

    def __init__(self) -> None:
        self.step: str = ""


#: The opening that the current task is at, so that each step can say what it is.
_OPENING: ContextVar[_Opening] = ContextVar("_OPENING", default=_Opening())  # noqa: B039 - of nobody


@contextmanager
def opening_deadline(seconds: float) -> Generator[None, None, None]:
    """Limit all that an opening consists of to `open_timeout`.

    Raises:
        HandshakeTimeout: it took longer. The text names the step that `begin_step` was told last.
    """
    around, opening = _OPENING.get(), _Opening()
    _OPENING.set(opening)
    try:
        with trio.move_on_after(seconds) as scope:
            yield
    finally:
        _OPENING.set(around)
    if scope.cancelled_caught:
        where = f": it was still {opening.step}" if opening.step else ""
        text = f"the opening handshake took longer than {seconds} s{where}"
        raise HandshakeTimeout(text) from None  # where trio was cancelled, nobody needs to know


def begin_step(step: str) -> None:
    """Say what the opening handshake does next, should it take too long: "connecting to …"."""
    _OPENING.get().step = step


def broke(exc: Exception) -> ConnectionFailed:
    return connection_failed("the connection broke in the handshake", exc)
