"""Hosts, as requests name them: what is well-formed, which ones a server answers to, and whose
pages are its own.

This module owns the Host header, and how it is compared with a list of names and with an Origin.
Both comparisons keep out the same guest: a web page from elsewhere, in the browser of a user who is
let in.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Final, final

from .._addresses import ip_address

#: The addresses of this machine that only this machine can reach, and what else stands for them.
#: Browsers resolve every name under ``localhost`` to one of them (RFC 6761 section 6.3).
LOOPBACK_NETWORKS: Final = ("127.0.0.0/8", "::1")
LOOPBACK_HOSTS: Final = ("localhost", "*.localhost", *LOOPBACK_NETWORKS)

#: The ports that an origin of these schemes leaves out (RFC 6454 section 6.2).
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}

_PATTERN: Final = re.compile(r"\*|(\*\.)?[^*./:\[\]\s]+(\.[^*./:\[\]\s]+)*\.?")


@final
class Hosts:
    """The hosts that a server answers to, whatever the port.

    Args:
        names: each is a name, ``"*.name"`` for every name under it, an IP address, a network, or
            ``"*"`` for all.

    Raises:
        TypeError, ValueError: a name is none of these.
    """

    __slots__ = ("_names", "_networks", "_suffixes")

    def __init__(self, names: Sequence[str]) -> None:
        self._names: set[str] = set()
        self._suffixes: list[str] = []
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for name in names:
            self._add(name)

    def _add(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a host is a str, not {name!r}")
        plain = name.lower()
        try:
            self._networks.append(ipaddress.ip_network(re.sub(r"\[(.*)\]", r"\1", plain)))
        except ValueError:
            if not _PATTERN.fullmatch(plain):
                raise ValueError(
                    "a host is a name, '*.name', an address, a network or '*', without a scheme, "
                    f"a port or a path: not {name!r}"
                ) from None
            name = plain.removesuffix(".")
            if name.startswith("*"):
                self._suffixes.append(name[1:])
            else:
                self._names.add(name)

    def __contains__(self, host: str) -> bool:
        """Whether a Host header names one of them. It is well-formed."""
        name = _name_and_port(host)[0].removesuffix(".")
        if name in self._names or any(map(name.endswith, self._suffixes)):
            return True
        ip = ip_address(name.removeprefix("[").removesuffix("]"))
        return ip is not None and any(ip in network for network in self._networks)


def is_same_origin(origin: str, host: str) -> bool:
    """Whether a page of `origin` came from `host`, a well-formed Host header.

    The scheme is left out of account: behind a proxy, the server may not know it.
    """
    scheme, _, authority = origin.partition("://")
    default = _DEFAULT_PORTS.get(scheme.lower())
    if default is None:  # "null" among them
        return False
    name, port = _name_and_port(authority)
    asked_name, asked_port = _name_and_port(host)
    return name == asked_name and (port or default) == (asked_port or default)


def _name_and_port(host: str) -> tuple[str, str]:
    """A lower-case name or bracketed address, and the port or ``""``."""
    name, colon, port = host.rpartition(":")
    if not colon or "]" in port:  # the last colon is inside an IPv6 address
        name, port = host, ""
    return name.lower(), port


# A name, an IPv4 address or a bracketed IPv6 address, and perhaps a port (RFC 9110 section 7.2).
# The zone of an IPv6 address means nothing here, but some clients send it.
_HOST = re.compile(
    r"([-0-9A-Za-z_.~%!$&'()*+,;=]{1,255}|\[[0-9A-Fa-f:.]{2,45}(%[-0-9A-Za-z_.~%]{1,45})?\])"
    r"(:[0-9]{0,5})?"
)


def problem_with_host(host: str) -> str | None:
    """What a Host header should be and is not; `None` if it is well-formed."""
    if not _HOST.fullmatch(host):
        return "a host and port"
    host = host.lower()
    if "xn--" in host and not all(map(_is_label, host.partition(":")[0].split("."))):
        return "a valid internationalised name"
    return None


def _is_label(label: str) -> bool:
    """Whether a part of a host name that claims to be Punycode is Punycode (RFC 3492).

    Which characters it may stand for differs between IDNA 2003, IDNA 2008 and browsers, and is up
    to registrars. But a label that stands for no character, or only for ASCII, would fail wherever
    it is decoded.
    """
    if not label.startswith("xn--"):
        return True
    try:
        name = label[4:].encode("ascii").decode("punycode")
        return not name.isascii() and name.encode("punycode").decode("ascii") == label[4:]
    except UnicodeError:
        return False
