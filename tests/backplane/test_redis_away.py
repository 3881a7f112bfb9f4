"""The Redis backplane when Redis is away: not started, killed, stalled, or no Redis at all."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
import trio

from tests.backplane.backplane_helpers import Node, run
from tests.backplane.redis_helpers import (
    PATIENCE,
    PATIENT,
    QUICK,
    Mode,
    both_modes,
    messages,
    open_proxy,
    positions,
    publish_until_received,
    run_streams,
    run_two,
    wait_until,
)
from tests.backplane.redis_server import HOST, RedisServer
from trio_ws.backplane import BackplaneMessage, RedisBackplane
from trio_ws.backplane._redis.address import BrokerLost
from trio_ws.backplane._redis.backplane import make_backoff
from trio_ws.backplane._redis.link import Link

# When Redis is away…


@both_modes
async def test_a_backplane_starts_without_redis_and_finds_it_later(
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


def streams_lose_nothing(node: Node, sent: list[str | bytes]) -> None:
    assert messages(node) == sent
    assert node.gaps == []


def pubsub_tells_the_gap(node: Node, sent: list[str | bytes]) -> None:
    got = [int(message) for message in messages(node)]
    assert got == sorted(set(got))
    assert set(range(2001, 3000)) <= set(got)
    assert set(node.gaps) == {"news"}


AFTER_A_KILL = {"pubsub": pubsub_tells_the_gap, "streams": streams_lose_nothing}


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
                with trio.fail_after(PATIENCE):
                    await other.backplane.wait_subscribed()
                    await one.backplane.flush()
        await wait_until(lambda: other.received[-1:] == [("news", "2999")])
        AFTER_A_KILL[mode](other, sent)
        assert one.statistics.dropped == 0


async def streams_carry_what_was_published_meanwhile(node: Node, sent: list[str]) -> None:
    await wait_until(lambda: messages(node) == sent)


async def pubsub_tells_at_least_one_gap(node: Node, sent: list[str]) -> None:
    # Whatever the old connection still carried, and the new one repeated.
    assert messages(node) == [each for each in sent if each in messages(node)]
    assert node.gaps[:1] == ["news"]


AFTER_A_STALL = {
    "pubsub": pubsub_tells_at_least_one_gap,
    "streams": streams_carry_what_was_published_meanwhile,
}


@both_modes
async def test_a_stalled_redis_is_found_and_left_and_found_again(
    redis: RedisServer, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_two(redis, "news", mode=mode, **QUICK) as (one, other):
        await other.backplane.wait_subscribed()
        sent = await publish_until_received(one, other, "news", "before")
        await one.backplane.flush()
        redis.stall()
        try:
            sent.append("meanwhile")
            one.backplane.publish("news", "meanwhile")
            await wait_until(lambda: not (one.statistics.connected or other.statistics.connected))
            assert "it has been silent for 0.3 s" in caplog.text
            await trio.sleep(1)  # tries that fail
        finally:
            redis.go_on()
        await one.backplane.flush()
        await other.backplane.wait_subscribed()
        sent += await publish_until_received(one, other, "news", "after")
        await AFTER_A_STALL[mode](other, sent)


@both_modes
@pytest.mark.parametrize("how", ["kill", "stall"])
async def test_leaving_while_redis_is_away_takes_no_time(
    redis: RedisServer, mode: Mode, how: str
) -> None:
    async with run_two(redis, "news", mode=mode, **PATIENT) as (one, _):
        getattr(redis, how)()
        for number in range(100):
            one.backplane.publish("news", str(number))
        await trio.sleep(0.1)
        left_at = trio.current_time()
    assert trio.current_time() < left_at + PATIENCE
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
    async with open_proxy(redis) as proxy, run_streams(redis, "news") as (_, other):
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
            assert other.statistics.duplicates == 0  # Redis itself has noticed
            past = await one.backplane.read("news", None, 10)
            assert past.messages == ("1", "2", "3", "4", "5")
            assert past.position == positions(other)[-1]
            assert other.statistics.gaps == 0


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
async def test_bytes_that_are_no_answer_of_redis_are_a_lost_connection(
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
async def test_a_redis_that_is_not_ready_counts_as_away(
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


async def test_a_redis_that_goes_away_while_we_connect_leaves_nothing_behind(
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
            assert 0.2 <= trio.current_time() - started_at < PATIENCE
            assert "no answer within 0.2 s" in caplog.text


async def test_a_connection_that_ends_without_an_error_is_a_lost_one() -> None:
    class Quiet:
        """A reader as coredis may behave, although no Redis makes it do so."""

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


async def publish_until_cancelled(node: Node) -> None:
    while True:
        node.backplane.publish("news", "1")
        await trio.sleep(0.01)


async def test_a_mistake_in_a_callback_comes_out_bare(redis: RedisServer) -> None:
    def deliver(_: BackplaneMessage) -> None:
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


# Trying again…


def test_delays_double_up_to_two_seconds_and_begin_anew_after_a_connection_that_held() -> None:
    backoff = make_backoff()
    for longest in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2):
        assert longest / 2 <= backoff.delay(lasted=0.1) <= longest
    assert backoff.delay(lasted=60) <= 0.05
    assert 0.05 <= backoff.delay(lasted=0.1) <= 0.1


def test_many_processes_do_not_come_back_to_redis_at_once() -> None:
    assert len({make_backoff().delay(lasted=0) for _ in range(10)}) > 5
