"""Raw peers and real sockets for the suite; what other suites also need is `trio_ws.testing`."""

from __future__ import annotations

import base64
import os
import socket
import struct
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, cast

import pytest
import trio
import trio.testing

import trio_ws
import trio_ws.testing
from trio_ws import WebSocket
from trio_ws._handshake.both_sides import accept_value
from trio_ws._nursery import open_bare_nursery
from trio_ws._protocol.events import Close, Fragment, Ping, Pong, Violation
from trio_ws._protocol.wire import Wire
from trio_ws._waking import LOOKOUT, Lookout
from trio_ws.testing import open_test_server

HOST = "127.0.0.1"
URL = "ws://example.org/chat"

KEY = base64.b64encode(b"0123456789abcdef").decode()
REQUEST = (
    "GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()

#: How many seconds anything may take on the real clock before it counts as hanging.
PATIENCE = 60.0

#: The same for what must not wait until `open_timeout` or `close_timeout`, which are 10 by default.
AT_ONCE = 9.0

Options = dict[str, Any]
StreamPair = tuple[trio.abc.Stream, trio.abc.Stream]


#: An event of `Wire.receive`, or a message of those that came together.
Decoded = str | bytes | Fragment | Ping | Pong | Close | Violation


def decode(wire: Wire, *pieces: bytes) -> list[Decoded]:
    """The events of a wire for bytes in these pieces, with messages one by one."""
    result: list[Decoded] = []
    for piece in pieces:
        for event in wire.receive(piece):
            if isinstance(event, list):
                result += event
            else:
                result.append(event)
    return result


# ---------------------------------------------------------------------------
# Streams
# ---------------------------------------------------------------------------


def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a kernel socket, without a port."""
    one, other = trio.socket.socketpair()
    return trio.SocketStream(one), trio.SocketStream(other)


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """A TCP connection over the loopback interface: client's end, server's end."""
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    async with listener:
        client = await trio.open_tcp_stream(*listener.socket.getsockname())
        return client, await listener.accept()


def fail_accepting(monkeypatch: pytest.MonkeyPatch) -> list[OSError]:
    """A list to fill with errors: `socket.accept` raises them in order, and then accepts again."""
    errors: list[OSError] = []

    class Listening(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            if errors:
                raise errors.pop(0)
            return super().accept()

    monkeypatch.setattr(socket, "socket", Listening)
    return errors


def reset(stream: trio.SocketStream) -> None:
    """Close so that the other end sees a TCP reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


# ---------------------------------------------------------------------------
# Pairs of WebSockets
# ---------------------------------------------------------------------------


def open_pair(
    *,
    client: Options | None = None,
    server: Options | None = None,
    streams: StreamPair | None = None,
) -> AbstractAsyncContextManager[tuple[WebSocket, WebSocket]]:
    """`trio_ws.testing.open_pair`, with options that are written as dictionaries."""
    return trio_ws.testing.open_pair(
        URL,
        client_options=cast("Any", client),
        server_options=cast("Any", server),
        streams=streams,
    )


class RawPeer:
    """The other end of a connection, speaking bytes: what it sends may be as wrong as it likes."""

    def __init__(self, stream: trio.abc.Stream, *, masks: bool) -> None:
        self.stream = stream
        self.masks = masks
        self.received = bytearray()

    async def send(self, *frames: bytes) -> None:
        await self.stream.send_all(b"".join(frames))

    async def send_frame(self, opcode: int, payload: bytes = b"", **how: Any) -> None:
        await self.send(frame(opcode, payload, **{"mask": self.masks, **how}))

    async def send_close(self, code: int | None, reason: str = "") -> None:
        await self.send(close_frame(code, reason, mask=self.masks))

    async def receive_frame(self) -> tuple[int, bytes] | None:
        """The first byte and the payload of the next frame; `None` at the end of file."""
        while (parsed := parse_frame(self.received)) is None:
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                data = b""
            if not data:
                return None
            self.received += data
        first, payload, size = parsed
        del self.received[:size]
        return first, payload

    async def receive_close(self) -> int | None:
        """Skip to the Close frame and give its code; `None` if it has none."""
        while (received := await self.receive_frame()) is not None:
            if received[0] == FIN | CLOSE:
                return close_code(received[1])
        raise AssertionError("no Close frame came")

    async def receive_all_frames(self) -> list[tuple[int, bytes]]:
        frames = []
        while (received := await self.receive_frame()) is not None:
            frames.append(received)
        return frames


@asynccontextmanager
async def open_server_with_raw_client(
    *, streams: StreamPair | None = None, **options: Any
) -> AsyncGenerator[tuple[WebSocket, RawPeer], None]:
    """Our server's end of a connection, and a raw client that has shaken hands."""
    client_stream, server_stream = streams or trio.testing.memory_stream_pair()
    await client_stream.send_all(REQUEST)
    try:
        async with trio_ws.wrap_server_stream(server_stream, **options) as websocket:
            peer = RawPeer(client_stream, masks=True)
            await receive_head(peer)
            yield websocket, peer
    finally:
        await hang_up(client_stream)


@asynccontextmanager
async def open_client_with_raw_server(
    *, streams: StreamPair | None = None, **options: Any
) -> AsyncGenerator[tuple[WebSocket, RawPeer], None]:
    """Our client's end of a connection, and a raw server that has shaken hands."""
    client_stream, server_stream = streams or trio.testing.memory_stream_pair()
    peer = RawPeer(server_stream, masks=False)
    async with open_bare_nursery() as nursery:
        shaken = trio.Event()
        nursery.start_soon(shake_hands_as_server, peer, shaken)
        try:
            async with trio_ws.wrap_client_stream(client_stream, URL, **options) as websocket:
                await shaken.wait()
                yield websocket, peer
        finally:
            await hang_up(server_stream)


async def hang_up(stream: trio.abc.AsyncResource) -> None:
    """Close it, and let the exception go on that ends the block, be it a cancellation.

    One more `trio.Cancelled` would come in its place. Since Python 3.12, `contextlib` then makes a
    cycle, which tests that look for cycles would take for one of ours.
    """
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)


async def shake_hands_as_server(peer: RawPeer, shaken: trio.Event) -> None:
    head = await receive_head(peer)
    key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0].decode()
    response = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_value(key)}\r\n\r\n"
    )
    await peer.send(response.encode())
    shaken.set()


async def receive_head(peer: RawPeer) -> bytes:
    while b"\r\n\r\n" not in peer.received:
        data = await peer.stream.receive_some()
        assert data, "the stream ended in the head"
        peer.received += data
    head, _, rest = bytes(peer.received).partition(b"\r\n\r\n")
    peer.received = bytearray(rest)
    return head


def open_server(
    handler: Callable[[WebSocket], Awaitable[object]], **options: Any
) -> AbstractAsyncContextManager[trio_ws.WebSocketServer]:
    """A server on a free port that treats its handlers' errors as in production."""
    return open_test_server(handler, **{"on_handler_error": "log", **options})


async def forever() -> None:
    """`trio.sleep_forever`, without telling type checkers that nothing comes after it."""
    await trio.sleep_forever()


async def echo(websocket: WebSocket) -> None:
    async for message in websocket:
        await websocket.send(message)


# ---------------------------------------------------------------------------
# Time
# ---------------------------------------------------------------------------


class Laptop:
    """A computer that sleeps when a test says so, for all of this run of trio.

    Make it before anything else: the clocks are compared from the first connection on.
    """

    def __init__(self) -> None:
        self.slept = 0.0
        LOOKOUT.set(Lookout(lambda: self.slept))

    def sleep(self, seconds: float) -> None:
        """Close the lid, and open it again so much later. trio's clock stands still meanwhile."""
        self.slept += seconds


async def least_cpu_seconds(run: Callable[[], Awaitable[object]]) -> float:
    """What `run` takes of the processor at best: others on the machine do not count, nor does a
    garbage collection in between, nor a tracer, which multiplies the time that it measures.
    """
    taken: list[float] = []
    with untraced():
        for _ in range(5):
            started = time.thread_time()
            await run()
            taken.append(time.thread_time() - started)
    return min(taken)


async def wait_for_a_turn(
    run: Callable[[], Awaitable[object]], prepare: Callable[[], None] = lambda: None
) -> float:
    """The longest that other tasks wait for their turn while `run` runs: the median of five tries.

    It is measured as `least_cpu_seconds` is, but for what `prepare` does before each try. A wait
    has its worst moments, so that the best of them would say little.
    """
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()
            await trio.lowlevel.checkpoint()
            longest = max(longest, time.thread_time() - before)

    waits: list[float] = []
    with untraced():
        for _ in range(5):
            prepare()
            longest = 0.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                await run()
                nursery.cancel_scope.cancel()
            waits.append(longest)
    return sorted(waits)[2]


@contextmanager
def untraced() -> Iterator[None]:
    """Without the tracer of coverage, or of a debugger."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


# ---------------------------------------------------------------------------
# Frames
# ---------------------------------------------------------------------------

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA
FIN = 0x80


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True
) -> bytes:
    """One frame, right or wrong, as a client (masked) or a server sends it."""
    first = (FIN if fin else 0) | rsv << 4 | opcode
    second = 0x80 if mask else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, second | len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, second | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, second | 127, len(payload))
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + xor(payload, key)


def close_frame(code: int | None, reason: str = "", *, mask: bool = True) -> bytes:
    payload = b"" if code is None else struct.pack("!H", code) + reason.encode()
    return frame(CLOSE, payload, mask=mask)


def close_code(payload: bytes) -> int | None:
    """The code in a Close frame's payload; `None` if it is empty."""
    return struct.unpack("!H", payload[:2])[0] if payload else None


def parse_frame(data: bytes | bytearray) -> tuple[int, bytes, int] | None:
    """First byte, payload and size of the frame at the start of `data`, if it is whole."""
    if len(data) < 2:
        return None
    first, second = data[0], data[1]
    length, offset = second & 0x7F, 2
    if length >= 126:
        wide = 2 if length == 126 else 8
        if len(data) < offset + wide:
            return None
        length, offset = int.from_bytes(data[2 : 2 + wide], "big"), offset + wide
    key_size = 4 if second & 0x80 else 0
    if len(data) < offset + key_size + length:
        return None
    key = bytes(data[offset : offset + key_size]) or bytes(4)
    start = offset + key_size
    return first, xor(bytes(data[start : start + length]), key), start + length


def xor(payload: bytes, key: bytes) -> bytes:
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return number.to_bytes(len(payload), "big")


# ---------------------------------------------------------------------------
# The machine
# ---------------------------------------------------------------------------


def free_port() -> int:
    """A port that nobody listens on, for a program that cannot pick one by itself."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


async def kill(process: trio.Process) -> None:
    """End a process if it still runs, and close its pipes. Cannot be cancelled."""
    with trio.CancelScope(shield=True):
        if process.returncode is None:
            process.kill()
            await process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                await pipe.aclose()


class Turns:
    """How many turns of the scheduler a task had, see `counting_turns`."""

    count = 0


@asynccontextmanager
async def counting_turns() -> AsyncGenerator[Turns, None]:
    """Count how often another task gets to run during the block."""
    turns = Turns()

    async def count() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            turns.count += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        yield turns
        nursery.cancel_scope.cancel()
