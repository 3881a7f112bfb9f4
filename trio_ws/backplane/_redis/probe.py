"""Whether there is a Redis that answers, asked by hand before coredis is.

coredis logs a traceback for each connection that ends while it is made, and says little of why. A
broker may be away for a night. So coredis is not asked to connect to one that cannot be reached,
does not answer, or is not ready.

This module knows one command and the beginnings of its answers, and no client library.
"""

from __future__ import annotations

import ssl

import trio

from ..._reasons import reason_of, root_of
from .address import Address, BrokerLost, BrokerRefused, Scheme

_PING = b"*1\r\n$4\r\nPING\r\n"

#: How much of an answer is read.
LONGEST_LINE = 1024

#: What a Redis answers that will answer otherwise after a while.
_NOT_YET = (b"-LOADING", b"-MASTERDOWN", b"-ERR max number of clients")


async def probe(address: Address, ssl_context: ssl.SSLContext | None) -> None:
    """Return if it answers, also if that is an error: what error is for the real connection to say.

    It takes as long as the broker does: put it under a time limit.

    Raises:
        BrokerLost: it cannot be reached, does not answer, or not yet.
        BrokerRefused: its certificate is not valid, or not for this host.
    """
    try:
        stream = await _open(address, ssl_context)
        try:
            await stream.send_all(_PING)
            answer = await _read_line(stream)
        finally:
            # Not aclose: over TLS, that waits for the other side.
            await trio.aclose_forcefully(stream)
    except (OSError, trio.BrokenResourceError) as exc:
        cause = root_of(exc)
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise BrokerRefused(reason_of(exc)) from cause
        raise BrokerLost(reason_of(exc)) from cause
    if not answer:
        raise BrokerLost("it hung up")
    if answer.startswith(_NOT_YET):
        raise BrokerLost(f"not ready: {answer[1:].decode(errors='replace').strip()}")


async def _read_line(stream: trio.abc.Stream) -> bytes:
    """The first line, however the network has cut it; less at the end of file, or if it is long."""
    line = b""
    while b"\n" not in line and len(line) < LONGEST_LINE:
        data = await stream.receive_some()
        if not data:
            break
        line += data
    return line


async def _open(address: Address, ssl_context: ssl.SSLContext | None) -> trio.abc.Stream:
    if address.scheme is Scheme.UNIX:
        return await trio.open_unix_socket(address.path)
    stream = await trio.open_tcp_stream(address.host, address.port)
    if ssl_context is None:
        return stream
    return trio.SSLStream(stream, ssl_context, server_hostname=address.host)
