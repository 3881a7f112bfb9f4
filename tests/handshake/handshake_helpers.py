"""Raw peers for the opening handshake: bytes in, bytes out, and servers that live in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import trio
import trio.testing

from tests.helpers import echo
from trio_ws import (
    Headers,
    Request,
    Router,
    WebSocket,
    WebSocketServer,
    serve_listeners,
    wrap_client_stream,
)
from trio_ws._handshake.both_sides import accept_value
from trio_ws.testing import MemoryListener

#: The example of RFC 6455 section 1.3, with the answer that it has there.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

FIELDS = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}

#: The answer of a server, for `scripted_server` to complete.
ACCEPTING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: {accept}\r\n\r\n"
)


def request(line: str = "GET / HTTP/1.1", *extra: tuple[str, str], **changes: str | None) -> bytes:
    """An opening request: the right one, with fields changed, left out (`None`) or added.

    ``Sec_WebSocket_Key="x"`` changes the field Sec-WebSocket-Key. Text goes out as Latin-1.
    """
    fields: dict[str, str | None] = dict(FIELDS)
    fields.update({name.replace("_", "-"): value for name, value in changes.items()})
    pairs = [(name, value) for name, value in fields.items() if value is not None]
    lines = [line, *(f"{name}: {value}" for name, value in [*pairs, *extra]), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def plain_request(line: str = "GET / HTTP/1.1", *extra: tuple[str, str]) -> bytes:
    """A request of a browser or a health check that wants no WebSocket."""
    return request(
        line,
        *extra,
        Upgrade=None,
        Connection=None,
        Sec_WebSocket_Key=None,
        Sec_WebSocket_Version=None,
    )


@dataclass(frozen=True)
class RawResponse:
    """A response as it came, taken apart by hand."""

    status: int
    phrase: str
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def parse_response(data: bytes) -> RawResponse:
    head, _, body = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, status, phrase = status_line.split(" ", 2)
    assert version == "HTTP/1.1"
    headers = Headers([(name, value.strip()) for name, _, value in map(_partition, lines)])
    return RawResponse(int(status), phrase, headers, body)


def _partition(line: str) -> tuple[str, str, str]:
    return line.partition(":")


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything up to the end of file, which includes a reset."""
    data = b""
    try:
        async for piece in stream:
            data += piece
    except trio.BrokenResourceError:
        pass
    return data


async def read_head(stream: trio.abc.ReceiveStream) -> bytes:
    """One head, and nothing after it: byte by byte."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        byte = await stream.receive_some(1)
        if not byte:
            break
        data += byte
    return data


# ---------------------------------------------------------------------------
# Servers in memory
# ---------------------------------------------------------------------------


@dataclass(frozen=True)
class MemoryServer:
    """A running server and the way to it."""

    server: WebSocketServer
    connect: Callable[[], trio.StapledStream[Any, Any]]

    async def answer(self, *pieces: bytes) -> RawResponse:
        """Send these bytes, and read the answer until the server hangs up."""
        async with self.connect() as stream:
            for piece in pieces:
                await stream.send_all(piece)
            response = parse_response(await read_all(stream))
        await trio.testing.wait_all_tasks_blocked()  # until the server has noticed
        return response

    async def serves(self) -> bool:
        """Whether another client is served as if nothing had happened."""
        url = "ws://example.org/"
        async with wrap_client_stream(self.connect(), url) as websocket:
            await websocket.send("still there?")
            return await websocket.receive() == "still there?"


@asynccontextmanager
async def memory_server(
    handler: Callable[[WebSocket], Awaitable[object]] = echo, **options: Any
) -> AsyncGenerator[MemoryServer, None]:
    """Run a server in memory. A server that fails, fails the test."""
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        start = cast("Callable[..., Awaitable[None]]", serve_listeners)

        async def serve(*, task_status: trio.TaskStatus[WebSocketServer]) -> None:
            await start(handler, [listener], task_status=task_status, **options)

        server: WebSocketServer = await nursery.start(serve)
        yield MemoryServer(server, listener.connect)
        await server.aclose()


# ---------------------------------------------------------------------------
# Servers that follow a script
# ---------------------------------------------------------------------------


async def follow_script(
    stream: trio.abc.Stream, response: bytes | Iterable[bytes], *, hang_up: bool = False
) -> bytes:
    """Read a request, answer it, and wait until the client hangs up. Gives the request.

    ``{accept}`` in the response is what the request's key asks for.
    """
    head = await read_head(stream)
    key = request_fields(head).get("Sec-WebSocket-Key", "")
    pieces = [response] if isinstance(response, bytes) else response
    try:
        for piece in pieces:
            await stream.send_all(piece.replace(b"{accept}", accept_value(key).encode()))
        if not hang_up:
            await read_all(stream)
    except trio.BrokenResourceError:
        pass
    await stream.aclose()
    return head


def request_fields(head: bytes) -> Headers:
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    return Headers([(name, value.strip()) for name, _, value in map(_partition, lines)])


@asynccontextmanager
async def scripted_server(
    response: bytes | Iterable[bytes], *, hang_up: bool = False
) -> AsyncGenerator[trio.StapledStream[Any, Any], None]:
    """The client's end of a stream whose other end follows a script."""
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await follow_script(server, response, hang_up=hang_up)

        nursery.start_soon(serve)
        yield client
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def scripted_tcp_server(
    respond: Callable[[bytes], bytes],
) -> AsyncGenerator[tuple[int, list[bytes]], None]:
    """A TCP server on a free port of the loopback; gives the port and the requests so far."""
    requests: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        head = await read_head(stream)
        requests.append(head)
        accept = accept_value(request_fields(head).get("Sec-WebSocket-Key", "")).encode()
        await stream.send_all(respond(head).replace(b"{accept}", accept))
        await read_all(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(_serve_tcp, serve)
        yield listeners[0].socket.getsockname()[1], requests
        nursery.cancel_scope.cancel()


async def _serve_tcp(
    handler: Callable[[trio.SocketStream], Awaitable[object]],
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]],
) -> None:
    await trio.serve_tcp(handler, 0, host="127.0.0.1", task_status=task_status)


# ---------------------------------------------------------------------------
# Streams with a will of their own
# ---------------------------------------------------------------------------


class HookedStream(trio.abc.HalfCloseableStream):
    """A stream that calls `hook` with a running number before each operation but closing."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, hook: Callable[[int], None]) -> None:
        self._stream = stream
        self._hook = hook
        self.operations = 0
        self.closed = False

    def _next(self) -> None:
        self.operations += 1
        self._hook(self.operations)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._next()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        self._next()
        await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self._next()
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.closed = True
        await self._stream.aclose()


def site() -> Router:
    router = Router()

    @router.get("/")
    def index(request: Request) -> dict[str, object]:
        return {"address": request.remote_address, "scheme": request.scheme}

    @router.get("/health")
    def health(request: Request) -> str:
        return "OK"

    @router.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.send_json([websocket.remote_address, websocket.request.scheme])
        async for message in websocket:
            await websocket.send(message)

    return router
