"""Frames in the log: each that comes or goes, for a logger that shows them.

This module decides whether to write such a line. Its callers say what became of the frame.
"""

from __future__ import annotations

from .._log import ConnectionLogger
from .._protocol.events import Event, show_event


def log_frame(logger: ConnectionLogger, text: str, event: Event) -> None:
    """Log the `event` in place of ``%s`` in `text`, as coming from the caller's line."""
    if logger.shows_frames:
        logger.debug(text, show_event(event), stacklevel=2)
