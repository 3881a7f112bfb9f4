"""Why a connection failed: what the system, TLS or the stream said about it, in a few words.

This module owns how other libraries' exceptions become text. trio raises an error without a text
from an error of ``ssl``, or with a group of errors as its cause, one for each address that was
tried. People are told what was said at the bottom, once, and are always told something.
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import cast

from ._errors import ConnectionFailed

#: Text that helps nobody: the line in the source of ``ssl``, and an address as trio shows it.
_NOISE = re.compile(r"^Error connecting to .*: | \(_ssl\.c:[0-9]+\)$")

#: What OpenSSL makes of a peer that says something else than TLS, and what we say of it. Since its
#: version 3.2 it has one name for that and for bytes that the network changed, once TLS is agreed.
_NO_TLS = "the peer may not speak TLS"
_HTTP_REQUEST = "HTTP_REQUEST"
_HINTS = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "RECORD_LAYER_FAILURE": f"a record was damaged, or {_NO_TLS}",
    _HTTP_REQUEST: "the peer speaks plain HTTP",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not trust our certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "load one into the ssl_context with load_cert_chain",
}

#: What to do about a certificate, by the number of OpenSSL's that says what is wrong with it.
_UNTRUSTED = "give an ssl_context that trusts its issuer"
_OF_ANOTHER = "if this is the right server, give its name in the certificate as server_hostname"
_REMEDIES = {
    **dict.fromkeys((18, 19, 20, 21), _UNTRUSTED),  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT…
    **dict.fromkeys((62, 64), _OF_ANOTHER),  # X509_V_ERR_HOSTNAME_MISMATCH, …_IP_ADDRESS_MISMATCH
}


def reason_of(exc: BaseException) -> str:
    """What is at the bottom of `exc`: "Connection refused", for example."""
    reasons = [_text(cause) for cause in _causes(exc)]
    return ", ".join(dict.fromkeys(reasons)) or "the connection broke"


def root_of(exc: BaseException) -> BaseException:
    """The exception at the bottom of `exc`, or the first of several, without its traceback.

    Its frames are those of trio and the standard library, and would fill most of a traceback.
    """
    root = next(iter(_causes(exc)), exc)
    return root.with_traceback(None)


def connection_failed(what: str, exc: BaseException) -> ConnectionFailed:
    """The error to raise when the network or TLS failed; raise it from `root_of` the same `exc`.

    Args:
        what: what failed, in words. The reason is added.
        exc: the exception that was caught.
    """
    text = f"{what}: {reason_of(exc)}"
    numbers = {_errno(cause) for cause in _causes(exc)}
    number = numbers.pop() if len(numbers) == 1 else None
    return ConnectionFailed(text) if number is None else ConnectionFailed(number, text)


def reworded(exc: ConnectionFailed, text: str) -> ConnectionFailed:
    """The same error with another text; raise it from the cause of `exc`."""
    return ConnectionFailed(text) if exc.errno is None else ConnectionFailed(exc.errno, text)


def _causes(exc: BaseException) -> list[BaseException]:
    """The exceptions at the bottom; there are several if several things were tried."""
    causes = [cause for each in _inner(exc) for cause in _causes(each)]
    return causes or ([exc] if _text(exc) else [])


def _inner(exc: BaseException) -> tuple[BaseException, ...]:
    if isinstance(exc, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", exc).exceptions
    if exc.__cause__ is None or (isinstance(exc, OSError) and exc.errno is not None):
        return ()
    return (exc.__cause__,)


def _text(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLError) and (hint := _hint(exc)) is not None:
        return f"{_NOISE.sub('', str(exc)).removesuffix('.')}; {hint}"
    if not isinstance(exc, OSError) or not exc.strerror:
        return _NOISE.sub("", str(exc))
    where = f": {exc.filename!r}" if exc.filename is not None else ""
    return _NOISE.sub("", exc.strerror) + where


def _hint(exc: ssl.SSLError) -> str | None:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _REMEDIES.get(getattr(exc, "verify_code", 0))
    return _HINTS.get(getattr(exc, "reason", ""))


def speaks_plain_http(exc: BaseException) -> bool:
    """Whether TLS failed because an HTTP request came in its place."""
    return isinstance(exc, ssl.SSLError) and getattr(exc, "reason", "") == _HTTP_REQUEST


def _errno(exc: BaseException) -> int | None:
    """The system's error number. ``ssl`` and name look-up count their errors in another way."""
    if not isinstance(exc, OSError) or isinstance(exc, (ssl.SSLError, socket.gaierror)):
        return None
    return exc.errno
