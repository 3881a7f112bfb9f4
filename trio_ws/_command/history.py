"""The lines that were typed at the prompt, kept for the next run.

They may hold secrets, as the history of a shell may. So the file and its folder are for their owner
alone, and ``--no-history`` keeps none.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

#: When the file has twice as many lines, the oldest of them are dropped.
_KEPT_LINES: Final = 1000


def history_file() -> Path:
    """Where the history is: in the folder for state (the XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # The specification has relative paths ignored.
    folder = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return folder / "trio-ws" / "history"


class History:
    """The lines typed in earlier runs and in this one, the oldest first.

    A file that cannot be read or written is no reason not to talk: there is no history then.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the history from `path`. If that is `None`, none is read or kept."""
        self._path = path
        self.lines: list[str] = []
        if path is not None:
            with suppress(OSError):
                self.lines = _decoded(path.read_bytes())
            if len(self.lines) >= 2 * _KEPT_LINES:
                self.lines = self.lines[-_KEPT_LINES:]
                with suppress(OSError):
                    _replace(path, "".join(map(_encoded, self.lines)))

    def append(self, line: str) -> None:
        """Add a line, and write it to the file at once: the next signal may end the program."""
        self.lines.append(line)
        if self._path is None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(opened, "w", encoding="ascii", newline="\n") as file:
                file.write(_encoded(line))


# Each line of the file is a JSON string, because a line that was pasted may hold newlines.


def _encoded(line: str) -> str:
    return json.dumps(line) + "\n"


def _decoded(data: bytes) -> list[str]:
    """The lines in a file's content. Whatever else is in it is left out."""
    lines: list[str] = []
    for piece in data.splitlines():
        with suppress(ValueError, RecursionError):
            line = json.loads(piece)
            if isinstance(line, str):
                lines.append(line)
    return lines


def _replace(path: Path, text: str) -> None:
    # A second process may be reading the file: it finds the old one or the new one.
    descriptor, name = tempfile.mkstemp(dir=path.parent)  # readable for its owner alone
    with os.fdopen(descriptor, "w", encoding="ascii", newline="\n") as file:
        file.write(text)
    Path(name).replace(path)
