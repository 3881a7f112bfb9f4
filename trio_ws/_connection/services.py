"""What connections share: the watchdog, the flusher, and the nursery of their reader tasks.

This module owns how long these live: longer than any connection among them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import final

import trio

from .._metering import Meter
from .._nursery import open_bare_nursery, protected_context
from .flusher import Flusher, Gathering
from .outbox import ConnectionTask, StartTask
from .watchdog import Watchdog


@final
@dataclass(frozen=True, slots=True)
class Services:
    """What connections share: the watchdog, the flusher, and a nursery for the connections' tasks.

    Attributes:
        watchdog: looks at each connection now and then.
        start_task: starts a task of a connection. It raises nothing, and ends when the connection
            does. Its context variables are those of the block, so that it keeps nothing of the
            task that happened to start it.
        flush_soon: see `Flusher`.
        meter: is told what nobody could find out later, if metrics are on.
    """

    watchdog: Watchdog
    start_task: StartTask
    flush_soon: Callable[[Gathering], None]
    meter: Meter | None


@protected_context
async def open_services(meter: Meter | None = None) -> AsyncGenerator[Services, None]:
    """Services for the connections that live within the block.

    A cancellation reaches the block and not the services: they are needed to close connections.
    """
    watchdog, flusher = Watchdog(), Flusher()
    scopes = [trio.CancelScope(shield=True), trio.CancelScope(shield=True)]
    async with open_bare_nursery() as nursery:
        for scope, run in zip(scopes, (watchdog.run, flusher.run), strict=True):
            nursery.start_soon(_run_within, scope, run)
        try:
            context = copy_context()

            def start_task(run: ConnectionTask) -> None:
                context.run(nursery.start_soon, run)

            yield Services(watchdog, start_task, flusher.flush_soon, meter)
        finally:
            for scope in scopes:
                scope.cancel()


@trio.lowlevel.enable_ki_protection
async def _run_within(scope: trio.CancelScope, run: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await run()
