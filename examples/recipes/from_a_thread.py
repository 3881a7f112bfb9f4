"""Uses a WebSocket from code without async: trio runs in a thread of its own."""

import argparse
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Unpack

import trio

from trio_ws import ClientKeywords, WebSocket, open_websocket_url


class BlockingWebSocket:
    """A connection whose methods block the thread that calls them. Several threads may."""

    def __init__(self, ws: WebSocket, token: trio.lowlevel.TrioToken) -> None:
        self._ws = ws
        self._token = token

    def send(self, message: str | bytes) -> None:
        trio.from_thread.run(self._ws.send, message, trio_token=self._token)

    def receive(self, timeout: float = float("inf")) -> str | bytes:
        """The next message. A `trio.TooSlowError` after `timeout` seconds loses none."""
        return trio.from_thread.run(self._receive, timeout, trio_token=self._token)

    async def _receive(self, timeout: float) -> str | bytes:
        with trio.fail_after(timeout):
            return await self._ws.receive()


@contextmanager
def open_blocking(
    url: str, **options: Unpack[ClientKeywords]
) -> Generator[BlockingWebSocket, None, None]:
    """`open_websocket_url`, for threads without trio. Leaving the block closes the connection."""
    opened: Future[tuple[WebSocket, trio.lowlevel.TrioToken]] = Future()
    left = trio.Event()

    async def run() -> None:
        try:
            async with open_websocket_url(url, **options) as ws:
                opened.set_result((ws, trio.lowlevel.current_trio_token()))
                await left.wait()
        except BaseException as exc:
            if opened.done():
                raise
            opened.set_exception(exc)

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(trio.run, run)
        ws, token = opened.result()
        try:
            yield BlockingWebSocket(ws, token)
        finally:
            token.run_sync_soon(left.set)
        running.result()


def main(url: str) -> None:
    with open_blocking(url) as ws:
        ws.send("Hello world!")
        print(ws.receive(timeout=10))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://localhost:8765/")
    main(parser.parse_args().url)
