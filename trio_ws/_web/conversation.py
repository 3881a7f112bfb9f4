"""Pages on a connection, for handlers that are a site: one request after the other.

This module owns everything between two heads: bodies of requests with their limit and their
deadline, responses in memory and from a file, and whether the connection goes on. Its caller reads
the heads, and knows which of them asks for a WebSocket. The site knows the answers.

One client cannot harm the others. A body has `open_timeout` to arrive, as a head has, and at most
`max_body_size` bytes. A client is dropped if it takes no byte of a response for as long as
keepalive gives to a silent peer. Other tasks run between two requests that came together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from .._addresses import show_address
from .._errors import ConnectionFailed
from .._http.exchange import MalformedHead, ServerExchange, after_empty_lines
from .._http.reading import IncomingRequest
from .._http.values import ConnectionRejected, InvalidRequest, Request, Response, refusal
from .._log import ConnectionLogger
from .._nursery import errors_in
from .._options import ListenerOptions
from .._reasons import connection_failed, root_of
from .._transport.opening import hang_up
from .._transport.stream import Transport
from .._transport.system import GONE
from .hooks import ask, check_answer
from .site import Site, Streamed

#: What a chunk of a body counts beside its bytes. Without it, a million chunks of one byte each
#: would fit into `max_body_size`, and take seconds.
_CHUNK_CHARGE = 64

#: How many pieces of a chunked body are decoded before other tasks may run. One piece of tiny
#: chunks takes more than a millisecond.
_PIECES_PER_CHECKPOINT = 4

#: How much of a response is written in one go. A client has to take this much in time.
_PIECE = 16 * 1024


class Conversation:
    """The pages of one connection.

    Args:
        transport: what it goes over. The caller closes it.
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

    async def answer(self, incoming: IncomingRequest) -> bytes | None:
        """Answer one request, and give what the client sent after it.

        `None` means that it was the last one: this side has answered, and hung up.

        Raises:
            ConnectionFailed: the client left, or took too long to read.
        """
        started = trio.current_time()
        response, rest = await self._decide(incoming)
        try:
            close = rest is None or self._is_stopping()
            size = await self._send(incoming.exchange, response, close=close)
        finally:
            if isinstance(response, Streamed):
                response.source.close()
        self._log_access(incoming.request, response, size, trio.current_time() - started)
        if not incoming.exchange.may_be_followed:
            await hang_up(self._transport)
            return None
        return rest

    async def wait_for_request(self, received: bytes) -> bytes:
        """The first bytes of the next request, or ``b""`` if the client has left.

        The caller limits the time. A cancellation loses nothing that matters: only empty lines were
        read.
        """
        if received:
            # A thousand requests in one segment would otherwise be answered in one go.
            await trio.lowlevel.checkpoint()
        try:
            while not (received := after_empty_lines(received)):
                received = await self._transport.receive()
                if not received:
                    return b""
        except GONE:
            return b""
        return received

    # From the request to a response…

    async def _decide(self, incoming: IncomingRequest) -> tuple[Response | Streamed, bytes | None]:
        """The response, and the bytes after the request: `None` if its body was not read."""
        request = incoming.request
        _, rest = incoming.exchange.body()
        if rest is not None:
            rest = incoming.rest  # there is no body
        try:
            # Before the body is read: a stranger's upload is refused, not received.
            await ask(request, self._options.process_request, self._site.admit, self._logger)
            if rest is None:
                body, rest = await self._read_body(incoming)
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
                raise  # cancelled, or the program is told to end
            self._failed(request, exc)
            return Response(500, body="Internal server error.\n")
        return response

    async def _read_body(self, incoming: IncomingRequest) -> tuple[bytes, bytes]:
        """The body of a request that has one, and the bytes after it."""
        exchange, data = incoming.exchange, incoming.rest
        if int(incoming.request.headers.get("Content-Length", "0")) > self._options.max_body_size:
            raise self._too_large()
        body = bytearray()
        with trio.move_on_after(self._options.open_timeout):
            while (rest := await self._decode(exchange, data, body)) is None:
                if exchange.waits_for_continue:
                    await self._write(exchange.continue_())
                data = await self._receive()
            return bytes(body), rest
        raise refusal(408, "the request's body took too long")

    async def _decode(self, exchange: ServerExchange, data: bytes, body: bytearray) -> bytes | None:
        """Add the part of the body in `data`. Gives the bytes after it, `None` while it goes on."""
        size = exchange.piece_size or len(data)
        for number, start in enumerate(range(0, len(data), size or 1), 1):
            end = start + size
            try:
                piece, rest = exchange.body(data[start:end])
            except MalformedHead as exc:
                raise refusal(400, f"malformed request: {exc}") from None
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
        """Send a response. Gives the number of bytes that its body had."""
        defaults = self._options.response_fields
        if isinstance(response, Response):
            await self._write(exchange.response(response, defaults, close=close))
            return len(response.body) if exchange.wants_body else 0
        pending = exchange.response_head(response.head, response.length, defaults, close=close)
        size = 0
        if exchange.wants_body:
            while data := await response.source.read():
                await self._write(pending + exchange.response_data(data))
                pending = b""
                size += len(data)
            if size < response.length:
                # Its head has promised more. The client notices only if the connection breaks.
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
