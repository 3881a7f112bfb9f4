"""A feed that went silent: no message for so long that the connection counts as lost.

This module owns when that is so, and how the connection ends then. Keepalive cannot tell: a server
may answer pings for ever, although what feeds it has died. The watchdog calls, so that this takes
no task, and nothing with each message.
"""

from __future__ import annotations

from math import inf
from typing import final

import trio

from .._errors import CloseCode
from .._pacing import SECOND_LOOK
from .ending import OPEN
from .services import Services
from .websocket import WebSocket


@final
class Silence:
    """Watches an open connection, for as long as somebody keeps this."""

    __slots__ = ("__weakref__", "_counts_from", "_seconds", "_suspected", "_websocket")

    def __init__(self, websocket: WebSocket, services: Services, seconds: float) -> None:
        self._websocket = websocket
        self._seconds = seconds
        #: When it was opened, or this computer last woke.
        self._counts_from = trio.current_time()
        #: The silence that was found to be too long, by when it began; `None` for none.
        self._suspected: float | None = None
        services.watchdog.watch(self)

    @trio.lowlevel.enable_ki_protection
    def check(self, now: float) -> float:
        """Drop a peer that sends no messages, and return when the watchdog has to look again."""
        ending = self._websocket._ending
        if ending.state is not OPEN:
            return inf
        since = self._silent_since(now)
        if now < since + self._seconds:
            return since + self._seconds
        if self._suspected != since:
            # If the whole program stood still, a message may be waiting to be read.
            self._suspected = since
            return now + SECOND_LOOK
        # As with a peer that answers no ping: it is told if that takes no waiting.
        ending.fail(CloseCode.INTERNAL_ERROR, f"no message for {self._seconds:g} s")
        ending.abort()
        return inf

    def wake(self, now: float) -> None:
        """This computer has slept, and some systems' clocks ran on: nobody could be heard."""
        self._counts_from = now

    def _silent_since(self, now: float) -> float:
        """Since when the application has been waiting for the peer; `now` if it is not."""
        inbox, liveness = self._websocket._inbox, self._websocket._liveness
        if inbox.waiting or liveness.paused:
            return now
        # Where nothing waits, the last message that came was taken then.
        came_at = inbox.taken_at if inbox.piece_came_at is None else inbox.piece_came_at
        return self._counts_from if came_at is None else max(self._counts_from, came_at)
