"""How the documentation is built, by ``make docs``."""

from __future__ import annotations

import importlib
import pkgutil
import pydoc
import re
from itertools import zip_longest

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
exclude_patterns = ["_build"]

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
    app.connect("source-read", index_words)
    app.connect("doctree-read", link_names)


# ---------------------------------------------------------------------------
# Searching
# ---------------------------------------------------------------------------

_SOUGHT = re.compile(r"^<!-- found by: (.*) -->$", re.MULTILINE)


def index_words(app: Sphinx, page: str, source: list[str]) -> None:
    """Have the search show a page first for the words that it names in a comment.

    Sphinx counts words of the text, and forgets numbers. A main entry of the index comes before all
    that. ``tests.project.search`` asks the built pages.
    """
    source[0] = _SOUGHT.sub(
        lambda found: (
            "```{index} " + ", ".join(f"!{word}" for word in found[1].split(", ")) + "\n```"
        ),
        source[0],
    )


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
    if returned and re.search(r"AsyncGenerator\[|AsyncContextManager\[", returned):
        returned = None
    return arguments, returned


_SECTION = re.compile(r"(Args|Attributes|Raises):$")
_ITEM = re.compile(r" *(\*{0,2}[\w.]+(?:, [\w.]+)*):( .*|$)")


def lay_out_docstring(  # noqa: PLR0917 - Sphinx calls it
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Turn sections into fields. A docstring of an attribute has none: its colons are prose.

    The options of a function stand at the end of its docstring, for `help()`. The pages have them
    by themselves.
    """
    if what == "data":
        lines[:] = comment_on(name)
    if what in ("class", "exception", "function", "method"):
        if "Options:" in lines:
            del lines[lines.index("Options:") :]
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

#: The public modules. A name of the first comes before one of the next.
MODULES = [
    importlib.import_module(f"trio_ws{module}")
    for module in ("", ".testing", ".backplane", ".live")
]

_NAME = re.compile(r"([A-Z]\w+|[a-z]+_\w+)(\.\w+)*$")


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """Make a link of the first mention of each public name on a page, which is plain Markdown."""
    page = app.env.docname
    if app.env.doc2path(page).endswith(".rst"):  # it is the reference
        return
    seen: set[str] = set()
    for node in list(doctree.findall(nodes.literal)):
        name = node.astext()
        target = public_name(name)
        if (
            target is None
            or name in seen
            or isinstance(node.parent, (nodes.reference, nodes.title, pending_xref))
        ):
            continue
        seen.add(name)
        link = pending_xref(
            "", node.deepcopy(), refdomain="py", reftype="obj", reftarget=target, refdoc=page
        )
        node.replace_self(link)


def public_name(name: str) -> str | None:
    """Where the reference has a name, as ``WebSocket.send``, if it does."""
    first = name.partition(".")[0]
    for module in MODULES:
        if _NAME.match(name) and first in module.__all__:
            full = f"{module.__name__}.{name}"
            return full if pydoc.locate(full) is not None else None
    return None


def resolve_reference(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.Element | None:
    """What autodoc calls by the module it is defined in, and what other projects document.

    The documentation is built without a network, so a name of another project is not looked up
    in its index: it is right if it can be imported. A wrong one stays a warning.
    """
    target: str = node["reftarget"]
    name = target.rpartition(".")[2]
    package = "trio_ws.backplane" if name in trio_ws.backplane.__all__ else "trio_ws"
    if target.startswith(f"{package}._") and name in (*trio_ws.__all__, *trio_ws.backplane.__all__):
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
    "NumbersCollector",
    "CookieJar",
}
