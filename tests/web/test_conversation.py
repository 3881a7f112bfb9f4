"""HTTP/1.1 beside WebSockets: connections that go on, bodies, limits, deadlines, shutdown."""

from __future__ import annotations

import itertools
import logging
import queue
import shutil
import ssl
import struct
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from hypothesis import given, settings, strategies as st

from tests.conftest import open_descriptors, run_autojumped
from tests.handshake.handshake_helpers import (
    HookedStream,
    memory_server,
    read_all,
    request as upgrade,
)
from tests.helpers import HOST, PATIENCE, echo, least_cpu_seconds, open_server, wait_for_a_turn
from tests.tls_helpers import tls_contexts
from tests.web.web_helpers import HTTPClient, TestSite, chunked, http, open_site
from trio_ws import (
    InvalidRequest,
    Request,
    Response,
    Router,
    WebSocket,
    WebSocketServer,
    serve_listeners,
    wrap_client_stream,
)
from trio_ws._http.exchange import MAX_HEAD_BYTES
from trio_ws._transport.opening import hang_up
from trio_ws._transport.sockets import wrap_stream
from trio_ws.testing import MemoryListener

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
async def test_who_wants_no_more_than_one_is_hung_up_on(data: bytes) -> None:
    async with open_site() as (_, client):
        response = await client.ask(data + http())
        assert (response.status, response.body) == (200, PAGE)
        assert response.headers["Connection"] == "close"
        assert await client.is_hung_up_on()


async def test_who_leaves_between_or_within_requests_is_no_error(
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


async def test_who_resets_the_connection_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
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


# Requests that are wrong…

MALFORMED: dict[str, tuple[bytes, int]] = {
    "no HTTP": (b"\x16\x03\x01\x02\x00", 400),
    "half a request line": (b"GET /\r\n\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "a target of another scheme": (http("GET ftp://example.org/"), 400),
    "a target with a user": (http("GET http://user@example.org/"), 400),
    "a target that is served over TLS only": (http("GET https://example.org/"), 421),
    "GET *": (http("GET *"), 400),
    "a target of 17 KiB": (http("GET /" + "x" * (MAX_HEAD_BYTES + 1)), 414),
    "CONNECT": (http("CONNECT example.org:443"), 400),
    "a fragment": (http("GET /#a"), 400),
    "a control character": (http(X="a\x01b"), 400),
    "a bare CR": (http(X="a\rb"), 400),
    "a folded NUL": (http(X="a\r\n \x00"), 400),
    "a head of 17 KiB": (http(X="x" * (MAX_HEAD_BYTES + 1)), 431),
    "200 fields": (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
    "a length that is no number": (http("POST /echo", Content_Length="1x"), 400),
    "a negative length": (http("POST /echo", Content_Length="-1"), 400),
    "a length of 5000 digits": (http("POST /echo", Content_Length="9" * 5000), 400),
    "two lengths": (http("POST /echo", Content_Length="1\r\nContent-Length: 2"), 400),
    "length and chunks": (http("POST /echo", b"abc", Transfer_Encoding="chunked"), 400),
    "chunks in HTTP/1.0": (
        b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "an unknown encoding": (http("POST /echo", Transfer_Encoding="gzip"), 400),
    "a chunk size that is no number": (chunked(b"a").replace(b"1\r\na", b"x\r\na"), 400),
    "a chunk longer than it says": (chunked(b"a").replace(b"1\r\na", b"1\r\nab"), 400),
    "a chunk of 2**80": (chunked(b"a").replace(b"1\r\na", b"f" * 21 + b"\r\na"), 400),
    "a chunk's extension of 20 kB": (
        chunked(b"a").replace(b"1\r\na", b"1;" + b"x" * 20_000 + b"\r\na"),
        400,
    ),
    "a trailer of 20 kB": (chunked(b"a")[:-2] + b"X: " + b"x" * 20_000 + b"\r\n\r\n", 400),
    "a trailer that is none": (chunked(b"a")[:-2] + b"X\r\n\r\n", 400),
    "a larger body than may be": (http("POST /echo", b"x" * 5001), 413),
    "a larger body announced": (http("POST /echo", Content_Length="5001"), 413),
    "a larger body expected": (
        http("POST /echo", Content_Length="5001", Expect="100-continue"),
        413,
    ),
    "larger chunks than may be": (chunked(*[b"x" * 1000] * 6), 413),
    "more chunks than may be": (chunked(*[b"x"] * 100), 413),
    "an endless chunk": (chunked(b"x" * 10_000_000)[:300_000], 413),
}


@pytest.mark.parametrize(("data", "status"), MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_wrong_request_gets_its_status_and_others_are_unharmed(
    data: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    site = TestSite()
    site.router.websocket("/")(echo)
    async with open_site(site.router, max_body_size=5000) as (server, first):
        await first.ask(http())  # so that the wrong one is a second one, too
        for client in (HTTPClient(server.connect()), first):
            async with client.stream:
                try:
                    await client.send(data)
                except trio.BrokenResourceError:
                    pass  # it has been answered before it was sent
                response = await client.response()
                assert (response.status, response.headers["Connection"]) == (status, "close")
                assert response.text
                assert len(response.body) < 300
                assert await client.is_hung_up_on()
        assert await server.serves()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_wrong_requests_over_a_real_socket_get_their_whole_answer() -> None:
    async with open_server(TestSite().router, max_body_size=5000) as server:
        for data, status in MALFORMED.values():
            async with await trio.open_tcp_stream(HOST, server.port) as stream:
                client = HTTPClient(stream)
                await client.send(http() + data)
                assert (await client.response()).status == 200
                assert (await client.response()).status == status
                assert await client.is_hung_up_on()


@pytest.mark.autojump
@pytest.mark.parametrize("first", [b"", http()], ids=["first", "second"])
@pytest.mark.parametrize("rest", [http()[:20], b"G"])
async def test_a_head_that_drips_is_cut_off(first: bytes, rest: bytes) -> None:
    async with open_site(open_timeout=10) as (_, client):
        if first:
            await client.ask(first)
        started = trio.current_time()
        await client.send(rest)
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await trio.sleep(1)
                await client.send(b"x")
        assert trio.current_time() - started <= 11


@pytest.mark.autojump
@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (http("POST /echo", Content_Length="5000"), b"x"),
        (http("POST /echo", Transfer_Encoding="chunked"), b"1\r\nx\r\n"),
        (http("POST /echo", Transfer_Encoding="chunked") + b"0\r\n", b"X: y\r\n"),
        (http("POST /echo", Content_Length="5000"), b""),
    ],
)
async def test_a_body_that_drips_is_408(start: bytes, piece: bytes) -> None:
    async with open_site(open_timeout=10) as (server, client):
        started = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                await client.send(start)
                while piece:
                    await trio.sleep(1)
                    await client.send(piece)

            nursery.start_soon(drip)
            assert (await client.response()).status == 408
            assert trio.current_time() - started == 10
            nursery.cancel_scope.cancel()
            assert server.server.statistics().http_connections == 1
        assert await client.is_hung_up_on()


async def test_no_trailer_takes_50_ms_to_judge() -> None:
    # 60 000 spaces and a NUL take h11 seven seconds, where it gets to see them together.
    trailer = chunked(b"a")[:-2] + b"X:" + b" " * 60_000 + b"\0\r\n\r\n"
    async with memory_server(TestSite().router) as server:

        async def ask() -> None:
            client = HTTPClient(server.connect())
            async with client.stream:
                await client.send(trailer)
                assert (await client.response()).status == 400

        assert await least_cpu_seconds(ask) < 0.05


async def test_a_body_of_many_chunks_is_whole() -> None:
    chunks = [b"%d," % number for number in range(5000)]
    async with open_site() as (_, client):
        assert (await client.ask(chunked(*chunks))).body == b"".join(chunks)


async def test_a_body_of_tiny_chunks_lets_others_run() -> None:
    async with open_site(max_body_size=2**20) as (_, client):

        async def ask() -> None:
            response = await client.ask(chunked(*[b"x"] * 10_000))
            assert (response.status, len(response.body)) == (200, 10_000)

        # A whole read of 64 KiB holds eleven thousand such chunks, which take h11 over 100 ms.
        assert await wait_for_a_turn(ask) < 0.02


async def test_what_was_announced_is_asked_for_and_answered() -> None:
    data = http("POST /echo", Content_Length="3", Expect="100-continue")
    async with open_site() as (_, client):
        for _ in range(2):
            await client.send(data)
            assert (await client.response()).status == 100
            assert (await client.ask(b"abc")).body == b"abc"
        await client.send(data + b"abc")  # one that does not wait for it
        assert (await client.response()).body == b"abc"


async def test_what_is_refused_is_not_asked_for() -> None:
    data = http("POST /nowhere", Content_Length="3", Expect="100-continue")
    async with open_site() as (_, client):
        response = await client.ask(data)
        assert (response.status, response.headers["Connection"]) == (404, "close")
        assert await client.is_hung_up_on()


async def test_an_empty_body_is_none() -> None:
    async with open_site() as (_, client):
        response = await client.ask(http("POST /echo", Content_Length="0"))
        assert (response.status, response.headers["X-Size"]) == (200, "0")
        response = await client.ask(chunked())
        assert (response.status, response.headers["X-Size"]) == (200, "0")


# What the application says, and what it gets wrong…


async def test_process_request_is_asked_first_and_its_answer_keeps_the_connection() -> None:
    def process_request(request: Request) -> Response | None:
        assert request.scheme in ("http", "ws")
        if request.path == "/health":
            return Response(200, body="OK\n")
        return Response(403) if request.path == "/number/13" else None

    async with open_site(process_request=process_request) as (_, client):
        assert (await client.ask(http("GET /health"))).body == b"OK\n"
        assert (await client.ask(http("GET /number/13"))).status == 403
        assert (await client.ask(http("GET /number/12"))).status == 200
        assert (await client.ask(upgrade("GET /health HTTP/1.1"))).body == b"OK\n"
        assert await client.is_hung_up_on()


def fail(request: Request) -> Any:
    raise RuntimeError("the database is down")


async def fail_later(request: Request) -> Any:
    await trio.lowlevel.checkpoint()
    raise RuntimeError("the database is down")


async def fail_in_a_nursery(request: Request) -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(fail_later, request)


MISTAKES: dict[str, tuple[Any, str]] = {
    "raises": (fail, "the database is down"),
    "raises later": (fail_later, "the database is down"),
    "raises in a nursery": (fail_in_a_nursery, "the database is down"),
    "returns bytes": (lambda request: b"yes", "an endpoint returns a Response, a str"),
    "returns what is no JSON": (lambda request: {"a": object()}, "not JSON serializable"),
    "answers with 101": (lambda request: Response(101), "a status from 200 to 599, not 101"),
    "splits the response": (
        lambda request: Response(200, {"X": "a\r\n\r\n<p>"}),
        "holds a line break",
    ),
}


@pytest.mark.parametrize(("endpoint", "what"), MISTAKES.values(), ids=MISTAKES.keys())
async def test_a_failing_endpoint_is_500_and_one_record(
    endpoint: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    router = Router()
    router.get("/")(endpoint)
    async with open_site(router) as (server, client):
        for number in (1, 2):
            response = await client.ask(http())
            assert (response.status, response.text) == (500, "Internal server error.\n")
            assert server.server.statistics().handler_errors_total == number
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    for record in caplog.records:
        assert "the endpoint of GET / failed" in record.getMessage()
        assert record.exc_info is not None
        assert what in str(record.exc_info[1])


async def test_an_endpoint_may_refuse_by_raising(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()

    @router.post("/json")
    def post(request: Request) -> Any:
        return request.json()

    @router.post("/text")
    async def text(request: Request) -> str:
        return request.text

    @router.get("/teapot")
    def teapot(request: Request) -> str:
        raise InvalidRequest("no coffee", Response(418, body="I'm a teapot.\n"))

    as_json = {"Content_Type": "application/json; charset=utf-8"}
    async with open_site(router) as (_, client):
        for data, status in (
            (http("POST /json", b'{"a": [1]}', **as_json), 200),
            (http("POST /json", b"{}", Content_Type="application/geo+json"), 200),
            (http("POST /json", b"{}"), 415),
            (http("POST /json", b"{}", Content_Type="text/plain"), 415),
            (http("POST /json", b"{", **as_json), 400),
            (http("POST /json", b"\xff", **as_json), 400),
            (http("POST /json", b"[" * 100_000, **as_json), 400),
            (http("POST /json", b"1" * 5000, **as_json), 400),
            (http("POST /text", "é".encode()), 200),
            (http("POST /text", b"\xff"), 400),
            (http("GET /teapot"), 418),
        ):
            assert (await client.ask(data)).status == status
    assert not caplog.records


async def test_a_failing_endpoint_may_end_the_server() -> None:
    listener = MemoryListener()
    client = HTTPClient(listener.connect())

    async def ask() -> None:
        async with client.stream:
            assert (await client.ask(http("GET /fail"))).status == 500

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        with pytest.raises(RuntimeError, match="the database is down"):
            await serve_listeners(TestSite().router, [listener], on_handler_error="propagate")


async def test_what_ends_the_program_ends_the_server() -> None:
    router = Router()

    @router.get("/")
    def leave(request: Request) -> None:
        raise SystemExit(3)

    listener = MemoryListener()
    client = HTTPClient(listener.connect())
    await client.send(http())
    with pytest.raises(SystemExit):
        await serve_listeners(router, [listener])
    assert await client.is_hung_up_on()
    await client.stream.aclose()


@pytest.mark.parametrize("as_hook", [False, True], ids=["endpoint", "hook"])
async def test_a_deep_failure_while_it_is_cancelled_is_logged_as_well(
    as_hook: bool, caplog: pytest.LogCaptureFixture
) -> None:
    inside = trio.Event()

    async def stubborn(request: Request) -> None:
        async def mourn() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise RuntimeError("cancelled in the middle")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(mourn)
            inside.set()

    router = Router(before=stubborn if as_hook else ())
    router.get("/")(stubborn)
    async with open_site(router, grace_period=0.01) as (_, client):
        await client.send(http())
        await inside.wait()
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "cancelled in the middle" in repr(record.exc_info[1])


async def test_each_request_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_site() as (_, client):
        await client.ask(http("GET /number/1"))
        await client.ask(http("HEAD /none"))
    first, second, *_ = [record.getMessage() for record in caplog.records]
    assert '"GET /number/1" 200, 13 bytes, ' in first
    assert '"HEAD /none" 404, 0 bytes, ' in second


# Clients that do not read…


async def test_a_page_larger_than_the_socket_s_buffer_arrives_whole() -> None:
    async with open_server(TestSite().router) as server:
        async with await trio.open_tcp_stream(HOST, server.port) as stream:
            client = HTTPClient(stream)
            for _ in range(2):
                await client.send(http("GET /large"))
                await trio.sleep(0.02)  # until the buffers are full
                assert len((await client.response()).body) == 5_000_000


async def test_a_client_that_takes_nothing_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    options = {"ping_interval": 0.1, "ping_timeout": 0.1}
    async with open_server(TestSite().router, **options) as server:
        async with await trio.open_tcp_stream(HOST, server.port) as stream:
            await stream.send_all(http("GET /large"))
            with trio.fail_after(PATIENCE):
                while not any("took too little" in record.message for record in caplog.records):
                    await trio.sleep(0.01)
            assert server.statistics().http_connections == 0
            assert (await stream.receive_some(12)) == b"HTTP/1.1 200"


async def test_a_client_that_pipelines_does_not_hold_up_others() -> None:
    async with open_site() as (_, client):
        steps = 0

        async def count() -> None:
            nonlocal steps
            while True:
                await trio.lowlevel.checkpoint()
                steps += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await client.send(http("GET /number/1") * 50)
            for _ in range(50):
                assert (await client.response()).status == 200
            nursery.cancel_scope.cancel()
        assert steps >= 50


# Limits on connections, and shutting down…


async def test_http_connections_count_among_the_connections() -> None:
    async with open_site(max_connections=2) as (server, client):
        await client.ask(http())
        async with wrap_client_stream(server.connect(), "ws://example.org/ws"):
            third = HTTPClient(server.connect())
            async with third.stream:
                assert (await third.ask(http())).status == 503
            assert (await client.ask(http())).status == 200


@pytest.mark.autojump
async def test_at_shutdown_idle_connections_are_closed_and_endpoints_get_grace() -> None:
    site = TestSite()
    async with memory_server(site.router, grace_period=5) as server:
        idle, half, busy = (HTTPClient(server.connect()) for _ in range(3))
        await idle.ask(http())
        await half.ask(http())
        await half.send(http()[:9])
        await busy.send(http("GET /wait") + http())
        await site.entered.wait()
        async with trio.open_nursery() as nursery:
            started = trio.current_time()
            nursery.start_soon(server.server.aclose)
            assert await idle.is_hung_up_on()
            refusal = await half.response()
            assert (refusal.status, refusal.headers["Retry-After"]) == (503, "1")
            assert trio.current_time() == started
            assert await half.is_hung_up_on()
            await trio.sleep(3)
            site.may_leave.set()
            response = await busy.response()
            assert (response.body, response.headers["Connection"]) == (b"waited", "close")
            assert await busy.is_hung_up_on()
        for client in (idle, half, busy):
            await client.stream.aclose()


@pytest.mark.autojump
async def test_endpoints_that_take_longer_than_grace_period_are_cancelled() -> None:
    site = TestSite()
    async with memory_server(site.router, grace_period=5) as server:
        client = HTTPClient(server.connect())
        await client.send(http("GET /wait"))
        await site.entered.wait()
        started = trio.current_time()
        await server.server.aclose()
        assert trio.current_time() - started == 5
        assert site.left
        assert await client.is_hung_up_on()
        await client.stream.aclose()


class OneStreamListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener to which one client comes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._streams = [stream]

    async def accept(self) -> trio.abc.Stream:
        if not self._streams:
            await trio.sleep_forever()
        return self._streams.pop()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_whichever_operation_fails_the_server_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = http() + http("POST /echo", Content_Length="3", Expect="100-continue") + b"abc" + http()
    before = open_descriptors()
    for failing in range(1, 20):

        def hook(number: int, failing: int = failing) -> None:
            if number == failing:
                raise OSError("injected fault")

        client, server_end = trio.testing.memory_stream_pair()
        listener = OneStreamListener(HookedStream(server_end, hook))
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_listeners, TestSite().router, [listener])
            await client.send_all(data)
            await client.send_eof()
            await read_all(client)
            await server.aclose()
        await client.aclose()
    assert open_descriptors() <= before
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


CONVERSATION = (
    http()
    + http("POST /echo", Content_Length="3", Expect="100-continue")
    + b"abc"
    + http("GET /static/file")
    + chunked(b"de", b"f")
    + upgrade("GET /ws HTTP/1.1")
)


async def test_wherever_it_is_cancelled_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    for moment in itertools.count(1):
        site = TestSite()
        site.router.static("/static", tmp_path)
        client, server_end = trio.testing.memory_stream_pair()
        before = open_descriptors()
        tasks = trio.lowlevel.current_statistics().tasks_living
        await client.send_all(CONVERSATION)
        await client.send_eof()
        with trio.CancelScope() as scope:

            def hook(number: int, moment: int = moment, scope: trio.CancelScope = scope) -> None:
                if number == moment:
                    scope.cancel()

            stream = HookedStream(server_end, hook)
            listener = OneStreamListener(stream)
            async with trio.open_nursery() as nursery:
                serve = partial(serve_listeners, grace_period=1e-9)
                server = await nursery.start(serve, site.router, [listener])
                while not stream.closed:
                    await trio.sleep(0.001)
                await server.aclose()
        assert stream.closed
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert open_descriptors() == before
        await client.aclose()
        if stream.operations < moment:
            assert moment > 5
            return


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    cut = st.tuples(st.integers(0, len(data)), st.binary(max_size=20), st.integers(0, 20))
    return cut.map(lambda how: data[: how[0]] + how[1] + data[how[0] + how[2] :])


@given(st.one_of(st.binary(max_size=400), mutated(CONVERSATION), mutated(chunked(b"abc", b"de"))))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_answered_and_never_an_error(data: bytes) -> None:
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    logger = logging.getLogger("fuzzed")
    logger.handlers = [QueueHandler(records)]
    logger.setLevel(logging.WARNING)

    async def main() -> None:
        async with memory_server(TestSite().router, logger=logger) as server:
            stream = server.connect()
            with trio.fail_after(9):
                await stream.send_all(data)
                await stream.send_eof()
                await read_all(stream)
            await stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
            assert server.server.statistics().http_connections == 0

    run_autojumped(main)
    assert records.empty()


# The end of TLS…


@dataclass(frozen=True)
class TLS:
    """A server's side and a client's that trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def tls() -> TLS:
    return TLS(*tls_contexts("localhost"))


@asynccontextmanager
async def open_tls_site(
    tls: TLS, **options: Any
) -> AsyncGenerator[tuple[WebSocketServer, trio.SSLStream[Any]], None]:
    """A site behind TLS in memory, and a client that takes a missing goodbye for an error."""
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        serve = partial(serve_listeners, **options)
        listeners = [trio.SSLListener(listener, tls.server)]
        server = await nursery.start(serve, TestSite().router, listeners)
        stream = trio.SSLStream(listener.connect(), tls.client, server_hostname="localhost")
        yield server, stream
        await stream.aclose()
        await server.aclose()


ENDINGS = {
    "Connection: close": (http(Connection="close"), 200),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", 200),
    "a malformed request": (b"bad\r\n\r\n", 400),
    "no such WebSocket": (upgrade("GET /none HTTP/1.1"), 404),
    "requests that nobody reads": (http(Connection="close") + http() * 2000, 200),
    "a body that is too large": (http("POST /echo", b"x" * 3_000_000), 413),
}


@pytest.mark.autojump
@pytest.mark.parametrize(("data", "status"), ENDINGS.values(), ids=ENDINGS.keys())
async def test_over_tls_the_end_comes_with_the_last_response(
    data: bytes, status: int, tls: TLS
) -> None:
    async with open_tls_site(tls) as (server, stream), trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        started = trio.current_time()
        response = b""
        async for piece in stream:  # to the goodbye: without one, this would raise
            response += piece
        assert response.startswith(b"HTTP/1.1 %d " % status)
        assert trio.current_time() == started
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().http_connections == 0
        assert trio.current_time() == started, "the server does not wait for a client that left"


@pytest.mark.autojump
async def test_over_tls_a_client_that_does_not_leave_is_left_after_a_second(tls: TLS) -> None:
    async with open_tls_site(tls) as (server, stream):
        await stream.send_all(http(Connection="close"))
        started = trio.current_time()
        await read_all(stream)
        while server.statistics().http_connections:
            await trio.sleep(0.01)
        assert 0.99 < trio.current_time() - started < 1.1


async def test_over_tls_the_log_names_a_client_that_has_left(
    tls: TLS, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    async with open_server(TestSite().router, ssl_context=tls.server) as server:
        stream = await trio.open_ssl_over_tcp_stream(
            "localhost", server.port, ssl_context=tls.client
        )
        address = stream.transport_stream.socket.getsockname()
        async with stream:
            await stream.send_all(b"bad\r\n\r\n")
            await read_all(stream)
    assert f"{address[0]}:{address[1]} answered with 400" in caplog.text


async def test_over_tls_a_client_that_goes_on_sending_gets_its_answer_and_the_end(
    tls: TLS,
) -> None:
    async with open_server(TestSite().router, ssl_context=tls.server) as server:
        stream = await trio.open_ssl_over_tcp_stream(
            "localhost", server.port, ssl_context=tls.client
        )
        async with stream, trio.open_nursery() as nursery:

            async def send() -> None:
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(http("POST /echo", Content_Length="50000000"))
                    for _ in range(50):
                        await stream.send_all(b"x" * 1_000_000)

            nursery.start_soon(send)
            with trio.fail_after(9):
                assert (await HTTPClient(stream).response()).status == 413
                assert await HTTPClient(stream).is_hung_up_on()
            nursery.cancel_scope.cancel()


async def say_goodbye_with_a_fault(tls: TLS, unread: bytes, moment: int, *, fails: bool) -> int:
    """Hang up while an operation fails or is cancelled. Gives how many there were."""
    client_end, server_end = trio.testing.memory_stream_pair()
    scope = trio.CancelScope()
    armed: list[int] = []

    def hook(number: int) -> None:
        if armed and number - armed[0] == moment:
            if fails:
                raise trio.BrokenResourceError("cut")
            scope.cancel()

    below = HookedStream(server_end, hook)
    server = trio.SSLStream(below, tls.server, server_side=True)
    client = trio.SSLStream(client_end, tls.client, server_hostname="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        await server.do_handshake()
    armed.append(below.operations)

    async def converse() -> None:
        await client.send_all(unread)
        await read_all(client)
        await client.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse)
        transport = wrap_stream(server)
        with scope, trio.fail_after(5):
            await hang_up(transport)
            assert below.closed
        await transport.aclose_forcefully()  # as the server does, whatever happened
    assert below.closed
    return below.operations - armed[0]


@pytest.mark.parametrize("unread", [b"", b"x" * 100_000])
@pytest.mark.parametrize("fails", [False, True])
async def test_wherever_a_goodbye_of_tls_is_cancelled_or_fails_the_stream_is_closed(
    tls: TLS, unread: bytes, fails: bool
) -> None:
    for moment in itertools.count(1):
        if await say_goodbye_with_a_fault(tls, unread, moment, fails=fails) < moment:
            assert moment > 3
            return


@pytest.mark.autojump
@pytest.mark.parametrize("stopping", [False, True])
async def test_over_tls_an_idle_connection_ends_with_a_goodbye(tls: TLS, stopping: bool) -> None:
    async with open_tls_site(tls, keep_alive_timeout=30) as (server, stream):
        await HTTPClient(stream).ask(http())
        started = trio.current_time()
        if stopping:
            await server.aclose()
        assert await stream.receive_some(1) == b""
        assert trio.current_time() - started == (0 if stopping else 30)


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
        assert statistics.http_requests_total > 100
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
