"""The chat in four tabs of Chromium, whose servers, Redis and network go away again and again.

None of these is an async test: Playwright runs an event loop of its own in this thread. With
TRIO_WS_SOAK=1 it goes on for five minutes.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from playwright.sync_api import Browser, Page, expect

from tests.backplane.redis_server import RedisServer
from tests.examples.page_helpers import ServerProcess, Tabs, launched, serving
from tests.examples.scripts import PATIENCE

SOAK = bool(os.environ.get("TRIO_WS_SOAK"))

#: Say it, whether there is a connection or not.
SAY = """text => {
    document.querySelector("#say input").value = text;
    document.querySelector("#say").requestSubmit();
}"""


#: Notes every line and every remark that a page shows: it takes the oldest off when it has many.
WATCH = """() => {
    const list = document.getElementById("lines");
    window.lines = [...list.querySelectorAll("p")].map(line => line.textContent);
    window.notes = list.querySelectorAll(".note").length;
    new MutationObserver(changes => {
        for (const { addedNodes } of changes) for (const item of addedNodes) {
            const line = item.querySelector("p");
            if (line) window.lines.push(line.textContent); else window.notes++;
        }
    }).observe(list, { childList: true });
}"""


@pytest.fixture(scope="module")
def browser() -> Generator[Browser, None, None]:
    with launched() as browser:
        yield browser


def end(server: ServerProcess) -> None:
    server.process.kill()
    server.process.wait()


class Chat:
    """Two servers with one Redis, and tabs of both."""

    def __init__(self, stack: ExitStack, tabs: Tabs, folder: Path) -> None:
        self._stack = stack
        self.redis = RedisServer(folder)
        stack.callback(self.redis.close)
        trio.run(self.redis.start)
        self.servers = [self._serve(0) for _ in range(2)]
        self.pages = [self._enter(tabs, number) for number in range(4)]
        self.said: list[str] = []

    def _serve(self, port: int) -> ServerProcess:
        server = self._stack.enter_context(
            serving("chat/server.py", "--redis", self.redis.url, port=port)
        )
        # What it logs of its Redis is not what a server says that is stopped in good order.
        self._stack.callback(end, server)
        return server

    def _enter(self, tabs: Tabs, number: int) -> Page:
        server = self.servers[number % len(self.servers)]
        page = tabs.open(f"{server.url}?name=tab-{number}&room=lobby")
        page.evaluate(WATCH)
        return page

    def say(self) -> None:
        """Each tab says something, which is the next that it says."""
        for number, page in enumerate(self.pages):
            text = f"{number} {len(self.said)}"
            page.evaluate(SAY, text)
            self.said.append(text)

    def kill_a_server(self, which: int) -> None:
        server = self.servers[which]
        end(server)
        self.go_on()
        self.servers[which] = self._serve(server.port)

    def kill_redis(self, _: int = 0) -> None:
        self.redis.kill()
        self.go_on()
        trio.run(self.redis.start)

    def cut_off(self, which: int) -> None:
        self.pages[which].context.set_offline(True)
        self.go_on()
        self.pages[which].context.set_offline(False)

    def go_on(self) -> None:
        for _ in range(3):
            self.say()
            self.pages[0].wait_for_timeout(100)

    def check(self) -> None:
        """Every tab shows every line once, and those of each tab in their order; or says so."""
        for page in self.pages:
            expect(page.locator("#status")).to_have_text("Connected")
        deadline = time.monotonic() + (3 if SOAK else 1) * PATIENCE
        while not all(map(self._is_through, self.pages)):
            assert time.monotonic() < deadline, [
                (len(missing), sorted(missing)[:9]) for missing in map(self._missing, self.pages)
            ]
            self.pages[0].wait_for_timeout(100)
        for page in self.pages:
            lines = lines_of(page)
            assert len(lines) == len({*lines}), "a line is shown twice"
            for number in range(len(self.pages)):
                of_tab = [text for text in lines if text.startswith(f"{number} ")]
                assert of_tab == sorted(of_tab, key=lambda text: int(text.split()[1]))

    def _is_through(self, page: Page) -> bool:
        return not self._missing(page) or notes_of(page) > 0

    def _missing(self, page: Page) -> set[str]:
        return {*self.said}.difference(lines_of(page))


def lines_of(page: Page) -> list[str]:
    texts: list[str] = page.evaluate("window.lines")
    return texts


def notes_of(page: Page) -> int:
    count: int = page.evaluate("window.notes")
    return count


def test_four_tabs_lose_and_double_no_line_whatever_is_killed(
    browser: Browser, tmp_path: Path
) -> None:
    tabs = Tabs(browser)
    with ExitStack() as stack:
        stack.callback(tabs.close)
        chat = Chat(stack, tabs, tmp_path)
        chat.go_on()
        chat.check()
        chat.kill_a_server(0)
        chat.check()
        chat.kill_redis()
        chat.check()
        chat.cut_off(1)
        chat.check()
        # Redis keeps what it has acknowledged, so that nothing had to be missing.
        assert [notes_of(page) for page in chat.pages] == [0] * 4
        if SOAK:
            end = time.monotonic() + 300
            while time.monotonic() < end:
                which = random.randrange(2)
                happen: list[Callable[[int], None]] = [
                    *(chat.kill_redis, chat.kill_a_server, chat.cut_off)
                ]
                random.choice(happen)(which)
            chat.check()
        assert tabs.problems == []
