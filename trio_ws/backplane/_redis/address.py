"""Where a Redis broker is, and how it fails.

This module knows no client library and does no I/O.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit


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


REDIS_PORT = 6379
SENTINEL_PORT = 26379

#: What follows a scheme in a URL that names Sentinels.
_SENTINEL = "+sentinel"


@dataclass(frozen=True, kw_only=True)
class Address:
    """The parts of a Redis URL."""

    scheme: Scheme
    host: str = ""
    port: int = REDIS_PORT
    path: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    #: If there are any: hosts and ports of the Sentinels that know where the broker is, by the name
    #: `primary`.
    sentinels: tuple[tuple[str, int], ...] = ()
    primary: str = ""

    def __str__(self) -> str:
        """The URL without the credentials, for logs."""
        if self.scheme is Scheme.UNIX:
            return f"unix://{self.path}?db={self.database}"
        if self.sentinels:
            hosts = ",".join(_host_and_port(*each) for each in self.sentinels)
            return f"{self.scheme.value}{_SENTINEL}://{hosts}/{self.primary}/{self.database}"
        return f"{self.scheme.value}://{_host_and_port(self.host, self.port)}/{self.database}"


def _host_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_url(url: str) -> Address:
    """Parse a ``redis://``, ``rediss://``, ``unix://`` or ``redis+sentinel://`` URL.

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
            "[/database], rediss:// for TLS, unix:///path[?db=database], or "
            "redis+sentinel://[user:password@]host[:port][,host[:port]…]/name[/database]"
        ) from None


def _parse(url: str) -> Address:
    for scheme in (Scheme.TCP, Scheme.TLS):
        if url.startswith(start := f"{scheme.value}{_SENTINEL}://"):
            return _parse_sentinels(scheme, url.removeprefix(start))
    parts = _split(url)
    try:
        scheme = Scheme(parts.scheme)
    except ValueError:
        raise ValueError(
            f"the scheme {parts.scheme!r} is none of redis, rediss, unix, redis+sentinel, "
            "rediss+sentinel"
        ) from None
    port = _port(parts)
    database = _database_in_query(parts)
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
        port=port or REDIS_PORT,
        database=_number(database or parts.path.removeprefix("/")),
        username=username,
        password=password,
    )


def _parse_sentinels(scheme: Scheme, rest: str) -> Address:
    """`rest` has several hosts, which `urlsplit` would not take apart."""
    where, _, path = rest.partition("/")
    credentials, _, hosts = where.rpartition("@")
    username, _, password = credentials.partition(":")
    name, _, database = path.partition("/")
    several = [_split(f"redis://{host}") for host in hosts.split(",")]
    if any(mark in rest for mark in "?#"):
        raise ValueError("nothing may follow the database; the rest are keyword arguments")
    if not all(each.hostname for each in several):
        raise ValueError("the host is missing")
    if not name:
        raise ValueError("after the Sentinels, the name that they have for the primary is missing")
    return Address(
        scheme=scheme,
        database=_number(database),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinels=tuple((each.hostname or "", _port(each) or SENTINEL_PORT) for each in several),
        primary=unquote(name),
    )


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("the host is neither a name nor an IPv6 address in brackets") from None


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        raise ValueError(f"the port is not a number from 1 to 65535{_HINT}") from None


def _database_in_query(parts: SplitResult) -> str:
    try:
        query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError(f"bad query field{_HINT}") from None
    database = query.pop("db", [""])[-1]
    if query or parts.fragment:
        # A user who writes ?ssl_cert_reqs=none must not believe that it had an effect.
        raise ValueError("only ?db= may follow the path; the rest are keyword arguments")
    return database


_HINT = "; in a user name or password, a '/' is written %2F, a '?' %3F and a '#' %23"


def _number(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        what = _HINT if "@" in text else f", not {text!r}"
        raise ValueError(f"a database is a number{what}")
    return int(text)
