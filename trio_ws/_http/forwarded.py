"""What trusted proxies say about a client, in the fields of its request.

This module owns ``X-Forwarded-For`` with its siblings for the scheme and the host, and RFC 7239's
``Forwarded``. `networks` says which peers are
trusted; a field is looked at only after its peer was found there.

A proxy appends what it knows. Whatever stands before that may be the client's invention. So
addresses are read from the end, and the first that is not a trusted proxy is the client's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from .._addresses import MAX_PORT, ip_address
from .headers import Headers
from .hosts import problem_with_host
from .networks import Networks
from .values import Request

_SECURE = {"https": True, "wss": True, "http": False, "ws": False}


def from_client(request: Request, trusted: Networks, field: str) -> Request:
    """The request as the client made it, if trusted proxies say so; otherwise as it came."""
    if request.remote_address not in trusted:
        return request
    if field == "Forwarded":
        hops = _forwarded(",".join(request.headers.get_all("Forwarded")))
    else:
        # A proxy that does not pass on the address may still say whether there was TLS.
        for scheme in request.headers.tokens("X-Forwarded-Proto")[-1:]:
            request = _with_scheme(request, scheme)
        for host in request.headers.tokens("X-Forwarded-Host")[-1:]:
            request = _with_host(request, host)
        addresses = request.headers.tokens("X-Forwarded-For")
        hops = (_Hop(address) for address in reversed(addresses))
    return _innermost(request, hops, trusted)


class _Hop(NamedTuple):
    """What one proxy says of who connected to it; ``""`` for what it does not say."""

    address: str
    scheme: str = ""
    host: str = ""


def _innermost(request: Request, hops: Iterable[_Hop], trusted: Networks) -> Request:
    """Follow the hops, the last first, for as long as the proxy that added one is trusted."""
    for hop in hops:
        request = _with_host(_with_scheme(request, hop.scheme), hop.host)
        address = _address(hop.address)
        if address is None:  # "unknown", or nonsense: the proxy before is all that is known
            return request
        request = replace(request, remote_address=address)
        if address not in trusted:
            return request
    return request


def _with_scheme(request: Request, scheme: str) -> Request:
    secure = _SECURE.get(scheme.lower())
    return request if secure is None else replace(request, scheme="wss" if secure else "ws")


def _with_host(request: Request, host: str) -> Request:
    """The request for the host that the client asked for. A malformed one means nothing."""
    if problem_with_host(host) is not None:
        return request
    fields = [field for field in request.headers.fields if field[0].lower() != "host"]
    return replace(request, headers=Headers._known([("Host", host), *fields]))


#: A proxy may write a name that begins with an underscore instead of a port (RFC 7239 section 6).
_NODE = re.compile(r"(\[.*\]|[0-9.]*):(?:([0-9]{1,5})|_[-._0-9A-Za-z]+)")


def _address(name: str) -> tuple[str, int] | None:
    """An address, with a port of 0 if there is none in `name`."""
    with_port = _NODE.fullmatch(name)
    host, port = (with_port[1], int(with_port[2] or 0)) if with_port else (name, 0)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    ip = ip_address(host)
    return None if ip is None or port > MAX_PORT else (str(ip), port)


def _forwarded(text: str) -> Iterator[_Hop]:
    """What each element says (RFC 7239 section 4), the last element first.

    It ends at the first malformed element. Anything may stand before a trusted proxy's element,
    even half a quoted string, and does not change how that element is read.
    """
    for element in _parts(text, ","):
        parameters = _parameters(element)
        if parameters is None:
            return
        if parameters:  # a list may have empty members (RFC 9110 section 5.6.1)
            yield _Hop(*(parameters.get(name, "") for name in ("for", "proto", "host")))


# Possessive, so that a quoted string is matched without backtracking, however many quotes and
# backslashes there are.
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
    """The parts between separators outside of quoted strings, the last part first.

    A piece that begins or ends within a quoted string has an odd number of quotes. So the beginning
    of a part can be found from its end, whatever stands before it.
    """
    pieces: list[str] = []
    quoted = False
    for piece in reversed(text.split(separator)):
        pieces.append(piece)
        quoted ^= _QUOTE.findall(piece).count('"') % 2 == 1
        if not quoted:
            yield separator.join(reversed(pieces))
            pieces.clear()
