"""The tutorial, as a reader follows it: the commands on its pages, and its pages in a browser."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from playwright.sync_api import Browser, Page, expect

from examples.tutorial.step7_processes.app import application
from tests.backplane.redis_server import run_redis
from tests.command.cli_helpers import Command, running
from tests.command.terminals import Terminal, in_terminal
from tests.examples.page_helpers import Tabs, launched, opened_tabs
from tests.examples.scripts import EXAMPLES, PATIENCE
from tests.helpers import free_port
from tests.project.pages import PORT, ROOT
from tests.project.shown import excerpt
from trio_ws import WebSocket
from trio_ws.testing import MemoryApp, open_test_app

TUTORIAL = ROOT / "docs" / "tutorial"
STEPS = EXAMPLES / "tutorial"

CONTROL_D = "\x04"

# ---------------------------------------------------------------------------
# The commands on the pages
# ---------------------------------------------------------------------------

#: A block of commands and what they print, or in which folder those that follow are typed.
_BLOCK = re.compile(
    r"^<!-- in: (?P<folder>\S+) -->$|^```console\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)

#: What is another each time: a time of day, a process, a position, how long tests have taken, and
#: whether a worker has run for long.
_VARIES = [
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}",
    r"worker \d \(process \d+\)",
    r"[0-9a-f]{12}-",
    r"\d+\.\d+s",
    r"another starts in (?:0|0\.5) s",
]


def pattern_of(line: str) -> str:
    """What a line of output has to match."""
    parts = re.split(f"({'|'.join(_VARIES)})", line)
    masks = [next((mask for mask in _VARIES if re.fullmatch(mask, it)), None) for it in parts]
    return "".join(mask or re.escape(it) for mask, it in zip(masks, parts, strict=True)) + "$"


class Reader:
    """Types what a page says, and compares what comes.

    A server runs until the page stops it or starts another. A client in a terminal stays connected
    unless the page closes it. The port, the Redis server and the number of workers are not those of
    the page.
    """

    def __init__(self, stack: AsyncExitStack, folder: Path, redis_url: str) -> None:
        self._stack = stack
        self._folder = folder
        self._port = str(free_port())
        self._replaced = {
            PORT: self._port,
            "redis://localhost": redis_url,
            "--workers 4": "--workers 2",  # two tell as much, and start sooner
            "4 workers": "2 workers",
        }
        self._server: Command | None = None
        self._is_stopped = False

    def go_to(self, step: Path) -> None:
        self._here = self._folder / step.name
        shutil.copytree(step, self._here, ignore=shutil.ignore_patterns("__pycache__"))
        for script in self._here.glob("*.py"):
            script.write_text(self._ours(script.read_text("utf-8")), "utf-8")

    def _ours(self, text: str) -> str:
        for theirs, ours in self._replaced.items():
            text = text.replace(theirs, ours)
        return text

    async def follow(self, block: str) -> None:
        first, *lines = self._ours(block).splitlines()
        command = first.removeprefix("$ ").removesuffix(" &")
        match shlex.split(command):
            case ["trio-ws", "serve", *arguments]:
                await self._serve(arguments, lines)
            case [setting, "trio-ws", "serve", *arguments]:
                await self._serve(arguments, lines, setting)
            case ["trio-ws", "connect", *arguments]:
                await self._connect(arguments, lines)
            case ["python", *arguments]:
                await self._run(arguments, lines)
            case ["kill", *_]:
                await self._kill(command)
                await self._read(lines)
            case [word, *_] if word.startswith("^C"):
                await self._kill("kill -INT $!")
                await self._read([first.removeprefix("^C"), *lines])
            case _:
                await self._read([first, *lines])

    async def _serve(self, arguments: list[str], lines: list[str], *settings: str) -> None:
        await self.stop()
        self._is_stopped = False
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        environment |= dict(setting.split("=", 1) for setting in settings)
        arguments = ["serve", *arguments, "--port", self._port]
        self._server = await self._stack.enter_async_context(
            running(*arguments, cwd=self._here, env=environment)
        )
        await self._read(lines)

    async def _read(self, lines: list[str]) -> None:
        assert self._server is not None
        for line in lines:
            await self._server.read_until("^" + pattern_of(line))

    async def _kill(self, command: str) -> None:
        assert self._server is not None
        self._is_stopped = command in {"kill $!", "kill -INT $!"}
        command = command.replace("$!", str(self._server.process.pid))
        await trio.run_process(["sh", "-c", command])

    async def stop(self) -> None:
        """Press Ctrl-C, unless that was done. It has to end in good order."""
        if self._server is not None:
            if not self._is_stopped:
                await self._kill("kill -INT $!")
            assert await self._server.status() == 0
            assert "Traceback" not in self._server.output
            self._server = None

    async def _connect(self, arguments: list[str], lines: list[str]) -> None:
        terminal: Terminal = await self._stack.enter_async_context(
            in_terminal("connect", *arguments, state=self._folder, blocked=())
        )
        terminal.resize(250, 24)  # so that no line is broken
        for number, line in enumerate(lines, 1):
            if line.startswith(">"):
                await terminal.until_last(">")
                text = line.removeprefix(">").lstrip()
                await terminal.type(f"{text}\r" if text else CONTROL_D)
            patterns = [pattern_of(line) for line in lines[:number] if line != ">"]
            await terminal.until(partial(are_there, patterns))

    async def _run(self, arguments: list[str], lines: list[str]) -> None:
        result = await trio.run_process(
            [sys.executable, *arguments], cwd=self._here, capture_stdout=True, check=False
        )
        printed = result.stdout.decode().splitlines()
        assert len(printed) == len(lines), printed
        for there, line in zip(printed, lines, strict=True):
            assert re.match(pattern_of(line), there), there


def are_there(patterns: list[str], rows: list[str]) -> bool:
    """Whether there are such rows, in this order, with any others in between."""
    rest = iter(rows)
    return all(any(re.match(each, row) for row in rest) for each in patterns)


@pytest.mark.parametrize("page", sorted(TUTORIAL.glob("*.md")), ids=lambda page: page.stem)
async def test_the_commands_print_what_the_page_says(page: Path, tmp_path: Path) -> None:
    text = await trio.Path(page).read_text("utf-8")
    with trio.fail_after(3 * PATIENCE):  # one page starts a dozen processes
        async with AsyncExitStack() as stack:
            url = ""
            if "REDIS_URL" in text:
                url = (await stack.enter_async_context(run_redis(tmp_path))).url
            reader = Reader(stack, tmp_path, url)
            for block in _BLOCK.finditer(text):
                if block["folder"]:
                    reader.go_to(page.parent / block["folder"])
                else:
                    await reader.follow(block["text"])
            await reader.stop()


@pytest.mark.parametrize(
    ("step", "before", "same"),
    [
        ("step6_tests", "step5_rooms", {"app.py", "index.html"}),
        ("step7_processes", "step6_tests", {"index.html", "pytest.ini", "test_app.py"}),
    ],
)
def test_a_step_changes_only_what_its_page_says(step: str, before: str, same: set[str]) -> None:
    for name in same:
        assert (STEPS / step / name).read_bytes() == (STEPS / before / name).read_bytes()


@pytest.mark.parametrize(
    ("step", "before", "first"),
    [
        ("step4_page", "step3_counter", "class Applause"),
        ("step7_processes", "step6_tests", "def may_enter"),
    ],
)
def test_what_a_page_leaves_as_it_is_stays_the_same(step: str, before: str, first: str) -> None:
    was, becomes = [
        excerpt(
            (STEPS / each / "app.py").read_text("utf-8"),
            **{"start-at": first, "end-before": "@asynccontextmanager"},
        )
        for each in (before, step)
    ]
    assert was == becomes


class Visitor:
    """A page in the lobby, without a browser."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws

    async def clap(self) -> None:
        await self._ws.send_json({"type": "send", "topic": "lobby", "data": "clap"})

    async def get(self, kind: str) -> dict[str, Any]:
        while (message := await self._ws.receive_json())["type"] != kind:
            pass
        message_of_this_kind: dict[str, Any] = message
        return message_of_this_kind

    async def hear(self) -> tuple[str, int]:
        data = (await self.get("message"))["data"]
        return data["by"], data["claps"]


@asynccontextmanager
async def visiting(
    app: MemoryApp, name: str, position: str | None = None
) -> AsyncGenerator[Visitor, None]:
    async with app.websocket(f"/live?name={name}", subprotocols=["trio-ws.live.v1"]) as ws:
        await ws.send_json({"type": "subscribe", "topic": "lobby", "position": position})
        yield Visitor(ws)


async def test_several_processes_are_one_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(PATIENCE):
        async with run_redis(tmp_path) as redis:
            monkeypatch.setenv("REDIS_URL", redis.url)
            async with (
                application() as one,
                application() as other,
                open_test_app(one) as here,
                open_test_app(other) as there,
                visiting(here, "Ada") as ada,
            ):
                async with visiting(there, "Bob") as bob:
                    position = (await bob.get("current"))["position"]
                    await ada.clap()
                    assert await ada.hear() == await bob.hear() == ("Ada", 1)
                    await bob.clap()
                    assert await ada.hear() == await bob.hear() == ("Bob", 2)
                async with visiting(here, "Bob", position) as bob:
                    assert (await bob.get("subscribed"))["recovered"]
                    assert [await bob.hear(), await bob.hear()] == [("Ada", 1), ("Bob", 2)]
                async with visiting(there, "Eve") as eve:
                    assert (await eve.get("state"))["data"] == {"claps": 2}


# ---------------------------------------------------------------------------
# The pages in a browser
# ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Generator[Browser, None, None]:
    with launched() as browser:
        yield browser


@pytest.fixture
def tabs(browser: Browser) -> Generator[Tabs, None, None]:
    with opened_tabs(browser) as tabs:
        yield tabs


@contextmanager
def serving(step: str, port: int) -> Generator[subprocess.Popen[str], None, None]:
    """Run a step's application until the block ends; then Ctrl-C has to end it in good order."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_ws", "serve", "app:application", "--port", str(port)],
        cwd=STEPS / step,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("Serving on ws://")
            yield process
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def expect_status(*pages: Page, is_open: bool) -> None:
    for page in pages:
        expect(page.locator("#status")).to_have_text("open" if is_open else "waiting")
        expect(page.locator("#clap")).to_be_enabled(enabled=is_open)


def expect_claps(number: int, *pages: Page) -> None:
    for page in pages:
        expect(page.locator("#claps")).to_have_text(str(number))


def test_the_page_counts_with_others_and_reconnects(tabs: Tabs) -> None:
    port = free_port()
    with serving("step4_page", port):
        one, other = [tabs.open(f"http://localhost:{port}/", wait=False) for _ in range(2)]
        expect_status(one, other, is_open=True)
        one.click("#clap")
        expect_claps(1, one, other)
        other.click("#clap")
        expect_claps(2, one, other)
    expect_status(one, other, is_open=False)
    with serving("step4_page", port):
        expect_status(one, other, is_open=True)
        expect_claps(0, one, other)


def test_rooms_have_their_own_people_and_claps(tabs: Tabs) -> None:
    port = free_port()

    def enter(room: str, name: str) -> Page:
        return tabs.open(f"http://localhost:{port}/rooms/{room}?name={name}", wait=False)

    with serving("step5_rooms", port):
        ada, bob, eve = enter("lobby", "Ada"), enter("lobby", "Bob"), enter("kitchen", "Eve")
        for page in (ada, bob):
            expect(page.locator("#people")).to_have_text("Ada, Bob")
        expect(eve.locator("#people")).to_have_text("Eve")
        ada.click("#clap")
        expect_claps(1, ada, bob)
        expect(bob.locator("#log li")).to_have_text(["Ada claps"])
        bob.click("#clap")
        expect_claps(2, ada, bob)
        expect_claps(0, eve)
    expect_status(ada, bob, eve, is_open=False)
    with serving("step5_rooms", port):
        expect_status(ada, bob, eve, is_open=True)
        expect_claps(0, ada, bob, eve)
        expect(ada.locator("#log li")).to_have_count(0)
