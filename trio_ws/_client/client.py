"""Clients: from a URL, or any stream, to an open connection.

This module owns how a stream to the server comes about (name look-up, TCP, TLS, Unix sockets,
redirects) and the deadline over all of it.
"""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Unpack

import trio

from .._addresses import show_address
from .._connection.lifetime import run_connection
from .._connection.websocket import WebSocket
from .._errors import InvalidResponse, InvalidURL, TooManyRedirects
from .._handshake.requesting import request_connection
from .._http.headers import Headers
from .._http.url import WebSocketURL, follow_redirect, join_url, parse_url
from .._http.values import ConnectionRejected, Response
from .._keywords import ClientKeywords, ClientStreamKeywords
from .._log import ConnectionLogger, new_connection_id
from .._nursery import protected_context
from .._options import ClientOptions, ClientStreamOptions, make_options
from .._reasons import connection_failed, root_of
from .._redaction import is_secret_field, masked
from .._transport.checks import check_stream
from .._transport.opening import opening_deadline
from .._transport.sockets import wrap_stream
from .._transport.stream import Transport
from .._transport.tls import open_tls

_REDIRECTS = {301, 302, 303, 307, 308}


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
        HandshakeTimeout: opening took longer than `open_timeout` seconds.
        TypeError, ValueError: an option is wrong, such as an `ssl_context` for a ``ws://`` URL.
    """
    settings = make_options(ClientOptions, options, open_websocket_url)
    target = parse_url(url)
    if settings.ssl_context is not None and not (target.secure or settings.max_redirects > 0):
        raise ValueError(f"an ssl_context is for wss:// URLs, and {masked(url)!r} is not one")
    async with run_connection(await _connect(target, settings)) as websocket:
        yield websocket


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
    async with run_connection(await _connect(url, settings)) as websocket:
        yield websocket


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


async def _connect(url: WebSocketURL, options: ClientOptions) -> WebSocket:
    if options.server_hostname is not None and not url.secure:
        raise ValueError(f"server_hostname is for wss:// URLs, and '{url}' is not one")
    return await follow_redirects(url, options, _connect_once)


async def _connect_once(url: WebSocketURL, options: ClientOptions) -> WebSocket:
    return await shake_hands(await _open_transport(url, options), url, options)


async def shake_hands(
    transport: Transport, url: WebSocketURL, options: ClientStreamOptions
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
    logger.debug("connected to %s", url)
    return WebSocket(transport, opening, connection_id, options, logger)


# ---------------------------------------------------------------------------
# Transports
# ---------------------------------------------------------------------------


async def _open_transport(url: WebSocketURL, options: ClientOptions) -> Transport:
    try:
        stream: trio.SocketStream
        if options.path is not None:
            stream = await trio.open_unix_socket(os.fspath(options.path))
        else:
            stream = await trio.open_tcp_stream(url.host, url.port)  # happy eyeballs, RFC 8305
    except OSError as exc:
        where = options.path or show_address((url.host, url.port))
        raise connection_failed(f"cannot connect to {where}", exc) from root_of(exc)
    if not url.secure:
        return wrap_stream(stream, own=True)
    return await _start_tls(stream, url, options)


async def _start_tls(
    stream: trio.SocketStream, url: WebSocketURL, options: ClientOptions
) -> Transport:
    # Certificates name hosts without the root's dot and without the zone index of an address.
    name = (options.server_hostname or url.host).partition("%")[0].removesuffix(".")
    context = options.ssl_context or _default_ssl_context()
    try:
        return await open_tls(stream, context, name)
    except (trio.BrokenResourceError, ssl.SSLError) as exc:
        raise connection_failed(f"the TLS handshake with {name} failed", exc) from root_of(exc)


@functools.cache
def _default_ssl_context() -> ssl.SSLContext:
    """The system's trust store, with host names checked. It takes milliseconds to load."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


# ---------------------------------------------------------------------------
# Redirects
# ---------------------------------------------------------------------------


async def follow_redirects(
    url: WebSocketURL,
    options: ClientOptions,
    connect: Callable[[WebSocketURL, ClientOptions], Awaitable[WebSocket]],
) -> WebSocket:
    """Call `connect`, and again for each redirect, all within `open_timeout`.

    Raises:
        TooManyRedirects: there was one more than `max_redirects`.
        InvalidResponse: a redirect leads to no WebSocket, or from ``wss`` to ``ws``.
        HandshakeError: `connect` raised it. A `ConnectionRejected` is raised if it is no redirect,
            or none that is to be followed.
    """
    followed = 0
    with opening_deadline(options.open_timeout):
        while True:
            try:
                return await connect(url, options)
            except ConnectionRejected as exc:
                further = _follow(exc, url, options, followed)
                if further is None:
                    raise
                url, options = further
                followed += 1


def _follow(
    refusal: ConnectionRejected, url: WebSocketURL, options: ClientOptions, followed: int
) -> tuple[WebSocketURL, ClientOptions] | None:
    """The URL and the options to try after a refusal, when so many redirects were `followed`.

    `None` if it is no redirect, or if redirects are not to be followed.
    """
    location = location_in(refusal.response) if options.max_redirects else None
    if location is None:
        return None
    if followed == options.max_redirects:
        raise TooManyRedirects(f"there were more than {followed} redirects") from refusal
    return _redirected(url, options, location)


def location_in(response: Response) -> str | None:
    """Where a redirect leads; `None` if `response` is no redirect.

    Raises:
        InvalidResponse: the redirect leads to more than one place.
    """
    locations = set(response.headers.get_all("Location") if response.status in _REDIRECTS else ())
    if len(locations) > 1:  # a comma may be part of a URL, so they cannot be joined into a list
        raise InvalidResponse("the server redirects to more than one place")
    return locations.pop() if locations else None


def _redirected(
    url: WebSocketURL, options: ClientOptions, location: str
) -> tuple[WebSocketURL, ClientOptions]:
    """The URL and the options to try next. Credentials stay with the origin that they are for."""
    try:
        target = follow_redirect(url, location)
    except InvalidURL as exc:
        raise InvalidResponse(
            f"the server redirects to {masked(location)!r}: {exc.problem}"
        ) from exc
    if url.secure and not target.secure:
        raise InvalidResponse(f"the redirect from {url} to {target} would give up TLS")
    if target.origin == url.origin:
        return replace(target, authorization=url.authorization), options
    kept = [pair for pair in options.extra_headers.fields if not is_secret_field(pair[0])]
    # Another origin is another server, which the Unix socket and the certificate's name of the
    # first one are not for.
    return target, replace(options, headers=Headers(kept), path=None, server_hostname=None)
