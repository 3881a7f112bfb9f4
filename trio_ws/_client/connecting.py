"""From a URL to a transport: name look-up, TCP, Unix sockets, TLS.

This module owns how a transport to the server comes about, and what is said where none does. What
is asked for over it, and for how long it may take, is up to the caller.
"""

from __future__ import annotations

import functools
import os
import ssl

import trio

from .._addresses import show_address
from .._http.url import WebSocketURL
from .._options import ClientOptions
from .._reasons import connection_failed, root_of
from .._transport.sockets import wrap_stream
from .._transport.stream import Transport
from .._transport.tls import open_tls


async def open_transport(url: WebSocketURL, options: ClientOptions) -> Transport:
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
