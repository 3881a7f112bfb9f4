"""Clients: from a URL, or any stream, to an open connection.

This module owns the public entry points, and who the stream belongs to until it is open. How a
stream to the server comes about is in `connecting`, and where a refusal leads in `redirects`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Unpack

import trio

from .._connection.lifetime import run_connection
from .._connection.websocket import WebSocket
from .._errors import ConnectionFailed, HandshakeTimeout, InvalidResponse
from .._handshake.requesting import request_connection
from .._http.proxies import Proxy
from .._http.url import WebSocketURL, join_url, parse_url
from .._http.values import ConnectionRejected
from .._keywords import ClientKeywords, ClientStreamKeywords
from .._log import ConnectionLogger, new_connection_id
from .._nursery import protected_context
from .._options import ClientOptions, ClientStreamOptions, make_options, shows_options
from .._reasons import reworded
from .._redaction import masked
from .._transport.checks import check_stream
from .._transport.opening import opening_deadline
from .._transport.sockets import wrap_stream
from .._transport.stream import Transport
from .connecting import open_transport
from .proxies import choose_proxy
from .redirects import follow_redirects


@shows_options(ClientOptions)
@protected_context
async def open_websocket_url(
    url: str, **options: Unpack[ClientKeywords]
) -> AsyncGenerator[WebSocket, None]:
    """Connect to a ``ws://`` or ``wss://`` URL::

        async with open_websocket_url("wss://example.org/chat") as ws:
            await ws.send("Hello world!")
            print(await ws.receive())

    Leaving the block closes the connection: with 1000 at its end, with 1001 if the block is
    cancelled, and with 1011 if it raises. That takes at most `close_timeout` seconds, even under
    cancellation. What the block raises comes out as it is, never in an exception group.

    A user and password in the URL are sent as Basic authorization. The options are those of
    `ClientOptions`: ``path="/run/app.sock"``, for example, connects to a Unix socket, and
    ``ssl_context`` says whom to trust.

    Raises:
        InvalidURL: `url` is not a WebSocket URL.
        ConnectionFailed: the network or TLS failed; see its ``__cause__``.
        ConnectionRejected: the server answered with another status than 101.
        InvalidResponse: the server answered with something that is no proper response.
        TooManyRedirects: the server redirected more than `max_redirects` times.
        ProxyError: the proxy gave no tunnel to the server.
        HandshakeTimeout: opening took longer than `open_timeout` seconds.
        TypeError, ValueError: an option is wrong, such as an `ssl_context` for a ``ws://`` URL; or
            what names the proxy in the environment is not the URL of one.
    """
    settings = make_options(ClientOptions, options, open_websocket_url)
    target = checked_target(url, settings)
    async with run_connection(await connect(target, settings)) as websocket:
        yield websocket


@shows_options(ClientOptions)
@protected_context
async def open_websocket(
    host: str,
    port: int,
    resource: str = "/",
    *,
    use_ssl: bool = False,
    **options: Unpack[ClientKeywords],
) -> AsyncGenerator[WebSocket, None]:
    """`open_websocket_url`, from the parts of a URL.

    Args:
        host: a name, an IPv4 or an IPv6 address (without brackets).
        port: from 1 to 65535.
        resource: the path and query.
        use_ssl: ``wss`` rather than ``ws``. An `ssl_context` implies it.
        options: those of `ClientOptions`.
    """
    settings = make_options(ClientOptions, options, open_websocket)
    url = join_url(host, port, resource, secure=use_ssl or settings.ssl_context is not None)
    check_server_hostname(url, settings)
    async with run_connection(await connect(url, settings)) as websocket:
        yield websocket


@shows_options(ClientStreamOptions)
@protected_context
async def wrap_client_stream(
    stream: trio.abc.Stream, url: str, **options: Unpack[ClientStreamKeywords]
) -> AsyncGenerator[WebSocket, None]:
    """Open a WebSocket as the client over a stream that is connected already.

    The stream may be in memory, a tunnel, or a TLS stream that you made. `url` says what to ask
    for; nothing is connected to. The stream belongs to the connection from now on. It is closed
    with the connection, or at once if the handshake fails or if an option or the URL is wrong.
    Otherwise this is like `open_websocket_url`, without redirects.
    """
    check_stream(stream)
    try:
        settings = make_options(ClientStreamOptions, options, wrap_client_stream)
        target = parse_url(url)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    with opening_deadline(settings.open_timeout):
        websocket = await shake_hands(wrap_stream(stream), target, settings)
    async with run_connection(websocket):
        yield websocket


def checked_target(url: str, options: ClientOptions) -> WebSocketURL:
    """The parts of `url`, where `options` suit it.

    Raises:
        InvalidURL: it is not a WebSocket URL.
        ValueError: an option is for ``wss`` alone.
    """
    target = parse_url(url)
    if options.ssl_context is not None and not (target.secure or options.max_redirects > 0):
        raise ValueError(f"an ssl_context is for wss:// URLs, and {masked(url)!r} is not one")
    check_server_hostname(target, options)
    return target


def check_server_hostname(url: WebSocketURL, options: ClientOptions) -> None:
    if options.server_hostname is not None and not url.secure:
        raise ValueError(f"server_hostname is for wss:// URLs, and '{url}' is not one")


async def connect(url: WebSocketURL, options: ClientOptions) -> WebSocket:
    """Open a stream and shake hands, within `open_timeout`. No task is started."""
    proxy: Proxy | None = None

    async def connect_once(url: WebSocketURL, options: ClientOptions) -> WebSocket:
        nonlocal proxy
        proxy = choose_proxy(url, options)  # a redirect may lead to where there is another, or none
        return await shake_hands(await open_transport(url, options, proxy), url, options, proxy)

    try:
        return await follow_redirects(url, options, connect_once)
    except (ConnectionFailed, HandshakeTimeout, InvalidResponse) as exc:
        if proxy is None:
            raise
        # Whoever did not choose the proxy would look for the fault anywhere else.
        text = f"{exc} (via {proxy})"
        if isinstance(exc, ConnectionFailed):
            raise reworded(exc, text) from exc.__cause__
        raise type(exc)(text) from exc.__cause__


async def shake_hands(
    transport: Transport,
    url: WebSocketURL,
    options: ClientStreamOptions,
    proxy: Proxy | None = None,
) -> WebSocket:
    """Shake hands over a transport, which belongs to the connection from now on.

    It is closed if the handshake fails.
    """
    connection_id = new_connection_id()
    logger = ConnectionLogger(options.logger, connection_id)
    try:
        opening = await request_connection(transport, url, options)
    except ConnectionRejected:
        await transport.aclose()  # in good order: TLS says goodbye (RFC 9112 section 9.8)
        raise
    except BaseException:  # Cancelled included; it goes on once the stream is closed
        await transport.aclose_forcefully()
        raise
    logger.debug("connected to %s%s", url, f" (via {proxy})" if proxy else "")
    return WebSocket(transport, opening, connection_id, options, logger)
