"""``trio-ws serve --metrics``: the page that Prometheus asks for, on a port of its own.

This module owns what that port answers. It is given the numbers: those of this process, or the sums
over all workers.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NoReturn, final

from .._addresses import show_address
from .._connection.websocket import WebSocket
from .._http.values import Answer, Request, Response
from .._metering import Numbers
from .._nursery import open_bare_nursery
from .._options import ListenerOptions
from .._server.listening import listen, port_of
from .._server.server import WebSocketServer
from .._web.site import Site
from ..metrics._exposition import page_of, prometheus
from .exits import CommandFailed
from .listening import bound_tcp_sockets, failing_in_one_line

logger = logging.getLogger("trio_ws.serve")

PATH = "/metrics"

#: Scrapers are few, and trusted as far as they can reach the port. One that is slow takes the place
#: of one of these, for at most as many seconds.
OPTIONS = ListenerOptions(max_connections=16, open_timeout=5.0, grace_period=1.0, max_body_size=1)


def check_can_show() -> None:
    """Make sure that numbers can be shown, before anything is served.

    Raises:
        CommandFailed: prometheus-client is not installed.
    """
    try:
        prometheus()
    except ImportError as exc:
        raise CommandFailed(str(exc)) from None


@final
class _Endpoint(Site):
    """Answers ``GET /metrics``, and refuses everything else.

    Args:
        read: gives the numbers.
    """

    def __init__(self, read: Callable[[], Awaitable[Numbers]]) -> None:
        self._read = read

    def check(self) -> None:
        """It is ours."""

    async def __call__(self, websocket: WebSocket) -> NoReturn:
        raise AssertionError  # pragma: no cover - no WebSocket is admitted

    async def admit(self, request: Request) -> Answer:
        if request.path != PATH or request.is_upgrade:
            return Response(404, body=f"The metrics are at {PATH}.\n")
        if request.method not in ("GET", "HEAD"):
            return Response(405, {"Allow": "GET, HEAD"}, "Metrics can only be read.\n")
        return None

    async def respond(self, request: Request) -> Response:
        return await page_of(await self._read())


@asynccontextmanager
async def scraped(
    host: str, port: int, read: Callable[[], Awaitable[Numbers]]
) -> AsyncGenerator[None, None]:
    """Answer scrapers for as long as the block goes on.

    Raises:
        CommandFailed: the address cannot be bound.
    """
    async with bound_tcp_sockets([host], port, option="--metrics") as sockets:
        with failing_in_one_line():
            listeners = [listen(sock) for sock in sockets]
        logger.info("metrics are at http://%s%s", show_address((host, port_of(sockets))), PATH)
        # Not by `serve_listeners`: the numbers are not to count who asks for them.
        server = WebSocketServer(_Endpoint(read), listeners, OPTIONS, host)
        async with open_bare_nursery() as nursery:
            await nursery.start(server._run)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
