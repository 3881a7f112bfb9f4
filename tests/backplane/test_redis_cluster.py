"""The Redis backplane with a real Redis Cluster: what works, and what is refused clearly."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from tests.backplane.backplane_helpers import run
from tests.backplane.redis_helpers import messages, start_in_vain, wait_until
from tests.backplane.redis_server import HOST, RedisServer, run_redis
from tests.helpers import free_port
from trio_ws.backplane import BackplaneError, RedisBackplane


async def run_cluster(stack: AsyncExitStack, folder: Path) -> list[RedisServer]:
    nodes = []
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
        options += ["--cluster-port", str(free_port())]
        nodes.append(await stack.enter_async_context(run_redis(folder / name, *options)))
    addresses = [f"{HOST}:{node.port}" for node in nodes]
    await trio.run_process(
        ["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"], capture_stdout=True
    )
    return nodes


async def test_pubsub_reaches_all_nodes_of_a_cluster_and_streams_are_refused(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        nodes = await run_cluster(stack, tmp_path)
        one = await stack.enter_async_context(run(RedisBackplane(nodes[0].url)))
        others = [
            await stack.enter_async_context(run(RedisBackplane(node.url), "news")) for node in nodes
        ]
        for number in range(100):
            one.backplane.publish("news", str(number))
        for other in others:
            await wait_until(lambda: all(len(each.received) == 100 for each in others))
            assert messages(other) == [str(number) for number in range(100)]
            assert other.gaps == []
        with pytest.raises(BackplaneError, match="part of a Redis Cluster.* only mode='pubsub'"):
            await start_in_vain(RedisBackplane(nodes[0].url, mode="streams"))
