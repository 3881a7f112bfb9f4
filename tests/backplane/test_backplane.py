"""What every backplane does: carrying, losing the others, waiting, ending, and its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.backplane.backplane_helpers import run, run_two
from tests.helpers import counting_turns
from trio_ws import CALLS_PER_CHECKPOINT, WebSocketError, backplane
from trio_ws.backplane import (
    Backplane,
    BackplaneError,
    BackplaneMessage,
    BackplaneStatistics,
    MemoryBackplane,
    MemoryHub,
)
from trio_ws.backplane._envelope import Envelope, encode

pytestmark = pytest.mark.autojump


# Carrying…


async def test_a_message_reaches_the_others_and_not_its_publisher() -> None:
    hub = MemoryHub()
    async with run_two(hub, "news") as (one, other), run(MemoryBackplane(hub), "news") as third:
        one.backplane.publish("news", "text")
        one.backplane.publish("news", b"bytes")
        one.backplane.publish("news", bytearray(b"more"))
        one.backplane.publish("news", memoryview(b"view"))
        await one.backplane.flush()
        assert [message for _, message in other.received] == ["text", b"bytes", b"more", b"view"]
        assert third.received == other.received
        assert one.received == []


async def test_whether_a_message_is_to_be_kept_is_carried_with_it() -> None:
    async with run_two(MemoryHub(), "news") as (one, other):
        one.backplane.publish("news", "1")
        one.backplane.publish("news", "2", keep=False)
        await one.backplane.publish_wait("news", b"3", keep=False)
        await one.backplane.flush()
        assert other.messages == [
            BackplaneMessage("news", "1", True, None, None),
            BackplaneMessage("news", "2", False, None, None),
            BackplaneMessage("news", b"3", False, None, None),
        ]


async def test_tokens_grow_and_those_of_lost_messages_are_told() -> None:
    hub = MemoryHub()
    async with run_two(hub, "news", max_queued_messages=1) as (one, _):
        hub.pause()
        tokens = [one.backplane.publish("news", str(number)) for number in range(4)]
        assert tokens == sorted({*tokens})
        assert one.lost == tokens[:3]
    assert one.backplane.publish("news", "too late") == one.lost[-1] > tokens[-1]


async def test_only_topics_that_are_subscribed_to_are_delivered() -> None:
    async with run_two(MemoryHub(), "news") as (one, other):
        one.backplane.publish("news", "1")
        one.backplane.publish("weather", "2")
        await one.backplane.flush()
        other.backplane.subscribe("weather")
        other.backplane.subscribe("weather")
        await other.backplane.wait_subscribed()
        one.backplane.publish("weather", "3")
        await one.backplane.flush()
        other.backplane.unsubscribe("weather")
        other.backplane.unsubscribe("weather")
        one.backplane.publish("weather", "4")
        await one.backplane.flush()
        assert other.received == [("news", "1"), ("weather", "3")]


async def test_a_message_published_before_a_backplane_runs_is_carried_when_it_does() -> None:
    hub = MemoryHub()
    early = MemoryBackplane(hub)
    early.publish("news", "early")
    async with run(MemoryBackplane(hub), "news") as other, run(early):
        await early.flush()
        assert other.received == [("news", "early")]


async def test_many_messages_arrive_in_order_and_others_run_meanwhile() -> None:
    async with run_two(MemoryHub(), "news") as (one, other):
        for number in range(5000):
            one.backplane.publish("news", str(number))
        async with counting_turns() as turns:
            await one.backplane.flush()
        assert [message for _, message in other.received] == [str(n) for n in range(5000)]
        assert turns.count >= 5000 // CALLS_PER_CHECKPOINT


async def test_statistics_count() -> None:
    async with run_two(MemoryHub(), "news", max_queued_messages=3) as (one, other):
        for number in range(4):
            one.backplane.publish("news", str(number))
        assert one.statistics.queued_messages == 3
        assert one.statistics.queued_bytes == 3 * len(encode(Envelope(b"x" * 8, 1, 0, "1")))
        await one.backplane.flush()
        assert one.statistics == BackplaneStatistics(
            connected=True,
            connections=1,
            queued_messages=0,
            queued_bytes=0,
            published=4,
            sent=3,
            refused=0,
            dropped=1,
            delivered=0,
            duplicates=0,
            malformed=0,
            gaps=0,
        )
        assert other.statistics.delivered == 3


# Losing and finding the others…


async def test_while_the_hub_is_away_messages_wait_and_then_there_is_a_gap_notice() -> None:
    hub = MemoryHub()
    async with run_two(hub, "news", "weather") as (one, other):
        one.backplane.publish("news", "before")
        await one.backplane.flush()
        hub.pause()
        assert not one.statistics.connected
        one.backplane.publish("news", "meanwhile")
        await trio.testing.wait_all_tasks_blocked()
        assert [message for _, message in other.received] == ["before"]
        assert other.gaps == []
        hub.resume()
        hub.resume()
        await one.backplane.flush()
        assert [message for _, message in other.received] == ["before", "meanwhile"]
        assert other.gaps == ["news", "weather"]
        assert other.statistics.connections == 2


async def test_a_topic_first_wanted_while_the_hub_is_away_has_no_gap() -> None:
    hub = MemoryHub()
    hub.pause()
    async with run_two(hub, "news") as (one, other):
        assert one.statistics.connections == 0
        other.backplane.subscribe("weather")
        with trio.move_on_after(1) as scope:
            await other.backplane.wait_subscribed()
        assert scope.cancelled_caught
        hub.resume()
        await other.backplane.wait_subscribed()
        assert other.gaps == []


async def test_messages_that_a_full_queue_drops_are_a_gap_to_the_others() -> None:
    hub = MemoryHub()
    async with run_two(hub, "news", max_queued_messages=2) as (one, other):
        one.backplane.publish("news", "0")
        await one.backplane.flush()
        for number in range(1, 6):
            one.backplane.publish("news", str(number))
        await one.backplane.flush()
        assert [message for _, message in other.received] == ["0", "4", "5"]
        assert other.gaps == ["news"]
        assert one.statistics.dropped == 3


async def test_other_topics_have_no_gap_where_one_has() -> None:
    async with run_two(MemoryHub(), "news", "weather", max_queued_messages=2) as (one, other):
        for topic in ("news", "weather"):
            one.backplane.publish(topic, "0")
        await one.backplane.flush()
        for topic in ("news", "weather", "news"):
            one.backplane.publish(topic, "1")
        await one.backplane.flush()
        one.backplane.publish("weather", "2")
        await one.backplane.flush()
        assert other.gaps == ["news"]


# Waiting…


async def test_publish_wait_waits_for_room_and_publishes_nothing_when_it_is_cancelled() -> None:
    hub = MemoryHub()
    async with run_two(hub, "news", max_queued_messages=1) as (one, other):
        hub.pause()
        one.backplane.publish("news", "on its way")
        await trio.testing.wait_all_tasks_blocked()
        await one.backplane.publish_wait("news", "waiting")
        with trio.move_on_after(1) as scope:
            await one.backplane.publish_wait("news", "too much")
        assert scope.cancelled_caught
        assert one.statistics.published == 2
        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "c"):
                nursery.start_soon(one.backplane.publish_wait, "news", name)
            await trio.testing.wait_all_tasks_blocked()
            hub.resume()
        await one.backplane.flush()
        assert one.statistics.dropped == 0
        assert {message for _, message in other.received[2:]} == {"a", "b", "c"}


async def test_flush_waits_only_for_what_was_published_before() -> None:
    hub = MemoryHub()
    async with run_two(hub, "news") as (one, other):
        hub.pause()
        one.backplane.publish("news", "1")
        with trio.move_on_after(1) as scope:
            await one.backplane.flush()
        assert scope.cancelled_caught
        one.backplane.publish("news", "2")
        hub.resume()
        await one.backplane.flush()
        await one.backplane.flush()
        assert len(other.received) == 2


@pytest.mark.parametrize(
    "method",
    [
        lambda joined: joined.publish_wait("news", "1"),
        lambda joined: joined.flush(),
        lambda joined: joined.wait_subscribed(),
        lambda joined: joined.wait_attached("news"),
        lambda joined: joined.read("news", None, 1),
    ],
    ids=["publish_wait", "flush", "wait_subscribed", "wait_attached", "read"],
)
async def test_every_async_method_is_a_cancellation_point(method: Callable[..., Any]) -> None:
    async with run(MemoryBackplane(MemoryHub(history=1)), "news") as node:
        with trio.CancelScope() as scope:
            scope.cancel()
            await method(node.backplane)
        assert scope.cancelled_caught
        assert node.statistics.published == 0


# Ending…


async def test_leaving_drops_what_was_not_sent_and_wakes_those_who_wait() -> None:
    hub = MemoryHub()
    joined = MemoryBackplane(hub, max_queued_messages=1)
    hub.pause()
    outcomes: list[str] = []

    async def wait_in_vain(function: Callable[[], Any]) -> None:
        with pytest.raises(trio.ClosedResourceError, match="has ended"):
            await function()
        outcomes.append("closed")

    async with trio.open_nursery() as nursery:
        async with run(joined, "news"):
            joined.publish("news", "1")
            await trio.testing.wait_all_tasks_blocked()
            joined.publish("news", "2")
            nursery.start_soon(wait_in_vain, joined.flush)
            nursery.start_soon(wait_in_vain, joined.wait_subscribed)
            nursery.start_soon(joined.publish_wait, "news", "3")
            await trio.testing.wait_all_tasks_blocked()
    assert outcomes == ["closed", "closed"]
    joined.publish("news", "4")
    statistics = joined.statistics()
    assert not statistics.connected
    assert (statistics.published, statistics.dropped, statistics.queued_messages) == (4, 4, 0)
    for function in (joined.flush, joined.wait_subscribed):
        with pytest.raises(trio.ClosedResourceError):
            await function()


async def test_a_backplane_that_has_left_hears_nothing_more() -> None:
    hub = MemoryHub()
    async with run(MemoryBackplane(hub)) as one:
        async with run(MemoryBackplane(hub), "news") as other:
            pass
        one.backplane.publish("news", "1")
        await one.backplane.flush()
        assert other.received == []


async def test_a_backplane_runs_once() -> None:
    async with run(MemoryBackplane(MemoryHub())) as node:
        with pytest.raises(RuntimeError, match="runs once"):
            await node.backplane.run(node.deliver, node.gaps.append)


# Wrong arguments…


@pytest.mark.parametrize("topic", [None, 3, b"news"])
def test_a_topic_is_a_str(topic: Any) -> None:
    joined = MemoryBackplane(MemoryHub())
    with pytest.raises(TypeError, match="a topic that other processes share is a str"):
        joined.subscribe(topic)
    with pytest.raises(TypeError, match="a topic that other processes share is a str"):
        joined.publish(topic, "1")


@pytest.mark.parametrize("message", [None, 3, ["a"]])
def test_a_message_is_a_str_or_bytes_like(message: Any) -> None:
    with pytest.raises(TypeError, match="a message is str"):
        MemoryBackplane(MemoryHub()).publish("news", message)


def test_text_that_has_no_utf_8_is_refused_and_counts_as_nothing() -> None:
    joined = MemoryBackplane(MemoryHub())
    for topic, message in (("\ud800", "1"), ("news", "\ud800")):
        with pytest.raises(ValueError, match="surrogates"):
            joined.publish(topic, message)
    with pytest.raises(ValueError, match="surrogates"):
        joined.subscribe("\ud800")
    assert joined.statistics().published == 0


@pytest.mark.parametrize("option", ["max_queued_messages", "max_queued_bytes"])
def test_a_limit_is_a_number_above_zero(option: str) -> None:
    wrong: dict[str, Any] = {option: 0}
    with pytest.raises(ValueError, match=f"{option} is greater than 0"):
        MemoryBackplane(MemoryHub(), **wrong)


# Public names…


@pytest.mark.parametrize("name", backplane.__all__)
def test_every_public_name_is_explained(name: str) -> None:
    public = getattr(backplane, name)
    if inspect.isclass(public):
        assert inspect.getdoc(public)
        for method, function in inspect.getmembers(public, inspect.isfunction):
            if not method.startswith("_") and public is Backplane:
                assert inspect.getdoc(function), method


def test_the_list_of_public_names_is_whole() -> None:
    importable = {
        name
        for name, value in vars(backplane).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert importable == set(backplane.__all__)


def test_a_backplane_error_is_the_library_s() -> None:
    assert issubclass(BackplaneError, WebSocketError)
