"""Floods of connections and messages from one address, seen from outside: others do not notice.

The server and the attacker are processes of their own. With TRIO_WS_SOAK=1 in the environment,
there are ten thousand connections and a hundred innocents, whose p99 is judged by the wall clock.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import trio

from tests.whole.server_process import FLAT, LATENCY, SOAK, Server, report, server_process
from trio_ws import open_websocket_url

CONNECTS = 10_000 if SOAK else 600
INNOCENTS = 100 if SOAK else 10

#: Connects again and again from one address, mostly asks, and never reads. The connections that it
#: gets send as fast as they can: messages, pings and empty fragments.
ATTACKER = """
import socket, sys
port, connects, request = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
masked = lambda first: bytes((first, 0x80)) + bytes(4)
fragments = masked(0x01) + masked(0x00) * 50 + masked(0x80)
flood = (masked(0x81) * 50 + masked(0x89) * 50 + fragments) * 50
kept, count = [], 0
while count < connects:
    sock = socket.socket()
    sock.bind(("127.0.0.2", 0))
    try:
        sock.connect(("127.0.0.1", port))
        if count % 3:
            sock.sendall(request)
    except OSError:
        pass
    sock.setblocking(False)
    kept.append(sock)
    count += 1
    for other in kept[:40]:
        try:
            other.send(flood)
        except OSError:
            pass
    if len(kept) > 200:
        kept.pop(40).close()
"""


async def be_innocent(server: Server, number: int, latencies: list[float]) -> None:
    address = f"127.0.1.{number + 1}"
    async with open_websocket_url(server.url, local_address=address) as ws:
        while True:
            start = time.perf_counter()
            await ws.send("x" * 100)
            assert await ws.receive() == "x" * 100
            latencies.append(time.perf_counter() - start)
            await trio.sleep(0.05)


async def test_a_flood_from_one_address_leaves_others_unharmed_and_memory_flat(
    tmp_path: Path,
) -> None:
    limits = {
        "max_handshakes_per_second": 20,
        "max_connections_per_address": 40,
        "max_messages_per_second": 100,
    }
    request = (
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    latencies: list[float] = []
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    with server_process(**limits) as server:
        command = [sys.executable, "-c", ATTACKER, str(server.port)]
        async with trio.open_nursery() as nursery:
            for number in range(INNOCENTS):
                nursery.start_soon(be_innocent, server, number, latencies)
            # Once before, so that what the server keeps for ever is there.
            await trio.run_process([*command, "100", request], env=environment)
            while len(latencies) < 5 * INNOCENTS:
                await trio.sleep(0.01)
            latencies.clear()
            server.forget_peak()
            before = server.memory()
            started = time.perf_counter(), server.cpu_time()
            await trio.run_process([*command, str(CONNECTS), request], env=environment)
            wall, busy = time.perf_counter() - started[0], server.cpu_time() - started[1]
            grown = server.memory("VmHWM") - before
            nursery.cancel_scope.cancel()
        assert server.process.poll() is None
    p99 = sorted(latencies)[len(latencies) * 99 // 100]
    report(
        grown=f"{grown / 2**20:.2f} MiB",
        p99=f"{p99 * 1000:.1f} ms",
        echoes=len(latencies),
        seconds=f"{wall:.1f}, of which the server {busy:.1f}",
    )
    assert grown < FLAT
    assert len(latencies) > INNOCENTS  # they went on
    if SOAK:
        assert p99 < LATENCY
