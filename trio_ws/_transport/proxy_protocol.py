"""The PROXY protocol, versions 1 and 2: the header that a proxy sends first, even before TLS.

This module owns how the header is read: not a byte more than belongs to it, because TLS or a
request follows. The caller has checked that the peer is a trusted proxy.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct

import trio

from .._addresses import MAX_PORT, Address, ip_address
from .._errors import ConnectionFailed
from .._reasons import connection_failed, root_of
from .system import GONE

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_MAX_V1 = 107
#: Addresses take 216 bytes or less. The rest is room for what proxies add.
_MAX_V2 = 4096


async def read_proxy_header(below_tls: trio.abc.Stream) -> Address:
    """Read the header, and not a byte more. Gives the client's address.

    It is `None` if the proxy speaks for itself (a health check), or does not know the address.

    Raises:
        ConnectionFailed: it is not the PROXY protocol.
    """
    start = await _read(below_tls, 12)
    if start == _SIGNATURE:
        kind, family, size = struct.unpack("!BBH", await _read(below_tls, 4))
        if kind not in (0x20, 0x21) or size > _MAX_V2:
            raise ConnectionFailed("the proxy speaks an unknown version of the PROXY protocol")
        data = await _read(below_tls, size)  # even a health check may have extensions
        return _v2_address(family, data) if kind == 0x21 else None
    line = bytearray(start)
    # Byte by byte, because nothing says how long the line is, and TLS may follow at once.
    while not line.endswith(b"\r\n"):
        if len(line) == _MAX_V1 or not line.startswith(b"PROXY "):
            raise ConnectionFailed("the proxy did not begin with a PROXY header")
        line += await _read(below_tls, 1)
    return _v1_address(line[:-2].decode("latin-1").split(" "))


#: Version 1 has addresses of one family, and numbers without a zero in front.
_V1_FAMILIES = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}
_V1_PORT = re.compile(r"0|[1-9][0-9]{0,4}")


def _v1_address(words: list[str]) -> Address:
    if words[1:2] == ["UNKNOWN"]:
        return None
    try:
        _, family, source, destination, *ports = words
        for address in (source, destination):
            _V1_FAMILIES[family](address)
    except (KeyError, ValueError):
        raise _malformed() from None
    if len(ports) != 2 or not all(map(_is_v1_port, ports)):
        raise _malformed()
    return str(ip_address(source)), int(ports[0])


def _is_v1_port(text: str) -> bool:
    return _V1_PORT.fullmatch(text) is not None and int(text) <= MAX_PORT


def _malformed() -> ConnectionFailed:
    return ConnectionFailed("the proxy sent a malformed PROXY header")


def _v2_address(family: int, data: bytes) -> Address:
    for code, kind, size in ((0x11, socket.AF_INET, 4), (0x21, socket.AF_INET6, 16)):
        if family == code and len(data) >= 2 * size + 4:
            (port,) = struct.unpack_from("!H", data, 2 * size)
            ip = ip_address(socket.inet_ntop(kind, data[:size]))
            return str(ip), port
    return None  # a Unix socket, or something else than TCP


async def _read(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            piece = bytes(await stream.receive_some(size - len(data)))
        except (*GONE, OSError) as exc:
            raise connection_failed("the connection broke", exc) from root_of(exc)
        if not piece:
            raise ConnectionFailed("the proxy hung up before its header was through")
        data += piece
    return data
