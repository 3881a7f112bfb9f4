"""How the documentation is built, by ``make docs``."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import math
import pkgutil
import pydoc
import re
from itertools import zip_longest
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.pycode import ModuleAnalyzer

import trio_ws
import trio_ws.backplane

project = "trio_ws"
author = "The trio_ws authors"
copyright = "2026, the trio_ws authors"
release = version = trio_ws.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinxcontrib_trio",
]
# The tables are parts of other pages.
exclude_patterns = ["_build", "closing-matrix.md", "benchmarks/*.md"]

html_theme = "furo"
html_title = f"trio_ws {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]

# Single backticks, in docstrings above all, are names: a link where there is something to link to.
default_role = "py:obj"
add_module_names = False
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", lay_out_docstring)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("missing-reference", resolve_reference)
    app.connect("source-read", insert_options)


# ---------------------------------------------------------------------------
# Signatures and docstrings
# ---------------------------------------------------------------------------


def shorten_signature(  # noqa: PLR0917 - Sphinx calls it
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    arguments: str | None,
    returned: str | None,
) -> tuple[str | None, str | None]:
    """A context manager is shown as ``async with … as …``; how it is written is its own affair."""
    if returned and "AsyncGenerator[" in returned:
        returned = None
    return arguments, returned


_SECTION = re.compile(r"(Args|Attributes|Raises):$")
_ITEM = re.compile(r" *(\*{0,2}[\w.]+(?:, [\w.]+)*):( .*|$)")


def lay_out_docstring(  # noqa: PLR0917 - Sphinx calls it
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Turn sections into fields. A docstring of an attribute has none: its colons are prose."""
    if what == "data":
        lines[:] = comment_on(name)
    if what in ("class", "exception", "function", "method"):
        lines[:] = GoogleDocstring(plain_sections(lines), Config(), app, what, name, obj).lines()


def comment_on(name: str) -> list[str]:
    """The ``#:`` comment on a name where it is defined; autodoc looks where it is exported."""
    place, _, short = name.rpartition(".")
    inside = pkgutil.iter_modules(getattr(importlib.import_module(place), "__path__", ()))
    names = [each.name for each in inside if each.name != "__main__"]  # to look is to run it
    for module in (place, *(f"{place}.{name}" for name in names)):
        comments = ModuleAnalyzer.for_module(module).find_attr_docs()
        if ("", short) in comments:
            return comments["", short]
    return []


def plain_sections(lines: list[str]) -> list[str]:
    """Rewrite what Napoleon takes for something else.

    These are attributes that share a line, as one list, and a ``Raises`` in whole sentences.
    """
    result: list[str] = []
    kind = ""
    for line, following in zip_longest(lines, lines[1:], fillvalue=""):
        item = _ITEM.match(line)
        if _SECTION.match(line) and (line == "Attributes:" or not _ITEM.match(following)):
            kind = line
            result += [f"**{line}**", ""] if line == "Attributes:" else [f"**{line}**"]
        elif kind and not line:
            kind = ""
            result.append(line)
        elif kind == "Attributes:" and item:
            result.append(f"* ``{item[1].replace(', ', '``, ``')}``:{item[2]}")
        elif kind:
            result.append(f"{'  ' if kind == 'Attributes:' else ''}{line.strip()}")
        else:
            result.append(line)
    return result


# ---------------------------------------------------------------------------
# References
# ---------------------------------------------------------------------------


def resolve_reference(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.Element | None:
    """What autodoc calls by the module it is defined in, and what other projects document.

    The documentation is built without a network, so a name of another project is not looked up
    in its index: it is right if it can be imported. A wrong one stays a warning.
    """
    target: str = node["reftarget"]
    name = target.rpartition(".")[2].replace("Keywords", "Options")
    package = "trio_ws.backplane" if name in trio_ws.backplane.__all__ else "trio_ws"
    if target.startswith(f"{package}._") and name in (*trio_ws.__all__, *trio_ws.backplane.__all__):
        if target.endswith("Keywords"):
            contnode = nodes.inline("", name)
        return env.domains.python_domain.resolve_xref(
            env, node["refdoc"], app.builder, node["reftype"], f"{package}.{name}", node, contnode
        )
    elsewhere = not target.startswith("trio_ws.") and pydoc.locate(target) is not None
    if node["reftype"] == "obj" or elsewhere or name in UNDOCUMENTED:
        return contnode
    return None


#: Names in signatures that say enough by themselves.
UNDOCUMENTED = {
    "T",
    "EllipsisType",
    "Fresh",
    "ReconnectingOptions",
    "Retry",
    "_URL",
    "EndpointT",
    "HandlerT",
    "BaseConverter",
    "Buffer",
    "CookieJar",
}


# ---------------------------------------------------------------------------
# The table of options
# ---------------------------------------------------------------------------

#: Every options class, and who has the options that it adds.
OPTIONS = {
    trio_ws.ConnectionOptions: "both",
    trio_ws.ClientStreamOptions: "client",
    trio_ws.ClientOptions: "client [#stream]_",
    trio_ws.ServerStreamOptions: "server",
    trio_ws.ListenerOptions: "server [#stream]_",
}


def insert_options(app: Sphinx, docname: str, content: list[str]) -> None:
    """Write the table from what the code says, so that they cannot disagree."""
    if docname == "options":
        content[0] = content[0].replace("@OPTIONS@", "\n".join(option_rows()))


def option_rows() -> list[str]:
    documentation = ModuleAnalyzer.for_module("trio_ws._options").find_attr_docs()
    rows: list[str] = []
    for options, side in OPTIONS.items():
        for field in dataclasses.fields(options):
            docs = documentation.get((options.__name__, field.name))
            if docs:
                rows += [f"   * - ``{field.name}``", f"     - {show_default(field)}"]
                rows += [f"     - {side}", f"     - {' '.join(docs).strip()}"]
    return rows


def show_default(field: dataclasses.Field[Any]) -> str:
    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    if isinstance(value, logging.Logger):
        return f"``getLogger({value.name!r})``"
    if value == math.inf:
        return "``math.inf``"
    if isinstance(value, float):
        return f"{value:g} s"
    if isinstance(value, int) and field.name.endswith(("_size", "_bytes", "_buffer")):
        return f"{value // 2**20} MiB" if value >= 2**20 else f"{value // 2**10} KiB"
    return f"``{value!r}``"
