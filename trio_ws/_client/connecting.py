"""From a URL to a transport that leads to its server.

This module owns the order of the steps: a socket or a tunnel, then TLS. What is asked for over the
transport, and for how long it may take, is up to the caller.
"""

from __future__ import annotations

from .._http.proxies import Proxy
from .._http.url import WebSocketURL
from .._options import ClientOptions
from .._transport.sockets import wrap_stream
from .._transport.stream import Transport
from .dialing import dial_tcp, dial_unix, start_tls
from .proxies import open_tunnel


async def open_transport(
    url: WebSocketURL, options: ClientOptions, proxy: Proxy | None
) -> Transport:
    """A transport to the server of `url`, through the proxy if there is one.

    Raises:
        ConnectionFailed: the network or TLS failed.
        ProxyError: the proxy gives no tunnel.
    """
    if proxy is not None:
        stream = await open_tunnel(proxy, url, options)
    elif options.path is not None:
        stream = await dial_unix(options.path)
    else:
        stream = await dial_tcp(url.host, url.port, options.local_address)
    if not url.secure:
        return wrap_stream(stream, own=True)
    return await start_tls(stream, options.server_hostname or url.host, options.ssl_context)
