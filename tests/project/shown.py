"""Code in the pages that is an excerpt of a file: ``python -m tests.project.shown`` renews it.

A page holds the excerpt itself, so that it can be read wherever Markdown is shown. A comment before
it, which is not shown, says where it is from::

    <!-- shown: ../examples/hello/server.py pyobject="main" -->
    ```python
    async def main() -> None:
    ```

The path is relative to the page. `pyobject` names a class or function. Otherwise the excerpt begins
with the first line that has the text of `start-at` in it, or after that of `start-after`, and ends
with that of `end-at`, or before that of `end-before`. `language` is that of the fence, where the
name of the file does not tell. What all lines are indented by is taken away.

Tables that come from the code are renewed in the same way: ``<!-- generated: options -->``. So are
the docstrings of keyword arguments (`keyword_docs`), and what `help()` shows of options
(`option_docs`).
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
import textwrap
from pathlib import Path

from tests.project.keyword_docs import FILES, renewed_keywords
from tests.project.metrics_table import metrics_table
from tests.project.option_docs import PATH, option_docs
from tests.project.options_table import options_table
from tests.project.pages import PAGES

LANGUAGES = {
    ".py": "python",
    ".js": "js",
    ".ts": "ts",
    ".html": "html",
    ".yaml": "yaml",
    ".service": "ini",
    ".socket": "ini",
    "Dockerfile": "docker",
}

GENERATED = {"metrics": metrics_table, "options": options_table}

_SHOWN = re.compile(r"^<!-- shown: ([^\n]*) -->\n(```+)\w*\n.*?^\2$", re.MULTILINE | re.DOTALL)
_GENERATED = re.compile(r"^<!-- generated: (\w+) -->\n(?:^\|.*\n)*", re.MULTILINE)


def renewed(page: Path) -> str:
    """The text of a page with every excerpt and table as it should be."""

    def excerpt_of(match: re.Match[str]) -> str:
        name, *arguments = shlex.split(match[1])
        options = dict(argument.split("=", 1) for argument in arguments)
        path = page.parent / name
        language = options.pop("language", None) or LANGUAGES[path.suffix or path.name]
        text = excerpt(path.read_text("utf-8"), **options)
        fence = match[2]
        return f"<!-- shown: {match[1]} -->\n{fence}{language}\n{text}{fence}"

    def table_of(match: re.Match[str]) -> str:
        return f"<!-- generated: {match[1]} -->\n{GENERATED[match[1]]()}"

    return _GENERATED.sub(table_of, _SHOWN.sub(excerpt_of, page.read_text("utf-8")))


def excerpt(source: str, pyobject: str = "", **markers: str) -> str:
    """The part of a file that is shown.

    Raises:
        LookupError: there is nothing of that name, or no line with that text.
    """
    lines = source.splitlines()
    if pyobject:
        first, last = _lines_of(source, pyobject)
    else:
        first, last = 0, len(lines)
        if at := markers.pop("start-at", ""):
            first = _line_with(at, lines, 0)
        elif after := markers.pop("start-after", ""):
            first = _line_with(after, lines, 0) + 1
        if at := markers.pop("end-at", ""):
            last = _line_with(at, lines, first) + 1
        elif before := markers.pop("end-before", ""):
            last = _line_with(before, lines, first + 1)
    if markers:
        raise LookupError(f"an excerpt has no {', '.join(markers)}")
    return textwrap.dedent("\n".join(lines[first:last])).strip("\n") + "\n"


def _lines_of(source: str, name: str) -> tuple[int, int]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if node.name == name:
            begin = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            assert node.end_lineno is not None  # it was parsed from source
            return begin - 1, node.end_lineno
    raise LookupError(f"nothing is called {name}")


def _line_with(text: str, lines: list[str], start: int) -> int:
    for index in range(start, len(lines)):
        if text in lines[index]:
            return index
    raise LookupError(f"no line has {text!r}")


def main() -> None:
    texts = {page: renewed(page) for page in PAGES}
    texts |= {path: renewed_keywords(path) for path in FILES}
    texts[PATH] = option_docs()
    for path, text in texts.items():
        if text != path.read_text("utf-8"):
            path.write_text(text, "utf-8")
            sys.stderr.write(f"renewed {path}\n")


if __name__ == "__main__":
    main()
