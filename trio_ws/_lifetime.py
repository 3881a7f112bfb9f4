"""The life of one connection: the nursery that owns its tasks, and how leaving closes it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import trio

from ._connection import WebSocket
from ._errors import CloseCode
from ._nursery import leaf_exceptions, open_bare_nursery, protected_context
from ._watchdog import Watchdog


@protected_context
async def run_connection(
    websocket: WebSocket, watchdog: Watchdog | None = None
) -> AsyncGenerator[WebSocket, None]:
    """The life of an open connection, client's or server's: the one nursery that owns its tasks.

    Leaving closes: with 1000 where the block ends, with 1001 where it is cancelled, with 1011
    where it raises. It takes at most `close_timeout`, also under cancellation, and whatever the
    block raised then comes out as it went in.

    Args:
        websocket: one whose tasks were not started yet.
        watchdog: a running one to use; without it, the connection gets its own.
    """
    async with open_bare_nursery() as nursery:
        websocket._start(nursery)
        if watchdog is None:
            watchdog = Watchdog()
            nursery.start_soon(_run_watchdog, watchdog, websocket)
        watchdog.watch(websocket)
        code = CloseCode.NORMAL_CLOSURE
        try:
            yield websocket
        except BaseException as exc:
            code = _close_code_for(exc)
            raise
        finally:
            with trio.CancelScope(shield=True):
                await websocket.aclose(code)


@trio.lowlevel.enable_ki_protection
async def _run_watchdog(watchdog: Watchdog, websocket: WebSocket) -> None:
    """A connection's own watchdog: it ends with the connection."""
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = True
        nursery.start_soon(watchdog.run)
        await websocket.wait_closed()
        nursery.cancel_scope.cancel()


def _close_code_for(exc: BaseException) -> CloseCode:
    """1011 if anything in `exc` is an error; 1001 if all of it only tells the program to stop."""
    if any(isinstance(leaf, Exception) for leaf in leaf_exceptions(exc)):
        return CloseCode.INTERNAL_ERROR
    return CloseCode.GOING_AWAY
