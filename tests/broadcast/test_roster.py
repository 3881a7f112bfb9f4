"""Who told what when: whatever is lost, late or dead, the processes that live come to agree."""

from __future__ import annotations

from typing import Any, TypeAlias

from hypothesis import given, settings, strategies as st

from tests.whole.server_process import SOAK
from trio_ws._broadcast.presence_messages import (
    Message,
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
            process.roster.ask(topic)

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
