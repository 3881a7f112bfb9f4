"""Proxies that a client goes through: URLs in, checked parts out, and what is said where one fails.

This module owns what the URL of a proxy means. Which proxy is chosen, and how it is spoken to, is
decided by clients. Proxies in front of a server are in `forwarded` and `networks`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from .._errors import InvalidURL
from .._redaction import masked
from .url import parse_url
from .values import ProxyError, Response

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}

#: What desktops write into `all_proxy` for a SOCKS proxy, without saying which version it speaks.
_ALIASES = {"socks": "socks5h"}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and who chose it.

    Attributes:
        source: the environment variable that names it, or ``"proxy"`` for the option.
        scheme: ``"http"``, ``"https"``, ``"socks4a"``, ``"socks5"`` or ``"socks5h"``.
        host: a name in ASCII, or an IP address without brackets.
        port: the port in the URL, or the scheme's default.
        url: the URL, with ``***`` instead of a user and password.
        user: the user name, decoded; ``""`` for none.
        password: the password, decoded.
        authorization: user and password as the value of a Proxy-Authorization field.
    """

    source: str
    scheme: str
    host: str
    port: int
    url: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    authorization: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Where the choice comes from and what it is: ``HTTPS_PROXY=http://proxy:3128``."""
        return f"{self.source}={self.url}"

    @property
    def speaks_socks(self) -> bool:
        return self.scheme.startswith("socks")

    def error(self, problem: str, response: Response | None = None) -> ProxyError:
        return ProxyError(problem, self.source, self.url, response)


def parse_proxy(url: str, source: str = "proxy") -> Proxy:
    """Check the URL of a proxy and take it apart.

    Raises:
        ValueError: `url` is not the URL of a proxy. The text says what is wrong.
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    scheme = _ALIASES.get(scheme, scheme)
    if not separator or scheme not in _DEFAULT_PORTS:
        known = ", ".join(f"{name}://" for name in _DEFAULT_PORTS)
        raise _invalid(url, source, f"the URL of a proxy starts with one of {known}")
    rest = rest.removesuffix("/")
    if not set(rest).isdisjoint("/?#"):
        problem = "a proxy has no path (in a password, write %2F for '/', %3F for '?', %23 for '#')"
        raise _invalid(url, source, problem)
    try:
        parts = parse_url(f"ws://{rest}")
    except InvalidURL as exc:
        raise _invalid(url, source, exc.problem) from None
    # `parse_url` has found these to be well-formed.
    written = urlsplit(f"ws://{rest}")
    proxy = Proxy(
        source=source,
        scheme=scheme,
        host=parts.host,
        port=written.port or _DEFAULT_PORTS[scheme],
        url=masked(url),
        user=unquote(written.username or ""),
        password=unquote(written.password or ""),
        authorization=parts.authorization,
    )
    wrong = _problem_of_socks(proxy) if proxy.speaks_socks else None
    if wrong is not None:
        raise _invalid(url, source, wrong)
    return proxy


def _invalid(url: str, source: str, problem: str) -> ValueError:
    return ValueError(f"{source}={masked(url)}: {problem}")


def _problem_of_socks(proxy: Proxy) -> str | None:
    """What is wrong with the user and the password, which would be left out or fail later."""
    for text in (proxy.user, proxy.password):
        if not text.isascii() or "\0" in text or len(text) > 255:  # RFC 1929 section 2
            return "SOCKS takes a user and a password of at most 255 ASCII characters"
    if proxy.scheme == "socks4a":
        return "SOCKS 4a knows a user, but no password" if proxy.password else None
    if bool(proxy.user) != bool(proxy.password):
        return "SOCKS 5 takes a user and a password, or neither"
    return None
