"""The proxy that the environment names for a URL, if any.

This module owns which variable counts, and what `no_proxy` means. It knows the environment as a
mapping of text, and nothing of connections.

Only environment variables are read: on Windows and macOS, too, the system's settings are not.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import TypeAlias

from .._addresses import ip_address
from .._arguments import is_name
from .._http.proxies import Proxy, parse_proxy
from .._http.url import WebSocketURL, checked_host

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

#: The variables for each scheme; the first that is set counts. RFC 6455 section 4.1 would rather
#: have a SOCKS proxy than that of HTTPS, and that of HTTPS rather than that of HTTP, which may know
#: no tunnels.
VARIABLES = {
    "ws": ("ws_proxy", "socks_proxy", "https_proxy", "http_proxy", "all_proxy"),
    "wss": ("wss_proxy", "socks_proxy", "https_proxy", "all_proxy"),
}


#: What each variable means without a scheme: ``proxy:3128``.
_DEFAULT_SCHEMES = {"socks_proxy": "socks5h"}

_BRACKETED = re.compile(r"\[([^\[\]]*)\](?::([0-9]{1,5}))?")
_WITH_PORT = re.compile(r"([^:]*):([0-9]{1,5})")


def proxy_from(environ: Mapping[str, str], url: WebSocketURL) -> Proxy | None:
    """The proxy for `url`; `None` for none.

    Raises:
        ValueError: the variable that counts does not hold the URL of a proxy.
    """
    for name in VARIABLES[url.scheme]:
        variable, value = _variable(environ, name)
        if not value:
            continue
        if is_local(url.host) or _is_excepted(url, _variable(environ, "no_proxy")[1]):
            return None
        if "://" not in value:
            value = f"{_DEFAULT_SCHEMES.get(name, 'http')}://{value}"
        return parse_proxy(value, variable)
    return None


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The variable that counts, in lower or upper case, and its value; ``""`` if it is not set.

    In lower case it counts even if it is empty: so one can unset the other.
    """
    if name in environ:
        return name, environ[name].strip()
    upper = name.upper()
    # In a CGI program, HTTP_PROXY is what the client of the web server sent as a field "Proxy".
    if upper == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
        return upper, ""
    return upper, environ.get(upper, "").strip()


def is_local(host: str) -> bool:
    """Whether a host is this machine, by its very name or address. No name is looked up."""
    ip = _address(host)
    if ip is None:
        return f".{host.removesuffix('.')}".endswith(".localhost")
    return ip.is_loopback or ip.is_unspecified  # the system takes 0.0.0.0 for this machine


def _address(host: str) -> _Address | None:
    """The IP address in `host`, also where it is written in a way that only the system knows."""
    ip = ip_address(host)
    if ip is None and not is_name(host):
        with suppress(OSError):
            ip = ipaddress.IPv4Address(socket.inet_aton(host))  # 127.1 is 127.0.0.1
    return ip


# ---------------------------------------------------------------------------
# no_proxy
# ---------------------------------------------------------------------------


def _is_excepted(url: WebSocketURL, no_proxy: str) -> bool:
    return any(_matches(url, entry) for entry in re.split(r"[\s,]+", no_proxy) if entry)


def _matches(url: WebSocketURL, entry: str) -> bool:
    """Whether an entry of `no_proxy` excepts `url`. One that means nothing excepts nothing."""
    if entry == "*":
        return True
    ip = _address(url.host)
    if "/" in entry:
        return ip is not None and _holds(entry, ip)
    found = _BRACKETED.fullmatch(entry) or _WITH_PORT.fullmatch(entry)
    host, port = found.groups() if found else (entry, None)
    if port is not None and int(port) != url.port:
        return False
    if ip is not None:
        return ip == _address(host)
    return _is_below(url.host, host)


def _holds(network: str, ip: _Address) -> bool:
    try:
        return ip in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _is_below(host: str, domain: str) -> bool:
    """Whether `host` is the domain or a name in it: x, .x and *.x all mean x and all below it."""
    try:
        name = checked_host("an entry of no_proxy", domain.removeprefix("*").removeprefix("."))
    except ValueError:
        return False
    return f".{host.removesuffix('.')}".endswith(f".{name.removesuffix('.')}")
