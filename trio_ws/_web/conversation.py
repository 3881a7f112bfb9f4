"""Plain HTTP/1.1 on a connection, for handlers that are a site: one request after the other.

This module owns what is between two heads: bodies of requests with their limit and their deadline,
responses in memory and as they are read, and whether the connection goes on. Heads are
`_handshake`'s, which also says whether one asks for a WebSocket; what is answered is the site's.

What keeps one client from harming others: a head and a body have `open_timeout` each, a body is at
most `max_body_size` large, a client that takes no byte of a response for as long as keepalive
gives a silent peer is dropped, and between two requests that came together others get their turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from .._addresses import show_address
from .._errors import ConnectionFailed
from .._handshake.accepting import PlainRequest
from .._handshake.asking import ask, check_answer
from .._http.exchange import MalformedHead, ServerExchange, after_empty_lines
from .._http.values import ConnectionRejected, InvalidRequest, Request, Response, refusal
from .._log import ConnectionLogger
from .._nursery import errors_in
from .._options import ListenerOptions
from .._reasons import connection_failed, root_of
from .._transport.opening import hang_up
from .._transport.stream import Transport
from .._transport.system import GONE
from .site import Site, Streamed

#: What a chunk of a body counts beside its bytes, so that a million of one byte are soon too large.
_CHUNK_CHARGE = 64

#: How many pieces of a chunked body are looked at before other tasks may run. Of tiny chunks, one
#: piece takes more than a millisecond.
_PIECES_PER_CHECKPOINT = 4

#: How much of a response is written in one go, and has to get through while a client is waited for.
_PIECE = 16 * 1024


class Conversation:
    """The HTTP of one connection.

    Args:
        transport: what it goes over; closing it is the caller's.
        site: what answers.
        options: the server's.
        logger: the connection's.
        is_stopping: whether the server takes no further requests.
        failed: called with what an endpoint raised.
    """

    def __init__(
        self,
        transport: Transport,
        site: Site,
        options: ListenerOptions,
        logger: ConnectionLogger,
        *,
        is_stopping: Callable[[], bool],
        failed: Callable[[Request, BaseException], None],
    ) -> None:
        self._transport = transport
        self._site = site
        self._options = options
        self._logger = logger
        self._is_stopping = is_stopping
        self._failed = failed

    async def answer(self, plain: PlainRequest) -> bytes | None:
        """Answer one request, and give what the client sent after it.

        `None` means that this was the last one: the client has got its answer, and the end of it.

        Raises:
            ConnectionFailed: the client left, or took too long to read.
        """
        started = trio.current_time()
        response, rest = await self._decide(plain)
        try:
            close = rest is None or self._is_stopping()
            size = await self._send(plain.exchange, response, close=close)
        finally:
            if isinstance(response, Streamed):
                response.source.close()
        self._log_access(plain.request, response, size, trio.current_time() - started)
        if not plain.exchange.may_be_followed:
            await hang_up(self._transport)
            return None
        return rest

    async def wait_for_request(self, received: bytes) -> bytes:
        """The first bytes of the next request, or ``b""`` when none came in time."""
        with trio.move_on_after(self._options.keep_alive_timeout):
            if received:
                await trio.lowlevel.checkpoint()
            try:
                while not (received := after_empty_lines(received)):
                    received = await self._transport.receive()
                    if not received:
                        return b""
            except GONE:
                return b""
            return received
        return b""

    # From the request to a response…

    async def _decide(self, plain: PlainRequest) -> tuple[Response | Streamed, bytes | None]:
        """The response, and what comes after the request; `None` if its body was not read."""
        request = plain.request
        _, rest = plain.exchange.body()
        if rest is not None:
            rest = plain.received  # it has no body
        try:
            answer = await ask(request, self._options, self._logger, self._site.admit)
            if isinstance(answer, Response):
                return answer, rest
            if rest is None:
                body, rest = await self._read_body(plain)
                request = request.with_body(body)
        except (InvalidRequest, ConnectionRejected) as exc:
            return exc.response, rest
        return await self._ask_endpoint(request), rest

    async def _ask_endpoint(self, request: Request) -> Response | Streamed:
        try:
            response = await _run_endpoint(self._site, request)
            check_answer(response.head if isinstance(response, Streamed) else response, request)
        except InvalidRequest as exc:
            return exc.response
        except BaseException as exc:
            if not all(isinstance(error, Exception) for error in errors_in(exc) or [exc]):
                raise  # cancelled, or told to end
            self._failed(request, exc)
            return Response(500, body="Internal server error.\n")
        return response

    async def _read_body(self, plain: PlainRequest) -> tuple[bytes, bytes]:
        """The body of a request that has one, and what comes after it."""
        exchange, data = plain.exchange, plain.received
        if int(plain.request.headers.get("Content-Length", "0")) > self._options.max_body_size:
            raise self._too_large()
        body = bytearray()
        with trio.move_on_after(self._options.open_timeout):
            while (rest := await self._take(exchange, data, body)) is None:
                if exchange.waits_for_continue:
                    await self._write(exchange.continue_())
                data = await self._receive()
            return bytes(body), rest
        raise refusal(408, "the request's body took too long")

    async def _take(self, exchange: ServerExchange, data: bytes, body: bytearray) -> bytes | None:
        """Add to the body what `data` brings. Gives what comes after it, `None` if it goes on."""
        size = exchange.piece_size or len(data)
        for number, start in enumerate(range(0, len(data), size or 1), 1):
            end = start + size
            try:
                piece, rest = exchange.body(data[start:end])
            except MalformedHead as exc:
                raise refusal(400, f"malformed request: {exc}") from exc
            body += piece
            if len(body) + _CHUNK_CHARGE * exchange.chunks > self._options.max_body_size:
                raise self._too_large()
            if rest is not None:
                return rest + data[end:]
            if number % _PIECES_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
        return None

    def _too_large(self) -> InvalidRequest:
        return refusal(413, f"the body is larger than {self._options.max_body_size:g} bytes")

    # From the response to the client…

    async def _send(
        self, exchange: ServerExchange, response: Response | Streamed, *, close: bool
    ) -> int:
        """Send it, and say how many bytes its body had."""
        server = self._options.server_header
        if isinstance(response, Response):
            await self._write(exchange.response(response, server, close=close))
            return len(response.body) if exchange.wants_body else 0
        pending = exchange.response_head(response.head, response.length, server, close=close)
        size = 0
        if exchange.wants_body:
            while data := await response.source.read():
                await self._write(pending + exchange.response_data(data))
                pending = b""
                size += len(data)
            if size < response.length:  # the client is to notice: it must not look complete
                raise ConnectionFailed("a file became shorter while it was sent")
        await self._write(pending + exchange.end())
        return size

    async def _write(self, data: bytes) -> None:
        patience = self._options.ping_interval + self._options.ping_timeout
        try:
            sent = self._transport.send_nowait([data])
            for start in range(sent, len(data), _PIECE):
                with trio.move_on_after(patience) as scope:
                    await self._transport.send_all(data[start : start + _PIECE])
                if scope.cancelled_caught:
                    raise ConnectionFailed(f"the client took too little in {patience} s")
        except GONE as exc:
            raise connection_failed("the connection broke", exc) from root_of(exc)

    async def _receive(self) -> bytes:
        try:
            data = await self._transport.receive()
        except GONE as exc:
            raise connection_failed("the connection broke", exc) from root_of(exc)
        if not data:
            raise ConnectionFailed("the client hung up in the middle of a request")
        return data

    def _log_access(
        self, request: Request, response: Response | Streamed, size: int, seconds: float
    ) -> None:
        if self._logger.isEnabledFor(logging.INFO):
            head = response.head if isinstance(response, Streamed) else response
            self._logger.info(
                '%s "%s %s" %d, %d bytes, %.3f s',
                show_address(request.remote_address),
                request.method,
                request.target,
                head.status,
                size,
                seconds,
            )


@trio.lowlevel.disable_ki_protection
async def _run_endpoint(site: Site, request: Request) -> Response | Streamed:
    return await site.respond(request)
