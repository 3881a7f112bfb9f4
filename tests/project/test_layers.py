"""Imports between rooms point down, whether they are run or only looked at by type checkers.

A room is a folder of the package; the ground floor is the files beside the folders. The rooms are
read from the source, so that a new one has to be given its floor here.
"""

from __future__ import annotations

import ast
import re
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import trio_ws

PACKAGE = Path(trio_ws.__file__).parent

#: The rooms, from the ground floor up. A room may import only from those before it.
FLOORS = {
    "ground": "_version _arguments _buffer _redaction _errors _reasons _threads _json _hints _log "
    "_json_lines _metering _nursery _pacing _backoff _buckets _waking _addresses _interning "
    "_option_docs",
    "_http": "",
    "_transport": "",
    "_protocol": "",
    "_options": "",
    "_connection": "",
    "_keywords": "",
    "_handshake": "",
    "backplane": "",
    "_broadcast": "",
    "_web": "",
    "_client": "",
    "_server": "",
    "metrics": "",
    "live": "",
    "__init__": "_later",
    "testing": "",
    "_command": "",
    "__main__": "",
}
ROOM_OF = {file: room for room, files in FLOORS.items() for file in files.split()}

#: Which distributions a room may import; the protocol does no I/O and has no clock.
OUTSIDE = {
    "ground": {"trio"},
    "_http": {"h11", "idna"},
    "_protocol": {"isal", "numpy", "wsproto"},
    "_options": set[str](),
    "_web": {"trio", "werkzeug"},
    "_client": {"trio", "python_socks"},
    "backplane": {"trio", "coredis", "anyio"},
    "metrics": {"trio", "prometheus_client"},
    "testing": {"trio", "h11"},
    "_command": {"trio", "prompt_toolkit"},
}
OTHERS = {"trio"}

#: Where one file alone knows a distribution.
DOORS = {
    "coredis": {"backplane._redis.link"},
    "anyio": {"backplane._redis.link"},
    "h11": {"_http.exchange", "testing._memory_client"},
    "idna": {"_http.url"},
    "isal": {"_protocol.compressors"},
    "numpy": {"_protocol.masking"},
    "prometheus_client": {"metrics._prometheus"},
    "prompt_toolkit": {"_command.prompting"},
    "python_socks": {"_client.socks"},
    "werkzeug": {"_web.router"},
    "wsproto": {"_protocol.events", "_protocol.judge", "_protocol.wire"},
}
DEPENDENCIES = {"trio", *DOORS}


def modules() -> list[str]:
    """Every module, by its name inside the package."""
    paths = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")]
    return sorted(".".join(path.parts) for path in paths)


def room_of(module: str) -> str:
    first = module.split(".", maxsplit=1)[0]
    return ROOM_OF.get(first, first)


def parse(module: str) -> ast.Module:
    return ast.parse(
        PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    )


def inner_imports(module: str) -> set[str]:
    """Which modules of the package `module` imports, those for type checkers included."""
    found: set[str] = set()
    *folders, _ = module.split(".")
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= len(folders) + 1
            base = folders[: len(folders) + 1 - node.level]
            for name in [node.module] if node.module else [alias.name for alias in node.names]:
                found.add(_module_named(".".join([*base, name])))
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] != "trio_ws", "inside, imports are relative"
    return found


def _module_named(name: str) -> str:
    return f"{name}.__init__" if PACKAGE.joinpath(*name.split(".")).is_dir() else name


def outer_imports(module: str) -> set[str]:
    """Which distributions `module` imports, the standard library aside."""
    found: set[str] = set()
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found & DEPENDENCIES


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(module) for module in modules()}
    assert rooms == set(FLOORS)
    assert set(ROOM_OF) < set(modules())


@pytest.mark.parametrize("module", modules())
def test_an_import_between_rooms_points_down(module: str) -> None:
    floors = list(FLOORS)
    allowed = set(floors[: floors.index(room_of(module)) + 1])
    assert {name for name in inner_imports(module) if room_of(name) not in allowed} == set()


@pytest.mark.parametrize("page", [name for name in modules() if name.startswith("_web.")])
def test_a_page_shakes_no_hands(page: str) -> None:
    passed: set[str] = set()
    waiting = {page}
    while waiting:
        passed |= waiting
        waiting = set[str]().union(*map(inner_imports, waiting)) - passed
    assert {name for name in passed if room_of(name) == "_handshake"} == set()


@pytest.mark.parametrize("room", FLOORS)
def test_no_two_files_of_a_room_need_each_other(room: str) -> None:
    files = [module for module in modules() if room_of(module) == room]
    graph = {file: inner_imports(file) & set(files) for file in files}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names them


@pytest.mark.parametrize("module", modules())
def test_a_module_knows_only_the_dependencies_of_its_room(module: str) -> None:
    assert outer_imports(module) <= OUTSIDE.get(room_of(module), OTHERS)


@pytest.mark.parametrize("distribution", DOORS)
def test_a_distribution_comes_in_by_its_door(distribution: str) -> None:
    assert {name for name in modules() if distribution in outer_imports(name)} == DOORS[
        distribution
    ]


@pytest.mark.parametrize("package", [name for name in modules() if name.endswith("__init__")])
def test_a_package_itself_only_re_exports(package: str) -> None:
    docstring, *statements = parse(package).body
    assert isinstance(docstring, ast.Expr)
    if package == "__init__":
        statements = for_type_checkers_and_others(statements)
    for statement in statements:
        assert isinstance(statement, (ast.ImportFrom, ast.Assign))
        if isinstance(statement, ast.Assign):
            assert ast.unparse(statement.targets[0]) == "__all__"


def for_type_checkers_and_others(statements: list[ast.stmt]) -> list[ast.stmt]:
    """The statements with those under ``if TYPE_CHECKING`` and its ``else`` in one row."""
    flat: list[ast.stmt] = []
    for statement in statements:
        if isinstance(statement, ast.If):
            assert ast.unparse(statement.test) == "_typing.TYPE_CHECKING"
            flat += [*statement.body, *statement.orelse]
        elif ast.unparse(statement) != "import typing as _typing":
            flat.append(statement)
    return flat


ROOMS = [name for name in modules() if name.endswith(".__init__")]


def read_first(room: str) -> str | None:
    found = re.search(r"\bRead `(\w+)` first", ast.get_docstring(parse(room)) or "")
    return found and found[1]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_which_file_to_read_first(room: str) -> None:
    first = read_first(room)
    assert first, "in its first lines: what it is for, which file to read first, what stays out"
    assert f"{room.removesuffix('__init__')}{first}" in modules()


def test_the_map_in_the_design_notes_shows_these_rooms_and_what_to_read_first_in_them() -> None:
    text = (PACKAGE.parent / "docs/explanation/design.md").read_text("utf-8")
    table = text.partition("| room |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table]
    rooms = [re.sub(r"\.py$|/$|^the ground floor", "", row[0]) or "ground" for row in rows]
    assert rooms == [room for room in reversed(FLOORS) if room != "__main__"]
    for room, row in zip(rooms, rows, strict=True):
        if f"{room}.__init__" in ROOMS:
            assert row[2] == read_first(f"{room}.__init__")


@pytest.mark.parametrize("module", [name for name in modules() if name != "_version"])
def test_a_module_opens_with_what_it_owns(module: str) -> None:
    assert ast.get_docstring(parse(module))


def test_requirements_of_the_distribution_are_imported_and_nothing_else() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    required = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        required += extra
    imported = set[str]().union(*map(outer_imports, modules()))
    # coredis brings anyio.
    named = {re.split(r"[<>=]", name)[0].replace("-", "_") for name in required}
    assert named == imported - {"anyio"}
