"""The pages of docs/ name tests, and each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def names_of_tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {
        f"{path.name}::{node.name}"
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name[:5] == "test_"
    }


def rows() -> list[list[str]]:
    source = (ROOT / "docs/maintainers/trust.md").read_text("utf-8")
    lines = [line for line in source.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0] != "stimulus" and not row[0].startswith("---")]


def test_every_row_of_the_table_names_tests_and_every_one_exists() -> None:
    existing = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in names_of_tests(path)
    }
    named: set[str] = set()
    for row in rows():
        assert len(row) == 3, row
        tests = set(re.findall(r"`(test_\w+\.py::test_\w+)`", row[2]))
        assert tests or "later" in row[2], f"no test is named for {row[0]!r}"
        assert tests <= existing, f"there is no {sorted(tests - existing)}"
        named |= tests
    # And nothing is measured there that the table does not tell.
    for name in ("test_trust.py", "test_trust_faults.py"):
        assert names_of_tests(ROOT / "tests" / "whole" / name) <= named


def test_every_test_that_the_page_on_the_design_names_exists() -> None:
    existing = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in names_of_tests(path)
    }
    existing |= {name.partition("::")[2] for name in existing}
    text = (ROOT / "docs/explanation/design.md").read_text()
    named = set(re.findall(r"`((?:test_\w+\.py::)?test_\w+)`", text))
    assert len(named) > 20
    assert named <= existing
