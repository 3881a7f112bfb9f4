"""A check that Redis answers, made by hand before coredis connects.

coredis logs a traceback for each connection that ends while it is being made, and says little about
the reason. A broker may be away for a night. So coredis is not asked to connect to a broker that
cannot be reached, does not answer, or is not ready.

This module knows one command and the beginnings of its answers, and no client library.
"""

from __future__ import annotations

import ssl

import trio

from ..._reasons import reason_of, root_of
from .address import Address, BrokerLost, BrokerRefused, Scheme

_PING = b"*1\r\n$4\r\nPING\r\n"

#: How many bytes of an answer are read.
LONGEST_LINE = 1024

#: The beginnings of answers that mean: try again later.
_NOT_YET = (b"-LOADING", b"-MASTERDOWN", b"-ERR max number of clients")


async def probe(address: Address, ssl_context: ssl.SSLContext | None) -> None:
    """Return if Redis answers, even with an error, which the real connection will report.

    It takes as long as the broker takes: put it under a time limit.

    Raises:
        BrokerLost: the broker cannot be reached, does not answer, or is not ready.
        BrokerRefused: the broker's certificate is not valid, or not for this host.
    """
    try:
        stream = await _open(address, ssl_context)
        try:
            await stream.send_all(_PING)
            answer = await _read_line(stream)
        finally:
            # Not aclose, which over TLS waits for the other side.
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
    """The first line, in however many pieces it comes; cut short if it is long or the peer ends."""
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
