"""Both sides of a connection, a whole message in pieces, and how long sending holds others up."""

from __future__ import annotations

import time

import pytest
import trio

from tests.helpers import open_client_with_raw_server, open_server_with_raw_client
from trio_ws import WebSocket

BOTH_SIDES = pytest.mark.parametrize(
    "open_raw", [open_server_with_raw_client, open_client_with_raw_server], ids=["server", "client"]
)


async def collect(ws: WebSocket) -> list[str | bytes]:
    async with ws.receive_message() as chunks:
        return [chunk async for chunk in chunks]


async def longest_share(one: WebSocket, message: str | bytes) -> float:
    """How much of the time that it takes to send it no other task can run, at most at a time."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            start = time.thread_time()
            try:
                await trio.lowlevel.checkpoint()
            finally:
                longest = max(longest, time.thread_time() - start)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        while not longest:  # it has not begun
            await trio.lowlevel.checkpoint()
        start = time.thread_time()
        await one.send(message)
        whole = time.thread_time() - start
        nursery.cancel_scope.cancel()
    return longest / whole
