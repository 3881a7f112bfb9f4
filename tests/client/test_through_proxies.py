"""Clients behind proxies: tunnels, credentials, TLS in TLS, and proxies that misbehave."""

from __future__ import annotations

import base64
import errno
import logging
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Generator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.client.client_helpers import LOOPBACK, Resolver, open_and_leave, redirect, tcp_server
from tests.client.proxy_helpers import (
    CREDENTIALS,
    PASSWORD,
    microsocks,
    pass_on_both_ways,
    recorder,
    scripted_proxy,
    serving,
    tinyproxy,
    tls_in_front,
    tunnel_proxy,
)
from tests.handshake.handshake_helpers import read_head, request_fields, scripted_tcp_server
from tests.helpers import free_port, reset
from tests.whole.sweeping import sweep
from trio_ws import (
    ConnectionFailed,
    HandshakeError,
    HandshakeTimeout,
    InvalidResponse,
    ProxyError,
    open_websocket_url,
)

BASIC = base64.b64encode(CREDENTIALS.encode()).decode()


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, str], None, None]:
    """The URLs of real proxies, by what they are: each open, and with credentials asked for."""
    folder = tmp_path_factory.mktemp("proxies")
    with ExitStack() as stack:
        urls = {}
        for name, login in (("open", ""), ("guarded", CREDENTIALS)):
            at = f"{login}@{LOOPBACK}" if login else LOOPBACK
            http = stack.enter_context(tinyproxy(folder, login))
            socks = stack.enter_context(microsocks(folder, login))
            https = stack.enter_context(tls_in_front(folder, http))
            urls[f"http, {name}"] = f"http://{at}:{http}"
            urls[f"https, {name}"] = f"https://{at}:{https}"
            urls[f"socks5, {name}"] = f"socks5://{at}:{socks}"
            urls[f"socks5h, {name}"] = f"socks5h://{at}:{socks}"
        yield urls


KINDS = [
    f"{kind}, {how}"
    for kind in ("http", "https", "socks5", "socks5h")
    for how in ("open", "guarded")
]


def without_login(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def masked(url: str) -> str:
    return url.replace(CREDENTIALS, "***")


# ---------------------------------------------------------------------------
# Real proxies
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_is_reached_through_a_real_proxy(
    kind: str,
    scheme: str,
    proxies: dict[str, str],
    server_tls: ssl.SSLContext,
    trusting: ssl.SSLContext,
) -> None:
    options: dict[str, Any] = {"proxy": proxies[kind]}
    if kind.startswith("https"):
        options["proxy_ssl_context"] = trusting
    if scheme == "wss":
        options["ssl_context"] = trusting
    tls = server_tls if scheme == "wss" else None
    async with tcp_server(ssl_context=tls, max_message_size=2**24) as server:
        url = f"{scheme}://localhost:{server.port}/chat"
        async with open_websocket_url(url, max_message_size=2**24, **options) as ws:
            for message in ("hello", b"\0" * 300_000, "ü" * 100_000):
                await ws.send(message)
                assert await ws.receive() == message
            assert ws.request.headers["Host"] == f"localhost:{server.port}"
            assert "Proxy-Authorization" not in ws.request.headers
            assert ws.request.scheme == scheme
            assert (ws.request.tls is None) == (scheme == "ws")
            # Where no TLS leads to the proxy, it is our own TLS, over the socket itself.
            assert isinstance(ws.request.tls, ssl.SSLObject) == (
                scheme == "wss" and not kind.startswith("https")
            )
            port = int(proxies[kind].rpartition(":")[2])
            assert ws.remote_address == (LOOPBACK, port)  # the proxy's: nobody tells the server's
            await ws.ping()
        assert ws.close_reason is not None
        assert ws.close_reason.code == 1000


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("guarded")])
@pytest.mark.parametrize("login", ["", "pat:wrong@", "pat:wrong%2F%3A%40%20%C3%BC@"])
async def test_a_real_proxy_that_refuses_says_so(
    kind: str, login: str, proxies: dict[str, str], trusting: ssl.SSLContext
) -> None:
    if kind.startswith("socks") and "%C3" in login:
        login = "pat:wrong%2F%3A%40%20@"
    scheme, _, rest = without_login(proxies[kind]).partition("://")
    url = f"{scheme}://{login}{rest}"
    options: dict[str, Any] = {"proxy_ssl_context": trusting} if scheme == "https" else {}
    with pytest.raises(ProxyError) as caught:
        await open_and_leave("ws://127.0.0.1:9/", proxy=url, **options)
    error = caught.value
    assert error.source == "proxy"
    assert error.proxy == f"{scheme}://{'***@' if login else ''}{rest}"
    assert "wrong" not in str(error) + repr(error)
    assert f"(via proxy={error.proxy})" in str(error)
    if scheme.startswith("http"):
        assert error.response is not None
        # A tinyproxy before 1.11.2 has 401 for a wrong password.
        assert error.response.status == 407 or (login and error.response.status == 401)
        assert ("refuses the user" if login else "wants a user") in error.problem


@pytest.mark.parametrize("kind", ["http, open", "socks5h, open"])
async def test_a_server_that_a_real_proxy_cannot_reach_is_an_error_of_the_proxy(
    kind: str, proxies: dict[str, str]
) -> None:
    with pytest.raises(ProxyError, match="gives no tunnel") as caught:
        await open_and_leave(f"ws://{LOOPBACK}:{free_port()}/", proxy=proxies[kind])
    assert (caught.value.response is None) == kind.startswith("socks")


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [("http", "wss"), ("https", "ws"), ("https", "wss"), ("socks5", "ws"), ("socks5h", "wss")],
)
async def test_no_step_on_the_way_leaves_anything_when_it_is_cancelled(
    kind: str,
    scheme: str,
    proxies: dict[str, str],
    server_tls: ssl.SSLContext,
    trusting: ssl.SSLContext,
) -> None:
    options: dict[str, Any] = {"proxy": proxies[f"{kind}, guarded"]}
    options |= {"ssl_context": trusting} if scheme == "wss" else {}
    options |= {"proxy_ssl_context": trusting} if kind == "https" else {}
    async with tcp_server(ssl_context=server_tls if scheme == "wss" else None) as server:

        async def run() -> None:
            await open_and_leave(f"{scheme}://localhost:{server.port}/", **options)

        await run()  # the server's own task for its first connection is no rest of a client's
        assert await sweep(run) > 10


# ---------------------------------------------------------------------------
# Credentials stay on their hop
# ---------------------------------------------------------------------------

#: What is for the server alone, and in no place shown.
SECRETS_OF_SERVER = [b"zorro-cookie", b"swordfish", base64.b64encode(b"sam:swordfish")]
SECRETS_OF_PROXY = [PASSWORD.encode(), BASIC.encode()]


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("kind", ["http", "https", "socks5h"])
async def test_a_capture_shows_credentials_on_their_own_hop_alone(  # noqa: PLR0917 - fixtures
    kind: str,
    scheme: str,
    tmp_path: Path,
    server_tls: ssl.SSLContext,
    trusting: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    is_secure = scheme == "wss"
    async with AsyncExitStack() as stack:
        tls = server_tls if is_secure else None
        server = await stack.enter_async_context(tcp_server(ssl_context=tls))
        before_server = await stack.enter_async_context(recorder(server.port))
        start = microsocks if kind == "socks5h" else tinyproxy
        proxy = stack.enter_context(start(tmp_path, CREDENTIALS))
        before_proxy = await stack.enter_async_context(recorder(proxy))
        front = before_proxy.port
        if kind == "https":
            front = stack.enter_context(tls_in_front(tmp_path, front))
        on_the_network = await stack.enter_async_context(recorder(front))
        options: dict[str, Any] = {
            "proxy": f"{kind}://{CREDENTIALS}@{LOOPBACK}:{on_the_network.port}",
            "headers": {"Cookie": "id=zorro-cookie"},
            "ssl_context": trusting if is_secure else None,
            "proxy_ssl_context": trusting if kind == "https" else None,
        }
        url = f"{scheme}://sam:swordfish@localhost:{before_server.port}/"
        async with open_websocket_url(url, **options) as ws:
            await ws.send("hello")
            await ws.receive()
            shown = repr(ws) + repr(ws.request)

    asked, behind = before_proxy.heard, b""
    if kind != "socks5h":
        asked, _, behind = asked.partition(b"\r\n\r\n")
        assert asked.startswith(b"CONNECT localhost:%d HTTP/1.1\r\nHost: " % before_server.port)
        assert BASIC.encode() in asked
    else:
        assert PASSWORD.encode() in asked
    for secret in SECRETS_OF_PROXY:
        assert secret not in before_server.heard
        assert secret not in behind
        assert secret not in (on_the_network.heard if kind == "https" else b"")
        assert secret.decode() not in shown + caplog.text
    assert b"Proxy-Authorization" not in before_server.heard + behind
    for secret in SECRETS_OF_SERVER:
        assert (secret in before_server.heard) == (not is_secure and secret != b"swordfish")
        if kind != "socks5h":
            assert secret not in asked
        if is_secure or kind == "https":
            assert secret not in on_the_network.heard
        assert secret.decode() not in shown + caplog.text
    masked = f"via proxy={kind}://***@{LOOPBACK}:{on_the_network.port}"
    assert masked in caplog.text


# ---------------------------------------------------------------------------
# Which proxy
# ---------------------------------------------------------------------------


async def test_the_environment_is_read_at_each_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        tcp_server() as server,
        tunnel_proxy(server.port) as one,
        tunnel_proxy(server.port) as other,
    ):
        for proxy in (one, other):
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            await open_and_leave("ws://server.example/")
            assert proxy.heads[0].startswith(b"CONNECT server.example:80 HTTP/1.1\r\n")
        assert len(one.heads) == len(other.heads) == 1
        monkeypatch.setenv("NO_PROXY", ".localhost")  # loopback needs none
        await open_and_leave(f"ws://{LOOPBACK}:{server.port}/")
        await open_and_leave(f"ws://localhost:{server.port}/")
        assert len(one.heads) == len(other.heads) == 1


async def test_the_user_agent_is_told_and_nothing_else() -> None:
    async with tcp_server() as server, tunnel_proxy(server.port) as proxy:
        headers = {"X-Mine": "1"}
        await open_and_leave("ws://[2001:db8::1]:81/", proxy=proxy.url, headers=headers)
        await open_and_leave("ws://[fe80::1%25lo]/", proxy=proxy.url, user_agent=None)
    fields = request_fields(proxy.heads[0])
    assert set(fields) == {"Host", "User-Agent"}
    assert fields["Host"] == "[2001:db8::1]:81"
    assert proxy.heads[1] == b"CONNECT [fe80::1]:80 HTTP/1.1\r\nHost: [fe80::1]:80\r\n\r\n"


async def test_a_unix_socket_needs_no_proxy_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", f"http://{LOOPBACK}:9")
    path = str(tmp_path / "socket")
    with trio.socket.socket(trio.socket.AF_UNIX) as sock:
        await sock.bind(path)
        sock.listen()
        with pytest.raises(HandshakeTimeout) as caught:
            await open_and_leave("ws://server.example/", path=path, open_timeout=0.1)
        assert "via" not in str(caught.value)


async def test_no_proxy_at_all_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", f"http://{LOOPBACK}:9")
    with pytest.raises(ConnectionFailed) as caught:
        await open_and_leave(f"ws://255.255.255.255:{free_port()}/", proxy=None)
    assert "via" not in str(caught.value)


async def test_a_redirect_to_this_machine_leaves_the_proxy_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        tcp_server() as last,
        scripted_tcp_server(lambda _: redirect(f"ws://{LOOPBACK}:{last.port}/")) as (first, asked),
        tunnel_proxy(first) as proxy,
    ):
        monkeypatch.setenv("all_proxy", proxy.url.replace("//", f"//{CREDENTIALS}@"))
        async with open_websocket_url("ws://first.example/", max_redirects=1) as ws:
            assert ws.remote_address == (LOOPBACK, last.port)
            assert "Proxy-Authorization" not in ws.request.headers
    assert BASIC in request_fields(proxy.heads[0])["Proxy-Authorization"]
    assert len(proxy.heads) == 1
    assert BASIC.encode() not in asked[0]


async def test_a_redirect_away_from_this_machine_goes_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        tcp_server() as last,
        scripted_tcp_server(lambda _: redirect("ws://last.example/")) as (first, asked),
        tunnel_proxy(last.port) as proxy,
    ):
        monkeypatch.setenv("all_proxy", proxy.url.replace("//", f"//{CREDENTIALS}@"))
        async with open_websocket_url(f"ws://{LOOPBACK}:{first}/", max_redirects=1) as ws:
            assert ws.remote_address == (LOOPBACK, proxy.port)
    assert BASIC.encode() not in asked[0]
    assert proxy.heads[0].startswith(b"CONNECT last.example:80")


# ---------------------------------------------------------------------------
# Errors name who chose the proxy
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https", "socks4a", "socks5", "socks5h"])
async def test_a_proxy_that_is_not_there_is_named_with_its_variable(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    login = "pat@" if scheme == "socks4a" else f"{CREDENTIALS}@"
    monkeypatch.setenv("WSS_PROXY", f"{scheme}://{login}{LOOPBACK}:{port}")
    with pytest.raises(ConnectionFailed) as caught:
        await open_and_leave("wss://server.example/")
    assert str(caught.value) == (
        f"cannot connect to the proxy {LOOPBACK}:{port}: Connection refused "
        f"(via WSS_PROXY={scheme}://***@{LOOPBACK}:{port})"
    )
    assert caught.value.errno is not None
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_a_server_that_fails_behind_a_proxy_is_named_with_the_proxy(
    server_tls: ssl.SSLContext,
) -> None:
    async def hang_up(stream: trio.abc.Stream) -> None:
        pass

    async with serving(hang_up) as port, tunnel_proxy(port) as proxy:
        with pytest.raises(
            ConnectionFailed, match="TLS handshake with server.example failed"
        ) as caught:
            await open_and_leave("wss://server.example/", proxy=proxy.url)
        assert str(caught.value).endswith(f"(via proxy={proxy.url})")
        with pytest.raises(ConnectionFailed) as caught:
            await open_and_leave("ws://server.example/", proxy=proxy.url)
        assert str(caught.value).endswith(f"(via proxy={proxy.url})")
    async with (
        scripted_tcp_server(lambda _: b"SSH-2.0\r\n\r\n") as (port, _),
        tunnel_proxy(port) as proxy,
    ):
        with pytest.raises(InvalidResponse, match="not HTTP") as invalid:
            await open_and_leave("ws://server.example/", proxy=proxy.url)
        assert str(invalid.value).endswith(f"(via proxy={proxy.url})")


async def test_the_certificate_of_a_proxy_is_checked_with_a_context_of_its_own(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with tcp_server() as server, tunnel_proxy(server.port, server_tls) as proxy:
        url = proxy.url.replace("http", "https")
        with pytest.raises(ConnectionFailed) as caught:
            await open_and_leave("wss://server.example/", proxy=url, ssl_context=trusting)
        text = str(caught.value)
        assert text.startswith(f"the TLS handshake with the proxy {LOOPBACK} failed: ")
        assert text.endswith(f" (via proxy={url})")
        assert proxy.heads == []
        async with open_websocket_url(
            "ws://server.example/", proxy=url, proxy_ssl_context=trusting
        ) as ws:
            assert ws.request.tls is None


async def test_the_whole_way_lies_within_open_timeout() -> None:
    async def read_on(stream: trio.abc.Stream) -> None:
        async for _ in stream:
            pass

    async with scripted_proxy(read_on) as url:
        for kind in ("http", "https", "socks5h", "socks4a"):
            proxy = url.replace("http", kind)
            with pytest.raises(HandshakeTimeout) as caught:
                await open_and_leave("ws://server.example/", proxy=proxy, open_timeout=0.05)
            assert str(caught.value).startswith(
                "the opening handshake took longer than 0.05 s: it was still "
            )
            assert str(caught.value).endswith(f" (via proxy={proxy})")


# ---------------------------------------------------------------------------
# Proxies that misbehave
# ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "problem"),
    [
        (b"", ConnectionFailed, "the proxy gave no answer: the peer hung up"),
        (
            b"HTTP/1.1 200 Connection",
            ConnectionFailed,
            "the proxy gave no answer: the peer hung up",
        ),
        (b"\x05\x00", ProxyError, "no HTTP response to CONNECT: this is not HTTP"),
        (b"HTTP/1.1 2xx\r\n\r\n", ProxyError, "no HTTP response to CONNECT"),
        (b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", ProxyError, "it holds a control character"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", ProxyError, "more than 128 fields"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 20_000, ProxyError, "larger than 16384 bytes"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, ProxyError, "larger than 16384 bytes"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", ProxyError, "CONNECT"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n", ProxyError, "302 Found"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nnope", ProxyError, "403 Forbidden"),
        (b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\n\r\n", ProxyError, "no Basic"),
        (b"HTTP/1.1 407 No\r\n\r\n", ProxyError, "wants a user and a password"),
        (b"HTTP/1.0 502 \r\n\r\n", ProxyError, "502 Bad Gateway"),
        (b"HTTP/1.1 600 Odd\r\n\r\n", ProxyError, "600 Unknown"),
        (b"HTTP/1.1 200 OK\r\n\r\ngarbage", InvalidResponse, "not HTTP"),
    ],
)
async def test_a_proxy_that_misbehaves_is_a_clear_error(
    answer: bytes, kind: type[HandshakeError], problem: str
) -> None:
    async def misbehave(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        await stream.send_all(answer)

    async with scripted_proxy(misbehave) as url:
        with pytest.raises(kind) as caught:
            await open_and_leave("ws://server.example/", proxy=url)
    assert problem in str(caught.value)
    assert str(caught.value).endswith(f"(via proxy={url})")
    if b"nope" in answer:
        assert isinstance(caught.value, ProxyError)
        assert caught.value.response is not None
        assert caught.value.response.body == b"nope"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 204 No Content\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n  folded\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
async def test_an_answer_that_agrees_has_no_body_whatever_it_says(head: bytes) -> None:
    async with tcp_server() as server, tunnel_proxy(server.port, answer=head) as proxy:
        async with open_websocket_url("ws://server.example/", proxy=proxy.url) as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"


async def test_an_answer_may_come_byte_by_byte() -> None:
    async with tcp_server() as server:

        async def drip(stream: trio.abc.Stream) -> None:
            await read_head(stream)
            for byte in b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n":
                await stream.send_all(bytes([byte]))
                await trio.lowlevel.checkpoint()
            async with await trio.open_tcp_stream(LOOPBACK, server.port) as behind:
                await pass_on_both_ways(stream, behind, lambda _: None)

        async with scripted_proxy(drip) as url:
            async with open_websocket_url("ws://server.example/", proxy=url) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"


@pytest.mark.parametrize("kind", ["http", "https"])
async def test_what_comes_behind_the_answer_are_the_server_s_first_bytes(
    kind: str, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    # A response that begins with the proxy's answer: no byte may be lost, nor come twice.
    def rest_of_103_and(head: bytes) -> bytes:
        return (
            b"ly Hints\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n\x81\x02hi"
        )

    answer = b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 103 Ear"
    tls = server_tls if kind == "https" else None
    async with (
        scripted_tcp_server(rest_of_103_and) as (port, _),
        tunnel_proxy(port, tls, answer) as proxy,
    ):
        options: dict[str, Any] = {"proxy": proxy.url.replace("http", kind), "close_timeout": 0.1}
        options |= {"proxy_ssl_context": trusting} if tls else {}
        async with open_websocket_url("ws://server.example/", **options) as ws:
            assert ws.remote_address == (LOOPBACK, proxy.port)
            assert await ws.receive() == "hi"


async def test_bytes_in_front_of_tls_are_a_failed_handshake(trusting: ssl.SSLContext) -> None:
    async with tcp_server() as server:
        answer = b"HTTP/1.1 200 OK\r\n\r\nwelcome to the tunnel"
        async with tunnel_proxy(server.port, answer=answer) as proxy:
            with pytest.raises(ConnectionFailed, match="TLS handshake with server.example failed"):
                await open_and_leave("wss://server.example/", proxy=proxy.url, ssl_context=trusting)


# ---------------------------------------------------------------------------
# SOCKS
# ---------------------------------------------------------------------------


async def test_socks_4a_has_the_proxy_look_up_the_name() -> None:
    asked = b""
    async with tcp_server() as server:

        async def be_socks4a(stream: trio.abc.Stream) -> None:  # no program packages one
            nonlocal asked
            while asked.count(b"\0", 8) < 2:
                asked += await stream.receive_some(1)
            await stream.send_all(b"\0\x5a" + bytes(6))
            async with await trio.open_tcp_stream(LOOPBACK, server.port) as behind:
                await pass_on_both_ways(stream, behind, lambda _: None)

        async with scripted_proxy(be_socks4a) as url:
            proxy = url.replace("http://", "socks4a://pat@")
            async with open_websocket_url("ws://server.example:81/", proxy=proxy) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
    assert asked == b"\4\1\0\x51\0\0\0\1pat\0server.example\0"


@pytest.mark.parametrize(
    ("scheme", "sent"),
    [("socks5", b"\1" + bytes([10, 0, 0, 7])), ("socks5h", b"\3\x0eserver.example")],
)
async def test_the_name_is_looked_up_here_or_by_the_proxy(scheme: str, sent: bytes) -> None:
    trio.socket.set_custom_hostname_resolver(
        Resolver(lambda host: "10.0.0.7" if host == "server.example" else host)
    )
    asked = b""

    async def refuse(stream: trio.abc.Stream) -> None:
        nonlocal asked
        await stream.receive_some()
        await stream.send_all(b"\5\0")
        asked = bytes(await stream.receive_some())
        await stream.send_all(b"\5\5\0")

    async with scripted_proxy(refuse) as url:
        with pytest.raises(ProxyError, match="Connection refused by destination host") as caught:
            await open_and_leave("ws://server.example:81/", proxy=url.replace("http", scheme))
    assert caught.value.response is None
    assert asked == b"\5\1\0" + sent + b"\0\x51"


async def test_a_name_that_cannot_be_looked_up_here_is_a_failed_connection() -> None:
    def look_up(host: str) -> str:
        if host == "server.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return host

    trio.socket.set_custom_hostname_resolver(Resolver(look_up))

    async def greet(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"\5\0")
        await stream.receive_some()

    async with scripted_proxy(greet) as url:
        with pytest.raises(ConnectionFailed, match="Name or service not known .via proxy=socks5:"):
            await open_and_leave("ws://server.example/", proxy=url.replace("http", "socks5"))


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([b""], ProxyError),
        ([b"HT"], ProxyError),
        ([b"\5\xff"], ProxyError),
        ([b"\5\2"], ProxyError),
        ([b"\5\0", b""], ProxyError),
        ([b"\5\0", b"\5\0\0\7"], ProxyError),
        ([b"\5\0", b"\5\0\0\3\2\xff\xff\0\0"], ProxyError),
        ([b"\5\0", b"\5\x99\0"], ProxyError),
        ([b"\5\0", b"\5\0\0\1" + bytes(6) + b"garbage"], InvalidResponse),
    ],
)
async def test_a_socks_proxy_that_misbehaves_is_a_clear_error(
    answers: list[bytes], kind: type[HandshakeError]
) -> None:
    async def misbehave(stream: trio.abc.Stream) -> None:
        for answer in answers:
            await stream.receive_some()
            await stream.send_all(answer)

    async with scripted_proxy(misbehave) as url:
        proxy = url.replace("http", "socks5h")
        with pytest.raises(kind) as caught:
            await open_and_leave("ws://server.example/", proxy=proxy)
    assert str(caught.value).endswith(f"(via proxy={proxy})")


async def test_a_socks_proxy_that_resets_the_connection_is_a_failed_connection() -> None:
    async def break_off(stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SocketStream)
        await stream.receive_some(1)
        reset(stream)

    async with scripted_proxy(break_off) as url:
        with pytest.raises(ConnectionFailed, match="gives no tunnel: Connection reset") as caught:
            await open_and_leave("ws://server.example/", proxy=url.replace("http", "socks5h"))
    assert caught.value.errno == errno.ECONNRESET


async def test_socks_without_its_extra_says_what_to_install() -> None:
    script = (
        "import sys, trio, trio_ws; sys.modules['python_socks'] = None\n"
        "async def main():\n"
        "    async with trio_ws.open_websocket_url('ws://server.example/'): pass\n"
        "try: trio.run(main)\n"
        "except ImportError as exc: print(exc)\n"
    )
    environ = {**os.environ, "ALL_PROXY": f"socks5://{CREDENTIALS}@{LOOPBACK}:9"}
    ran = await trio.run_process([sys.executable, "-c", script], env=environ, capture_stdout=True)
    assert ran.stdout.decode().strip() == (
        f"the proxy of ALL_PROXY=socks5://***@{LOOPBACK}:9 needs python-socks: "
        'pip install "trio-ws[proxy]", or connect with proxy=None'
    )


def test_python_socks_is_imported_for_socks_alone() -> None:
    script = "import sys, trio_ws; print('python_socks' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert ran.stdout.strip() == b"False"
