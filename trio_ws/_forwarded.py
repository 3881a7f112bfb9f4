"""What a trusted proxy says about the client: fields of a request, or a header before all of it.

This module owns ``X-Forwarded-For``, RFC 7239's ``Forwarded`` and the PROXY protocol. Whose word
is taken is `_networks`'; nothing here is looked at before the peer was found there.

A proxy adds what it knows at the end, and what stands before that may be the client's invention. So
addresses are read from the end, and the first that is no trusted proxy is the client.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Sequence
from dataclasses import replace

import trio

from ._errors import ConnectionFailed
from ._http import Address, Request
from ._networks import Networks, ip_address

# ---------------------------------------------------------------------------
# Fields of a request
# ---------------------------------------------------------------------------

_SECURE = {"https": True, "wss": True, "http": False, "ws": False}


def from_client(request: Request, trusted: Networks, field: str) -> Request:
    """The request as the client made it, according to trusted proxies; else as it is."""
    if request.remote_address not in trusted:
        return request
    if field == "Forwarded":
        hops = _forwarded(",".join(request.headers.get_all("Forwarded")))
    else:
        # A proxy that does not pass on the address may still tell whether there was TLS.
        for scheme in request.headers.tokens("X-Forwarded-Proto")[-1:]:
            request = _with_scheme(request, scheme)
        hops = [(address, "") for address in request.headers.tokens("X-Forwarded-For")]
    return _innermost(request, hops, trusted)


def _innermost(request: Request, hops: Sequence[tuple[str, str]], trusted: Networks) -> Request:
    for name, scheme in reversed(hops):
        address = _address(name)
        if address is None:  # "unknown", or nonsense: the proxy before is all that is known
            return request
        request = _with_scheme(replace(request, remote_address=address), scheme)
        if address not in trusted:
            return request
    return request


def _with_scheme(request: Request, scheme: str) -> Request:
    secure = _SECURE.get(scheme.lower())
    return request if secure is None else replace(request, scheme="wss" if secure else "ws")


_PORT = re.compile(r"(\[.*\]|[0-9.]*):([0-9]{1,5})")


def _address(name: str) -> tuple[str, int] | None:
    """An address with or without a port, which is 0 where it is not said."""
    with_port = _PORT.fullmatch(name)
    host, port = (with_port[1], int(with_port[2])) if with_port else (name, 0)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    ip = ip_address(host)
    return None if ip is None else (str(ip), port)


_WORD = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_PAIR = re.compile(rf'[ \t]*({_WORD})=({_WORD}|"(?:[^"\\]|\\.)*")[ \t]*([;,]|\Z)')


def _forwarded(text: str) -> list[tuple[str, str]]:
    """RFC 7239 section 4: the ``for`` and ``proto`` of each element; none, if it is malformed."""
    hops: list[tuple[str, str]] = []
    element: dict[str, str] = {}
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            return []
        name, value, end = pair.groups()
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        element[name.lower()] = value
        if end != ";":
            hops.append((element.get("for", ""), element.get("proto", "")))
            element = {}
        position = pair.end()
    return hops


# ---------------------------------------------------------------------------
# The PROXY protocol, versions 1 and 2
# ---------------------------------------------------------------------------

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_MAX_V1 = 107
#: Addresses take 216 bytes at the most; the rest is for what proxies add.
_MAX_V2 = 4096


async def read_proxy_header(below_tls: trio.abc.Stream) -> Address:
    """Read what a proxy sends before everything else, TLS included, and not a byte more.

    Gives the client's address, or `None` where the proxy speaks for itself (a health check), or
    for a client of which it does not know one.

    Raises:
        ConnectionFailed: it is not the PROXY protocol.
    """
    start = await _read(below_tls, 12)
    if start == _SIGNATURE:
        kind, family, size = struct.unpack("!BBH", await _read(below_tls, 4))
        if kind not in (0x20, 0x21) or size > _MAX_V2:
            raise ConnectionFailed("the proxy speaks an unknown version of the PROXY protocol")
        return _v2_address(family, await _read(below_tls, size)) if kind == 0x21 else None
    line = bytearray(start)
    while not line.endswith(b"\r\n"):
        if len(line) == _MAX_V1 or not line.startswith(b"PROXY "):
            raise ConnectionFailed("the proxy did not begin with a PROXY header")
        line += await _read(below_tls, 1)
    return _v1_address(line.decode("latin-1").split())


def _v1_address(words: list[str]) -> Address:
    if words[1:2] == ["UNKNOWN"]:
        return None
    if len(words) == 6 and words[1] in ("TCP4", "TCP6"):
        ip, port = ip_address(words[2]), words[4]
        if ip is not None and port.isdecimal() and int(port) <= 65535:
            return str(ip), int(port)
    raise ConnectionFailed("the proxy sent a malformed PROXY header")


def _v2_address(family: int, data: bytes) -> Address:
    for code, kind, size in ((0x11, socket.AF_INET, 4), (0x21, socket.AF_INET6, 16)):
        if family == code and len(data) >= 2 * size + 4:
            (port,) = struct.unpack_from("!H", data, 2 * size)
            ip = ip_address(socket.inet_ntop(kind, data[:size]))
            return str(ip), port
    return None  # a Unix socket, or what is not TCP


async def _read(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            piece = bytes(await stream.receive_some(size - len(data)))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
            raise ConnectionFailed(f"the connection broke: {exc}") from exc
        if not piece:
            raise ConnectionFailed("the proxy hung up before its header was through")
        data += piece
    return data
