"""Random interleavings of everything that can happen to a topic, against a model of ten lines."""

from __future__ import annotations

import os
from functools import partial
from itertools import count, pairwise

import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from tests.broadcast.broadcast_helpers import numbered
from trio_ws import Broadcast, Position, open_broadcast
from trio_ws.backplane import MemoryBackplane, MemoryHub

KEPT = 6


class Model:
    """What the broker has of a topic: how many messages were published, and how many are kept."""

    def __init__(self) -> None:
        self.newest = self.kept = 0

    def publish(self) -> None:
        self.newest, self.kept = self.newest + 1, min(self.kept + 1, KEPT)

    def trim(self, keep: int) -> None:
        self.kept = min(self.kept, keep)

    def recovers(self, offset: int) -> bool:
        return self.newest - self.kept <= offset <= self.newest


class Subscriber:
    """A client of one process, and what it has received."""

    def __init__(self, game: Game, process: int, position: Position | None) -> None:
        self.game = game
        self.process = process
        self.position = position
        self.recovered: bool | None = None
        self.received: list[tuple[Position, str]] = []
        self.gaps_before = len(game.gaps[process])
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        broadcast = self.game.broadcasts[self.process]
        with self.scope:
            async with broadcast.open_channel("a", position=self.position) as channel:
                self.recovered = channel.recovered
                async for message in channel:
                    self.take(str(message))

    def take(self, message: str) -> None:
        text, _, body = message.split(" ")
        position = Position.parse(text)
        if position is not None:
            self.received.append((position, body))

    def check(self) -> None:
        """Each message is the true one, and none is missing but where a gap was told."""
        if self.recovered is None:
            assert not self.received
            return
        places = [place for place, _ in self.received]
        for place, body in self.received:
            assert self.game.truth[place] == body
        if self.recovered:
            assert self.position is not None
            places.insert(0, self.position)
        breaks = sum(
            before.epoch != after.epoch or before.offset + 1 != after.offset
            for before, after in pairwise(places)
        )
        assert breaks <= len(self.game.gaps[self.process]) - self.gaps_before
        for before, after in pairwise(places):
            assert before.epoch != after.epoch or before.offset < after.offset


class Game:
    """Two processes and a witness, who sees everything, joined by a hub."""

    def __init__(self, nursery: trio.Nursery, history: int) -> None:
        self.nursery = nursery
        self.hub = MemoryHub(history=KEPT)
        self.backplanes = [MemoryBackplane(self.hub) for _ in range(3)]
        self.history = history
        self.broadcasts: list[Broadcast] = []
        self.gaps: list[list[str | None]] = [[], [], []]
        self.truth: dict[Position, str] = {}
        self.subscribers: list[Subscriber] = []
        self.away: set[int] = set()
        self.paused = False
        self.model = Model()
        self.waiting = 0
        self.numbers = count()

    def publish(self, process: int, keep: bool) -> None:
        self.broadcasts[process].publish(str(next(self.numbers)), "a", keep=keep)

    def subscribe(self, process: int, where: int) -> None:
        known = list(self.truth)
        position: Position | None = None
        if known and where:
            position = known[-where % len(known)]
            if where == 7:
                position = Position(position.epoch, position.offset + 3)
            if where == 8:
                position = Position("nowhere", position.offset)
            if where == 9:
                position = Position(position.epoch, 0)
        subscriber = Subscriber(self, process, position)
        self.subscribers.append(subscriber)
        self.nursery.start_soon(subscriber.run)

    def leave(self, which: int) -> None:
        if self.subscribers:
            self.subscribers[which % len(self.subscribers)].scope.cancel()

    def do(self, step: tuple[str, int, int]) -> None:
        name, process, number = step
        hub = self.hub
        match name:
            case "publish":
                self.publish(process, keep=number > 1)
            case "subscribe":
                self.subscribe(process, number)
            case "leave":
                self.leave(number)
            case "trim":
                hub.trim("a", keep=number % 4)
            case "lose":
                hub.lose_data()
            case "pause":
                hub.pause()
            case "resume":
                hub.resume()
            case "cut off":
                hub.cut_off(self.backplanes[process])
            case _:
                hub.let_back(self.backplanes[process])

    async def finish(self) -> None:
        """Let everybody be back, and publish once more: all are where the truth is."""
        self.hub.resume()
        for backplane in self.backplanes[:2]:
            self.hub.let_back(backplane)
        await trio.testing.wait_all_tasks_blocked()
        self.publish(0, keep=True)
        await trio.testing.wait_all_tasks_blocked()
        for subscriber in self.subscribers:
            subscriber.check()
            if not subscriber.scope.cancel_called:
                assert subscriber.recovered is not None
                assert subscriber.received[-1][0] == list(self.truth)[-1]


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    names = st.sampled_from(
        ["publish"] * 4
        + ["subscribe"] * 4
        + ["leave", "trim", "lose", "pause", "resume", "cut off", "let back", "settle", "settle"]
    )
    return draw(st.lists(st.tuples(names, st.integers(0, 1), st.integers(0, 9)), max_size=30))


async def play(moves: list[tuple[str, int, int]], history: int, *, quiet: bool) -> None:
    async with trio.open_nursery() as nursery:
        game = Game(nursery, history)
        await open_all(game, moves, quiet=quiet)
        nursery.cancel_scope.cancel()


async def open_all(game: Game, moves: list[tuple[str, int, int]], *, quiet: bool) -> None:
    if len(game.broadcasts) == 3:
        await watch(game, moves, quiet=quiet)
        return
    process = len(game.broadcasts)
    async with open_broadcast(
        backplane=game.backplanes[process],
        history=game.history,
        envelope=numbered,
        on_gap=lambda _, topic: game.gaps[process].append(topic),
    ) as broadcast:
        game.broadcasts.append(broadcast)
        await open_all(game, moves, quiet=quiet)


async def watch(game: Game, moves: list[tuple[str, int, int]], *, quiet: bool) -> None:
    witness = Subscriber(game, 2, None)
    game.nursery.start_soon(witness.run)
    game.truth = Truth(witness)
    await trio.testing.wait_all_tasks_blocked()
    for step in moves:
        before = game.hub._log("a").position
        if step[0] != "settle":
            game.do(step)
        if quiet or step[0] == "settle":
            await trio.testing.wait_all_tasks_blocked()
            for each in game.subscribers:
                each.check()
        if quiet:
            check_recovered(game, step, before)
    await game.finish()


class Truth(dict[Position, str]):
    """What the witness has received."""

    def __init__(self, witness: Subscriber) -> None:
        super().__init__()
        witness.take = self.take  # type: ignore[method-assign]

    def take(self, message: str) -> None:
        text, _, body = message.split(" ")
        position = Position.parse(text)
        if position is not None:
            assert position not in self
            self[position] = body


def check_recovered(game: Game, step: tuple[str, int, int], before: Position) -> None:
    """Where all is quiet, what `recovered` has to be is what the model says."""
    model = game.model
    log = game.hub._log("a")
    if log.position.epoch != before.epoch:
        game.model = model = Model()
        before = Position(log.position.epoch, 0)
    for _ in range(log.position.offset - before.offset):
        model.publish()
    if step[0] == "trim":
        model.trim(step[2] % 4)
    if step[0] != "subscribe":
        return
    subscriber = game.subscribers[-1]
    position = subscriber.position
    if game.backplanes[subscriber.process].statistics().connected:
        if position is None:
            assert not subscriber.recovered
        elif position.epoch == log.position.epoch and model.recovers(position.offset):
            assert subscriber.recovered
        elif position.epoch == log.position.epoch and position.offset > model.newest:
            assert not subscriber.recovered
    elif position is None:
        assert not subscriber.recovered


EXAMPLES = 2000 if os.environ.get("TRIO_WS_SOAK") else 60


@settings(max_examples=EXAMPLES, deadline=None)
@given(steps(), st.integers(0, 4), st.booleans())
def test_whatever_happens_what_a_subscriber_gets_is_the_truth_or_a_gap_was_told(
    moves: list[tuple[str, int, int]], history: int, quiet: bool
) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(partial(play, quiet=quiet), moves, history, clock=clock)
