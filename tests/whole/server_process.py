"""A server in a process of its own, seen from outside, and attacks on it.

Its memory and CPU time are the system's word and not ours, and another connection goes on echoing.
With TRIO_WS_SOAK=1 in the environment, the sizes are the full ones.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from tests.helpers import CLOSE, FIN, HOST, PATIENCE, REQUEST, RawPeer, close_code, receive_head
from trio_ws import open_websocket_url

ROOT = Path(__file__).parents[2]

SOAK = os.environ.get("TRIO_WS_SOAK") == "1"

MIB = 2**20
FLAT = 4 * MIB
LATENCY = 0.05
CLOSE_TIMEOUT = 1.0

#: A deadline may be exceeded by so many seconds on a busy machine.
SLACK = 8.0

#: As a reserved bit: this frame begins a compressed message.
COMPRESSED = 4

SERVER = """
import json, os, resource, ssl, sys, threading, time
from dataclasses import asdict
import trio, trio_ws

settings = json.loads(sys.argv[1])
descriptors = settings.pop("descriptors", None)
if descriptors:
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

certificate = settings.pop("certificate", None)
if certificate:
    settings["ssl_context"] = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    settings["ssl_context"].load_cert_chain(certificate)

counted = []


def end_with_parent():
    os.read(0, 1)
    os._exit(1)


threading.Thread(target=end_with_parent, daemon=True).start()


async def never_receive(ws):
    await trio.sleep_forever()


async def count(ws):
    count = 0
    try:
        async for message in ws:
            count += 1
    finally:
        counted.append(count)


async def tell_counts(ws):
    while any(other.request.path == "/count" for other in server.connections):
        await trio.sleep(0.001)
    await ws.send_json(counted)


async def tell_time(ws):
    async for message in ws:
        await ws.send(str(time.process_time()))


async def tell_statistics(ws):
    await ws.send_json({
        other.request.path: asdict(other.statistics()) for other in server.connections
    })


async def echo(ws):
    async for message in ws:
        await ws.send(message)


HANDLERS = {
    "/never": never_receive,
    "/count": count,
    "/counted": tell_counts,
    "/clock": tell_time,
    "/statistics": tell_statistics,
}


async def handler(ws):
    await HANDLERS.get(ws.request.path, echo)(ws)


async def main():
    global server
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: trio_ws.serve_websocket(
                handler, "127.0.0.1", 0, task_status=task_status, **settings
            )
        )
        print(server.port, flush=True)

try:
    trio.run(main, strict_exception_groups=False)
except KeyboardInterrupt:
    pass
"""


class Server:
    """A server in a separate process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"ws://{HOST}:{port}"
        clock = ctypes.c_int()
        assert ctypes.CDLL(None).clock_getcpuclockid(process.pid, ctypes.byref(clock)) == 0
        self._clock = clock.value

    async def connect(
        self, path: str = "/", *, headers: str = "", receive_buffer: int | None = None
    ) -> RawPeer:
        """A raw client that has shaken hands."""
        stream = trio.SocketStream(trio.socket.socket())
        if receive_buffer is not None:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await stream.socket.connect((HOST, self.port))
        peer = RawPeer(stream, masks=True)
        request = REQUEST.replace(b"/chat", path.encode())
        await peer.send(request.replace(b"\r\n\r\n", f"\r\n{headers}\r\n".encode()))
        assert await receive_status(peer) == 101
        return peer

    async def connect_compressing(self) -> RawPeer:
        return await self.connect(headers="Sec-WebSocket-Extensions: permessage-deflate\r\n")

    async def statistics(self, path: str) -> dict[str, Any]:
        """Those of the connection that asked for `path`."""
        async with open_websocket_url(f"{self.url}/statistics") as ws:
            result: dict[str, Any] = json.loads(await ws.receive())[path]
            return result

    def memory(self, what: str = "VmRSS") -> int:
        """Resident memory in bytes: now, or with "VmHWM" the peak since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        found = re.search(rf"^{what}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", "ascii")

    def sockets(self) -> int:
        count = 0
        for name in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it was closed just now
                count += "socket" in os.readlink(name)
        return count

    def cpu_time(self) -> float:
        """Seconds of CPU time so far: its `time.process_time`."""
        return time.clock_gettime(self._clock)


@contextmanager
def server_process(program: str = SERVER, /, **settings: Any) -> Iterator[Server]:
    # The server runs as users run it, without a tracer, which takes time and memory.
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    settings = {"close_timeout": CLOSE_TIMEOUT, "grace_period": 0.3, **settings}
    with subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        try:
            yield Server(process, int(process.stdout.readline()))
        finally:
            process.kill()


@asynccontextmanager
async def flat_and_others_unharmed(server: Server) -> AsyncGenerator[None, None]:
    """Check that the block costs the server little memory and others little time."""
    latencies: list[float] = []

    async def be_another() -> None:
        async with open_websocket_url(f"{server.url}/clock") as ws:
            while True:
                start = server.cpu_time()
                await ws.send("x" * 100)
                latencies.append(float(await ws.receive()) - start)
                await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_another)
        while len(latencies) < 50:
            await trio.sleep(0.001)
        latencies.clear()
        server.forget_peak()
        before = server.memory()
        yield
        grown = server.memory("VmHWM") - before
        nursery.cancel_scope.cancel()
    worst = sorted(latencies)[-3:]
    report(grown=f"{grown / MIB:.2f} MiB", worst=[f"{latency * 1000:.1f} ms" for latency in worst])
    assert grown < FLAT
    assert worst[0] < LATENCY


def report(**figures: object) -> None:
    """Print the measurements: `pytest -rP` shows them."""
    sys.stdout.write(", ".join(f"{name} {value}" for name, value in figures.items()) + "\n")


@dataclass
class Outcome:
    """How the server treated an attacker.

    Attributes:
        frames: the frames that it sent.
        gone: after how many seconds it hung up.
        bytes_sent: how many bytes it took until then.
    """

    frames: list[tuple[int, bytes]]
    gone: float
    bytes_sent: int

    @property
    def codes(self) -> list[int | None]:
        assert all(first == FIN | CLOSE for first, _ in self.frames)
        return [close_code(payload) for _, payload in self.frames]


async def attack(peer: RawPeer, data: bytes, *, and_on: bytes = b"") -> Outcome:
    """Send `data`, and then `and_on` again and again until the server will not have it."""
    start = time.perf_counter()
    outcome = Outcome([], 0.0, 0)

    async def pour() -> None:
        with suppress(trio.BrokenResourceError):
            await peer.send(data)
            outcome.bytes_sent = len(data)
            while and_on:
                await peer.send(and_on)
                outcome.bytes_sent += len(and_on)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour)
            while (received := await peer.receive_frame()) is not None:
                outcome.frames.append(received)
    outcome.gone = time.perf_counter() - start
    await peer.stream.aclose()
    return outcome


async def receive_status(peer: RawPeer) -> int:
    return int((await receive_head(peer)).split(b" ")[1])


def median(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]
