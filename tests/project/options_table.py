"""The table of all options, from what the code says, for docs/reference/options.md."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import logging
import math
import textwrap
from typing import Any

import trio_ws
from tests.project.keyword_docs import documented_fields

#: Every options class, and who has the options that it adds.
OPTIONS: dict[type[Any], str] = {
    trio_ws.ConnectionOptions: "both",
    trio_ws.ClientStreamOptions: "client",
    trio_ws.ClientOptions: "client, if it opens the stream",
    trio_ws.ServerStreamOptions: "server",
    trio_ws.ListenerOptions: "server, if it accepts the stream",
}


def options_table() -> str:
    """A Markdown table: each option, its default, whose it is, and its sentences."""
    rows = ["| option | what it does, and how to choose |", "|---|---|"]
    for options, side in OPTIONS.items():
        sentences = docstrings(options)
        for field in dataclasses.fields(options):
            if field.name in sentences:
                head = f"**`{field.name}`**<br>{show_default(field)}<br>{side}"
                rows.append(f"| {head} | {as_markdown(sentences[field.name])} |")
    return "\n".join(rows) + "\n"


def docstrings(options: type[Any]) -> dict[str, str]:
    """The docstring after each field of a class."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(options))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        name: inspect.cleandoc(ast.literal_eval(docstring.value))
        for name, _, docstring in documented_fields(definition)
        if docstring is not None
    }


def as_markdown(docstring: str) -> str:
    """A docstring in one line of Markdown. A single backtick marks code there, as two do here."""
    return " ".join(docstring.replace("``", "`").split()).replace("|", r"\|")


def show_default(field: dataclasses.Field[Any]) -> str:
    make: Any = field.default_factory
    value = make() if field.default is dataclasses.MISSING else field.default
    if isinstance(value, logging.Logger):
        return f"`getLogger({value.name!r})`"
    if value == math.inf:
        return "`math.inf`"
    if isinstance(value, float):
        return f"{value:g} s"
    if isinstance(value, int) and field.name.endswith(("_size", "_bytes", "_buffer")):
        return f"{value // 2**20} MiB" if value >= 2**20 else f"{value // 2**10} KiB"
    if dataclasses.is_dataclass(value):
        return f"`{type(value).__name__}()`"
    return f"`{value!r}`"
