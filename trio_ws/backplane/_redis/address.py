"""Where a Redis broker is, and how it fails.

This module knows no client library and does no I/O.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit


class BrokerLost(Exception):
    """The connection broke, or could not be made. Unanswered commands may have been carried out."""


class BrokerRefused(Exception):
    """The broker answered with an error. The connection goes on."""


class KeyRefused(BrokerRefused):
    """The key of a topic holds something else than a stream."""


class Scheme(enum.Enum):
    """How to reach the broker."""

    TCP = "redis"
    TLS = "rediss"
    UNIX = "unix"


@dataclass(frozen=True, kw_only=True)
class Address:
    """The parts of a Redis URL."""

    scheme: Scheme
    host: str = ""
    port: int = 6379
    path: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """The URL without the credentials, for logs."""
        if self.scheme is Scheme.UNIX:
            return f"unix://{self.path}?db={self.database}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme.value}://{host}:{self.port}/{self.database}"


def parse_url(url: str) -> Address:
    """Parse a ``redis://``, ``rediss://`` or ``unix://`` URL.

    Raises:
        TypeError: the URL is not a `str`.
        ValueError: it is not such a URL. The text quotes no part that may belong to a password, and
            so not urllib's own text, which may.
    """
    if not isinstance(url, str):
        raise TypeError(f"a Redis URL is a str, not {type(url).__name__}")
    try:
        return _parse(url)
    except ValueError as exc:
        raise ValueError(
            f"this is not a Redis URL ({exc}); it looks like redis://[user:password@]host[:port]"
            "[/database], rediss:// for TLS, or unix:///path[?db=database]"
        ) from None


def _parse(url: str) -> Address:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("the host is neither a name nor an IPv6 address in brackets") from None
    try:
        scheme = Scheme(parts.scheme)
    except ValueError:
        raise ValueError(f"the scheme {parts.scheme!r} is none of redis, rediss, unix") from None
    try:
        port = parts.port or 6379
    except ValueError:
        raise ValueError(f"the port is not a number from 1 to 65535{_HINT}") from None
    try:
        query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError(f"bad query field{_HINT}") from None
    database = query.pop("db", [""])[-1]
    if query or parts.fragment:
        # A user who writes ?ssl_cert_reqs=none must not believe that it had an effect.
        raise ValueError("only ?db= may follow the path; the rest are keyword arguments")
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if scheme is Scheme.UNIX:
        if not parts.path.strip("/"):
            raise ValueError("the path of the socket is missing")
        return Address(
            scheme=scheme,
            path=unquote(parts.path),
            database=_number(database),
            username=username,
            password=password,
        )
    if not parts.hostname:
        raise ValueError("the host is missing")
    return Address(
        scheme=scheme,
        host=parts.hostname,
        port=port,
        database=_number(database or parts.path.removeprefix("/")),
        username=username,
        password=password,
    )


_HINT = "; in a user name or password, a '/' is written %2F, a '?' %3F and a '#' %23"


def _number(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        what = _HINT if "@" in text else f", not {text!r}"
        raise ValueError(f"a database is a number{what}")
    return int(text)
