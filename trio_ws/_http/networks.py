"""The networks of trusted proxies, checked when they are given.

This module owns which addresses are trusted. `forwarded` reads what a trusted proxy says.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import final

from .._addresses import ip_address

#: Stands for peers that have no IP address.
UNIX = "unix"


@final
class Networks:
    """A set of IP networks, and perhaps of peers without an address.

    Raises:
        TypeError, ValueError: a name is no network, or has host bits set.
    """

    __slots__ = ("_networks", "_unix")

    def __init__(self, names: Sequence[str]) -> None:
        self._unix = UNIX in names
        self._networks = [_network(name) for name in names if name != UNIX]

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __contains__(self, address: tuple[str, int] | str | None) -> bool:
        if not isinstance(address, tuple):
            return self._unix
        ip = ip_address(address[0])
        return ip is not None and any(ip in network for network in self._networks)


def _network(name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if not isinstance(name, str):  # ipaddress takes an int for an address
        raise TypeError(f"a trusted proxy is a str, not {name!r}")
    try:
        return ipaddress.ip_network(name)
    except ValueError as exc:
        raise ValueError(
            f"a trusted proxy is an address, a network like '10.0.0.0/8', or 'unix': {exc}"
        ) from None
