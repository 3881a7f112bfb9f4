"""Examples with pages: their servers as processes, and tabs of a real browser."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.examples.scripts import PATIENCE, command

ARTIFACTS = Path(__file__).parents[1] / "artifacts"

#: No conversations of its own with the rest of the world.
BROWSER_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

DESKTOP: dict[str, Any] = {"viewport": {"width": 1100, "height": 840}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "color_scheme": "dark",
    "reduced_motion": "reduce",
}


@contextmanager
def launched(*flags: str) -> Generator[Browser, None, None]:
    """Chromium, in which what is expected may take as long as on a busy machine."""
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=[*BROWSER_FLAGS, *flags]
        )
        try:
            yield browser
        finally:
            browser.close()


class ServerProcess:
    """An example's server, which has said where its page is."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.urls: dict[str, str] = {}
        assert process.stdout is not None
        printed: list[str] = []
        while "http" not in self.urls:
            line = process.stdout.readline()
            assert line, f"it ended after {printed}"
            printed.append(line)
            for url in re.findall(r"\w+://\S+/", line):
                self.urls[url.partition(":")[0].removesuffix("s")] = url
        self.url = self.urls["http"]
        port = urlsplit(self.url).port
        assert port is not None
        self.port = port

    def stop(self, how: signal.Signals = signal.SIGTERM, printed: str = "") -> None:
        """End it as an operator does. It has to go at once, in good order, and say no more."""
        self.process.send_signal(how)
        output, _ = self.process.communicate(timeout=PATIENCE)
        assert (output, self.process.returncode) == (printed, 0)


@contextmanager
def serving(script: str, *arguments: str, port: int = 0) -> Generator[ServerProcess, None, None]:
    """Run an example's server, and stop it by SIGTERM unless the test has stopped it."""
    process = subprocess.Popen(
        command(script, "--port", str(port), *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            server = ServerProcess(process)
            yield server
            if process.returncode is None:
                server.stop()
        finally:
            process.kill()  # nothing happens to one that has ended


class Tabs:
    """Tabs of one browser, each a separate visitor, and the problems in any of them."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.problems: list[str] = []

    def open(
        self,
        url: str,
        look: dict[str, Any] = DESKTOP,
        *,
        wait: bool = True,
        received: list[str] | None = None,
    ) -> Page:
        """Open a page, and wait until it says that it is connected.

        What comes in over its WebSockets goes into `received`.
        """
        context = self._browser.new_context(ignore_https_errors=True, **look)
        context.set_default_timeout(PATIENCE * 1000)
        self._contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._note)
        if received is not None:
            page.on(
                "websocket",
                lambda ws: ws.on("framereceived", lambda data: received.append(str(data))),
            )
        page.on("request", lambda request: self._check(request, url))
        page.goto(url)
        if wait:
            expect(page.locator("#status")).to_have_text("Connected")
        return page

    def _note(self, message: ConsoleMessage) -> None:
        # The one thing that a page cannot keep the browser from saying.
        lost = re.search("WebSocket connection to '.*' failed", message.text)
        if message.type in ("error", "warning") and not lost:
            self.problems.append(message.text)

    def _check(self, request: Request, url: str) -> None:
        """Nothing comes from elsewhere."""
        here, there = urlsplit(url), urlsplit(request.url)
        if there.scheme != "data" and there.netloc != here.netloc:
            self.problems.append(f"it asks for {request.url}")

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@contextmanager
def opened_tabs(browser: Browser) -> Generator[Tabs, None, None]:
    """Tabs in which nothing may go wrong that the test does not take out of `problems`."""
    tabs = Tabs(browser)
    try:
        yield tabs
        assert tabs.problems == []
    finally:
        tabs.close()


_UNNAMED = """() => [...document.querySelectorAll("button, input, canvas, fieldset")]
    .filter((it) => it.checkVisibility())
    .filter((it) => !(it.ariaLabel || it.textContent.trim() || it.labels?.length))
    .map((it) => it.outerHTML)"""


def keep(page: Page, name: str) -> None:
    """Take a picture of a page as it is now. It has to fit its window, and be accessible."""
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png", animations="disabled", full_page=True)
    assert page.viewport_size is not None
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"], f"{name} is {width} pixels wide"
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.title()
    assert page.locator("#status").get_attribute("role") == "status"
    assert page.evaluate(_UNNAMED) == []
