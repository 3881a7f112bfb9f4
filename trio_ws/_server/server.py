"""Servers: from listeners, or any stream, to handlers.

This module owns accepting, one task per connection with its handler in it, what becomes of a
handler's exception, and shutting down. What happens inside a connection is `_connection`'s.

The order of a shutdown, whether by cancellation (Ctrl-C included), by `WebSocketServer.aclose` or
by an error:

1. the listeners are closed; a client in the opening handshake is answered 503, and HTTP connections
   that wait for a request are dropped;
2. every connection sends Close 1001 (or what `aclose` was given), and its handler finds the
   connection ended as soon as it has taken what was received before;
3. handlers, and endpoints of HTTP, still running after `grace_period` are cancelled;
4. every connection's socket is closed, at most `close_timeout` later.

Nothing is left running then, and what caused the shutdown goes on its way.
"""

from __future__ import annotations

import errno
import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, KeysView, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, Unpack, cast, final

import trio

from .._addresses import Address, show_address
from .._arguments import (
    awaitable,
    check_async,
    check_host,
    check_port,
    check_server_context,
    is_name,
)
from .._connection.lifetime import Lifetime, run_connection
from .._connection.services import Services, open_services
from .._connection.websocket import WebSocket
from .._errors import CloseCode, HandshakeError, close_code
from .._handshake.accepting import (
    PlainRequest,
    accept_connection,
    client_behind_proxy,
    refuse_connection,
    unavailable,
)
from .._http.values import ConnectionRejected, InvalidRequest, Request
from .._keywords import ListenerKeywords, ServerStreamKeywords
from .._log import ConnectionLogger, new_connection_id
from .._nursery import (
    errors_in,
    forget_tracebacks,
    is_cancellation,
    leaf_exceptions,
    open_bare_nursery,
    protected_context,
    raise_as_is,
)
from .._options import ListenerOptions, ServerStreamOptions, make_options
from .._threads import check_in_trio
from .._transport.accepting import wrap_listener
from .._transport.checks import check_listeners, check_stream
from .._transport.opening import REFUSAL_LINGER, glance, opening_deadline
from .._transport.sockets import wrap_stream
from .._transport.stream import Transport
from .._transport.system import socket_address
from .._web.conversation import Conversation
from .._web.site import Site
from .listening import open_tcp_listeners

#: How many seconds to accept nobody when the system has no descriptors or memory left for another
#: connection: it would say so again at once, and those that are open may end meanwhile.
ACCEPT_PAUSE = 0.1

#: A shortage of these is over when nobody had to wait for that many seconds. Until then each
#: connection that ends lets one client in, and leaves the next one out.
SHORTAGE_QUIET = 5.0

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}

#: What serves one connection. The connection is closed when it returns. A `Router` is one.
Handler: TypeAlias = Callable[[WebSocket], Awaitable[object]]


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
        http_connections: open now that so far spoke nothing but HTTP with a `Router`.
        http_requests_total: HTTP requests that a `Router` was asked for.
    """

    connections: int
    handshakes: int
    connections_total: int
    refused_total: int
    handler_errors_total: int
    http_connections: int
    http_requests_total: int


@dataclass(slots=True)
class _Visit:
    """A stream that was accepted.

    Attributes:
        transport: to the peer.
        logger: for what happens on it.
        client: who a PROXY header says it is.
    """

    transport: Transport
    logger: ConnectionLogger
    client: Address = None

    @property
    def peer(self) -> str:
        """The peer's address, for the log."""
        return show_address(self.client or self.transport.remote_address)


@final
class _Shortage:
    """Logs that the system has no room for another connection: a line when that begins, and one
    when it is over, however many attempts fail meanwhile.
    """

    def __init__(self, logger: logging.Logger, nursery: trio.Nursery) -> None:
        self._logger = logger
        self._nursery = nursery
        #: While one lasts: what waits for its end.
        self._lasting: trio.CancelScope | None = None

    def feel(self, exc: OSError) -> None:
        """An attempt failed with `exc`."""
        if self._lasting is None:
            self._lasting = trio.CancelScope()
            self._logger.error("cannot accept connections for now: %s", exc)
            self._nursery.start_soon(self._wait_for_end, self._lasting)
        self._lasting.deadline = trio.current_time() + SHORTAGE_QUIET

    async def _wait_for_end(self, lasting: trio.CancelScope) -> None:
        began = trio.current_time()
        with lasting:
            await trio.sleep_forever()
        self._lasting = None
        seconds = lasting.deadline - SHORTAGE_QUIET + ACCEPT_PAUSE - began
        self._logger.warning("connections are accepted again, after %.1f s", seconds)


@final
class WebSocketServer:
    """A running server: what ``await nursery.start(serve_websocket, …)`` gives."""

    def __init__(
        self,
        handler: Handler,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        options: ListenerOptions,
        host: str | None = None,
    ) -> None:
        self._handler = handler
        self._site = handler if isinstance(handler, Site) else None
        self._listeners = listeners
        # Asked for now, because a closed socket no longer knows.
        self._addresses = [_listening_address(listener) for listener in listeners]
        #: What all of them are addresses of.
        self._name = host if host is not None and is_name(host) else None
        self._options = options
        self._connections: dict[WebSocket, None] = {}
        self._handshakes = 0
        #: What the beginning of a shutdown calls, for each stream that waits for its client.
        self._when_stopping: dict[Callable[[], None], None] = {}
        self._services: Services
        self._connections_total = self._refused_total = self._handler_errors_total = 0
        self._http_connections = self._http_requests_total = 0

        self._stopping = trio.Event()
        self._stopped = trio.Event()
        self._close = (int(CloseCode.GOING_AWAY), "")
        #: What to raise in the end: at most one.
        self._failures: list[BaseException] = []

    @property
    def port(self) -> int:
        """The port that it listens on; where 0 was asked for, the one that the system picked.

        With listeners of your own, the port of the first.

        Raises:
            AttributeError: it has none, being a Unix socket or no socket at all.
        """
        address = self._addresses[0]
        if not isinstance(address, tuple):
            raise AttributeError("this server listens on no TCP port")  # noqa: TRY004 - of us, not of it
        return address[1]

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it serves. If a host name was given, one URL with that name, as its certificate
        demands; otherwise one with the address of each TCP listener.
        """
        urls: list[str] = []
        for listener, address in zip(self._listeners, self._addresses, strict=True):
            if isinstance(address, tuple):
                scheme = "wss" if isinstance(listener, trio.SSLListener) else "ws"
                urls.append(f"{scheme}://{show_address((self._name or address[0], address[1]))}/")
        return tuple(dict.fromkeys(urls))

    @property
    def connections(self) -> KeysView[WebSocket]:
        """The open connections: a live, read-only set. Copy it to iterate over it with awaits."""
        return self._connections.keys()

    def statistics(self) -> ServerStatistics:
        """How many connections there are and were."""
        return ServerStatistics(
            connections=len(self._connections),
            handshakes=self._handshakes,
            connections_total=self._connections_total,
            refused_total=self._refused_total,
            handler_errors_total=self._handler_errors_total,
            http_connections=self._http_connections,
            http_requests_total=self._http_requests_total,
        )

    def __repr__(self) -> str:
        state = "stopping" if self._stopping.is_set() else "serving"
        state = "stopped" if self._stopped.is_set() else state
        where = " ".join(self.urls) or "no TCP port"
        return f"<WebSocketServer {state} on {where}, {len(self._connections)} connections>"

    async def aclose(self, code: int | None = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Shut down in good order (see `serve_websocket`), and wait until nothing is left.

        The task that serves then returns. Calling it again only waits. When it is cancelled, the
        shutdown goes on without it. A handler that calls it waits for itself, until `grace_period`
        is over.

        Raises:
            ValueError: a Close frame may not carry `code` or `reason`; nothing was done.
        """
        checked = close_code(code, reason)
        if not self._stopping.is_set():
            self._close = (checked, reason)
            self._stopping.set()
        await self._stopped.wait()

    # Serving…

    @trio.lowlevel.enable_ki_protection
    async def _run(self, task_status: trio.TaskStatus[WebSocketServer]) -> None:
        """Serve until stopped, in the order that the module describes."""
        try:
            async with open_bare_nursery() as nursery:
                nursery.start_soon(self._host_connections)
                task_status.started(self)
                try:
                    await self._stopping.wait()
                finally:
                    self._stopping.set()
        except trio.Cancelled:
            if not self._failures:
                raise
        finally:
            self._stopped.set()
        if self._failures:  # it is not lost to a cancellation that came besides
            raise_as_is(self._failures.pop())

    @trio.lowlevel.enable_ki_protection
    async def _host_connections(self) -> None:
        """The nursery in which connections live; a cancellation from outside does not reach it."""
        with trio.CancelScope(shield=True):
            async with open_services() as self._services, open_bare_nursery() as connections:
                async with open_bare_nursery() as accepting:
                    accepting.start_soon(self._accept, connections)
                    await self._stopping.wait()
                    accepting.cancel_scope.cancel()
                for stop in self._when_stopping:
                    stop()
                for websocket in self._connections:
                    websocket._begin_close(*self._close)
                grace_ends = trio.current_time() + self._options.grace_period
                connections.cancel_scope.deadline = grace_ends

    @trio.lowlevel.enable_ki_protection
    async def _accept(self, connections: trio.Nursery) -> None:
        # trio.serve_listeners would do, but for the task frame and the two cancel scopes that it
        # adds to each connection, to close a stream that is closed.
        try:
            async with trio.open_nursery() as nursery:
                shortage = _Shortage(self._options.logger, nursery)
                for listener in self._listeners:
                    nursery.start_soon(self._accept_from, listener, connections, shortage)
        except BaseException as exc:
            errors = errors_in(exc)
            if not errors:
                raise
            self._fail(errors[0])  # a listener broke

    @trio.lowlevel.enable_ki_protection
    async def _accept_from(
        self,
        listener: trio.abc.Listener[trio.abc.Stream],
        connections: trio.Nursery,
        shortage: _Shortage,
    ) -> None:
        acceptor = wrap_listener(listener, self._note_lost)
        async with listener:
            while True:
                try:
                    accepted = await acceptor.accept()
                except OSError as exc:
                    if exc.errno not in _OUT_OF_RESOURCES:
                        raise
                    shortage.feel(exc)
                    await trio.sleep(ACCEPT_PAUSE)
                else:
                    for transport in accepted:
                        connections.start_soon(self._serve_transport, transport)

    def _note_lost(self, exc: OSError) -> None:
        self._options.logger.info("a connection was lost before it was accepted: %s", exc)

    def _fail(self, exc: BaseException) -> None:
        """Shut down, and then raise `exc` from `serve_websocket`."""
        if not self._failures:
            self._failures.append(exc)
        self._stopping.set()

    # One connection…

    @trio.lowlevel.enable_ki_protection
    async def _serve_transport(self, transport: Transport) -> None:
        # Ctrl-C is not to strike between a 101 and the connection that it opens: the client would
        # be left without a word. The application's own code can be interrupted all the same.
        logger = ConnectionLogger(self._options.logger, new_connection_id())
        visit = _Visit(transport, logger)
        try:
            try:
                opened = await self._open(visit)
            except BaseException as exc:
                # A stream's or process_request's own, or a mistake of ours.
                if is_cancellation(exc):
                    raise
                opened = None
                self._failed(exc, "the opening handshake", visit)
            if opened is None:
                self._refused_total += 1
            if isinstance(opened, PlainRequest):
                opened = await self._converse(visit, opened)
            if opened is not None:
                await self._serve_connection(opened, logger)
        finally:
            try:
                await transport.aclose_forcefully()
            except Exception:
                logger.exception("the stream could not be closed")

    async def _open(self, visit: _Visit) -> WebSocket | PlainRequest | None:
        taken = len(self._connections) + self._handshakes + self._http_connections
        if taken >= self._options.max_connections:
            visit.logger.info("%s refused: there are %d connections", visit.peer, taken)
            with trio.move_on_after(self._options.open_timeout):
                await refuse_connection(visit.transport, self._options)
            return None
        proxied = self._options.proxy_header == "PROXY"  # what comes first is not the request
        received = b"" if proxied else glance(visit.transport)
        # Empty lines alone are no request: they are passed over.
        if self._decides_alone and received.lstrip().endswith(b"\r\n\r\n"):
            # There is nothing to wait for, so nothing to limit: a scope would cost as much as
            # reading the request does.
            return await self._shake_hands(visit, received, refusing=self._refusing_alone)
        opened = None
        with self._in_handshake() as scope:
            with self._until_stop(scope.cancel):
                visit.client = await client_behind_proxy(visit.transport, self._options)
            opened = await self._shake_hands_within(scope, visit, received)
        if scope.cancelled_caught:
            why = "the server stops" if self._stopping.is_set() else "out of time"
            visit.logger.info("%s dropped in the opening handshake: %s", visit.peer, why)
        return opened

    @contextmanager
    def _in_handshake(self) -> Generator[trio.CancelScope, None, None]:
        """For at most `open_timeout`."""
        with trio.move_on_after(self._options.open_timeout) as scope:
            self._handshakes += 1
            try:
                yield scope
            finally:
                self._handshakes -= 1

    @contextmanager
    def _until_stop(self, stop: Callable[[], None]) -> Generator[None, None, None]:
        """Have `stop` called if the server stops meanwhile."""
        self._when_stopping[stop] = None
        try:
            yield
        finally:
            del self._when_stopping[stop]

    @contextmanager
    def _deciding(
        self, opening: trio.CancelScope, transport: Transport
    ) -> Generator[None, None, None]:
        """Answer 503 if the server stops before anything was answered.

        In the middle of the TLS handshake nothing can be sent: then the whole `opening` is
        cancelled.
        """
        with trio.CancelScope() as scope:

            def stop() -> None:
                (scope if transport.is_through else opening).cancel()

            if self._stopping.is_set():
                stop()
            with self._until_stop(stop):
                yield
        if scope.cancelled_caught:
            raise ConnectionRejected(unavailable("The server is shutting down"))

    @contextmanager
    def _refusing_alone(self) -> Generator[None, None, None]:
        """Around a refusal that was decided on without waiting: sending it takes some."""
        with self._in_handshake() as scope, self._until_stop(scope.cancel):
            yield

    @property
    def _decides_alone(self) -> bool:
        """Whether a request is all that it takes to open a connection, or to refuse it."""
        return self._site is None and self._options.process_request is None

    async def _shake_hands_within(
        self, scope: trio.CancelScope, visit: _Visit, received: bytes
    ) -> WebSocket | PlainRequest | None:
        """`_shake_hands` where it may wait: `scope` sets the limit, and the server may stop."""
        return await self._shake_hands(
            visit,
            received,
            deciding=partial(self._deciding, scope, visit.transport),
            refusing=partial(self._until_stop, scope.cancel),
        )

    async def _shake_hands(
        self,
        visit: _Visit,
        received: bytes,
        *,
        deciding: Callable[[], AbstractContextManager[object]] = nullcontext,
        refusing: Callable[[], AbstractContextManager[object]],
    ) -> WebSocket | PlainRequest | None:
        transport, logger = visit.transport, visit.logger
        try:
            opening = await accept_connection(
                transport,
                self._options,
                logger,
                client=visit.client,
                admit=self._site.admit if self._site is not None else None,
                received=received,
                deciding=deciding,
                refusing=refusing,
            )
        except (ConnectionRejected, InvalidRequest) as exc:
            what = f": {exc}" if isinstance(exc, InvalidRequest) else ""
            logger.info("%s answered with %d%s", visit.peer, exc.response.status, what)
            return None
        except HandshakeError as exc:
            logger.info("%s left: %s", visit.peer, exc)
            return None
        if isinstance(opening, PlainRequest):
            return opening
        return WebSocket(transport, opening, logger.connection_id, self._options, logger)

    def _failed(self, exc: BaseException, what: str, visit: _Visit) -> None:
        """One stream failed in a way of its own: the other connections are not to notice."""
        errors = errors_in(exc)
        if isinstance(exc, HandshakeError):  # the client left while it was answered
            visit.logger.info("%s left: %s", visit.peer, exc)
        elif all(isinstance(error, Exception) for error in errors):
            visit.logger.error("%s dropped: %s failed", visit.peer, what, exc_info=exc)
        else:
            self._fail(exc)

    # One connection that speaks HTTP…

    async def _converse(
        self, visit: _Visit, opened: WebSocket | PlainRequest | None
    ) -> WebSocket | None:
        """Answer its requests. Gives the WebSocket, where one is asked for in the end."""
        assert self._site is not None
        conversation = Conversation(
            visit.transport,
            self._site,
            self._options,
            visit.logger,
            is_stopping=self._stopping.is_set,
            failed=lambda request, exc: self._endpoint_failed(request, exc, visit.logger),
        )
        self._http_connections += 1
        try:
            while isinstance(opened, PlainRequest):
                self._http_requests_total += 1
                rest = await conversation.answer(opened)
                if rest is None or self._stopping.is_set():
                    return None
                opened = await self._next(visit, conversation, rest)
        except BaseException as exc:
            if is_cancellation(exc):
                raise
            self._failed(exc, "HTTP", visit)
            return None
        finally:
            self._http_connections -= 1
        if opened is None:
            with trio.move_on_after(REFUSAL_LINGER):  # TLS says goodbye (RFC 9112 section 9.8)
                await visit.transport.aclose()
        return opened

    async def _next(
        self, visit: _Visit, conversation: Conversation, rest: bytes
    ) -> WebSocket | PlainRequest | None:
        received = b""
        with trio.CancelScope() as waiting, self._until_stop(waiting.cancel):
            received = await conversation.wait_for_request(rest)
        if received:
            with trio.move_on_after(self._options.open_timeout) as scope:
                return await self._shake_hands_within(scope, visit, received)
        return None

    def _endpoint_failed(
        self, request: Request, exc: BaseException, logger: ConnectionLogger
    ) -> None:
        errors = errors_in(exc)
        error = errors[0] if len(errors) == 1 else _without_cancelled(exc)
        self._handler_errors_total += 1
        if self._options.on_handler_error == "propagate":
            self._fail(error)
        else:
            what = "the endpoint of %s %s failed: %r"
            logger.error(what, request.method, request.target, error, exc_info=error)

    # One WebSocket…

    async def _serve_connection(self, websocket: WebSocket, logger: ConnectionLogger) -> None:
        started = trio.current_time()
        self._connections[websocket] = None
        self._connections_total += 1
        try:
            async with Lifetime(websocket, self._services):
                if self._stopping.is_set():  # while the last bytes of the handshake went out
                    websocket._begin_close(*self._close)
                await _run_handler(self._handler, websocket)
        except BaseException as exc:
            if not self._handler_failed(websocket, exc, logger):
                raise
        finally:
            del self._connections[websocket]
            self._log_access(websocket, trio.current_time() - started, logger)

    def _handler_failed(
        self, websocket: WebSocket, exc: BaseException, logger: ConnectionLogger
    ) -> bool:
        """Deal with what a handler raised; false for a cancellation, which goes on its way."""
        errors = [error for error in errors_in(exc) if not websocket._is_end(error)]
        if not errors:  # else the handler noticed that its connection was over: no error
            return not any(isinstance(leaf, trio.Cancelled) for leaf in leaf_exceptions(exc))
        error = errors[0] if len(errors) == 1 else _without_cancelled(exc)
        self._handler_errors_total += 1
        policy = self._options.on_handler_error
        if policy == "propagate" or not isinstance(error, Exception):
            self._fail(error)
        elif policy == "log":
            logger.error("the handler failed: %r", error, exc_info=error)
        else:
            try:
                policy(websocket, error)
            except Exception as again:
                logger.exception("on_handler_error itself failed, over %r", error)
                forget_tracebacks(again)  # it may be the very same, and be kept by our own frames
        return True

    def _log_access(self, websocket: WebSocket, seconds: float, logger: ConnectionLogger) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        statistics = websocket.statistics()
        logger.info(
            '%s "%s %s" 101, %s, %.3f s, %d messages (%d bytes) in, %d (%d) out',
            show_address(websocket.remote_address),
            websocket.request.method,
            websocket.request.target,
            websocket.close_reason,
            seconds,
            statistics.messages_received,
            statistics.bytes_received,
            statistics.messages_sent,
            statistics.bytes_sent,
        )


@trio.lowlevel.disable_ki_protection
async def _run_handler(handler: Handler, websocket: WebSocket) -> None:
    await awaitable(handler(websocket), handler)


def _without_cancelled(exc: BaseException) -> BaseException:
    """A group of what a handler raised, less the cancellations in it, which are not its own."""
    group = cast("BaseExceptionGroup[BaseException]", exc)
    return group.split(trio.Cancelled)[1] or group


# ---------------------------------------------------------------------------
# Entry points
# ---------------------------------------------------------------------------


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

    Cancelling it is the graceful shutdown: it stops accepting, answers 503 to clients in the
    opening handshake, closes every connection with 1001, lets handlers finish for `grace_period`
    seconds, cancels those that do not, and is done at most `close_timeout` later with nothing left
    running.

    Args:
        handler: called with each `WebSocket`, which is closed when it returns: with 1000, or with
            1011 where it raises (see `on_handler_error`).
        host: the address or name to bind, or `None` for every interface. An IPv6 address has no
            brackets here.
        port: the port, or 0 for a free one that the system picks, the same for every address.
        ssl_context: for TLS, with a certificate loaded.
        task_status: ``server = await nursery.start(serve_websocket, …)`` gives the
            `WebSocketServer` as soon as it accepts connections.
        options: those of `ListenerOptions`.

    Raises:
        OSError: the host is not found, the address cannot be bound, or a listener broke later.
        TypeError, ValueError: an argument or an option is wrong. Nothing was begun.
        Exception: what a handler raised, with ``on_handler_error="propagate"``; bare.
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
    await WebSocketServer(handler, listeners, settings, host)._run(task_status)


async def serve_listeners(
    handler: Handler,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    *,
    task_status: trio.TaskStatus[WebSocketServer] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ListenerKeywords],
) -> None:
    """`serve_websocket` over listeners of your own: Unix sockets, TLS, memory.

    The listeners are closed at the end, and when an argument or an option is wrong.

    Raises:
        OSError: a listener broke.
        TypeError, ValueError: an argument or an option is wrong. Nothing was begun.
        Exception: what a handler raised, with ``on_handler_error="propagate"``; bare.
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
            with suppress(AttributeError):  # it is no listener, or its TLS runs over none
                await trio.aclose_forcefully(listener)
        raise
    await WebSocketServer(handler, given, settings)._run(task_status)


def _checked_options(
    handler: Handler, options: ListenerKeywords, entry_point: Callable[..., object]
) -> ListenerOptions:
    check_async("the handler", handler, "one WebSocket")
    if isinstance(handler, Site):
        handler.check()
    return make_options(ListenerOptions, options, entry_point)


@protected_context
async def wrap_server_stream(
    stream: trio.abc.Stream, **options: Unpack[ServerStreamKeywords]
) -> AsyncGenerator[WebSocket, None]:
    """Open a WebSocket as the server over one stream that is connected already.

    The stream belongs to the connection from now on, and is closed with it, when the handshake
    fails and when an option is wrong. The block is the handler; leaving it closes the connection as
    leaving `open_websocket_url` does.

    Raises:
        InvalidRequest: the client's request was malformed; it has been answered.
        ConnectionRejected: `process_request` answered with a response of its own, or failed.
        ConnectionFailed: the client left.
        HandshakeTimeout: all this took longer than `open_timeout`.
        TypeError, ValueError: an argument or an option is wrong.
    """
    check_stream(stream)
    transport = wrap_stream(stream)
    try:
        settings = make_options(ServerStreamOptions, options, wrap_server_stream)
        logger = ConnectionLogger(settings.logger, new_connection_id())
        with opening_deadline(settings.open_timeout):
            client = await client_behind_proxy(transport, settings)
            opening = await accept_connection(transport, settings, logger, client=client)
    except BaseException:  # Cancelled among them; all go on their way
        await transport.aclose_forcefully()
        raise
    websocket = WebSocket(transport, opening, logger.connection_id, settings, logger)
    async with run_connection(websocket):
        yield websocket


def _listening_address(listener: trio.abc.Listener[trio.abc.Stream]) -> Address:
    return socket_address(listener, "getsockname")
