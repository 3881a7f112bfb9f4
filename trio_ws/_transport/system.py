"""Addresses, errors and hung-up peers, as the system shows them.

This module translates them into what the rest of the package knows.
"""

from __future__ import annotations

import errno
import os
import select
from typing import Any, Literal, TypeAlias

import trio

from .._addresses import Address
from .._interning import interned
from .._reasons import reason_of

#: An address as the system gives it, for a socket of any family.
SystemAddress: TypeAlias = tuple[Any, ...] | str | bytes | None

#: What a stream raises when it is gone: the connection failed, or this side closed it.
Failure: TypeAlias = trio.BrokenResourceError | trio.ClosedResourceError
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)

#: The errors for a socket that was closed.
CLOSED = {errno.EBADF, errno.ENOTSOCK}


def is_hung_up(descriptor: int) -> bool:
    """Whether a socket's peer has closed, or at least shut down its side; or we have."""
    if not hasattr(select, "poll"):  # pragma: no cover - Windows
        return False
    if descriptor < 0:
        return True
    poll = select.poll()
    # Linux tells the end of file apart from data. Elsewhere it is part of POLLHUP.
    poll.register(descriptor, getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))


def broken(exc: OSError) -> trio.BrokenResourceError:
    return trio.BrokenResourceError(reason_of(exc))


def failure_of(exc: OSError) -> Failure:
    """What trio's stream would raise where its socket raises `exc`. It is handed on, not raised."""
    if exc.errno in CLOSED:
        return trio.ClosedResourceError("the socket was closed")
    failure = broken(exc)
    # Its traceback would keep the caller's frame alive, and everything that refers to.
    failure.__cause__ = exc.with_traceback(None)
    return failure


def socket_address(stream: object, method: Literal["getsockname", "getpeername"]) -> Address:
    """An address of the socket under a stream or listener, TLS or not; `None` without a socket."""
    try:
        return readable(getattr(below_tls(stream).socket, method)())
    except (AttributeError, OSError):  # no socket, or one whose peer is gone already
        return None


def readable(address: SystemAddress) -> Address:
    if isinstance(address, (str, bytes)):
        return os.fsdecode(address) or None
    if isinstance(address, tuple) and len(address) > 1 and isinstance(address[0], str):
        return interned(address[0]), address[1]
    return None  # there is none, or it is of another family: VSOCK has two numbers


def below_tls(stream: Any) -> Any:
    """What TLS runs over, or TLS in TLS."""
    for name in ("transport_stream", "transport_listener"):
        while hasattr(stream, name):
            stream = getattr(stream, name)
    return stream
