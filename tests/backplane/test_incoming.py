"""Messages that come in from a backplane: repeated, missing, from topics left or never wanted."""

from __future__ import annotations

from math import inf

import pytest

from tests.backplane.backplane_helpers import LOGGER, Node, run_two
from trio_ws.backplane import MemoryBackplane, MemoryHub, _queued
from trio_ws.backplane._envelope import Envelope, encode
from trio_ws.backplane._incoming import MAX_ORIGINS, Incoming
from trio_ws.backplane._interest import Interest

pytestmark = pytest.mark.autojump


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


# The check inwards…


class Origin:
    """Another publisher, whose every message a test can lose, repeat or delay."""

    def __init__(self, incoming: Incoming, name: bytes = b"A" * 8) -> None:
        self._incoming = incoming
        self._name = name

    def send(self, number: int, previous: int, topic: str = "news") -> None:
        envelope = Envelope(self._name, number, previous, str(number))
        self._incoming.receive(topic, encode(envelope))


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
    incoming.open(lambda received: events.append(str(received.message)), events.append)
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


def test_a_message_that_has_been_here_is_known_by_its_number(
    node: Node, incoming: Incoming
) -> None:
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
