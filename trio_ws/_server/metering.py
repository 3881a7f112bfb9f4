"""What a server and its connections have counted, as numbers of a meter.

This module owns how many connections are read in one step, and what is kept of one that is over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Final

from .._connection.traffic import add_queues, add_traffic
from .._connection.websocket import WebSocket
from .._errors import Initiator
from .._metering import (
    BY_PEER,
    BY_US,
    CLOSED,
    CONNECTIONS,
    HANDLER_TIME,
    Meter,
    Numbers,
    code_label,
)

#: How many connections are read before other tasks get their turn. It takes some 50 microseconds.
CONNECTIONS_PER_STEP: Final = 64


def measure_connections(websockets: Collection[WebSocket], numbers: Numbers) -> Iterator[None]:
    """Add what connections have carried and what waits in them, some in each step.

    The first step only notes which there are. One that ends meanwhile is read all the same: what
    `note_end` adds then is not in these numbers.
    """
    numbers[CONNECTIONS.start] += len(websockets)
    left = iter(list(websockets))
    yield
    while some := [*islice(left, CONNECTIONS_PER_STEP)]:
        add_traffic(some, numbers)
        add_queues(some, numbers)
        yield


def note_end(meter: Meter, websocket: WebSocket, seconds: float) -> None:
    """Keep what a connection has counted that is over; its handler ran for so many seconds."""
    reason = websocket.close_reason
    assert reason is not None
    by = BY_US if reason.initiator is Initiator.LOCAL else BY_PEER
    meter.count(CLOSED, code_label(reason.code), by)
    meter.observe(HANDLER_TIME, seconds)
    add_traffic([websocket], meter.numbers)
