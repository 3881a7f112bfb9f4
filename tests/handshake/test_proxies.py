"""Behind nginx and HAProxy, with the configurations of docs/how-to/proxies.md."""

from __future__ import annotations

import logging
import math
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.handshake.handshake_helpers import site
from tests.helpers import HOST, PATIENCE, free_port, open_server
from tests.web.web_helpers import HTTPClient, http
from trio_ws import (
    ConnectionLost,
    Request,
    Router,
    WebSocket,
    WebSocketServer,
    open_websocket_url,
    serve_listeners,
    wrap_client_stream,
)

#: An address of the loopback interface that no proxy connects from.
CLIENT = "127.0.0.2"
AUTHORITY = trustme.CA()
TRUSTING = ssl.create_default_context()
AUTHORITY.configure_trust(TRUSTING)


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


HERE = Path(__file__).parents[1] / "proxies"


def configuration(name: str, folder: Path, proxy: Proxy, **changes: str) -> str:
    """The configuration in the documentation, with free ports and our certificate."""
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


def upstream(server: WebSocketServer) -> dict[str, str]:
    return {"127.0.0.1:8765": f"{HOST}:{server.port}"}


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
