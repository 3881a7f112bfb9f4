"""Reasons of the network and of TLS in errors and logs: told once, and never empty."""

from __future__ import annotations

import errno
import logging
import re
import socket
import ssl
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.helpers import HOST, PATIENCE, echo, open_server
from trio_ws import (
    CloseCode,
    ConnectionFailed,
    ConnectionLost,
    ConnectionRejected,
    WebSocket,
    open_websocket_url,
    wrap_client_stream,
    wrap_server_stream,
)
from trio_ws._reasons import connection_failed, reason_of, root_of

AUTHORITY = trustme.CA()


def server_tls(*, asks: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    if asks:
        AUTHORITY.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


# What is at the bottom of an exception…


def because(exc: BaseException, cause: BaseException) -> BaseException:
    exc.__cause__ = cause
    return exc


REFUSED = ConnectionRefusedError(
    errno.ECONNREFUSED, "Error connecting to ('::1', 1, 0, 0): Connection refused"
)
TOO = ConnectionRefusedError(
    errno.ECONNREFUSED, "Error connecting to ('127.0.0.1', 1): Connection refused"
)
UNREACHABLE = OSError(errno.ENETUNREACH, "Network is unreachable")
ALERT = ssl.SSLError(1, "[SSL: SSLV3_ALERT_BAD] sslv3 alert bad (_ssl.c:1006)")
#: As OpenSSL 3.2 and later say it.
SAYS = "[SSL: RECORD_LAYER_FAILURE] record layer failure"
DAMAGED = ssl.SSLError(1, f"{SAYS} (_ssl.c:2778)")
DAMAGED.reason = "RECORD_LAYER_FAILURE"


@pytest.mark.parametrize(
    ("exc", "reason", "root", "number"),
    [
        (REFUSED, "Connection refused", REFUSED, errno.ECONNREFUSED),
        (OSError("all attempts failed"), "all attempts failed", None, None),
        (
            because(OSError("all attempts failed"), ExceptionGroup("", [REFUSED, TOO])),
            "Connection refused",
            REFUSED,
            errno.ECONNREFUSED,
        ),
        (
            because(OSError("all attempts failed"), ExceptionGroup("", [UNREACHABLE, TOO])),
            "Network is unreachable, Connection refused",
            UNREACHABLE,
            None,
        ),
        (
            because(trio.BrokenResourceError(), ALERT),
            "[SSL: SSLV3_ALERT_BAD] sslv3 alert bad",
            ALERT,
            None,
        ),
        (
            because(trio.BrokenResourceError(), DAMAGED),
            f"{SAYS}; a record was damaged, or the peer may not speak TLS",
            DAMAGED,
            None,
        ),
        (
            because(trio.BrokenResourceError("broken"), REFUSED),
            "Connection refused",
            REFUSED,
            errno.ECONNREFUSED,
        ),
        (because(trio.BrokenResourceError("broken"), ValueError()), "broken", None, None),
        (because(REFUSED, ValueError("older")), "Connection refused", REFUSED, errno.ECONNREFUSED),
        (socket.gaierror(socket.EAI_NONAME, "Name not known"), "Name not known", None, None),
        (trio.BrokenResourceError("pulled out"), "pulled out", None, None),
        (FileNotFoundError(2, "No such file", "/nowhere"), "No such file: '/nowhere'", None, 2),
        (trio.BrokenResourceError(), "the connection broke", None, None),
    ],
)
def test_the_reason_told_is_the_one_at_the_bottom(
    exc: BaseException, reason: str, root: BaseException | None, number: int | None
) -> None:
    assert reason_of(exc) == reason
    assert root_of(exc) is (root or exc)
    error = connection_failed("it failed", exc)
    assert str(error) == f"it failed: {reason}"
    assert error.errno == number


# TLS…


@asynccontextmanager
async def tls_server_of_the_standard_library() -> AsyncGenerator[int, None]:
    """One that asks for a certificate, and says so to a client that has none; gives its port."""

    def serve() -> None:
        sock, _ = listening.accept()
        with sock.dup() as kept, sock:
            with pytest.raises(ssl.SSLError):
                server_tls(asks=True).wrap_socket(sock, server_side=True)
            # If the stream closed with the request unread, a reset would overtake the response.
            kept.shutdown(socket.SHUT_WR)
            while kept.recv(65536):
                pass

    with socket.create_server((HOST, 0)) as listening:
        listening.settimeout(PATIENCE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, serve)
            yield listening.getsockname()[1]


async def test_a_client_without_a_certificate_is_told_what_the_server_said() -> None:
    async with tls_server_of_the_standard_library() as port:
        with pytest.raises(ConnectionFailed, match="(?i)alert certificate required") as caught:
            async with open_websocket_url(f"wss://localhost:{port}/", ssl_context=client_tls()):
                pass
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    assert caught.value.errno is None


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (lambda port: open_tls(port, client_tls()), "peer did not return a certificate"),
        (lambda port: open_tls(port, ssl.create_default_context()), "(unknown ca|EOF occurred)"),
        (lambda port: send(port, b"\x16\x03\x01"), "EOF occurred"),
    ],
    ids=["no certificate", "no trust", "half a handshake"],
)
async def test_a_failed_tls_handshake_is_logged_with_what_tls_said(
    client: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_server(echo, ssl_context=server_tls(asks=True)) as server:
        await client(server.port)
        with trio.fail_after(PATIENCE):
            while not caplog.records:
                await trio.sleep(0.01)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.exc_info is None
    what, _, reason = record.getMessage().partition(
        " left: the connection broke in the handshake: "
    )
    assert "127.0.0.1" in what or "::1" in what
    assert re.search(said, reason)
    assert "_ssl.c" not in reason


async def test_a_client_that_speaks_no_tls_is_told_so_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with open_server(echo, ssl_context=server_tls()) as server:
        with pytest.raises(
            ConnectionRejected, match=r"400: TLS is spoken here: use wss://"
        ) as caught:
            async with open_websocket_url(f"ws://localhost:{server.port}/"):
                pass
    assert caught.value.response.status == 400
    (record,) = caplog.records
    assert record.getMessage().endswith(" answered with 400: it speaks plain HTTP, not TLS")


async def test_a_client_without_tls_that_is_gone_at_once_is_no_trouble(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with open_server(echo, ssl_context=server_tls()) as server:
        stream = await trio.open_tcp_stream("localhost", server.port)
        await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        linger = struct.pack("ii", 1, 0)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await stream.aclose()
        with trio.fail_after(PATIENCE):
            while not caplog.records:
                await trio.sleep(0.01)
    assert [record.levelno for record in caplog.records] == [logging.INFO]


async def open_tls(port: int, context: ssl.SSLContext) -> None:
    with pytest.raises(ConnectionFailed, match=r"SSL: \w+\] \w+"):
        async with open_websocket_url(f"wss://localhost:{port}/", ssl_context=context):
            pass


async def send(port: int, data: bytes) -> None:
    async with await trio.open_tcp_stream("localhost", port) as stream:
        await stream.send_all(data)


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_tls_connection_that_is_cut_is_lost_for_a_reason(side: str) -> None:
    ends = trio.testing.memory_stream_pair()
    streams = (
        trio.SSLStream(ends[0], client_tls(), server_hostname="localhost"),
        trio.SSLStream(ends[1], server_tls(), server_side=True),
    )
    async with trio.open_nursery() as nursery:
        opened: dict[str, WebSocket] = {}

        async def serve() -> None:
            async with wrap_server_stream(streams[1]) as opened["server"]:
                await opened["server"].wait_closed()

        nursery.start_soon(serve)
        async with wrap_client_stream(streams[0], "wss://localhost/") as opened["client"]:
            await opened["client"].ping()
            await trio.aclose_forcefully(ends[side == "client"])
            with pytest.raises(ConnectionLost, match="EOF occurred in violation") as caught:
                await opened[side].receive()
    assert caught.value.reason.code == CloseCode.ABNORMAL_CLOSURE
    assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


# Sockets and other streams…


async def test_a_connection_that_is_reset_is_lost_for_a_reason() -> None:
    async with open_server(echo) as server:
        stream = await trio.open_tcp_stream(HOST, server.port)
        async with wrap_client_stream(stream, "ws://localhost/") as ws:
            await ws.ping()
            (connection,) = server.connections
            with socket.socket(fileno=socket.dup(stream.socket.fileno())) as ours:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(stream)
            reason = await connection.wait_closed()
    assert str(reason) == "1006 (abnormal closure), closed by the peer: Connection reset by peer"


class Silent(trio.abc.Stream):
    """It breaks, or is closed, and does not say why."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def send_all(self, data: object) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        raise self._error

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    "error", [trio.BrokenResourceError(), trio.ClosedResourceError(), OSError()]
)
async def test_a_stream_that_says_nothing_broke_at_least(error: Exception) -> None:
    with pytest.raises(ConnectionFailed, match="in the handshake: the connection broke"):
        async with wrap_client_stream(Silent(error), "ws://localhost/"):
            pass
