"""The Redis backplane with real Sentinels: finding the primary, and failovers while it is used."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.backplane.backplane_helpers import Node, run
from tests.backplane.redis_helpers import (
    QUICK,
    Mode,
    both_modes,
    messages,
    start_in_vain,
    wait_until,
)
from tests.backplane.redis_server import HOST, RedisServer
from tests.helpers import free_port
from trio_ws.backplane import BackplaneError, Position, RedisBackplane
from trio_ws.backplane._redis import backplane as _backplane

NAME = "news-desk"


class Sentinel:
    """One Sentinel, that fails over after half a second."""

    def __init__(self, folder: Path, primary: RedisServer, *lines: str) -> None:
        self.port = free_port()
        self._config = folder / "sentinel.conf"
        self._config.write_text(
            "\n".join(
                [
                    f"port {self.port}",
                    f"bind {HOST}",
                    f"dir {folder}",
                    f"sentinel monitor {NAME} {HOST} {primary.port} 1",
                    f"sentinel down-after-milliseconds {NAME} 300",
                    f"sentinel failover-timeout {NAME} 3000",
                    *lines,
                ]
            )
        )
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self.process = subprocess.Popen(  # noqa: ASYNC220 - and reaped as soon as it is killed
            ["redis-server", str(self._config), "--sentinel"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        with trio.fail_after(60):
            while True:
                try:
                    await (await trio.open_tcp_stream(HOST, self.port)).aclose()
                except OSError:
                    await trio.sleep(0.01)
                else:
                    return

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Desk:
    """A primary and its replica, which one Sentinel watches. A second one is not there."""

    def __init__(self, primary: RedisServer, replica: RedisServer, sentinel: Sentinel) -> None:
        self.primary = primary
        self.replica = replica
        self.sentinel = sentinel
        self.url = f"redis+sentinel://{HOST}:{free_port()},{HOST}:{sentinel.port}/{NAME}"

    async def wait_replicated(self) -> None:
        with trio.fail_after(60):
            while b"state=online" not in await self.primary.command("INFO", "replication"):
                await trio.sleep(0.05)
            await self.primary.command("SET", "mark", "1")
            while await self.replica.command("EXISTS", "mark") != b":1\r\n":
                await trio.sleep(0.01)
            # The Sentinel asks the primary for its replicas every ten seconds, and at the start.
            command = ["redis-cli", "-p", str(self.sentinel.port), "sentinel", "replicas", NAME]
            while (
                str(self.replica.port).encode()
                not in (await trio.run_process(command, capture_stdout=True, check=False)).stdout
            ):
                await trio.sleep(0.05)


@asynccontextmanager
async def run_desk(folder: Path, *lines: str) -> AsyncGenerator[Desk, None]:
    folders = [folder / name for name in ("a", "b", "s")]
    for each in folders:
        each.mkdir()
    options = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
    primary = RedisServer(folders[0], *options)
    replica = RedisServer(folders[1], *options, "--replicaof", f"{HOST} {primary.port}")
    sentinel = Sentinel(folders[2], primary, *lines)
    try:
        await primary.start()
        await replica.start()
        desk = Desk(primary, replica, sentinel)
        with trio.fail_after(60):
            while b"state=online" not in await primary.command("INFO", "replication"):
                await trio.sleep(0.05)
        await sentinel.start()
        yield desk
    finally:
        sentinel.close()
        replica.close()
        primary.close()


async def publish_on(node: Node, sent: list[str]) -> None:
    while True:
        sent.append(str(len(sent)))
        node.backplane.publish("news", sent[-1])
        await trio.sleep(0.002)


async def test_a_failover_while_clients_publish_is_told_and_what_comes_after_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_backplane, "SENTINEL_INTERVAL", 0.2)
    sent: list[str] = []
    async with run_desk(tmp_path) as desk:
        await desk.wait_replicated()
        one, other = (RedisBackplane(desk.url, mode="streams", **QUICK) for _ in range(2))
        async with run(one, "news") as node, run(other, "news") as listener:
            await one.wait_subscribed()
            await other.wait_subscribed()
            assert f"{HOST}:{desk.sentinel.port}/{NAME}/0, connected" in repr(one)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_on, node, sent)
                await wait_until(lambda: len(listener.received) > 50)
                desk.primary.kill()
                await wait_until(lambda: len(listener.attached) > 1)
                count = len(listener.received)
                await wait_until(lambda: len(listener.received) > count + 50)
                nursery.cancel_scope.cancel()
            await one.flush()
            await wait_until(lambda: messages(listener)[-1:] == sent[-1:])
            await wait_until(lambda: messages(node)[-1:] == sent[-1:])
            for each in (node, listener):
                numbers = [int(str(message)) for message in messages(each)]
                assert numbers == sorted(set(numbers))  # in order, and none twice
                assert len(each.attached) == 2
                assert_whole_after(each, each.attached[-1][1])
            assert one.statistics().dropped == one.statistics().refused == 0
            # A client that was there before the failover is not told that it has missed nothing.
            past = await other.read("news", listener.attached[0][1], 5)
            assert past.position.epoch != listener.attached[0][1].epoch
            assert past.messages == tuple(sent[-5:])


def assert_whole_after(node: Node, start: Position) -> None:
    after = [each.position for each in node.messages if each.position is not None]
    after = [position for position in after if position.epoch == start.epoch]
    assert after == [Position(start.epoch, start.offset + 1 + n) for n in range(len(after))]
    assert len(after) > 50


@both_modes
async def test_a_primary_that_does_not_know_that_it_is_no_more_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    """It stands still for a while, as it would in a partition. Nobody closes its connections."""
    monkeypatch.setattr(_backplane, "SENTINEL_INTERVAL", 0.1)
    async with run_desk(tmp_path) as desk:
        await desk.wait_replicated()
        slow: dict[str, Any] = {"ping_interval": 60.0, "ping_timeout": 60.0}
        async with run(RedisBackplane(desk.url, mode=mode, **slow), "news") as node:
            await node.backplane.wait_subscribed()
            desk.primary.stall()
            try:
                await wait_until(lambda: node.statistics.connections > 1)
                node.backplane.publish("news", "1")
                await node.backplane.flush()
                assert b"role:master" in await desk.replica.command("INFO", "replication")
            finally:
                desk.primary.go_on()


async def test_a_sentinel_with_a_password_and_one_that_knows_no_such_name(tmp_path: Path) -> None:
    async with run_desk(tmp_path, "requirepass s3cret") as desk:
        with_password = RedisBackplane(desk.url, mode="streams", sentinel_password="s3cret")
        async with run(with_password) as node:
            await wait_until(lambda: node.statistics.connected)
        with pytest.raises(BackplaneError, match="refuses: .*the Sentinel at .*authenticated"):
            await start_in_vain(RedisBackplane(desk.url))
        with pytest.raises(BackplaneError, match="No such master with that name") as caught:
            await start_in_vain(RedisBackplane(desk.url + "s", sentinel_password="s3cret"))
        assert "s3cret" not in str(caught.value)


async def test_sentinels_that_are_away_are_asked_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_backplane, "SENTINEL_INTERVAL", 0.02)
    async with run_desk(tmp_path) as desk:
        assert desk.sentinel.process is not None
        os.kill(desk.sentinel.process.pid, signal.SIGSTOP)
        async with run(RedisBackplane(desk.url, open_timeout=0.4)) as node:
            assert node.statistics.connections == 0
            assert f"the Sentinel at {HOST}:{desk.sentinel.port} does not answer" in caplog.text
            assert "Connection refused" in caplog.text
            os.kill(desk.sentinel.process.pid, signal.SIGCONT)
            await wait_until(lambda: node.statistics.connected)
            desk.sentinel.close()
            desk.sentinel.process = None
            await trio.sleep(0.1)
            assert repr(node.backplane).endswith(", connected>")
            assert node.statistics.connections == 1
