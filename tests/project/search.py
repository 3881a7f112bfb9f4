"""What the search of the built documentation finds first: ``make docs`` asks it, in Chromium.

Sphinx's search runs in the browser. So the site is served as it will be, on loopback, and each word
is looked for as a reader does. A page says in a comment which words find it (`index_words` in
``docs/conf.py``).
"""

from __future__ import annotations

import functools
import http.server
import shutil
import sys
import threading

from playwright.sync_api import Page, TimeoutError, sync_playwright  # noqa: A004 - its own

from tests.interop.peers.browser import FLAGS
from tests.project.pages import ROOT

#: Each word, and the page that has to come first.
WANTED = {
    "retry": "how-to/reconnecting",
    "reconnect": "how-to/reconnecting",
    "heartbeat": "explanation/timeouts",
    "keepalive": "explanation/timeouts",
    "timeout": "explanation/timeouts",
    "prometheus": "how-to/metrics",
    "1006": "troubleshooting",
    "1011": "troubleshooting",
    "403": "troubleshooting",
    "proxy": "how-to/proxies",
    "nginx": "how-to/proxies",
    "http_proxy": "how-to/through-a-proxy",
    "certificate": "how-to/tls",
    "docker": "how-to/containers",
    "kubernetes": "how-to/kubernetes",
    "systemd": "how-to/systemd",
    "workers": "how-to/workers",
    "graceful": "how-to/restarts",
    "logging": "how-to/logging",
    "json": "how-to/json",
    "upload": "how-to/large-files",
    "thread": "how-to/from-a-thread",
    "login": "how-to/authentication",
    "redis": "how-to/backplane",
    "asyncio": "faq",
    "memory": "explanation/memory",
    "nursery": "explanation/structured-concurrency",
}

#: Seconds for one search, on a busy machine.
PATIENCE = 30


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves the site, and says nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


class Site(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a browser that goes on to the next page reads no further."""


def first_found(page: Page, site: str, word: str) -> str:
    """The page at the top of the results, without its ending and what leads into it."""
    page.goto(f"{site}search.html?q={word}")
    result = page.locator("#search-results ul.search li a").first
    try:
        result.wait_for(timeout=PATIENCE * 1000)
    except TimeoutError:
        return "nothing"
    address = str(result.evaluate("link => link.href")).removeprefix(site)
    return address.partition("?")[0].partition("#")[0].removesuffix(".html")


def main() -> int:
    serve = functools.partial(QuietHandler, directory=str(ROOT / "docs/_build/html"))
    with Site(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site = f"http://127.0.0.1:{server.server_port}/"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=FLAGS
            )
            page = browser.new_page()
            found = {word: first_found(page, site, word) for word in WANTED}
            browser.close()
        server.shutdown()
    wrong = {word: found[word] for word, wanted in WANTED.items() if found[word] != wanted}
    for word, other in wrong.items():
        sys.stderr.write(f"searching for {word!r} finds {other}, and not {WANTED[word]}\n")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())
