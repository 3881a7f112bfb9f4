"""Serve on the sockets that systemd passes, in a program that serves by itself."""

import os
import socket

import trio

from trio_ws import WebSocket, serve_listeners


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


def listeners_from_systemd() -> list[trio.SocketListener]:
    """Listeners on what systemd has passed to this process: see sd_listen_fds(3)."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    listeners: list[trio.SocketListener] = []
    for descriptor in range(3, 3 + int(os.environ["LISTEN_FDS"])):
        os.set_inheritable(descriptor, False)  # by the programs that this one starts
        sock = trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor))
        listeners.append(trio.SocketListener(sock))
    return listeners


async def main() -> None:
    listeners = listeners_from_systemd() or await trio.open_tcp_listeners(8765, host="localhost")
    await serve_listeners(echo, listeners)


if __name__ == "__main__":
    trio.run(main)
