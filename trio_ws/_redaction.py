"""What must not show in errors, logs and reprs: passwords in URLs, credentials in header fields.

This module owns what counts as secret and what stands in its place. It knows text, and nothing of
what the text is for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_HIDDEN = "***"

_SCHEME = r"\s*(?:[A-Za-z][-+.A-Za-z0-9]*:)?//"
_AUTHORITY = re.compile(_SCHEME)
#: What no user and password are in: a host and perhaps a port, or none at all, and then a path.
_HOST = r"(?:(?:\[[^@\]]*\]|[^@/?#:]+)(?::[0-9]*)?)?"
_WITHOUT_USER = re.compile(rf"(?:{_SCHEME}{_HOST}|(?!\s*//)[^@/?#:]*)[/?#]")

_CREDENTIALS = r"(?:proxy-)?authorization|(?:set-)?cookie"
_SECRET_FIELD = re.compile(_CREDENTIALS, re.IGNORECASE)

_QUOTED_USERINFO = re.compile(r"//[^/?#\s]*@")
_QUOTED_FIELD = re.compile(rf"\b({_CREDENTIALS})\b.*", re.IGNORECASE | re.DOTALL)


def masked(url: str) -> str:
    """`url` with ``***`` instead of a user and password, even where it is malformed.

    To a parser, a password with a "/" that was not encoded ends at the "/": its beginning is taken
    for the host, and the rest for the path. So where there may be a password at all, everything up
    to the last "@" is hidden.
    """
    _, at, rest = url.rpartition("@")
    if not at or _WITHOUT_USER.match(url):
        return url
    start = _AUTHORITY.match(url)
    return f"{start[0] if start else ''}{_HIDDEN}@{rest}"


def is_secret_field(name: str) -> bool:
    """Whether this header field holds credentials."""
    return _SECRET_FIELD.fullmatch(name) is not None


def masked_fields(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Header fields with ``***`` for the values that are secret."""
    return [(name, _HIDDEN if is_secret_field(name) else value) for name, value in fields]


def without_secrets(text: str) -> str:
    """`text` that may quote a line of a request or response."""
    return _QUOTED_FIELD.sub(rf"\1 {_HIDDEN}", _QUOTED_USERINFO.sub(f"//{_HIDDEN}@", text))
