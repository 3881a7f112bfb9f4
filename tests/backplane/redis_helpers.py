"""Backplanes over a real Redis, and waiting for their messages, for tests of `RedisBackplane`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, get_args

import pytest
import trio

from tests.backplane.backplane_helpers import Node, run
from tests.backplane.redis_server import HOST, RedisServer
from trio_ws.backplane import Position, RedisBackplane

Mode = Literal["pubsub", "streams"]
both_modes = pytest.mark.parametrize("mode", get_args(Mode))

#: For everything that a test waits for, on a busy machine.
PATIENCE = 120

#: Options that find a dead server sooner than the defaults do. On a busy machine they also take a
#: server for dead that is not: see `publish_until_received`.
QUICK: dict[str, Any] = {"ping_interval": 0.1, "ping_timeout": 0.2, "open_timeout": 0.5}


#: Options with which nothing happens because of a time limit: what waits for one, waits too long.
PATIENT: dict[str, Any] = dict.fromkeys(QUICK, 10.0 * PATIENCE)


async def wait_until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.005)


@asynccontextmanager
async def run_two(
    server: RedisServer, *topics: str, **options: Any
) -> AsyncGenerator[tuple[Node, Node], None]:
    """Two that both listen to `topics`. They take no server for dead that is only slow."""
    options = {"ping_timeout": PATIENCE, **options}
    async with run(RedisBackplane(server.url, **options), *topics) as one:
        async with run(RedisBackplane(server.url, **options), *topics) as other:
            yield one, other


@asynccontextmanager
async def run_streams(
    server: RedisServer, *topics: str, **options: Any
) -> AsyncGenerator[tuple[Node, Node], None]:
    """Two that both follow `topics` over streams, when they know where they are."""
    async with run_two(server, *topics, mode="streams", **options) as (one, other):
        await one.backplane.wait_subscribed()
        await other.backplane.wait_subscribed()
        yield one, other


def messages(node: Node) -> list[str | bytes]:
    return [message for _, message in node.received]


async def publish_until_received(
    publisher: Node, listener: Node, topic: str, what: str
) -> list[str]:
    """Publish until something arrives. While the listener connects again, it may be lost.

    Returns:
        all that was published, in order.
    """
    sent: list[str] = []
    with trio.fail_after(PATIENCE):
        while not set(sent) & set(messages(listener)):
            sent.append(f"{what} {len(sent)}")
            publisher.backplane.publish(topic, sent[-1])
            await trio.sleep(0.05)
    return sent


def of_others(node: Node) -> list[tuple[str, str | bytes]]:
    """What was received and is not the node's own."""
    return [(each.topic, each.message) for each in node.messages if each.token is None]


def positions(node: Node) -> list[Position | None]:
    return [message.position for message in node.messages]


def keys(topic: str) -> tuple[str, str]:
    """Where streams keep what belongs to a topic."""
    return f"trio_ws:{{{topic}}}:meta", f"trio_ws:{{{topic}}}:log"


async def start_in_vain(backplane: RedisBackplane, *topics: str) -> None:
    """Run it, and raise bare what it raises."""
    for topic in topics:
        backplane.subscribe(topic)
    node = Node(backplane)
    with trio.fail_after(PATIENCE):
        await backplane.run(node.deliver, node.gaps.append)


class Proxy:
    """Stands between a client and Redis, and can do to both what a network does."""

    def __init__(self, port: int) -> None:
        self.url = f"redis://{HOST}:{port}"
        self.swallow_answers = False
        self.refuse = False
        #: Bytes that come instead of the next answer.
        self.garbage = b""
        self._streams: list[trio.SocketStream] = []

    def cut(self, *, refuse: bool = False) -> None:
        self.refuse = refuse
        for stream in self._streams:
            stream.socket.close()
        self._streams.clear()

    async def join(self, client: trio.SocketStream, redis_port: int) -> None:
        if self.refuse:
            await client.aclose()
            return
        async with client, await trio.open_tcp_stream(HOST, redis_port) as server:
            self._streams += [client, server]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._copy, client, server, False)
                await self._copy(server, client, True)
                nursery.cancel_scope.cancel()

    async def _copy(
        self, source: trio.SocketStream, sink: trio.SocketStream, answers: bool
    ) -> None:
        try:
            async for data in source:
                if answers and self.garbage:
                    data, self.garbage = self.garbage, b""  # noqa: PLW2901
                if not (answers and self.swallow_answers):
                    await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


@asynccontextmanager
async def open_proxy(server: RedisServer) -> AsyncGenerator[Proxy, None]:
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    proxy = Proxy(listener.socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            trio.serve_listeners, lambda stream: proxy.join(stream, server.port), [listener]
        )
        yield proxy
        nursery.cancel_scope.cancel()
