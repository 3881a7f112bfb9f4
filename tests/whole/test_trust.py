"""Bad input, faults and load, measured from outside: the rows of docs/trust.md that need it.

Most rows are held by the tests of the module in question; docs/trust.md says which, and a test here
says that they exist. What is here needs the kernel: a server in a process of its own, whose memory
and CPU time are the system's word and not ours, and another connection that goes on echoing.

"Flat" is the peak of the server's resident memory, less what it was before: under 4 MiB. "Others"
wait for an echo while the server works for less than 50 ms, by the server's CPU clock: a busy
machine stops any process for longer. The two worst are left out, since this process may be stopped
between looking at that clock and sending. What harms others does so more than twice.

With TRIO_WS_SOAK=1 in the environment, the sizes are the full ones.
"""

from __future__ import annotations

import ast
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_ws
from tests.conftest import open_descriptors
from tests.helpers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    HOST,
    PATIENCE,
    PING,
    PONG,
    REQUEST,
    TEXT,
    RawPeer,
    close_code,
    close_frame,
    echo,
    frame,
    open_server,
    open_server_with_raw_client,
    tcp_pair,
)
from tests.whole.test_sweeps import converse
from trio_ws import open_websocket_url
from trio_ws._transport.sockets import LARGE_RECEIVE_SIZE

ROOT = Path(__file__).parents[2]

SOAK = os.environ.get("TRIO_WS_SOAK") == "1"

MIB = 2**20
FLAT = 4 * MIB
LATENCY = 0.05
CLOSE_TIMEOUT = 1.0

#: What is to be over after so many seconds may take so much longer on a busy machine.
SLACK = 5.0

#: As a reserved bit: this frame begins a compressed message.
COMPRESSED = 4


# ---------------------------------------------------------------------------
# A server, seen from outside
# ---------------------------------------------------------------------------

SERVER = """
import json, os, resource, sys, threading, time
from dataclasses import asdict
import trio, trio_ws

settings = json.loads(sys.argv[1])
descriptors = settings.pop("descriptors", None)
if descriptors:
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

counted = []


def end_with_parent():
    os.read(0, 1)
    os._exit(1)


threading.Thread(target=end_with_parent, daemon=True).start()


async def handler(ws):
    path = ws.request.path
    if path == "/never":
        await trio.sleep_forever()
    elif path == "/count":
        count = 0
        try:
            async for message in ws:
                count += 1
        finally:
            counted.append(count)
    elif path == "/counted":
        while any(other.request.path == "/count" for other in server.connections):
            await trio.sleep(0.001)
        await ws.send_json(counted)
    elif path == "/clock":
        async for message in ws:
            await ws.send(str(time.process_time()))
    elif path == "/statistics":
        await ws.send_json({
            other.request.path: asdict(other.statistics()) for other in server.connections
        })
    else:
        async for message in ws:
            await ws.send(message)


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
    """A server in a process of its own."""

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
        descriptors = Path(f"/proc/{self.process.pid}/fd")
        return sum("socket" in os.readlink(name) for name in descriptors.iterdir())

    def cpu_time(self) -> float:
        """Seconds of CPU time so far: its `time.process_time`."""
        return time.clock_gettime(self._clock)


@contextmanager
def server_process(program: str = SERVER, /, **settings: Any) -> Iterator[Server]:
    # Measured is what users get: without a tracer, which takes time and memory of its own.
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


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with server_process() as running:
        yield running


@asynccontextmanager
async def flat_and_others_unharmed(server: Server) -> AsyncGenerator[None, None]:
    """What happens in the block costs the server little memory and the others little time."""
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
    """What was measured: `pytest -rP` shows it."""
    sys.stdout.write(", ".join(f"{name} {value}" for name, value in figures.items()) + "\n")


@dataclass
class Outcome:
    """What the server did to an attacker.

    Attributes:
        frames: what it sent.
        gone: after how many seconds it hung up.
        bytes_sent: how much it took until then.
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
    while b"\r\n\r\n" not in peer.received:
        received = await peer.stream.receive_some()
        assert received, "the server hung up"
        peer.received += received
    head, _, rest = bytes(peer.received).partition(b"\r\n\r\n")
    peer.received = bytearray(rest)
    return int(head.split(b" ")[1])


def median(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]


# ---------------------------------------------------------------------------
# Messages
# ---------------------------------------------------------------------------


def gigabyte() -> bytes:
    """DEFLATE data of 1 MiB that inflates to 1 GiB: blocks that refer to nothing before them."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(MIB)) + compressor.flush(zlib.Z_FULL_FLUSH)
    data = block * 1024
    assert MIB * 0.9 < len(data) < MIB * 1.1
    return data


def fragments(opcode: int, data: bytes, size: int, *, rsv: int = 0) -> bytes:
    """The frames of a message in pieces of `size`."""
    frames = [frame(opcode, data[:size], fin=False, rsv=rsv)]
    for start in range(size, len(data), size):
        frames.append(frame(CONTINUATION, data[start : start + size], fin=False))
    return b"".join(frames) + frame(CONTINUATION)


@pytest.mark.parametrize("count", [1, 300])
async def test_a_mebibyte_that_inflates_to_a_gigabyte_is_1009_at_once(
    server: Server, count: int
) -> None:
    data = gigabyte()
    if count == 1:
        # The header must not be what gives it away: its length is within the limit.
        data = data[: MIB - 2]
        bomb = frame(BINARY, data, rsv=COMPRESSED)
    else:
        bomb = fragments(BINARY, data, len(data) // count + 1, rsv=COMPRESSED)
    await attack(await server.connect_compressing(), bomb)
    times: list[float] = []
    async with flat_and_others_unharmed(server):
        for _ in range(9):
            peer = await server.connect_compressing()
            before = server.cpu_time()
            outcome = await attack(peer, bomb)
            times.append(server.cpu_time() - before)
            assert outcome.codes == [1009]
    report(median=f"{median(times) * 1000:.1f} ms")
    assert median(times) < 0.1  # the others' echoes included


async def test_junk_after_the_end_of_compressed_data_is_closed_and_flat(server: Server) -> None:
    compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
    data = compressor.compress(b"Hello") + compressor.flush(zlib.Z_FINISH) + b"\xff" * 20 * MIB
    whole = frame(BINARY, data, rsv=COMPRESSED)
    pieces = fragments(BINARY, data, 65536, rsv=COMPRESSED)
    await attack(await server.connect_compressing(), pieces)
    async with flat_and_others_unharmed(server):
        for junk in (whole, pieces) * 3:
            outcome = await attack(await server.connect_compressing(), junk)
            assert outcome.codes == [1007]


@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "1 byte"])
async def test_a_million_tiny_fragments_are_1009_and_flat(server: Server, payload: bytes) -> None:
    start = frame(TEXT, payload, fin=False)
    flood = frame(CONTINUATION, payload, fin=False) * 1_000_000
    async with flat_and_others_unharmed(server):
        for _ in range(3):
            outcome = await attack(await server.connect(), start + flood)
            assert outcome.codes == [1009]


@pytest.mark.autojump
@pytest.mark.parametrize("payload", [b"", b"x", "😀".encode()[:1]], ids=["empty", "1 byte", "½"])
async def test_tiny_fragments_take_linear_time(payload: bytes) -> None:
    """Without a limit, so that there is something to count: four times as many, four times as long.

    Timed is the CPU, not the clock, and the better of two where they are few.
    """
    small, large = (250_000, 1_000_000) if SOAK else (5_000, 20_000)

    async def cpu_time(count: int) -> float:
        options: dict[str, Any] = {"max_message_size": inf, "max_queued_bytes": inf}
        async with open_server_with_raw_client(**options) as (ws, peer):
            before = time.process_time()
            # Each of the third kind completes a character and begins another.
            tiny = payload if payload in (b"", b"x") else "😀".encode()[1:] + payload
            await peer.send(
                frame(TEXT, payload, fin=False), frame(CONTINUATION, tiny, fin=False) * count
            )
            await peer.send(frame(CONTINUATION, tiny[:3] if payload not in (b"", b"x") else b""))
            assert len(await ws.receive()) == len(payload) + count * (payload != b"")
            spent = time.process_time() - before
            await peer.send_close(1000)
        return spent

    times = {
        count: min([await cpu_time(count) for _ in range(1 if SOAK else 2)])
        for count in (small, large)
    }
    report(times=times)
    assert times[large] < 8 * times[small]


async def test_text_that_is_always_in_the_middle_of_a_character_is_refused_and_flat(
    server: Server,
) -> None:
    text = "😀".encode() * (10 * MIB // 4)
    torn = fragments(TEXT, text, 1001)
    dangling = frame(TEXT, b"\xf0\x9f\x98", fin=False) + frame(CONTINUATION, b"", fin=False) * MIB
    nonsense = fragments(TEXT, b"\xf0\x9f\x98" * (10 * MIB // 3), 1001)
    async with flat_and_others_unharmed(server):
        for data, code in ((torn, 1009), (dangling, 1009), (nonsense, 1007)) * 3:
            outcome = await attack(await server.connect(), data)
            assert outcome.codes == [code]


async def pour_until_blocked(peer: RawPeer, data: bytes) -> int:
    """How many bytes of `data` went out before nothing moved for half a second."""
    sent = 0
    for start in range(0, len(data), 65536):
        with trio.move_on_after(0.5):
            await peer.send(data[start : start + 65536])
            sent += 65536
            continue
        break
    return sent


async def test_a_handler_that_never_reads_makes_a_million_tiny_messages_wait(
    server: Server,
) -> None:
    flood = frame(TEXT, b"x") * 1_000_000
    async with flat_and_others_unharmed(server):
        peer = await server.connect("/never")
        await pour_until_blocked(peer, flood)
        statistics = await server.statistics("/never")
        await peer.stream.aclose()
    # 1024 wait, and nothing behind them was looked at.
    assert statistics["queued_messages"] == statistics["messages_received"] == 1024


async def test_a_handler_that_never_reads_makes_200_mib_of_large_messages_wait(
    server: Server,
) -> None:
    flood = frame(BINARY, bytes(MIB - 100)) * 200
    async with flat_and_others_unharmed(server):
        peer = await server.connect("/never")
        sent = await pour_until_blocked(peer, flood)
        statistics = await server.statistics("/never")
        await peer.stream.aclose()
    report(sent=f"{sent / MIB:.1f} MiB")
    assert sent < 50 * MIB  # what the kernel holds, and the queue
    assert statistics["queued_bytes"] < 256 * 1024 + LARGE_RECEIVE_SIZE + 65536


PINGS = 200_000 if SOAK else 40_000


@pytest.mark.parametrize("reads", [True, False], ids=["pongs read", "pongs not read"])
async def test_a_flood_of_pings_is_flat_and_others_are_unharmed(
    server: Server, reads: bool
) -> None:
    flood = frame(PING, b"x" * 125) * PINGS + frame(TEXT, b"done")
    pongs = 0

    async def read_pongs() -> None:
        nonlocal pongs
        while (received := await peer.stream.receive_some()) and not received.endswith(b"done"):
            pongs += len(received) // 127

    async with flat_and_others_unharmed(server):
        peer = await server.connect("/flood", receive_buffer=None if reads else 4096)
        async with trio.open_nursery() as nursery:
            if reads:
                nursery.start_soon(read_pongs)
            await peer.send(flood)
        while not (statistics := await server.statistics("/flood"))["messages_received"]:
            await trio.sleep(0.01)
        await peer.stream.aclose()
    report(pongs=pongs, unsent=statistics["unsent_bytes"])
    if reads:
        assert pongs > PINGS / 2
    else:
        assert 0 < statistics["unsent_bytes"] <= 64 * 1024 + 127  # `max_send_buffer` and a pong


async def test_pongs_that_nobody_asked_for_are_ignored(server: Server) -> None:
    flood = frame(PONG, b"x" * 125) * PINGS + frame(TEXT, b"still here")
    async with flat_and_others_unharmed(server):
        peer = await server.connect()
        await peer.send(flood)
        assert await peer.receive_frame() == (FIN | TEXT, b"still here")
        await peer.stream.aclose()


@pytest.mark.parametrize("junk", [b"\xff", frame(TEXT, b"x")], ids=["junk", "messages"])
@pytest.mark.parametrize(
    ("end", "code"),
    [(close_frame(1000), 1000), (frame(0x3), 1002), (frame(TEXT, b"\xff"), 1007)],
    ids=["Close", "violation", "bad text"],
)
async def test_whatever_follows_the_end_gets_one_close_frame_and_is_flat(
    server: Server, end: bytes, code: int, junk: bytes
) -> None:
    megabyte = junk * (MIB // len(junk))
    flood = end + megabyte * 100
    async with flat_and_others_unharmed(server):
        outcome = await attack(await server.connect(), flood, and_on=megabyte)
    report(sent=f"{outcome.bytes_sent / MIB:.0f} MiB", gone=f"{outcome.gone:.2f} s")
    assert outcome.codes == [code]
    assert outcome.gone < CLOSE_TIMEOUT + SLACK


@contextmanager
def busy_machine() -> Iterator[None]:
    """Every core has something better to do."""
    burners = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


async def test_what_comes_in_one_segment_is_answered_every_time_on_a_busy_machine(
    server: Server,
) -> None:
    messages = b"".join(frame(TEXT, str(number).encode()) for number in range(1000))
    rounds = 50 if SOAK else 5

    async def open_with(path: bytes, data: bytes) -> RawPeer:
        peer = RawPeer(await trio.open_tcp_stream(HOST, server.port), masks=True)
        await peer.send(REQUEST.replace(b"/chat", path) + data)
        assert await receive_status(peer) == 101
        return peer

    with busy_machine():
        for _ in range(rounds):
            for before in (b"", messages):
                for end, code in ((close_frame(1000), 1000), (frame(0x3), 1002)):
                    peer = await open_with(b"/count", before + end)
                    assert await peer.receive_all_frames() == [
                        (FIN | CLOSE, code.to_bytes(2, "big") + reason)
                        for reason in [b"" if code == 1000 else b"Invalid opcode 0x3"]
                    ]
                    await peer.stream.aclose()
            peer = await open_with(b"/echo", messages)
            for number in range(1000):
                assert await peer.receive_frame() == (FIN | TEXT, str(number).encode())
            await peer.send_close(1000)
            assert await peer.receive_close() == 1000
            await peer.stream.aclose()
        async with open_websocket_url(f"{server.url}/counted") as ws:
            assert sorted(await ws.receive_json()) == [0] * 2 * rounds + [1000] * 2 * rounds


# ---------------------------------------------------------------------------
# Opening handshake
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"X: " + b"x" * 1000 + b"\r\n", b"x"], ids=["fields", "one"])
async def test_endless_headers_are_431_cut_off_and_flat(server: Server, line: bytes) -> None:
    flood = REQUEST[:-2] + line * (64 * MIB // len(line))
    async with flat_and_others_unharmed(server):
        for _ in range(3):
            before = server.cpu_time()
            peer = RawPeer(await trio.open_tcp_stream(HOST, server.port), masks=True)
            with suppress(trio.BrokenResourceError):
                await peer.send(flood)
            with suppress(trio.BrokenResourceError):
                assert await receive_status(peer) == 431
            await peer.stream.aclose()
            report(cpu=f"{server.cpu_time() - before:.2f} s")


# ---------------------------------------------------------------------------
# Time, cancellation, faults
# ---------------------------------------------------------------------------


async def nothing_left(tasks: int, descriptors: int) -> None:
    """Wait until there are no more of both than that."""
    with trio.fail_after(PATIENCE):
        while (
            trio.lowlevel.current_statistics().tasks_living > tasks
            or len(open_descriptors()) > descriptors
        ):
            await trio.sleep(0.001)


class CancelAtAnyStep(trio.abc.Instrument):
    """Cancels a scope at the k-th step from now on, whichever task takes it."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.steps_left = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps_left -= 1
        if self.steps_left == 0:
            self.scope.cancel()


async def sweep(run: Callable[[], Awaitable[None]]) -> int:
    """Cancel `run` at every scheduling step, one by one; say how many there are."""
    await trio.testing.wait_all_tasks_blocked(0.05)
    tasks = trio.lowlevel.current_statistics().tasks_living
    descriptors = len(open_descriptors())
    for step in range(1, 500):
        with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
            instrument = CancelAtAnyStep(scope, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                await run()
            finally:
                trio.lowlevel.remove_instrument(instrument)
        await nothing_left(tasks, descriptors)
        if instrument.steps_left > 0:
            return step
    raise AssertionError("it never got through")


async def test_cancelling_a_client_at_every_step_over_tcp_leaves_nothing() -> None:
    async with open_server(echo) as ours:

        async def run() -> None:
            async with open_websocket_url(ours.urls[0]) as ws:
                await converse(ws)

        steps = await sweep(run)
    report(steps=steps)
    assert steps > 10


async def test_cancelling_a_server_at_every_step_over_tcp_leaves_nothing() -> None:
    async def be_client(stream: trio.abc.Stream) -> None:
        try:
            async with trio_ws.wrap_client_stream(stream, "ws://example.org/") as ws:
                await echo(ws)
        except (trio_ws.ConnectionClosed, trio_ws.HandshakeError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope(shield=True):
                client, stream = await tcp_pair()
            nursery.start_soon(be_client, client)
            async with trio_ws.wrap_server_stream(stream) as ws:
                await converse(ws)

    steps = await sweep(run)
    report(steps=steps)
    assert steps > 10


async def test_ctrl_c_right_after_a_handshake_says_1001() -> None:
    for _ in range(5):
        with server_process() as server:
            peers = [await server.connect() for _ in range(3)]
            server.process.send_signal(signal.SIGINT)
            for peer in peers:
                assert await peer.receive_close() == 1001
                await peer.stream.aclose()
            await trio.to_thread.run_sync(server.process.wait, 20)


async def test_ctrl_c_with_a_thousand_clients_says_1001_to_all() -> None:
    """A tenth of the handlers never ends by itself, and a tenth of the clients never answers."""
    clients = 1000
    codes: list[int | None] = []

    async def be_client(peer: RawPeer, number: int) -> None:
        codes.append(await peer.receive_close())
        if number % 10 == 1:
            await trio.sleep(CLOSE_TIMEOUT * 2)
        else:
            await peer.send_close(1001)
        await peer.stream.aclose()

    with server_process() as server:
        peers = [
            await server.connect("/" if number % 10 else "/never") for number in range(clients)
        ]
        async with trio.open_nursery() as nursery:
            for number, peer in enumerate(peers):
                nursery.start_soon(be_client, peer, number)
            await server.statistics("/never")  # all handlers have begun
            start = time.perf_counter()
            server.process.send_signal(signal.SIGINT)
            await trio.to_thread.run_sync(server.process.wait, 20)
            took = time.perf_counter() - start
        assert server.process.returncode == 0
    report(took=f"{took:.2f} s")
    assert codes == [1001] * clients
    assert took < 0.3 + CLOSE_TIMEOUT + SLACK  # one client after the other would take 100 s


async def test_out_of_descriptors_is_survived_under_5_percent_cpu() -> None:
    seconds = 10 if SOAK else 2

    async def echo_once(ws: trio_ws.WebSocket) -> None:
        await ws.send("x")
        with trio.fail_after(PATIENCE):
            assert await ws.receive() == "x"

    with server_process(descriptors=40) as server:
        async with open_websocket_url(server.url) as ws:
            await echo_once(ws)
            at_first = server.sockets()
            others = [await trio.open_tcp_stream(HOST, server.port) for _ in range(60)]
            await trio.sleep(0.5)
            assert len(os.listdir(f"/proc/{server.process.pid}/fd")) == 40
            before = server.cpu_time()
            await trio.sleep(seconds)
            share = (server.cpu_time() - before) / seconds
            await echo_once(ws)
            for stream in others:
                await stream.aclose()
            start = time.perf_counter()
            with trio.fail_after(PATIENCE):
                async with open_websocket_url(server.url) as newcomer:
                    await echo_once(newcomer)
                recovered = time.perf_counter() - start
                while server.sockets() > at_first:
                    await trio.sleep(0.01)
            await echo_once(ws)
    report(share=f"{share:.1%}", recovered=f"{recovered:.2f} s")
    assert share < 0.05


# ---------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------


def names_of_tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {
        f"{path.name}::{node.name}"
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name[:5] == "test_"
    }


def rows() -> list[list[str]]:
    source = (ROOT / "docs" / "trust.md").read_text("utf-8")
    lines = [line for line in source.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0] != "stimulus" and not row[0].startswith("---")]


def test_every_row_of_the_table_names_tests_and_every_one_exists() -> None:
    existing = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in names_of_tests(path)
    }
    named: set[str] = set()
    for row in rows():
        assert len(row) == 3, row
        tests = set(re.findall(r"`(test_\w+\.py::test_\w+)`", row[2]))
        assert tests or "later" in row[2], f"no test is named for {row[0]!r}"
        assert tests <= existing, f"there is no {sorted(tests - existing)}"
        named |= tests
    # And nothing is measured here that the table does not tell.
    assert names_of_tests(Path(__file__)) <= named | {
        "test_trust.py::test_every_row_of_the_table_names_tests_and_every_one_exists",
        "test_trust.py::test_every_test_that_the_page_on_the_design_names_exists",
    }


def test_every_test_that_the_page_on_the_design_names_exists() -> None:
    existing = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in names_of_tests(path)
    }
    existing |= {name.partition("::")[2] for name in existing}
    text = (ROOT / "docs" / "design.md").read_text()
    named = set(re.findall(r"`((?:test_\w+\.py::)?test_\w+)`", text))
    assert len(named) > 20
    assert named <= existing
