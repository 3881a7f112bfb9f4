"""The life of one connection: whose its tasks are, and how leaving closes it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import final

import trio

from .._errors import CloseCode, UnexpectedMessage
from .._nursery import leaf_exceptions, open_bare_nursery, protected_context
from .flusher import Flusher
from .watchdog import Watchdog
from .websocket import WebSocket


@final
@dataclass(frozen=True, slots=True)
class Services:
    """What connections share: two tasks, and the nursery in which each has tasks of its own.

    Those raise nothing, and end when their connection does.
    """

    nursery: trio.Nursery
    watchdog: Watchdog
    flusher: Flusher


@protected_context
async def open_services() -> AsyncGenerator[Services, None]:
    """Services for the connections that live within the block.

    A cancellation reaches the block and not the services: they are needed to close connections.
    """
    watchdog, flusher = Watchdog(), Flusher()
    scopes = [trio.CancelScope(shield=True), trio.CancelScope(shield=True)]
    async with open_bare_nursery() as nursery:
        for scope, run in zip(scopes, (watchdog.run, flusher.run), strict=True):
            nursery.start_soon(_run_within, scope, run)
        try:
            yield Services(nursery, watchdog, flusher)
        finally:
            for scope in scopes:
                scope.cancel()


@trio.lowlevel.enable_ki_protection
async def _run_within(scope: trio.CancelScope, run: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await run()


@protected_context
async def run_connection(websocket: WebSocket) -> AsyncGenerator[WebSocket, None]:
    """The life of an open connection that has services of its own.

    Args:
        websocket: one whose tasks were not started yet.
    """
    async with open_services() as services, Lifetime(websocket, services):
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
        services: which outlive it.
    """

    __slots__ = ("_services", "_websocket")

    def __init__(self, websocket: WebSocket, services: Services) -> None:
        self._websocket = websocket
        self._services = services

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> WebSocket:
        services = self._services
        self._websocket._start(services.nursery, services.flusher, services.watchdog)
        services.watchdog.watch(self._websocket)
        return self._websocket

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._websocket._leave(_close_code_for(exc))


def _close_code_for(exc: BaseException | None) -> CloseCode:
    """1011 if anything in `exc` is an error, or 1003 if all errors in it are `UnexpectedMessage`.

    1001 if all of it only tells the program to stop.
    """
    if exc is None:
        return CloseCode.NORMAL_CLOSURE
    errors = [leaf for leaf in leaf_exceptions(exc) if isinstance(leaf, Exception)]
    if not errors:
        return CloseCode.GOING_AWAY
    if all(isinstance(error, UnexpectedMessage) for error in errors):
        return CloseCode.UNSUPPORTED_DATA
    return CloseCode.INTERNAL_ERROR
