"""The page that Prometheus asks for, made bit by bit while other tasks run.

This module owns what is said where prometheus-client is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import trio

from .._http.values import Response
from .._metering import METRICS


def prometheus() -> ModuleType:
    """The module that knows prometheus-client.

    Raises:
        ImportError: it is not installed.
    """
    try:
        from . import _prometheus  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise ImportError(
            'these metrics need prometheus-client: pip install "trio-ws[metrics]"'
        ) from exc
    return _prometheus


async def page_of(numbers: Sequence[float]) -> Response:
    """All numbers in Prometheus' text format."""
    shown = prometheus()
    parts: list[bytes] = []
    for metric in METRICS:  # half a millisecond for the longest
        parts.append(shown.text_of(metric, numbers))
        await trio.lowlevel.checkpoint()
    return Response(200, {"Content-Type": shown.CONTENT_TYPE}, b"".join(parts))
