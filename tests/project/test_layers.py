"""Imports point down: the order of the modules, ground floor first, read from the source."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_ws

PACKAGE = Path(trio_ws.__file__).parent

#: Ground floor first. A module may import, at run time, only from those before it.
ORDER = [
    "_version",
    "backplane._redis.__init__",
    "_command.__init__",
    "_server.__init__",
    "_client.__init__",
    "_broadcast.__init__",
    "_web.__init__",
    "_handshake.__init__",
    "_connection.__init__",
    "_transport.__init__",
    "_protocol.__init__",
    "_http.__init__",
    "_arguments",
    "_buffer",
    "testing._faulty_stream",
    "_redaction",
    "_errors",
    "_reasons",
    "_threads",
    "_http.interning",
    "_http.headers",
    "_json",
    "_http.query",
    "_http.context",
    "_protocol.deflate",
    "_http.networks",
    "_hints",
    "_http.url",
    "_options",
    "_http.exchange",
    "_web.site",
    "_handshake.forwarded",
    "_log",
    "_nursery",
    "_pacing",
    "_connection.watchdog",
    "_connection.shortcut",
    "_connection.flusher",
    "_protocol.masking",
    "_protocol.frames",
    "_protocol.wire",
    "_transport.sockets",
    "_handshake.accepting",
    "_web.conversation",
    "_connection.inbox",
    "_connection.line",
    "_connection.outbox",
    "_connection.pings",
    "_connection.liveness",
    "_connection.pieces",
    "backplane._envelope",
    "backplane._base",
    "backplane._outgoing",
    "backplane._interest",
    "backplane._incoming",
    "backplane._queued",
    "backplane._memory",
    "backplane._redis.backoff",
    "backplane._redis.address",
    "backplane._redis.probe",
    "backplane._redis.link",
    "backplane._redis.pubsub",
    "backplane._redis.portion",
    "backplane._redis.streams",
    "backplane._redis.backplane",
    "backplane.__init__",
    "_connection.websocket",
    "_connection.byte_stream",
    "_broadcast.policies",
    "_broadcast.history",
    "_broadcast.delivery",
    "_broadcast.broadcast",
    "_connection.lifetime",
    "_connection.pump",
    "_web.basic_auth",
    "_web.files",
    "_web.router",
    "_client.client",
    "_server.server",
    "__init__",
    "testing._memory_client",
    "testing._apps",
    "testing.__init__",
    "_command.exits",
    "_command.application",
    "_server.listening",
    "_command.serving",
    "_command.workers",
    "_command.reload",
    "_command.talking",
    "_command.cli",
    "__main__",
]

#: What a module may import from outside the standard library and this package; the wire does no
#: I/O and has no clock, and neither has anything that only looks at text.
OUTSIDE = {
    "_version": set[str](),
    "_arguments": set[str](),
    "_buffer": set[str](),
    "_errors": {"trio"},  # some errors are trio's as well
    "_redaction": set[str](),
    "_http.interning": set[str](),
    "_http.headers": set[str](),
    "_json": set[str](),
    "_http.query": set[str](),
    "_http.context": set[str](),
    "_protocol.deflate": set[str](),
    "_http.networks": set[str](),
    "_hints": set[str](),
    "_options": set[str](),
    "_http.url": {"idna"},
    "_http.exchange": {"h11"},
    "_web.site": set[str](),
    "_log": set[str](),
    "_protocol.masking": {"numpy"},
    "_protocol.frames": set[str](),
    "_web.basic_auth": set[str](),
    "_web.router": {"trio", "werkzeug"},
    "_protocol.wire": {"wsproto"},
    "testing._memory_client": {"trio", "h11"},  # plain HTTP requests
    "backplane._envelope": set[str](),
    "backplane._incoming": set[str](),
    "backplane._redis.backoff": set[str](),
    "backplane._redis.address": set[str](),
    "backplane._redis.portion": set[str](),
    "backplane._redis.link": {"trio", "coredis", "anyio"},  # coredis's, and nowhere else
}
OTHERS = {"trio"}

DEPENDENCIES = {"trio", "wsproto", "h11", "idna", "numpy", "coredis", "werkzeug"}
DEPENDENCIES |= {"anyio"}  # coredis brings it


def modules() -> list[str]:
    """Every module, by its name inside the package."""
    paths = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")]
    return sorted(".".join(path.parts) for path in paths)


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
    return ast.parse(
        PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    )


def inner_imports(module: str) -> set[str]:
    """Which modules of the package `module` imports when it runs."""
    found: set[str] = set()
    *folders, _ = module.split(".")
    for node in runtime_nodes(parse(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= len(folders) + 1
            base = folders[: len(folders) + 1 - node.level]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {_module_named(".".join([*base, name])) for name in names}
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] != "trio_ws", "inside, imports are relative"
    return found


def _module_named(name: str) -> str:
    return f"{name}.__init__" if (PACKAGE / name).is_dir() else name


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
    assert outer_imports("_protocol.wire") == {"wsproto"}


@pytest.mark.parametrize("package", [name for name in ORDER if name.endswith("__init__")])
def test_a_package_itself_only_re_exports(package: str) -> None:
    docstring, *statements = parse(package).body
    assert isinstance(docstring, ast.Expr)
    for statement in statements:
        assert isinstance(statement, (ast.ImportFrom, ast.Assign))
        if isinstance(statement, ast.Assign):
            assert ast.unparse(statement.targets[0]) == "__all__"


@pytest.mark.parametrize("module", [name for name in ORDER if name != "_version"])
def test_a_module_opens_with_what_it_owns(module: str) -> None:
    assert ast.get_docstring(parse(module))


def test_what_the_distribution_requires_is_imported_and_nothing_else() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    required = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        required += extra
    imported = set[str]().union(*map(outer_imports, modules()))
    assert {re.split(r"[<>=]", name)[0] for name in required} == imported - {"anyio"}
