"""The life of one connection: whose its tasks are, and how leaving closes it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import final

import trio

from .._errors import CloseCode, UnexpectedMessage
from .._nursery import leaf_exceptions, protected_context
from .._options import ConnectionOptions, ServerStreamOptions
from .._protocol.wire import Wire
from .keepalive import Keepalive
from .outbox import Outbox
from .rates import Rates
from .reader import Reader
from .reading import Reading
from .sender import Sender
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
        _start(self._websocket, self._services)
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


def _start(websocket: WebSocket, services: Services) -> None:
    """Let the connection be read. From here on only `aclose` or the end of its peer ends it."""
    # What the outbox is given must not refer back to the connection, which would then be freed only
    # when the garbage collector looks. `ending` does refer to the outbox: `Outbox.stop` lets go of
    # it when the connection is over.
    transport, wire, inbox = websocket._transport, websocket._wire, websocket._inbox
    options, pings, ending = websocket._options, websocket._pings, websocket._ending
    liveness, logger = websocket._liveness, websocket._logger
    outbox = Outbox(
        transport,
        options.max_send_buffer,
        services.start_task,
        services.flush_soon,
        ending.write_failed,
        patience=options.ping_interval + options.ping_timeout,
    )
    reading = Reading(transport, services.watchdog, services.start_task)
    ending.attach(outbox, reading)
    websocket._outbox = outbox
    websocket._reading = reading
    websocket._sender = Sender(
        wire,
        inbox,
        outbox,
        reading=reading,
        ending=ending,
        liveness=liveness,
        logger=logger,
        meter=services.meter,
    )
    pings.meter = services.meter
    hook = options.on_ping_pong
    reader = websocket._reader = Reader(
        transport,
        wire,
        inbox,
        outbox,
        pings,
        reading=reading,
        ending=ending,
        liveness=liveness,
        logger=logger,
        rates=_rates(options, wire),
        # Whichever task reads, the hook finds the context variables of the task that opened this.
        tell=None if hook is None else partial(copy_context().run, hook, websocket),
    )
    websocket._keepalive = Keepalive(
        liveness, wire, outbox, pings, reading=reading, ending=ending, logger=logger
    )
    reading.begin(reader.run, websocket._received)
    services.watchdog.watch(websocket._keepalive)


def _rates(options: ConnectionOptions, wire: Wire) -> Rates | None:
    """How fast the peer may send; `None` for as fast as it likes."""
    if not isinstance(options, ServerStreamOptions) or not options.limits_rates:
        return None
    return Rates(
        options.max_messages_per_second,
        options.max_bytes_per_second,
        trio.current_time(),
        wire,
        closes=options.on_rate_limit == "close",
    )
