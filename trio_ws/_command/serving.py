"""One process of ``trio-ws serve``: from an application and its sockets to an exit code.

The sockets are bound, the application does its set-up, and only then do the sockets listen, so that
no connection is accepted before there is a handler. A shutdown goes the other way: the application
cleans up when all connections are closed.

A process serves alone, or as a worker. Alone, it obeys signals from the terminal or from a service
manager. A worker obeys its supervisor, and tells it when it is ready. `workers` decides how many
workers there are, and replaces one that ends.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Final, NoReturn, final

import trio

from .._addresses import Address, show_address
from .._errors import CloseCode
from .._http.values import Request, Response
from .._keywords import ListenerKeywords
from .._nursery import leaf_exceptions, open_bare_nursery
from .._server.handlers import Handler
from .._server.listening import bound_unix_socket, listen, port_of
from .._server.server import WebSocketServer, serve_listeners
from .._transport.system import readable
from .application import Application, check_handler
from .exits import DONE, SIGNALLED, CommandFailed
from .line import ALIVE, HURRY, LEAVE, READY, Line
from .listening import bound_tcp_sockets, failing_in_one_line
from .systemd import ServiceManager
from .terminal import print_all

logger = logging.getLogger("trio_ws.serve")

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class Service:
    """What to serve, and where.

    Attributes:
        name: the name of the application, as ``module:attribute``.
        hosts, port: where to listen, unless there is a `unix` path.
        sockets: those that another process has passed on, in place of all these. Others go on with
            them when this process has ended.
        ssl_context: for TLS.
        drain: how many seconds a drain takes when it is asked to stop; `None` for none.
        ready_path, health_path: where to say whether it takes clients, and whether it lives.
        options: those of `serve_listeners`.
    """

    name: str
    hosts: Sequence[str]
    port: int
    unix: str | None
    sockets: Sequence[socket.socket] = ()
    ssl_context: ssl.SSLContext | None
    drain: float | None = None
    ready_path: str | None = None
    health_path: str | None = None
    options: ListenerKeywords

    def where(self, sockets: Sequence[socket.socket]) -> str:
        """The URLs, or the path of the Unix socket, for people to read.

        The URLs have the hosts as they were given, because certificates are made for names.
        """
        if self.unix is not None:
            return f"the Unix socket {self.unix}"
        addresses: list[Address] = [readable(sock.getsockname()) for sock in self.sockets]
        if not addresses:
            addresses = [(host, port_of(sockets)) for host in self.hosts]
        return " and ".join(dict.fromkeys(map(self._show, addresses)))

    def _show(self, address: Address) -> str:
        if not isinstance(address, tuple):
            return f"the Unix socket {(address or '').replace(chr(0), '@')}"
        scheme = "ws" if self.ssl_context is None else "wss"
        return f"{scheme}://{show_address(address)}/"

    @asynccontextmanager
    async def bound_sockets(self) -> AsyncGenerator[list[socket.socket], None]:
        """The sockets to listen on; closed at the end.

        Raises:
            CommandFailed: an address cannot be bound.
        """
        if self.unix is not None:
            with ExitStack() as bound:
                with failing_in_one_line():
                    sock = bound.enter_context(bound_unix_socket(self.unix))
                yield [sock]
        elif self.sockets:
            with ExitStack() as passed:
                yield [passed.enter_context(sock) for sock in self.sockets]
        else:
            async with bound_tcp_sockets(self.hosts, self.port) as sockets:
                yield sockets


@final
class Serving:
    """A service that runs in this process, and can be stopped at any time."""

    def __init__(self, service: Service, application: Application) -> None:
        self._service = service
        self._application = application
        self._server: WebSocketServer | None = None
        self._setting_up = trio.CancelScope()
        self._serving = trio.CancelScope()
        self._is_set_up = False
        self._is_leaving = False
        #: In which the server runs, when there is one.
        self._nursery: trio.Nursery

    def stop(self) -> None:
        """Begin a graceful shutdown, or cancel the application's set-up if it has not finished."""
        (self._serving if self._is_set_up else self._setting_up).cancel()

    def leave(self, *, refuse: bool = True) -> None:
        """Begin the drain, where the service has one and somebody may be connected; else `stop`.

        A second call changes nothing. `refuse` is that of `WebSocketServer.drain`. With false, a
        service without a drain has one that takes no time: it closes all connections at once, but
        turns nobody away.
        """
        seconds, server = self._service.drain, self._server
        if server is None or (seconds is None and refuse):
            self.stop()
        elif not (self._is_leaving or server.draining):
            self._is_leaving = True
            code = CloseCode.GOING_AWAY if seconds is None else CloseCode.SERVICE_RESTART
            self._nursery.start_soon(partial(server.drain, seconds or 0, code, refuse=refuse))

    @property
    def ways_to_stop(self) -> dict[str, Callable[[], None]]:
        """What each further request to stop does, gentlest first, with words for the log."""
        if self._service.drain is not None:
            return {"draining": self.leave, "closing": self.stop}
        # What waits in the queue of a socket that was passed on is for the next process.
        return {"closing": partial(self.leave, refuse=not self._service.sockets)}

    @property
    def connections(self) -> int:
        return len(self._server.connections) if self._server is not None else 0

    async def run(self, ready: Callable[[str], None]) -> None:
        """Serve until stopped.

        Args:
            ready: called as soon as connections are accepted, with the text of `Service.where`.

        Raises:
            CommandFailed: an address cannot be bound, or the application failed.
        """
        async with self._service.bound_sockets() as sockets:
            where = self._service.where(sockets)
            with self._setting_up:
                async with self._opened_application() as handler:
                    self._is_set_up = True
                    with self._serving:
                        await self._serve(handler, sockets, lambda: ready(where))

    @asynccontextmanager
    async def _opened_application(self) -> AsyncGenerator[Handler, None]:
        try:
            async with self._application() as handler:
                yield check_handler(self._service.name, handler)
        except Exception as exc:
            for error in leaf_exceptions(exc):  # the application's nursery may have wrapped it
                if isinstance(error, CommandFailed):
                    raise error from None
            raise CommandFailed(f"{self._service.name} failed") from exc

    async def _serve(
        self, handler: Handler, sockets: Sequence[socket.socket], ready: Callable[[], None]
    ) -> None:
        with failing_in_one_line():
            listeners: list[trio.abc.Listener[trio.abc.Stream]] = [listen(sock) for sock in sockets]
        tls = self._service.ssl_context
        if tls is not None:
            listeners = [trio.SSLListener(listener, tls) for listener in listeners]
        async with open_bare_nursery() as nursery:
            serve = partial(serve_listeners, handler, listeners, **self._options())
            self._nursery = nursery
            self._server = await nursery.start(serve)
            try:
                ready()
            except BaseException:
                nursery.cancel_scope.cancel()
                raise

    def _options(self) -> ListenerKeywords:
        service = self._service
        if service.ready_path is None and service.health_path is None:
            return service.options
        return {**service.options, "process_request": self._answer_probe}

    def _answer_probe(self, request: Request) -> Response | None:
        """What a load balancer or an orchestrator is told; `None` for all other requests."""
        if request.path == self._service.ready_path:
            if self._server is not None and self._server.draining:
                return Response(503, body="stopping\n")
            return Response(200, body="ready\n")
        return Response(200, body="alive\n") if request.path == self._service.health_path else None


# ---------------------------------------------------------------------------
# Alone
# ---------------------------------------------------------------------------


async def serve_alone(service: Service, application: Application, manager: ServiceManager) -> int:
    """Serve until a signal asks to stop.

    The next signal hurries, if the first began a drain. One more ends the process immediately.
    """
    return await serve_until_signalled(Serving(service, application), manager)


async def serve_until_signalled(serving: Serving, manager: ServiceManager) -> int:
    """The same, for a service that something else may stop as well."""
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(_obey_signals, serving, signals, manager)
            nursery.start_soon(_show_life, manager)
            try:
                await serving.run(partial(announce, manager=manager))
            finally:
                nursery.cancel_scope.cancel()
    return DONE


def announce(where: str, manager: ServiceManager) -> None:
    """Say where connections are accepted: to a person or program that waits for this line, too."""
    print_all(f"Serving on {where}\n")
    manager.ready(where)


async def _show_life(manager: ServiceManager) -> None:
    while manager.watchdog < inf:
        await trio.sleep(manager.watchdog / 2)
        manager.alive()


async def _obey_signals(
    serving: Serving, signals: AsyncIterator[int], manager: ServiceManager
) -> None:
    for what, stop in serving.ways_to_stop.items():
        name = signal.Signals(await anext(signals)).name
        logger.info("%s: %s %d connections", name, what, serving.connections)
        manager.stopping()
        stop()
    _exit_at_once(await anext(signals))


def _exit_at_once(number: int) -> NoReturn:
    # What still runs is shielded from cancellation, or is the application's code. Nothing but this
    # ends it now.
    logger.warning("%s again: not waiting any longer", signal.Signals(number).name)
    logging.shutdown()
    os._exit(SIGNALLED + number)


# ---------------------------------------------------------------------------
# As a worker
# ---------------------------------------------------------------------------


async def serve_as_worker(service: Service, application: Application, sock: socket.socket) -> int:
    """Serve until a signal asks to stop, or until the supervisor is gone.

    A second signal changes nothing. A terminal or systemd sends a signal to every process, and the
    supervisor sends one to each worker besides. The supervisor decides when it has waited long
    enough.

    Args:
        service: what to serve, and where.
        application: the application that `service` names.
        sock: one end of a line; the supervisor has the other.
    """
    serving = Serving(service, application)
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        async with Line(sock) as line, open_bare_nursery() as nursery:
            nursery.start_soon(_stop_when_told, serving, signals)
            nursery.start_soon(_obey_supervisor, serving, line)
            try:
                await serving.run(lambda _: nursery.start_soon(line.say, READY))
            finally:
                nursery.cancel_scope.cancel()
    return DONE


async def _stop_when_told(serving: Serving, signals: AsyncIterator[int]) -> None:
    async for _ in signals:
        serving.leave()


async def _obey_supervisor(serving: Serving, line: Line) -> None:
    async with aclosing(line.messages()) as orders:
        async for order, _ in orders:
            if order == LEAVE:
                serving.leave(refuse=False)
            elif order == HURRY:
                serving.stop()
            else:  # a probe, or what only a supervisor of a later version means
                await line.say(ALIVE)
    logger.warning("the supervisor is gone: closing %d connections", serving.connections)
    serving.stop()
