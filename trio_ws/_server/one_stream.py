"""A WebSocket as the server over one stream, without a server around it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Unpack

import trio

from .._addresses import Address
from .._connection.lifetime import run_connection
from .._connection.opening import Opening
from .._connection.websocket import WebSocket
from .._handshake.accepting import accept_upgrade
from .._http.values import Accept, ConnectionRejected, InvalidRequest, Request
from .._keywords import ServerStreamKeywords
from .._log import ConnectionLogger, new_connection_id
from .._nursery import protected_context
from .._options import ServerStreamOptions, make_options, shows_options
from .._transport.checks import check_stream
from .._transport.opening import begin_step, opening_deadline, read_whole, respond_and_hang_up
from .._transport.sockets import wrap_stream
from .._transport.stream import Transport
from .._web.declining import decline
from .._web.hooks import ask
from .visit import client_behind_proxy, request_reader


@shows_options(ServerStreamOptions)
@protected_context
async def wrap_server_stream(
    stream: trio.abc.Stream, **options: Unpack[ServerStreamKeywords]
) -> AsyncGenerator[WebSocket, None]:
    """Open a WebSocket as the server over one stream that is connected already.

    The stream belongs to the connection from now on. It is closed with it, and also when the
    handshake fails or an option is wrong. The block is the handler; leaving it closes the
    connection as leaving `open_websocket_url` does.

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
            opening = await answer_request(transport, settings, logger, client)
    except BaseException:  # Cancelled among them; all go on their way
        await transport.aclose_forcefully()
        raise
    websocket = WebSocket(transport, opening, logger.connection_id, settings, logger)
    async with run_connection(websocket):
        yield websocket


async def answer_request(
    transport: Transport, options: ServerStreamOptions, logger: ConnectionLogger, client: Address
) -> Opening:
    """Read one request, and open the WebSocket that it asks for, or refuse it.

    Raises:
        InvalidRequest: it was malformed, and has been told so.
        ConnectionRejected: it was answered with a response of `process_request`.
        ConnectionFailed: the client left.
    """

    async def ask_hook(request: Request) -> Accept | None:
        begin_step("waiting for process_request")
        return await ask(request, options.process_request, None, logger)

    asking = ask_hook if options.process_request is not None else None
    reader = request_reader(transport, options, client)
    begin_step("waiting for the client's request")
    try:
        incoming = await read_whole(transport, reader)
        if not incoming.request.is_upgrade:
            await decline(incoming, asking)
        return await accept_upgrade(transport, incoming, options, ask=asking)
    except (InvalidRequest, ConnectionRejected) as exc:
        data = reader.exchange.response(exc.response, options.response_fields)
        await respond_and_hang_up(transport, data)
        raise
