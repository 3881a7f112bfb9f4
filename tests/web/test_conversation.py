"""HTTP/1.1 beside WebSockets: connections that go on, and curl, wrk and Chromium."""

from __future__ import annotations

import logging
import re
import shutil
import ssl
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.handshake.handshake_helpers import request as upgrade
from tests.helpers import HOST, PATIENCE, echo, open_server
from tests.web.web_helpers import HTTPClient, TestSite, chunked, http, open_site
from trio_ws import Request, Router, WebSocket, wrap_client_stream

PAGE = b"<h1>Welcome</h1>"


# Connections that go on…


async def test_a_connection_answers_one_request_after_the_other() -> None:
    async with open_site() as (server, client):
        for number in range(3):
            response = await client.ask(http(f"GET /number/{number}"))
            assert (response.status, response.body) == (200, b'{"number": %d}' % number)
            assert response.headers["Content-Type"] == "application/json"
            assert "Connection" not in response.headers
            assert "Date" in response.headers
            assert "Server" in response.headers
        statistics = server.server.statistics()
        assert (statistics.http_connections, statistics.http_requests_total) == (1, 3)
        assert (statistics.connections, statistics.handshakes, statistics.refused_total) == (
            0,
            0,
            0,
        )
    assert server.server.statistics().http_connections == 0


async def test_requests_sent_together_are_answered_in_their_order() -> None:
    async with open_site() as (_, client):
        await client.send(
            http("GET /number/1")
            + http("POST /echo", b"two")
            + http("HEAD /number/3")
            + b"\r\n"  # as some old clients put after a body
            + chunked(b"fo", b"ur")
            + http("GET /none")
            + http("GET /number/6")
        )
        assert (await client.response()).body == b'{"number": 1}'
        assert (await client.response()).body == b"two"
        head = await client.response(to_head=True)
        assert (head.status, head.headers["Content-Length"]) == (200, "13")
        assert (await client.response()).body == b"four"
        assert (await client.response()).status == 404
        assert (await client.response()).body == b'{"number": 6}'


@pytest.mark.parametrize(
    "data",
    [http("GET /number/1") + http("POST /echo", b"two"), chunked(b"x" * 20, b"y") + http()],
    ids=["plain", "chunked"],
)
async def test_requests_may_come_one_byte_at_a_time(data: bytes) -> None:
    async with open_site() as (_, client):
        for byte in data:
            await client.send(bytes([byte]))
        assert (await client.response()).status == 200
        assert (await client.response()).status == 200


async def test_after_pages_the_same_connection_may_become_a_websocket() -> None:
    async with open_site() as (server, client):
        assert (await client.ask(http())).body == PAGE
        async with wrap_client_stream(client.stream, "ws://example.org/ws") as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
            statistics = server.server.statistics()
            assert (statistics.connections, statistics.http_connections) == (1, 0)
            assert (statistics.connections_total, statistics.refused_total) == (1, 0)


async def test_a_page_and_an_upgrade_sent_together_are_answered_in_their_order() -> None:
    async with open_site() as (_, client):
        await client.send(http() + upgrade("GET /ws HTTP/1.1") + b"\x81\x80abcd")
        assert (await client.response()).body == PAGE
        assert (await client.response()).status == 101
        assert await client.stream.receive_some(2) == b"\x81\x00"


async def test_an_offer_of_http_2_is_passed_over() -> None:
    h2c = http(Upgrade="h2c", Connection="Upgrade, HTTP2-Settings", HTTP2_Settings="AAAA")
    async with open_site() as (_, client):
        for _ in range(2):
            assert (await client.ask(h2c)).body == PAGE


@pytest.mark.parametrize(
    "data",
    [http(Connection="close"), b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"],
    ids=["close", "HTTP/1.0 without a host", "HTTP/1.0"],
)
async def test_a_client_that_wants_one_response_is_hung_up_on(data: bytes) -> None:
    async with open_site() as (_, client):
        response = await client.ask(data + http())
        assert (response.status, response.body) == (200, PAGE)
        assert response.headers["Connection"] == "close"
        assert await client.is_hung_up_on()


async def test_a_client_that_leaves_between_or_within_requests_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    half_a_body = http("POST /echo", Content_Length="9") + b"abc"
    async with open_site() as (server, client):
        await client.ask(http())
        for data in (b"", http(), half_a_body, http() + http()[:9]):
            async with server.connect() as stream:
                await stream.send_all(data)
        await trio.testing.wait_all_tasks_blocked()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_client_that_resets_the_connection_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_server(TestSite().router) as server:
        for data in (http(), http() + http("POST /echo", Content_Length="9"), http("GET /large")):
            stream = await trio.open_tcp_stream(HOST, server.port)
            client = HTTPClient(stream)
            await client.send(data)
            await stream.receive_some(1)
            linger = struct.pack("ii", 1, 0)
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
            await stream.aclose()
        with trio.fail_after(PATIENCE):
            while server.statistics().http_connections:
                await trio.sleep(0.01)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@pytest.mark.autojump
async def test_an_idle_connection_is_closed_after_keep_alive_timeout() -> None:
    async with open_site(keep_alive_timeout=30) as (server, client):
        await client.ask(http())
        started = trio.current_time()
        await trio.sleep(29)
        assert (await client.ask(http())).status == 200
        assert await client.is_hung_up_on()
        assert trio.current_time() - started == 59
        assert server.server.statistics().http_connections == 0


@pytest.mark.parametrize("empty", [b"\r\n", b"\n", b"\r\n" * 5])
async def test_empty_lines_may_come_before_any_request(empty: bytes) -> None:
    async with open_site() as (_, client):
        for _ in range(3):
            assert (await client.ask(empty + http())).body == PAGE
        for byte in empty + http("GET /number/1"):
            await client.send(bytes([byte]))
        assert (await client.response()).body == b'{"number": 1}'
        # A CR alone is the end of no line.
        assert (await client.ask(b"\r" + http())).status == 400


async def test_a_target_may_be_a_whole_url() -> None:
    router = Router()
    router.get("/<name>")(lambda request, name: f"{name} {request.query} {request.headers['Host']}")
    async with open_site(router) as (_, client):
        response = await client.ask(http("GET http://other.example:81/a%20b?c"))
        assert response.text == "a b c other.example:81"
        http_1_0 = b"GET http://other.example/a HTTP/1.0\r\n\r\n"
        assert (await client.ask(http_1_0)).text == "a  other.example"


async def test_the_methods_of_the_whole_server_can_be_asked_for() -> None:
    for target in ("*", "http://example.org"):
        async with open_site() as (_, client):
            response = await client.ask(http(f"OPTIONS {target}"))
            assert (response.status, response.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, POST")
            assert (await client.ask(http("GET /none"))).status == 404
    router = Router()
    router.websocket("/")(echo)
    async with open_site(router) as (_, client):
        assert (await client.ask(http("OPTIONS *"))).headers["Allow"] == "GET, OPTIONS"
        path = await client.ask(http("OPTIONS http://example.org/none"))
        assert path.status == 404
    seen: list[str] = []
    async with open_site(process_request=lambda asked: seen.append(asked.path)) as (_, client):
        assert (await client.ask(http("OPTIONS *"))).status == 204
    assert seen == ["*"]


@pytest.mark.autojump
async def test_empty_lines_do_not_keep_a_connection() -> None:
    async with open_site(keep_alive_timeout=5) as (_, client):
        await client.ask(http())
        started = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await client.send(b"\r\n")
                await trio.sleep(1)
        assert trio.current_time() - started <= 6


# Programs of others…


async def test_curl_agrees() -> None:
    async def curl(*arguments: str) -> str:
        command = ["curl", "-sS", "--http1.1", "--max-time", "20", *arguments]
        result = await trio.run_process(command, capture_stdout=True)
        return result.stdout.decode()

    assert shutil.which("curl"), "curl is missing: make test installs it"
    status = ["-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n"]
    async with open_server(TestSite().router, max_body_size=2_000_000) as server:
        url = f"http://{HOST}:{server.port}"
        assert await curl(f"{url}/") == PAGE.decode()
        assert await curl(*status, f"{url}/", *status, f"{url}/none") == "200 1\n404 0\n"
        assert "HTTP/1.1 200 OK" in await curl("-I", f"{url}/number/1")
        assert "Allow: GET, HEAD, OPTIONS" in await curl("-i", "-X", "OPTIONS", f"{url}/")
        assert await curl(*status, "-X", "DELETE", f"{url}/") == "405 1\n"
        # Over a megabyte, curl asks first whether it may send it.
        megabytes = "x" * 1_500_000
        assert await curl("--data-binary", megabytes[:100_000], f"{url}/echo") == "x" * 100_000
        chunks = ["-H", "Transfer-Encoding: chunked", "--data-binary", "a chunked body"]
        assert await curl(*chunks, f"{url}/echo") == "a chunked body"
        upload = await trio.run_process(
            ["curl", "-sS", "--data-binary", "@-", f"{url}/echo"],
            stdin=megabytes.encode(),
            capture_stdout=True,
        )
        assert upload.stdout == megabytes.encode()
        assert await curl("--http2", f"{url}/") == PAGE.decode()
        assert await curl("--http1.0", f"{url}/") == PAGE.decode()

    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with open_server(TestSite().router, ssl_context=context) as server:
        with authority.cert_pem.tempfile() as certificate:
            url = f"https://localhost:{server.port}/"
            twice = await curl("--cacert", certificate, "-4", url, url)
            assert twice == PAGE.decode() * 2


async def test_wrk_agrees() -> None:
    assert shutil.which("wrk"), "wrk is missing: make test installs it"
    async with open_server(TestSite().router) as server:
        url = f"http://{HOST}:{server.port}/number/7"
        command = ["wrk", "-t1", "-c8", "-d1s", url]
        result = await trio.run_process(command, capture_stdout=True)
        report = result.stdout.decode()
        assert "Non-2xx" not in report
        assert "Socket errors" not in report
        statistics = server.statistics()
        counted = re.search(r"(\d+) requests in", report)
        assert counted is not None
        assert statistics.http_requests_total >= int(counted[1]) > 0
        assert statistics.handler_errors_total == 0
        assert statistics.refused_total <= 1  # wrk connects once before it begins


async def test_a_browser_agrees(tmp_path: Path) -> None:
    router = Router()
    (tmp_path / "app.js").write_text(
        "fetch('publish', {method: 'POST', headers: {'Content-Type': 'application/json'},"
        " body: '\"hi\"'}).then(r => r.json()).then(got => {"
        " const ws = new WebSocket(location.href.replace('http', 'ws') + 'chat/a%20b');"
        " ws.onmessage = m => { document.title = got + ' ' + m.data; }; });"
    )
    router.static("/static", tmp_path)

    @router.get("/")
    def index(request: Request) -> str:
        return f"<!doctype html><script src={router.url_for('static', filename='app.js')}></script>"

    @router.post("/publish")
    def publish(request: Request) -> list[Any]:
        return [request.json()]

    @router.websocket("/chat/<room>")
    async def chat(ws: WebSocket, room: str) -> None:
        await ws.send(f"in {room}")
        await ws.wait_closed()

    async with open_server(router) as server:
        command = [sys.executable, "-m", "tests.examples.browse", f"http://{HOST}:{server.port}/"]
        result = await trio.run_process(command, capture_stdout=True)
        assert result.stdout.decode() == "hi in a b"
