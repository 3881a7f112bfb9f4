"""The life of one connection: whose its tasks are, and how leaving closes it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import final

import trio

from .._errors import CloseCode, UnexpectedMessage
from .._nursery import leaf_exceptions, protected_context
from .services import Services, open_services
from .websocket import WebSocket


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
        self._websocket._start(self._services)
        return self._websocket

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._websocket._ending.leave(_close_code_for(exc))


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
