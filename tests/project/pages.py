"""The pages of the documentation, and the snippets in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(python|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def snippets(page: Path) -> Iterator[tuple[str, str, str]]:
    """Each block fenced as python or text: its language, its place, and its text."""
    source = page.read_text("utf-8")
    for fence in _FENCE.finditer(source):
        line = source.count("\n", 0, fence.start()) + 1
        yield fence[1], f"{page.relative_to(ROOT)}:{line}", fence[2]


PORT = "8765"
