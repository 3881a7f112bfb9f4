"""The ends of a connection: addresses, as people and programs write them, and TLS.

This module owns what these are here. It knows no sockets.
"""

from __future__ import annotations

import ipaddress
import ssl
from typing import TypeAlias

import trio

#: ``(host, port)`` of a TCP peer, the path of a Unix socket, or `None` if the stream has neither.
Address: TypeAlias = "tuple[str, int] | str | None"

#: The TLS under a connection: ours, or that of a stream which the application brought.
TLS: TypeAlias = ssl.SSLObject | trio.SSLStream[trio.abc.Stream]


def show_address(address: Address) -> str:
    """An address as people write it."""
    if isinstance(address, tuple):
        host, port = address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return address or "a peer without address"


MAX_PORT = 65535


def ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address in `text`, or `None` if it is none.

    The zone is left out, and an IPv4 address inside an IPv6 address is given as IPv4.
    """
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    return ip.ipv4_mapped or ipaddress.IPv6Address(int(ip))
