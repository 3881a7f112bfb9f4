"""Acting on what `liveness` finds due: pings, and the end of a peer that is gone or idle.

This module does what is due. `liveness` decides, and the watchdog calls at the times asked for.
"""

from __future__ import annotations

import os
from math import inf
from typing import final

import trio

from .._errors import CloseCode
from .._log import ConnectionLogger
from .._protocol.events import Ping
from .._protocol.wire import Wire
from .ending import OPEN, Ending
from .frame_log import log_frame
from .liveness import DROPS, Due, Liveness
from .outbox import Outbox
from .pings import SentPings
from .reading import Reading


@final
class Keepalive:
    """Watches one connection."""

    __slots__ = (
        "__weakref__",
        "_ending",
        "_liveness",
        "_logger",
        "_outbox",
        "_pings",
        "_reading",
        "_wire",
    )

    def __init__(
        self,
        liveness: Liveness,
        wire: Wire,
        outbox: Outbox,
        pings: SentPings,
        *,
        reading: Reading,
        ending: Ending,
        logger: ConnectionLogger,
    ) -> None:
        self._liveness = liveness
        self._wire = wire
        self._outbox = outbox
        self._pings = pings
        self._reading = reading
        self._ending = ending
        self._logger = logger

    @trio.lowlevel.enable_ki_protection
    def check(self, now: float) -> float:
        """Do what is due, and return when the watchdog has to look again."""
        if self._ending.state is not OPEN:
            return inf
        # Where receivers have read for a while, they will go on, and a task less is to be kept.
        self._reading.let_go()
        due, again = self._liveness.check(now, self._outbox)
        if due is Due.PING:
            self._ping()
        elif due in DROPS:
            # The peer is told only if that takes no waiting: it has had all its time.
            self._ending.fail(CloseCode.INTERNAL_ERROR, due.value)
            self._ending.abort()
        elif due in (Due.CLOSE_IDLE, Due.CLOSE_OLD):
            self._ending.close(CloseCode.NORMAL_CLOSURE, due.value)
        return again

    def wake(self, now: float) -> None:
        """This computer has slept. The watchdog checks next."""
        self._liveness.wake(now)

    def _ping(self) -> None:
        payload = os.urandom(4)
        self._pings.add_probe(payload)
        log_frame(self._logger, "sent %s", Ping(payload))
        self._outbox.write_probe(self._wire.ping(payload))
