"""Redaction: passwords in URLs and credentials in header fields do not show in errors and logs.

This module owns what counts as secret, and what replaces it in errors, logs and reprs. It works on
text, and does not know what the text is for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_HIDDEN = "***"

_SCHEME = r"\s*(?:[A-Za-z][-+.A-Za-z0-9]*:)?//"
_AUTHORITY = re.compile(_SCHEME)
#: A host and perhaps a port, or no host at all: no user and password are in it. A path follows.
_HOST = r"(?:(?:\[[^@\]]*\]|[^@/?#:]+)(?::[0-9]*)?)?"
_WITHOUT_USER = re.compile(rf"(?:{_SCHEME}{_HOST}|(?!\s*//)[^@/?#:]*)[/?#]")

_CREDENTIALS = r"(?:proxy-)?authorization|(?:set-)?cookie"
_SECRET_FIELD = re.compile(_CREDENTIALS, re.IGNORECASE)

_QUOTED_USERINFO = re.compile(r"//[^/?#\s]*@")
_QUOTED_FIELD = re.compile(rf"\b({_CREDENTIALS})\b.*", re.IGNORECASE | re.DOTALL)


def masked(url: str) -> str:
    """`url` with ``***`` instead of a user and password, even where it is malformed.

    If a password holds a "/" that was not encoded, a parser ends it there: it takes the beginning
    for the host, and the rest for the path. So if there may be a password at all, everything up to
    the last "@" is hidden.
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
    """Header fields, with ``***`` in place of secret values."""
    return [(name, _HIDDEN if is_secret_field(name) else value) for name, value in fields]


def without_secrets(text: str) -> str:
    """`text` without the secrets that it has if it quotes a line of a request or response."""
    return _QUOTED_FIELD.sub(rf"\1 {_HIDDEN}", _QUOTED_USERINFO.sub(f"//{_HIDDEN}@", text))
