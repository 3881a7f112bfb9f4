"""The life of one connection: whose its tasks are, and how leaving closes it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import final

import trio

from ._connection import WebSocket
from ._errors import CloseCode
from ._nursery import leaf_exceptions, open_bare_nursery, protected_context
from ._watchdog import Watchdog


@protected_context
async def run_connection(websocket: WebSocket) -> AsyncGenerator[WebSocket, None]:
    """The life of an open connection with a nursery of its own, and a watchdog in it.

    Args:
        websocket: one whose tasks were not started yet.
    """
    watchdog = Watchdog()
    async with open_bare_nursery() as nursery:
        nursery.start_soon(_run_watchdog, watchdog, websocket)
        async with Lifetime(websocket, nursery, watchdog):
            yield websocket


@final
class Lifetime(AbstractAsyncContextManager[WebSocket, None]):
    """The life of an open connection among others: its tasks start here, and have ended after it.

    Leaving closes: with 1000 where the block ends, with 1001 where it is cancelled, with 1011
    where it raises. It takes at most `close_timeout`, also under cancellation, and whatever the
    block raised then comes out as it went in.

    A class, because a generator, and a nursery for each connection, would take 3 KiB for as long
    as it lives.

    Args:
        websocket: one whose tasks were not started yet.
        nursery: whose children they become. They raise nothing, and end when the connection does.
        watchdog: one that is running.
    """

    __slots__ = ("_nursery", "_watchdog", "_websocket")

    def __init__(self, websocket: WebSocket, nursery: trio.Nursery, watchdog: Watchdog) -> None:
        self._websocket = websocket
        self._nursery = nursery
        self._watchdog = watchdog

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> WebSocket:
        self._websocket._start(self._nursery)
        self._watchdog.watch(self._websocket)
        return self._websocket

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._websocket._leave(_close_code_for(exc))


@trio.lowlevel.enable_ki_protection
async def _run_watchdog(watchdog: Watchdog, websocket: WebSocket) -> None:
    """A connection's own watchdog: it ends with the connection."""
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = True
        nursery.start_soon(watchdog.run)
        await websocket.wait_closed()
        nursery.cancel_scope.cancel()


def _close_code_for(exc: BaseException | None) -> CloseCode:
    """1011 if anything in `exc` is an error; 1001 if all of it only tells the program to stop."""
    if exc is None:
        return CloseCode.NORMAL_CLOSURE
    if any(isinstance(leaf, Exception) for leaf in leaf_exceptions(exc)):
        return CloseCode.INTERNAL_ERROR
    return CloseCode.GOING_AWAY
