"""What comes from a peer, made safe to show, and JSON laid out for people.

A peer is a stranger. The characters that it sends could move the cursor, change the colours or the
title of the terminal, or make text look like other text. Those are shown as escapes.
"""

from __future__ import annotations

import json
import re
from typing import Final

#: Control characters except tab and newline; what reverses the direction of text (Unicode's bidi
#: controls); the separators of lines and paragraphs; and characters without width, other than those
#: that emoji and some scripts are joined with.
_UNSAFE: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)

#: How many bytes of a binary message are shown.
_SHOWN_BYTES: Final = 64

RESET: Final = "\x1b[0m"
DIM: Final = "\x1b[2m"
CYAN: Final = "\x1b[36m"
_GREEN: Final = "\x1b[32m"
_YELLOW: Final = "\x1b[33m"

#: The tokens of JSON: a string, one of ``{}[],:``, or a number, true, false or null.
_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_INDENT: Final = "  "


def visible(text: str) -> str:
    """`text` with escapes in place of what could play tricks. Tabs and newlines stay."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def dump(data: bytes) -> str:
    """A binary message: its size, and its first bytes in hexadecimal."""
    more = " …" if len(data) > _SHOWN_BYTES else ""
    return f"({len(data)} bytes) {data[:_SHOWN_BYTES].hex(' ')}{more}"


def pretty_json(text: str, *, colour: bool) -> str | None:
    """JSON laid out, with a line for each item; `None` if `text` is no JSON object or array.

    The tokens stay as they were written. So numbers keep their digits, and names that come twice
    are shown twice.
    """
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    tokens = _TOKEN.findall(text)
    pieces: list[str] = []
    depth = 0
    for piece, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if piece in ("{", "["):
            depth += 1
            is_empty = following in ("}", "]")
            pieces.append(piece if is_empty else piece + _new_line(depth))
        elif piece in ("}", "]"):
            depth -= 1
            is_empty = bool(pieces) and pieces[-1] in ("{", "[")
            pieces.append(piece if is_empty else _new_line(depth) + piece)
        elif piece == ",":
            pieces.append(piece + _new_line(depth))
        elif piece == ":":
            pieces.append(": ")
        else:
            shown = visible(piece)
            pieces.append(_painted(shown, is_name=following == ":") if colour else shown)
    return "".join(pieces)


def _new_line(depth: int) -> str:
    return "\n" + _INDENT * depth


def _painted(token: str, *, is_name: bool) -> str:
    colour = _YELLOW
    if token.startswith('"'):
        colour = CYAN if is_name else _GREEN
    return f"{colour}{token}{RESET}"
