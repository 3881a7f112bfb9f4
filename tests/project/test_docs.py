"""The documentation shows only what runs, and leaves no public name out."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

import trio_ws
import trio_ws.backplane
import trio_ws.live
import trio_ws.metrics
import trio_ws.testing
from tests.examples.scripts import PATIENCE
from tests.project.keyword_docs import FILES, renewed_keywords
from tests.project.option_docs import PATH, option_docs
from tests.project.pages import PAGES, PORT, ROOT, snippets
from tests.project.shown import excerpt, renewed
from trio_ws import ConnectionRejected, WebSocketServer, open_websocket_url

ECHO = """
import trio
from trio_ws import serve_websocket

async def echo(ws):
    async for message in ws:
        await ws.send(message)

trio.run(serve_websocket, echo, "localhost", 8765)
"""


def serves(code: str) -> bool:
    return re.search(rf'serve_websocket, \w+, "localhost", {PORT}', code) is not None


class Session:
    """Runs the snippets of one page, one after the other, as a reader does.

    Each is a whole program that ends in `trio.run`, or in `asyncio.run` where it shows another
    library. A server goes on in the background, on a port
    of its own, and the clients after it on that page connect to it.
    """

    def __init__(self, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
        self._nursery = nursery
        self._port = 0
        self._calls: list[tuple[Callable[..., Awaitable[object]], tuple[Any, ...]]] = []
        monkeypatch.setattr(trio, "run", lambda fn, *args: self._calls.append((fn, args)))

    async def run(self, code: str, where: str) -> None:
        if PORT in code and not serves(code) and not self._port:
            await self.run(ECHO, where)  # the page shows a client alone
        port = 0 if serves(code) else self._port
        program = compile(code.replace(PORT, str(port)), where, "exec")
        run = partial(exec, program, {"__name__": "__main__"})
        if "asyncio.run(" in code:
            await trio.to_thread.run_sync(run)
            return
        run()
        assert len(self._calls) == 1, f"{where} does not end in trio.run"
        function, arguments = self._calls.pop()
        if serves(code):
            server: WebSocketServer = await self._nursery.start(function, *arguments)
            self._port = server.port
            await self._visit()
        else:
            await function(*arguments)

    async def _visit(self) -> None:
        """Let the handler run, also where no client follows on the page."""
        with suppress(ConnectionRejected):  # one of them wants a password
            async with open_websocket_url(f"ws://localhost:{self._port}") as ws:
                await ws.send("hello")
                await ws.receive()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
async def test_snippets_run_and_print_what_is_said(
    page: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            session = Session(nursery, monkeypatch)
            for language, where, text in snippets(page):
                if language == "python":
                    capsys.readouterr()
                    await session.run(text, where)
                else:
                    assert capsys.readouterr().out == text, where
            nursery.cancel_scope.cancel()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_the_readme_names_every_program_that_make_test_installs() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    test_and_what_it_needs = makefile[makefile.index("\ntest:") : makefile.index("\ncheck:")]
    (usual,) = re.findall(r"^PROGRAMS := (.*)", makefile, re.MULTILINE)
    programs = re.findall(r"system\.sh (.*)", test_and_what_it_needs)
    assert "$(PROGRAMS)" in programs
    programs = [usual if each == "$(PROGRAMS)" else each for each in programs]
    readme = PAGES[0].read_text("utf-8").lower()
    assert programs
    for name in " ".join(programs).split():
        assert re.search(rf"\b{name}\b", readme), name


def test_the_readme_shows_a_server_and_a_client_in_ten_lines_each() -> None:
    server, client, *_ = [text for language, _, text in snippets(PAGES[0]) if language == "python"]
    for text in (server, client):
        assert len([line for line in text.splitlines() if line]) <= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_excerpts_and_tables_are_what_the_code_says(page: Path) -> None:
    assert page.read_text("utf-8") == renewed(page), "python -m tests.project.shown renews them"


def test_help_shows_the_docstrings_of_the_options() -> None:
    renewed_docs = option_docs()
    assert PATH.read_text("utf-8") == renewed_docs, "python -m tests.project.shown renews them"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_keyword_arguments_have_the_docstrings_of_the_options(path: Path) -> None:
    assert path.read_text("utf-8") == renewed_keywords(path), (
        "python -m tests.project.shown renews them"
    )


@pytest.mark.parametrize(
    ("marks", "lines"),
    [
        ({}, "a\n\n@d\ndef b():\n    c\n\ne\n"),
        ({"pyobject": "b"}, "@d\ndef b():\n    c\n"),
        ({"start-at": "def b", "end-before": "e"}, "def b():\n    c\n"),
        ({"start-after": "def b", "end-at": "c"}, "c\n"),
    ],
)
def test_an_excerpt_begins_and_ends_where_it_is_told(marks: dict[str, str], lines: str) -> None:
    assert excerpt("a\n\n@d\ndef b():\n    c\n\ne\n", **marks) == lines


@pytest.mark.parametrize("marks", [{"pyobject": "x"}, {"start-at": "x"}, {"from": "a"}])
def test_an_excerpt_of_what_is_not_there_is_an_error(marks: dict[str, str]) -> None:
    with pytest.raises(LookupError):
        excerpt("a\n", **marks)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_can_be_read_wherever_markdown_is_shown(page: Path) -> None:
    source = page.read_text("utf-8")
    assert re.findall(r"\{[\w:]+\}`[^`]*`", source) == []
    if page.stem not in ("index", "changelog", "security"):
        assert re.findall(r"^`{3,}\{.*", source, re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]+`", "", text)  # where a page shows what a link looks like
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "module",
    [trio_ws, trio_ws.testing, trio_ws.backplane, trio_ws.live, trio_ws.metrics],
    ids=lambda module: module.__name__,
)
def test_the_reference_has_every_public_name_and_no_other(module: ModuleType) -> None:
    documented: list[str] = []
    for page in (ROOT / "docs/reference").glob("*.rst"):
        text = page.read_text("utf-8")
        (of,) = re.findall(r"^\.\. (?:current)?module:: (\S+)$", text, re.MULTILINE)
        if of == module.__name__:
            documented += re.findall(
                r"^\.\. auto(?:function|class|exception|data):: (\w+)", text, re.MULTILINE
            )
    assert sorted(documented) == sorted(module.__all__)


def test_every_option_says_what_it_is() -> None:
    source = (ROOT / "trio_ws" / "_options.py").read_text("utf-8")
    for options in (
        trio_ws.ConnectionOptions,
        trio_ws.ClientStreamOptions,
        trio_ws.ClientOptions,
        trio_ws.ServerStreamOptions,
        trio_ws.ListenerOptions,
    ):
        for name in vars(options).get("__annotations__", {}):
            assert re.search(rf'^    {name}: .*\n    """', source, re.MULTILINE), (
                f"{name} is undocumented"
            )
