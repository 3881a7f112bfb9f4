"""The Redis backplane over streams: where to go on, and positions that go stale."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
import trio

from tests.backplane.backplane_helpers import run
from tests.backplane.redis_helpers import PATIENCE, messages, open_proxy, run_two, wait_until
from tests.backplane.redis_server import HOST, RedisServer
from trio_ws.backplane import BackplaneMessage, RedisBackplane
from trio_ws.backplane._envelope import Envelope, encode
from trio_ws.backplane._incoming import Incoming
from trio_ws.backplane._interest import Interest
from trio_ws.backplane._outgoing import Item
from trio_ws.backplane._redis import streams as _streams
from trio_ws.backplane._redis.address import BrokerRefused
from trio_ws.backplane._redis.streams import Streams, entries_in, milliseconds_in, time_of

# Streams: where to go on…


async def test_messages_trimmed_away_while_we_were_away_are_a_gap(redis: RedisServer) -> None:
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


async def test_a_message_read_after_its_topic_was_left_is_not_delivered(redis: RedisServer) -> None:
    def take_one(message: BackplaneMessage) -> None:
        received.append(message.message)
        joined.unsubscribe(message.topic)

    received: list[str | bytes | None] = []
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
    """Shorten checks that come every second, and waits of a second."""
    monkeypatch.setattr(_streams, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(_streams, "BLOCK", 50)


#: An id of the year 2286: Redis's clock was far ahead, and is no more.
AHEAD = "9999999999999-0"


def foreign(number: int, previous: int = 0, message: str = "") -> bytes:
    """A message left behind by a publisher that is gone."""
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


async def test_messages_trimmed_away_before_we_read_them_are_a_gap_whoever_wrote_them(
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


# Answers that are not Redis's, or are malformed…


@pytest.mark.parametrize(
    ("read", "answer", "problem"),
    [
        (entries_in, b"OK", "it answered b.OK. instead of entries"),
        (entries_in, [[b"1-0"]], r"it answered .* instead of entries"),
        (milliseconds_in, b"now", "it answered b'now' instead of the time"),
        (milliseconds_in, [b"1", b"soon"], "it answered .* instead of the time"),
        (time_of, b"soon-1", "b'soon-1' is not the id of an entry"),
    ],
)
def test_an_answer_that_is_not_redis_s_is_a_refusal(
    read: Callable[[Any], object], answer: object, problem: str
) -> None:
    with pytest.raises(BrokerRefused, match=problem):
        read(answer)
