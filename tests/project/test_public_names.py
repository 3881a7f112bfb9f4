"""The public names of `trio_ws`, and that each of them is explained."""

from __future__ import annotations

import inspect
import types
from importlib.metadata import version

import pytest

import trio_ws

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
        for name, value in vars(trio_ws).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert set(trio_ws.__all__) == {*importable, "__version__"}


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
