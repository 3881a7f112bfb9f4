"""Streams and listeners that callers bring, checked before they are used.

This module owns what the caller is told of one that cannot serve, TLS for the wrong side included.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import cast

import trio

from .._arguments import FOR_CLIENTS
from .tls import context_of


def check_stream(stream: object) -> None:
    """
    Raises:
        TypeError: it is no stream, but for example a socket.
    """
    if not isinstance(stream, trio.abc.Stream):
        raise TypeError(f"a stream is a trio.abc.Stream, not {stream!r}{_wrap_hint(stream)}")


async def check_listeners(listeners: Sequence[object]) -> None:
    """
    Raises:
        TypeError: one is no listener, but for example a socket.
        ValueError: there is none, one is given twice, or its TLS is for clients.
        trio.ClosedResourceError: one was closed.
    """
    if not listeners:
        raise ValueError("there is no listener to serve")
    for number, listener in enumerate(listeners):
        await _check_listener(listener)
        if any(listener is other for other in listeners[:number]):
            raise ValueError(f"a listener is there twice: {listener!r}")


async def _check_listener(listener: object) -> None:
    if not isinstance(listener, trio.abc.Listener):
        hint = _wrap_hint(listener, "trio.SocketListener")
        raise TypeError(f"a listener is a trio.abc.Listener, not {listener!r}{hint}")
    if isinstance(listener, trio.SSLListener):
        tls = cast("trio.SSLListener[trio.abc.Stream]", listener)
        await _check_listener(tls.transport_listener)
        await _try_tls(tls)
    elif isinstance(listener, trio.SocketListener) and listener.socket.fileno() < 0:
        raise trio.ClosedResourceError("a listener was closed before it was served")


def _wrap_hint(given: object, wrapper: str = "trio.SocketStream") -> str:
    if isinstance(given, trio.socket.SocketType):
        return f": wrap it in {wrapper}"
    if hasattr(given, "fileno") and hasattr(given, "getsockname"):
        return f": wrap it, {wrapper}(trio.socket.from_stdlib_socket(…))"
    return ""


async def _try_tls(listener: trio.SSLListener[trio.abc.Stream]) -> None:
    try:
        await context_of(listener)
    # Python 3.14 notices first that a client's context wants the name of a server.
    except (ssl.SSLError, ValueError) as exc:
        raise ValueError(FOR_CLIENTS) from exc
    except AttributeError as exc:
        raise TypeError("a listener for TLS was given something that is no SSLContext") from exc
