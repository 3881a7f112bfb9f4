"""What one connection takes: the figures of docs/explanation/memory.md, and the bound in it.

The server is a process of its own, whose memory is the system's word. ``pytest -rP`` prints what
was measured.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, suppress

import pytest
import trio

from tests.helpers import BINARY, frame
from tests.whole.server_process import SOAK, Server, report, server_process
from trio_ws import ServerStreamOptions

KIB = 1024
CONNECTIONS = 500 if SOAK else 40
OPTIONS = ServerStreamOptions()

MESSAGE = frame(BINARY, bytes(16 * KIB))

#: What one read brings of messages of this size.
ONE_READ = 256 * KIB

#: Objects, and what the first connections of a server need for all.
BESIDE = 64 * KIB

#: Holes in the heap, which one connection leaves and another may fill.
HOLES = 4 / 3

#: So many times in a row nobody could send anything: all wait for the server.
ALL_WAIT = 10


async def connected(server: Server, stack: ExitStack, path: str) -> list[socket.socket]:
    """Clients that have shaken hands, on sockets that do not block."""
    sockets: list[socket.socket] = []
    for _ in range(CONNECTIONS):
        peer = await server.connect(path, receive_buffer=4096)
        assert isinstance(peer.stream, trio.SocketStream)
        sock = socket.socket(fileno=os.dup(peer.stream.socket.fileno()))
        await peer.stream.aclose()
        stack.enter_context(sock).setblocking(False)
        sockets.append(sock)
    return sockets


async def send_as_much_as_they_can(sockets: list[socket.socket]) -> None:
    rests = dict.fromkeys(sockets, b"")
    in_vain = 0
    while in_vain < ALL_WAIT:
        in_vain += 1
        for sock, rest in rests.items():
            with suppress(BlockingIOError):
                data = rest or MESSAGE
                rests[sock] = data[sock.send(data) :]
                in_vain = 0
        await trio.sleep(0.01 if in_vain else 0)


async def test_an_idle_connection_takes_less_than_16_kib() -> None:
    with server_process() as server, ExitStack() as stack:
        await connected(server, stack, "/")  # what the first ones need for all
        before = server.memory()
        for _ in range(3):
            await connected(server, stack, "/")
        taken = (server.memory() - before) / (3 * CONNECTIONS)
    report(idle=f"{taken / KIB:.1f} KiB")
    assert taken < 16 * KIB


@pytest.mark.parametrize(
    ("path", "bound"),
    [
        ("/never", OPTIONS.max_queued_bytes + ONE_READ + BESIDE),
        ("/echo", OPTIONS.max_queued_bytes + ONE_READ + OPTIONS.max_send_buffer + BESIDE),
    ],
    ids=["its handler does not receive", "its peer does not read"],
)
async def test_what_a_stranger_can_make_a_connection_hold_is_bounded(
    path: str, bound: float
) -> None:
    with server_process() as server, ExitStack() as stack:
        sockets = await connected(server, stack, path)
        before = server.memory()
        await send_as_much_as_they_can(sockets)
        taken = (server.memory() - before) / CONNECTIONS
    report(path=path, taken=f"{taken / KIB:.0f} KiB", bound=f"{bound / KIB:.0f} KiB")
    assert taken < bound * HOLES
