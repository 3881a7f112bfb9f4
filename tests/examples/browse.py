"""Open a page in Chromium, wait until it has a title, and print that: ``-m … browse URL``.

Playwright runs a loop of its own, so it gets a process of its own.
"""

from __future__ import annotations

import shutil
import sys

from playwright.sync_api import sync_playwright

from tests.interop.peers.browser import FLAGS


def main(url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page()
        page.goto(url)
        page.wait_for_function("document.title")
        sys.stdout.write(page.title())
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
