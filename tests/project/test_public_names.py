"""The public names of `trio_ws`, and that each of them is explained."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import types
from importlib.metadata import version

import pytest

import trio_ws
from trio_ws import _later

PUBLIC = [getattr(trio_ws, name) for name in trio_ws.__all__]
CLASSES = [thing for thing in PUBLIC if inspect.isclass(thing)]


def test_the_list_of_names_is_sorted_and_has_no_repeats() -> None:
    by_kind = sorted(set(trio_ws.__all__), key=_ruff_order)
    assert trio_ws.__all__ == by_kind


def _ruff_order(name: str) -> tuple[int, str]:
    # CONSTANTS, then Classes, then functions: as ruff sorts ``__all__``.
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_the_list_of_names_is_what_can_be_imported() -> None:
    importable = {
        name
        for name in dir(trio_ws)
        if not name.startswith("_") and not isinstance(getattr(trio_ws, name), types.ModuleType)
    }
    assert set(trio_ws.__all__) == {*importable, "__version__"}


def test_a_context_manager_is_said_to_be_one() -> None:
    for function in (trio_ws.open_websocket_url, trio_ws.wrap_server_stream):
        returned = inspect.signature(function).return_annotation
        assert returned == "AbstractAsyncContextManager[WebSocket]"


def test_type_checkers_see_the_names_that_are_loaded_later() -> None:
    tree = ast.parse(inspect.getsource(trio_ws))
    (branches,) = (each for each in tree.body if isinstance(each, ast.If))
    seen = {
        alias.asname or alias.name: each.module
        for each in branches.body
        if isinstance(each, ast.ImportFrom)
        for alias in each.names
    }
    assert seen == _later.MODULES


def test_a_name_that_there_is_not_is_an_error_as_in_any_module() -> None:
    with pytest.raises(AttributeError, match="^module 'trio_ws' has no attribute 'Rooter'$"):
        trio_ws.Rooter  # type: ignore[attr-defined] # noqa: B018 - type checkers see it, too
    with pytest.raises(ImportError, match="cannot import name 'Rooter' from 'trio_ws'"):
        exec("from trio_ws import Rooter")


IN_A_FRESH_INTERPRETER = """
import sys, trio_ws
loaded = {*sys.modules}
assert not loaded & {
    "asyncio", "concurrent.futures", "email.utils", "http.client", "http.server",
    "importlib.metadata", "mimetypes",
}
assert not {name.partition(".")[0] for name in loaded} & {"numpy", "werkzeug", "coredis", "anyio"}
rooms = ("_broadcast", "_command", "_server", "_web", "backplane", "live", "metrics", "testing")
assert not [name for name in loaded if name.startswith(tuple(f"trio_ws.{room}" for room in rooms))]
"""
USES = {
    "nothing": "",
    "the list of names": "assert {*trio_ws.__all__} < {*dir(trio_ws)}",
    "a star": "from trio_ws import *; Router, Broadcast, serve_websocket, open_websocket",
    "a submodule": "trio_ws.backplane.MemoryHub, trio_ws.metrics.open_metrics",
    "one name": """
assert trio_ws.serve_websocket is trio_ws._server.server.serve_websocket
assert "serve_websocket" in vars(trio_ws)  # so that it is looked for once
assert "trio_ws._broadcast.broadcast" not in sys.modules
""",
    "help": "import pydoc; assert 'class Router(' in pydoc.plain(pydoc.render_doc(trio_ws))",
    "a pickle": """
import pickle, subprocess
policy = pickle.dumps(trio_ws.DropOldest())
code = f"import pickle; assert repr(pickle.loads({policy})) == {repr(trio_ws.DropOldest())!r}"
subprocess.run([sys.executable, "-c", code], check=True)
""",
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_importing_it_loads_what_a_client_needs_and_the_rest_when_it_is_used(use: str) -> None:
    subprocess.run([sys.executable, "-c", IN_A_FRESH_INTERPRETER + use], check=True)


def test_the_version_is_the_distribution_s() -> None:
    assert trio_ws.__version__ == version("trio-ws")


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, thing in zip(trio_ws.__all__, PUBLIC, strict=True)
        if inspect.isclass(thing) or inspect.isfunction(thing)
    ],
)
def test_every_public_class_and_function_is_explained(name: str) -> None:
    doc = inspect.getdoc(getattr(trio_ws, name)) or ""
    assert doc
    assert not doc.startswith(f"{name}(")  # what a dataclass writes for want of better


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_public_async_method_is_explained(cls: type) -> None:
    for name, method in inspect.getmembers(cls, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            assert inspect.getdoc(method), name


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_public_class_says_where_it_is_found(cls: type) -> None:
    assert cls.__module__.partition(".")[0] in ("trio_ws", "typing", "collections")
