"""Chromium, without a window: `URL SCENARIO`, see `tests.interop.scenarios`.

It opens /page of the server that the URL is of, which then does what the other peers are programs
for. Playwright runs a loop of its own, which is one reason more for a process of its own.
"""

from __future__ import annotations

import shutil
import sys
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

from tests.interop.peers.reporting import report

#: No conversations of its own with the rest of the world.
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]


def main(url: str, scenario: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page()
        page.goto(f"http://{urlsplit(url).netloc}/page#{scenario}")
        page.wait_for_function("finished")
        for details in page.evaluate("reports"):
            report(**details)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
