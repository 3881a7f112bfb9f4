"""One line in the terminal that says how far a load has come. It uses no colours."""

from __future__ import annotations

import os
from typing import Final, TextIO

import trio

from .load import Load

#: How many seconds pass from one look to the next: often enough to look alive, and little work.
_INTERVAL: Final = 0.2

_BAR: Final = 20

#: For a terminal that does not know how wide it is.
_USUAL_COLUMNS: Final = 80


def is_for_people(output: TextIO) -> bool:
    """Whether a line can be written again and again there: it is a terminal, and not a pipe."""
    return output.isatty() and os.environ.get("TERM") != "dumb"


async def show_progress(load: Load, output: TextIO) -> None:
    """Show it until this is cancelled. Then the line is empty again."""
    try:
        while True:
            _rewrite(output, progress_of(load))
            await trio.sleep(_INTERVAL)
    finally:
        _rewrite(output, "")
        output.write("\r")
        output.flush()


def _rewrite(output: TextIO, line: str) -> None:
    # Shorter than the terminal is wide: in the last column, some terminals begin a new line.
    width = _columns(output) - 1
    output.write("\r" + line[:width].ljust(width))
    output.flush()


def _columns(output: TextIO) -> int:
    try:
        return os.get_terminal_size(output.fileno()).columns or _USUAL_COLUMNS
    except OSError:
        return _USUAL_COLUMNS


def progress_of(load: Load) -> str:
    """What goes on, how much of the time measured is over, and what came in it."""
    tally, now = load.tally, trio.current_time()
    seconds = min(now, tally.until) - tally.begin
    if seconds <= 0 or not load.opened:
        return f"{load.phase}: {load.opened:,} of {load.plan.connections:,} connections open"
    done = "#" * int(_BAR * seconds / load.plan.seconds)
    text = f"{load.phase} [{done:.<{_BAR}}] {seconds:.1f} of {load.plan.seconds:g} s"
    text += f", {tally.received / seconds:,.0f} messages a second came"
    if tally.latency.count:
        text += f", p99 {tally.latency.percentile(99) * 1e3:.3g} ms"
    return text
