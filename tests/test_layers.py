"""Imports point down: the order of the modules, ground floor first, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_ws

PACKAGE = Path(trio_ws.__file__).parent

#: Ground floor first. A module may import, at run time, only from those before it.
ORDER = [
    "_version",
    "_faulty_stream",
    "_errors",
    "_headers",
    "_context",
    "_deflate",
    "_networks",
    "_options",
    "_url",
    "_http",
    "_site",
    "_forwarded",
    "_log",
    "_nursery",
    "_pacing",
    "_watchdog",
    "_masking",
    "_frames",
    "_wire",
    "_transport",
    "_handshake",
    "_web",
    "_inbox",
    "_outbox",
    "_pings",
    "_liveness",
    "_message",
    "_connection",
    "_lifetime",
    "_pump",
    "_auth",
    "_static",
    "_router",
    "_client",
    "_server",
    "__init__",
    "testing",
    "_exits",
    "_application",
    "_listening",
    "_serving",
    "_workers",
    "_reload",
    "_talking",
    "_cli",
    "__main__",
]

#: What a module may import from outside the standard library and this package; the wire does no
#: I/O and has no clock, and neither has anything that only looks at text.
OUTSIDE = {
    "_version": set[str](),
    "_errors": {"trio"},  # some errors are trio's as well
    "_headers": set[str](),
    "_context": set[str](),
    "_deflate": set[str](),
    "_networks": set[str](),
    "_options": set[str](),
    "_url": {"idna"},
    "_http": {"h11"},
    "_site": set[str](),
    "_log": set[str](),
    "_masking": {"numpy"},
    "_frames": set[str](),
    "_auth": set[str](),
    "_router": {"trio", "werkzeug"},
    "_wire": {"wsproto"},
    "testing": {"trio", "h11"},  # plain HTTP requests
}
OTHERS = {"trio"}

DEPENDENCIES = {"trio", "wsproto", "h11", "idna", "numpy", "coredis", "werkzeug", "python_socks"}


def modules() -> list[str]:
    return sorted(path.stem for path in PACKAGE.glob("*.py"))


def runtime_nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node but those under ``if TYPE_CHECKING:``, which no interpreter looks at."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo += node.orelse
            continue
        yield node
        todo += ast.iter_child_nodes(node)


def parse(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def inner_imports(module: str) -> set[str]:
    """Which modules of the package `module` imports when it runs."""
    found: set[str] = set()
    for node in runtime_nodes(parse(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
            found |= {node.module} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] != "trio_ws", "inside, imports are relative"
    return {name.split(".")[0] for name in found}


def outer_imports(module: str) -> set[str]:
    """Which distributions `module` imports when it runs, the standard library aside."""
    found: set[str] = set()
    for node in runtime_nodes(parse(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found & DEPENDENCIES


def test_every_module_has_its_place() -> None:
    assert set(ORDER) == set(modules())
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_down(module: str) -> None:
    above = set(ORDER[ORDER.index(module) :])
    assert inner_imports(module) & above == set()


@pytest.mark.parametrize("module", modules())
def test_a_module_knows_only_its_own_dependencies(module: str) -> None:
    assert outer_imports(module) <= OUTSIDE.get(module, OTHERS)


def test_the_wire_knows_no_trio() -> None:
    assert outer_imports("_wire") == {"wsproto"}


def test_the_package_itself_only_re_exports() -> None:
    docstring, *statements = parse("__init__").body
    assert isinstance(docstring, ast.Expr)
    for statement in statements:
        assert isinstance(statement, (ast.ImportFrom, ast.Assign))
        if isinstance(statement, ast.Assign):
            assert ast.unparse(statement.targets[0]) == "__all__"


@pytest.mark.parametrize("module", [name for name in ORDER if name != "_version"])
def test_a_module_opens_with_what_it_owns(module: str) -> None:
    assert ast.get_docstring(parse(module))
