"""Servers: listeners, a task for each connection with its handler in it, and a graceful shutdown.

This module owns the entry points, and the nurseries in which everything runs. `admission` accepts
connections, `visit` serves one, `handlers` deals with what handlers raise. `shutdown` has the
phases of the end, and `draining` the pace of a drain, which may come before a shutdown.

A shutdown goes in this order, whether a cancellation (Ctrl-C included), `WebSocketServer.aclose` or
an error has caused it:

1. The listeners are closed. A client in the opening handshake is answered 503, and an HTTP
   connection that waits for a request is dropped.
2. Every connection sends Close 1001 (or what `aclose` was given). Its handler finds the connection
   ended as soon as it has taken what was received before.
3. After `grace_period`, handlers and endpoints that still run are cancelled.
4. Every connection's socket is closed, at most `close_timeout` later.

Nothing is left running after that, and the cause of the shutdown goes on its way.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Iterator, KeysView, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from typing import Final, Unpack, final

import trio

from .._addresses import Address, show_address
from .._arguments import check_async, check_host, check_port, check_server_context, is_name
from .._connection.services import open_services
from .._connection.websocket import WebSocket
from .._errors import CloseCode, close_code
from .._http.hosts import LOOPBACK_HOSTS, LOOPBACK_NETWORKS
from .._http.networks import Networks
from .._keywords import ListenerKeywords
from .._metering import (
    HANDLER_ERRORS,
    HANDSHAKES,
    HANDSHAKES_OPEN,
    HTTP_CONNECTIONS,
    HTTP_REQUESTS,
    METER,
    OPENED,
    Meter,
    Numbers,
    measured,
    status_label,
)
from .._nursery import errors_in, open_bare_nursery, raise_as_is
from .._options import ListenerOptions, make_options, shows_options
from .._threads import check_in_trio
from .._transport.checks import check_listeners
from .._transport.stream import Transport
from .._transport.system import socket_address
from .._web.site import Site
from .admission import accept_all
from .door import TurnedAway
from .handlers import Failures, Handler
from .listening import open_tcp_listeners
from .metering import measure_connections
from .shutdown import Drain, Phase, Shutdown
from .visit import ServerState, Stage, Visit


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """A snapshot of one server.

    Attributes:
        connections: open now.
        handshakes: accepted, and still in the opening handshake.
        connections_total: opened since the start.
        refused_total: streams that did not become connections: bad requests, timeouts, plain HTTP
            where no `Router` serves it.
        handler_errors_total: handlers and endpoints that ended with an exception of their own.
        http_connections: open now, with nothing but HTTP so far, answered by a `Router`.
        http_requests_total: HTTP requests that a `Router` was asked for.
    """

    connections: int
    handshakes: int
    connections_total: int
    refused_total: int
    handler_errors_total: int
    http_connections: int
    http_requests_total: int


@final
class WebSocketServer:
    """A running server: what ``await nursery.start(serve_websocket, …)`` gives."""

    def __init__(
        self,
        handler: Handler,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        options: ListenerOptions,
        host: str | None = None,
        *,
        meter: Meter | None = None,
    ) -> None:
        self._listeners = listeners
        # Read now, because a closed socket no longer knows its address.
        self._addresses = [_listening_address(listener) for listener in listeners]
        #: The name that all of these are addresses of.
        self._name = host if host is not None and is_name(host) else None
        self._options = options = _with_hosts(options, self._addresses, host)
        self._shutdown = Shutdown()
        self._stopped = trio.Event()
        self._accepted_all = trio.Event()
        site = handler if isinstance(handler, Site) else None
        failures = Failures(options.on_handler_error, self._shutdown.fail)
        self._state = ServerState(handler, site, options, self._shutdown, failures, meter=meter)

    @property
    def port(self) -> int:
        """The port that it listens on: the one that the system picked, if 0 was asked for.

        With listeners of your own, it is the port of the first.

        Raises:
            AttributeError: that one is a Unix socket, or no socket at all, and has no port.
        """
        address = self._addresses[0]
        if not isinstance(address, tuple):
            raise AttributeError("this server listens on no TCP port")  # noqa: TRY004 - of us, not of it
        return address[1]

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it serves.

        If a host name was given, that is one URL with the name, because its certificate demands
        the name. Otherwise there is one URL with the address of each TCP listener.
        """
        urls: list[str] = []
        for listener, address in zip(self._listeners, self._addresses, strict=True):
            if isinstance(address, tuple):
                scheme = "wss" if isinstance(listener, trio.SSLListener) else "ws"
                urls.append(f"{scheme}://{show_address((self._name or address[0], address[1]))}/")
        return tuple(dict.fromkeys(urls))

    @property
    def draining(self) -> bool:
        """Whether it takes no more connections: a drain or a shutdown has begun, or is over.

        What tells a load balancer that the server is ready says 503 from then on.
        """
        return self._shutdown.phase is not Phase.SERVING

    @property
    def connections(self) -> KeysView[WebSocket]:
        """The open connections: a live, read-only set. Copy it to iterate over it with awaits."""
        return self._state.connections.keys()

    def statistics(self) -> ServerStatistics:
        """How many connections there are and were."""
        state = self._state
        return ServerStatistics(
            connections=len(state.connections),
            handshakes=state.stages[Stage.OPENING],
            connections_total=state.connections_total,
            refused_total=state.refused_total,
            handler_errors_total=state.failures.total,
            http_connections=state.stages[Stage.HTTP],
            http_requests_total=state.http_requests_total,
        )

    def _measure(self, numbers: Numbers) -> Iterator[None]:
        """A source of a meter."""
        state = self._state
        numbers[OPENED.start] += state.connections_total
        numbers[HANDSHAKES_OPEN.start] += state.stages[Stage.OPENING]
        numbers[HTTP_CONNECTIONS.start] += state.stages[Stage.HTTP]
        numbers[HTTP_REQUESTS.start] += state.http_requests_total
        numbers[HANDLER_ERRORS.start] += state.failures.total
        return measure_connections(state.connections, numbers)

    def __repr__(self) -> str:
        state = "stopped" if self._stopped.is_set() else _STATES[self._shutdown.phase]
        where = " ".join(self.urls) or "no TCP port"
        return f"<WebSocketServer {state} on {where}, {len(self.connections)} connections>"

    async def aclose(self, code: int | None = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Shut down in good order (see `serve_websocket`), and wait until nothing is left.

        After that, the task that serves returns. A second call only waits. If this call is
        cancelled, the shutdown goes on without it. A handler that calls it waits for itself, until
        `grace_period` is over.

        Raises:
            ValueError: a Close frame may not carry `code` or `reason`; nothing was done.
        """
        self._shutdown.begin(close_code(code, reason), reason)
        await self._stopped.wait()

    async def drain(
        self,
        seconds: float,
        code: int | None = CloseCode.SERVICE_RESTART,
        reason: str = "",
        *,
        refuse: bool = True,
    ) -> None:
        """Close the connections one by one, shut down, and wait until all is over.

        Clients that are all closed at once come back all at once. Here each connection is closed at
        a moment of its own. The order is random, and the moments are evenly spread. The ordinary
        shutdown follows as soon as no connection is open (see `serve_websocket`).

        A new client that asks for a WebSocket gets 503. Its Retry-After is a random number of
        seconds, from 1 to `seconds` and at most 60. A client whose request had come before is still
        let in, and closed in its turn. Plain HTTP is answered as before, health checks included,
        with ``Connection: close``.

        A second call, or `aclose`, hurries: the shutdown begins at once, with the code of that
        call. If this call is cancelled, the drain goes on without it.

        Args:
            seconds: how long it takes at most, before the shutdown. Choose it by how many clients
                a second the servers can welcome that these go to: a thousand in a minute are 17 a
                second.
            code: of the Close frames. With `None`, no connection is closed: all may finish, and
                those that have not done so within `seconds` (perhaps `math.inf`) get 1001.
            reason: of the Close frames.
            refuse: with false, the listeners are closed at once, and nobody gets 503. This is for a
                server beside others that accept from the same sockets, so that new clients get to
                them. Clients that were accepted before are let in and closed in their turn: the
                drain waits for their handshakes, `open_timeout` at most.

        Raises:
            ValueError: `seconds` is below 0, or infinite with a code, or a Close frame may not
                carry `code` or `reason`. Nothing was done.
        """
        if not 0 <= seconds <= (sys.float_info.max if code is not None else inf):
            raise ValueError(
                "a drain takes 0 seconds or more; only one without a code may take math.inf: "
                f"not {seconds!r}"
            )
        close = (close_code(CloseCode.GOING_AWAY if code is None else code, reason), reason)
        self._shutdown.drain(Drain(seconds, close, waits=code is None, refuses=refuse))
        await self._stopped.wait()

    # Serving…

    @trio.lowlevel.enable_ki_protection
    async def _run(self, task_status: trio.TaskStatus[WebSocketServer]) -> None:
        """Serve until stopped, in the order that the module describes."""
        try:
            with measured(self._measure, self._state.meter):
                async with open_bare_nursery() as nursery:
                    nursery.start_soon(self._host_connections)
                    task_status.started(self)
                    try:
                        await self._shutdown.wait_begun()
                    finally:
                        self._shutdown.begin()
        except trio.Cancelled:
            if not self._shutdown.failures:
                raise
        finally:
            self._stopped.set()
        if self._shutdown.failures:  # even if a cancellation came besides
            raise_as_is(self._shutdown.failures.pop())

    @trio.lowlevel.enable_ki_protection
    async def _host_connections(self) -> None:
        """Run the nursery in which connections live. A cancellation from outside spares it."""
        with trio.CancelScope(shield=True):
            async with (
                open_services(self._state.meter) as services,
                open_bare_nursery() as connections,
            ):
                self._state.services = services
                async with open_bare_nursery() as until_shutdown:
                    accepting = trio.CancelScope()
                    until_shutdown.start_soon(self._accept, connections, accepting)
                    until_shutdown.start_soon(self._drain, accepting)
                    await self._shutdown.wait_begun()
                    until_shutdown.cancel_scope.cancel()
                for websocket in self._state.connections:
                    websocket._ending.close(*self._shutdown.close)
                grace_ends = trio.current_time() + self._options.grace_period
                connections.cancel_scope.deadline = grace_ends

    @trio.lowlevel.enable_ki_protection
    async def _accept(self, connections: trio.Nursery, scope: trio.CancelScope) -> None:
        state = self._state
        door = state.door

        def serve(transport: Transport) -> None:
            connections.start_soon(Visit(transport, state).run)

        def serve_at_door(transport: Transport) -> None:
            assert door is not None
            try:
                place = door.enter_directly(transport)
            except TurnedAway as exc:
                state.refused_total += 1
                if state.meter is not None:
                    state.meter.count(HANDSHAKES, status_label(exc.response.status))
                door.refuse(transport, exc.response, connections.start_soon)
            else:
                connections.start_soon(Visit(transport, state, place).run)

        try:
            with scope:
                await accept_all(
                    self._listeners,
                    serve if door is None else serve_at_door,
                    self._options.logger,
                )
        except BaseException as exc:
            errors = errors_in(exc)
            if not errors:
                raise
            self._shutdown.fail(errors[0])  # a listener broke
        finally:
            self._accepted_all.set()

    @trio.lowlevel.enable_ki_protection
    async def _drain(self, accepting: trio.CancelScope) -> None:
        """Wait for a drain, and carry it out. The shutdown cancels this."""
        drain = await self._shutdown.wait_drain()
        until = trio.current_time() + drain.seconds
        draining = self._state.draining
        if not drain.refuses:
            accepting.cancel()
            await self._accepted_all.wait()
            await trio.lowlevel.checkpoint()  # those who came last have begun their handshakes
        while True:
            if drain.waits:
                await draining.wait(until)
            else:
                await draining.close_evenly(until, lambda ws: ws._ending.close(*drain.close))
            if drain.refuses or not self._state.stages[Stage.OPENING]:
                break
            await draining.wait_change()
        self._shutdown.begin(*drain.close)


#: What the repr calls each phase.
_STATES: Final = {Phase.SERVING: "serving", Phase.DRAINING: "draining", Phase.ENDING: "stopping"}


# ---------------------------------------------------------------------------
# Entry points
# ---------------------------------------------------------------------------


@shows_options(ListenerOptions)
async def serve_websocket(
    handler: Handler,
    host: str | None,
    port: int,
    *,
    ssl_context: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[WebSocketServer] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ListenerKeywords],
) -> None:
    """Serve WebSockets over TCP until cancelled::

        async def echo(ws):
            async for message in ws:
                await ws.send(message)

        trio.run(serve_websocket, echo, "localhost", 8765)

    Cancelling it is the graceful shutdown. It stops accepting, answers 503 to clients in the
    opening handshake, and closes every connection with 1001. Handlers have `grace_period` seconds
    to finish, and are cancelled after that. At most `close_timeout` later nothing is left running.

    Args:
        handler: called with each `WebSocket`. The connection is closed when it returns: with 1000,
            or with 1011 if it raises (see `on_handler_error`).
        host: the address or name to bind, or `None` for every interface. Write an IPv6 address
            without brackets.
        port: the port, or 0 for a free one that the system picks, the same for every address.
        ssl_context: for TLS, with a certificate loaded.
        task_status: ``server = await nursery.start(serve_websocket, …)`` gives the
            `WebSocketServer` as soon as it accepts connections.
        options: those of `ListenerOptions`.

    Raises:
        OSError: the host is not found, the address cannot be bound, or a listener broke later.
        TypeError, ValueError: an argument or an option is wrong. Nothing was started.
        Exception: what a handler raised, with ``on_handler_error="propagate"``; no group.
    """
    check_in_trio("serve_websocket")
    settings = _checked_options(handler, options, serve_websocket)
    if host is not None:
        check_host(host)
    check_port(port)
    check_server_context(ssl_context)
    listeners: list[trio.abc.Listener[trio.abc.Stream]] = [*await open_tcp_listeners(host, port)]
    if ssl_context is not None:
        listeners = [trio.SSLListener(listener, ssl_context) for listener in listeners]
    server = WebSocketServer(handler, listeners, settings, host, meter=METER.get())
    await server._run(task_status)


@shows_options(ListenerOptions)
async def serve_listeners(
    handler: Handler,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    *,
    task_status: trio.TaskStatus[WebSocketServer] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ListenerKeywords],
) -> None:
    """`serve_websocket` over listeners of your own: Unix sockets, TLS, memory.

    The listeners are closed at the end, and also if an argument or an option is wrong.

    Raises:
        OSError: a listener broke.
        TypeError, ValueError: an argument or an option is wrong. Nothing was started.
        Exception: what a handler raised, with ``on_handler_error="propagate"``; no group.
    """
    check_in_trio("serve_listeners")
    if not hasattr(listeners, "__iter__"):
        if isinstance(listeners, trio.abc.Listener):
            await trio.aclose_forcefully(listeners)
        raise TypeError(
            f"listeners are given in a list, also where there is one: not {listeners!r}"
        )
    given = tuple(listeners)
    try:
        settings = _checked_options(handler, options, serve_listeners)
        await check_listeners(given)
    except BaseException:
        for listener in given:
            with suppress(AttributeError):  # not a listener, or TLS over something that is not
                await trio.aclose_forcefully(listener)
        raise
    await WebSocketServer(handler, given, settings, meter=METER.get())._run(task_status)


def _checked_options(
    handler: Handler, options: ListenerKeywords, entry_point: Callable[..., object]
) -> ListenerOptions:
    check_async("the handler", handler, "one WebSocket")
    if isinstance(handler, Site):
        handler.check()
    return make_options(ListenerOptions, options, entry_point)


def _with_hosts(
    options: ListenerOptions, addresses: Sequence[Address], host: str | None
) -> ListenerOptions:
    """The options of a server on `host`, with the names that a server on loopback answers to."""
    if options.hosts is not None or options.trusted_proxies or not addresses:
        return options
    loopback = Networks(LOOPBACK_NETWORKS)
    if not all(address in loopback for address in addresses):
        return options
    return replace(options, hosts=(*LOOPBACK_HOSTS, *([] if host is None else [host])))


def _listening_address(listener: trio.abc.Listener[trio.abc.Stream]) -> Address:
    return socket_address(listener, "getsockname")
