"""How many objects the garbage collector looks through for each connection and each message.

With thousands of connections, what it has to look through is a good part of what a message costs,
and most of how that grows. So these numbers may fall, and do not rise unnoticed.
"""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from tests.connection.reading_helpers import AWAY
from tests.helpers import CLOSE, TEXT, frame, open_server
from trio_ws import WebSocket, WebSocketServer

pytestmark = pytest.mark.autojump

#: So many connections are looked at, after a few that need what is made once for all.
CONNECTIONS, FIRST = 100, 5

#: The socket at the other end of each is in this process, too.
PEER = 1

#: A task of trio's that waits for its socket, and does nothing else, has 21 of these.
IDLE = 53

#: One with a handler that waits for an event, while its reader task waits for the socket.
BUSY = 67

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def exchange(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    await trio.lowlevel.wait_readable(sock)
    assert sock.recv(4096)


@asynccontextmanager
async def connected(
    server: WebSocketServer, number: int
) -> AsyncGenerator[list[socket.socket], None]:
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        for _ in range(number):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            sockets.append(sock)
            await exchange(sock, REQUEST)
        yield sockets
        for sock in sockets:
            sock.sendall(frame(CLOSE, b"\x03\xe8"))
        await trio.testing.wait_all_tasks_blocked()


async def tracked_objects() -> int:
    await trio.testing.wait_all_tasks_blocked()
    gc.collect()
    return len(gc.get_objects())


async def objects_for_each(
    handler: Callable[[WebSocket], Awaitable[None]],
    act: Callable[[list[socket.socket]], Awaitable[object]],
) -> float:
    """For each connection on which that was done."""
    async with (
        open_server(handler, compression=None) as server,
        connected(server, FIRST) as first,
    ):
        await act(first)
        before = await tracked_objects()
        async with connected(server, CONNECTIONS) as sockets:
            await act(sockets)
            return (await tracked_objects() - before) / CONNECTIONS - PEER


async def test_an_idle_connection_has_few_objects_that_the_collector_looks_through() -> None:
    async def act(sockets: list[socket.socket]) -> None:
        for sock in sockets:
            await exchange(sock, frame(TEXT, b"a message"))

    assert await objects_for_each(echo, act) < IDLE + 0.5  # and what is no connection's


async def test_a_message_in_hand_adds_few_and_one_that_waits_none() -> None:
    async def wait(ws: WebSocket) -> None:
        async for _ in ws:
            await trio.sleep_forever()

    def send(messages: int) -> Callable[[list[socket.socket]], Awaitable[None]]:
        async def act(sockets: list[socket.socket]) -> None:
            for sock in sockets:
                sock.sendall(frame(TEXT, b"in hand"))
            await trio.sleep(AWAY)
            for sock in sockets:
                sock.sendall(frame(TEXT, b"waits") * messages)
            await trio.sleep(AWAY)

        return act

    few, many = [await objects_for_each(wait, send(messages)) for messages in (1, 50)]
    assert few < BUSY + 0.5
    assert many < few + 0.5
