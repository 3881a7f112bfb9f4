"""The Redis backplane over streams: positions, where to go on, and what Redis may lose."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import pytest
import trio

from tests.backplane.backplane_helpers import Node, run
from tests.backplane.redis_helpers import (
    PATIENCE,
    QUICK,
    Proxy,
    keys,
    messages,
    open_proxy,
    positions,
    run_streams,
    wait_until,
)
from tests.backplane.redis_server import HOST, RedisServer
from trio_ws import Broadcast, open_broadcast
from trio_ws.backplane import BackplaneError, BackplaneMessage, Past, Position, RedisBackplane
from trio_ws.backplane._envelope import Envelope, encode
from trio_ws.backplane._redis import scripts as _scripts, streams as _streams
from trio_ws.backplane._redis.address import BrokerRefused
from trio_ws.backplane._redis.scripts import portion_in, push_in
from trio_ws.testing import check_backplane

META, LOG = keys("news")


def newest(node: Node) -> Position:
    """The position of the last message that came."""
    position = positions(node)[-1]
    assert position is not None
    return position


async def publish(node: Node, *several: str, topic: str = "news") -> None:
    for message in several:
        node.backplane.publish(topic, message)
    await node.backplane.flush()


def lone(url: str) -> RedisBackplane:
    return RedisBackplane(url, mode="streams")


@pytest.fixture
async def proxy(redis: RedisServer) -> AsyncGenerator[Proxy, None]:
    async with open_proxy(redis) as proxy:
        yield proxy


# Going on…


async def test_what_was_missed_comes_in_order_before_what_is_new(
    redis: RedisServer, proxy: Proxy
) -> None:
    async with run_streams(redis, "news") as (one, _), run(lone(proxy.url), "news") as node:
        await node.backplane.wait_subscribed()
        await publish(one, "1")
        await wait_until(lambda: node.received)
        proxy.cut(refuse=True)
        await publish(one, *[str(number) for number in range(2, 200)])
        proxy.refuse = False
        await node.backplane.wait_subscribed()
        await publish(one, "200")
        await wait_until(lambda: len(node.received) == 200)
        assert messages(node) == [str(number) for number in range(1, 201)]
        (start,) = node.attached
        assert positions(node) == [Position(start[1].epoch, number) for number in range(1, 201)]


async def test_what_comes_while_the_past_is_read_is_neither_lost_nor_doubled(
    redis: RedisServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is more than is held."""
    monkeypatch.setattr(_streams, "HELD_BYTES", 2000)
    monkeypatch.setattr(_streams, "READ_BYTES", 1000)
    sent: list[str] = []

    async def publish_on() -> None:
        while True:
            sent.append(str(len(sent)))
            one.backplane.publish("news", sent[-1])
            await trio.sleep(0.0002)

    async with run_streams(redis) as (one, _), run(lone(proxy.url), "news") as node:
        await node.backplane.wait_subscribed()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_on)
            for _ in range(4):
                await trio.sleep(0.1)
                proxy.cut()
                await wait_until(lambda: node.statistics.connected)
            await node.backplane.wait_subscribed()
            nursery.cancel_scope.cancel()
        await wait_until(lambda: len(node.received) >= len(sent))
        assert messages(node) == sent
        assert len(node.attached) == 1


async def test_a_message_read_after_its_topic_was_left_is_not_delivered(
    redis: RedisServer, proxy: Proxy
) -> None:
    def take_one(message: BackplaneMessage) -> None:
        received.append(message.message)
        joined.unsubscribe(message.topic)

    received: list[str | bytes] = []
    async with run_streams(redis) as (one, _):
        joined = lone(proxy.url)
        joined.subscribe("news")
        async with trio.open_nursery() as nursery:
            await nursery.start(joined.run, take_one, received.append)
            await joined.wait_subscribed()
            proxy.cut(refuse=True)
            await publish(one, *[str(number) for number in range(50)])  # then read all at once
            proxy.refuse = False
            await wait_until(lambda: received)
            joined.subscribe("weather")
            await joined.wait_subscribed()
            nursery.cancel_scope.cancel()
    assert received == ["0"]


async def test_a_topic_that_goes_and_comes_back_at_once_is_attached_anew(
    redis: RedisServer,
) -> None:
    async with run_streams(redis, "news") as (one, other):
        await publish(one, "1")
        await wait_until(lambda: other.received)
        for _ in range(20):
            other.backplane.unsubscribe("news")
            other.backplane.subscribe("news")
        await other.backplane.wait_attached("news")
        await publish(one, "2")
        await wait_until(lambda: len(other.received) == 2)
        assert messages(other) == ["1", "2"]
        assert [position.offset for _, position in other.attached] == [0, 1]
        assert other.statistics.gaps == 0


async def test_messages_that_are_not_kept_come_in_order_and_have_no_position(
    redis: RedisServer, proxy: Proxy
) -> None:
    async with run_streams(redis, "news") as (_, other), run(lone(proxy.url)) as one:
        one.backplane.publish("news", "1")
        one.backplane.publish("news", "passing", keep=False)
        await one.backplane.publish_wait("news", b"passing, too", keep=False)
        await publish(one, "2")
        await wait_until(lambda: len(other.received) == 4)
        assert messages(other) == ["1", "passing", b"passing, too", "2"]
        assert [position and position.offset for position in positions(other)] == [1, None, None, 2]
        assert await other.backplane.read("news", None, 9) == Past(newest(other), ("1", "2"))
        # Cut off before Redis answered, it sends them again. They are not in the stream.
        proxy.swallow_answers = True
        one.backplane.publish("news", "once", keep=False)
        await wait_until(lambda: len(other.received) == 5)
        proxy.swallow_answers = False
        proxy.cut()
        await publish(one, "3")
        await wait_until(lambda: len(other.received) == 6)
        assert messages(other)[4:] == ["once", "3"]
        assert other.statistics.duplicates == 1


# Being told…


async def test_messages_trimmed_away_while_we_were_away_are_a_gap(
    redis: RedisServer, proxy: Proxy
) -> None:
    async with run_streams(redis) as (one, _), run(lone(proxy.url), "news", "quiet") as node:
        await node.backplane.wait_subscribed()
        await publish(one, "seen")
        await publish(one, "seen", topic="quiet")
        await wait_until(lambda: len(node.received) == 2)
        proxy.cut(refuse=True)
        await publish(one, *[str(number) for number in range(10)])
        await redis.command("XTRIM", LOG, "MAXLEN", "3")
        proxy.refuse = False
        await node.backplane.wait_subscribed()
        await publish(one, "new")
        await publish(one, "new", topic="quiet")
        await wait_until(lambda: len(node.received) == 4)
        assert messages(node) == ["seen", "seen", "new", "new"]
        assert node.statistics.gaps == 1
        assert [(topic, place.offset) for topic, place in node.attached[2:]] == [("news", 11)]


@pytest.mark.parametrize("lost", [["FLUSHALL"], ["DEL", META], ["UNLINK", META, LOG]])
@pytest.mark.parametrize("away", [False, True])
async def test_a_topic_that_redis_has_lost_begins_a_new_epoch_and_the_gap_is_told(
    redis: RedisServer, proxy: Proxy, lost: list[str], away: bool
) -> None:
    async with run_streams(redis) as (one, _), run(lone(proxy.url), "news") as node:
        await node.backplane.wait_subscribed()
        await publish(one, "1", "2")
        await wait_until(lambda: len(node.received) == 2)
        if away:
            proxy.cut(refuse=True)
        await redis.command(*lost)
        await publish(one, "3")
        proxy.refuse = False
        await wait_until(lambda: len(node.attached) == 2)
        await publish(one, "4")
        # While it was connected, all came by itself. What came while it was away is in the past.
        expected = ["1", "2", "4"] if away else ["1", "2", "3", "4"]
        await wait_until(lambda: len(node.received) == len(expected))
        assert messages(node) == expected
        assert node.statistics.gaps == 1
        epochs = {position.epoch for _, position in node.attached}
        assert len(epochs) == 2
        assert newest(node).offset == 2
        assert (await node.backplane.read("news", None, 9)).messages == ("3", "4")


async def test_a_stream_that_was_evicted_alone_is_a_gap_only_to_those_who_need_it(
    redis: RedisServer,
) -> None:
    async with run_streams(redis, "news") as (one, other):
        await publish(one, "1", "2")
        await wait_until(lambda: len(other.received) == 2)
        before = newest(other)
        await redis.command("DEL", LOG)
        assert await other.backplane.read("news", None, 9) == Past(before, ())
        await publish(one, "3")
        await wait_until(lambda: len(other.received) == 3)
        assert newest(other) == Position(before.epoch, 3)
        assert other.statistics.gaps == 0
        past = await other.backplane.read("news", Position(before.epoch, 1), 9)
        assert past == Past(newest(other), ("3",))


async def snapshot(redis: RedisServer) -> dict[str, bytes]:
    """Both keys as they are now, as a replica that lags has them."""
    kept = {}
    for key in (META, LOG):
        answer = await redis.command("DUMP", key)
        size, _, rest = answer[1:].partition(b"\r\n")
        kept[key] = rest[: int(size)]
    return kept


async def put_back(redis: RedisServer, kept: dict[str, bytes]) -> None:
    for key, data in kept.items():
        assert await redis.command("RESTORE", key, "0", data, "REPLACE") == b"+OK\r\n"


@pytest.mark.parametrize("overtaken", [0, 1, 5])
async def test_after_a_failover_that_lost_the_newest_messages_the_gap_is_told(
    redis: RedisServer, proxy: Proxy, overtaken: int
) -> None:
    """However many others were published by then. Old ones do not come again."""
    async with run_streams(redis) as (one, _), run(lone(proxy.url), "news") as node:
        await node.backplane.wait_subscribed()
        await publish(one, "1", "2")
        kept = await snapshot(redis)
        await publish(one, "lost", "lost, too")
        await wait_until(lambda: len(node.received) == 4)
        last = newest(node)
        proxy.cut(refuse=True)
        await put_back(redis, kept)
        async with run(lone(redis.url)) as stranger:
            await publish(stranger, *[f"other {number}" for number in range(overtaken)])
        proxy.refuse = False
        await wait_until(lambda: len(node.attached) == 2)
        assert node.attached[-1][1].epoch != last.epoch
        await publish(one, "new")
        await wait_until(lambda: len(node.received) == 5)
        assert messages(node)[4:] == ["new"]
        past = await node.backplane.read("news", last, 9)
        assert past.position.epoch != last.epoch
        assert past.messages[:2] == ("1", "2")  # what is still good stays
        assert past.messages[-1] == "new"


async def test_a_publisher_that_knows_better_than_redis_begins_a_new_epoch(
    redis: RedisServer,
) -> None:
    async with run_streams(redis, "news") as (one, other):
        await publish(one, "1", "2")
        kept = await snapshot(redis)
        await publish(one, "lost")
        await wait_until(lambda: len(other.received) == 3)
        await put_back(redis, kept)
        await publish(one, "4")
        await wait_until(lambda: len(other.received) == 4)
        assert other.statistics.gaps == 1
        assert positions(other)[-2] != newest(other)
        assert newest(other).offset == 3


# Redis's commands and keys…


async def test_scripts_that_redis_has_forgotten_are_loaded_again_and_nothing_is_lost(
    redis: RedisServer,
) -> None:
    async with run_streams(redis, "news") as (one, other):
        for number in range(50):
            one.backplane.publish("news", str(number))
            if number % 10 == 5:
                await one.backplane.flush()
                await redis.command("SCRIPT", "FLUSH")
        await wait_until(lambda: len(other.received) == 50)
        assert messages(other) == [str(number) for number in range(50)]
        assert other.statistics.gaps == 0
        assert one.statistics.connections > 1
        assert one.statistics.refused == 0


async def test_a_server_that_became_a_replica_is_left_until_it_takes_messages_again(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_streams(redis, "news") as (one, other):
        await redis.command("REPLICAOF", HOST, "1")
        one.backplane.publish("news", "1")
        await wait_until(lambda: not one.statistics.connected)
        await wait_until(lambda: "it is a replica, which takes no messages" in caplog.text)
        await redis.command("REPLICAOF", "NO", "ONE")
        await wait_until(lambda: other.received)
        assert (one.statistics.refused, one.statistics.dropped) == (0, 0)
        assert other.statistics.gaps == 0


@pytest.mark.parametrize("key", [META, LOG])
async def test_a_key_that_is_something_else_leaves_other_topics_alone(
    redis: RedisServer, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.command("SET", key, "of somebody else")
    async with run_streams(redis, "news", "weather") as (one, other):
        if key == META:
            assert "topic 'news': Operation against a key" in caplog.text
            with pytest.raises(BackplaneError, match="wrong kind of value"):
                await one.backplane.read("news", None, 1)
        one.backplane.publish("news", "1")
        await publish(one, "2", topic="weather")
        await wait_until(lambda: other.received)
        assert one.statistics.refused == 1
        assert one.lost == [1]
        assert await redis.command("GET", key) == b"$16\r\nof somebody else\r\n"
        await redis.command("DEL", key)
        await publish(one, "3")
        await wait_until(lambda: len(other.received) == 2)
        assert other.received == [("weather", "2"), ("news", "3")]
        assert (await other.backplane.read("news", None, 9)).messages == ("3",)
        assert other.statistics.connections == 1


async def test_a_key_that_becomes_something_else_is_a_gap_when_it_is_next_read(
    redis: RedisServer, proxy: Proxy
) -> None:
    async with run_streams(redis) as (one, _), run(lone(proxy.url), "news") as node:
        await node.backplane.wait_subscribed()
        await publish(one, "1")
        await wait_until(lambda: node.received)
        await redis.command("SET", META, "of somebody else")
        proxy.cut()
        await wait_until(lambda: len(node.attached) == 2)
        assert node.statistics.malformed == 1
        await redis.command("DEL", META)
        await publish(one, "2")
        await wait_until(lambda: len(node.received) == 2)
        assert messages(node) == ["1", "2"]
        assert node.statistics.gaps == 2


async def test_what_strangers_put_in_our_place_is_ignored_or_makes_way(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    channel = "trio_ws:{news}"
    async with run_streams(redis, "news") as (one, other):
        await publish(one, "1")
        await wait_until(lambda: other.received)
        epoch = newest(other).epoch
        for data in ("", "hello", "@", "@x\nhello", f"@{epoch}-\nhello", "@\xff-1\n"):
            await redis.command("PUBLISH", channel, data)
        await wait_until(lambda: other.statistics.malformed == 6)
        assert "ignored data that is not a message, on topic 'news'" in caplog.text
        # Positions that are not there: one read shows it.
        await redis.command("PUBLISH", channel, f"@{epoch}-77\nhello")
        await redis.command("PUBLISH", channel, "@other-1\nhello")
        await publish(one, "2")
        await wait_until(lambda: len(other.received) == 2)
        assert other.statistics.gaps == 0
        # An entry with an id of Redis's own making, above which ours do not fit.
        await redis.command("XADD", LOG, "*", "m", "hello")
        assert await other.backplane.read("news", None, 9) == Past(newest(other), ("1", "2"))
        await publish(one, "3")
        await wait_until(lambda: len(other.received) == 3)
        assert messages(other) == ["1", "2", "3"]
        assert other.statistics.gaps == 1
        assert newest(other).offset == 1
        # One that looks like the next of ours.
        await redis.command("HSET", META, "offset", "2")
        await redis.command("XADD", LOG, "2-1", "other", "hello")
        assert await other.backplane.read("news", None, 9) == Past(
            Position(newest(other).epoch, 2), ()
        )
        await publish(one, "4")
        await wait_until(lambda: other.statistics.gaps == 2)
        await publish(one, "5")
        await wait_until(lambda: messages(other)[-1] == "5")
        assert other.statistics.connections == 1


async def test_streams_are_trimmed_and_go_when_they_are_not_used(redis: RedisServer) -> None:
    bounded = RedisBackplane(redis.url, mode="streams", stream_length=100, stream_ttl=50)
    endless = RedisBackplane(redis.url, mode="streams", stream_length=inf, stream_ttl=inf)
    async with run(bounded), run(endless, "quiet"):
        for number in range(1000):
            bounded.publish("bounded", str(number))
            endless.publish("endless", str(number))
        await bounded.flush()
        await endless.flush()
    assert int((await redis.command("XLEN", keys("bounded")[1]))[1:]) <= 200
    assert int((await redis.command("XLEN", keys("endless")[1]))[1:]) == 1000
    for key in (*keys("endless"), keys("quiet")[0]):
        assert await redis.command("TTL", key) == b":-1\r\n"
    for key in keys("bounded"):
        assert 40 < int((await redis.command("TTL", key))[1:]) <= 50


async def test_a_time_to_live_is_set_whenever_an_epoch_begins(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_streams, "MAX_TOPICS", 10)
    async with run(RedisBackplane(redis.url, mode="streams", stream_ttl=50)) as node:
        await publish(node, "1")
        await redis.command("FLUSHALL")
        await publish(node, "2")
        await redis.command("PERSIST", META)
        await publish(node, "3")  # it was set a moment ago
        assert await redis.command("TTL", META) == b":-1\r\n"
        assert await redis.command("TTL", LOG) == b":50\r\n"
        for number in range(10):
            await publish(node, "1", topic=str(number))
        await publish(node, "4")  # what was known of the topic is forgotten
        assert await redis.command("TTL", META) == b":50\r\n"


async def test_messages_that_are_too_old_are_given_to_nobody(redis: RedisServer) -> None:
    async with run(RedisBackplane(redis.url, mode="streams", stream_max_age=2)) as node:
        await publish(node, *[str(number) for number in range(20)])
        place = Position((await node.backplane.read("news", None, 0)).position.epoch, 0)
        await trio.sleep(2)
        while (past := await node.backplane.read("news", place, 99)).messages:
            await trio.sleep(0.1)
        assert past == Past(Position(place.epoch, 20), ())
        await publish(node, *[str(number) for number in range(20, 25)])
        past = await node.backplane.read("news", place, 99)
        assert past.messages == tuple(str(number) for number in range(20, 25))
    assert await redis.command("XLEN", LOG) == b":5\r\n"


async def test_a_clock_that_was_set_back_changes_nothing(redis: RedisServer) -> None:
    ahead = f"1-{round(time.time() * 1000) + 10**8}"
    data = encode(Envelope(b"stranger", 1, 0, "1"))
    await redis.command("HSET", META, "epoch", "e", "offset", "1", "failovers", "0")
    await redis.command("XADD", LOG, ahead, "m", data)
    async with run_streams(redis, "news", stream_max_age=60) as (one, other):
        await publish(one, "2")
        await wait_until(lambda: other.received)
        assert newest(other) == Position("e", 2)
        assert (await one.backplane.read("news", None, 9)).messages == ("1", "2")


async def test_publishers_that_come_and_go_do_not_add_up(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = _scripts.PUBLISH.replace(str(_scripts.MAX_PUBLISHERS), "3")
    monkeypatch.setattr(_streams, "PUBLISH", few)
    async with run_streams(redis, "news", stream_ttl=50) as (_, other):
        for number in range(10):
            async with run(RedisBackplane(redis.url, mode="streams", stream_ttl=50)) as node:
                await publish(node, str(number))
        await wait_until(lambda: len(other.received) == 10)
        assert int((await redis.command("HLEN", META))[1:]) <= 6
        assert 40 < int((await redis.command("TTL", META))[1:]) <= 50
        assert other.statistics.gaps == 0


# A full Redis…


async def test_a_full_redis_refuses_messages_and_goes_on_when_there_is_room(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_streams(redis, "news") as (one, other):
        await publish(one, "1")
        await wait_until(lambda: other.received)
        await redis.command("CONFIG", "SET", "maxmemory", "1")
        await publish(one, "2", "3")
        assert one.lost == [2, 3]
        assert (one.statistics.sent, one.statistics.refused) == (1, 2)
        assert "refuses a message on topic 'news', which is lost: OOM" in caplog.text
        one.backplane.publish("news", "passing", keep=False)
        await wait_until(lambda: len(other.received) == 2)
        other.backplane.subscribe("weather")
        await other.backplane.wait_subscribed()
        assert (await one.backplane.read("news", None, 9)).messages == ("1",)
        await redis.command("CONFIG", "SET", "maxmemory", "0")
        await publish(one, "4")
        await publish(one, "5", topic="weather")
        await wait_until(lambda: len(other.received) == 4)
        assert other.received[1:] == [("news", "passing"), ("news", "4"), ("weather", "5")]
        assert newest(other).offset == 1
        # Nothing was known of the weather, and there was no room to write down that it is empty.
        assert [topic for topic, _ in other.attached] == ["news", "weather", "weather"]


async def test_a_redis_that_evicts_loses_histories_and_tells(redis: RedisServer) -> None:
    async with run_streams(redis, "news") as (one, other):
        await publish(one, "1")
        await wait_until(lambda: other.received)
        place = newest(other)
        await redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        await redis.command("CONFIG", "SET", "maxmemory", "3mb")
        for number in range(300):
            one.backplane.publish(f"topic {number}", bytes(20_000))
            await one.backplane.flush()
        assert one.statistics.refused == 0
        past = await one.backplane.read("news", place, 9)
        assert past.position.epoch != place.epoch or past == Past(place, ())
        await publish(one, "2")
        await wait_until(lambda: len(other.received) == 2)
        assert messages(other) == ["1", "2"]


# Looking back…


async def test_a_read_gives_the_newest_the_oldest_first(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_streams, "READ_BYTES", 5000)  # so that it takes several portions
    async with run_streams(redis) as (one, other):
        past = await one.backplane.read("news", None, 9)
        assert (past.position.offset, past.messages) == (0, ())
        epoch = past.position.epoch
        whole = tuple(str(number) for number in range(1, 1001))
        await publish(one, *whole)
        end = Position(epoch, 1000)
        for after, count, expected in [
            (None, 9999, whole),
            (None, 3, whole[-3:]),
            (None, 0, ()),
            (Position(epoch, 0), 9999, whole),
            (Position(epoch, 990), 9999, whole[990:]),
            (Position(epoch, 990), 3, whole[-3:]),
            (end, 9, ()),
            (Position(epoch, 10**17), 9, ()),  # which is what a client made up
            (Position("made0up", 5), 9, whole[-9:]),
        ]:
            assert await other.backplane.read("news", after, count) == Past(end, expected)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_on, one)
            for _ in range(5):
                past = await other.backplane.read("news", None, 9999)
                assert past.messages[:1000] == whole
                assert len(past.messages) == past.position.offset
            nursery.cancel_scope.cancel()


async def publish_on(node: Node) -> None:
    while True:
        await publish(node, "meanwhile")


async def test_a_read_does_not_wait_for_a_redis_that_is_away(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with run(RedisBackplane(redis.url, mode="streams", **QUICK)) as node:
        with pytest.raises(TypeError, match="a topic that other processes share is a str"):
            await node.backplane.read(b"news", None, 9)  # type: ignore[arg-type]  # the mistake
        await node.backplane.wait_subscribed()
        redis.stall()
        with pytest.raises(BackplaneError, match="Connection lost"):
            await node.backplane.read("news", None, 9)
        await wait_until(lambda: "it has been silent for 0.3 s" in caplog.text)
        with pytest.raises(BackplaneError, match="is away"):
            await node.backplane.read("news", None, 9)
        redis.go_on()


async def test_a_read_during_which_an_epoch_begins_is_made_anew_and_given_up_in_the_end(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_streams, "READ_BYTES", 100)
    async with run_streams(redis) as (one, _):
        await publish(one, *[str(number) for number in range(100)])
        times = 2

        async def lose_it() -> None:
            nonlocal times
            while times:
                await redis.command("HSET", META, "epoch", f"epoch{times}")
                times -= 1
                await trio.sleep(0.001)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose_it)
            past = await one.backplane.read("news", None, 99)
            assert past.messages == tuple(str(number) for number in range(1, 100))
            times = 10**6
            nursery.start_soon(lose_it)
            with pytest.raises(BackplaneError, match="loses the history of topic 'news' again"):
                for _ in range(1000):
                    await one.backplane.read("news", None, 99)
            nursery.cancel_scope.cancel()


# Answers that are not Redis's, or are malformed…


@pytest.mark.parametrize(
    "answer",
    [
        b"OK",
        None,
        [],
        [b"e"],
        [b"e", b"1", b"2"],
        [b"e", 1],
        [b"e", b"x"],
        [b"-", b"1"],
        [b"\xff", b"1"],
        [b"e", b"1", b"y", b""],
    ],
)
def test_an_answer_that_is_not_redis_s_is_a_refusal(answer: Any) -> None:
    with pytest.raises(BrokerRefused, match="it answered .* instead of messages"):
        portion_in(answer)


def test_what_comes_over_a_channel_is_taken_apart() -> None:
    assert push_in(b"@e1-5\n\n@") == (Position("e1", 5), b"\n@")
    assert push_in(b"\x01 not kept") == (None, b"\x01 not kept")
    for data in (b"@e1-5", b"@e1\nx", b"@e1-05\nx", b"@\xff-5\nx"):
        with pytest.raises(ValueError, match=r"position|ascii"):
            push_in(data)


# Under a broadcast…


async def test_two_thousand_that_come_back_at_once_cost_a_few_reads_of_redis(
    redis: RedisServer,
) -> None:
    async with open_broadcast(history=500, envelope=_numbered, backplane=lone(redis.url)) as there:
        for number in range(400):
            there.publish(str(number), "news")
        async with there.open_channel("news") as channel:
            known = [str(await channel.receive()).split()[0] for _ in range(400)]
        await redis.command("CONFIG", "RESETSTAT")
        outcomes: list[bool] = []

        async def come_back(broadcast: Broadcast, number: int) -> None:
            position = known[number % 400]
            async with broadcast.open_channel(
                "news", position=position, max_queued_messages=1000
            ) as mine:
                missed = [str(await mine.receive()) for _ in range(399 - number % 400)]
                assert [text.split()[0] for text in missed] == known[number % 400 + 1 :]
                outcomes.append(mine.recovered)

        async with (
            open_broadcast(history=500, envelope=_numbered, backplane=lone(redis.url)) as here,
            trio.open_nursery() as nursery,
        ):
            for number in range(2000):
                nursery.start_soon(come_back, here, number)
        assert outcomes == 2000 * [True]
    answer = await redis.command("INFO", "commandstats")
    assert 1 <= int(answer.split(b"cmdstat_evalsha:calls=")[1].split(b",")[0]) <= 5


def _numbered(message: str | bytes, position: str, topic: str) -> str:
    return f"{position} {message!s}"


async def test_it_keeps_the_contract_of_backplanes(redis: RedisServer) -> None:
    @asynccontextmanager
    async def interrupt() -> AsyncGenerator[None, None]:
        redis.kill()
        try:
            yield
        finally:
            await redis.start()

    await check_backplane(lambda: lone(redis.url), interrupt=interrupt, within=PATIENCE)
