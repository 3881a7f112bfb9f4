"""The pages of the documentation, and the snippets in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("[a-z]*.md"))]

_FENCE = re.compile(
    r"^(?P<shown><!-- shown: .*\n)?```(?P<language>python|text)\n(?P<text>(?s:.*?))^```$",
    re.MULTILINE,
)


def snippets(page: Path) -> Iterator[tuple[str, str, str]]:
    """Each block fenced as python or text: its language, its place, and its text.

    Excerpts of files are left out: they are tested where they are from.
    """
    source = page.read_text("utf-8")
    for fence in _FENCE.finditer(source):
        line = source.count("\n", 0, fence.start()) + 1
        if not fence["shown"]:
            yield fence["language"], f"{page.relative_to(ROOT)}:{line}", fence["text"]


PORT = "8765"
