"""SOCKS, by python-socks: the one file that knows it, and that is imported only for a SOCKS proxy.

This module owns how its errors become ours. It is handed a socket that is connected to the proxy,
so that every address of the proxy's name is tried, and from the address that the caller chose.
"""

from __future__ import annotations

from math import inf
from typing import Any

import trio
from python_socks import ProxyError as SocksError, ProxyType
from python_socks.async_.trio import Proxy as SocksProxy

from .._http.proxies import Proxy
from .._reasons import connection_failed, root_of
from .._transport.opening import begin_step

_TYPES = {
    "socks4a": ProxyType.SOCKS4,
    "socks5": ProxyType.SOCKS5,
    "socks5h": ProxyType.SOCKS5,
}


class _Connected(SocksProxy):
    """What python-socks connects through to the proxy: a socket that is connected to it already."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        super().__init__(ProxyType.SOCKS5, "", 0)
        self._connected = sock

    async def connect(
        self, dest_host: str, dest_port: int, timeout: float | None = None, **kwargs: Any
    ) -> trio.socket.SocketType:
        return self._connected


async def request_socks_tunnel(
    stream: trio.SocketStream, proxy: Proxy, host: str, port: int
) -> None:
    """Ask for a tunnel to a host and a port. No byte is read that comes behind the answer.

    If that fails or is cancelled, the stream is closed.

    Raises:
        ProxyError: the proxy refused, or its answer is malformed.
        ConnectionFailed: the connection to the proxy broke, or the look-up of the host's name.
    """
    via = SocksProxy(
        _TYPES[proxy.scheme],
        proxy.host,
        proxy.port,
        proxy.user or None,
        proxy.password or None,
        rdns=proxy.scheme != "socks5",
        forward=_Connected(stream.socket),
    )
    begin_step("waiting for the proxy's answer")
    try:
        await via.connect(host, port, timeout=inf)  # the caller's deadline is over all of it
    except BaseException as exc:  # Cancelled included
        stream.socket.close()
        if isinstance(exc, OSError):
            raise connection_failed("the proxy gives no tunnel", exc) from root_of(exc)
        if isinstance(exc, (SocksError, ValueError)):  # ValueError: what is no text or address
            raise proxy.error(f"the proxy gives no tunnel: {exc}") from None
        raise
