"""Which failures are final, and which are worth another try.

This module owns the table, as data, and how an exception is looked up in it. It knows nothing of
delays. What is in doubt is worth another try: a client that tries in vain waits longer and longer,
while one that gave up for a passing trouble is missed only when somebody looks for it.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from .._errors import (
    ConnectionClosed,
    ConnectionFailed,
    HandshakeError,
    HandshakeTimeout,
    InvalidResponse,
    InvalidURL,
    TooManyRedirects,
)
from .._http.values import ConnectionRejected, ProxyError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """A row of a table.

    Attributes:
        what: which failures it is about, as the documentation has it.
        matches: tells whether it is about this one.
        transient: whether another try is worth it.
        why: the reason, in a few words.
    """

    what: str
    matches: Callable[[T], bool]
    transient: bool
    why: str


def _of(numbers: Collection[int]) -> Callable[[int], bool]:
    return numbers.__contains__


def _always(_: object) -> bool:
    return True


#: The status of a response other than 101, or of a proxy's refusal. The first row that matches
#: counts.
STATUSES: tuple[Row[int], ...] = (
    Row("408, 425, 429", _of({408, 425, 429}), True, "asks to come back later"),
    Row("501, 505", _of({501, 505}), False, "the server knows no WebSockets"),
    Row(
        "any other 5xx", _of(range(500, 600)), True, "the server, or a proxy before it, has trouble"
    ),
    Row("any other", _always, False, "the request is wrong, or not allowed: 401, 403, 404"),
)

#: The code with which an open connection ended.
CODES: tuple[Row[int], ...] = (
    Row("1003, 1007, 1009, 1010", _of({1003, 1007, 1009, 1010}), False, "it would happen again"),
    Row("1008", _of({1008}), False, "the server refuses this client"),
    Row("3000, 3003", _of({3000, 3003}), False, "registered: unauthorized, forbidden"),
    Row("any other", _always, True, "1001, 1006, 1011, 1012, 1013 and all codes of applications"),
)


def _is(*kinds: type[BaseException]) -> Callable[[BaseException], bool]:
    return lambda exc: isinstance(exc, kinds)


def _is_tls_mismatch(exc: BaseException) -> bool:
    reason = getattr(exc, "reason", None) if isinstance(exc, ssl.SSLError) else None
    return any(word in str(reason) for word in _MISMATCHES)


#: In what OpenSSL says where two sides will never agree.
_MISMATCHES = (
    "CERTIFICATE",
    "HANDSHAKE_FAILURE",
    "HTTP_REQUEST",
    "NO_PROTOCOLS_AVAILABLE",
    "PROTOCOL_VERSION",
    "UNKNOWN_CA",
    "UNSUPPORTED_PROTOCOL",
    "WRONG_VERSION_NUMBER",
)


def _is_forbidden(exc: BaseException) -> bool:
    return isinstance(exc, OSError) and exc.errno == errno.EACCES


#: An exception of the opening handshake, or what caused it. The first row that matches counts.
CAUSES: tuple[Row[BaseException], ...] = (
    Row("`InvalidURL`", _is(InvalidURL), False, "no WebSocket URL: `https://`, for example"),
    Row("`InvalidResponse`", _is(InvalidResponse), False, "what answers is no WebSocket server"),
    Row("`TooManyRedirects`", _is(TooManyRedirects), False, "see `max_redirects`"),
    Row("`HandshakeTimeout`", _is(HandshakeTimeout), True, "see `open_timeout`"),
    Row(
        "a certificate",
        _is(ssl.SSLCertVerificationError),
        False,
        "not trusted, expired, or for another host",
    ),
    Row(
        "TLS: no common ground",
        _is_tls_mismatch,
        False,
        "`wss://` to a port without TLS, a version, a client certificate that is missing",
    ),
    Row("`ProxyError` without a status", _is(ProxyError), True, "it cannot reach the server"),
    Row("name look-up", _is(socket.gaierror), True, "a network that is down looks the same"),
    Row("permission denied", _is_forbidden, False, "a Unix socket of another user"),
    Row(
        "any other `ConnectionFailed`",
        _is(ConnectionFailed),
        True,
        "refused, reset, unreachable, cut",
    ),
    Row("anything else", _always, False, "what a function of yours raised"),
)


def is_transient(exc: BaseException) -> bool:
    """Whether another try is worth it after `exc`, by the tables above."""
    if isinstance(exc, ConnectionClosed):
        return _look_up(exc.reason.code, CODES)
    if isinstance(exc, (ConnectionRejected, ProxyError)) and exc.response is not None:
        return _look_up(exc.response.status, STATUSES)
    if not isinstance(exc, HandshakeError):  # it may look alike, and be no failure of this client's
        return False
    return next(
        row.transient
        for row in CAUSES
        if row.matches(exc) or (exc.__cause__ is not None and row.matches(exc.__cause__))
    )


def _look_up(number: int, table: tuple[Row[int], ...]) -> bool:
    return next(row.transient for row in table if row.matches(number))
