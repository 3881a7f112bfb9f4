"""The Redis backplane with a real server: what it carries and keeps, between real processes."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from tests.backplane.backplane_helpers import run
from tests.backplane.redis_helpers import (
    PATIENCE,
    PATIENT,
    Mode,
    both_modes,
    messages,
    positions,
    run_streams,
    run_two,
    start_in_vain,
    wait_until,
)
from tests.backplane.redis_server import HOST, RedisServer, run_redis
from tests.helpers import free_port
from tests.interop.processes import Peer, run_peer
from trio_ws.backplane import BackplaneError, BackplaneMessage, Position, RedisBackplane

# Carrying…


async def test_a_message_reaches_the_others_and_over_pubsub_not_its_publisher(
    redis: RedisServer,
) -> None:
    async with run_two(redis, "news") as (one, other):
        one.backplane.publish("news", "text")
        one.backplane.publish("news", b"\x00bytes\r\n", keep=False)
        one.backplane.publish("näws", "on a topic that nobody wants")
        one.backplane.publish("news", "")
        await one.backplane.flush()
        await wait_until(lambda: len(other.received) == 3)
        assert messages(other) == ["text", b"\x00bytes\r\n", ""]
        assert [message.kept for message in other.messages] == [True, False, True]
        assert one.received == []
        assert (one.gaps, other.gaps) == ([], [])
        assert not one.backplane.keeps_positions
        with pytest.raises(NotImplementedError, match="RedisBackplane keeps no positions here"):
            await one.backplane.read("news", None, 1)


async def test_over_streams_a_message_reaches_everybody_and_its_publisher_knows_it(
    redis: RedisServer,
) -> None:
    async with run_streams(redis, "news") as (one, other):
        assert one.backplane.keeps_positions
        tokens = [
            one.backplane.publish("news", "text"),
            one.backplane.publish("news", b"\x00bytes\r\n", keep=False),
            one.backplane.publish("news", ""),
        ]
        await wait_until(lambda: len(other.received) == len(one.received) == 3)
        assert messages(other) == messages(one) == ["text", b"\x00bytes\r\n", ""]
        assert [message.token for message in one.messages] == tokens
        assert [message.token for message in other.messages] == [None, None, None]
        assert positions(one) == positions(other)
        assert [message.kept for message in other.messages] == [True, False, True]
        ((_, start),) = set(one.attached)
        assert positions(one) == [
            Position(start.epoch, 1),
            None,
            Position(start.epoch, 2),
        ]


@both_modes
async def test_topics_come_and_go_while_it_runs(redis: RedisServer, mode: Mode) -> None:
    async with run_two(redis, mode=mode, **PATIENT) as (one, other):
        other.backplane.subscribe("näws")
        with trio.fail_after(PATIENCE):  # and not with the next ping
            await other.backplane.wait_subscribed()
        one.backplane.publish("näws", "1")
        await wait_until(lambda: other.received)
        other.backplane.subscribe("weather")
        await other.backplane.wait_subscribed()
        one.backplane.publish("weather", "2")
        await wait_until(lambda: len(other.received) == 2)
        other.backplane.unsubscribe("näws")
        other.backplane.unsubscribe("weather")
        other.backplane.subscribe("weather")
        await other.backplane.wait_subscribed()
        one.backplane.publish("näws", "3")
        one.backplane.publish("weather", "4")
        await wait_until(lambda: len(other.received) == 3)
        assert messages(other) == ["1", "2", "4"]


@both_modes
async def test_a_message_on_its_way_when_a_topic_was_left_is_not_delivered(
    redis: RedisServer, mode: Mode
) -> None:
    joined = RedisBackplane(redis.url, mode=mode)
    received: list[str | bytes] = []

    def take_one(message: BackplaneMessage) -> None:
        received.append(message.message)
        joined.unsubscribe(message.topic)

    async with run(RedisBackplane(redis.url, mode=mode)) as one, trio.open_nursery() as nursery:
        joined.subscribe("news")
        await nursery.start(joined.run, take_one, received.append)
        await joined.wait_subscribed()
        for number in range(50):
            one.backplane.publish("news", str(number))
        await one.backplane.flush()
        joined.subscribe("weather")
        await joined.wait_subscribed()
        nursery.cancel_scope.cancel()
    assert received == ["0"]


@both_modes
async def test_many_topics(redis: RedisServer, mode: Mode) -> None:
    topics = [f"topic {number}" for number in range(600)]
    async with run_two(redis, *topics, mode=mode) as (one, other):
        await other.backplane.wait_subscribed()
        for topic in topics:
            one.backplane.publish(topic, topic)
        await wait_until(lambda: len(other.received) == 600)
        assert {(topic, topic) for topic in topics} == set(other.received)
        for topic in topics:
            other.backplane.unsubscribe(topic)
        other.backplane.subscribe("one more")
        await other.backplane.wait_subscribed()


@both_modes
async def test_prefixes_keep_programs_apart(redis: RedisServer, mode: Mode) -> None:
    async with run_two(redis, "news", mode=mode, prefix="a:") as (one, other):
        async with run(RedisBackplane(redis.url, mode=mode, prefix="b:"), "news") as stranger:
            await other.backplane.wait_subscribed()
            await stranger.backplane.wait_subscribed()
            one.backplane.publish("news", "1")
            await wait_until(lambda: other.received)
            assert stranger.received == []


async def test_a_unix_socket_and_a_database(redis: RedisServer) -> None:
    url = f"unix://{redis.path}?db=3"
    async with run(RedisBackplane(url, mode="streams"), "news") as node:
        async with run(RedisBackplane(f"{redis.url}/3", mode="streams")) as other:
            await node.backplane.wait_subscribed()
            other.backplane.publish("news", "1")
            await wait_until(lambda: node.received)
        assert repr(node.backplane) == f"<RedisBackplane streams over {url}, connected>"


async def test_tls_with_a_password(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    port = free_port()
    pem = str(tmp_path / "server.pem")
    arguments = ["--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", pem]
    arguments += ["--tls-ca-cert-file", str(tmp_path / "ca.pem"), "--tls-auth-clients", "no"]
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with run_redis(tmp_path, *arguments, "--requirepass", "p@ss/word") as server:
        url = f"rediss://:p%40ss%2Fword@{HOST}:{port}"
        async with run(RedisBackplane(url, ssl_context=context), "news") as node:
            one = RedisBackplane(f"redis://default:p%40ss%2Fword@{HOST}:{server.port}")
            async with run(one) as other:
                other.backplane.publish("news", "1")
                await wait_until(lambda: node.received)
            assert "word" not in repr(node.backplane)
        with pytest.raises(BackplaneError, match="refuses.*certificate verify failed"):
            await start_in_vain(RedisBackplane(url))


# Between processes…


@asynccontextmanager
async def run_worker(
    server: RedisServer, mode: Mode, name: str, count: int, pause: float = 0
) -> AsyncGenerator[Peer, None]:
    command = [sys.executable, "-m", "tests.backplane.worker", server.url, mode, name, str(count)]
    async with run_peer(*command, str(pause)) as peer:
        assert (await peer.next_report())["what"] == "ready"
        yield peer


@both_modes
async def test_ten_thousand_messages_reach_each_process_once_and_in_order(
    redis: RedisServer, mode: Mode
) -> None:
    """And another process is killed meanwhile, which the others do not notice."""
    names = ["a", "b", "c", "d"] if mode == "pubsub" else ["a", "b"]
    share = 10_000 // len(names)
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(run_worker(redis, mode, name, share)) for name in names
        ]
        victim = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tests.backplane.worker", redis.url, mode, "v", "9999", "0.001"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert victim.stdin is not None
        assert victim.stdout is not None
        assert b"ready" in await victim.stdout.receive_some()
        await victim.stdin.send_all(b"go\n")
        for worker in workers:
            await worker.tell("go")
        assert (await workers[0].next_report())["what"] == "published"
        victim.kill()
        await victim.wait()
        await victim.stdin.aclose()
        await victim.stdout.aclose()
        for worker in workers[1:]:
            assert (await worker.next_report())["what"] == "published"
        for name, worker in zip(names, workers, strict=True):
            expected = names if mode == "streams" else [other for other in names if other != name]
            await worker.tell(json.dumps(expected))
            report = await worker.next_report()
            received = report["received"]
            from_victim = received.pop("v", [])
            assert from_victim == list(range(len(from_victim)))
            assert received == {other: list(range(share)) for other in expected}
            assert report["gaps"] == []


def streams_lose_nothing(received: list[int], gaps: list[str]) -> None:
    assert received == list(range(500))
    assert gaps == []


def pubsub_tells_the_gap(received: list[int], gaps: list[str]) -> None:
    assert received == sorted(set(received))
    assert received[0] == 0
    assert received[-1] == 499
    assert "everybody" in gaps


AFTER_A_KILL = {"pubsub": pubsub_tells_the_gap, "streams": streams_lose_nothing}


@both_modes
async def test_processes_whose_broker_is_killed_in_the_middle(
    redis: RedisServer, mode: Mode
) -> None:
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(run_worker(redis, mode, name, 500, 0.002))
            for name in ("a", "b")
        ]
        for worker in (one, other):
            await worker.tell("go")
        await trio.sleep(0.5)
        redis.kill()
        await trio.sleep(0.2)
        await redis.start()
        with trio.fail_after(PATIENCE):
            for worker in (one, other):
                assert (await worker.next_report())["what"] == "published"
        for worker, name in ((one, "b"), (other, "a")):
            await worker.tell(json.dumps([name]))
            report = await worker.next_report()
            AFTER_A_KILL[mode](report["received"][name], report["gaps"])
