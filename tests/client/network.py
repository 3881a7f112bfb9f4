"""A network in memory: what trio connects to, in simulated time.

trio lets a program bring its own sockets and name look-up. So everything of a client runs as it
does over TCP, and every address does what a test wants of it.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import trio
import trio.testing

from tests.client.client_helpers import Resolver
from trio_ws import ConnectionClosed, HandshakeError, WebSocket, wrap_server_stream
from trio_ws._nursery import open_bare_nursery

#: What a server does with each connection; an error stands for one that cannot be made.
Server = Callable[[trio.abc.Stream], Awaitable[object]] | OSError | None


class Network(trio.abc.SocketFactory):
    """Servers by address. `attempts` has the time and the address of each connection."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.servers: dict[str, Server] = {}
        self.attempts: list[tuple[float, str]] = []

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.attempts]

    @property
    def gaps(self) -> list[float]:
        """The seconds between one connection and the next."""
        return [later - time for time, later in pairwise(self.times)]

    # For `trio.socket.set_custom_socket_factory`…

    def socket(self, *how: Any) -> MemorySocket:
        return MemorySocket(self)

    async def connect(self, address: str) -> trio.StapledStream[Any, Any]:
        await trio.lowlevel.checkpoint()
        self.attempts.append((trio.current_time(), address))
        server = self.servers[address]
        if server is None:
            await trio.sleep_forever()
        if isinstance(server, OSError):
            raise server
        assert server is not None
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(server, theirs)
        return ours


class MemorySocket(trio.socket.SocketType):
    """As much of a socket as a client's stream asks for."""

    type = socket.SOCK_STREAM
    did_shutdown_SHUT_WR = False  # noqa: N815 - trio's name

    def __init__(self, network: Network) -> None:
        self._network = network
        self._stream: trio.StapledStream[Any, Any] | None = None

    async def connect(self, address: Any) -> None:
        self._stream = await self._network.connect(address[0])

    def setsockopt(self, *option: Any) -> None: ...

    def fileno(self) -> int:
        return -1

    def getpeername(self) -> Any:
        return ("10.0.0.1", 80)

    getsockname = getpeername

    async def send(self, data: Any, flags: int = 0) -> int:
        assert self._stream is not None
        await self._stream.send_all(data)
        return len(data)

    async def recv(self, most: int, flags: int = 0) -> bytes:
        assert self._stream is not None
        return bytes(await self._stream.receive_some(most))

    def shutdown(self, flag: int) -> None:
        assert self._stream is not None
        self._stream.send_stream.close()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.send_stream.close()
            self._stream.receive_stream.close()


@asynccontextmanager
async def memory_network(
    server: Server = None, *, names: Mapping[str, str] | None = None
) -> AsyncGenerator[Network, None]:
    """A network with a server at 10.0.0.1, and names for other addresses."""

    def look_up(name: str) -> str:
        if names is not None and name in names:
            return names[name]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with open_bare_nursery() as nursery:
        network = Network(nursery)
        network.servers["10.0.0.1"] = server
        trio.socket.set_custom_socket_factory(network)
        trio.socket.set_custom_hostname_resolver(Resolver(look_up))
        try:
            yield network
        finally:
            nursery.cancel_scope.cancel()


URL = "ws://10.0.0.1/feed"


# Servers…


def serving(handler: Callable[[WebSocket], Awaitable[object]], **options: Any) -> Server:
    async def serve(stream: trio.abc.Stream) -> None:
        try:
            async with wrap_server_stream(stream, **options) as websocket:
                await handler(websocket)
        except (ConnectionClosed, HandshakeError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    return serve


def closing(code: int = 1000, after: float = 0.0) -> Server:
    """It accepts, and closes with this code so many seconds later."""

    async def close(websocket: WebSocket) -> None:
        await trio.sleep(after)
        await websocket.aclose(code)

    return serving(close)


def answering(status: int, *fields: str) -> Server:
    """It answers with this status and these header fields."""
    head = "\r\n".join([f"HTTP/1.1 {status} Sorry", *fields, "Content-Length: 0", "", ""])

    async def answer(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(head.encode())
        await stream.aclose()

    return answer


def refusing() -> Server:
    return ConnectionRefusedError(111, "Connection refused")


def in_turn(*servers: Server) -> Server:
    """Each connection gets the next of these servers, and the last one all that follow."""
    waiting = [*servers]

    async def serve(stream: trio.abc.Stream) -> None:
        server = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if server is None:
            await trio.sleep_forever()
        assert callable(server)
        await server(stream)

    return serve
