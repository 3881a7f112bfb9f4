"""The steps on the way to a server: TCP, Unix sockets, TLS.

This module owns what is said where one of them fails. Which of them lead to the server is up to
`connecting`.
"""

from __future__ import annotations

import functools
import os
import ssl

import trio

from .._addresses import show_address
from .._reasons import connection_failed, root_of
from .._transport.opening import begin_step
from .._transport.stream import Transport
from .._transport.tls import open_tls


async def dial_tcp(
    host: str, port: int, local_address: str | None, what: str = ""
) -> trio.SocketStream:
    """Connect to a host and a port.

    Args:
        host: a name or an IP address. Every address of a name is tried (RFC 8305).
        port: its port.
        local_address: the address of this machine to connect from; `None` for any.
        what: what it is, in the error: ``"the proxy "``.

    Raises:
        ConnectionFailed: no address could be connected to.
    """
    origin = f" from {local_address}" if local_address is not None else ""
    where = f"{what}{show_address((host, port))}{origin}"
    begin_step(f"connecting to {where}")
    try:
        return await trio.open_tcp_stream(host, port, local_address=local_address)
    except OSError as exc:
        raise connection_failed(f"cannot connect to {where}", exc) from root_of(exc)


async def dial_unix(path: str | os.PathLike[str]) -> trio.SocketStream:
    """Connect to a Unix socket.

    Raises:
        ConnectionFailed: that failed.
    """
    begin_step(f"connecting to {path}")
    try:
        return await trio.open_unix_socket(os.fspath(path))
    except OSError as exc:
        raise connection_failed(f"cannot connect to {path}", exc) from root_of(exc)


async def start_tls(
    stream: trio.abc.Stream, host: str, context: ssl.SSLContext | None, what: str = ""
) -> Transport:
    """TLS with whom the certificate names `host`. The stream is closed if that fails.

    Args:
        stream: what it runs over.
        host: the name or the address, as it may stand in a URL.
        context: whom to trust; `None` for the system's trust store.
        what: what it is, in the error.

    Raises:
        ConnectionFailed: the TLS handshake failed.
    """
    # Certificates name hosts without the root's dot and without the zone index of an address.
    name = host.partition("%")[0].removesuffix(".")
    begin_step(f"shaking hands over TLS with {what}{name}")
    try:
        return await open_tls(stream, context or _default_ssl_context(), name)
    except (trio.BrokenResourceError, ssl.SSLError) as exc:
        raise connection_failed(f"the TLS handshake with {what}{name} failed", exc) from root_of(
            exc
        )


@functools.cache
def _default_ssl_context() -> ssl.SSLContext:
    """The system's trust store, with host names checked. It takes milliseconds to load."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
