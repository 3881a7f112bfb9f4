"""Backplanes that keep positions: one order for all, going on after a break, reading what was."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from tests.backplane.backplane_helpers import LOGGER, Node, run, run_two
from trio_ws.backplane import BackplaneError, MemoryBackplane, MemoryHub, Past, Position
from trio_ws.backplane._envelope import Envelope, encode
from trio_ws.backplane._incoming import Incoming
from trio_ws.backplane._places import Places
from trio_ws.testing import check_backplane

pytestmark = pytest.mark.autojump


# Positions…


def test_a_position_is_a_short_text_and_back() -> None:
    position = Position("9f3ac1d2e4b5", 42)
    assert str(position) == "9f3ac1d2e4b5-42"
    assert Position.parse(str(position)) == position
    assert Position.parse("x-0") == Position("x", 0)


@given(st.text() | st.from_regex(r"[0-9a-z]{0,70}-?[0-9]{0,20}\n?"))
def test_whatever_a_client_makes_up_is_a_position_or_none(text: str) -> None:
    position = Position.parse(text)
    assert position is None or str(position) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "x", "x-", "-1", "x-01", "x--1", "x-²", "x-1\n", "é-1", "x y-1"),
        *("x" * 65 + "-1", "x-" + "9" * 19, "x-" + "9" * (sys.get_int_max_str_digits() + 1)),
    ],
)
def test_what_is_no_position_is_none(text: str) -> None:
    assert Position.parse(text) is None


@pytest.mark.parametrize(
    ("epoch", "offset", "error"),
    [
        ("x", True, TypeError),
        ("x", 1.0, TypeError),
        (b"x", 1, TypeError),
        ("", 1, ValueError),
        ("x-y", 1, ValueError),
        ("é", 1, ValueError),
        ("x" * 65, 1, ValueError),
        ("x", -1, ValueError),
    ],
)
def test_a_wrong_position_is_refused(epoch: str, offset: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="an offset is|an epoch is"):
        Position(epoch, offset)


# One order for all…


def offsets(node: Node) -> list[int | None]:
    return [message.position and message.position.offset for message in node.messages]


async def test_every_message_comes_back_to_its_publisher_in_the_order_of_all() -> None:
    async with run_two(MemoryHub(history=10), "news") as (one, other):
        for node in (one, other):
            await node.backplane.wait_subscribed()
            await node.backplane.wait_attached("news")
        assert one.backplane.keeps_positions
        tokens = [one.backplane.publish("news", str(number)) for number in range(3)]
        passing = other.backplane.publish("news", b"passing", keep=False)
        await one.backplane.flush()
        await other.backplane.flush()
        assert one.received == other.received
        kept = [message for message in one.messages if message.kept]
        assert [message.token for message in kept] == tokens
        assert [message.position and message.position.offset for message in kept] == [1, 2, 3]
        (not_kept,) = (message for message in one.messages if not message.kept)
        assert (not_kept.position, not_kept.token) == (None, None)
        assert [message.token for message in other.messages if not message.kept] == [passing]
        assert one.attached == other.attached
        assert one.attached[0][1].offset == 0
        assert (one.gaps, one.statistics.gaps, one.statistics.delivered) == ([], 0, 4)


async def test_a_topic_is_delivered_from_where_it_is_attached() -> None:
    async with run_two(MemoryHub(history=10)) as (one, other):
        one.backplane.publish("news", "before")
        await one.backplane.flush()
        other.backplane.subscribe("news")
        assert other.attached == []
        await other.backplane.wait_attached("news")
        assert [position.offset for _, position in other.attached] == [1]
        one.backplane.publish("news", "after")
        await one.backplane.flush()
        other.backplane.unsubscribe("news")
        one.backplane.publish("news", "nobody")
        await one.backplane.flush()
        assert offsets(other) == [2]
        other.backplane.subscribe("news")
        await other.backplane.wait_attached("news")
        assert [position.offset for _, position in other.attached] == [1, 3]
        assert other.statistics.gaps == 0


# Breaks…


def member(node: Node) -> MemoryBackplane:
    assert isinstance(node.backplane, MemoryBackplane)
    return node.backplane


async def test_what_was_missed_in_a_break_is_delivered_and_no_gap() -> None:
    hub = MemoryHub(history=10)
    async with run_two(hub, "news") as (one, other):
        await trio.testing.wait_all_tasks_blocked()
        hub.cut_off(member(other))
        assert not other.statistics.connected
        for number in range(3):
            one.backplane.publish("news", str(number))
        other.backplane.publish("news", "mine")
        other.backplane.subscribe("new")
        await trio.testing.wait_all_tasks_blocked()
        assert other.received == []
        hub.let_back(member(other))
        hub.let_back(member(other))
        await other.backplane.flush()
        assert [message for _, message in other.received] == ["0", "1", "2", "mine"]
        assert other.received == one.received
        assert [topic for topic, _ in other.attached] == ["news", "new"]
        assert other.statistics.gaps == 0
        assert other.statistics.connections == 2


async def test_what_was_trimmed_or_lost_in_a_break_is_attached_anew() -> None:
    hub = MemoryHub(history=10)
    async with run_two(hub, "news") as (one, other):
        one.backplane.publish("news", "1")
        await one.backplane.flush()
        hub.cut_off(member(other))
        for number in range(2, 5):
            one.backplane.publish("news", str(number))
        await one.backplane.flush()
        hub.trim("news", keep=2)
        hub.let_back(member(other))
        epoch = other.attached[0][1].epoch
        assert other.attached[1:] == [("news", Position(epoch, 4))]
        hub.pause()
        hub.lose_data()
        hub.resume()
        assert other.attached[-1][1].epoch != epoch
        assert other.attached[-1][1].offset == 0
        hub.lose_data()  # this time nobody notices until something is published
        one.backplane.publish("news", "5")
        await one.backplane.flush()
        assert other.attached[-1][1].offset == 0
        assert other.attached[-1] == one.attached[-1]
        assert offsets(other) == [1, 1]
        assert (other.statistics.gaps, one.statistics.gaps) == (3, 2)


async def test_a_backplane_that_is_cut_off_may_end() -> None:
    hub = MemoryHub(history=1)
    joined = MemoryBackplane(hub)
    hub.cut_off(joined)
    hub.let_back(joined)
    async with run(joined, "news") as node:
        hub.cut_off(joined)
    assert not node.statistics.connected


async def test_waiting_to_be_attached_ends_when_the_hub_is_away() -> None:
    hub = MemoryHub(history=1)
    async with run(MemoryBackplane(hub)) as node, trio.open_nursery() as nursery:
        node.backplane.subscribe("news")

        async def wait_in_vain() -> None:
            with pytest.raises(BackplaneError, match="the broker is away"):
                await node.backplane.wait_attached("news")

        nursery.start_soon(wait_in_vain)
        await trio.lowlevel.checkpoint()
        hub.pause()
        await wait_in_vain()


async def test_without_positions_there_are_none_to_wait_for_or_read() -> None:
    joined = MemoryBackplane(MemoryHub())
    assert not joined.keeps_positions
    with pytest.raises(NotImplementedError, match="MemoryBackplane keeps no positions here"):
        await joined.wait_attached("news")
    with pytest.raises(NotImplementedError, match="MemoryBackplane keeps no positions here"):
        await joined.read("news", None, 1)


# Reading…


async def test_reading_gives_the_newest_after_a_position_the_oldest_first() -> None:
    hub = MemoryHub(history=3)
    async with run_two(hub) as (one, other):
        read = other.backplane.read
        nothing = await read("news", None, 9)
        assert (nothing.messages, nothing.position.offset) == ((), 0)
        for number in range(1, 5):
            one.backplane.publish("news", str(number))
            one.backplane.publish("news", "passing", keep=False)
        await one.backplane.flush()
        epoch = nothing.position.epoch
        newest = Position(epoch, 4)
        for after, count, expected in (
            (None, 9, "234"),
            (None, 2, "34"),
            (None, 0, ""),
            (Position(epoch, 2), 9, "34"),
            (Position(epoch, 2), 1, "4"),
            (Position(epoch, 0), 9, "234"),
            (newest, 9, ""),
            (Position(epoch, 5), 9, ""),
            (Position("other", 3), 9, "234"),
        ):
            assert await read("news", after, count) == Past(newest, tuple(expected))
        assert hub.reads == 10
        hub.pause()
        with pytest.raises(BackplaneError, match="away"):
            await read("news", None, 1)


# What may come from a broker…


def data(number: int, origin: bytes = b"A" * 8) -> bytes:
    return encode(Envelope(origin, number, 0, str(number)))


def test_nothing_is_delivered_twice_behind_a_hole_or_where_nobody_is_attached() -> None:
    node = Node(MemoryBackplane(MemoryHub()))
    incoming = Incoming(b"O" * 8, LOGGER)
    places = Places(b"O" * 8, incoming)
    assert places.receive("news", data(1), Position("a", 1))
    places.attach("news", Position("a", 1))  # nobody hears it yet
    places.open(node.deliver, node.note_attached)
    assert places.receive("news", data(1), Position("a", 1))
    assert places.receive("news", data(2, b"O" * 8), Position("a", 2))
    assert not places.receive("news", data(4), Position("a", 4))
    assert places.receive("news", data(5), None)
    assert places.receive("news", b"nonsense", None)
    assert places.receive("news", b"nonsense", Position("a", 3))
    assert places.receive("news", data(4), Position("a", 4))
    assert places.receive("news", data(9), Position("b", 6))
    assert [(message.message, message.token) for message in node.messages] == [
        ("2", 2),
        ("5", None),
        ("4", None),
        ("9", None),
    ]
    assert node.attached == [("news", Position("a", 3)), ("news", Position("b", 5))]
    assert places.get("news") == Position("b", 6)
    assert (incoming.duplicates, incoming.malformed, incoming.gaps) == (1, 2, 2)
    places.forget("news")
    assert places.get("news") is None


# The contract…


@pytest.mark.parametrize("history", [0, 200])
async def test_the_memory_backplane_keeps_the_contract(history: int) -> None:
    hub = MemoryHub(history=history)

    @asynccontextmanager
    async def interrupt() -> AsyncGenerator[None, None]:
        hub.pause()
        yield
        hub.resume()

    await check_backplane(lambda: MemoryBackplane(hub), interrupt=interrupt)
    await check_backplane(lambda: MemoryBackplane(hub))
