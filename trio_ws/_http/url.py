"""WebSocket URLs (RFC 6455 section 3): text in, checked parts out.

This module owns what a URL means, and knows nothing of connections. Text that a browser would
quietly repair (spaces, backslashes, a missing host) is refused with a reason.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes, urlsplit

import idna

from .._arguments import check_host, check_port
from .._errors import InvalidURL
from .._redaction import masked

_DEFAULT_PORTS = {"ws": 80, "wss": 443}

# RFC 3986 section 2: the characters that may stand in a path and query unencoded. "%" is among them
# for what is encoded already.
_RESOURCE_CHARACTERS = "%/:@!$&'()*+,;=-._~?"

# RFC 1035 section 2.3.4: the resolver cannot even express more. That RFC allows no underscores in
# host names, but container networks are full of them.
_LABEL = re.compile(r"[-0-9A-Za-z_]{1,63}")
_MAX_HOST_NAME = 253

# What may come before the path. It is checked here because urlsplit ignores what follows "]".
_BRACKETED = re.compile(r"\[[^\[\]]*\](:[0-9]*)?")

# urlsplit drops tabs and line breaks silently, so they are looked for before it is called. UTF-8
# cannot express surrogates, so a request cannot hold them.
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class WebSocketURL:
    """The parts of a WebSocket URL, checked.

    Attributes:
        secure: ``wss`` rather than ``ws``.
        host: what to connect to: an ASCII name, or an IP address without brackets.
        port: the port in the URL, or the scheme's default.
        resource: the path and query, percent-encoded, as they go on the request line.
        authorization: the value of the Authorization header that the userinfo stands for.
    """

    secure: bool
    host: str
    port: int
    resource: str
    authorization: str | None = field(default=None, repr=False)

    @property
    def scheme(self) -> str:
        return "wss" if self.secure else "ws"

    @property
    def host_header(self) -> str:
        """The Host field, with the port unless it is the scheme's default (RFC 9110 7.2)."""
        # A zone index means something on this machine only (RFC 6874).
        return self._authority(self.host.partition("%")[0])

    @property
    def origin(self) -> tuple[bool, str, int]:
        """What two URLs have in common if they are of the same origin (RFC 6454 section 5)."""
        return self.secure, self.host, self.port

    def __str__(self) -> str:
        """The URL without the user and password, because it may go into a log."""
        return f"{self.scheme}://{self.authority}{self.resource}"

    @property
    def without_query(self) -> str:
        """The URL for errors: a query may hold a token."""
        return str(self).partition("?")[0]

    @property
    def authority(self) -> str:
        """The host and port as they stand in a URL, the port unless it is the scheme's default."""
        return self._authority(self.host.replace("%", "%25"))

    def _authority(self, host: str) -> str:
        if ":" in host:
            host = f"[{host}]"
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(url: str) -> WebSocketURL:
    """Check `url` and take it apart.

    Userinfo becomes Basic authorization (RFC 7617), and a host that is not ASCII its IDNA form.
    Characters of the path that a request line cannot hold are percent-encoded as UTF-8.

    Raises:
        InvalidURL: `url` is not a WebSocket URL. The text says what is wrong.
    """
    if not isinstance(url, str):
        raise TypeError(f"a URL is a str, not {type(url).__name__}")
    if _FORBIDDEN.search(url):
        raise InvalidURL(url, "it holds white space, a backslash or a control character")
    # urllib's errors are not passed on: they may quote a part of a password that holds a "/".
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidURL(url, _BAD_HOST) from None
    try:
        port = parts.port
    except ValueError:
        raise InvalidURL(url, _BAD_PORT) from None

    if parts.scheme not in _DEFAULT_PORTS:
        raise InvalidURL(url, "it must start with ws:// or wss://" + _remedy(parts.scheme))
    if "#" in url:
        raise InvalidURL(url, "a WebSocket URL has no fragment; write %23 for a '#' in the path")
    if not parts.hostname:
        raise InvalidURL(url, "it names no host")
    if port == 0:
        raise InvalidURL(url, "port 0 cannot be connected to")

    resource = parts.path or "/"
    if "?" in url:
        resource += "?" + parts.query
    return WebSocketURL(
        secure=parts.scheme == "wss",
        host=_checked_host(url, parts.netloc, parts.hostname),
        port=port or _DEFAULT_PORTS[parts.scheme],
        resource=quote(resource, safe=_RESOURCE_CHARACTERS),
        authorization=_authorization(url, parts.username, parts.password),
    )


def join_url(host: str, port: int, resource: str, *, secure: bool) -> WebSocketURL:
    """The URL of these parts.

    Raises:
        InvalidURL: a part is more than its name says, for example a host that holds a port or a
            user.
    """
    for part in (host, resource):
        if not isinstance(part, str):
            raise TypeError(f"a host and a resource are str, not {part!r}")
    bracketed = f"[{host}]" if ":" in host else host
    slash = "" if resource.startswith("/") else "/"
    url = f"{'wss' if secure else 'ws'}://{bracketed}:{port}{slash}{resource}"
    try:
        check_host(host)
        check_port(port, least=1)
    except ValueError as exc:
        raise InvalidURL(url, str(exc)) from None
    return parse_url(url)


def checked_host(what: str, host: str) -> str:
    """`host`, a name or an IP address, in ASCII; a zone index is kept.

    Raises:
        TypeError, ValueError: it is neither; the text names it as `what`.
    """
    if not isinstance(host, str):
        raise TypeError(f"{what} is a str, not {host!r}")
    try:
        return join_url(host, 443, "/", secure=True).host
    except InvalidURL:
        shown = masked(host)
        raise ValueError(f"{what} is a host name or an IP address, not {shown!r}") from None


def follow_redirect(base: WebSocketURL, location: str) -> WebSocketURL:
    """Where a Location header leads, relative to `base` (RFC 3986 section 5.2).

    ``http`` and ``https`` mean ws and wss. What a server should have encoded is encoded here:
    spaces, and characters beyond ASCII, whether UTF-8 or other octets. The fragment is dropped: it
    is for browsers.

    Raises:
        InvalidURL: `location` is not the URL of a WebSocket, or it names a user, which only the
            client may do (RFC 9110 section 4.2.4).
    """
    found = _REFERENCE.fullmatch(_as_text(location))
    assert found is not None  # the expression matches every text
    scheme, authority, path, query = found.groups()
    scheme = (scheme or base.scheme).lower()
    scheme = _MEANT.get(scheme, scheme)
    if authority is None:
        if scheme != base.scheme:
            raise InvalidURL(location, "it names no host")
        authority = base.authority
        base_path, question, base_query = base.resource.partition("?")
        if not path:
            path = base_path
            query = base_query if query is None and question else query
        elif not path.startswith("/"):
            path = base_path.rpartition("/")[0] + "/" + path
    if "@" in authority:
        raise InvalidURL(location, "it names a user, which a redirect may not")
    target = f"{scheme}://{authority}{_without_dots(path)}"
    try:
        return parse_url(target if query is None else f"{target}?{query}")
    except InvalidURL as exc:
        raise InvalidURL(location, exc.problem) from None  # as the server wrote it


# RFC 3986 appendix B; every text is a reference.
_REFERENCE = re.compile(
    r"(?:([A-Za-z][-+.A-Za-z0-9]*):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.DOTALL
)


def _as_text(location: str) -> str:
    """The text of a header that came with one character for each octet."""
    octets = location.encode("latin-1", "backslashreplace")  # a header has no other characters
    try:
        text = octets.decode()
    except UnicodeDecodeError:  # of an unknown encoding: each octet is percent-encoded as it is
        text = _BEYOND_ASCII.sub(lambda found: b"%%%02X" % ord(found[0]), octets).decode("ascii")
    return text.replace(" ", "%20")


_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")


def _without_dots(path: str) -> str:
    """RFC 3986 section 5.2.4, for a path that starts with a slash or is empty."""
    segments: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            del segments[-1:]
        elif segment != ".":
            segments.append(segment)
    if path.endswith(("/.", "/..")):
        segments.append("")
    return "/" + "/".join(segments)


_BAD_HOST = "its host is neither a name nor an IPv6 address in brackets"
_BAD_PORT = (
    "its port is not a number from 1 to 65535 (in a user name or password, a '/' is written %2F, "
    "and a '?' %3F)"
)


#: The scheme of a WebSocket that is meant by another one.
_MEANT = {"http": "ws", "https": "wss"}


def _remedy(scheme: str) -> str:
    meant = _MEANT.get(scheme)
    return f"; write {meant}:// instead of {scheme}://" if meant else ""


def _checked_host(url: str, netloc: str, host: str) -> str:
    if "[" in netloc:
        host = host.replace("%25", "%", 1)  # RFC 6874: how a zone index is written in a URL
        if not _BRACKETED.fullmatch(netloc.rpartition("@")[2]):
            raise InvalidURL(url, "there is more than a port after the IPv6 address")
        try:
            ipaddress.IPv6Address(host)
        except ValueError as exc:
            raise InvalidURL(url, f"{host!r} is not an IPv6 address") from exc
        return host
    if not host.isascii() and len(host) <= _MAX_HOST_NAME:  # idna's time grows with the square
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError as exc:
            raise InvalidURL(url, f"{host!r} is not an internationalised name: {exc}") from exc
    labels = host.removesuffix(".").split(".")
    if len(host) > _MAX_HOST_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise InvalidURL(url, f"{host!r} is not a host name")
    return host


def _authorization(url: str, user: str | None, password: str | None) -> str | None:
    if not user and not password:
        return None
    # Bytes, because "%FF" stands for that byte, whether or not it is UTF-8.
    name = unquote_to_bytes(user or "")
    if b":" in name:
        raise InvalidURL(url, "a user name with a ':' cannot be sent as Basic authorization")
    credentials = name + b":" + unquote_to_bytes(password or "")
    return "Basic " + base64.b64encode(credentials).decode("ascii")
