"""Addresses, as people and programs write them.

This module owns what an address is here. It knows no sockets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    pass


#: ``(host, port)`` of a TCP peer, the path of a Unix socket, `None` where the stream has neither.
Address: TypeAlias = "tuple[str, int] | str | None"


def show_address(address: Address) -> str:
    """An address as people write it."""
    if isinstance(address, tuple):
        host, port = address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return address or "a peer without address"
