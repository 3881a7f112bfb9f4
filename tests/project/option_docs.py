"""What `help()` shows of each option: ``python -m tests.project.shown`` renews it.

Python keeps no docstring of a field. So the texts are repeated in a module of the package, from
where `_options.shows_options` takes them.
"""

from __future__ import annotations

import dataclasses
import textwrap

from tests.project.options_table import OPTIONS, docstrings, show_default
from tests.project.pages import ROOT
from trio_ws.backplane import RedisOptions

PATH = ROOT / "trio_ws" / "_option_docs.py"

HEAD = '''"""The options as `help()` shows them. Made by ``python -m tests.project.shown``."""

from __future__ import annotations

from typing import Final

#: For each class of options, those that it adds to the class that it is made from.
OPTION_DOCS: Final = {
'''

KINDS: tuple[type, ...] = (*OPTIONS, RedisOptions)


def option_docs() -> str:
    """The text of the module."""
    sections = [f'    "{kind.__name__}": """\n{_section(kind)}""",\n' for kind in KINDS]
    return "".join([HEAD, *sections, "}\n"])


def _section(kind: type) -> str:
    sentences = docstrings(kind)
    lines: list[str] = []
    for field in dataclasses.fields(kind):
        if field.name in sentences:
            default = show_default(field).replace("`", "")
            lines.append(f"    {field.name} ({field.type}), {default} by default")
            lines += textwrap.wrap(
                " ".join(sentences[field.name].split()),
                width=88,
                initial_indent=" " * 8,
                subsequent_indent=" " * 8,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)
