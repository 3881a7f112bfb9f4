"""Which failures are worth another try, and that the documentation has the same table."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from pathlib import Path

import pytest
import trio

import trio_ws
from tests.client.client_helpers import AUTHORITY, LOOPBACK, open_and_leave, tcp_server
from tests.handshake.handshake_helpers import scripted_tcp_server
from trio_ws import (
    CloseReason,
    ConnectionEnded,
    ConnectionFailed,
    ConnectionLost,
    ConnectionRejected,
    HandshakeTimeout,
    Initiator,
    InvalidResponse,
    InvalidURL,
    ProxyError,
    Response,
    TooManyRedirects,
)
from trio_ws._client.failures import CAUSES, CODES, STATUSES, is_transient

FINAL_STATUSES = {*range(200, 600)} - {408, 425, 429} - {*range(500, 600)} | {501, 505}
FINAL_CODES = {1003, 1007, 1008, 1009, 1010, 3000, 3003}


def test_a_status_is_final_or_not() -> None:
    final = {
        status
        for status in range(200, 600)
        if not is_transient(ConnectionRejected(Response(status)))
    }
    assert final == FINAL_STATUSES
    for status in range(200, 600):
        refusal = ProxyError("no", "proxy", "http://p", Response(status))
        assert is_transient(refusal) == (status not in FINAL_STATUSES)


def test_a_close_code_is_final_or_not() -> None:
    def end(code: int) -> CloseReason:
        return CloseReason(code, "", Initiator.REMOTE)

    codes = [*range(1000, 1016), *range(3000, 5000)]
    assert {code for code in codes if not is_transient(ConnectionLost(end(code)))} == FINAL_CODES
    assert is_transient(ConnectionEnded(end(1000)))


def caused_by(cause: Exception) -> ConnectionFailed:
    exc = ConnectionFailed("failed")
    exc.__cause__ = cause
    return exc


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    "exc",
    [
        HandshakeTimeout(),
        ProxyError("it cannot reach the server", "proxy", "socks5://p"),
        ConnectionFailed("the peer hung up"),
        caused_by(socket.gaierror(socket.EAI_NONAME, "Name or service not known")),
        caused_by(ConnectionRefusedError(errno.ECONNREFUSED, "refused")),
        caused_by(ConnectionResetError(errno.ECONNRESET, "reset")),
        caused_by(OSError(errno.ENETUNREACH, "unreachable")),
        caused_by(FileNotFoundError(errno.ENOENT, "no such socket")),
        caused_by(trio.BrokenResourceError()),
        caused_by(ssl.SSLEOFError(8, "EOF occurred in violation of protocol")),
        caused_by(tls_error("TLSV1_ALERT_INTERNAL_ERROR")),
    ],
)
def test_a_trouble_that_may_pass_is_worth_another_try(exc: Exception) -> None:
    assert is_transient(exc)


@pytest.mark.parametrize(
    "exc",
    [
        InvalidURL("https://a", "no"),
        InvalidResponse("no HTTP"),
        TooManyRedirects("more than 3"),
        caused_by(ssl.SSLCertVerificationError(1, "expired")),
        caused_by(PermissionError(errno.EACCES, "denied")),
        ValueError("of the application's"),
        OSError("of the application's"),
    ],
)
def test_what_will_not_pass_is_final(exc: Exception) -> None:
    assert not is_transient(exc)


async def failure(url: str, **options: object) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as caught:
        await open_and_leave(url, **options)
    return caught.value


async def test_wss_to_a_port_without_tls_is_final(trusting: ssl.SSLContext) -> None:
    async with tcp_server() as server:
        url = server.urls[0].replace("ws:", "wss:")
        assert not is_transient(await failure(url, ssl_context=trusting))


async def test_a_certificate_that_is_not_trusted_or_for_another_host_is_final(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with tcp_server(ssl_context=server_tls) as server:
        url = server.urls[0]
        assert not is_transient(await failure(url))
        options = {"ssl_context": trusting, "server_hostname": "other.example"}
        assert not is_transient(await failure(url, **options))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_that_is_missing_is_final(
    trusting: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert(LOOPBACK).configure_cert(context)
    AUTHORITY.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    async with tcp_server(ssl_context=context) as server:
        assert not is_transient(await failure(server.urls[0], ssl_context=trusting))


async def test_versions_of_tls_that_do_not_meet_are_final(trusting: ssl.SSLContext) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert(LOOPBACK).configure_cert(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    modern = ssl.create_default_context()
    AUTHORITY.configure_trust(modern)
    modern.minimum_version = ssl.TLSVersion.TLSv1_3
    async with tcp_server(ssl_context=context) as server:
        assert not is_transient(await failure(server.urls[0], ssl_context=modern))


async def test_a_server_that_hangs_up_in_the_handshake_is_worth_another_try() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, hang_up, 0)
        port = listeners[0].socket.getsockname()[1]
        for scheme in ("ws", "wss"):
            assert is_transient(await failure(f"{scheme}://{LOOPBACK}:{port}"))
        nursery.cancel_scope.cancel()


async def test_something_else_than_http_is_final() -> None:
    async with scripted_tcp_server(lambda head: b"SSH-2.0-OpenSSH_9.9\r\n\r\n") as (port, _):
        with pytest.raises(InvalidResponse) as caught:
            await open_and_leave(f"ws://{LOOPBACK}:{port}/")
    assert not is_transient(caught.value)


def test_the_documentation_has_these_tables() -> None:
    page = Path(trio_ws.__file__).parents[1] / "docs/how-to/reconnecting.md"
    rows = re.findall(
        r"^\| (.+?) \| (final|another try) \| (.+?) \|$", page.read_text("utf-8"), re.MULTILINE
    )
    verdicts = {True: "another try", False: "final"}
    expected = [(row.what, verdicts[row.transient], row.why) for row in (*STATUSES, *CODES)]
    expected += [(row.what, verdicts[row.transient], row.why) for row in CAUSES]
    assert rows == expected
