"""The docstrings of keyword arguments: ``python -m tests.project.shown`` renews them.

An option is described where the dataclass of options defines it. An editor shows the description
of a keyword argument where the argument is typed, and finds it on the TypedDict of keywords only.
So the dataclass's docstrings are repeated there, and a test holds both equal.
"""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

from tests.project.pages import ROOT

PACKAGE = ROOT / "trio_ws"

#: The files that define options, and those that repeat them as keywords.
FILES = {
    PACKAGE / "_keywords.py": PACKAGE / "_options.py",
    PACKAGE / "backplane" / "_redis" / "backplane.py": PACKAGE
    / "backplane"
    / "_redis"
    / "backplane.py",
}


def renewed_keywords(path: Path) -> str:
    """The text of a file with keywords, each followed by the docstring of its option."""
    descriptions = _descriptions(FILES[path].read_text("utf-8"))
    source = path.read_text("utf-8")
    lines = source.splitlines()
    # From the end, so that the numbers of the lines before stay right.
    for field, docstring in reversed(_keyword_fields(source)):
        assert field.end_lineno is not None  # it was parsed from source
        last = field.end_lineno
        if docstring is not None:
            assert docstring.end_lineno is not None
            last = docstring.end_lineno
        assert isinstance(field.target, ast.Name)
        lines[field.end_lineno : last] = descriptions.get(field.target.id, [])
    return "\n".join(lines) + "\n"


def _descriptions(source: str) -> dict[str, list[str]]:
    """The docstring of each option, as lines of source."""
    lines = source.splitlines()
    return {
        field.target.id: lines[docstring.lineno - 1 : docstring.end_lineno]
        for field, docstring in _fields(source, is_keywords=False)
        if docstring is not None and isinstance(field.target, ast.Name)
    }


def _keyword_fields(source: str) -> list[tuple[ast.AnnAssign, ast.Expr | None]]:
    return _fields(source, is_keywords=True)


def _fields(source: str, *, is_keywords: bool) -> list[tuple[ast.AnnAssign, ast.Expr | None]]:
    """The fields of the classes in a file, with the docstring after each."""
    found: list[tuple[ast.AnnAssign, ast.Expr | None]] = []
    for each in ast.parse(source).body:
        if isinstance(each, ast.ClassDef) and each.name.endswith("Keywords") == is_keywords:
            for field, after in pairwise([*each.body, None]):
                if isinstance(field, ast.AnnAssign):
                    found.append((field, after if isinstance(after, ast.Expr) else None))
    return found
