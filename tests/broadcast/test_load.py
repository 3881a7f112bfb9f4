"""A broadcast to many, of whom some never read: over TCP, from a server in a process of its own.

For every policy: the others get every message and the publisher takes no longer, the server's
memory stays within the bounds, and what the slow ones do not get is counted to the last message.

With TRIO_WS_SOAK=1 in the environment, it is ten of a thousand; else five of two hundred.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import pytest
import trio

from tests.helpers import FIN, PATIENCE, TEXT, RawPeer, close_code, frame
from tests.whole.server_process import (
    CLOSE_TIMEOUT,
    FLAT,
    MIB,
    SOAK,
    Server,
    report,
    server_process,
)
from trio_ws import WebSocket, open_websocket_url

SUBSCRIBERS, STALLED = (1000, 10) if SOAK else (200, 5)

#: Each message is so long, so many are published in one go, and so often.
SIZE = 4096
BURST = 40
BURSTS = 24 if SOAK else 12

#: How much may wait for one subscriber.
MESSAGES = 64
BYTES = 256 * 1024
WAITING = min(MESSAGES, BYTES // (SIZE + 4))

#: The messages have so many different keys.
KEYS = 10

PROGRAM = """
import json, os, sys, threading, time
from dataclasses import asdict
from functools import partial
import trio, trio_ws
from trio_ws import Disconnect, DropNewest, DropOldest, Latest

settings = json.loads(sys.argv[1])
bounds, size, keys = settings.pop("bounds"), settings.pop("size"), settings.pop("keys")
policies = {
    "/oldest": DropOldest(),
    "/newest": DropNewest(),
    "/latest": Latest(key=lambda message: message[:2]),
    "/disconnect": Disconnect(),
}
reports = []


def end_with_parent():
    os.read(0, 1)
    os._exit(1)


threading.Thread(target=end_with_parent, daemon=True).start()


async def handler(ws):
    if ws.request.path in policies:
        with broadcast.subscribe(ws, "t", policy=policies[ws.request.path]):
            async for message in ws:
                pass
        return
    async for message in ws:
        numbers = json.loads(message)
        start = time.thread_time()
        for number in range(*numbers):
            text = f"{number % keys:02} {number:08} "
            broadcast.publish(text + "x" * (size - len(text)), "t")
        took = time.thread_time() - start
        answer = {"took": took, "reports": len(reports), **asdict(broadcast.statistics())}
        await ws.send_json(answer)


async def main():
    global broadcast
    async with trio_ws.open_broadcast(on_drop=reports.append, **bounds) as broadcast:
        async with trio.open_nursery() as nursery:
            serve = partial(trio_ws.serve_websocket, handler, "127.0.0.1", 0, **settings)
            server = await nursery.start(serve)
            print(server.port, flush=True)

trio.run(main)
"""


def message(number: int) -> bytes:
    return f"{number % KEYS:02} {number:08} ".encode().ljust(SIZE, b"x")


class Reader:
    """A subscriber that reads: how many bytes it got, and what they come to."""

    def __init__(self, peer: RawPeer) -> None:
        self.peer = peer
        self.count = len(peer.received)
        self.checksum = zlib.crc32(peer.received)

    async def read(self) -> None:
        while data := await self.peer.stream.receive_some(2**18):
            self.count += len(data)
            self.checksum = zlib.crc32(data, self.checksum)


class Crowd:
    """The subscribers that read, and the one who has messages published."""

    def __init__(self, publisher: WebSocket, readers: list[Reader]) -> None:
        self.publisher = publisher
        self.readers = readers
        self.published = 0
        self.expected = 0
        self.checksum = 0

    async def ask(self, first: int, last: int) -> dict[str, Any]:
        await self.publisher.send_json([first, last])
        answer: dict[str, Any] = await self.publisher.receive_json()
        return answer

    async def wait_for_subscribers(self, count: int) -> None:
        with trio.fail_after(CLOSE_TIMEOUT + 10):
            while (await self.ask(0, 0))["subscribers"] != count:
                await trio.sleep(0.02)

    async def publish(self) -> float:
        """Burst after burst, as soon as all have the last one; CPU seconds of the publisher."""
        took = 0.0
        for _ in range(BURSTS):
            answer = await self.ask(self.published, self.published + BURST)
            took += answer["took"]
            for number in range(self.published, self.published + BURST):
                data = frame(TEXT, message(number), mask=False)
                self.expected += len(data)
                self.checksum = zlib.crc32(data, self.checksum)
            self.published += BURST
            with trio.fail_after(PATIENCE):
                while any(reader.count < self.expected for reader in self.readers):
                    await trio.sleep(0.002)
        return took

    def check(self) -> None:
        """Each of them has got every message, in order."""
        for reader in self.readers:
            assert (reader.count, reader.checksum) == (self.expected, self.checksum)


@asynccontextmanager
async def open_crowd(server: Server, path: str) -> AsyncGenerator[Crowd, None]:
    peers = [await server.connect(path) for _ in range(SUBSCRIBERS - STALLED)]
    readers = [Reader(peer) for peer in peers]
    try:
        async with open_websocket_url(server.url) as publisher, trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(reader.read)
            crowd = Crowd(publisher, readers)
            await crowd.wait_for_subscribers(len(readers))
            yield crowd
            nursery.cancel_scope.cancel()
    finally:
        for peer in peers:
            await trio.aclose_forcefully(peer.stream)


async def numbers_left(peer: RawPeer, count: int) -> list[int]:
    """Read `count` messages on a connection that was stalled, and give their numbers."""
    numbers: list[int] = []
    with trio.fail_after(PATIENCE):
        while len(numbers) < count:
            first, payload = await peer.receive_frame() or (0, b"")
            assert first == FIN | TEXT
            assert len(payload) == SIZE
            numbers.append(int(payload.split()[1]))
    return numbers


@pytest.mark.parametrize("policy", ["oldest", "newest", "latest", "disconnect"])
async def test_stalled_readers_in_a_broadcast_cost_the_others_nothing(policy: str) -> None:
    bounds = {"max_queued_messages": MESSAGES, "max_queued_bytes": BYTES}
    settings: dict[str, Any] = {"bounds": bounds, "size": SIZE, "keys": KEYS, "compression": None}
    settings["ping_interval"] = inf  # these readers answer no pings
    with server_process(PROGRAM, **settings) as server:
        async with open_crowd(server, "/" + policy) as crowd:
            alone = await crowd.publish()
            first = crowd.published
            server.forget_peak()
            before = server.memory()
            stalled = [
                await server.connect("/" + policy, receive_buffer=4096) for _ in range(STALLED)
            ]
            await crowd.wait_for_subscribers(SUBSCRIBERS)
            with_stalled = await crowd.publish()
            crowd.check()
            grown = server.memory("VmHWM") - before
            statistics = await crowd.ask(0, 0)
            total = crowd.published - first
            if policy == "disconnect":
                assert statistics["disconnected"] == statistics["reports"] == STALLED
                for peer in stalled:
                    await check_disconnected(peer)
                await crowd.wait_for_subscribers(len(crowd.readers))
            else:
                missed = statistics["replaced" if policy == "latest" else "dropped"]
                assert statistics["reports"] == statistics["dropped"]
                assert 0 < statistics["queued_messages"] <= STALLED * WAITING
                assert 0 < statistics["queued_bytes"] <= STALLED * BYTES
                received = STALLED * total - missed
                await check_what_is_left(stalled, policy, received, first, crowd.published)
            for peer in stalled:
                await trio.aclose_forcefully(peer.stream)
    report(
        policy=policy,
        alone=f"{alone / total / len(crowd.readers) * 1e6:.2f} µs",
        with_stalled=f"{with_stalled / total / SUBSCRIBERS * 1e6:.2f} µs",
        grown=f"{grown / MIB:.2f} MiB",
        **statistics,
    )
    assert grown < FLAT + STALLED * BYTES
    assert with_stalled < alone * (1.5 if SOAK else 3)


async def check_disconnected(peer: RawPeer) -> None:
    """It reads after all, and gets what was on its way, and why there is no more."""
    with trio.fail_after(PATIENCE):
        frames = await peer.receive_all_frames()
    *messages, (first, payload) = frames
    assert messages
    if first == FIN | TEXT:  # it came too late for the Close frame
        return
    assert close_code(payload) == 1013


async def check_what_is_left(
    stalled: list[RawPeer], policy: str, received: int, first: int, end: int
) -> None:
    """All that was not counted as dropped or replaced is there, and what the policy promises."""
    check: Callable[[list[int]], bool] = {
        "oldest": lambda numbers: numbers[-WAITING:] == [*range(end - WAITING, end)],
        "newest": lambda numbers: numbers == [*range(first, first + len(numbers))],
        "latest": lambda numbers: {*range(end - KEYS, end)} <= {*numbers},
    }[policy]
    left = received
    results: list[list[int]] = [[] for _ in stalled]

    async def read(peer: RawPeer, numbers: list[int]) -> None:
        nonlocal left
        while left:
            numbers += await numbers_left(peer, 1)
            left -= 1
        nursery.cancel_scope.cancel()

    # How many each of them gets is not known before, but how many all of them get.
    async with trio.open_nursery() as nursery:
        for peer, numbers in zip(stalled, results, strict=True):
            nursery.start_soon(read, peer, numbers)
    assert left == 0
    for numbers in results:
        assert numbers[0] == first
        assert check(numbers), numbers
