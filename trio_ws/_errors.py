"""Close codes, close reasons and every exception that trio_ws raises.

This module owns the names of failure and knows nothing of sockets, frames or tasks. The three
errors that carry a response are defined beside it, in `_http`; `StateUnavailable` is in
`_broadcast`.

The tree::

    WebSocketError
    ├─ HandshakeError
    │  ├─ InvalidURL            (also ValueError)
    │  ├─ ConnectionFailed      (also OSError)
    │  ├─ HandshakeTimeout      (also trio.TooSlowError)
    │  ├─ InvalidResponse
    │  ├─ InvalidRequest
    │  ├─ ConnectionRejected
    │  ├─ ProxyError
    │  └─ TooManyRedirects
    ├─ UnexpectedMessage
    ├─ StateUnavailable
    └─ ConnectionClosed         (also trio.BrokenResourceError)
       ├─ ConnectionEnded       (also trio.EndOfChannel)
       └─ ConnectionLost

Two kinds of misuse are not in the tree, because trio and Python have words for them: using a
connection after closing it yourself is a `trio.ClosedResourceError`, and a wrong argument is a
`TypeError` or a `ValueError` at once.

Exceptions that carry values have only these as their arguments, and put the rest into ``__str__``.
So they can be copied, pickled and sent between processes like any other.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import trio

from ._redaction import masked, printable

# ---------------------------------------------------------------------------
# Why a connection closed
# ---------------------------------------------------------------------------


class CloseCode(enum.IntEnum):
    """The registered close codes (RFC 6455 section 7.4.1 and the IANA registry).

    Applications are free to use 4000–4999 for their own purposes; libraries register 3000–3999.
    """

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    #: Never on the wire: the peer's Close frame carried no code.
    NO_STATUS_RECEIVED = 1005
    #: Never on the wire: the connection ended without a Close frame.
    ABNORMAL_CLOSURE = 1006
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    #: Never on the wire: the TLS handshake failed.
    TLS_HANDSHAKE = 1015


_REGISTERED = frozenset(int(code) for code in CloseCode)

#: Codes that only describe what happened; a Close frame must not carry them (section 7.4.1).
_NEVER_SENT = {CloseCode.NO_STATUS_RECEIVED, CloseCode.ABNORMAL_CLOSURE, CloseCode.TLS_HANDSHAKE}

#: Codes with which both sides are content (RFC 6455 section 7.4.1).
_ORDERLY = {CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RECEIVED}

#: A control frame holds 125 bytes and the code takes two (RFC 6455 sections 5.5 and 5.5.1).
MAX_CLOSE_REASON_BYTES = 123


def may_be_sent(code: int) -> bool:
    """Whether a Close frame may carry `code` (RFC 6455 section 7.4.2)."""
    return 3000 <= code <= 4999 or (code in _REGISTERED and code not in _NEVER_SENT)


def check_close_arguments(code: int, reason: str) -> None:
    """Raise `TypeError` or `ValueError` unless a Close frame may carry `code` and `reason`."""
    if not isinstance(code, int):
        raise TypeError(f"a close code is an int, not {code!r}")
    if not isinstance(reason, str):
        raise TypeError(f"a close reason is a str, not {reason!r}")
    if not may_be_sent(code):
        raise ValueError(
            f"close code {code} may not be sent: use 1000–1003, 1007–1014 or 3000–4999 "
            "(4000–4999 are the application's own)"
        )
    size = len(reason.encode())
    if size > MAX_CLOSE_REASON_BYTES:
        raise ValueError(
            f"the close reason takes {size} bytes in UTF-8; a Close frame holds "
            f"{MAX_CLOSE_REASON_BYTES}"
        )


def close_code(code: int | None, reason: str) -> int:
    """The code given to `aclose`, checked; 1005 if the Close frame is to have no code."""
    if code is not None:
        check_close_arguments(code, reason)
        return int(code)
    if reason:
        raise ValueError("a Close frame without a code has no room for a reason")
    return int(CloseCode.NO_STATUS_RECEIVED)


class Initiator(enum.Enum):
    """Which side began the end of a connection."""

    LOCAL = "us"
    #: The peer, or the network in between: this side cannot tell them apart.
    REMOTE = "the peer"


@dataclass(frozen=True, slots=True)
class CloseReason:
    """How a connection ended. Immutable.

    Attributes:
        code: the close code. If a Close frame came from the peer, it is the code in that frame
            (RFC 6455 section 7.1.5), or 1005 if the frame carried none; if no frame came, it is
            1006. If this side failed the connection (a protocol error, a peer that fell silent),
            it is the code that this side gave.
        reason: the text that came with the code, or what happened in our own words.
        initiator: who began it.
        failed: whether this side gave the connection up: the peer broke the protocol or a limit,
            fell silent, or read too slowly for a broadcast. Two reasons that differ only in this
            are equal.
    """

    code: int
    reason: str
    initiator: Initiator
    failed: bool = field(default=False, compare=False)

    @property
    def orderly(self) -> bool:
        """Whether nothing went wrong.

        True for 1000, 1001 and a Close frame without a code. Also true, whatever the code, if this
        side chose to close, as in ``server.aclose(1012)``.
        """
        if self.failed or self.code == CloseCode.ABNORMAL_CLOSURE:
            return False
        return self.code in _ORDERLY or self.initiator is Initiator.LOCAL

    def __str__(self) -> str:
        name = ""
        if self.code in _REGISTERED:
            name = f" ({CloseCode(self.code).name.lower().replace('_', ' ')})"
        # The peer's words go into logs and tracebacks, and must not be able to begin a new line.
        text = f": {printable(self.reason)}" if self.reason else ""
        return f"{self.code}{name}, closed by {self.initiator.value}{text}"


# ---------------------------------------------------------------------------
# The exceptions
# ---------------------------------------------------------------------------


class WebSocketError(Exception):
    """The root of every exception that trio_ws defines."""


class HandshakeError(WebSocketError):
    """The connection could not be opened. Nothing is left behind: no socket, no task."""


class InvalidURL(HandshakeError, ValueError):
    """The URL is not a WebSocket URL (RFC 6455 section 3).

    Attributes:
        url: the URL, with ``***`` instead of a user and password.
        problem: what is wrong with it.
    """

    def __init__(self, url: str, problem: str) -> None:
        url = masked(url)
        super().__init__(url, problem)
        self.url = url
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.url!r} is not a WebSocket URL: {self.problem}"


class ConnectionFailed(HandshakeError, OSError):
    """The network or TLS failed before the handshake was over.

    Its text says what the system or TLS said: "Connection refused", for example. ``__cause__``
    keeps the `OSError`, `ssl.SSLError` or trio exception that said so. There is none if the peer
    simply hung up.

    Attributes:
        errno: the system's error number, `errno.ECONNREFUSED` for example, if it is the same for
            every address that was tried. Otherwise `None`, for example if TLS or a name look-up
            failed.
    """

    def __str__(self) -> str:
        return self.strerror or super().__str__()


class HandshakeTimeout(HandshakeError, trio.TooSlowError):
    """The opening handshake (DNS, TCP, TLS and HTTP together) took longer than `open_timeout`."""


class InvalidResponse(HandshakeError):
    """The server answered with something that is no proper HTTP or WebSocket response."""


class TooManyRedirects(HandshakeError):
    """There were more redirects than `max_redirects` allows."""


class UnexpectedMessage(WebSocketError):
    """A binary message came where `receive_text` was called, or text for `receive_bytes`.

    Nothing is lost, and the connection goes on. If this exception leaves the block or the handler,
    the connection is closed with 1003.

    Attributes:
        message: the message that came. No other call will receive it.
    """

    def __init__(self, message: str | bytes) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        if isinstance(self.message, str):
            return f"text of {len(self.message)} characters came where binary was expected"
        return f"{len(self.message)} bytes of binary came where text was expected"


class ConnectionClosed(WebSocketError, trio.BrokenResourceError):
    """The connection is over, and this side's `aclose` did not end it.

    Attributes:
        reason: a `CloseReason`. If the transport failed, ``__cause__`` keeps its error.
    """

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.reason)


class ConnectionEnded(ConnectionClosed, trio.EndOfChannel):
    """Closed in good order: `CloseReason.orderly`. ``async for`` ends silently on it."""


class ConnectionLost(ConnectionClosed):
    """Closed in any other way: a broken network, a protocol error, a timeout, the peer's code."""


# Tracebacks are to show where an exception can be imported from, not where it is defined.
def _say_where_to_import_from(error: type[WebSocketError]) -> None:
    error.__module__ = "trio_ws"
    for kind in error.__subclasses__():
        _say_where_to_import_from(kind)


_say_where_to_import_from(WebSocketError)
