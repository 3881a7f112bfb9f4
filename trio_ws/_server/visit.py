"""One accepted connection, from its first byte to its end: HTTP first, then perhaps a WebSocket.

This module owns the loop that reads a request, looks what it asks for, and has it answered as a
page or as a WebSocket; and how long it waits for a client. What it waits for decides what a
shutdown does to the client:

| it waits for | at a shutdown | for how long |
|---|---|---|
| the header of a proxy | dropped | `open_timeout`, with the next two |
| a request head | 503, but dropped within a TLS handshake | `open_timeout` |
| hooks that decide about a WebSocket | 503 | `open_timeout` |
| a client that is to take a refusal | dropped | what is left of that, and 1 s to hang up |
| a client that is to take the 101 | served, and closed at once | what is left of that |
| a page, and its body | answered, as the last one | see `conversation` |
| the next request | hung up on | `keep_alive_timeout` |

A drain that comes before cuts nothing short. A client that asks for a WebSocket from then on gets
503, and a page is answered as the last one. Where other processes go on with the same sockets,
nobody who was accepted is turned away: such a drain waits until all are through their handshakes.

A client that comes beyond `max_connections` is a guest. It has `REFUSAL_LINGER` to send its
request. A WebSocket is refused with 503; a page is served, so that a full server still answers
health checks. At most `MOST_GUESTS` such pages are served at a time.

`Shutdown.cutting_short` is around each wait that a shutdown ends. A request that is all here, and
that no hook is asked about, needs no wait, and so costs no cancel scope.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import final

import trio

from .._addresses import Address, show_address
from .._connection.lifetime import Lifetime
from .._connection.services import Services
from .._connection.websocket import WebSocket
from .._errors import ConnectionFailed, HandshakeError
from .._handshake.accepting import accept_upgrade
from .._http.exchange import ServerExchange
from .._http.reading import IncomingRequest, RequestReader
from .._http.values import Accept, ConnectionRejected, InvalidRequest, Request, Response
from .._log import ConnectionLogger, new_connection_id
from .._metering import HANDSHAKES, Meter, status_label
from .._nursery import is_cancellation
from .._options import ListenerOptions, ServerStreamOptions
from .._reasons import speaks_plain_http
from .._transport.opening import REFUSAL_LINGER, glance, read_whole, respond_and_hang_up
from .._transport.proxy_protocol import read_proxy_header
from .._transport.stream import Transport
from .._web.conversation import Conversation
from .._web.declining import decline
from .._web.hooks import Ask, ask
from .._web.site import Site
from .addresses import Place
from .door import Door, TurnedAway
from .draining import Draining
from .handlers import Failures, Handler, run_handler
from .metering import note_end
from .shutdown import Phase, Shutdown

#: How many pages beyond `max_connections` are answered at a time.
MOST_GUESTS = 16


class Stage(StrEnum):
    """How far a visit has come."""

    OPENING = "the opening handshake"
    HTTP = "HTTP"


@final
@dataclass(slots=True)
class ServerState:
    """What all visits of a server share.

    Attributes:
        handler: serves WebSockets.
        site: the same, if it also serves pages.
        options: the server's.
        shutdown: its end.
        failures: what becomes of exceptions.
        services: of its connections. The server sets them when they run.
        connections: those that are open.
        draining: told of each that ends.
        stages: how many visits are at which stage.
        connections_total, refused_total, http_requests_total: see `ServerStatistics`.
        meter: is told what has ended, if metrics are on.
        door: turns away addresses that come too often, if that is limited.
    """

    handler: Handler
    site: Site | None
    options: ListenerOptions
    shutdown: Shutdown
    failures: Failures
    services: Services = field(init=False)
    connections: dict[WebSocket, None] = field(default_factory=dict[WebSocket, None])
    draining: Draining = field(init=False)
    stages: dict[Stage, int] = field(default_factory=lambda: dict.fromkeys(Stage, 0))
    connections_total: int = 0
    refused_total: int = 0
    http_requests_total: int = 0
    meter: Meter | None = None
    door: Door | None = field(init=False)

    def __post_init__(self) -> None:
        self.draining = Draining(self.connections)
        limited = self.options.limits_addresses
        self.door = Door(self.options, self.shutdown) if limited else None

    @property
    def taken(self) -> int:
        """How many connections count towards `max_connections`."""
        return len(self.connections) + sum(self.stages.values())

    def unavailable(self, why: str) -> Response:
        """The response to a client that comes at a bad time."""
        retry_after = str(self.shutdown.retry_after)
        return Response(503, {"Retry-After": retry_after}, f"{why}, try again later.\n")


class _Dropped(Exception):
    """The client is let go without a word. The text says why."""


@final
class Visit:
    """Serves one connection, and closes it.

    Args:
        transport: the connection.
        server: what it shares with the others.
        place: that of its address, if that is limited and known.
    """

    __slots__ = (
        "_client",
        "_deadline",
        "_is_guest",
        "_logger",
        "_options",
        "_place",
        "_server",
        "_stage",
        "_status",
        "_transport",
    )

    def __init__(
        self, transport: Transport, server: ServerState, place: Place | None = None
    ) -> None:
        self._transport = transport
        self._place = place
        self._server = server
        self._options = server.options
        self._logger = ConnectionLogger(self._options.logger, new_connection_id())
        #: Who the PROXY protocol says it is.
        self._client: Address = None
        #: When the client has had its time for the request at hand.
        self._deadline = trio.current_time() + self._options.open_timeout
        #: Whether there was no room for it. Then it may ask for a page.
        self._is_guest = False
        #: `None` for a guest that has asked for nothing yet. It takes nobody's place.
        self._stage: Stage | None = None
        #: The status of the answer to a handshake; 0 while there is none.
        self._status = 0

    # Ctrl-C must not strike between a 101 and the connection that it opens: the client would be
    # left without a word. It can still interrupt the application's own code.
    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Serve until the client has what it wants, or is gone. Leaves the connection closed."""
        try:
            websocket = await self._open()
            if websocket is not None:
                await self._serve(websocket)
            elif self._stage is Stage.HTTP:
                with trio.move_on_after(REFUSAL_LINGER):  # TLS says goodbye (RFC 9112 section 9.8)
                    await self._transport.aclose()
        finally:
            if self._server.door is not None:
                self._server.door.leave(self._place)
            try:
                await self._transport.aclose_forcefully()
            except Exception:
                self._logger.exception("the stream could not be closed")

    # Until there is a WebSocket…

    async def _open(self) -> WebSocket | None:
        """Speak HTTP. Gives the WebSocket if the client asks for one in the end, and gets it."""
        websocket = None
        try:
            if self._server.taken < self._options.max_connections:
                self._enter(Stage.OPENING)
            else:
                self._is_guest = True
                self._deadline = trio.current_time() + REFUSAL_LINGER
            websocket = await self._answer_requests(await self._start())
            if websocket is not None:
                self._status = websocket.response.status
        except TurnedAway:
            pass  # it is logged, and told if that costs little
        except HandshakeError as exc:
            if exc.__cause__ is not None and speaks_plain_http(exc.__cause__):
                await self._answer_in_plain()
            else:
                self._logger.info("%s left: %s", self._peer, exc)
        except _Dropped as exc:
            self._logger.info("%s dropped in %s: %s", self._peer, self._where, exc)
        except BaseException as exc:  # a stream's or a hook's, or a mistake of ours
            if is_cancellation(exc):
                raise
            self._server.failures.of_stream(exc, self._where, self._peer, self._logger)
        finally:
            self._leave_stage()
        if websocket is None and self._stage is not Stage.HTTP:
            self._server.refused_total += 1
        meter = self._server.meter
        if meter is not None and (self._status or self._stage is not Stage.HTTP):
            meter.count(HANDSHAKES, status_label(self._status))
        return websocket

    def _enter(self, stage: Stage) -> None:
        self._leave_stage()
        self._server.stages[stage] += 1
        self._stage = stage

    def _leave_stage(self) -> None:
        if self._stage is not None:
            self._server.stages[self._stage] -= 1
            self._server.draining.note_change()

    def _no_room(self) -> TurnedAway:
        self._logger.info("%s refused: there are %d connections", self._peer, self._server.taken)
        return TurnedAway(self._server.unavailable("Too many connections"))

    async def _answer_in_plain(self) -> None:
        """Tell a client that begins without TLS what to do. It would only see that we hang up."""
        self._logger.info("%s answered with 400: it speaks plain HTTP, not TLS", self._peer)
        self._status = 400
        body = "TLS is spoken here: use wss:// instead of ws://, or https:// instead of http://.\n"
        data = ServerExchange().response(Response(400, body=body), self._options.response_fields)
        plain = Transport(self._transport.below_tls)
        with suppress(ConnectionFailed), self._server.shutdown.cutting_short(self._deadline):
            await respond_and_hang_up(plain, data)

    async def _start(self) -> bytes:
        """What has arrived already, after the header of a proxy."""
        if self._options.proxy_header != "PROXY":
            return glance(self._transport)
        with self._server.shutdown.cutting_short(self._deadline) as scope:
            self._client = await client_behind_proxy(self._transport, self._options)
        if scope.cancelled_caught:
            raise self._dropped()
        try:
            self._come_in(self._client)
        except TurnedAway as exc:
            if self._transport.is_through:  # else TLS would have to come first
                await self._respond(ServerExchange(), exc.response)
            raise
        return b""

    def _come_in(self, client: Address) -> None:
        """The client's address is known. It may come too often.

        Raises:
            TurnedAway: it does.
        """
        if self._place is None and self._server.door is not None:
            self._place = self._server.door.enter(client)

    async def _answer_requests(self, received: bytes) -> WebSocket | None:
        """Read requests and answer pages until one is for a WebSocket, or nothing is left to say.

        Raises:
            ConnectionFailed, HandshakeTimeout: the client left.
            _Dropped: it had no time left.
            BaseException: a stream failed in a way that none should.
        """
        pages = self._make_conversation()
        while True:
            reader = request_reader(self._transport, self._options, self._client)
            reader.feed(received)
            try:
                incoming = await self._read(reader)
                if self._is_guest:
                    self._check_guest(incoming.request)
                if incoming.request.is_upgrade:
                    self._come_in(incoming.request.remote_address)
                    return await self._accept(incoming)
                if pages is None:
                    await decline(incoming, self._asking)
            except (InvalidRequest, ConnectionRejected) as exc:
                await self._respond(reader.exchange, exc.response)
                if isinstance(exc, TurnedAway):
                    return None
                problem = f": {exc}" if isinstance(exc, InvalidRequest) else ""
                status = exc.response.status
                self._logger.info("%s answered with %d%s", self._peer, status, problem)
                return None
            received = await self._answer_page(pages, incoming)
            if not received:
                return None
            self._deadline = trio.current_time() + self._options.open_timeout

    def _check_guest(self, request: Request) -> None:
        if request.is_upgrade or self._server.taken >= self._options.max_connections + MOST_GUESTS:
            raise self._no_room()

    async def _read(self, reader: RequestReader) -> IncomingRequest:
        incoming = reader.take()
        if incoming is None:
            with self._waiting():
                incoming = await read_whole(self._transport, reader)
        return incoming

    async def _accept(self, incoming: IncomingRequest) -> WebSocket:
        if self._server.shutdown.turns_away:
            raise ConnectionRejected(self._server.unavailable("The server is about to stop"))
        opening = await accept_upgrade(
            self._transport, incoming, self._options, ask=self._asking, deadline=self._deadline
        )
        connection_id = self._logger.connection_id
        return WebSocket(self._transport, opening, connection_id, self._options, self._logger)

    @property
    def _asking(self) -> Ask | None:
        """What decides about a request. Without any hook, nothing is waited for."""
        has_hooks = self._server.site is not None or self._options.process_request is not None
        return self._ask if has_hooks else None

    async def _ask(self, request: Request) -> Accept | None:
        site = self._server.site
        admit = site.admit if site is not None else None
        with self._waiting():
            return await ask(request, self._options.process_request, admit, self._logger)

    async def _respond(self, exchange: ServerExchange, response: Response) -> None:
        """Send the last response on this connection, and hang up when the client has read it.

        A client that is slow to do so has until the deadline, or until the server stops.

        Raises:
            ConnectionFailed: the client left.
        """
        self._status = response.status
        data = exchange.response(response, self._options.response_fields)
        with self._server.shutdown.cutting_short(self._deadline):
            await respond_and_hang_up(self._transport, data)

    @contextmanager
    def _waiting(self) -> Generator[None, None, None]:
        """Wait within the block for a client that is owed an answer.

        Raises:
            ConnectionRejected: the server stops, and this is the answer.
            _Dropped: the client's time is up, or the server stops and cannot say so.
        """
        shutdown = self._server.shutdown
        if not shutdown.has_begun:
            with shutdown.cutting_short(self._deadline) as scope:
                yield
            if not scope.cancelled_caught:
                return
        if shutdown.has_begun and self._transport.is_through:
            raise ConnectionRejected(self._server.unavailable("The server is shutting down"))
        if self._is_guest and self._transport.is_through:
            self._deadline = trio.current_time() + REFUSAL_LINGER
            raise self._no_room()
        raise self._dropped()

    def _dropped(self) -> _Dropped:
        return _Dropped("the server stops" if self._server.shutdown.has_begun else "out of time")

    @property
    def _peer(self) -> str:
        """The peer's address, for the log."""
        return show_address(self._client or self._transport.remote_address)

    @property
    def _where(self) -> str:
        """What it is at, for the log."""
        return self._stage or Stage.OPENING

    # Pages…

    def _make_conversation(self) -> Conversation | None:
        server = self._server
        if server.site is None:
            return None
        return Conversation(
            self._transport,
            server.site,
            self._options,
            self._logger,
            is_stopping=lambda: self._is_guest or server.shutdown.phase is not Phase.SERVING,
            failed=lambda request, exc: server.failures.of_endpoint(request, exc, self._logger),
        )

    async def _answer_page(self, pages: Conversation, incoming: IncomingRequest) -> bytes:
        """Answer, and wait for the next request. Gives its first bytes, or ``b""`` for none."""
        shutdown = self._server.shutdown
        self._enter(Stage.HTTP)
        self._server.http_requests_total += 1
        rest = await pages.answer(incoming)
        if rest is None or shutdown.has_begun:
            return b""
        received = b""
        with shutdown.cutting_short(trio.current_time() + self._options.keep_alive_timeout):
            received = await pages.wait_for_request(rest)
        return received  # noqa: RET504 - if that was cut short, it is empty

    # From the WebSocket on…

    async def _serve(self, websocket: WebSocket) -> None:
        server, logger = self._server, self._logger
        started = trio.current_time()
        server.connections[websocket] = None
        server.connections_total += 1
        try:
            async with Lifetime(websocket, server.services):
                if server.shutdown.has_begun:  # while the last bytes of the handshake went out
                    websocket._ending.close(*server.shutdown.close)
                await run_handler(server.handler, websocket)
        except BaseException as exc:
            if not server.failures.of_handler(websocket, exc, logger):
                raise
        finally:
            del server.connections[websocket]
            server.draining.note_change()
            seconds = trio.current_time() - started
            if server.meter is not None:
                note_end(server.meter, websocket, seconds)
            self._log_access(websocket, seconds)

    def _log_access(self, websocket: WebSocket, seconds: float) -> None:
        if not self._logger.isEnabledFor(logging.INFO):
            return
        statistics = websocket.statistics()
        self._logger.info(
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


# ---------------------------------------------------------------------------
# What a server does with any stream
# ---------------------------------------------------------------------------


async def client_behind_proxy(transport: Transport, options: ServerStreamOptions) -> Address:
    """The client's address, if a trusted proxy tells it before TLS and HTTP, else `None`.

    Raises:
        ConnectionFailed: a trusted proxy should have told it, and did not.
    """
    if options.proxy_header != "PROXY" or transport.remote_address not in options.proxy_networks:
        return None
    return await read_proxy_header(transport.below_tls)


def request_reader(
    transport: Transport, options: ServerStreamOptions, client: Address
) -> RequestReader:
    """What reads the next request, and knows the server's proxies and its names."""
    return RequestReader(
        transport, client, options.proxy_networks, options.proxy_header, options.known_hosts
    )
