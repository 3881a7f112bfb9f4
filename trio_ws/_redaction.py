"""Redaction: passwords in URLs and credentials in header fields do not show in errors and logs.

This module owns what counts as secret, and what replaces it in errors, logs and reprs; and how the
words of a peer are quoted there. It works on text, and does not know what the text is for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_HIDDEN = "***"

_SCHEME = r"\s*(?:[A-Za-z][-+.A-Za-z0-9]*:)?//"
_AUTHORITY = re.compile(_SCHEME)
#: A host and perhaps a port, or no host at all: no user and password are in it. A path follows.
_HOST = r"(?:(?:\[[^@\]]*\]|[^@/?#:]+)(?::[0-9]*)?)?"
_WITHOUT_USER = re.compile(rf"(?:{_SCHEME}{_HOST}|(?!\s*//)[^@/?#:]*)[/?#]")

_CREDENTIALS = r"(?:proxy-)?authorization|(?:set-)?cookie"
_SECRET_FIELD = re.compile(_CREDENTIALS, re.IGNORECASE)

#: Pages cannot set the fields above, so some send a token as a subprotocol, behind a word for it:
#: in the same name, as in ``bearer.…`` or ``openai-insecure-api-key.…``, or in the one before.
_SUBPROTOCOLS = "sec-websocket-protocol"
_TOKEN_AS_SUBPROTOCOL = re.compile(
    r"(bearer|token|auth|key|secret|jwt)(\s*,\s*)?[^\s,]+", re.IGNORECASE
)
#: Names of subprotocols are shorter than this, and tokens are not.
_LONG = 32

_QUOTED_USERINFO = re.compile(r"//[^/?#\s]*@")
_QUOTED_FIELD = re.compile(rf"\b({_CREDENTIALS}|{_SUBPROTOCOLS})\b.*", re.IGNORECASE | re.DOTALL)


#: A page or an error in JSON that shows the request's own fields.
_SHOWN_FIELD = re.compile(rf"\b({_CREDENTIALS}|{_SUBPROTOCOLS})\b([\"']?\s*[:=]).*", re.IGNORECASE)

#: How much of a body is looked at for its first words, in bytes, and how much of those is quoted.
_MAX_LOOK = 4096
_MAX_WORDS = 120

#: A comment or a tag of HTML, which may go on after what is looked at.
_TAG = re.compile(r"<!--.*?(?:-->|\Z)|<[^<>]*(?:>|\Z)", re.DOTALL)


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


def masked_value(name: str, value: str) -> str:
    """The value of a header field, with ``***`` in place of what is secret."""
    if is_secret_field(name):
        return _HIDDEN
    if name.lower() == _SUBPROTOCOLS:
        return masked_subprotocols(value)
    return value


def masked_fields(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Header fields, with ``***`` in place of what is secret."""
    return [(name, masked_value(name, value)) for name, value in fields]


def masked_subprotocols(names: str) -> str:
    """One subprotocol, or several with commas between, without what may be a token."""
    names = _TOKEN_AS_SUBPROTOCOL.sub(rf"\1\2{_HIDDEN}", names)
    return re.sub(rf"[^\s,]{{{_LONG},}}", _HIDDEN, names)


def without_tokens(subprotocols: Sequence[str]) -> list[str]:
    """The subprotocols that are no tokens."""
    if not subprotocols:
        return []
    shown = masked_subprotocols(",".join(subprotocols)).split(",")
    return [name for name, same in zip(subprotocols, shown, strict=True) if name == same]


def without_secrets(text: str) -> str:
    """`text` without the secrets that it has if it quotes a line of a request or response."""
    return _QUOTED_FIELD.sub(rf"\1 {_HIDDEN}", _QUOTED_USERINFO.sub(f"//{_HIDDEN}@", text))


def printable(text: str) -> str:
    """`text` on one line: what cannot be printed, control characters above all, is escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def first_words(body: bytes) -> str:
    """The first words of a response's body, for an error: one short line, without tags of HTML.

    Octets that are no UTF-8 are escaped. The client's own credentials are hidden where the server
    repeats them.
    """
    text = body[:_MAX_LOOK].decode("utf-8", "backslashreplace")
    if text.lstrip().startswith("<"):
        text = _TAG.sub(" ", text)
    text = _QUOTED_USERINFO.sub(f"//{_HIDDEN}@", " ".join(text.split()))
    text = _SHOWN_FIELD.sub(rf"\1\2 {_HIDDEN}", text)
    cut = len(text) > _MAX_WORDS
    return printable(text[:_MAX_WORDS]) + ("…" if cut else "")
