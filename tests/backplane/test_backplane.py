"""What every backplane does: envelopes, the queue outwards, the check inwards; joined in memory."""

from __future__ import annotations

import inspect
import logging
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from trio_ws import CALLS_PER_CHECKPOINT, WebSocketError, backplane
from trio_ws.backplane import (
    Backplane,
    BackplaneError,
    BackplaneStatistics,
    HistoryEntry,
    MemoryBackplane,
    MemoryHub,
    _queued,
)
from trio_ws.backplane._envelope import Envelope, InvalidEnvelope, decode, encode, size_of
from trio_ws.backplane._incoming import MAX_ORIGINS, Incoming
from trio_ws.backplane._interest import Interest
from trio_ws.backplane._outgoing import BATCH_MESSAGES, Item, Outgoing

pytestmark = pytest.mark.autojump

LOGGER = logging.getLogger("trio_ws")


class Node:
    """A backplane, and what it has delivered."""

    def __init__(self, joined: Backplane) -> None:
        self.backplane = joined
        self.received: list[tuple[str, str | bytes]] = []
        self.ids: list[str] = []
        self.gaps: list[str | None] = []

    def deliver(self, topic: str, message: str | bytes, message_id: str) -> None:
        self.received.append((topic, message))
        self.ids.append(message_id)

    @property
    def statistics(self) -> BackplaneStatistics:
        return self.backplane.statistics()


@asynccontextmanager
async def run(joined: Backplane, *topics: str) -> AsyncGenerator[Node, None]:
    """Run a backplane that is subscribed to `topics`."""
    node = Node(joined)
    async with trio.open_nursery() as nursery:
        for topic in topics:
            joined.subscribe(topic)
        await nursery.start(joined.run, node.deliver, node.gaps.append)
        yield node
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def run_two(
    hub: MemoryHub, *topics: str, **options: Any
) -> AsyncGenerator[tuple[Node, Node], None]:
    async with run(MemoryBackplane(hub, **options), *topics) as one:
        async with run(MemoryBackplane(hub), *topics) as other:
            yield one, other


# Carrying…


async def test_what_is_published_reaches_the_others_and_not_the_publisher() -> None:
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


async def test_the_id_is_the_same_everywhere_and_no_other_message_has_it() -> None:
    hub = MemoryHub(history=10)
    async with run_two(hub, "news") as (one, other):
        ids = [one.backplane.publish("news", str(number)) for number in range(3)]
        await one.backplane.flush()
        assert other.ids == ids
        assert [entry.id for entry in await one.backplane.history("news")] == ids
        assert other.backplane.publish("news", "mine") not in ids


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


async def test_what_is_published_before_it_runs_is_carried_when_it_does() -> None:
    hub = MemoryHub()
    early = MemoryBackplane(hub)
    early.publish("news", "early")
    async with run(MemoryBackplane(hub), "news") as other, run(early):
        await early.flush()
        assert other.received == [("news", "early")]


async def test_many_messages_arrive_in_order_and_others_run_meanwhile() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with run_two(MemoryHub(), "news") as (one, other):
        for number in range(5000):
            one.backplane.publish("news", str(number))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            await one.backplane.flush()
            nursery.cancel_scope.cancel()
        assert [message for _, message in other.received] == [str(n) for n in range(5000)]
        assert turns >= 5000 // CALLS_PER_CHECKPOINT


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
        lambda joined: joined.history("news"),
    ],
    ids=["publish_wait", "flush", "wait_subscribed", "history"],
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


async def test_one_that_has_left_hears_nothing_more() -> None:
    hub = MemoryHub()
    async with run(MemoryBackplane(hub)) as one:
        async with run(MemoryBackplane(hub), "news") as other:
            pass
        one.backplane.publish("news", "1")
        await one.backplane.flush()
        assert other.received == []


async def test_it_runs_once() -> None:
    async with run(MemoryBackplane(MemoryHub())) as node:
        with pytest.raises(RuntimeError, match="runs once"):
            await node.backplane.run(node.deliver, node.gaps.append)


# Looking back…


async def test_history_gives_the_newest_the_oldest_first() -> None:
    async with run_two(MemoryHub(history=3)) as (one, other):
        assert one.backplane.keeps_history
        assert await other.backplane.history("news") == []
        ids = [one.backplane.publish("news", str(number)) for number in range(4)]
        await one.backplane.flush()
        kept = [HistoryEntry(ids[number], str(number)) for number in (1, 2, 3)]
        assert await one.backplane.history("news") == kept
        assert await other.backplane.history("news", count=2) == kept[1:]
        assert await other.backplane.history("news", count=0) == []
        assert await other.backplane.history("news", count=9) == kept
        assert await other.backplane.history("news", since=ids[2]) == kept[2:]
        assert await other.backplane.history("news", since=ids[1], count=1) == kept[2:]
        with pytest.raises(LookupError, match="some after it may be missing"):
            await other.backplane.history("news", since=ids[0])


async def test_history_does_not_wait_for_a_hub_that_is_away() -> None:
    hub = MemoryHub(history=3)
    async with run(MemoryBackplane(hub)) as node:
        hub.pause()
        with pytest.raises(BackplaneError, match="away"):
            await node.backplane.history("news")


async def test_a_hub_without_history_says_so() -> None:
    joined = MemoryBackplane(MemoryHub())
    assert not joined.keeps_history
    with pytest.raises(NotImplementedError, match="MemoryBackplane keeps no history here"):
        await joined.history("news")


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


def test_what_has_no_utf_8_is_refused_and_counts_as_nothing() -> None:
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


# Interest…


def test_topics_that_come_and_go_before_anybody_is_told_leave_nothing_behind() -> None:
    interest = Interest()
    interest.add("told")
    assert interest.take_changes() == ["told"]
    for number in range(1000):  # as clients do that join and leave rooms during an outage
        interest.add(str(number))
        interest.remove(str(number))
    interest.remove("told")
    interest.add("told")
    interest.remove("told")
    assert interest.take_changes() == ["told"]
    interest.add("told")
    interest.remove("told")
    assert interest.take_changes() == []


# Envelopes…

MESSAGES = st.one_of(st.text(), st.binary())


@given(
    st.binary(min_size=8, max_size=8),
    st.integers(1, 2**64 - 1),
    st.data(),
    MESSAGES,
    st.booleans(),
)
def test_an_envelope_comes_out_as_it_went_in(
    origin: bytes, number: int, data: st.DataObject, message: str | bytes, kept: bool
) -> None:
    envelope = Envelope(origin, number, data.draw(st.integers(0, number - 1)), message, kept)
    encoded = encode(envelope)
    assert decode(encoded) == envelope
    assert size_of(message) == len(encoded)


@given(st.binary(max_size=60))
def test_whatever_comes_is_an_envelope_or_says_why_it_is_none(data: bytes) -> None:
    for candidate in (data, b"\x01" + data, b"\x01\x01" + data):
        try:
            envelope = decode(candidate)
        except InvalidEnvelope as exc:
            assert str(exc)
        else:
            assert encode(envelope) == candidate


HEAD = struct.Struct("!BB8sQQ")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "it is empty"),
        (b"\x02" + bytes(40), "version 2, not 1"),
        (b"\x01\x00short", "7 bytes, and 26 are before the message"),
        (HEAD.pack(1, 7, bytes(8), 1, 0), "kind 7 is unknown"),
        (HEAD.pack(1, 1, bytes(8), 1, 0) + b"\xff", "the text is not UTF-8"),
        (HEAD.pack(1, 0, bytes(8), 3, 3), "number 3 after number 3"),
    ],
)
def test_a_malformed_envelope_is_counted_logged_and_ignored(
    data: bytes, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(MemoryBackplane(MemoryHub()))
    incoming = Incoming(b"ourselves", LOGGER)
    incoming.open(node.deliver, node.gaps.append)
    incoming.take("news", data)
    assert incoming.malformed == 1
    assert problem in caplog.text
    assert (node.received, node.gaps) == ([], [])


def test_a_flood_of_malformed_messages_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    incoming = Incoming(b"ourselves", LOGGER)
    for _ in range(1000):
        incoming.take("news", b"")
    assert incoming.malformed == 1000
    assert len(caplog.records) == 10


# The check inwards…


class Origin:
    """Another publisher, whose every message a test can lose, repeat or delay."""

    def __init__(self, incoming: Incoming, name: bytes = b"A" * 8) -> None:
        self._incoming = incoming
        self._name = name

    def send(self, number: int, previous: int, topic: str = "news") -> None:
        envelope = Envelope(self._name, number, previous, str(number))
        self._incoming.take(topic, encode(envelope))


@pytest.fixture
def node() -> Node:
    return Node(MemoryBackplane(MemoryHub()))


@pytest.fixture
def incoming(node: Node) -> Incoming:
    incoming = Incoming(b"O" * 8, LOGGER)
    incoming.open(node.deliver, node.gaps.append)
    return incoming


def numbers(node: Node) -> list[int]:
    return [int(message) for _, message in node.received]


def test_a_repeated_message_is_delivered_once(node: Node, incoming: Incoming) -> None:
    origin = Origin(incoming)
    for number in (1, 2, 3, 2, 3, 4, 1):
        origin.send(number, number - 1)
    assert numbers(node) == [1, 2, 3, 4]
    assert (incoming.duplicates, node.gaps) == (3, [])


def test_a_missing_message_is_a_gap_before_the_next_is_delivered(incoming: Incoming) -> None:
    events: list[str | None] = []
    incoming.open(lambda topic, message, _: events.append(str(message)), events.append)
    origin = Origin(incoming)
    origin.send(5, 4)  # the first that is seen: what was before may have been before us
    origin.send(6, 5)
    origin.send(9, 8)
    origin.send(12, 9)  # those between were on other topics
    origin.send(13, 0)  # it does not remember
    assert events == ["5", "6", "news", "9", "12", "13"]


def test_origins_and_topics_are_counted_apart(node: Node, incoming: Incoming) -> None:
    one, other = Origin(incoming, b"A" * 8), Origin(incoming, b"B" * 8)
    one.send(7, 6)
    other.send(1, 0)
    one.send(8, 0, "weather")
    one.send(9, 7)
    assert numbers(node) == [7, 1, 8, 9]
    assert (incoming.duplicates, node.gaps) == (0, [])


def test_a_topic_that_was_left_starts_anew(node: Node, incoming: Incoming) -> None:
    origin = Origin(incoming)
    origin.send(1, 0)
    incoming.forget("news")
    incoming.forget("weather")
    origin.send(5, 4)
    assert node.gaps == []


def test_what_has_been_here_is_known_by_its_number(node: Node, incoming: Incoming) -> None:
    def data(number: int) -> bytes:
        return encode(Envelope(b"A" * 8, number, 0, ""))

    assert not incoming.has_had("news", data(1))
    incoming.note("news", None)  # written by somebody else, in another form
    incoming.note("news", b"\x07")
    incoming.note("news", data(5))
    assert [incoming.has_had("news", data(number)) for number in (4, 5, 6)] == [True, True, False]
    assert not incoming.has_had("weather", data(5))
    assert not incoming.has_had("news", None)
    assert not incoming.has_had("news", b"\x07")
    Origin(incoming).send(5, 4)
    assert incoming.duplicates == 1
    Origin(incoming).send(9, 8)
    assert numbers(node) == [9]
    assert node.gaps == ["news"]
    assert incoming.malformed == 0


def test_our_own_messages_are_not_delivered(node: Node, incoming: Incoming) -> None:
    Origin(incoming, b"O" * 8).send(1, 0)
    assert node.received == []


def test_origins_that_come_and_go_do_not_add_up(node: Node, incoming: Incoming) -> None:
    first = Origin(incoming, bytes(8))
    first.send(1, 0)
    for number in range(1, MAX_ORIGINS):
        Origin(incoming, number.to_bytes(8, "big")).send(1, 0)
    first.send(1, 0)
    assert incoming.duplicates == 1  # it is still known
    Origin(incoming, b"X" * 8).send(1, 0)
    first.send(5, 4)
    assert node.gaps == []  # and now it is not
    assert len(node.received) == MAX_ORIGINS + 2


def test_before_it_runs_what_comes_goes_nowhere() -> None:
    incoming = Incoming(b"O" * 8, LOGGER)
    Origin(incoming).send(1, 0)
    assert incoming.delivered == 1


async def test_topics_that_come_and_go_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_queued, "MAX_TOPICS", 10)
    async with run_two(MemoryHub(), "0", max_queued_messages=inf) as (one, other):
        one.backplane.publish("0", "first")
        await one.backplane.flush()
        for number in range(1, 11):
            one.backplane.publish(str(number), "")
        one.backplane.publish("0", "last")
        await one.backplane.flush()
        assert [message for _, message in other.received] == ["first", "last"]
        assert other.gaps == []


# The queue outwards…


def item(number: int, size: int = 1) -> Item:
    return Item(number, "news", bytes(size))


async def test_the_queue_is_bounded_in_bytes_and_one_large_message_may_wait_alone() -> None:
    outgoing = Outgoing(inf, 100)
    for number in range(1, 4):
        outgoing.put(item(number, 40))
    assert (outgoing.queued_bytes, outgoing.dropped) == (80, 1)
    outgoing.put(item(4, 1000))
    assert (outgoing.queued_messages, outgoing.dropped) == (1, 3)
    assert not outgoing.has_room(1)
    outgoing.put(item(5))
    assert (outgoing.queued_messages, outgoing.queued_bytes) == (1, 1)


async def test_waiting_for_room_waits_for_room_for_all_of_a_message() -> None:
    hub = MemoryHub()
    joined = MemoryBackplane(hub, max_queued_bytes=1000)
    async with run(joined), run(MemoryBackplane(hub), "news") as other:
        hub.pause()
        for _ in range(3):  # of which the first is on its way, and the next fills most of the queue
            joined.publish("news", bytes(600))
            await trio.testing.wait_all_tasks_blocked()
        assert joined.statistics().dropped == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.publish_wait, "news", bytes(600))
            await trio.testing.wait_all_tasks_blocked()
            assert joined.statistics().queued_messages == 1
            hub.resume()
        await joined.flush()
        assert joined.statistics().dropped == 1
        assert len(other.received) == 3


async def test_what_was_not_settled_is_sent_again_first() -> None:
    outgoing = Outgoing(inf, inf)
    for number in range(1, 4):
        outgoing.put(item(number))
    assert [each.number for each in await outgoing.next_batch()] == [1, 2, 3]
    outgoing.put(item(4))
    outgoing.settle()
    assert [each.number for each in await outgoing.next_batch()] == [2, 3]
    outgoing.settle(refused=True)
    outgoing.settle()
    assert [each.number for each in await outgoing.next_batch()] == [4]
    assert (outgoing.sent, outgoing.refused) == (2, 1)


async def test_a_batch_is_bounded() -> None:
    outgoing = Outgoing(inf, inf)
    for number in range(BATCH_MESSAGES + 1):
        outgoing.put(item(number))
    assert len(await outgoing.next_batch()) == BATCH_MESSAGES
    large = Outgoing(inf, inf)
    for number in range(3):
        large.put(item(number, 200_000))
    assert len(await large.next_batch()) == 2


async def test_the_queue_hands_out_what_comes_to_those_who_wait() -> None:
    outgoing = Outgoing(inf, inf)
    with trio.move_on_after(1) as scope:
        await outgoing.next_batch()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outgoing.next_batch)
        await trio.testing.wait_all_tasks_blocked()
        outgoing.put(item(1))


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
