"""How a topic is followed over streams, in every order in which answers and messages may come.

A model of Redis takes the place of the real one here, because only a model can be made to answer
late. The other tests of streams have the real one.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from tests.conftest import run_autojumped
from tests.protocol.properties import budget
from trio_ws.backplane import BackplaneMessage, Position
from trio_ws.backplane._envelope import Envelope, encode
from trio_ws.backplane._incoming import Incoming
from trio_ws.backplane._interest import Interest
from trio_ws.backplane._places import Places
from trio_ws.backplane._redis import streams as _streams
from trio_ws.backplane._redis.address import KeyRefused
from trio_ws.backplane._redis.scripts import Bounds, mark_in
from trio_ws.backplane._redis.streams import Streams

TOPIC = "news"
CHANNEL = b"{news}"


class Asked(NamedTuple):
    """A read on its way: first Redis answers it, then the answer arrives."""

    words: tuple[Any, ...]
    answers: list[Any]
    arrived: trio.Event


class Server:
    """One topic in Redis, and both connections to it."""

    def __init__(self) -> None:
        self.epochs = 0
        self.epoch = ""
        self.top = 0
        self.log: dict[int, bytes] = {}
        self.truth: dict[Position, int] = {}
        self.number = 0
        self.refuses = False
        self.start_session()

    def start_session(self) -> None:
        self.subscribed = False
        self.pushes: deque[list[Any]] = deque()
        self.pushed = trio.Event()
        self.arriving = 0
        self.unanswered: deque[Asked] = deque()
        self.answered: deque[Asked] = deque()

    # What may happen to it…

    def begin(self) -> None:
        self.epochs += 1
        self.epoch = f"epoch{self.epochs}"

    def publish(self, *, kept: bool = True, size: int = 1) -> None:
        self.number += 1
        data = encode(Envelope(b"somebody", self.number, 0, f"{self.number} {size * 'x'}", kept))
        if kept:
            if not self.epoch:
                self.begin()
            self.top += 1
            self.log[self.top] = data
            position = Position(self.epoch, self.top)
            self.truth[position] = self.number
            data = f"@{position}\n".encode() + data
        if self.subscribed:
            self.pushes.append([b"message", CHANNEL, data])

    def trim(self) -> None:
        for offset in [*self.log][: len(self.log) // 2]:
            del self.log[offset]

    def lose_all(self) -> None:
        self.log.clear()
        self.epoch, self.top = "", 0

    def lose_end(self) -> None:
        """As a replica does that takes over. Only between two connections."""
        while self.log and self.top % 3:
            self.log.pop(self.top, None)
            self.top -= 1

    def answer(self) -> None:
        """Answer the first read that is on its way."""
        asked = self.unanswered.popleft()
        epoch, offset, mark, _, _, count, size = asked.words[5:12]
        here = self.log.get(offset)
        wrong = offset > self.top or (here is not None and mark not in (b"?", mark_in(here)))
        if not self.epoch or (epoch == self.epoch and wrong):
            self.begin()
        start = offset if epoch == self.epoch else max(0, self.top - count)
        words, taken = [self.epoch.encode(), b"%d" % self.top], 0
        for each, data in self.log.items():
            if each > start and taken < size:
                words += [b"%d" % each, data]
                taken += len(data)
        asked.answers.append(KeyRefused("wrong kind") if self.refuses else words)
        self.answered.append(asked)

    # The connections…

    async def dispatch(self, handle: Callable[[list[Any]], None]) -> None:
        while True:
            await self.pushed.wait()
            self.pushed = trio.Event()
            for _ in range(self.arriving):
                handle(self.pushes.popleft())
            self.arriving = 0

    def send(self, command: bytes, channel: bytes) -> None:
        self.subscribed = command == b"SUBSCRIBE"
        self.pushes.append([command.lower(), channel, 1])

    async def request(self, *words: Any) -> None:
        await trio.lowlevel.checkpoint()

    def ask(self, *words: Any) -> Awaitable[Any]:
        asked = Asked(words, [], trio.Event())
        self.unanswered.append(asked)
        return self.wait_for(asked)

    async def wait_for(self, asked: Asked) -> Any:
        await asked.arrived.wait()
        if isinstance(asked.answers[0], Exception):
            raise asked.answers[0]
        return asked.answers[0]

    async def answer_to(self, asked: Awaitable[Any]) -> Any:
        return await asked


class Link:
    """What `Streams` sees of a connection."""

    def __init__(self, server: Server) -> None:
        self.dispatch = server.dispatch
        self.send = server.send
        self.request = server.request
        self.ask = server.ask
        self.answer = server.answer_to


class Follower:
    """A process that follows the topic, and what it gets."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.interest = Interest()
        self.incoming = Incoming(b"ourselves"[:8], logging.getLogger("trio_ws"))
        self.places = Places(b"ourselves"[:8], self.incoming)
        self.places.open(self.deliver, self.attach)
        self.streams = Streams("", Bounds(), self.interest, self.incoming, self.places)
        self.place: Position | None = None
        self.last = 0
        self.on_delivery = ""
        self.refused = False

    def attach(self, topic: str, position: Position) -> None:
        self.place = position

    def deliver(self, message: BackplaneMessage) -> None:
        """Each comes once, in order, without a hole, and is what was published in this place."""
        number = int(str(message.message).split()[0])
        assert number > self.last
        self.last = number
        assert self.place is not None
        if message.kept:
            self.place = Position(self.place.epoch, self.place.offset + 1)
            assert message.position == self.place
            assert self.server.truth[self.place] == number
        if self.on_delivery:
            action, self.on_delivery = self.on_delivery, ""
            self.leave()
            if action == "hop":
                self.interest.add(TOPIC)

    def leave(self) -> None:
        if self.interest.remove(TOPIC):
            self.incoming.forget(TOPIC)
            self.places.forget(TOPIC)
            self.place = None

    async def run(self, actions: Iterable[str]) -> None:
        async with trio.open_nursery() as nursery:
            session = await self.connect(nursery)
            for action in ["subscribe", "flow", *actions, "subscribe"]:
                if action == "reconnect":
                    session.cancel()
                    self.server.lose_end()
                    self.server.start_session()
                    session = await self.connect(nursery)
                elif action in SEVERAL:
                    for one in SEVERAL[action]:
                        self.do(one)
                        await trio.testing.wait_all_tasks_blocked()
                else:
                    self.do(action)
                if not action.startswith("quickly"):
                    await trio.testing.wait_all_tasks_blocked()
            await self.settle()
            nursery.cancel_scope.cancel()

    async def connect(self, nursery: trio.Nursery) -> trio.CancelScope:
        link: Any = Link(self.server)
        self.interest.lose()
        await self.streams.start_session(link, 0)
        scope = trio.CancelScope()

        async def listen(*, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await self.streams.listen(link, link, task_status=task_status)

        await nursery.start(listen)
        return scope

    def do(self, action: str) -> None:
        server = self.server
        match action:
            case "subscribe":
                self.interest.add(TOPIC)
            case "unsubscribe" | "quickly unsubscribe":
                self.leave()
            case "hop" | "leave":  # as soon as something is delivered
                self.on_delivery = action
            case "publish":
                server.publish()
            case "publish much":
                for _ in range(4):
                    server.publish(size=50)
            case "pass":
                server.publish(kept=False)
            case "trim":
                server.trim()
            case "lose":
                server.lose_all()
            case "push one":
                server.arriving = min(1, len(server.pushes))
                server.pushed.set()
            case "push":
                server.arriving = len(server.pushes)
                server.pushed.set()
            case "answer":
                if server.unanswered:
                    server.answer()
            case "arrive":
                if server.answered:
                    server.answered.popleft().arrived.set()
            case "refuse":
                server.refuses = not server.refuses
                self.refused = True
            case other:
                raise ValueError(other)

    async def settle(self) -> None:
        """Let everything arrive, and check that the end is reached, and still is after one more."""
        self.server.refuses = False
        self.on_delivery = ""
        for more in (False, True):
            if more:
                self.server.publish()
            for _ in range(20):
                for action in SEVERAL["flow"]:
                    self.do(action)
                    await trio.testing.wait_all_tasks_blocked()
            assert not (self.server.pushes or self.server.unanswered or self.server.answered)
            assert self.interest.is_confirmed(TOPIC)
            # Before anything comes, nobody sees that all is lost, or that a key is ours again.
            if more or (self.server.epoch and not self.refused):
                assert self.place == Position(self.server.epoch, self.server.top)


#: Steps that are often taken together.
SEVERAL = {"read": ("answer", "arrive"), "flow": ("push", "answer", "arrive")}

ACTIONS = [
    *(["publish", "publish much", "push one", "read"] * 3),
    *(["subscribe", "pass", "push", "flow", "reconnect", "reconnect"] * 2),
    *("answer", "arrive", "unsubscribe", "quickly unsubscribe", "hop", "leave"),
    *("trim", "lose", "refuse"),
]


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streams, "READ_BYTES", 150)
    monkeypatch.setattr(_streams, "HELD_BYTES", 250)


@budget(150)
@given(st.lists(st.sampled_from(ACTIONS), min_size=20, max_size=40))
def test_whatever_happens_each_message_comes_once_in_order_and_a_loss_is_told(
    actions: list[str],
) -> None:
    async def follow() -> None:
        await Follower(Server()).run(actions)

    run_autojumped(follow)
