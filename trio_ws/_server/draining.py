"""The pace of a drain: at which moment each connection is closed.

This module owns the spreading. Clients that are closed in the same moment come back in the same
moment, and no delay of theirs can spread them as well as the server can. It knows neither clients
nor Close frames: `visit` answers those, and `server` hands in how to close.

The open connections are closed in random order, one by one, at equal intervals; the last one when
the time is over. About once a second they are counted again. Those that have ended by themselves
make the intervals longer, so that the rest are spread over all of the time that is left.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import final

import trio

from .._connection.ending import OPEN
from .._connection.websocket import WebSocket

#: For how many seconds the connections are counted and shuffled in one go.
RECOUNT = 1.0


@final
class Draining:
    """Closes the connections of one server, or waits for them.

    Args:
        connections: those that are open: a live view.
    """

    def __init__(self, connections: Collection[WebSocket]) -> None:
        self._connections = connections
        self._changes = trio.lowlevel.ParkingLot()

    def note_change(self) -> None:
        """A connection is no longer among those, or a client has got through its handshake."""
        self._changes.unpark_all()

    async def wait_change(self) -> None:
        await self._changes.park()

    async def wait(self, until: float) -> None:
        """Wait until there are no connections, at most until this time on trio's clock."""
        with trio.move_on_at(until):
            while self._connections:
                await self._changes.park()

    async def close_evenly(self, until: float, close: Callable[[WebSocket], object]) -> None:
        """Close one after another until this time, and return when none is open."""
        while waiting := [ws for ws in self._connections if ws.state is OPEN]:
            random.shuffle(waiting)
            now = trio.current_time()
            left = max(0.0, until - now)
            share = int(len(waiting) * RECOUNT / max(left, RECOUNT))
            for number, websocket in enumerate(waiting[: share or 1], 1):
                await self.wait(now + left * number / len(waiting))
                close(websocket)
