"""The pages for operators: their options are options, their log lines are logged."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from tests.project.pages import ROOT
from trio_ws import ListenerOptions
from trio_ws._command.cli import make_parser

HOW_TO = ROOT / "docs/how-to"
INCIDENTS = HOW_TO / "incidents.md"
#: Of programs that are run by `trio-ws serve`: any option on them is one of its options.
PAGES = [
    HOW_TO / f"{name}.md"
    for name in ("production", "incidents", "kubernetes", "restarts", "workers", "deployment")
]
MANIFEST = ROOT / "examples" / "deploy" / "kubernetes.yaml"


def code_in(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)


def logged() -> list[str]:
    """The strings in the library's code, with … where something is put in."""
    strings: list[str] = []
    for path in (ROOT / "trio_ws").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                strings.append(re.sub(r"%[-+.\d]*[a-z]", "…", node.value))
    return strings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_on_these_pages_are_options_of_serve(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(["serve", "--help"])
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    named = {option for code in code_in(page) for option in re.findall(r"^--[\w-]+", code)}
    assert named
    assert named - known == set()


def test_the_manifest_has_a_command_line_of_serve() -> None:
    text = MANIFEST.read_text("utf-8")
    arguments = re.findall(r"^            - (--.*)$", text, re.MULTILINE)
    assert len(arguments) > 5
    parsed = make_parser().parse_args(["serve", "app:application", *arguments])
    seconds = int(re.findall(r"terminationGracePeriodSeconds: (\d+)", text)[0])
    pause = int(re.findall(r"sleep: \{seconds: (\d+)\}", text)[0])
    options = ListenerOptions()
    closing = options.open_timeout + options.grace_period + options.close_timeout
    assert seconds > pause + parsed.drain + closing
    for path in re.findall(r"path: (/\w+)", text):
        assert path in (parsed.ready_path, parsed.health_path)
    (probed,) = set(re.findall(r"\{name: Host, value: (\S+)\}", text))
    assert probed in parsed.server_name


def test_log_lines_on_the_page_of_incidents_are_logged() -> None:
    lines = [
        code for code in code_in(INCIDENTS) if "…" in code and shlex.split(code)[0] not in PROGRAMS
    ]
    assert len(lines) > 12
    strings = logged()
    for line in lines:
        for part in re.split(r"…|\d+|Killed", line):
            words = part.strip(" :;,()")
            if len(words) > 3:
                assert any(words in string for string in strings), line


PROGRAMS = ("trio-ws", "py-spy")


def test_metrics_on_the_page_of_incidents_are_measured() -> None:
    measured = (ROOT / "docs/how-to/metrics.md").read_text("utf-8")
    named = set(re.findall(r"trio_ws_\w+", INCIDENTS.read_text("utf-8")))
    assert len(named) > 10
    assert {name for name in named if f"`{name}`" not in measured} == set()
