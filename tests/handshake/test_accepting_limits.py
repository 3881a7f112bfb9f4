"""The server's side of the opening handshake: sizes, deadlines, and how much work a request is."""

from __future__ import annotations

import logging
import re
import ssl
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.handshake.handshake_helpers import (
    memory_server,
    parse_response,
    read_all,
    read_head,
    request,
)
from tests.handshake.requests import GOOD, assert_refused
from tests.helpers import echo, least_cpu_seconds
from tests.server.server_helpers import MemoryListener as SlowListener
from trio_ws._http.exchange import MAX_HEAD_BYTES
from trio_ws.testing import MemoryListener


async def test_headers_that_drip_for_ever_are_cut_off_at_16_kib() -> None:
    async with memory_server() as server, server.connect() as stream:
        await stream.send_all(GOOD[:-2])
        sent = len(GOOD) - 2
        while sent <= MAX_HEAD_BYTES:
            await stream.send_all(b"X: y\r\n")
            sent += 6
        assert_refused(parse_response(await read_all(stream)), 431)


@pytest.mark.parametrize("first", [b"", b"G", GOOD[:-1]], ids=["silence", "a byte", "all but one"])
async def test_silence_is_dropped_after_10_seconds(
    first: bytes, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    async with memory_server() as server, server.connect() as stream:
        started = trio.current_time()
        if first:
            await stream.send_all(first)
        assert await read_all(stream) == b""
        assert trio.current_time() - started == 10
        assert await server.serves()
    assert "dropped in the opening handshake: out of time" in caplog.text


async def test_one_byte_a_second_is_dropped_after_10_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        memory_server() as server,
        server.connect() as stream,
        trio.open_nursery() as nursery,
    ):
        started = trio.current_time()

        async def drip() -> None:
            for octet in GOOD:
                try:
                    await stream.send_all(bytes([octet]))
                except trio.BrokenResourceError:
                    return
                await trio.sleep(1)

        nursery.start_soon(drip)
        assert await read_all(stream) == b""
        assert trio.current_time() - started == 10


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["before", "during"])
async def test_silence_before_or_in_the_tls_handshake_is_dropped_after_10_seconds(
    first: bytes, server_tls: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server: trio_ws.WebSocketServer = await nursery.start(
            trio_ws.serve_listeners, echo, [trio.SSLListener(listener, server_tls)]
        )
        started = trio.current_time()
        async with listener.connect() as stream:
            if first:
                await stream.send_all(first)
            assert await read_all(stream) == b""
        assert trio.current_time() - started == 10
        assert server.statistics().refused_total == 1
        await server.aclose()


async def test_plain_http_on_a_tls_port_is_told_to_use_tls(server_tls: ssl.SSLContext) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server: trio_ws.WebSocketServer = await nursery.start(
            trio_ws.serve_listeners, echo, [trio.SSLListener(listener, server_tls)]
        )
        async with listener.connect() as stream:
            await stream.send_all(GOOD)
            answer = await read_all(stream)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"use wss:// instead of ws://" in answer
        await server.aclose()


SLOW = [
    ("X", " " * 16000 + "\0"),
    ("X", "\t " * 7900 + "\x0c"),
    ("Connection", "," * 16000),
    ("Connection", "upgrade, " * 1700 + "\x0b"),
    ("Upgrade", "websocket " * 1500),
    ("Origin", "http://" + "a" * 15000),
    ("Sec-WebSocket-Key", "A" * 15000),
    ("Sec-WebSocket-Version", "1" * 15000),
    ("Sec-WebSocket-Protocol", "a, " * 5000),
    ("Sec-WebSocket-Extensions", 'a; b="' * 2500),
    ("Sec-WebSocket-Extensions", "a;" * 7500 + "\xff"),
    ("Host", "a." * 7500 + "!"),
    ("Host", "xn--" + "a" * 15000),
    ("Host", "[" + ":" * 15000),
    ("Content-Length", "1," * 7500),
    ("Transfer-Encoding", "chunked, " * 1500),
]


@pytest.mark.parametrize(("name", "value"), SLOW)
async def test_no_value_takes_50_ms_to_judge(name: str, value: str) -> None:
    options: dict[str, Any] = {
        "subprotocols": [f"protocol-{number}" for number in range(50)],
        "origins": [re.compile(r"https://[a-z]+\.example"), "http://a", None],
    }
    data = request(**{name.replace("-", "_"): value})
    async with memory_server(**options) as server:

        async def ask() -> None:
            async with server.connect() as stream:
                await stream.send_all(data)
                response = parse_response(await read_head(stream))
                assert response.status in (101, 400, 403, 426)

        assert await least_cpu_seconds(ask) < 0.05


async def test_beyond_max_connections_the_answer_is_503() -> None:
    async with memory_server(max_connections=1) as server:
        async with server.connect() as first:
            await first.send_all(GOOD)
            assert parse_response(await read_head(first)).status == 101
            response = await server.answer(GOOD)
            assert_refused(response, 503)
            assert response.headers["Retry-After"] == "1"
            assert response.text == "Too many connections, try again later.\n"
        await trio.testing.wait_all_tasks_blocked()
        assert await server.serves()


@pytest.mark.autojump
async def test_a_client_that_does_not_take_the_101_has_what_is_left_of_10_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    listener = SlowListener()
    async with trio.open_nursery() as nursery:
        server: trio_ws.WebSocketServer = await nursery.start(
            trio_ws.serve_listeners, echo, [listener]
        )
        client, ours = trio.testing.lockstep_stream_pair()
        await listener.deliver(ours)
        started = trio.current_time()
        await trio.sleep(6)
        await client.send_all(GOOD)  # and reads nothing
        while not server.statistics().refused_total:
            await trio.sleep(0.75)
        assert 10 <= trio.current_time() - started < 11
        nursery.cancel_scope.cancel()
    assert "left: the peer did not read in the opening handshake" in caplog.text
