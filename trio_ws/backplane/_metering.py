"""A backplane's statistics as numbers of a meter.

This module owns which of them are metrics.
"""

from __future__ import annotations

from .._metering import (
    BACKPLANE_GAPS,
    BACKPLANE_LOST,
    BACKPLANE_QUEUE_MESSAGES,
    BACKPLANE_RECEIVED,
    BACKPLANE_SENT,
    BACKPLANES,
    BACKPLANES_CONNECTED,
    Numbers,
)
from ._base import Backplane


def measure_backplane(backplane: Backplane, numbers: Numbers) -> None:
    """Add what a backplane has counted, and what it has now."""
    statistics = backplane.statistics()
    numbers[BACKPLANES.start] += 1
    numbers[BACKPLANES_CONNECTED.start] += statistics.connected
    numbers[BACKPLANE_QUEUE_MESSAGES.start] += statistics.queued_messages
    numbers[BACKPLANE_SENT.start] += statistics.sent
    numbers[BACKPLANE_RECEIVED.start] += statistics.delivered
    numbers[BACKPLANE_LOST.places["refused",]] += statistics.refused
    numbers[BACKPLANE_LOST.places["dropped",]] += statistics.dropped
    numbers[BACKPLANE_GAPS.start] += statistics.gaps
