"""Who told what when: whatever is lost, late or dead, the processes that live come to agree."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings, strategies as st

from tests.whole.server_process import SOAK
from trio_ws._broadcast.presence_messages import (
    Ask,
    Beat,
    Change,
    Digest,
    Entry,
    Hello,
    InvalidMessage,
    Listing,
    Message,
    Will,
    decode,
    encode,
)
from trio_ws._broadcast.roster import Roster, Seat

LEASE = 10.0

#: After the last trouble, everything is told within this time: a will that came late is over.
CALM = 15.0

Sent: TypeAlias = tuple[str | None, str]


class Process:
    """One process of the model: its roster, who is here, and what is on its way to it."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.changes: list[str] = []
        self.roster = Roster(
            name, LEASE, lambda: int(world.now * 1000), self.changes.append, alone=False
        )
        self.seats: list[tuple[str, Seat]] = []
        self.inbox: list[Sent] = []
        self.is_stopped = False
        #: What others say is lost on its way to this one.
        self.is_cut = False
        self.roster.greet()

    def members(self, topic: str) -> dict[str, Any]:
        place = self.roster.places.get(topic)
        return dict(place.show()) if place is not None else {}


class World:
    """Processes, and a network that a test disturbs."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.processes: list[Process] = []
        self.started = 0

    def start(self) -> Process:
        self.started += 1
        process = Process(self, f"p{self.started}")
        self.processes.append(process)
        return process

    def open(self, process: Process, topic: str) -> None:
        if topic not in process.roster.places:
            process.roster.open(topic, self.now)
            process.roster.ask(topic, self.now)

    def join(self, process: Process, topic: str, member_id: str, value: object = None) -> Seat:
        self.open(process, topic)
        seat = process.roster.sit(topic, member_id, value, self.now)
        process.seats.append((topic, seat))
        return seat

    def leave(self, process: Process, number: int = 0, *, lingers: bool = False) -> None:
        topic, seat = process.seats.pop(number)
        process.roster.rise(topic, seat, self.now, lingers=lingers)

    def end(self, process: Process, *, killed: bool) -> None:
        self.processes.remove(process)
        if not killed:
            for topic, message in process.roster.will():
                self._send(process, topic, message)

    def speak(self, process: Process) -> None:
        if not process.is_stopped:
            for topic, message in process.roster.news(self.now):
                self._send(process, topic, message)

    def tick(self, process: Process) -> None:
        if not process.is_stopped:
            process.roster.expire(self.now)
            for topic, message in process.roster.routine(self.now):
                self._send(process, topic, message)
            process.roster.forget(self.now, lambda _: False)

    def _send(self, process: Process, topic: str | None, message: Message) -> None:
        for other in self.processes:
            if other is not process and not other.is_cut:
                other.inbox.append((topic, encode(process.name, message)))

    def deliver(self, process: Process, number: int = 0) -> None:
        topic, text = process.inbox.pop(number)
        origin, message = decode(text)
        process.roster.hear(topic, origin, message, self.now)

    def settle(self, seconds: float = CALM) -> None:
        """Let time pass in which nothing goes wrong."""
        until = self.now + seconds
        while True:
            self.catch_up()
            if self.now >= until:
                return
            self.now += 0.5
            for process in self.processes:
                self.tick(process)

    def catch_up(self) -> None:
        """Let the processes talk until there is nothing more to say."""
        while True:
            for process in self.processes:
                self.speak(process)
            if not any(process.inbox for process in self.processes if not process.is_stopped):
                return
            for process in self.processes:
                while process.inbox and not process.is_stopped:
                    self.deliver(process)

    def truth(self, topic: str) -> dict[str, Any]:
        newest: dict[str, tuple[int, str, Any]] = {}
        for process in self.processes:
            for name, seat in process.seats:
                if name == topic:
                    known = newest.get(seat.member_id, (-1, "", None))
                    claim = (seat.entry.stamp, process.name, seat.entry.value)
                    newest[seat.member_id] = max(known, claim, key=lambda each: each[:2])
        return {member_id: value for member_id, (_, _, value) in newest.items()}

    def check(self) -> None:
        for process in self.processes:
            for topic in process.roster.places:
                assert process.members(topic) == self.truth(topic), (process.name, topic)


TOPICS = ["a", "b"]
NUMBER = st.integers(0, 1000)


def pick(of: list[Any], number: int) -> Any:
    return of[number % len(of)]


def disturb(world: World, what: str, which: int, number: int) -> None:
    """One thing that happens, right or wrong."""
    process = pick(world.processes, which)
    topic = pick(TOPICS, number)
    match what:
        case "join":
            world.join(process, topic, pick(["x", "y", "z"], number // 2), number % 5)
        case "leave" | "linger" if process.seats:
            world.leave(process, number % len(process.seats), lingers=what == "linger")
        case "update" if process.seats:
            name, seat = pick(process.seats, number)
            process.roster.change_value(name, seat, number)
        case "look":
            world.open(process, topic)
        case "speak":
            world.speak(process)
        case "tick":
            world.now += 0.5
            world.tick(process)
        case "deliver" if process.inbox and not process.is_stopped:
            world.deliver(process, number % len(process.inbox))  # in any order
        case "lose" if process.inbox:
            del process.inbox[number % len(process.inbox)]
        case "cut" | "mend":
            process.is_cut = what == "cut"
        case "wait":
            world.now += number % 3
        case "stop":
            process.is_stopped = True
        case "go on":
            go_on(world, process)
        case "start" if len(world.processes) < 4:
            world.start()
        case "kill" | "end" if len(world.processes) > 1:
            world.end(process, killed=what == "kill")
        case _:
            pass


def go_on(world: World, process: Process) -> None:
    if process.is_stopped:
        process.is_stopped = False
        process.roster.resume(world.now)


HAPPENINGS = [
    *("join", "join", "leave", "linger", "update", "look", "speak", "tick", "deliver", "deliver"),
    *("lose", "cut", "mend", "wait", "stop", "go on", "start", "kill", "end"),
]

#: What happens, to which process, which of several, and whether the network then catches up.
STEPS = st.tuples(st.sampled_from(HAPPENINGS), NUMBER, NUMBER, st.booleans())


@settings(max_examples=5000 if SOAK else 150)
@given(st.lists(STEPS, min_size=10, max_size=50))
def test_whatever_is_lost_late_or_dead_those_who_live_agree_on_the_truth(
    steps: list[tuple[str, int, int, bool]],
) -> None:
    world = World()
    for _ in range(3):
        world.start()
    for what, which, number, catches_up in steps:
        disturb(world, what, which, number)
        if catches_up:
            world.catch_up()
    for process in world.processes:
        go_on(world, process)
        process.is_cut = False
        for topic in TOPICS:
            world.open(process, topic)
    world.settle()
    world.check()


def two() -> tuple[World, Process, Process]:
    """Two processes that are in topic "a" and have heard each other."""
    world = World()
    here, there = world.start(), world.start()
    for process in (here, there):
        world.join(process, "a", process.name)
    world.settle(1)
    assert here.members("a") == there.members("a") == {"p1": None, "p2": None}
    return world, here, there


def test_what_a_process_hears_of_itself_or_of_another_topic_changes_nothing() -> None:
    world, here, _ = two()
    ghost = {"ghost": Entry(1, None)}
    for topic, origin in (("a", here.name), ("another", "p2")):
        here.roster.hear(topic, origin, Change(0, 2**50, ghost, ()), world.now)
    here.roster.hear(None, "p2", Will(here.name, 5.0, {"a": ghost}, last=True), world.now)
    here.roster.hear(None, "p2", None, world.now)
    here.roster.ask("another", world.now)
    assert here.members("a") == {"p1": None, "p2": None}
    world.settle()
    world.check()


def test_lists_that_come_late_twice_or_in_another_order_are_told_apart() -> None:
    world, here, _ = two()

    def hear(version: int, part: int, *names: str) -> None:
        members = {name: Entry(version, None) for name in names}
        here.roster.hear("a", "x", Listing(version, part, 2, members), world.now)

    hear(20, 1, "d")
    hear(10, 0, "a")  # of an older one, of which the rest may be lost
    assert "d" not in here.members("a")
    hear(20, 0, "c")
    assert here.members("a").keys() == {"p1", "p2", "c", "d"}
    hear(10, 1, "b")
    hear(20, 1, "d")
    hear(30, 0, "d", "e")
    hear(30, 1)
    assert here.members("a").keys() == {"p1", "p2", "d", "e"}
    here.roster.hear("a", "x", Change(30, 40, {"d": Entry(40, 1)}, ("d", "nobody")), world.now)
    assert here.members("a")["d"] == 1


def test_a_change_that_begins_anew_replaces_what_was_told_before() -> None:
    world, here, _ = two()
    for base, version, name in ((0, 10, "a"), (0, 20, "b"), (0, 15, "c")):
        change = Change(base, version, {name: Entry(version, None)}, ())
        here.roster.hear("a", "x", change, world.now)
    assert here.members("a").keys() == {"p1", "p2", "b"}


def test_a_will_whose_rest_is_lost_counts_as_whole_when_its_process_is_given_up() -> None:
    world, here, _ = two()
    told = Change(0, 10, {"a": Entry(9, None), "b": Entry(9, None)}, ())
    here.roster.hear("a", "x", told, world.now)
    for of in ("x", "y"):  # of one it was heard before, of the other not
        will = Will(of, LEASE, {"a": {f"will of {of}": Entry(10, None)}}, last=False)
        here.roster.hear(None, "x", will, world.now)
    names = {"p1", "p2", "a", "b", "will of x", "will of y"}
    assert here.members("a").keys() == names
    world.settle(9.5)
    assert here.members("a").keys() == names - {"a", "b"}
    world.settle(1)
    assert here.members("a").keys() == {"p1", "p2"}
    here.roster.hear(None, "z", Will("x", LEASE, {"a": {"late": Entry(1, None)}}, True), world.now)
    here.roster.hear("a", "x", Change(10, 20, {"later": Entry(1, None)}, ()), world.now)
    assert here.members("a").keys() == {"p1", "p2"}


def test_what_a_will_leaves_is_gone_as_soon_as_it_is_seen_elsewhere() -> None:
    world, here, there = two()
    here.roster.hear("a", "x", Change(0, 10, {"y": Entry(9, "old")}, ()), world.now)
    here.roster.hear(None, "x", Will("x", LEASE, {}, last=False), world.now)
    seat = world.join(here, "a", "y", "new")
    here.roster.hear(None, "x", Will("x", LEASE, {}, last=True), world.now)
    assert here.members("a")["y"] == "new"
    here.roster.rise("a", seat, world.now, lingers=True)
    world.settle(1)
    assert there.members("a")["y"] == "new"
    world.now += 1
    world.join(there, "a", "y", "newer")
    world.settle(1)
    assert here.roster.seats == 1
    world.leave(there, 1)
    world.settle(1)
    assert "y" not in here.members("a")


def test_processes_that_have_ended_are_remembered_within_bounds() -> None:
    world, here, _ = two()
    for number in range(5000):
        here.roster.hear(None, "z", Will(f"x{number}", 1.0, {}, last=True), world.now)
    assert len(here.roster._ended) == 4096


def test_a_word_that_was_not_repeated_for_ten_minutes_is_not_believed() -> None:
    world, here, _ = two()
    here.roster.hear("a", "x", Change(0, 10, {"ghost": Entry(9, None)}, ()), world.now)
    for _ in range(100):  # it is alive, and has forgotten that it was ever in this topic
        here.roster.hear(None, "x", Beat(9.0), world.now)
        world.settle(7)
    assert here.members("a").keys() == {"p1", "p2"}


def test_a_stamp_from_the_far_future_does_not_push_ours() -> None:
    world, here, _ = two()
    here.roster.hear("a", "x", Change(0, 10, {"x": Entry(2**53 - 1, None)}, ()), world.now)
    seat = world.join(here, "a", "new")
    assert seat.entry.stamp < 2 * world.now * 1000


def test_what_lingers_here_gives_way_to_an_older_block_that_is_still_open() -> None:
    world, here, there = two()
    world.join(here, "a", "x", "phone")
    world.join(here, "a", "x", "desktop")
    world.settle(1)
    world.leave(here, 2, lingers=True)
    assert here.members("a")["x"] == "desktop"
    world.now += 1
    world.join(there, "a", "x", "elsewhere")
    world.settle(1)
    world.leave(there, 1)
    world.settle(1)
    assert here.members("a")["x"] == there.members("a")["x"] == "phone"


def test_many_who_leave_at_once_are_told_in_portions() -> None:
    world, here, there = two()
    for number in range(600):
        world.join(here, "a", f"{number}")
    world.settle(1)
    assert len(there.members("a")) == 602
    for _ in range(600):
        world.leave(here, 1)
    told = [message for _, message in here.roster.news(world.now)]
    assert [len(each.gone) for each in told if isinstance(each, Change)] == [256, 256, 88]


def test_asking_twice_shares_the_answer() -> None:
    world, here, _ = two()
    answers = 0
    for _ in range(10):
        here.roster.hear("a", "x", Ask(None), world.now)
        answers += len([*here.roster.news(world.now)])
    assert answers == 1
    world.now += 1
    assert not [*here.roster.news(world.now)]
    [*here.roster.routine(world.now)]
    assert [type(message) for _, message in here.roster.news(world.now)] == [Listing]


@pytest.mark.parametrize(
    "message",
    [
        Change(1, 2, {"é": Entry(3, {"a": [1, None]})}, ("b", "c")),
        Listing(1, 0, 2, {}),
        Digest(5),
        Ask(None),
        Ask(frozenset({"x", "y"})),
        Beat(2.5),
        Hello(),
        Will("x", 3.0, {"a": {"b": Entry(1, "c")}}, last=True),
    ],
)
def test_a_message_comes_as_it_was_told(message: Message) -> None:
    assert decode(encode("me", message)) == ("me", message)
    assert decode(encode("me", message).encode()) == ("me", message)


@pytest.mark.parametrize(
    "fields",
    [
        '"kind": "list", "version": 1, "part": 1, "parts": 1, "in": []',
        '"kind": "list", "version": 1, "part": 0, "parts": 1, "in": {}',
        '"kind": "list", "version": 1, "part": 0, "parts": 1, "in": [[1, 2, 3]]',
        '"kind": "list", "version": 1, "part": 0, "parts": 1, "in": [["\\\\ud800", 2, 3]]',
        '"kind": "list", "version": 1, "part": 0, "parts": 1, "in": [["a", 2]]',
        '"kind": "digest", "version": true',
        '"kind": "digest", "version": 9007199254740992',
        '"kind": "digest"',
        '"kind": "beat", "lease": "5"',
        '"kind": "beat", "lease": 86401',
        '"kind": "beat", "lease": NaN',
        '"kind": "ask", "whom": [""]',
        '"kind": "will", "of": "x", "lease": 1, "topics": [], "last": true',
        '"kind": ["x"], "v": 2',
    ],
)
def test_what_is_no_message_is_told_so(fields: str) -> None:
    with pytest.raises(InvalidMessage):
        decode('{"v": 1, "from": "x", ' + fields.replace("\\\\", "\\") + "}")


@given(st.one_of(st.text(), st.binary()))
def test_any_text_is_a_message_or_told_to_be_none(text: str | bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode(text)


def test_a_kind_of_the_future_is_no_mistake() -> None:
    assert decode('{"v": 1, "from": "x", "kind": "wave"}') == ("x", None)
