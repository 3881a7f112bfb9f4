"""TLS over an authority that nobody else knows, and WebSockets over our TLS on a given socket."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trustme

from tests.helpers import (
    REQUEST,
    URL,
    RawPeer,
    StreamPair,
    receive_head,
    shake_hands_as_server,
)
from trio_ws import WebSocket, wrap_client_stream, wrap_server_stream
from trio_ws._client.client import shake_hands
from trio_ws._connection.lifetime import run_connection
from trio_ws._http.url import parse_url
from trio_ws._log import ConnectionLogger, new_connection_id
from trio_ws._nursery import open_bare_nursery
from trio_ws._options import ClientStreamOptions, ServerStreamOptions, make_options
from trio_ws._server.one_stream import answer_request
from trio_ws._transport.opening import opening_deadline
from trio_ws._transport.sockets import wrap_stream
from trio_ws._transport.tls import TLSTransport, _of_thread


def tls_contexts(host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server that has this name or address, and for clients that trust it."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(host).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def over(
    stream: trio.abc.Stream,
    context: ssl.SSLContext,
    name: str | None = None,
    *,
    kind: type[TLSTransport] = TLSTransport,
) -> TLSTransport:
    """Our TLS; with a `name`, the client's side."""
    below = wrap_stream(stream)
    assert below.plain_socket is not None
    return kind(below.plain_socket, below.remote_address, context, server_hostname=name)


def nothing_is_left_in_the_buffers() -> bool:
    """Whether the buffers that the connections of this thread share are as a new one's."""
    buffers = _of_thread.buffers
    return not (buffers.busy or buffers.incoming.pending or buffers.outgoing.pending)


# `wrap_server_stream` and `wrap_client_stream` leave TLS to the stream, which may be trio's. A
# server and `open_websocket_url` make our TLS, but over sockets of their own.


@asynccontextmanager
async def wrap_server_transport(
    transport: TLSTransport, **options: Any
) -> AsyncGenerator[WebSocket, None]:
    """As `wrap_server_stream`."""
    settings = make_options(ServerStreamOptions, options, wrap_server_stream)
    logger = ConnectionLogger(settings.logger, new_connection_id())
    try:
        with opening_deadline(settings.open_timeout):
            opening = await answer_request(transport, settings, logger, None)
    except BaseException:
        await transport.aclose_forcefully()
        raise
    ws = WebSocket(transport, opening, logger.connection_id, settings, logger)
    async with run_connection(ws):
        yield ws


@asynccontextmanager
async def wrap_client_transport(
    transport: TLSTransport, **options: Any
) -> AsyncGenerator[WebSocket, None]:
    """As `wrap_client_stream`."""
    settings = make_options(ClientStreamOptions, options, wrap_client_stream)
    with opening_deadline(settings.open_timeout):
        ws = await shake_hands(transport, parse_url(URL), settings)
    async with run_connection(ws):
        yield ws


NAME = "example.org"
SERVER, CLIENT = tls_contexts(NAME)


def tls_of_trio(stream: trio.abc.Stream, *, masks: bool) -> trio.SSLStream[Any]:
    """TLS for the other end; a client masks."""
    if masks:
        return trio.SSLStream(stream, CLIENT, server_hostname=NAME)
    return trio.SSLStream(stream, SERVER, server_side=True)


@asynccontextmanager
async def open_server_with_raw_tls_client(
    *, streams: StreamPair, **options: Any
) -> AsyncGenerator[tuple[WebSocket, RawPeer], None]:
    """Our server's end over our TLS, and a raw client over trio's that has shaken hands."""
    client_stream, server_stream = streams
    peer = RawPeer(tls_of_trio(client_stream, masks=True), masks=True)

    async def ask(shaken: trio.Event) -> None:
        await peer.send(REQUEST)
        await receive_head(peer)
        shaken.set()

    async with open_bare_nursery() as nursery:
        shaken = trio.Event()
        nursery.start_soon(ask, shaken)
        try:
            async with wrap_server_transport(over(server_stream, SERVER), **options) as ws:
                await shaken.wait()
                yield ws, peer
        finally:
            await trio.aclose_forcefully(peer.stream)


@asynccontextmanager
async def open_client_with_raw_tls_server(
    *, streams: StreamPair, **options: Any
) -> AsyncGenerator[tuple[WebSocket, RawPeer], None]:
    """Our client's end over our TLS, and a raw server over trio's that has shaken hands."""
    client_stream, server_stream = streams
    peer = RawPeer(tls_of_trio(server_stream, masks=False), masks=False)
    async with open_bare_nursery() as nursery:
        shaken = trio.Event()
        nursery.start_soon(shake_hands_as_server, peer, shaken)
        try:
            async with wrap_client_transport(over(client_stream, CLIENT, NAME), **options) as ws:
                await shaken.wait()
                yield ws, peer
        finally:
            await trio.aclose_forcefully(peer.stream)
