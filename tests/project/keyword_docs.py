"""The docstrings of keyword arguments: ``python -m tests.project.shown`` renews them.

An option is described where the dataclass of options defines it. An editor shows the description
of a keyword argument where the argument is typed, and finds it on the TypedDict of keywords only.
So the dataclass's docstrings are repeated there, and a test holds both equal.
"""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

from tests.project.pages import ROOT

#: The name of a field, its annotation, and the docstring after it.
DocumentedField: TypeAlias = "tuple[str, ast.AnnAssign, ast.Expr | None]"

PACKAGE = ROOT / "trio_ws"
REDIS = PACKAGE / "backplane" / "_redis" / "backplane.py"

#: The files that define options, and those that repeat them as keywords.
FILES = {
    PACKAGE / "_keywords.py": PACKAGE / "_options.py",
    REDIS: REDIS,
}


def renewed_keywords(path: Path) -> str:
    """The text of a file with keywords, each followed by the docstring of its option."""
    descriptions = _descriptions(FILES[path].read_text("utf-8"))
    source = path.read_text("utf-8")
    lines = source.splitlines()
    # From the end, so that the numbers of the lines before stay right.
    for name, field, docstring in reversed(_fields_in(source, are_keywords=True)):
        lines[field.end_lineno : (docstring or field).end_lineno] = descriptions.get(name, [])
    return "\n".join(lines) + "\n"


def _descriptions(source: str) -> dict[str, list[str]]:
    """The docstring of each option, as lines of source."""
    lines = source.splitlines()
    return {
        name: lines[docstring.lineno - 1 : docstring.end_lineno]
        for name, _, docstring in _fields_in(source, are_keywords=False)
        if docstring is not None
    }


def _fields_in(source: str, *, are_keywords: bool) -> list[DocumentedField]:
    return [
        field
        for each in ast.parse(source).body
        if isinstance(each, ast.ClassDef) and each.name.endswith("Keywords") == are_keywords
        for field in documented_fields(each)
    ]


def documented_fields(definition: ast.ClassDef) -> list[DocumentedField]:
    """The fields of a class: name, annotation, and the docstring after it, if there is one."""
    return [
        (field.target.id, field, after if isinstance(after, ast.Expr) else None)
        for field, after in pairwise([*definition.body, None])
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]
