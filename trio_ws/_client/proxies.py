"""Through a proxy to the server: which one, and how a tunnel comes about.

This module owns the choice between the option and the environment, and the way to the far end of
the tunnel. What an HTTP proxy is told is in `_handshake.tunnel`; `socks` speaks to the others.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from .._addresses import show_address
from .._handshake.tunnel import request_tunnel
from .._http.proxies import Proxy
from .._http.url import WebSocketURL
from .._http.values import ProxyError
from .._options import ClientOptions
from .._transport.sockets import wrap_stream
from .._transport.tunnel import TunnelStream
from .dialing import dial_tcp, start_tls
from .environment import proxy_from

RequestSocksTunnel: TypeAlias = Callable[[trio.SocketStream, Proxy, str, int], Awaitable[None]]


def choose_proxy(url: WebSocketURL, options: ClientOptions) -> Proxy | None:
    """The proxy to go through to `url`; `None` for none. The environment is read each time.

    Raises:
        ValueError: the variable that counts does not hold the URL of a proxy.
    """
    if options.proxy != "env":
        return options.proxy_given
    if options.path is not None:
        return None
    return proxy_from(dict(os.environ), url)


async def open_tunnel(proxy: Proxy, url: WebSocketURL, options: ClientOptions) -> trio.abc.Stream:
    """A stream to the server of `url` that leads through the proxy.

    It is a plain socket wherever no TLS leads to the proxy.

    Raises:
        ProxyError: the proxy gives no tunnel.
        ConnectionFailed: the network failed, or TLS to the proxy.
        ImportError: python-socks is missing.
    """
    request_socks = import_socks(proxy) if proxy.speaks_socks else None
    host = url.host.partition("%")[0]  # a zone index means something on this machine only
    stream = await dial_tcp(proxy.host, proxy.port, options.local_address, "the proxy ")
    if request_socks is not None:
        await request_socks(stream, proxy, host, url.port)
        return stream
    if proxy.scheme == "https":
        transport = await start_tls(stream, proxy.host, options.proxy_ssl_context, "the proxy ")
    else:
        transport = wrap_stream(stream, own=True)
    try:
        authority = show_address((host, url.port))
        first = await request_tunnel(transport, proxy, authority, options.user_agent)
    except ProxyError:
        await transport.aclose()  # in good order: TLS says goodbye
        raise
    except BaseException:  # Cancelled included
        await transport.aclose_forcefully()
        raise
    if first or proxy.scheme == "https":
        return TunnelStream(transport, first)
    return stream


def import_socks(proxy: Proxy) -> RequestSocksTunnel:
    """What asks a SOCKS proxy for a tunnel.

    Raises:
        ImportError: python-socks is missing.
    """
    try:
        from .socks import request_socks_tunnel  # noqa: PLC0415 - fails where python-socks is missing
    except ImportError as exc:
        raise ImportError(
            f'the proxy of {proxy} needs python-socks: pip install "trio-ws[proxy]", or connect '
            "with proxy=None"
        ) from exc
    return request_socks_tunnel
