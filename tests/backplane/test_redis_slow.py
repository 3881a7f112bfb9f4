"""The Redis backplane of a slow process: it is told of gaps, and holds little in memory."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest
import trio

from tests.backplane.backplane_helpers import Node
from tests.backplane.redis_helpers import messages, open_proxy, run_two, wait_until
from tests.backplane.redis_server import HOST, RedisServer, run_redis
from tests.interop.processes import run_peer
from trio_ws.backplane import BackplaneMessage, RedisBackplane

# Being slow…


#: 10,000 messages of 2 kB as fast as Redis takes them: more than the buffers of two sockets hold.
FLOOD = """
import socket, sys
host, port = sys.argv[1].split(":")
with socket.create_connection((host, int(port))) as sock:
    for number in range(1, 10_001):
        message = b"\\1\\0AAAAAAAA" + number.to_bytes(8, "big") + bytes(2008)
        command = b"*3\\r\\n$7\\r\\nPUBLISH\\r\\n$12\\r\\ntrio_ws:news\\r\\n$%d\\r\\n"
        sock.sendall(command % len(message) + message + b"\\r\\n")
"""


async def test_a_subscriber_that_redis_drops_for_being_slow_is_told_and_comes_back(
    tmp_path: Path,
) -> None:
    limit = ("--client-output-buffer-limit", "pubsub 256kb 0 0")

    def deliver(message: BackplaneMessage) -> None:
        node.deliver(message._replace(message=""))
        time.sleep(0.0005)  # what is tested: a process that cannot keep up

    async with run_redis(tmp_path, *limit) as server:
        node = Node(RedisBackplane(server.url))
        node.backplane.subscribe("news")
        async with trio.open_nursery() as nursery:
            await nursery.start(node.backplane.run, deliver, node.gaps.append)
            await node.backplane.wait_subscribed()
            await nursery.start(
                trio.run_process,
                [sys.executable, "-c", FLOOD, f"{HOST}:{server.port}"],
            )
            await wait_until(lambda: node.gaps)
            nursery.cancel_scope.cancel()
    assert node.statistics.connections >= 2


async def test_messages_that_a_slow_process_cannot_handle_yet_stay_with_redis(
    tmp_path: Path,
) -> None:
    def deliver(_: BackplaneMessage) -> None:
        time.sleep(0.0005)  # what is tested: a process that cannot keep up

    async with run_redis(tmp_path, "--client-output-buffer-limit", "pubsub 0 0 0") as server:
        backplane = RedisBackplane(server.url)
        backplane.subscribe("news")
        async with trio.open_nursery() as nursery:
            await nursery.start(backplane.run, deliver, lambda topic: None)
            await backplane.wait_subscribed()
            await trio.run_process([sys.executable, "-c", FLOOD, f"{HOST}:{server.port}"])
            await wait_until(lambda: backplane.statistics().delivered > 1000)
            clients = await server.command("CLIENT", "LIST", "TYPE", "pubsub")
            nursery.cancel_scope.cancel()
    unsent = re.search(rb" omem=(\d+)", clients)
    assert unsent is not None
    assert int(unsent[1]) > 2**20


#: 2000 messages of 5 kB as fast as Redis takes them, kept.
KEPT_FLOOD = """
import sys, trio
from trio_ws.backplane import RedisBackplane

async def main():
    backplane = RedisBackplane(sys.argv[1], mode="streams")
    async with trio.open_nursery() as nursery:
        await nursery.start(backplane.run, print, print)
        for number in range(2000):
            await backplane.publish_wait("news", f"{number:05}" + 5000 * "x")
        await backplane.flush()
        nursery.cancel_scope.cancel()

trio.run(main)
"""


async def test_a_process_that_redis_drops_for_being_slow_misses_nothing_over_streams(
    tmp_path: Path,
) -> None:
    limit = ("--client-output-buffer-limit", "pubsub 256kb 0 0")

    def deliver(message: BackplaneMessage) -> None:
        node.deliver(message)
        time.sleep(0.0005)  # what is tested: a process that cannot keep up

    async with run_redis(tmp_path, *limit) as server:
        node = Node(RedisBackplane(server.url, mode="streams"))
        node.backplane.subscribe("news")
        async with trio.open_nursery() as nursery:
            await nursery.start(node.backplane.run, deliver, node.gaps.append, node.note_attached)
            await node.backplane.wait_subscribed()
            await trio.run_process([sys.executable, "-c", KEPT_FLOOD, server.url])
            await wait_until(lambda: len(node.received) == 2000)
            nursery.cancel_scope.cancel()
    assert [int(str(message)[:5]) for message in messages(node)] == list(range(2000))
    assert node.statistics.connections >= 2
    assert len(node.attached) == 1


# Streams: no more at a time than fits…


#: How many bytes a backlog of any size may cost a process that reads it: docs/how-to/backplane.md.
BOUND = 64 * 2**20


@pytest.mark.parametrize("topics", [1, 50])
async def test_a_backlog_of_large_messages_is_read_with_little_memory(
    redis: RedisServer, topics: int
) -> None:
    """300 of 0.5 MB, 150 MB together, which are there at once; small ones have come before."""
    names = [f"topic {number}" for number in range(topics)]
    command = [sys.executable, "-m", "tests.backplane.reader"]
    async with open_proxy(redis) as proxy, run_two(redis, mode="streams") as (one, _):
        async with run_peer(*command, proxy.url, *names) as reader:
            assert (await reader.next_report())["what"] == "ready"
            proxy.cut(refuse=True)
            for _ in range(300):
                await one.backplane.publish_wait(names[0], "small")
            for number in range(300):
                await one.backplane.publish_wait(names[number % topics], bytes(500_000))
            await one.backplane.flush()
            assert one.statistics.dropped == 0
            await reader.tell("600")
            proxy.refuse = False
            report = await reader.next_report()
            assert (report["received"], report["gaps"]) == (600, 0)
            assert report["peak"] - report["before"] < BOUND
            looked_back = await reader.next_report()
            assert looked_back["messages"] == 3
            assert looked_back["peak"] - report["before"] < BOUND
