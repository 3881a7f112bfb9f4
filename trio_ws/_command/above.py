"""Showing text above the row that somebody types in, whatever that row holds.

Nothing is known of the row, not even the column of the cursor. So the row is not drawn anew: lines
are inserted above it, which every terminal can do since the VT102.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

_DOWN: Final = "\x1bD"  # by one row. At the bottom, the screen scrolls. The column stays.
_SAVE: Final = "\x1b7"  # the position of the cursor
_RESTORE: Final = "\x1b8"

#: A colour, which takes no room, or one character.
_PIECE: Final = re.compile(r"\x1b\[[0-9;]*m|.")


def above_cursor(text: str, columns: int, rows: int) -> Iterator[str]:
    """What to write so that `text` is above the row of the cursor, and the cursor stays in it.

    Each piece has to be written at once, so that nothing that is typed gets in between.

    Args:
        text: lines, each with its end. The only escapes in it are colours.
        columns: how many there are in a row of the terminal.
        rows: how many the terminal has.
    """
    lines = [row for line in text.splitlines() for row in _wrapped(line, max(columns, 2))]
    most = max(rows - 1, 1)
    for start in range(0, len(lines), most):
        part = lines[start : start + most]
        count = len(part)
        make_room = _DOWN * count + f"\x1b[{count}A"
        insert = f"{_SAVE}\x1b[{count}L\r" + "\r\n".join(part)
        yield f"{make_room}{insert}{_RESTORE}\x1b[{count}B"


def _wrapped(line: str, columns: int) -> Iterator[str]:
    """The rows of a line. Should the terminal think otherwise of a width, a row looks odd."""
    row = ""
    used = 0
    for piece in _PIECE.findall(line.expandtabs()):
        width = _width(piece)
        if used + width > columns:
            yield row
            row = ""
            used = 0
        row += piece
        used += width
    yield row


def _width(piece: str) -> int:
    if len(piece) > 1 or unicodedata.category(piece) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(piece) in "WF" else 1
