"""Requests over HTTP that are wrong, that drip, or that bring a body."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from tests.handshake.handshake_helpers import memory_server
from tests.helpers import HOST, echo, least_cpu_seconds, open_server, wait_for_a_turn
from tests.web.web_helpers import HTTPClient, TestSite, chunked, http, open_site
from trio_ws._http.exchange import MAX_HEAD_BYTES

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


async def test_an_announced_body_is_asked_for_and_answered() -> None:
    data = http("POST /echo", Content_Length="3", Expect="100-continue")
    async with open_site() as (_, client):
        for _ in range(2):
            await client.send(data)
            assert (await client.response()).status == 100
            assert (await client.ask(b"abc")).body == b"abc"
        await client.send(data + b"abc")  # one that does not wait for it
        assert (await client.response()).body == b"abc"


async def test_a_refused_body_is_not_asked_for() -> None:
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
