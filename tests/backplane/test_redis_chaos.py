"""A chat in several processes over Redis, while connections, workers and Redis are killed.

In the end each client's lines are the last ones that Redis has, in its order: none is missing, and
none is there twice. Where a client was told that it may have missed some, it begins anew.

With TRIO_WS_SOAK=1 in the environment, it is 400 clients of four processes for five minutes; else
40 of two for a few seconds.
"""

from __future__ import annotations

import difflib
import json
import random
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import trio

from tests.backplane.backplane_helpers import run
from tests.backplane.chat_worker import MANY, TOPIC
from tests.backplane.redis_helpers import wait_until
from tests.backplane.redis_server import RedisServer, run_redis
from tests.helpers import HOST, free_port
from tests.whole.server_process import SOAK, report
from trio_ws import ConnectionClosed, ConnectionFailed, WebSocket, open_websocket_url
from trio_ws.backplane import RedisBackplane

WORKERS, CLIENTS, SECONDS = (4, 400, 300.0) if SOAK else (2, 40, 4.0)
PUBLISHERS = 5
END = "end"


class Worker:
    """A process of the chat. When it is killed, another one takes its place."""

    def __init__(self, url: str) -> None:
        self.port = free_port()
        self._url = url
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.backplane.chat_worker", self._url, str(self.port)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


class Client:
    """Somebody who reads along, and comes back to any of the workers. Some of them write, too."""

    def __init__(self, name: str, workers: list[Worker], tally: Counter[str]) -> None:
        self.name = name
        self.lines: list[str] = []
        self.written = 0
        self.lives = 0
        self.connection = trio.CancelScope()
        self._position = ""
        self._workers = workers
        self._tally = tally

    async def stay(self) -> None:
        while True:
            with trio.CancelScope() as self.connection:
                try:
                    url = f"ws://{HOST}:{random.choice(self._workers).port}"
                    async with open_websocket_url(url, ping_interval=1, close_timeout=0.2) as ws:
                        await ws.send(self._position)
                        await self._read(ws)
                except (ConnectionFailed, ConnectionClosed):
                    pass
            await trio.sleep(random.uniform(0.02, 0.2))

    async def _read(self, ws: WebSocket) -> None:
        missed: list[str] = []
        position = ""
        async for text in ws:
            event = json.loads(str(text))
            if "message" in event:
                missed.append(event["message"])
                position = event["position"]
            elif "gap" in event:
                self._begin_anew("gaps")
                missed.clear()
            elif event["recovered"]:
                self._tally["recovered"] += 1
                break
            else:
                if self._position:
                    self._begin_anew("not recovered")
                self.lines.clear()
                break
        self.lines += missed
        self._position = position or self._position
        async with ws.open_nursery() as nursery:
            if self.name.startswith("writer"):
                nursery.start_soon(self._write, ws)
            async for text in ws:
                event = json.loads(str(text))
                if "gap" in event:
                    self._begin_anew("gaps")
                else:
                    self.lines.append(event["message"])
                    self._position = event["position"]

    def _begin_anew(self, why: str) -> None:
        self._tally[why] += 1
        self.lines.clear()

    async def _write(self, ws: WebSocket) -> None:
        """Write lines whose order is kept: those that go through one process.

        While Redis is away, they wait in that process. Who comes to another one then, and writes
        there, may overtake them.
        """
        self.lives += 1
        life = f"{self.name}.{self.lives}"
        while True:
            await trio.sleep(0.2 if SOAK else 0.05)
            self.written += 1
            await ws.send(f"{life} {self.written}")


async def make_trouble(
    redis: RedisServer, workers: list[Worker], clients: list[Client], tally: Counter[str]
) -> None:
    """Kill something, wait a moment, and go on. In the end, everything is there again."""
    with trio.move_on_after(SECONDS):
        while True:
            await trio.sleep(random.uniform(0.1, 0.8))
            what = random.choice(["clients", "clients", "links", "worker", "redis"])
            tally[f"killed: {what}"] += 1
            with trio.CancelScope(shield=True):
                match what:
                    case "clients":
                        for client in random.sample(clients, len(clients) // 4):
                            client.connection.cancel()
                    case "links":
                        await redis.command(
                            "CLIENT", "KILL", "TYPE", random.choice(["pubsub", "normal"])
                        )
                    case "worker":
                        worker = random.choice(workers)
                        worker.kill()
                        await trio.sleep(random.uniform(0, 0.3))
                        worker.start()
                    case _:
                        redis.kill()
                        await trio.sleep(random.uniform(0, 0.5))
                        await redis.start()


async def say_the_end(workers: list[Worker]) -> None:
    while True:
        try:
            async with open_websocket_url(f"ws://{HOST}:{workers[0].port}") as ws:
                await ws.send("")
                async for text in ws:
                    if "recovered" in json.loads(str(text)):
                        await ws.send(END)
                    elif json.loads(str(text)).get("message") == END:
                        return
        except (ConnectionFailed, ConnectionClosed):
            await trio.sleep(0.1)


def difference(lines: list[str], truth: list[str]) -> list[str]:
    """What a client has missed, or has twice, from when it began to the end."""
    expected = truth[truth.index(lines[0]) : truth.index(END)]
    lines = lines[: lines.index(END)]  # a writer's last line may still come after it
    return [*difflib.unified_diff(expected, lines, "truth", "lines", lineterm="")]


async def test_whatever_is_killed_each_view_is_the_truth_or_says_that_it_is_not(
    tmp_path: Path,
) -> None:
    tally: Counter[str] = Counter()
    # By default, Redis may write to its file later than it answers, while an earlier write is slow.
    async with run_redis(tmp_path, "--appendfsync", "always") as redis:
        workers = [Worker(redis.url) for _ in range(WORKERS)]
        names = [f"writer{n}" if n < PUBLISHERS else f"reader{n}" for n in range(CLIENTS)]
        clients = [Client(name, workers, tally) for name in names]
        for worker in workers:
            worker.start()
        try:
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(client.stay)
                await wait_until(lambda: all(client.lines for client in clients))
                await make_trouble(redis, workers, clients, tally)
                for client in clients:
                    client.name = client.name.replace("writer", "retired")
                    client.connection.cancel()
                await say_the_end(workers)
                await wait_until(lambda: all(END in client.lines for client in clients))
                nursery.cancel_scope.cancel()
            async with run(RedisBackplane(redis.url, mode="streams")) as node:
                truth = [
                    str(line) for line in (await node.backplane.read(TOPIC, None, MANY)).messages
                ]
        finally:
            for worker in workers:
                worker.kill()
    assert len(set(truth)) == len(truth)
    written: defaultdict[str, list[int]] = defaultdict(list)
    for line in truth:
        life, _, number = line.partition(" ")
        if number:  # all but the end
            written[life].append(int(number))
    assert len(written) >= PUBLISHERS
    for numbers in written.values():
        assert numbers == sorted(numbers)
    for client in clients:
        assert difference(client.lines, truth) == []
    whole = sum(client.lines[0] == truth[0] for client in clients)
    report(lines=len(truth), whole_views=f"{whole} of {CLIENTS}", **tally)
    # Those who come while Redis is away are told of a gap when it is back, though nothing is lost.
    assert tally["recovered"]
