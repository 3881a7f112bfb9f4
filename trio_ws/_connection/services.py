"""What connections share: the watchdog, the flusher, and the nursery of their reader tasks.

This module owns how long these live: longer than any connection among them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import final

import trio

from .._nursery import open_bare_nursery, protected_context
from .flusher import Flusher
from .watchdog import Watchdog


@final
@dataclass(frozen=True, slots=True)
class Services:
    """What connections share: the watchdog, the flusher, and a nursery for the connections' tasks.

    The tasks of a connection raise nothing, and end when it does.
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
