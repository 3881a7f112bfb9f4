"""Behind nginx and HAProxy, with the configurations of docs/proxies.md; and what proxies say."""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from hypothesis import given, strategies as st

from tests.handshake.handshake_helpers import (
    HookedStream,
    memory_server,
    read_all,
    request as upgrade,
)
from tests.helpers import HOST, PATIENCE, open_server
from tests.web.web_helpers import HTTPClient, http, open_site
from trio_ws import (
    ConnectionFailed,
    ConnectionLost,
    Headers,
    ListenerOptions,
    Request,
    Router,
    WebSocket,
    WebSocketServer,
    open_websocket_url,
    serve_listeners,
    wrap_client_stream,
    wrap_server_stream,
)
from trio_ws._http.forwarded import from_client
from trio_ws._http.networks import Networks
from trio_ws._transport.proxy_protocol import read_proxy_header

HERE = Path(__file__).parents[1] / "proxies"
#: An address of the loopback interface that no proxy connects from.
CLIENT = "127.0.0.2"
AUTHORITY = trustme.CA()
TRUSTING = ssl.create_default_context()
AUTHORITY.configure_trust(TRUSTING)


def free_port() -> int:
    with socket.socket() as picked:
        picked.bind((HOST, 0))
        port: int = picked.getsockname()[1]
        return port


# ---------------------------------------------------------------------------
# Proxies as processes
# ---------------------------------------------------------------------------


class Proxy:
    """A running proxy, and its ports for HTTP and TLS."""

    def __init__(self, port: int, tls_port: int) -> None:
        self.port = port
        self.tls_port = tls_port

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(HOST, self.port, local_address=CLIENT)

    @asynccontextmanager
    async def websocket(self, path: str = "/ws", **options: Any) -> AsyncGenerator[WebSocket, None]:
        url = f"ws://{HOST}:{self.port}{path}"
        async with wrap_client_stream(await self.connect(), url, **options) as ws:
            yield ws


def configuration(name: str, folder: Path, proxy: Proxy, **changes: str) -> str:
    """What the documentation shows, with free ports and a certificate in the place of its own."""
    certificate = folder / "certificate.pem"
    AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    text = (HERE / name).read_text("utf-8")
    changes = {
        "listen 8080": f"listen {HOST}:{proxy.port}",
        "listen 8443": f"listen {HOST}:{proxy.tls_port}",
        "bind :8080": f"bind {HOST}:{proxy.port}",
        "bind :8443": f"bind {HOST}:{proxy.tls_port}",
        "/etc/ssl/private/example.org.pem": str(certificate),
        **changes,
    }
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


@asynccontextmanager
async def running(command: list[str], proxy: Proxy, log: Path) -> AsyncGenerator[Proxy, None]:
    program = shutil.which(command[0], path=os.environ["PATH"] + ":/usr/local/sbin:/usr/sbin")
    assert program, f"{command[0]} is missing: make test installs it"
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(
            [program, *command[1:]], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    await (await trio.open_tcp_stream(HOST, proxy.port)).aclose()
                    break
                except OSError:
                    assert process.poll() is None, await trio.Path(log).read_text()
                    await trio.sleep(0.02)
        yield proxy
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()
            await process.wait()


@asynccontextmanager
async def nginx(folder: Path, **changes: str) -> AsyncGenerator[Proxy, None]:
    proxy = Proxy(free_port(), free_port())
    site = folder / "site.conf"
    site.write_text(configuration("nginx.conf", folder, proxy, **changes))
    paths = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    scratch = " ".join(f"{name}_temp_path {folder}/{name};" for name in paths)
    main = folder / "main.conf"
    main.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off; {scratch} include {site}; }}\n"
    )
    command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(main)]
    async with running(command, proxy, folder / "log"):
        yield proxy


@asynccontextmanager
async def haproxy(
    folder: Path, name: str = "haproxy.cfg", **changes: str
) -> AsyncGenerator[Proxy, None]:
    proxy = Proxy(free_port(), free_port())
    file = folder / "haproxy.cfg"
    file.write_text(configuration(name, folder, proxy, **changes))
    async with running(["haproxy", "-db", "-f", str(file)], proxy, folder / "log"):
        yield proxy


BOTH = pytest.mark.parametrize("start", [nginx, haproxy])
Start = Callable[..., Any]


def site() -> Router:
    router = Router()

    @router.get("/")
    def index(request: Request) -> dict[str, object]:
        return {"address": request.remote_address, "scheme": request.scheme}

    @router.get("/health")
    def health(request: Request) -> str:
        return "OK"

    @router.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.send_json([websocket.remote_address, websocket.request.scheme])
        async for message in websocket:
            await websocket.send(message)

    return router


def upstream(server: WebSocketServer) -> dict[str, str]:
    return {"127.0.0.1:8765": f"{HOST}:{server.port}"}


# ---------------------------------------------------------------------------
# Behind real ones
# ---------------------------------------------------------------------------


@BOTH
async def test_websockets_and_pages_go_through_and_tell_who_is_there(
    start: Start, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"trusted_proxies": [HOST]}
    async with open_server(site(), **options) as server:
        async with start(tmp_path, **upstream(server)) as proxy:
            # A client that claims to be somebody else is not believed.
            lie = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}
            async with proxy.websocket(headers=lie) as ws:
                assert await ws.receive_json() == [[CLIENT, 0], "ws"]
                for message in ("hello", b"x" * 1_000_000, "é" * 100_000):
                    await ws.send(message)
                    assert await ws.receive() == message
                await ws.aclose(4000, "through the proxy")
            assert ws.close_reason is not None
            assert ws.close_reason.code == 4000

            async with await proxy.connect() as stream:
                client = HTTPClient(stream)
                for _ in range(5):
                    response = await client.ask(http(X_Forwarded_For="6.6.6.6"))
                    assert response.body == b'{"address": ["127.0.0.2", 0], "scheme": "http"}'
                assert (await client.ask(http("GET /none"))).status == 404

            url = f"wss://localhost:{proxy.tls_port}/ws"
            async with open_websocket_url(url, ssl_context=TRUSTING) as ws:
                _, scheme = await ws.receive_json()
                assert scheme == "wss"


@BOTH
async def test_a_server_that_does_not_trust_the_proxy_sees_the_proxy(
    start: Start, tmp_path: Path
) -> None:
    async with open_server(site()) as server:
        async with start(tmp_path, **upstream(server)) as proxy, proxy.websocket() as ws:
            (host, _), scheme = await ws.receive_json()
            assert (host, scheme) == (HOST, "ws")


@BOTH
async def test_pings_keep_a_silent_websocket_and_without_them_it_is_cut(
    start: Start, tmp_path: Path
) -> None:
    short = {f"{name} 60s": f"{name} 2s" for name in ("proxy_read_timeout", "timeout tunnel")}
    async with open_server(site(), ping_interval=0.3, ping_timeout=10) as server:
        async with start(tmp_path, **upstream(server), **short) as proxy:
            async with proxy.websocket(ping_interval=math.inf) as ws:
                await ws.receive()
                await trio.sleep(3)
                await ws.send("still there?")
                assert await ws.receive() == "still there?"
    async with open_server(site(), ping_interval=math.inf) as server:
        async with start(tmp_path, **upstream(server), **short) as proxy:
            async with proxy.websocket(ping_interval=math.inf) as ws:
                await ws.receive()
                with trio.fail_after(PATIENCE), pytest.raises(ConnectionLost):
                    await ws.receive()


@BOTH
async def test_the_server_may_be_on_a_unix_socket(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with trio.socket.socket(trio.socket.AF_UNIX) as listening:
        await listening.bind(str(path))
        listening.listen()
        async with trio.open_nursery() as nursery:

            async def serve(*, task_status: trio.TaskStatus[WebSocketServer]) -> None:
                listeners = [trio.SocketListener(listening)]
                await serve_listeners(
                    site(), listeners, trusted_proxies=["unix"], task_status=task_status
                )

            server = await nursery.start(serve)
            by_path = {"server 127.0.0.1:8765": f"server unix:{path}"}
            if start is haproxy:
                by_path = {"chat 127.0.0.1:8765": f"chat {path}"}
            async with start(tmp_path, **by_path) as proxy, proxy.websocket() as ws:
                assert await ws.receive_json() == [[CLIENT, 0], "ws"]
            await server.aclose()


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_haproxy_speaks_the_proxy_protocol(
    version: str, secure: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    options: dict[str, Any] = {"trusted_proxies": [HOST], "proxy_header": "PROXY"}
    if secure:
        options["ssl_context"] = context
    changes = {"send-proxy-v2": version}
    async with open_server(site(), **options) as server:
        async with haproxy(tmp_path, "haproxy-tcp.cfg", **upstream(server), **changes) as proxy:
            stream: trio.abc.Stream = await proxy.connect()
            port = stream.socket.getsockname()[1]  # type: ignore[attr-defined] # it is a socket
            scheme = "ws"
            if secure:
                stream = trio.SSLStream(stream, TRUSTING, server_hostname="localhost")
                scheme = "wss"
            async with wrap_client_stream(stream, f"{scheme}://localhost/ws") as ws:
                assert await ws.receive_json() == [[CLIENT, port], scheme]
                await ws.send("x" * 100_000)
                assert await ws.receive() == "x" * 100_000
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_haproxy_finds_the_server_well_by_a_health_check_with_extensions(
    tmp_path: Path,
) -> None:
    checked = trio.Event()
    router = Router()

    @router.get("/health")
    def health(request: Request) -> str:
        checked.set()
        return "OK"

    options: dict[str, Any] = {"trusted_proxies": [HOST], "proxy_header": "PROXY"}
    changes = {
        "timeout server 60s": "timeout server 60s\n    option httpchk GET /health",
        "inter 1s": "inter 100ms proxy-v2-options crc32c",
    }
    async with open_server(router, **options) as server:
        async with haproxy(tmp_path, "haproxy-tcp.cfg", **upstream(server), **changes):
            with trio.fail_after(10):
                await checked.wait()


# ---------------------------------------------------------------------------
# What they say, in fields
# ---------------------------------------------------------------------------

TRUSTED = ["10.0.0.0/8", "2001:db8::/32", "unix"]
PEER = ("10.0.0.1", 5)

#: The peer, X-Forwarded-For and X-Forwarded-Proto, and what is made of them.
SAID: list[tuple[Any, str | None, str | None, Any, str]] = [
    (PEER, "1.2.3.4", None, ("1.2.3.4", 0), "ws"),
    (PEER, "1.2.3.4", "https", ("1.2.3.4", 0), "wss"),
    (PEER, "1.2.3.4", "HTTPS", ("1.2.3.4", 0), "wss"),
    (PEER, "1.2.3.4", "gopher", ("1.2.3.4", 0), "ws"),
    (PEER, "1.2.3.4", "http, https", ("1.2.3.4", 0), "wss"),
    (PEER, "6.6.6.6, 1.2.3.4", None, ("1.2.3.4", 0), "ws"),
    (PEER, "6.6.6.6, 1.2.3.4, 10.9.9.9, 10.8.8.8", None, ("1.2.3.4", 0), "ws"),
    (PEER, "10.3.3.3, 10.9.9.9", None, ("10.3.3.3", 0), "ws"),
    (PEER, "1.2.3.4:567", None, ("1.2.3.4", 567), "ws"),
    (PEER, "2001:db9::1", None, ("2001:db9::1", 0), "ws"),
    (PEER, "[2001:db9::1]", None, ("2001:db9::1", 0), "ws"),
    (PEER, "[2001:db9::1]:567", None, ("2001:db9::1", 567), "ws"),
    (PEER, "1.2.3.4, 2001:db8::7", None, ("1.2.3.4", 0), "ws"),
    (PEER, "::ffff:1.2.3.4", None, ("1.2.3.4", 0), "ws"),
    (PEER, "6.6.6.6, unknown, 10.9.9.9", None, ("10.9.9.9", 0), "ws"),
    (PEER, "6.6.6.6, <script>", None, PEER, "ws"),
    (PEER, "1.2.3.400", None, PEER, "ws"),
    (PEER, "1.2.3.4:65535", None, ("1.2.3.4", 65535), "ws"),
    (PEER, "1.2.3.4:65536", None, PEER, "ws"),
    (PEER, "6.6.6.6, [2001:db9::1]:99999", None, PEER, "ws"),
    (PEER, "1.2.3.4%eth0", None, PEER, "ws"),
    (PEER, "fe80::1%eth0", None, ("fe80::1", 0), "ws"),
    (PEER, "", None, PEER, "ws"),
    (PEER, ", ,", None, PEER, "ws"),
    (PEER, None, "https", PEER, "wss"),
    (PEER, None, None, PEER, "ws"),
    (("::ffff:10.0.0.1", 5), "1.2.3.4", None, ("1.2.3.4", 0), "ws"),
    (("2001:db8::1%eth0", 5), "1.2.3.4", None, ("1.2.3.4", 0), "ws"),
    (None, "1.2.3.4", "https", ("1.2.3.4", 0), "wss"),
    ("/run/socket", "1.2.3.4", None, ("1.2.3.4", 0), "ws"),
    (("11.0.0.1", 5), "1.2.3.4", "https", ("11.0.0.1", 5), "ws"),
    (("2001:db9::1", 5), "1.2.3.4", "https", ("2001:db9::1", 5), "ws"),
]


@pytest.mark.parametrize(("peer", "addresses", "scheme", "address", "as_scheme"), SAID)
def test_the_last_address_that_is_no_trusted_proxy_is_the_client(
    peer: Any, addresses: str | None, scheme: str | None, address: Any, as_scheme: str
) -> None:
    fields = [("X-Forwarded-For", addresses), ("X-Forwarded-Proto", scheme)]
    headers = Headers([(name, value) for name, value in fields if value is not None])
    asked = Request("GET", "/", headers, "ws", peer)
    told = from_client(asked, Networks(TRUSTED), "X-Forwarded-For")
    assert (told.remote_address, told.scheme) == (address, as_scheme)
    assert told.headers is headers


def test_fields_on_several_lines_are_one_list() -> None:
    headers = Headers([("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "1.2.3.4")])
    asked = Request("GET", "/", headers, "ws", PEER)
    told = from_client(asked, Networks(TRUSTED), "X-Forwarded-For")
    assert told.remote_address == ("1.2.3.4", 0)


@pytest.mark.parametrize(
    ("field", "address", "scheme"),
    [
        ("for=1.2.3.4", ("1.2.3.4", 0), "ws"),
        ("For=1.2.3.4;Proto=https;by=10.0.0.1", ("1.2.3.4", 0), "wss"),
        ('for="1.2.3.4:567"', ("1.2.3.4", 567), "ws"),
        ('for="[2001:db9::1]:567";proto=https', ("2001:db9::1", 567), "wss"),
        (r'for="1.2.\3.4"', ("1.2.3.4", 0), "ws"),
        ("for=6.6.6.6;proto=https, for=1.2.3.4", ("1.2.3.4", 0), "ws"),
        ("for=1.2.3.4;proto=https, for=10.9.9.9;proto=http", ("1.2.3.4", 0), "wss"),
        ("for=1.2.3.4;proto=https, for=10.9.9.9", ("1.2.3.4", 0), "wss"),
        ('host="a,b;c";for=1.2.3.4', ("1.2.3.4", 0), "ws"),
        ("for=6.6.6.6, for=unknown, for=10.9.9.9", ("10.9.9.9", 0), "ws"),
        ("for=6.6.6.6, for=_hidden", PEER, "ws"),
        ("proto=https", PEER, "wss"),
        ("for=6.6.6.6, for=unknown;proto=https", PEER, "wss"),
        ('for="1.2.3.4:_hidden"', ("1.2.3.4", 0), "ws"),
        ('for="1.2.3.4:65536"', PEER, "ws"),
        (" ;for=1.2.3.4 ;; proto=https;\t", ("1.2.3.4", 0), "wss"),
        ("for=1.2.3.4, ,\t,", ("1.2.3.4", 0), "ws"),
        ("for=1.2.3.4, nonsense", PEER, "ws"),
        ("for=6.6.6.6;for=1.2.3.4", PEER, "ws"),
        ('for="1.2.3.4', PEER, "ws"),
        ('for=6.6.6.6, for="1.2.3.4', PEER, "ws"),
        ("", PEER, "ws"),
    ],
)
def test_forwarded_is_read_from_its_end(field: str, address: Any, scheme: str) -> None:
    headers = Headers({"Forwarded": field, "X-Forwarded-For": "6.6.6.6"})
    asked = Request("GET", "/", headers, "ws", PEER)
    told = from_client(asked, Networks(TRUSTED), "Forwarded")
    assert (told.remote_address, told.scheme) == (address, scheme)


#: What a client can put before what the proxy adds.
JUNK = [
    '"',
    "x",
    "",
    ",,",
    'for="',
    "for=6.6.6.6;x=",
    "\\",
    '"\\',
    "for=\xff",
    'x="a, b',
    "=;=",
    " ",
]


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("lines", [1, 2])
def test_a_client_cannot_switch_off_what_a_trusted_proxy_says(junk: str, lines: int) -> None:
    proxies = ['for="1.2.3.4:567";proto=https;host="a,b;c\\",d"', "for=10.9.9.9"]
    values = [", ".join([junk, *proxies])] if lines == 1 else [junk, *proxies]
    headers = Headers([("Forwarded", value) for value in values])
    asked = Request("GET", "/", headers, "ws", PEER)
    told = from_client(asked, Networks(TRUSTED), "Forwarded")
    assert (told.remote_address, told.scheme) == (("1.2.3.4", 567), "wss")


@given(
    st.text('",;=\\ for1.:', max_size=12),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF)),
)
def test_whatever_stands_before_a_proxy_s_element_and_in_it_that_element_is_read(
    before: str, host: str
) -> None:
    quoted = re.sub(r'(["\\])', r"\\\1", host)
    field = f'{before},for=1.2.3.4;host="{quoted}";proto=https'
    asked = Request("GET", "/", Headers._known([("Forwarded", field)]), "ws", PEER)
    told = from_client(asked, Networks(TRUSTED), "Forwarded")
    assert (told.remote_address, told.scheme) == (("1.2.3.4", 0), "wss")


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF)))
def test_any_text_in_forwarded_is_understood_or_not(text: str) -> None:
    asked = Request("GET", "/", Headers._known([("Forwarded", text)]), "ws", PEER)
    address = from_client(asked, Networks(TRUSTED), "Forwarded").remote_address
    assert isinstance(address, tuple)
    assert 0 <= address[1] <= 65535


@pytest.mark.parametrize("start", ['"', "a", '",', "a=", 'a="', ";", "\\", " ", ",", '="a\\",;'])
def test_a_forwarded_field_takes_linear_time(start: str) -> None:
    def seconds(size: int) -> float:
        field = start * size + "\x7f" + ',for=10.9.9.9,for="10.9.9.9'
        asked = Request("GET", "/", Headers._known([("Forwarded", field)]), "ws", PEER)
        started = time.process_time()
        from_client(asked, Networks(TRUSTED), "Forwarded")
        return time.process_time() - started

    seconds(1000)
    assert seconds(16_000) < 0.05


async def test_the_field_that_was_not_chosen_is_the_client_s_own_and_means_nothing() -> None:
    both = {"Forwarded": "for=6.6.6.6;proto=https", "X-Forwarded-For": "1.2.3.4"}
    fields = {name.replace("-", "_"): value for name, value in both.items()}
    for header, body in (
        ("X-Forwarded-For", b'{"address": ["1.2.3.4", 0], "scheme": "http"}'),
        ("Forwarded", b'{"address": ["6.6.6.6", 0], "scheme": "https"}'),
    ):
        options: dict[str, Any] = {"trusted_proxies": ["unix"], "proxy_header": header}
        async with open_site(site(), **options) as (_, client):
            assert (await client.ask(http(**fields))).body == body  # type: ignore[arg-type] # no bytes


async def test_process_request_and_the_log_see_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    seen: list[Any] = []
    options: dict[str, Any] = {"trusted_proxies": ["unix"], "process_request": seen.append}
    async with open_site(site(), **options) as (_, client):
        await client.ask(http("GET /health", X_Forwarded_For="1.2.3.4"))
        await client.ask(http("GET /health", X_Forwarded_For="5.6.7.8:9"))
    assert [request.remote_address for request in seen] == [("1.2.3.4", 0), ("5.6.7.8", 9)]
    lines = [record.getMessage() for record in caplog.records]
    assert '1.2.3.4:0 "GET /health" 200' in lines[0]
    assert '5.6.7.8:9 "GET /health" 200' in lines[1]


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        ({"trusted_proxies": "10.0.0.1"}, TypeError, "trusted_proxies is a list"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, ValueError, "host bits"),
        ({"trusted_proxies": ["proxy.example.org"]}, ValueError, "a trusted proxy is an address"),
        ({"proxy_header": "X-Real-IP"}, ValueError, "one of X-Forwarded-For, Forwarded, PROXY"),
    ],
)
def test_a_mistake_is_told_at_once(options: Any, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        ListenerOptions(**options)


def test_networks_know_who_is_in_them() -> None:
    assert not Networks([])
    assert Networks(["unix"])
    assert ("not an address", 1) not in Networks(["0.0.0.0/0", "::/0"])
    assert None not in Networks(["0.0.0.0/0"])


# ---------------------------------------------------------------------------
# What they say before everything else
# ---------------------------------------------------------------------------

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int, family: int, data: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(data)) + data


V4 = socket.inet_aton("1.2.3.4") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 567, 80)
V6 = socket.inet_pton(socket.AF_INET6, "2001:db9::1") * 2 + struct.pack("!HH", 567, 80)

GOOD: dict[str, tuple[bytes, Any]] = {
    "1, TCP4": (b"PROXY TCP4 1.2.3.4 10.0.0.1 567 80\r\n", ("1.2.3.4", 567)),
    "1, TCP6": (b"PROXY TCP6 2001:db9::1 ::1 567 80\r\n", ("2001:db9::1", 567)),
    "1, unknown": (b"PROXY UNKNOWN\r\n", None),
    "1, unknown with more": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    "2, TCP4": (v2(0x21, 0x11, V4), ("1.2.3.4", 567)),
    "2, TCP4 with more": (v2(0x21, 0x11, V4 + b"\x04\0\x01x" * 200), ("1.2.3.4", 567)),
    "2, TCP6": (v2(0x21, 0x21, V6), ("2001:db9::1", 567)),
    "2, UDP": (v2(0x21, 0x12, V4), None),
    "2, a Unix socket": (v2(0x21, 0x31, bytes(216)), None),
    "1, TCP6 that is IPv4": (
        b"PROXY TCP6 ::ffff:1.2.3.4 ::ffff:10.0.0.1 567 80\r\n",
        ("1.2.3.4", 567),
    ),
    "2, itself": (v2(0x20, 0x00, b""), None),
    "2, itself with more": (v2(0x20, 0x00, b"\x04\0\x01x" * 200), None),
    "2, itself with addresses": (v2(0x20, 0x11, V4), None),
    "2, too short": (v2(0x21, 0x11, V4[:-1]), None),
}

BAD: dict[str, bytes] = {
    "HTTP": upgrade(),
    "nothing": b"",
    "half of it": b"PROXY TCP4 1.2.3.4",
    "half of version 2": v2(0x21, 0x11, V4)[:-3],
    "an endless line": b"PROXY TCP4 " + b"1" * 200,
    "another protocol": b"PROXY UDP4 1.2.3.4 10.0.0.1 567 80\r\n",
    "no address": b"PROXY TCP4 1.2.3 10.0.0.1 567 80\r\n",
    "no port": b"PROXY TCP4 1.2.3.4 10.0.0.1 -1 80\r\n",
    "too high a port": b"PROXY TCP4 1.2.3.4 10.0.0.1 65536 80\r\n",
    "words missing": b"PROXY TCP4 1.2.3.4\r\n",
    "words too many": b"PROXY TCP4 1.2.3.4 10.0.0.1 567 80 9\r\n",
    "half of version 2, itself": v2(0x20, 0x00, b"\x04\0\x01x")[:-1],
    "IPv6 under TCP4": b"PROXY TCP4 2001:db9::1 10.0.0.1 567 80\r\n",
    "IPv6 under TCP4, to": b"PROXY TCP4 1.2.3.4 ::1 567 80\r\n",
    "IPv4 under TCP6": b"PROXY TCP6 1.2.3.4 10.0.0.1 567 80\r\n",
    "too high a port, to": b"PROXY TCP4 1.2.3.4 10.0.0.1 567 65536\r\n",
    "a zero in front": b"PROXY TCP4 1.2.3.4 10.0.0.1 0567 80\r\n",
    "no-break spaces": b"PROXY TCP4\xa01.2.3.4\xa010.0.0.1\xa0567\xa080\r\n",
    "line feeds": b"PROXY TCP4\n1.2.3.4\n10.0.0.1\n567\n80\r\n",
    "tabs": b"PROXY TCP4\t1.2.3.4\t10.0.0.1\t567\t80\r\n",
    "two spaces": b"PROXY TCP4  1.2.3.4 10.0.0.1 567 80\r\n",
    "version 3": v2(0x31, 0x11, V4),
    "a header of 60 KiB": v2(0x21, 0x11, bytes(60_000)),
}


@pytest.mark.parametrize(("data", "address"), GOOD.values(), ids=GOOD.keys())
async def test_a_proxy_header_is_read_and_not_a_byte_more(data: bytes, address: Any) -> None:
    client, stream = trio.testing.memory_stream_pair()
    await client.send_all(data + b"GET")
    assert await read_proxy_header(stream) == address
    assert await stream.receive_some() == b"GET"


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
async def test_what_is_no_proxy_header_ends_the_connection(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"trusted_proxies": ["unix"], "proxy_header": "PROXY"}
    async with memory_server(site(), **options) as server:
        async with server.connect() as stream:
            if data:
                await stream.send_all(data)
            await stream.send_eof()
            assert await read_all(stream) == b""
        await trio.testing.wait_all_tasks_blocked()
        assert server.server.statistics().refused_total == 1
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_proxy_header_counts_for_every_request_of_its_connection() -> None:
    options: dict[str, Any] = {"trusted_proxies": ["unix"], "proxy_header": "PROXY"}
    async with open_site(site(), **options) as (_, client):
        await client.send(GOOD["1, TCP4"][0])
        for _ in range(2):
            response = await client.ask(http(X_Forwarded_For="6.6.6.6"))
            assert response.body == b'{"address": ["1.2.3.4", 567], "scheme": "http"}'


async def test_who_is_no_trusted_proxy_has_no_proxy_header_to_send() -> None:
    options: dict[str, Any] = {"trusted_proxies": ["10.0.0.1"], "proxy_header": "PROXY"}
    async with memory_server(site(), **options) as server:
        lying = HTTPClient(server.connect())
        honest = HTTPClient(server.connect())
        async with lying.stream, honest.stream:
            assert (await lying.ask(GOOD["1, TCP4"][0] + http())).status == 400
            assert (await honest.ask(http("GET /health"))).status == 200


@pytest.mark.autojump
async def test_a_proxy_header_has_to_come_in_time() -> None:
    options: dict[str, Any] = {"trusted_proxies": ["unix"], "proxy_header": "PROXY"}
    async with memory_server(site(), **options) as server, server.connect() as stream:
        started = trio.current_time()
        await stream.send_all(b"PROXY TCP4")
        assert await read_all(stream) == b""
        assert trio.current_time() - started == 10


async def test_a_stream_of_one_s_own_may_come_from_a_proxy() -> None:
    options: dict[str, Any] = {"trusted_proxies": ["unix"], "proxy_header": "PROXY"}
    client, stream = trio.testing.memory_stream_pair()
    await client.send_all(GOOD["2, TCP6"][0] + upgrade())
    async with wrap_server_stream(stream, **options) as ws:
        assert ws.remote_address == ("2001:db9::1", 567)
        assert ws.request.remote_address == ("2001:db9::1", 567)
        await client.aclose()


async def test_a_stream_that_breaks_is_a_failed_connection() -> None:
    def fail(number: int) -> None:
        raise OSError("injected fault")

    _, stream = trio.testing.memory_stream_pair()
    with pytest.raises(ConnectionFailed, match="injected fault"):
        await read_proxy_header(HookedStream(stream, fail))
