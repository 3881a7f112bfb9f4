"""The table of all options, from what the code says, for docs/options.md."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import logging
import math
import textwrap
from typing import Any

import trio_ws

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
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(options))).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
            assert isinstance(field.target, ast.Name)
            assert isinstance(after.value, ast.Constant)
            found[field.target.id] = inspect.cleandoc(str(after.value.value))
    return found


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
        name = type(value).__name__
        return f"`{name}()`"
    return f"`{value!r}`"
