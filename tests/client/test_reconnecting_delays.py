"""Reconnecting: how long it waits, before which server it tries, and that there is no storm."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from email.utils import formatdate
from itertools import pairwise

import pytest
import trio

from tests.client.network import (
    URL,
    Server,
    answering,
    closing,
    in_turn,
    memory_network,
    refusing,
    serving,
)
from tests.helpers import Laptop, echo
from trio_ws import Link, reconnecting

pytestmark = pytest.mark.autojump

HOUR = 3600
WHILE = 1200


async def go_on(links: AsyncIterator[Link]) -> None:
    async for link in links:
        async with link as ws:
            async for _ in ws:
                pass


def rising(gaps: list[float], *, add: float = 0.0) -> bool:
    """Whether each is in its range: from half a second to 1, 2, 4 and so on up to 30."""
    longest = [min(2.0**number, 30) for number in range(len(gaps))]
    return all(add + 0.5 <= gap <= add + most + 0.01 for gap, most in zip(gaps, longest))  # noqa: B905 - of one length


@pytest.mark.parametrize(
    "server", [refusing(), answering(503), answering(500), closing(1011), closing(1000)]
)
async def test_in_an_hour_a_server_that_fails_sees_few_attempts_further_and_further_apart(
    server: Server,
) -> None:
    async with memory_network(server) as network:
        with trio.move_on_after(HOUR):
            await go_on(reconnecting(URL))
    assert rising(network.gaps)
    assert 180 < len(network.attempts) < 320  # one in 15.25 s on average
    assert len({round(gap, 3) for gap in network.gaps}) > 150  # at random


async def test_in_an_hour_a_server_that_hangs_sees_an_attempt_at_a_time() -> None:
    async with memory_network(None) as network:
        with trio.move_on_after(HOUR):
            await go_on(reconnecting(URL, open_timeout=4))
    assert rising(network.gaps, add=4)
    assert 150 < len(network.attempts) < 250


async def test_in_an_hour_a_name_that_is_not_found_is_looked_up_few_times() -> None:
    looked_up: list[float] = []

    class Directory(dict[str, str]):
        def __contains__(self, name: object) -> bool:
            looked_up.append(trio.current_time())
            return False

    async with memory_network(names=Directory()):
        with trio.move_on_after(HOUR):
            await go_on(reconnecting("ws://feed.example/"))
    assert 180 < len(looked_up) < 320


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_waited_for_and_the_delay_comes_on_top(status: int) -> None:
    async with memory_network(answering(status, "Retry-After: 60")) as network:
        with trio.move_on_after(WHILE):
            await go_on(reconnecting(URL))
    assert rising(network.gaps, add=60)
    assert 13 < len(network.attempts) < 20


async def test_retry_after_may_come_from_a_proxy() -> None:
    async with memory_network(answering(503, "Retry-After: 60")) as network:
        with trio.move_on_after(WHILE):
            await go_on(reconnecting("ws://inner.example/", proxy="http://10.0.0.1"))
    assert rising(network.gaps, add=60)
    assert 13 < len(network.attempts) < 20


async def test_retry_after_may_be_a_date() -> None:
    fields = [
        f"Retry-After: {formatdate(1000, usegmt=True)}",
        f"Date: {formatdate(900, usegmt=True)}",
    ]
    async with memory_network(answering(503, *fields)) as network:
        with trio.move_on_after(WHILE):
            await go_on(reconnecting(URL))
    assert rising(network.gaps, add=100)


async def test_retry_after_has_a_limit() -> None:
    async with memory_network(answering(503, "Retry-After: 86400")) as network:
        with trio.move_on_after(WHILE):
            await go_on(reconnecting(URL))
        assert rising(network.gaps, add=300)
        network.attempts.clear()
        with trio.move_on_after(WHILE):
            await go_on(reconnecting(URL, max_retry_after=10))
        assert rising(network.gaps, add=10)


async def test_the_delays_have_the_bounds_that_are_given() -> None:
    async with memory_network(refusing()) as network:
        with trio.move_on_after(WHILE):
            await go_on(reconnecting(URL, min_delay=10, max_delay=15))
    assert all(10 <= gap <= 15 for gap in network.gaps)
    assert max(network.gaps) > 14


# When they begin anew…


async def test_they_begin_anew_after_a_connection_that_outlived_the_delay_before_it() -> None:
    refused = [answering(503)] * 6
    servers = in_turn(*refused, closing(1011, after=31), answering(503), answering(503), None)
    async with memory_network(servers) as network:
        with trio.move_on_after(WHILE):
            await go_on(reconnecting(URL))
    assert rising(network.gaps[:6])
    assert rising([network.gaps[6] - 31, *network.gaps[7:9]])


async def test_they_go_on_after_a_connection_that_did_not() -> None:
    async with memory_network(closing(1011, after=0.4)) as network:
        with trio.move_on_after(WHILE):
            await go_on(reconnecting(URL))
    assert rising([gap - 0.4 for gap in network.gaps])
    assert max(network.gaps) > 20


async def test_they_begin_anew_after_a_connection_that_said_it_was_healthy() -> None:
    async with memory_network(closing(1011)) as network:
        with trio.move_on_after(60):
            async for link in reconnecting(URL):
                async with link as ws:
                    link.healthy()
                    await ws.wait_closed()
    assert all(0.5 <= gap <= 1.01 for gap in network.gaps)
    assert len(network.gaps) > 55


async def test_a_round_that_is_cancelled_does_not_shorten_the_delay() -> None:
    async with memory_network(refusing()) as network:
        links = reconnecting(URL, min_delay=5)
        for _ in range(600):
            with trio.move_on_after(0.1):
                await anext(links)
        assert min(network.gaps) >= 5
        assert len(network.attempts) > 3


async def test_a_link_that_is_not_entered_counts_as_a_failure() -> None:
    async with memory_network(serving(echo)) as network:
        links = reconnecting(URL)
        await anext(links)
        for _ in range(10):
            with pytest.warns(ResourceWarning):
                await anext(links)
        assert rising(network.gaps)


# Storms…


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012])
@pytest.mark.parametrize("says_healthy", [True, False])
async def test_a_server_that_accepts_and_closes_sees_at_most_10_attempts_in_2_seconds(
    code: int, says_healthy: bool
) -> None:
    async with memory_network(closing(code)) as network:
        with trio.move_on_after(2):
            async for link in reconnecting(URL):
                async with link as ws:
                    if says_healthy:
                        link.healthy()
                    async for _ in ws:
                        pass
    assert 2 <= len(network.attempts) <= 5


async def test_an_application_that_renews_all_the_time_causes_no_storm() -> None:
    async with memory_network(serving(echo)) as network:
        with trio.move_on_after(60):
            async for link in reconnecting(URL):
                async with link as ws:
                    link.renew()
                    async for _ in ws:
                        pass
    assert min(network.gaps) >= 0.5


# Several servers…

URLS = ["ws://10.0.0.1/", "ws://10.0.0.2/", "ws://10.0.0.3/"]


async def test_one_of_several_that_works_is_found_at_once_and_kept() -> None:
    links = 0
    async with memory_network(refusing()) as network:
        network.servers["10.0.0.2"] = closing(1012, after=60)
        network.servers["10.0.0.3"] = answering(503)
        async for link in reconnecting(URLS):
            links += 1
            async with link as ws:
                await ws.wait_closed()
            if links == 10:
                break
    found = [address for _, address in network.attempts].index("10.0.0.2")
    assert found <= 2
    assert network.times[found] == 0
    assert {address for _, address in network.attempts[found:]} == {"10.0.0.2"}


async def test_another_one_is_tried_at_once_when_the_one_that_worked_is_gone() -> None:
    async with memory_network(serving(echo)) as network:
        network.servers["10.0.0.2"] = None
        network.servers["10.0.0.3"] = None
        links = reconnecting(URLS, open_timeout=10)
        async with await anext(links):
            await trio.sleep(60)
        network.servers["10.0.0.1"] = refusing()
        network.servers["10.0.0.2"] = network.servers["10.0.0.3"] = serving(echo)
        network.attempts.clear()
        link = await anext(links)
        async with link:
            pass
        (first, second) = network.attempts
        assert first[1] == "10.0.0.1"
        assert second[0] == first[0]
        assert link.waited <= 1.01


async def test_each_has_a_back_off_of_its_own() -> None:
    async with memory_network(refusing()) as network:
        network.servers["10.0.0.2"] = answering(503, "Retry-After: 100")
        network.servers["10.0.0.3"] = closing(1011)
        with trio.move_on_after(WHILE):
            await go_on(reconnecting(URLS))
        for address, add in (("10.0.0.1", 0), ("10.0.0.2", 100), ("10.0.0.3", 0)):
            times = [when for when, where in network.attempts if where == address]
            gaps = [later - when for when, later in pairwise(times)]
            assert rising(gaps, add=add)


async def test_the_clients_of_a_server_that_is_gone_spread_over_the_others() -> None:
    seconds = set()
    async with memory_network(refusing()) as network:
        network.servers["10.0.0.2"] = network.servers["10.0.0.3"] = refusing()
        for seed in range(20):
            random.seed(seed)
            network.attempts.clear()
            with trio.move_on_after(0.1):
                await go_on(reconnecting(URLS))
            order = [where for _, where in network.attempts]
            assert sorted(order) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
            seconds.add(tuple(order))
    assert len(seconds) == 6


# Waking up…


async def test_a_computer_that_wakes_tries_at_once() -> None:
    laptop = Laptop()
    async with memory_network(refusing()) as network:
        network.servers["10.0.0.2"] = answering(503, "Retry-After: 300")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_on, reconnecting(URLS[:2], min_delay=100, max_delay=100))
            await trio.sleep(50)
            assert network.times == [0, 0]
            laptop.sleep(HOUR)
            await trio.sleep(2)
            assert {address for _, address in network.attempts[2:]} == {"10.0.0.1", "10.0.0.2"}
            assert all(50 <= when <= 51 for when in network.times[2:])
            await trio.sleep(90)
            assert len(network.attempts) == 4
            nursery.cancel_scope.cancel()
