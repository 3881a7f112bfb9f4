"""The log of a server: one access line for each connection, frames at DEBUG, no tracebacks."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

import trio_ws
from tests.helpers import HOST, REQUEST, echo, open_server, reset
from trio_ws import ConnectionRejected, Response, WebSocket, open_websocket_url


async def say_close(stream: trio.SocketStream) -> None:
    await stream.send_all(bytes([0x88, 0x80, 0, 0, 0, 0]))
    await stream.aclose()


async def say_garbage(stream: trio.SocketStream) -> None:
    await stream.send_all(b"garbage")
    await stream.aclose()


async def reset_at_once(stream: trio.SocketStream) -> None:
    reset(stream)


async def test_a_peer_that_disconnects_is_never_a_traceback_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    done = trio.Event()

    async def receiver(ws: WebSocket) -> None:
        try:
            await ws.receive()
        finally:
            done.set()

    async def in_a_nursery(ws: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver, ws)
            nursery.start_soon(trio.sleep_forever)

    for handler in (receiver, in_a_nursery, echo):
        async with open_server(handler) as server:
            for leave in (say_close, trio.SocketStream.aclose, reset_at_once, say_garbage):
                done = trio.Event()
                stream = await trio.open_tcp_stream(HOST, server.port)
                await stream.send_all(REQUEST)
                await stream.receive_some()
                await leave(stream)
                if handler is not echo:
                    await done.wait()
            while server.connections:
                await trio.sleep(0.001)
    assert not [record for record in caplog.records if record.exc_info]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def _page_or_socket(request: trio_ws.Request) -> Response | None:
    return Response(404, body="no such page") if request.path == "/page" else None


async def test_there_is_one_access_line_per_connection_and_frames_at_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("mine")
    caplog.set_level(logging.DEBUG, logger="mine")
    async with open_server(echo, logger=logger, process_request=_page_or_socket) as server:
        async with open_websocket_url(server.urls[0] + "chat?x=1", logger=logger) as ws:
            await ws.send("hello")
            await ws.send(b"x" * 100)
            await ws.receive()
            await ws.receive()
            await ws.ping(b"p")
            async with ws.open_message("text") as writer:
                await writer.send("part")
            await ws.receive()
        with pytest.raises(ConnectionRejected):
            async with open_websocket_url(server.urls[0] + "page", logger=logger):
                raise AssertionError
    text = [record.getMessage() for record in caplog.records]
    access = [line for line in text if '"GET /chat?x=1" 101, 1000' in line]
    assert len(access) == 1
    assert "3 messages" in access[0]
    assert len([line for line in text if "answered with 404" in line]) == 1
    for expected in (
        "sent text 'hello' (5 long)",
        "received text 'hello' (5 long)",
        f"sent binary {b'x' * 40!r}… (100 long)",
        "received Ping b'p'",
        "received Pong b'p'",
        "received fragment 'part'",
        "sent Close 1000 ''",
        "received Close 1000 ''",
    ):
        assert any(expected in line for line in text), expected
    assert {record.name for record in caplog.records if "trio" not in record.name} == {"mine"}
    assert all(hasattr(record, "connection_id") for record in caplog.records)


async def test_nothing_is_formatted_for_the_log_when_nobody_listens() -> None:
    logger = logging.getLogger("quiet")
    logger.setLevel(logging.ERROR)
    async with open_server(echo, logger=logger) as server:
        async with open_websocket_url(server.urls[0], logger=logger) as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
