"""Which console there is: the best that the terminal and the installation have."""

from __future__ import annotations

import os
from pathlib import Path

from .console import Console
from .history import History
from .terminal import STDIN, STDOUT, is_terminal


def make_console(history_path: Path | None) -> Console:
    """A console with line editing if the input and the output are a terminal that can do that."""
    can_edit = is_terminal(STDIN) and is_terminal(STDOUT) and os.environ.get("TERM") != "dumb"
    if not can_edit:
        return Console()
    history = History(history_path)
    try:
        from .prompting import PromptConsole  # noqa: PLC0415 - slow, and an extra
    except ImportError:
        pass
    else:
        return PromptConsole(history)
    try:
        from .line_editing import ReadlineConsole  # noqa: PLC0415 - not on Windows
    except ImportError:
        return Console()
    return ReadlineConsole(history)
