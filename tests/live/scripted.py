"""A server that says what a test says, to a page: the module for browsers, in a process of Node."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from tests.interop.processes import Peer, node_peer, run_peer
from trio_ws import WebSocket, WebSocketServer, serve_websocket

V1 = "trio-ws.live.v1"

#: Milliseconds. No test is to wait for the pauses that pages make.
SOON = {"minDelay": 1, "maxDelay": 4}


class Page:
    """A page in Node: it is told what to do, and says what happens to it."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.seen: list[dict[str, Any]] = []

    async def do(self, name: str, *arguments: object) -> None:
        await self._peer.tell(json.dumps([name, *arguments]))

    async def next(self, event: str) -> dict[str, Any]:
        """What it reports of the next such event; all others are in `seen`."""
        while True:
            report = await self._peer.next_report()
            if report.pop("event") == event:
                return report
            self.seen.append(report)

    async def until(self, state: str) -> dict[str, Any]:
        """The status, when it is such."""
        while (status := await self.next("status"))["state"] != state:
            pass
        return status


class Server:
    """Hands its connections to the test, one after the other."""

    def __init__(self, url: str, connections: trio.MemoryReceiveChannel[WebSocket]) -> None:
        self.url = url
        self._connections = connections

    async def next(self) -> WebSocket:
        return await self._connections.receive()

    async def subscribed(self, topic: str = "news", *, recovered: bool = False) -> WebSocket:
        """The next connection, on which a page has subscribed to one topic."""
        ws = await self.next()
        assert (await ws.receive_json())["topic"] == topic
        await ws.send_json({"type": "subscribed", "topic": topic, "recovered": recovered})
        return ws


@asynccontextmanager
async def serving(*, subprotocols: tuple[str, ...] = (V1,)) -> AsyncGenerator[Server, None]:
    opened, connections = trio.open_memory_channel[WebSocket](100)

    async def hand_over(ws: WebSocket) -> None:
        opened.send_nowait(ws)
        await ws.wait_closed()

    async with trio.open_nursery() as nursery:
        serve = partial(
            serve_websocket, hand_over, "localhost", 0, subprotocols=subprotocols, grace_period=0.1
        )
        server: WebSocketServer = await nursery.start(serve)
        yield Server(server.urls[0], connections)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def page_at(url: str, **options: object) -> AsyncGenerator[Page, None]:
    async with run_peer(*node_peer("live"), url, json.dumps({**SOON, **options})) as peer:
        page = Page(peer)
        try:
            yield page
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await page.do("close")
