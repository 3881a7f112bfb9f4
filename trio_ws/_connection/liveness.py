"""Whether the peer is still there, and whether the connection has had its time.

This module owns the rules and decides; `keepalive` acts. It knows only times, no sockets and no
frames.

The rules:

- Bytes that move are a sign of life, in either direction and not only pongs: bytes that arrive, and
  bytes that had to wait until the peer made room for them.
- A peer that has been silent for `ping_interval` is pinged. If it gives no sign of life for
  `ping_timeout` after the ping has left, it is gone. A ping behind a large message leaves late.
- A peer that takes no byte of ours for both times together is gone, whatever it says meanwhile: a
  ping in a send buffer that does not move would never reach it.
- While our own backpressure keeps us from reading, the peer cannot be heard, so that time does not
  count. It is pinged all the same: only a write can show then that the connection is broken.
- Once the computer has slept, nothing that was heard before says that the peer is still there. It
  is pinged at once, and has `WAKE_PATIENCE` from then on, if `ping_timeout` is not shorter still.
"""

from __future__ import annotations

import enum
import random
from math import inf
from typing import Protocol

import trio

from .._options import ConnectionOptions, ServerStreamOptions
from .._pacing import SECOND_LOOK

#: How many seconds a peer has to give a sign of life after this computer woke. All that time the
#: application takes a link for open that sleeping has often broken.
WAKE_PATIENCE = 3.0

#: Up to this share of `max_lifetime` is left out, at random. Clients that came together, after a
#: restart say, would otherwise leave and come back together each time.
LIFETIME_JITTER = 0.1


class Due(enum.Enum):
    """What is to be done now; the value of a ``DROP_…`` or ``CLOSE_…`` is the reason for it."""

    NOTHING = ""
    PING = "the peer was silent for ping_interval"
    DROP_SILENT = "the peer does not answer"
    DROP_WOKEN = "the peer has not answered since this computer slept"
    DROP_STALLED = "the peer takes no data"
    CLOSE_IDLE = "idle for too long"
    CLOSE_OLD = "open for too long"


#: What ends a connection without waiting for the peer.
DROPS = frozenset({Due.DROP_SILENT, Due.DROP_WOKEN, Due.DROP_STALLED})


class Outgoing(Protocol):
    """What has to be known about the bytes on their way out. All are times.

    Attributes:
        stalled_since: when the unsent bytes last moved; `math.inf` if there are none.
        moved_at: when the peer last made room for bytes that had to wait for it.
        probe_left_at: when the last ping left; `math.inf` while it waits to be sent.
    """

    @property
    def stalled_since(self) -> float: ...
    @property
    def moved_at(self) -> float: ...
    @property
    def probe_left_at(self) -> float: ...


class Liveness:
    """The times of one connection."""

    __slots__ = (
        "_idle_timeout",
        "_max_lifetime",
        "_message_at",
        "_opened_at",
        "_ping_interval",
        "_ping_timeout",
        "_pinged_at",
        "_suspected",
        "_woke_at",
        "heard_at",
        "paused",
    )

    def __init__(self, options: ConnectionOptions) -> None:
        self._ping_interval = options.ping_interval
        self._ping_timeout = options.ping_timeout
        self._idle_timeout = self._max_lifetime = inf
        if isinstance(options, ServerStreamOptions):
            self._idle_timeout = options.idle_timeout
            early = random.uniform(0, LIFETIME_JITTER)  # noqa: S311 - no secret
            self._max_lifetime = options.max_lifetime * (1 - early)
        #: When the last byte came, and the last message in either direction.
        self._opened_at = self.heard_at = self._message_at = trio.current_time()
        #: Whether our own backpressure keeps us from reading.
        self.paused = False
        self._pinged_at = -inf
        self._suspected = False
        #: When this computer last woke.
        self._woke_at = -inf

    @property
    def counts_idleness(self) -> bool:
        """Whether `note_message` has to be called."""
        return self._idle_timeout < inf

    def note_message(self) -> None:
        """A message came or went. It need not be called unless it `counts_idleness`."""
        self._message_at = trio.current_time()

    def resume(self, now: float) -> None:
        """Reading goes on. The peer has all its time again to make itself heard."""
        self.paused = False
        self.heard_at = now

    def wake(self, now: float) -> None:
        """This computer has slept. The next `check` says what is due."""
        if self._ping_interval < inf:
            self._woke_at = now
            self._suspected = False

    def check(self, now: float, outgoing: Outgoing) -> tuple[Due, float]:
        """What is due at this time, and when to look again if nothing else happens."""
        due, again = self._check(now, outgoing)
        gone = due in DROPS
        if gone and not self._suspected:
            # If the whole program stood still, the answer may be waiting to be read.
            self._suspected = True
            return Due.NOTHING, now + SECOND_LOOK
        self._suspected = gone
        return due, again

    def _check(self, now: float, outgoing: Outgoing) -> tuple[Due, float]:
        idle_at = self._message_at + self._idle_timeout
        old_at = self._opened_at + self._max_lifetime
        stalled_at = outgoing.stalled_since + self._ping_interval + self._ping_timeout
        if now >= old_at:
            return Due.CLOSE_OLD, inf
        if now >= idle_at:
            return Due.CLOSE_IDLE, inf
        if now >= stalled_at:
            return Due.DROP_STALLED, inf
        due, silent_at = self._check_silence(now, outgoing)
        return due, min(idle_at, old_at, stalled_at, silent_at)

    def _check_silence(self, now: float, outgoing: Outgoing) -> tuple[Due, float]:
        patience, drop = self._ping_timeout, Due.DROP_SILENT
        woken = self._woke_at > self.heard_at  # and nothing was heard since
        if woken and patience < inf:
            patience, drop = min(patience, WAKE_PATIENCE), Due.DROP_WOKEN
        if outgoing.probe_left_at == inf:  # another ping would only wait behind it
            return Due.NOTHING, now + min(self._ping_interval, patience)
        if woken and self._pinged_at < self._woke_at:
            ping_at = now
        elif self._pinged_at > self.heard_at and not self.paused:
            gone_at = max(outgoing.probe_left_at, outgoing.moved_at) + patience
            return (drop if now >= gone_at else Due.NOTHING), gone_at
        else:
            ping_at = max(self.heard_at, self._pinged_at) + self._ping_interval
        if now < ping_at:
            return Due.NOTHING, ping_at
        self._pinged_at = now
        # While reading is paused no pong can be heard, so what is due next may be another ping.
        return Due.PING, now + min(self._ping_interval, patience)
