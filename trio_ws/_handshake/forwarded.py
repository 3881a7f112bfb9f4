"""What a trusted proxy says about the client: fields of a request, or a header before all of it.

This module owns ``X-Forwarded-For``, RFC 7239's ``Forwarded`` and the PROXY protocol. Whose word
is taken is `networks`'; nothing here is looked at before the peer was found there.

A proxy adds what it knows at the end, and what stands before that may be the client's invention. So
addresses are read from the end, and the first that is no trusted proxy is the client.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace

import trio

from .._addresses import Address
from .._errors import ConnectionFailed
from .._http.networks import Networks, ip_address
from .._http.values import Request
from .._reasons import connection_failed, root_of
from .._transport.system import GONE

# ---------------------------------------------------------------------------
# Fields of a request
# ---------------------------------------------------------------------------

MAX_PORT = 65535

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
        addresses = request.headers.tokens("X-Forwarded-For")
        hops = ((address, "") for address in reversed(addresses))
    return _innermost(request, hops, trusted)


def _innermost(request: Request, hops: Iterable[tuple[str, str]], trusted: Networks) -> Request:
    """Follow the hops, the last first, for as long as the proxy that added one is trusted."""
    for name, scheme in hops:
        request = _with_scheme(request, scheme)
        address = _address(name)
        if address is None:  # "unknown", or nonsense: the proxy before is all that is known
            return request
        request = replace(request, remote_address=address)
        if address not in trusted:
            return request
    return request


def _with_scheme(request: Request, scheme: str) -> Request:
    secure = _SECURE.get(scheme.lower())
    return request if secure is None else replace(request, scheme="wss" if secure else "ws")


#: RFC 7239 section 6: instead of a port, a proxy may write a name that begins with an underscore.
_NODE = re.compile(r"(\[.*\]|[0-9.]*):(?:([0-9]{1,5})|_[-._0-9A-Za-z]+)")


def _address(name: str) -> tuple[str, int] | None:
    """An address with or without a port, which is 0 where it is not said."""
    with_port = _NODE.fullmatch(name)
    host, port = (with_port[1], int(with_port[2] or 0)) if with_port else (name, 0)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    ip = ip_address(host)
    return None if ip is None or port > MAX_PORT else (str(ip), port)


def _forwarded(text: str) -> Iterator[tuple[str, str]]:
    """The ``for`` and ``proto`` of each element (RFC 7239 section 4), the last element first.

    It ends at the first that is malformed. What stands before a trusted proxy's element may be
    anything, half a quoted string among it, and changes nothing about what that element says.
    """
    for element in _parts(text, ","):
        parameters = _parameters(element)
        if parameters is None:
            return
        if parameters:  # a list may have empty members (RFC 9110 section 5.6.1)
            yield parameters.get("for", ""), parameters.get("proto", "")


# A quoted string is matched without going back, however many quotes and backslashes there are.
_WORD = r"[-!#$%&'*+.^_`|~0-9A-Za-z]++"
_PAIR = re.compile(rf'({_WORD})=({_WORD}|"(?:[^"\\]|\\.)*+")')
_QUOTE = re.compile(r'\\.|"')


def _parameters(element: str) -> dict[str, str] | None:
    """What an element says, by names in lower case; `None` if it is malformed."""
    parameters: dict[str, str] = {}
    for part in _parts(element, ";"):
        if not part.strip(" \t"):
            continue
        pair = _PAIR.fullmatch(part.strip(" \t"))
        if pair is None or pair[1].lower() in parameters:
            return None
        value = pair[2]
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        parameters[pair[1].lower()] = value
    return parameters


def _parts(text: str, separator: str) -> Iterator[str]:
    """What the separators outside of quoted strings divide, the last part first.

    A piece that ends within a quoted string, or begins there, has an odd number of quotes. So where
    a part begins can be told from its end, whatever there is before it.
    """
    pieces: list[str] = []
    quoted = False
    for piece in reversed(text.split(separator)):
        pieces.append(piece)
        quoted ^= _QUOTE.findall(piece).count('"') % 2 == 1
        if not quoted:
            yield separator.join(reversed(pieces))
            pieces.clear()


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
        data = await _read(below_tls, size)  # also of a health check, which may have extensions
        return _v2_address(family, data) if kind == 0x21 else None
    line = bytearray(start)
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
    return None  # a Unix socket, or what is not TCP


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
