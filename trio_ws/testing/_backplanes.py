"""The contract of a backplane, as checks that any implementation can be put to.

This module owns what is observed of a backplane from outside. It knows no broker.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TypeAlias, cast

import trio

from ..backplane._base import Backplane, BackplaneError, BackplaneMessage, Past
from ..backplane._position import Position

#: Makes a new backplane, over the same broker each time.
MakeBackplane: TypeAlias = Callable[[], Backplane]

#: Takes the broker away for as long as a block goes on. Its data stays.
Interrupt: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]


class _Node:
    """One process: a backplane, and what it was told."""

    def __init__(self, backplane: Backplane, within: float) -> None:
        self.backplane = backplane
        self.within = within
        self.messages: list[BackplaneMessage] = []
        self.attached: list[tuple[str, Position]] = []
        self.gaps: list[str | None] = []
        self.lost: list[int] = []

    def note_attached(self, topic: str, position: Position) -> None:
        self.attached.append((topic, position))

    @property
    def texts(self) -> list[str | bytes]:
        return [message.message for message in self.messages]

    async def wait_for(self, what: str, condition: Callable[[], object]) -> None:
        with trio.move_on_after(self.within):
            while not condition():  # noqa: ASYNC110 - a backplane tells nobody when it moves
                await trio.sleep(0.01)
            return
        raise AssertionError(f"within {self.within:g} s, {what}; it has {self.messages!r}")

    async def wait_for_messages(self, count: int) -> None:
        await self.wait_for(f"{count} messages come", lambda: len(self.messages) >= count)

    async def publish(self, topic: str, *texts: str) -> None:
        for text in texts:
            self.backplane.publish(topic, text)
        with trio.fail_after(self.within):
            await self.backplane.flush()


class _Check:
    """What each check is given."""

    def __init__(self, make: MakeBackplane, interrupt: Interrupt | None, within: float) -> None:
        self.make = make
        self.interrupt = interrupt
        self.within = within
        # A name of its own for each check: the broker may keep what others left.
        self.topic = f"check {os.urandom(8).hex()}"

    @asynccontextmanager
    async def run(self, *topics: str) -> AsyncGenerator[_Node, None]:
        node = _Node(self.make(), self.within)
        for topic in topics:
            node.backplane.subscribe(topic)
        async with trio.open_nursery() as nursery:
            with trio.fail_after(self.within):
                await nursery.start(
                    node.backplane.run,
                    node.messages.append,
                    node.gaps.append,
                    node.note_attached,
                    node.lost.append,
                )
                await node.backplane.wait_subscribed()
            yield node
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def run_two(self) -> AsyncGenerator[tuple[_Node, _Node], None]:
        async with self.run(self.topic) as one, self.run(self.topic) as other:
            yield one, other


# For every backplane…


async def _messages_reach_the_others_in_order_as_they_were(check: _Check) -> None:
    async with check.run_two() as (one, other):
        expected: list[str | bytes] = [
            "text",
            b"\x00bytes\r\n",
            "ünïcode",
            "",
            *map(str, range(50)),
        ]
        for message in expected:
            one.backplane.publish(check.topic, message)
        one.backplane.publish(check.topic, bytearray(b"passing"), keep=False)
        await other.wait_for_messages(len(expected) + 1)
        assert other.texts == [*expected, b"passing"]
        assert [message.kept for message in other.messages] == [True] * len(expected) + [False]
        assert {message.topic for message in other.messages} == {check.topic}
        assert {message.token for message in other.messages} == {None}
        assert (other.gaps, other.lost) == ([], [])


async def _only_topics_that_are_subscribed_to_are_delivered(check: _Check) -> None:
    other_topic = check.topic + " too"
    async with check.run_two() as (one, other):
        await one.publish(other_topic, "nobody")
        other.backplane.subscribe(other_topic)
        other.backplane.subscribe(other_topic)
        with trio.fail_after(check.within):
            await other.backplane.wait_subscribed()
        await one.publish(other_topic, "1")
        await other.wait_for_messages(1)
        other.backplane.unsubscribe(other_topic)
        other.backplane.unsubscribe(other_topic)
        await one.publish(other_topic, "nobody")
        await one.publish(check.topic, "2")
        await other.wait_for_messages(2)
        assert [(each.topic, each.message) for each in other.messages] == [
            (other_topic, "1"),
            (check.topic, "2"),
        ]


async def _what_is_published_before_it_runs_is_carried(check: _Check) -> None:
    async with check.run(check.topic) as node:
        early = check.make()
        early.publish(check.topic, "early")
        async with trio.open_nursery() as nursery:
            await nursery.start(early.run, _ignore, _ignore)
            await node.wait_for_messages(1)
            nursery.cancel_scope.cancel()
        assert node.texts == ["early"]


async def _tokens_grow(check: _Check) -> None:
    async with check.run() as node:
        publish = node.backplane.publish
        tokens = [publish(check.topic, "", keep=number % 2 == 0) for number in range(9)]
        tokens.append(await node.backplane.publish_wait(check.topic, ""))
        assert tokens == sorted({*tokens}), tokens


async def _every_async_method_can_be_cancelled_and_has_then_done_nothing(check: _Check) -> None:
    async with check.run(check.topic) as node:
        backplane = node.backplane
        calls: list[Callable[[], Awaitable[object]]] = [
            partial(backplane.publish_wait, check.topic, "cancelled"),
            partial(backplane.wait_for_room, "message"),
            backplane.flush,
            backplane.wait_subscribed,
        ]
        if backplane.keeps_positions:
            calls += [
                partial(backplane.wait_attached, check.topic),
                partial(backplane.read, check.topic, None, 1),
            ]
        for call in calls:
            with trio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught, f"{call} is no checkpoint"
        assert backplane.statistics().published == 0


async def _wrong_arguments_are_refused_when_they_are_given(check: _Check) -> None:
    async with check.run() as node:
        backplane = node.backplane
        wrong = cast("str", 5)
        for error, call in (
            (TypeError, partial(backplane.subscribe, wrong)),
            (TypeError, partial(backplane.publish, wrong, "")),
            (TypeError, partial(backplane.publish, check.topic, wrong)),
            (ValueError, partial(backplane.subscribe, "\ud800")),
            (ValueError, partial(backplane.publish, check.topic, "\ud800")),
        ):
            try:
                call()
            except error:
                continue
            raise AssertionError(f"{call} raises no {error.__name__}")
        assert backplane.statistics().published == 0


async def _what_waits_ends_with_it_and_it_runs_once(check: _Check) -> None:
    async with check.run() as node:
        pass
    backplane = node.backplane
    for call in (backplane.flush, backplane.wait_subscribed):
        try:
            await call()
        except trio.ClosedResourceError:
            continue
        raise AssertionError(f"{call} raises no ClosedResourceError after the end")
    backplane.publish(check.topic, "too late")
    try:
        await backplane.run(_ignore, _ignore)
    except RuntimeError:
        return
    raise AssertionError("it ran a second time")


async def _after_an_outage_it_goes_on(check: _Check) -> None:
    if check.interrupt is None:
        return
    async with check.run_two() as (one, other):
        await one.publish(check.topic, "before")
        await other.wait_for_messages(1)
        async with check.interrupt():
            one.backplane.publish(check.topic, "meanwhile")
            await other.wait_for("it notices", lambda: not _connected(other))
            if other.backplane.keeps_positions:
                try:
                    await other.backplane.read(check.topic, None, 1)
                except BackplaneError:
                    pass
                else:
                    raise AssertionError("read raises no BackplaneError while the broker is away")
        await other.wait_for("it is back", lambda: _connected(other) and _connected(one))
        with trio.fail_after(check.within):
            await other.backplane.wait_subscribed()
        await one.publish(check.topic, "after")
        await other.wait_for("messages come again", lambda: "after" in other.texts)
        if other.backplane.keeps_positions:
            assert other.texts == ["before", "meanwhile", "after"]
            assert len(other.attached) == 1, "a lost connection alone is no gap"
        else:
            assert other.gaps or other.texts == ["before", "meanwhile", "after"]


def _connected(node: _Node) -> bool:
    return node.backplane.statistics().connected


# Without positions…


async def _it_says_that_there_are_no_positions(check: _Check) -> None:
    async with check.run_two() as (one, other):
        for call in (
            partial(one.backplane.wait_attached, check.topic),
            partial(one.backplane.read, check.topic, None, 1),
        ):
            try:
                await call()
            except NotImplementedError:
                continue
            raise AssertionError(f"{call} raises no NotImplementedError")
        await one.publish(check.topic, "1")
        await other.wait_for_messages(1)
        assert one.messages == []
        assert other.messages == [BackplaneMessage(check.topic, "1", True, None, None)]
        assert (one.attached, other.attached) == ([], [])


# With positions…


async def _every_message_comes_to_all_in_one_order_without_a_hole(check: _Check) -> None:
    async with check.run_two() as (one, other):
        tokens: dict[int, int] = {}
        for number in range(50):
            tokens[number] = one.backplane.publish(check.topic, str(number))
            other.backplane.publish(check.topic, str(100 + number))
            one.backplane.publish(check.topic, "passing", keep=False)
        for node in (one, other):
            await node.wait_for_messages(150)
            assert node.gaps == []
            assert len(node.attached) == 1
            kept = [message for message in node.messages if message.kept]
            _, attached = node.attached[0]
            assert [message.position for message in kept] == [
                Position(attached.epoch, attached.offset + number) for number in range(1, 101)
            ]
            assert {each.position for each in node.messages if not each.kept} == {None}
        assert one.attached == other.attached
        order = [[each.message for each in node.messages if each.kept] for node in (one, other)]
        assert order[0] == order[1]
        of_one = [each for each in one.messages if each.token is not None]
        assert len(of_one) == 100, "messages of one's own have their token"
        assert [each.token for each in of_one] == sorted(each.token or 0 for each in of_one)
        for each in of_one:
            if each.kept:
                assert each.token == tokens[int(each.message)]


async def _what_is_kept_can_be_read(check: _Check) -> None:
    async with check.run_two() as (one, other):
        read = partial(other.backplane.read, check.topic)
        nothing = await read(None, 9)
        assert nothing.messages == ()
        epoch, start = nothing.position.epoch, nothing.position.offset
        for number in range(1, 6):
            one.backplane.publish(check.topic, str(number))
            one.backplane.publish(check.topic, "passing", keep=False)
        await one.publish(check.topic, "6")
        newest = Position(epoch, start + 6)
        for after, count, expected in (
            (None, 2, "56"),
            (None, 0, ""),
            (Position(epoch, start + 4), 9, "56"),
            (Position(epoch, start + 4), 1, "6"),
            (newest, 9, ""),
            (Position(epoch, start + 99), 9, ""),
            (Position("another", 1), 2, "56"),
        ):
            past = await read(after, count)
            assert past == Past(newest, tuple(expected)), (after, count)
        unknown = await other.backplane.read(f"{check.topic} too", None, 5)
        assert (unknown.messages, unknown.position.offset) == ((), 0)


async def _a_topic_is_delivered_from_where_it_is_attached(check: _Check) -> None:
    topic = f"{check.topic} later"
    async with check.run_two() as (one, other):
        await one.publish(topic, "1", "2")
        for round_ in (1, 2):
            other.backplane.subscribe(topic)
            with trio.fail_after(check.within):
                await other.backplane.wait_attached(topic)
            name, position = other.attached[-1]
            past = await other.backplane.read(topic, None, 1)
            assert (name, position) == (topic, past.position)
            await one.publish(topic, "new")
            await other.wait_for_messages(round_)
            assert other.messages[-1].position == Position(position.epoch, position.offset + 1)
            other.backplane.unsubscribe(topic)
        assert other.backplane.statistics().gaps == 0


_FOR_ALL = (
    _messages_reach_the_others_in_order_as_they_were,
    _only_topics_that_are_subscribed_to_are_delivered,
    _what_is_published_before_it_runs_is_carried,
    _tokens_grow,
    _every_async_method_can_be_cancelled_and_has_then_done_nothing,
    _wrong_arguments_are_refused_when_they_are_given,
    _what_waits_ends_with_it_and_it_runs_once,
    _after_an_outage_it_goes_on,
)
_WITHOUT_POSITIONS = (_it_says_that_there_are_no_positions,)
_WITH_POSITIONS = (
    _every_message_comes_to_all_in_one_order_without_a_hole,
    _what_is_kept_can_be_read,
    _a_topic_is_delivered_from_where_it_is_attached,
)


async def check_backplane(
    make: MakeBackplane, *, interrupt: Interrupt | None = None, within: float = 10.0
) -> None:
    """Check that a backplane does what `Backplane` promises: for whoever writes one.

    ::

        async def test_it_keeps_the_contract():
            await check_backplane(lambda: MyBackplane(url))

    It publishes on topics with random names, which begin with "check". The broker has to keep at
    least 100 messages of a topic. What cannot be checked without taking a broker's data away is
    left to your tests: that a trimmed or lost history is attached anew.

    Args:
        make: makes a backplane, each time a new one over the same broker.
        interrupt: an async context manager that takes the broker away, its data kept, while its
            block goes on. Without it, outages are not checked.
        within: how many seconds anything may take.

    Raises:
        AssertionError: a promise was broken. A note says which one.
        Exception: anything else that a backplane raises where it should not, with the same note.
    """
    checks = _WITH_POSITIONS if make().keeps_positions else _WITHOUT_POSITIONS
    for function in (*_FOR_ALL, *checks):
        try:
            await function(_Check(make, interrupt, within))
        except Exception as exc:
            promise = function.__name__.strip("_").replace("_", " ")
            exc.add_note(f"the promise of a backplane was: {promise}")
            raise


def _ignore(*_: object) -> None:
    """Nobody listens."""
