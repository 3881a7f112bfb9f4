"""The application's state of a topic: when it is asked for, for whom, and what follows it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.broadcast.broadcast_helpers import numbered, open_slow, open_two, receive
from tests.broadcast.test_positions import positions, rest, settle, texts
from tests.helpers import open_pair, open_server_with_raw_client
from trio_ws import (
    Broadcast,
    ConnectionClosed,
    DropNewest,
    Message,
    Position,
    StateUnavailable,
    open_broadcast,
)
from trio_ws.backplane import MemoryBackplane, MemoryHub

pytestmark = pytest.mark.autojump


class Store:
    """What the application knows, and how long it takes to look at it."""

    def __init__(self) -> None:
        self.calls = 0
        self.value: Message | None = "state"
        self.meanwhile: Callable[[], object] = int
        self.delay: float = 1

    async def get(self, topic: str) -> Message | None:
        self.calls += 1
        value = self.value
        self.meanwhile()
        await trio.sleep(self.delay)
        return value


#: Over what the state has to be right.
KINDS = pytest.mark.parametrize("kind", ["alone", "no positions", "positions"])


@asynccontextmanager
async def open_with(store: Store, kind: str, **options: Any) -> AsyncGenerator[Broadcast, None]:
    if kind != "alone":
        hub = MemoryHub(history=100 if kind == "positions" else 0)
        options["backplane"] = MemoryBackplane(hub)
    async with open_broadcast(state=store.get, envelope=numbered, **options) as broadcast:
        yield broadcast


@KINDS
async def test_a_newcomer_is_sent_the_state_and_then_what_came_after_its_position(
    kind: str,
) -> None:
    store = Store()
    async with open_with(store, kind, history=2) as broadcast:
        async with broadcast.open_channel("a") as channel:
            assert await texts(channel) == ["state"]
            for number in range(3):
                broadcast.publish(str(number), "a")
            *_, last = known = await positions(channel)
        store.meanwhile = lambda: [broadcast.publish(f"new{each}", "a") for each in range(5)]
        async with broadcast.open_channel("a") as channel:
            messages = await rest(channel)
            assert messages[0] == f"{last} a state"
            assert [each.split()[-1] for each in messages[1:]] == [f"new{n}" for n in range(5)]
            assert not channel.recovered
        assert store.calls == 2
        async with broadcast.open_channel("a", position=messages[0].split()[0]) as channel:
            if kind == "positions":
                assert channel.recovered
                assert await rest(channel) == messages[1:]
                assert store.calls == 2
        if kind != "positions":
            assert store.calls == 3
        assert known


@KINDS
async def test_all_who_need_a_state_at_the_same_moment_share_one_call(kind: str) -> None:
    store = Store()
    opened: list[list[str]] = []

    async def open_one() -> None:
        async with broadcast.open_channel("a") as channel:
            opened.append(await texts(channel))

    async with (
        open_with(store, kind) as broadcast,
        broadcast.open_channel("a"),
        trio.open_nursery() as nursery,
    ):
        for _ in range(10):
            nursery.start_soon(open_one)
        await trio.sleep(0.5)
        for _ in range(10):
            nursery.start_soon(open_one)
        await trio.sleep(0.4)
        store.value = "newer"
    assert sorted(opened) == [["newer"]] * 10 + [["state"]] * 10
    assert store.calls == 3


async def test_where_there_is_no_state_there_is_the_history() -> None:
    store = Store()
    store.value = None
    hub = MemoryHub(history=100)
    async with (
        open_two(hub, envelope=numbered, history=2, state=store.get) as (here, there),
        there.open_channel("a"),
    ):
        for number in range(3):
            there.publish(str(number), "a")
        async with here.open_channel("a") as channel:
            assert await texts(channel) == ["1", "2"]
            assert not channel.recovered
            record = here._topics.find("a")
            assert record is not None
            here._note_attached("a", Position(record.window.epoch, 3))
            assert await texts(channel) == []
            await trio.sleep(2)
            assert await texts(channel) == ["1", "2"]


@KINDS
async def test_a_function_that_fails_is_logged_and_whoever_waits_is_told(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(topic: str) -> str:
        await trio.sleep(1)
        raise ValueError("mine")

    store = Store()
    store.get = fail  # type: ignore[method-assign]
    async with open_with(store, kind) as broadcast, open_pair() as (_, ws):
        with pytest.raises(StateUnavailable, match="there is no state of 'a' now"):
            async with broadcast.subscribe(ws, "a"):
                pytest.fail("it has no state")
        assert broadcast.statistics().topics == 0
        assert len(broadcast) == 0
        async with broadcast.subscribe(ws) as subscription:
            with pytest.raises(StateUnavailable):
                await subscription.add_wait("a")
            assert subscription.topics == frozenset()
    assert caplog.text.count("ValueError: mine") == 2


@KINDS
async def test_a_function_that_is_too_slow_is_asked_again_and_then_given_up(kind: str) -> None:
    store = Store()

    def flood() -> None:
        for number in range(3000 if store.calls < limit else 1500):
            broadcast.publish(str(number), "a")

    store.meanwhile = flood
    limit = 3
    async with open_with(store, kind) as broadcast:
        async with broadcast.open_channel("a") as channel:
            assert (await texts(channel)) == ["state", *map(str, range(1500))]
        assert store.calls == 3
        limit = 100
        with pytest.raises(StateUnavailable):
            async with broadcast.open_channel("a"):
                pytest.fail("it has no state")
        assert store.calls == 6


@KINDS
async def test_a_cancelled_or_ended_wait_leaves_nothing_behind(kind: str) -> None:
    store = Store()
    store.delay = 5
    async with open_pair() as (_, ws), trio.open_nursery() as nursery:
        ended: list[str] = []

        async def wait_for_the_end() -> None:
            try:
                async with broadcast.subscribe(ws, "a"):
                    pytest.fail("it has no state")
            except trio.ClosedResourceError:
                ended.append("over")

        async with open_with(store, kind) as broadcast:
            with trio.move_on_after(1):
                async with broadcast.subscribe(ws, "a", "b"):
                    pytest.fail("it is too early")
            with trio.move_on_after(6):  # "a" is subscribed to already when "b" is cancelled
                async with broadcast.subscribe(ws, "a", "b"):
                    pytest.fail("it is too early")
            assert broadcast.statistics().topics == 0
            assert len(broadcast) == 0
            assert broadcast._catch_up._questions == {}
            nursery.start_soon(wait_for_the_end)
            await trio.sleep(1)
            with pytest.raises(ValueError, match="already"):
                async with broadcast.subscribe(ws, "a"):
                    pytest.fail("another task is about to")
        await settle()
        assert ended == ["over"]


async def test_a_block_that_is_left_while_another_task_adds_a_topic_has_not_got_it() -> None:
    store = Store()
    async with open_with(store, "alone") as broadcast, open_pair() as (_, ws):
        async with trio.open_nursery() as nursery:
            async with broadcast.subscribe(ws, "a") as subscription:

                async def add() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await subscription.add_wait("b")

                nursery.start_soon(add)
                await settle()
        assert broadcast.statistics().topics == 0
        assert len(broadcast) == 0


async def test_plain_with_says_what_to_write_instead() -> None:
    async with open_with(Store(), "alone") as broadcast, open_pair() as (_, ws):
        with pytest.raises(RuntimeError, match="async with broadcast.subscribe"):
            broadcast.subscribe(ws, "a").__enter__()


# After a gap…


async def test_after_a_gap_all_subscribers_are_sent_the_state_and_what_came_after_it() -> None:
    store = Store()
    hub = MemoryHub(history=100)
    async with (
        open_two(hub, envelope=numbered, state=store.get) as (here, there),
        open_server_with_raw_client() as (ws, peer),
        here.subscribe(ws, "a"),
        here.open_channel("a") as channel,
    ):
        await receive(peer, 1)
        there.publish("1", "a")
        assert await texts(channel) == ["state", "1"]
        known = str((await receive(peer, 1))[0]).split()[0]
        calls = store.calls
        hub.pause()
        hub.lose_data()
        hub.resume()
        await settle()
        there.publish("2", "a")
        there.publish("passing", "a", keep=False)
        assert await texts(channel) == []
        async with here.open_channel("a", position=known) as other:
            assert not other.recovered
            assert await texts(other) == ["state"]  # which was asked for after "2" came
        messages = await rest(channel)
        assert [each.split()[-1] for each in messages] == ["state", "2"]
        assert [str(each) for each in await receive(peer, 2)] == messages
        assert known.split("-")[0] not in messages[0]
        assert store.calls == calls + 2
        there.publish("3", "a")
        assert await texts(channel) == ["3"]


async def test_subscribers_whose_state_cannot_be_had_after_a_gap_are_disconnected() -> None:
    store = Store()
    async with (
        open_two(MemoryHub(), state=store.get) as (here, _),
        open_pair() as (client, ws),
        here.subscribe(ws, "a"),
        here.open_channel("a") as channel,
    ):
        store.value = 5  # type: ignore[assignment]
        here._note_gap(None)
        here._note_gap("a")
        here._note_gap("unknown")
        assert [str(each) async for each in channel] == ["state"]
        assert await client.receive() == "state"
        with pytest.raises(ConnectionClosed):
            await client.receive()
        assert ws.close_reason is not None
        assert (ws.close_reason.code, ws.close_reason.reason) == (1013, "no state")
        assert store.calls <= 4


async def test_a_gap_while_everybody_leaves_or_the_broadcast_ends() -> None:
    store = Store()
    async with open_two(MemoryHub(), state=store.get) as (here, there):
        async with here.open_channel("a"):
            here._note_gap("a")
            await settle()
        async with here.open_channel("a") as channel:
            here._note_gap("a")
            assert await texts(channel) == ["state"]
            await trio.sleep(3)
            assert await texts(channel) == ["state"]
            here._note_gap("a")
            await trio.sleep(0.5)
    assert there.statistics().topics == 0


@pytest.mark.parametrize("policy", ["disconnect", "drop"])
async def test_a_reader_too_slow_for_the_state_is_treated_as_its_policy_says(policy: str) -> None:
    store = Store()
    options: dict[str, Any] = {"policy": DropNewest()} if policy == "drop" else {}
    async with (
        open_broadcast(state=store.get, max_queued_messages=2, **options) as broadcast,
        open_slow() as (ws, peer, stream),
    ):
        async with broadcast.subscribe(ws, "a") as subscription:
            for number in range(2):  # which is all that may wait
                broadcast.publish(str(number), "a")
            await subscription.add_wait("b")
            assert broadcast.statistics().disconnected == (policy == "disconnect")
            if policy == "drop":
                broadcast._note_gap("a")
                await trio.sleep(2)
                stream.go_on()
                assert await receive(peer, 3) == ["state", "0", "1"]
