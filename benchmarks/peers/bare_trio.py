"""No WebSocket, and no stream: a task for each connection waits, reads and writes by itself.

It is the floor that trio sets. That of `raw_trio` is higher: a `SocketStream` tries to read before
it waits, which is in vain where the next message is yet to come.
"""

from __future__ import annotations

import socket
import ssl

import trio

from benchmarks.subject import HOST, Mode, announce, main

#: Bytes asked for at once, as trio_ws does.
READ_SIZE = 64 * 1024


async def echo(sock: socket.socket) -> None:
    with sock:
        try:
            while data := await receive(sock):
                await send(sock, data)
        except OSError:
            pass  # the load is done, and does not say good-bye


async def receive(sock: socket.socket) -> bytes:
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            return sock.recv(READ_SIZE)
        except BlockingIOError:
            pass  # it only seemed readable


async def send(sock: socket.socket, data: bytes) -> None:
    while data:
        try:
            sent = sock.send(data)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        else:
            data = data[sent:]


async def serve(context: ssl.SSLContext) -> None:
    with socket.create_server((HOST, 0), backlog=128) as listener:
        listener.setblocking(False)
        async with trio.open_nursery() as nursery:
            announce({Mode.ECHO: listener.getsockname()[1]})
            while True:
                await trio.lowlevel.wait_readable(listener)
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                nursery.start_soon(echo, sock)


if __name__ == "__main__":
    main(trio.run, serve)
