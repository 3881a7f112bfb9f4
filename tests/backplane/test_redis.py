"""The Redis backplane with real servers: killed, stalled, refusing, and between real processes."""

from __future__ import annotations

import inspect
import json
import logging
import re
import ssl
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import anyio
import pytest
import trio
import trustme

from tests.backplane.backplane_helpers import Node, run
from tests.backplane.redis_server import HOST, RedisServer, free_port, run_redis
from tests.interop.processes import Peer, run_peer
from trio_ws.backplane import BackplaneError, HistoryEntry, RedisBackplane, RedisOptions
from trio_ws.backplane._envelope import Envelope, encode
from trio_ws.backplane._incoming import Incoming
from trio_ws.backplane._interest import Interest
from trio_ws.backplane._outgoing import Item
from trio_ws.backplane._redis import streams as _streams
from trio_ws.backplane._redis.address import Address, BrokerLost, BrokerRefused, Scheme, parse_url
from trio_ws.backplane._redis.backoff import Backoff
from trio_ws.backplane._redis.backplane import RedisKeywords, main_error
from trio_ws.backplane._redis.link import Link
from trio_ws.backplane._redis.portion import Portion
from trio_ws.backplane._redis.streams import Streams

Mode = Literal["pubsub", "streams"]
both_modes = pytest.mark.parametrize("mode", get_args(Mode))

#: For everything that a test waits for, on a busy machine.
PATIENCE = 120

#: What finds a dead server sooner than the defaults do.
QUICK: dict[str, Any] = {"ping_interval": 0.1, "ping_timeout": 0.2, "open_timeout": 0.5}


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncGenerator[RedisServer, None]:
    async with run_redis(tmp_path) as server:
        yield server


async def wait_until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.005)


@asynccontextmanager
async def run_two(
    server: RedisServer, *topics: str, **options: Any
) -> AsyncGenerator[tuple[Node, Node], None]:
    """Two that both listen to `topics`."""
    async with run(RedisBackplane(server.url, **options), *topics) as one:
        async with run(RedisBackplane(server.url, **options), *topics) as other:
            yield one, other


def messages(node: Node) -> list[str | bytes]:
    return [message for _, message in node.received]


# Carrying…


@both_modes
async def test_what_is_published_reaches_the_others_and_not_the_publisher(
    redis: RedisServer, mode: Mode
) -> None:
    async with run_two(redis, "news", mode=mode) as (one, other):
        ids = [
            one.backplane.publish("news", "text"),
            one.backplane.publish("news", b"\x00bytes\r\n"),
            one.backplane.publish("näws", "on a topic that nobody wants"),
            one.backplane.publish("news", ""),
        ]
        await one.backplane.flush()
        await wait_until(lambda: len(other.received) == 3)
        assert messages(other) == ["text", b"\x00bytes\r\n", ""]
        assert other.ids == [ids[0], ids[1], ids[3]]
        assert one.received == []
        assert (one.gaps, other.gaps) == ([], [])


@both_modes
async def test_topics_come_and_go_while_it_runs(redis: RedisServer, mode: Mode) -> None:
    async with run_two(redis, mode=mode) as (one, other):
        other.backplane.subscribe("näws")
        started_at = trio.current_time()
        await other.backplane.wait_subscribed()
        assert trio.current_time() < started_at + 0.5
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
async def test_what_was_on_its_way_when_a_topic_was_left_is_not_delivered(
    redis: RedisServer, mode: Mode
) -> None:
    joined = RedisBackplane(redis.url, mode=mode)
    received: list[str | bytes] = []

    def take_one(topic: str, message: str | bytes, message_id: str) -> None:
        received.append(message)
        joined.unsubscribe(topic)

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
            one.backplane.publish("news", "1")
            await wait_until(lambda: other.received)
            assert stranger.received == []


async def test_a_unix_socket_and_a_database(redis: RedisServer) -> None:
    url = f"unix://{redis.path}?db=3"
    async with run(RedisBackplane(url, mode="streams"), "news") as node:
        async with run(RedisBackplane(f"{redis.url}/3", mode="streams")) as other:
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


# When Redis refuses…


async def start_in_vain(backplane: RedisBackplane, *topics: str) -> None:
    """Run it, and raise bare what it raises."""
    for topic in topics:
        backplane.subscribe(topic)
    node = Node(backplane)
    with trio.fail_after(PATIENCE):
        await backplane.run(node.deliver, node.gaps.append)


@pytest.mark.parametrize("url", ["redis://{}:{}", "redis://:wrong@{}:{}"])
async def test_a_password_that_is_missing_or_wrong_ends_it_at_the_start(
    tmp_path: Path, url: str
) -> None:
    async with run_redis(tmp_path, "--requirepass", "right") as server:
        with pytest.raises(BackplaneError, match="refuses") as caught:
            await start_in_vain(RedisBackplane(url.format(HOST, server.port)))
        assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("password", ["xyzzy", "xy%22zzy", "with%20args%20xyzzy"])
async def test_a_server_that_repeats_the_log_in_does_not_give_away_the_password(
    tmp_path: Path, password: str
) -> None:
    async with run_redis(tmp_path, *("--rename-command", "HELLO", "")) as server:
        with pytest.raises(BackplaneError, match="refuses: unknown command 'HELLO'") as caught:
            await start_in_vain(RedisBackplane(f"redis://me:{password}@{HOST}:{server.port}"))
    assert "zzy" not in "".join(traceback.format_exception(caught.value)).replace(password, "")


@both_modes
async def test_a_missing_permission_ends_it_at_the_start(redis: RedisServer, mode: Mode) -> None:
    await redis.command("ACL", "SETUSER", "guest", "on", ">pw", "+@all", "~mine:*", "&mine:*")
    guest: dict[str, Any] = {"url": f"redis://guest:pw@{HOST}:{redis.port}", "mode": mode}
    with pytest.raises(BackplaneError, match="permission"):
        await start_in_vain(RedisBackplane(**guest), "news")
    async with run(RedisBackplane(**guest, prefix="mine:"), "news"):
        pass


@both_modes
async def test_the_permissions_that_the_documentation_names_are_enough(
    redis: RedisServer, mode: Mode
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "backplane.md").read_text("utf-8")
    ((pubsub, channels), (streams, keys)) = re.findall(r"`(\+@[^`]*)`\s+and\s+`([&~][^`]*)`", page)
    words = f"{pubsub} {channels}" if mode == "pubsub" else f"{streams} {keys}"
    await redis.command("ACL", "SETUSER", "guest", "on", ">pw", *words.split())
    url = f"redis://guest:pw@{HOST}:{redis.port}"
    async with run(RedisBackplane(url, mode=mode)) as one:
        async with run(RedisBackplane(url, mode=mode), "news") as other:
            await trio.sleep(0.05)
            other.backplane.subscribe("weather")
            await other.backplane.wait_subscribed()
            one.backplane.publish("weather", "1")
            await wait_until(lambda: other.received)
            other.backplane.unsubscribe("weather")
            other.backplane.subscribe("one more")
            await other.backplane.wait_subscribed()
            assert one.statistics.refused == 0
            if mode == "streams":
                assert len(await one.backplane.history("weather")) == 1


async def test_a_database_that_is_not_there_ends_it_at_the_start(redis: RedisServer) -> None:
    with pytest.raises(BackplaneError, match="DB index is out of range"):
        await start_in_vain(RedisBackplane(f"{redis.url}/99"))


async def test_a_password_that_is_changed_later_is_waited_for(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.command("ACL", "SETUSER", "guest", "on", ">pw", "+@all", "~*", "&*")
    backplane = RedisBackplane(f"redis://guest:pw@{HOST}:{redis.port}")
    async with run(backplane, "news"):
        await redis.command("ACL", "SETUSER", "guest", "resetpass", ">other")
        await redis.command("CLIENT", "KILL", "USER", "guest")
        await wait_until(lambda: "refuses: " in caplog.text)
        await redis.command("ACL", "SETUSER", "guest", "resetpass", ">pw")
        await backplane.wait_subscribed()
        await wait_until(lambda: backplane.statistics().connected)


@both_modes
async def test_a_refused_message_is_counted_and_a_gap_to_the_others(
    redis: RedisServer, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.command("ACL", "SETUSER", "guest", "on", ">pw", "+@all", "~*", "&*")
    guest = RedisBackplane(f"redis://guest:pw@{HOST}:{redis.port}", mode=mode)
    async with run(RedisBackplane(redis.url, mode=mode), "news") as other, run(guest):
        for number in range(5):
            if number == 1:
                await redis.command("ACL", "SETUSER", "guest", "-publish", "-xadd")
            if number == 4:
                await redis.command("ACL", "SETUSER", "guest", "+publish", "+xadd")
            guest.publish("news", str(number))
            await guest.flush()
        await wait_until(lambda: len(other.received) == 2)
        assert messages(other) == ["0", "4"]
        assert other.gaps == ["news"]
        assert (guest.statistics().refused, guest.statistics().sent) == (3, 2)
        assert guest.statistics().connections == 1
        refusals = [record for record in caplog.records if "refuses a message" in record.message]
        assert len(refusals) == 2  # the first and the second, and not each


@both_modes
async def test_what_strangers_publish_under_our_names_is_ignored(
    redis: RedisServer, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_two(redis, "news", mode=mode) as (one, other):
        if mode == "pubsub":
            await redis.command("PUBLISH", "trio_ws:news", "hello")
        else:
            await redis.command("XADD", "trio_ws:news", "*", "m", "hello")
            await redis.command("XADD", "trio_ws:news", "*", "a", "1", "b", "2")
        one.backplane.publish("news", "1")
        await wait_until(lambda: other.received)
        assert other.received == [("news", "1")]
        assert other.statistics.malformed == (1 if mode == "pubsub" else 2)
        assert "ignored what is no message on topic 'news'" in caplog.text


# When Redis is away…


@both_modes
async def test_it_starts_without_redis_and_finds_it_when_it_is_there(
    redis: RedisServer, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    redis.kill()
    async with run_two(redis, "news", mode=mode) as (one, other):
        assert "not connected" in repr(one.backplane)
        one.backplane.publish("news", "early")
        await trio.sleep(0.2)
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 2  # one each, however often they have tried
        assert "Connection refused" in warnings[0].message
        await redis.start()
        with trio.fail_after(PATIENCE):
            await one.backplane.flush()
            await other.backplane.wait_subscribed()
        assert other.gaps == []
        assert "is back" in caplog.text


@both_modes
async def test_a_kill_in_the_middle(redis: RedisServer, mode: Mode) -> None:
    async with run_two(redis, "news", mode=mode) as (one, other):
        sent: list[str | bytes] = [str(number) for number in range(3000)]
        for number, message in enumerate(sent):
            await one.backplane.publish_wait("news", str(message))
            if number == 1000:
                await wait_until(lambda: len(other.received) > 300)
                redis.kill()
                await wait_until(lambda: not other.statistics.connected)
            if number == 2000:
                await redis.start()
                restarted_at = trio.current_time()
                await other.backplane.wait_subscribed()
                await one.backplane.flush()
                assert trio.current_time() < restarted_at + 5
        await wait_until(lambda: other.received[-1:] == [("news", "2999")])
        if mode == "streams":
            assert messages(other) == sent
            assert other.gaps == []
        else:
            got = [int(message) for message in messages(other)]
            assert got == sorted(set(got))
            assert set(range(2001, 3000)) <= set(got)
            assert set(other.gaps) == {"news"}
        assert one.statistics.dropped == 0


@both_modes
async def test_a_stalled_redis_is_found_and_left_and_found_again(
    redis: RedisServer, mode: Mode
) -> None:
    async with run_two(redis, "news", mode=mode, **QUICK) as (one, other):
        one.backplane.publish("news", "before")
        await wait_until(lambda: other.received)
        redis.stall()
        try:
            stalled_at = trio.current_time()
            one.backplane.publish("news", "meanwhile")
            await wait_until(lambda: not (one.statistics.connected or other.statistics.connected))
            assert trio.current_time() < stalled_at + 3
            await trio.sleep(1)  # tries that fail
        finally:
            redis.go_on()
        await one.backplane.flush()
        await other.backplane.wait_subscribed()
        one.backplane.publish("news", "after")
        await wait_until(lambda: ("news", "after") in other.received)
        # Whatever the old connection still carried, and the new one repeated.
        expected = ["before", "meanwhile", "after"]
        assert messages(other) == [each for each in expected if each in messages(other)]
        if mode == "streams":
            assert messages(other) == expected
        else:
            assert other.gaps[:1] == ["news"]


@both_modes
@pytest.mark.parametrize("how", ["kill", "stall"])
async def test_leaving_while_redis_is_away_takes_no_time(
    redis: RedisServer, mode: Mode, how: str
) -> None:
    async with run_two(redis, "news", mode=mode) as (one, _):
        getattr(redis, how)()
        for number in range(100):
            one.backplane.publish("news", str(number))
        await trio.sleep(0.1)
        left_at = trio.current_time()
    assert trio.current_time() < left_at + 0.5
    assert one.statistics.dropped + one.statistics.sent == 100


async def test_publishing_goes_on_within_its_bounds_while_redis_is_away(
    redis: RedisServer,
) -> None:
    async with run_two(redis, "news", max_queued_messages=100) as (one, other):
        redis.kill()
        await wait_until(lambda: not one.statistics.connected)
        for number in range(10_000):
            one.backplane.publish("news", str(number))  # and waits for nothing
        assert one.statistics.queued_messages == 100
        assert one.statistics.dropped == 9900
        with trio.move_on_after(0.05) as scope:
            await one.backplane.publish_wait("news", "10000")
        assert scope.cancelled_caught
        await redis.start()
        await other.backplane.wait_subscribed()
        await one.backplane.flush()
        one.backplane.publish("news", "last")
        await wait_until(lambda: ("news", "last") in other.received)
        assert other.gaps[:1] == ["news"]


async def test_a_publish_whose_answer_was_lost_is_repeated_and_delivered_once(
    redis: RedisServer,
) -> None:
    async with open_proxy(redis) as proxy, run_two(redis, "news", mode="streams") as (_, other):
        async with run(RedisBackplane(proxy.url, mode="streams")) as one:
            one.backplane.publish("news", "1")
            await one.backplane.flush()
            proxy.swallow_answers = True
            for number in range(2, 5):
                one.backplane.publish("news", str(number))
            await wait_until(lambda: len(other.received) == 4)
            proxy.swallow_answers = False
            proxy.cut()
            one.backplane.publish("news", "5")
            await one.backplane.flush()
            await wait_until(lambda: len(other.received) == 5)
            assert messages(other) == ["1", "2", "3", "4", "5"]
            assert other.statistics.duplicates == 3
            assert other.gaps == []
            entries = await one.backplane.history("news")
            assert [entry.message for entry in entries] == ["1", "2", "3", "4", "5"]


class Proxy:
    """Stands between a client and Redis, and can do to both what a network does."""

    def __init__(self, port: int) -> None:
        self.url = f"redis://{HOST}:{port}"
        self.swallow_answers = False
        self.refuse = False
        #: What comes in the place of the next answer.
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


@both_modes
@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"?\r\n",
        b":twelve\r\n",
        b"$x\r\n",
        b"*1e3\r\n",
        b"-\xff\r\n",
        b"#\r\n",
        b"\r\n",
    ],
)
async def test_what_is_no_answer_of_redis_is_a_lost_connection(
    redis: RedisServer, mode: Mode, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_proxy(redis) as proxy, run_two(redis, "news", mode=mode) as (one, _):
        async with run(RedisBackplane(proxy.url, mode=mode), "news") as node:
            proxy.garbage = garbage
            node.backplane.publish("news", "1")
            await wait_until(lambda: node.statistics.connections == 2)
            await node.backplane.flush()
            await node.backplane.wait_subscribed()
            one.backplane.publish("news", "2")
            await wait_until(lambda: node.received)
            assert "is away" in caplog.text


async def test_a_probe_reads_all_of_the_first_line_however_it_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            for byte in b"-LOADING Redis is loading the dataset in memory\r\n":
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.001)
            await stream.receive_some()

    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        async with run(RedisBackplane(f"redis://{HOST}:{listener.socket.getsockname()[1]}")):
            assert "not ready: LOADING Redis is loading the dataset in memory" in caplog.text
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "it hung up"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "not ready: LOADING Redis is"),
    ],
)
async def test_one_that_is_not_ready_is_as_good_as_away(
    answer: bytes, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            if answer:
                await stream.send_all(answer)

    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        async with run(RedisBackplane(f"redis://{HOST}:{listener.socket.getsockname()[1]}")):
            assert problem in caplog.text
        nursery.cancel_scope.cancel()


async def test_one_that_goes_away_while_we_connect_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    port = listener.socket.getsockname()[1]

    async def answer_once() -> None:
        async with listener, await listener.accept() as stream:
            await stream.receive_some()
            await listener.aclose()
            await stream.send_all(b"+PONG\r\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_once)
        async with run(RedisBackplane(f"redis://{HOST}:{port}")):
            assert "is away: Connection refused" in caplog.text


async def test_a_start_does_not_wait_longer_than_open_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)  # that nobody accepts from
    async with listener:
        url = f"redis://{HOST}:{listener.socket.getsockname()[1]}"
        started_at = trio.current_time()
        async with run(RedisBackplane(url, open_timeout=0.2)):
            assert 0.2 <= trio.current_time() - started_at < 2
            assert "no answer within 0.2 s" in caplog.text


async def test_a_connection_that_ends_without_an_error_is_a_lost_one() -> None:
    class Quiet:
        """What coredis may do, and no Redis makes it do."""

        reusable = True

        @property
        async def push_messages(self) -> AsyncGenerator[list[Any], None]:
            yield [b"message"]

    connection: Any = Quiet()
    budget = anyio.CapacityLimiter(1)
    pushes: list[list[Any]] = []
    # Its reading task is just about to go on.
    await budget.acquire_on_behalf_of(connection)
    with pytest.raises(BrokerLost):
        await Link(connection, budget).dispatch(pushes.append)
    assert pushes == [[b"message"]]


async def test_a_mistake_in_a_callback_comes_out_bare(redis: RedisServer) -> None:
    def deliver(topic: str, message: str | bytes, message_id: str) -> None:
        raise ZeroDivisionError

    backplane = RedisBackplane(redis.url)
    backplane.subscribe("news")
    async with run(RedisBackplane(redis.url)) as other:
        with pytest.raises(ZeroDivisionError), trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_until_cancelled, other)
                try:
                    await backplane.run(deliver, other.gaps.append)
                except ZeroDivisionError as exc:
                    raised = exc
                nursery.cancel_scope.cancel()
            raise raised


async def publish_until_cancelled(node: Node) -> None:
    while True:
        node.backplane.publish("news", "1")
        await trio.sleep(0.01)


# Being slow…


async def test_a_subscriber_that_redis_drops_for_being_slow_is_told_and_comes_back(
    tmp_path: Path,
) -> None:
    limit = ("--client-output-buffer-limit", "pubsub 256kb 0 0")

    def deliver(topic: str, message: str | bytes, message_id: str) -> None:
        node.deliver(topic, "", message_id)
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


async def test_what_a_slow_process_cannot_handle_yet_stays_with_redis(tmp_path: Path) -> None:
    def deliver(topic: str, message: str | bytes, message_id: str) -> None:
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


async def test_a_reader_that_falls_behind_the_length_of_a_stream_is_told(
    redis: RedisServer,
) -> None:
    async with run_two(redis, "news", mode="streams", stream_length=100) as (one, other):
        await redis.command("CLIENT", "PAUSE", "100", "ALL")
        for number in range(1000):
            one.backplane.publish("news", str(number))
        await wait_until(lambda: ("news", "999") in other.received)
        got = [int(message) for message in messages(other)]
        assert got == sorted(set(got))
        missing = [(before, after) for before, after in pairwise(got) if after != before + 1]
        # By the numbers, and once more where an entry was looked for that is not there.
        assert set(other.gaps) == ({"news"} if missing else set())
        assert len(other.gaps) >= len(missing)


# Streams: where to go on…


async def test_what_was_trimmed_away_while_we_were_away_is_a_gap(redis: RedisServer) -> None:
    async with open_proxy(redis) as proxy, run_two(redis, mode="streams") as (one, _):
        async with run(RedisBackplane(proxy.url, mode="streams"), "news", "quiet") as node:
            one.backplane.publish("news", "seen")
            one.backplane.publish("quiet", "seen")
            await wait_until(lambda: len(node.received) == 2)
            proxy.cut(refuse=True)
            for number in range(10):
                one.backplane.publish("news", str(number))
            await one.backplane.flush()
            await redis.command("XTRIM", "trio_ws:news", "MAXLEN", "3")
            proxy.refuse = False
            await wait_until(lambda: len(node.received) == 5)
            assert messages(node)[2:] == ["7", "8", "9"]
            # Once where it went on, and once where numbers are missing.
            assert node.gaps == ["news", "news"]


async def test_what_is_read_after_its_topic_was_left_is_not_delivered(redis: RedisServer) -> None:
    def take_one(topic: str, message: str | bytes, message_id: str) -> None:
        received.append(message)
        joined.unsubscribe(topic)

    received: list[str | bytes] = []
    async with open_proxy(redis) as proxy, run_two(redis, mode="streams") as (one, _):
        joined = RedisBackplane(proxy.url, mode="streams")
        joined.subscribe("news")
        async with trio.open_nursery() as nursery:
            await nursery.start(joined.run, take_one, received.append)
            proxy.cut(refuse=True)
            for number in range(50):  # which it then reads all at once
                one.backplane.publish("news", str(number))
            await one.backplane.flush()
            proxy.refuse = False
            await wait_until(lambda: received)
            joined.subscribe("weather")
            await joined.wait_subscribed()
            nursery.cancel_scope.cancel()
    assert received == ["0"]


async def test_streams_that_redis_has_lost_begin_anew(redis: RedisServer) -> None:
    async with open_proxy(redis) as proxy, run_two(redis, mode="streams") as (one, _):
        async with run(RedisBackplane(proxy.url, mode="streams"), "news", "gone") as node:
            one.backplane.publish("news", "seen")
            one.backplane.publish("gone", "seen")
            await wait_until(lambda: len(node.received) == 2)
            proxy.cut(refuse=True)
            await redis.command("DEL", "trio_ws:news", "trio_ws:gone")
            # A server whose clock is behind gives ids that are smaller than those before.
            data = encode(Envelope(b"stranger", 1, 0, "new"))
            await redis.command("XADD", "trio_ws:news", "5-0", "m", data)
            proxy.refuse = False
            await wait_until(lambda: len(node.received) == 3)
            assert messages(node)[2:] == ["new"]
            assert node.gaps == ["news", "gone"]
            one.backplane.publish("gone", "new")
            await wait_until(lambda: len(node.received) == 4)


async def test_a_server_that_became_a_replica_is_left_until_it_takes_messages_again(
    redis: RedisServer,
) -> None:
    async with run_two(redis, "news", mode="streams") as (one, other):
        await redis.command("REPLICAOF", HOST, "1")
        one.backplane.publish("news", "1")
        await wait_until(lambda: not one.statistics.connected)
        await redis.command("REPLICAOF", "NO", "ONE")
        await wait_until(lambda: other.received)
        assert (one.statistics.refused, one.statistics.dropped) == (0, 0)


async def test_without_permission_to_cut_a_wait_short_a_topic_is_heard_a_little_later(
    redis: RedisServer,
) -> None:
    await redis.command(
        *("ACL", "SETUSER", "guest", "on", ">pw", "+@all", "-client|unblock", "~*", "&*")
    )
    guest = RedisBackplane(f"redis://guest:pw@{HOST}:{redis.port}", mode="streams")
    async with run(RedisBackplane(redis.url, mode="streams")) as one, run(guest, "a") as node:
        await trio.sleep(0.1)
        guest.subscribe("b")
        with trio.fail_after(PATIENCE):
            await guest.wait_subscribed()
        one.backplane.publish("b", "1")
        await wait_until(lambda: node.received)
        assert guest.statistics().connections == 1


async def test_a_key_that_is_no_stream_leaves_other_topics_alone(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.command("SET", "trio_ws:wrong", "1")
    async with run_two(redis, "news", "wrong", mode="streams") as (one, other):
        assert "topic 'wrong': " in caplog.text
        other.backplane.unsubscribe("wrong")
        other.backplane.subscribe("wrong")
        await other.backplane.wait_subscribed()
        one.backplane.publish("wrong", "1")
        one.backplane.publish("news", "2")
        await wait_until(lambda: other.received and one.statistics.refused == 1)
        other.backplane.unsubscribe("wrong")
        await redis.command("DEL", "trio_ws:wrong")
        other.backplane.subscribe("weather")
        await other.backplane.wait_subscribed()
        other.backplane.subscribe("wrong")
        await other.backplane.wait_subscribed()
        one.backplane.publish("wrong", "3")
        await wait_until(lambda: len(other.received) == 2)
        assert other.received == [("news", "2"), ("wrong", "3")]
        assert other.statistics.connections == 1


async def test_without_permission_to_expire_streams_stay(redis: RedisServer) -> None:
    await redis.command("ACL", "SETUSER", "guest", "on", ">pw", "+@all", "-expire", "~*", "&*")
    guest = RedisBackplane(f"redis://guest:pw@{HOST}:{redis.port}", mode="streams")
    async with run(guest) as node:
        guest.publish("news", "1")
        await guest.flush()
        assert node.statistics.sent == 1
        assert len(await guest.history("news")) == 1
    assert await redis.command("TTL", "trio_ws:news") == b":-1\r\n"


async def test_streams_are_trimmed_and_go_when_they_are_not_used(redis: RedisServer) -> None:
    bounded = RedisBackplane(redis.url, mode="streams", stream_length=100, stream_ttl=50)
    endless = RedisBackplane(redis.url, mode="streams", stream_length=inf, stream_ttl=inf)
    async with run(bounded), run(endless):
        for number in range(1000):
            bounded.publish("bounded", str(number))
            endless.publish("endless", str(number))
        await bounded.flush()
        await endless.flush()
    assert int((await redis.command("XLEN", "trio_ws:bounded"))[1:]) <= 200
    assert int((await redis.command("XLEN", "trio_ws:endless"))[1:]) == 1000
    assert await redis.command("TTL", "trio_ws:endless") == b":-1\r\n"
    assert 40 < int((await redis.command("TTL", "trio_ws:bounded"))[1:]) <= 50


async def test_a_time_to_live_is_set_now_and_then_and_what_is_remembered_of_it_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_streams, "MAX_TOPICS", 10)
    incoming = Incoming(bytes(8), logging.getLogger("trio_ws"))
    streams = Streams("", inf, 3600.0, Interest(), incoming)
    lengths = [len(streams.commands(Item(1, topic, b""))) for topic in ("a", "a", "b")]
    assert lengths == [2, 1, 2]
    for number in range(10):
        streams.commands(Item(1, str(number), b""))
    assert len(streams.commands(Item(1, "a", b""))) == 2


# Streams: positions that go stale while the connections hold…


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at every second, or after a second's wait, is looked at sooner."""
    monkeypatch.setattr(_streams, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(_streams, "BLOCK", 50)


#: An id of the year 2286: Redis's clock was far ahead, and is no more.
AHEAD = "9999999999999-0"


def foreign(number: int, previous: int = 0, message: str = "") -> bytes:
    """What a publisher that is no more has left."""
    return encode(Envelope(b"stranger", number, previous, message or str(number)))


@pytest.mark.usefixtures("soon")
async def test_a_stream_that_begins_anew_with_smaller_ids_is_heard_and_the_gap_told(
    redis: RedisServer,
) -> None:
    async with run_two(redis, "news", mode="streams") as (one, other):
        await redis.command("XADD", "trio_ws:news", AHEAD, "m", foreign(1))
        await wait_until(lambda: other.received)
        await redis.command("FLUSHALL")
        one.backplane.publish("news", "2")
        one.backplane.publish("news", "3")
        await wait_until(lambda: len(other.received) == 3)
        assert messages(other) == ["1", "2", "3"]
        assert other.gaps == ["news"]
        assert other.statistics.connections == 1
        one.backplane.publish("news", "4")
        await wait_until(lambda: len(other.received) == 4)


@pytest.mark.usefixtures("soon")
async def test_a_clock_that_was_set_back_is_no_gap_as_long_as_the_stream_is_there(
    redis: RedisServer,
) -> None:
    async with run_two(redis, "news", "quiet", mode="streams") as (one, other):
        for topic in ("news", "quiet"):
            await redis.command("XADD", f"trio_ws:{topic}", AHEAD, "m", foreign(1))
        await wait_until(lambda: len(other.received) == 2)
        await trio.sleep(0.3)
        one.backplane.publish("news", "2")
        await wait_until(lambda: len(other.received) == 3)
        await trio.sleep(0.3)
        assert other.gaps == []


@pytest.mark.usefixtures("soon")
async def test_a_stream_that_expires_or_is_deleted_once_it_was_read_is_no_gap(
    redis: RedisServer,
) -> None:
    async with run_two(redis, "news", mode="streams", stream_ttl=1) as (one, other):
        one.backplane.publish("news", "1")
        await wait_until(lambda: other.received)
        with trio.fail_after(PATIENCE):
            while await redis.command("EXISTS", "trio_ws:news") != b":0\r\n":
                await trio.sleep(0.05)
        one.backplane.publish("news", "2")
        await wait_until(lambda: len(other.received) == 2)
        await redis.command("DEL", "trio_ws:news")
        await trio.sleep(0.1)
        one.backplane.publish("news", "3")
        await wait_until(lambda: len(other.received) == 3)
        assert other.gaps == []


async def test_what_was_trimmed_away_before_we_read_it_is_a_gap_whoever_wrote_it(
    redis: RedisServer,
) -> None:
    # All in one go, so that there is no read in between. The publisher is one that nobody here
    # knows, so that its numbers tell nothing.
    script = """
        for number = 1, 50 do
            local numbers = string.char(0, 0, 0, 0, 0, 0, 0, number)
            numbers = numbers .. string.char(0, 0, 0, 0, 0, 0, 0, number - 1)
            redis.call('XADD', KEYS[1], 'MAXLEN', 10, '*', 'm', ARGV[1] .. numbers)
        end
    """
    async with run_two(redis, "news", mode="streams", stream_length=10) as (one, other):
        one.backplane.publish("news", "seen")
        await wait_until(lambda: other.received)
        head = foreign(1)[:10]  # version, kind and origin
        assert await redis.command("EVAL", script, "1", "trio_ws:news", head) == b"$-1\r\n"
        await wait_until(lambda: len(other.received) == 11)
        await wait_until(lambda: other.gaps)
        assert other.gaps == ["news"]


@pytest.mark.usefixtures("soon")
async def test_a_stream_that_becomes_something_else_and_a_stream_again_is_heard_again(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_two(redis, "news", "weather", mode="streams") as (one, other):
        one.backplane.publish("news", "1")
        await wait_until(lambda: other.received)
        await redis.command("DEL", "trio_ws:news")
        await redis.command("SET", "trio_ws:news", "of somebody else")
        await wait_until(lambda: other.gaps)
        one.backplane.publish("weather", "2")
        await wait_until(lambda: len(other.received) == 2)
        assert "topic 'news': " in caplog.text
        await trio.sleep(0.2)
        assert other.statistics.malformed == 1  # however often it was looked at
        await redis.command("DEL", "trio_ws:news")
        one.backplane.publish("news", "3")
        await wait_until(lambda: len(other.received) == 3)
        assert messages(other) == ["1", "2", "3"]
        assert other.gaps == ["news"]
        assert other.statistics.connections == 1


@pytest.mark.usefixtures("soon")
async def test_the_only_topic_is_heard_when_what_had_its_name_is_gone(redis: RedisServer) -> None:
    await redis.command("SET", "trio_ws:news", "of somebody else")
    async with run_two(redis, "news", mode="streams") as (one, other):
        await redis.command("DEL", "trio_ws:news")
        one.backplane.publish("news", "1")
        await wait_until(lambda: other.received)


async def add_old_ones(redis: RedisServer) -> None:
    """Of two publishers that are no more."""
    for number in range(1, 20):
        data = foreign(number, number - 1)
        if number < 10:
            data = encode(Envelope(b"ancestor", number, number - 1, "old"))
        await redis.command("XADD", "trio_ws:news", f"{number}-0", "m", data)


async def test_after_a_failover_that_lost_the_newest_messages_old_ones_do_not_come_again(
    redis: RedisServer,
) -> None:
    """The replica that has taken over lags: it has what we had, but for the last of it."""
    await add_old_ones(redis)
    async with open_proxy(redis) as proxy:
        async with run(RedisBackplane(proxy.url, mode="streams"), "news", "known") as node:
            for topic in ("news", "known"):
                data = encode(Envelope(b"survivor", 1, 0, "seen"))
                await redis.command("XADD", f"trio_ws:{topic}", "20-0", "m", data)
            await redis.command("XADD", "trio_ws:known", "21-0", "m", foreign(1))
            await redis.command("XADD", "trio_ws:news", "21-0", "m", "hello")
            await wait_until(lambda: len(node.received) == 3)
            await wait_until(lambda: node.statistics.malformed)
            proxy.cut(refuse=True)
            await redis.command("DEL", "trio_ws:news")
            await add_old_ones(redis)
            await redis.command("XDEL", "trio_ws:known", "21-0")
            proxy.refuse = False
            await wait_until(lambda: len(node.gaps) == 2)
            await redis.command("XADD", "trio_ws:news", "20-0", "m", foreign(20, 19, "new"))
            await wait_until(lambda: len(node.received) == 4)
            assert messages(node)[3:] == ["new"]
            assert sorted(node.gaps, key=str) == ["known", "news"]


# Streams: no more at a time than fits…

#: What a backlog of any size may cost a process that reads it, in bytes: docs/backplane.md.
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
            assert (report["received"], report["gaps"]) == (600, [])
            assert report["peak"] - report["before"] < BOUND
            looked_back = await reader.next_report()
            assert looked_back["entries"] == 3
            assert looked_back["peak"] - report["before"] < BOUND


def test_a_portion_fits_in_bytes_and_grows_only_while_more_is_waiting() -> None:
    portion = Portion()
    assert portion.messages == 8
    portion.note([10], more=False)
    assert portion.messages == 8
    asked = []
    for _ in range(6):
        portion.note([10, 100], more=True)
        asked.append(portion.messages)
    assert asked == [16, 32, 32, 32, 32, 32]
    portion.note([100, 2**19, 100], more=True)
    assert portion.messages == 2
    portion.note([2**21], more=True)
    assert portion.messages == 1
    portion.note([], more=False)
    assert portion.messages == 1
    portion.note([0], more=False)
    assert portion.messages == 8


# Looking back…


async def test_history_gives_the_newest_the_oldest_first(redis: RedisServer) -> None:
    async with run_two(redis, mode="streams") as (one, other):
        assert one.backplane.keeps_history
        assert await one.backplane.history("news") == []
        await redis.command("XADD", "trio_ws:news", "*", "m", "from a stranger")
        await redis.command("XADD", "trio_ws:news", "*", "a", "b")
        ids = [one.backplane.publish("news", str(number)) for number in range(2500)]
        await one.backplane.flush()
        ids.append(other.backplane.publish("news", "2500"))
        await other.backplane.flush()
        whole = [HistoryEntry(each, str(number)) for number, each in enumerate(ids)]
        assert await other.backplane.history("news") == whole
        assert await one.backplane.history("news", count=3) == whole[-3:]
        assert await one.backplane.history("news", count=1700) == whole[-1700:]
        assert await one.backplane.history("news", since=ids[2300]) == whole[2301:]
        assert await one.backplane.history("news", since=ids[100]) == whole[101:]
        assert await one.backplane.history("news", since=ids[100], count=2) == whole[-2:]
        with pytest.raises(LookupError):
            await one.backplane.history("news", since="0123456789abcdef-1")


async def test_history_does_not_wait_for_a_redis_that_is_away_or_refuses(
    redis: RedisServer,
) -> None:
    async with run(RedisBackplane(redis.url, mode="streams", **QUICK)) as node:
        await redis.command("SET", "trio_ws:wrong", "1")
        with pytest.raises(BackplaneError, match="wrong kind of value"):
            await node.backplane.history("wrong")
        redis.stall()
        started_at = trio.current_time()
        with pytest.raises(BackplaneError, match="Connection lost"):
            await node.backplane.history("news")
        with pytest.raises(BackplaneError, match="is away"):
            await node.backplane.history("news")
        assert trio.current_time() < started_at + 3
        redis.go_on()


async def test_history_is_without_what_is_not_to_be_kept(redis: RedisServer) -> None:
    async with run_two(redis, "news", mode="streams") as (one, other):
        known = one.backplane.publish("news", "1")
        assert one.backplane.publish("news", "passing", keep=False) == ""
        await one.backplane.publish_wait("news", b"passing, too", keep=False)
        newest = one.backplane.publish("news", "2")
        await wait_until(lambda: len(other.received) == 4)
        assert messages(other) == ["1", "passing", b"passing, too", "2"]
        assert other.ids == [known, "", "", newest]
        assert await other.backplane.history("news", since=known) == [HistoryEntry(newest, "2")]


async def test_pubsub_keeps_no_history() -> None:
    backplane = RedisBackplane("redis://localhost")
    assert not backplane.keeps_history
    with pytest.raises(NotImplementedError, match="RedisBackplane keeps no history here"):
        await backplane.history("news")


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
            await worker.tell(json.dumps([other for other in names if other != name]))
            report = await worker.next_report()
            received = report["received"]
            from_victim = received.pop("v", [])
            assert from_victim == list(range(len(from_victim)))
            assert received == {other: list(range(share)) for other in names if other != name}
            assert report["gaps"] == []


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
            (received,) = report["received"].values()
            if mode == "streams":
                assert received == list(range(500))
                assert report["gaps"] == []
            else:
                assert received == sorted(set(received))
                assert received[0] == 0
                assert received[-1] == 499
                assert "everybody" in report["gaps"]


# Trying again…


def test_delays_double_up_to_the_last_and_begin_anew_after_one_that_held() -> None:
    backoff = Backoff()
    for longest in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2):
        assert longest / 2 <= backoff.delay(lasted=0.1) <= longest
    assert backoff.delay(lasted=60) <= 0.05
    assert 0.05 <= backoff.delay(lasted=0.1) <= 0.1


def test_many_do_not_come_at_once() -> None:
    assert len({Backoff().delay(lasted=0) for _ in range(10)}) > 5


# Options and URLs…


def test_the_keywords_are_the_options() -> None:
    names = {option.name: option.type for option in fields(RedisOptions)}
    assert list(RedisKeywords.__annotations__) == list(names)
    hints = get_type_hints(RedisOptions)
    assert get_type_hints(RedisKeywords) == {name: hints[name] for name in names}


def test_every_option_says_what_it_is() -> None:
    source = inspect.getsource(RedisOptions)
    for option in fields(RedisOptions):
        assert re.search(rf'^    {option.name}: .*\n    """', source, re.MULTILINE), option.name


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({"mode": "lists"}, ValueError, "mode is 'pubsub' or 'streams'"),
        ({"prefix": b"a:"}, TypeError, "prefix is a str"),
        ({"stream_length": 0}, ValueError, "stream_length is greater than 0"),
        ({"ping_interval": "1"}, TypeError, "ping_interval is a number"),
        ({"ssl_context": True}, TypeError, "ssl_context is an ssl.SSLContext"),
        ({"logger": "trio_ws"}, TypeError, "logger is a logging.Logger"),
        ({"retries": 3}, TypeError, "retries"),
    ],
)
def test_wrong_options_are_found_at_once(
    options: dict[str, Any], error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        RedisBackplane("redis://localhost", **options)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", Address(scheme=Scheme.TCP, host="localhost")),
        ("redis://h:1/2", Address(scheme=Scheme.TCP, host="h", port=1, database=2)),
        ("redis://h/?db=2", Address(scheme=Scheme.TCP, host="h", database=2)),
        (
            "rediss://me:p%40%2f@[::1]:7/",
            Address(scheme=Scheme.TLS, host="::1", port=7, username="me", password="p@/"),
        ),
        ("unix:///run/a%20b?db=4", Address(scheme=Scheme.UNIX, path="/run/a b", database=4)),
        ("unix://:pw@/r", Address(scheme=Scheme.UNIX, path="/r", password="pw")),
    ],
)
def test_urls_that_are_right(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://localhost", "the scheme 'http' is none of"),
        ("localhost:6379", "the scheme 'localhost' is none of"),
        ("redis://", "the host is missing"),
        ("redis://:secret@", "the host is missing"),
        ("redis://h:port", "(?i)port"),
        ("redis://h/news", "a database is a number, not 'news'"),
        ("redis://h/0?ssl_cert_reqs=none", "the rest are keyword arguments"),
        ("redis://h/#a", "more after the path"),
        ("redis://h/?db", "bad query field"),
        ("unix:///", "the path of the socket is missing"),
    ],
)
def test_urls_that_are_wrong(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        RedisBackplane(url)
    assert "it looks like redis://" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_url_is_a_str() -> None:
    wrong: Any = b"redis://localhost"
    with pytest.raises(TypeError, match="a Redis URL is a str, not bytes"):
        RedisBackplane(wrong)


def test_the_repr_and_the_log_show_no_password() -> None:
    backplane = RedisBackplane("rediss://me:secret@[::1]/5")
    assert repr(backplane) == "<RedisBackplane pubsub over rediss://[::1]:6379/5, not connected>"
    assert "secret" not in repr(parse_url("redis://me:secret@h"))


def test_without_coredis_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coredis", None)
    monkeypatch.setitem(sys.modules, "coredis.connection", None)
    monkeypatch.delitem(sys.modules, "trio_ws.backplane._redis.link", raising=False)
    with pytest.raises(ImportError, match=r"pip install \"trio-ws\[redis\]\""):
        RedisBackplane("redis://localhost")


def test_coredis_is_imported_only_where_it_is_used() -> None:
    code = "import sys, trio_ws.backplane; sys.exit('coredis' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_of_several_errors_the_gravest_is_told() -> None:
    lost, refused, mistake = BrokerLost("a"), BrokerRefused("b"), ZeroDivisionError()
    inner = ExceptionGroup("inner", [lost, refused])
    assert main_error(ExceptionGroup("outer", [inner, mistake])) is mistake
    assert main_error(inner) is refused
    assert main_error(ExceptionGroup("outer", [lost, lost])) is lost
