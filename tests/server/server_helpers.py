"""Servers in memory and handlers that fail, for tests of servers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

import trio_ws
from tests.helpers import HOST
from trio_ws import WebSocketServer, serve_listeners, serve_websocket
from trio_ws._nursery import open_bare_nursery


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Listens for `connect` calls in the same process, so that the clock may be jumped."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](0)
        self.error: BaseException | None = None

    async def connect(self) -> trio.abc.Stream:
        client, server = trio.testing.memory_stream_pair()
        await self.deliver(server)
        return client

    async def deliver(self, stream: trio.abc.Stream) -> None:
        await self._send.send(stream)

    async def accept(self) -> trio.abc.Stream:
        stream = await self._receive.receive()
        if self.error is not None:
            raise self.error
        return stream

    async def aclose(self) -> None:
        self._send.close()
        self._receive.close()
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def memory_server(
    handler: Any, **options: Any
) -> AsyncGenerator[tuple[WebSocketServer, MemoryListener, trio.CancelScope], None]:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def serve(task_status: trio.TaskStatus[WebSocketServer]) -> None:
            with scope:
                await serve_listeners(handler, [listener], task_status=task_status, **options)

        server = await nursery.start(serve)
        yield server, listener, scope
        scope.cancel()


def connect(listener: MemoryListener, stream: trio.abc.Stream, **options: Any) -> Any:
    return trio_ws.wrap_client_stream(stream, "ws://localhost/", **options)


class Boom(Exception):
    pass


@asynccontextmanager
async def open_bare_server(handler: Any, **options: Any) -> AsyncGenerator[WebSocketServer, None]:
    async with open_bare_nursery() as nursery:
        yield await nursery.start(
            lambda task_status: serve_websocket(
                handler, HOST, 0, task_status=task_status, **options
            )
        )
