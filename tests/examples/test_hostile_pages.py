"""Pages that have no business with a server, in a real browser on the machine of that server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.examples.page_helpers import ServerProcess, launched

#: The name of a host of the attacker, whose address is ours by now (DNS rebinding).
REBOUND = "rebound.example"

#: Chromium would ask its user whether a page may reach this machine; not all browsers do.
FLAGS = [
    f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1",
    "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets",
]

SERVER = """
import trio
from functools import partial
from trio_ws import Response, serve_websocket

async def greet(ws):
    await ws.send("welcome")

def page(request):
    return None if request.is_upgrade else Response.html("<title>secrets</title>")

async def main():
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, greet, "localhost", 0, process_request=page, OPTIONS)
        server = await nursery.start(serve)
        print(f"http://localhost:{server.port}/", flush=True)

trio.run(main)
"""

#: What a page has a WebSocket say to it: its first message, or how it failed.
ASK = """url => new Promise(resolve => {
    const ws = new WebSocket(url);
    ws.onmessage = event => resolve(event.data);
    ws.onclose = event => resolve(`closed with ${event.code}`);
})"""

GOT_IN, REFUSED = "welcome", "closed with 1006"


@pytest.fixture(scope="module")
def browser() -> Generator[Browser, None, None]:
    with launched(*FLAGS) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Generator[Page, None, None]:
    page = browser.new_page()
    # What is on pages of the attacker does not matter, but whose they are.
    page.route("http://evil.example/", lambda route: route.fulfill(body="<title>evil</title>"))
    page.route(f"http://{REBOUND}:*/evil", lambda route: route.fulfill(body="<title>evil</title>"))
    try:
        yield page
    finally:
        page.close()


@contextmanager
def server_with(options: str) -> Generator[ServerProcess, None, None]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER.replace("OPTIONS", options)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield ServerProcess(process)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("options", "outcome"),
    [("", REFUSED), ("origins=['http://evil.example']", GOT_IN), ("origins='*'", GOT_IN)],
)
def test_a_page_of_another_site_gets_in_only_with_permission(
    options: str, outcome: str, page: Page
) -> None:
    with server_with(options) as server:
        page.goto("http://evil.example/")
        assert page.evaluate(ASK, f"ws://localhost:{server.port}/") == outcome
        page.goto(server.url)
        assert page.evaluate(ASK, f"ws://localhost:{server.port}/") == (
            REFUSED if "evil" in options else GOT_IN
        )


@pytest.mark.parametrize(
    ("options", "title", "outcome"), [("", "", REFUSED), ("hosts='*'", "secrets", GOT_IN)]
)
def test_a_page_that_gives_its_own_name_our_address_gets_in_only_with_permission(
    options: str, title: str, outcome: str, page: Page
) -> None:
    with server_with(options) as server:
        response = page.goto(f"http://{REBOUND}:{server.port}/")
        assert response is not None
        assert (response.status, page.title()) == ((421, "") if title == "" else (200, title))
        page.goto(f"http://{REBOUND}:{server.port}/evil")
        assert page.evaluate(ASK, f"ws://{REBOUND}:{server.port}/") == outcome


@pytest.mark.parametrize(
    ("options", "outcome"), [("", REFUSED), ("origins=['null', None]", GOT_IN)]
)
def test_a_page_from_the_disk_gets_in_only_with_permission(
    options: str, outcome: str, page: Page, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    file.write_text("<title>mine</title>")
    with server_with(options) as server:
        page.goto(file.as_uri())
        assert page.evaluate(ASK, f"ws://localhost:{server.port}/") == outcome
