"""A broadcast over a backplane that keeps positions: one order, and catching up in any process."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.broadcast.broadcast_helpers import numbered, open_two, receive
from tests.broadcast.stub_backplane import StubBackplane
from tests.helpers import open_pair, open_server_with_raw_client
from trio_ws import Broadcast, BroadcastChannel, Position, open_broadcast
from trio_ws._broadcast.catching_up import GetState
from trio_ws.backplane import MemoryBackplane, MemoryHub, Past

pytestmark = pytest.mark.autojump


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def rest(channel: BroadcastChannel) -> list[str]:
    """The messages that are here."""
    await settle()
    messages: list[str] = []
    while channel.statistics().current_buffer_used:
        messages.append(str(channel.receive_nowait()))
    return messages


async def positions(channel: BroadcastChannel) -> list[str]:
    return [message.split()[0] for message in await rest(channel)]


async def texts(channel: BroadcastChannel) -> list[str]:
    return [message.split()[-1] for message in await rest(channel)]


# One order for all…


async def test_all_processes_have_one_order_and_publish_hands_a_message_to_nobody() -> None:
    async with open_two(MemoryHub(history=10), envelope=numbered) as (here, there):
        async with here.open_channel("a") as one, there.open_channel("a") as other:
            assert here.publish("1", "a") == 0
            assert there.publish("2", "a") == 0
            assert await here.publish_wait("3", "a") == 0
            assert there.publish("passing", "a", keep=False) == 0
            messages = await rest(one)
            assert messages == await rest(other)
            assert sorted(message.split()[-1] for message in messages) == ["1", "2", "3", "passing"]
            kept = [Position.parse(text.split()[0]) for text in messages if text[0] != " "]
            assert [position and position.offset for position in kept] == [1, 2, 3]
        assert (here.statistics().published, here.statistics().delivered) == (4, 4)
        here.publish("to nobody here", "b")
        await settle()
        assert here.statistics().published == 5
        assert here.statistics().topics == 0


async def test_who_is_excluded_and_compression_are_remembered_until_a_message_comes_back() -> None:
    async with (
        open_broadcast(backplane=MemoryBackplane(MemoryHub(history=1))) as broadcast,
        open_server_with_raw_client() as (ws, peer),
        open_pair() as (client, other),
        broadcast.subscribe(ws, "a"),
        broadcast.subscribe(other, "a"),
    ):
        broadcast.publish("1", "a", exclude=ws)
        broadcast.publish("2", "a", compress=False)
        broadcast.publish("3", "b", exclude=ws)
        assert len(broadcast._own) == 2
        assert [await client.receive(), await client.receive()] == ["1", "2"]
        assert await receive(peer, 1) == ["2"]
        assert len(broadcast._own) == 0


async def test_a_message_that_the_full_queue_drops_has_never_been() -> None:
    hub = MemoryHub(history=10)
    backplane = MemoryBackplane(hub, max_queued_messages=2)
    async with open_broadcast(backplane=backplane) as broadcast, open_pair() as (_, ws):
        async with broadcast.open_channel("a") as channel:
            hub.pause()
            for number in range(5):
                broadcast.publish(str(number), "a", exclude=ws)
            assert len(broadcast._own) == 2
            hub.resume()
            assert await texts(channel) == ["3", "4"]
        assert len(broadcast._own) == 0


async def test_what_never_comes_back_is_forgotten() -> None:
    backplane = StubBackplane()
    async with open_broadcast(backplane=backplane) as broadcast, open_pair() as (_, ws):
        backplane.attach_wait.set()
        async with broadcast.open_channel("a"), broadcast.open_channel("b"):
            for topic in ("a", "b"):
                backplane.attach(topic, Position("x", 0))
                for _ in range(3):
                    broadcast.publish("1", topic, exclude=ws)
            backplane.deliver("a", Position("x", 1), token=2)
            assert len(broadcast._own) == 4
            backplane.lose(4)
            backplane.lose(4)
            assert len(broadcast._own) == 3
        assert len(broadcast._own) == 0


async def test_an_envelope_that_fails_is_a_gap(caplog: pytest.LogCaptureFixture) -> None:
    gaps: list[str | None] = []

    def envelope(message: str | bytes, position: str, topic: str) -> str:
        if message == "bad":
            raise ValueError("mine")
        return numbered(message, position, topic)

    async with open_broadcast(
        backplane=MemoryBackplane(MemoryHub(history=10)),
        envelope=envelope,
        history=10,
        on_gap=lambda _, topic: gaps.append(topic),
    ) as broadcast:
        async with broadcast.open_channel("a") as channel:
            for message in ("1", "bad", "3"):
                broadcast.publish(message, "a")
            broadcast.publish("bad", "a", keep=False)
            known, _ = await positions(channel)
        assert gaps == ["a"]
        async with broadcast.open_channel("a", position=known) as channel:
            assert not channel.recovered
            assert await texts(channel) == ["3"]
    assert caplog.text.count("ValueError: mine") == 3


# Catching up…


async def test_a_client_may_come_back_to_any_process() -> None:
    async with open_two(MemoryHub(history=10), envelope=numbered, history=3) as (here, there):
        async with here.open_channel("a") as channel:
            assert not channel.recovered
            for number in range(8):
                there.publish(str(number), "a")
            known = await positions(channel)
        for broadcast in (here, there):
            for seen, position in enumerate(known):
                async with broadcast.open_channel("a", position=position) as channel:
                    there.publish("passing", "a", keep=False)
                    expected = [*map(str, range(seen + 1, 8)), "passing"]
                    assert await texts(channel) == expected
                    assert channel.recovered
            async with broadcast.open_channel("a") as channel:
                assert not channel.recovered
                assert await texts(channel) == ["5", "6", "7"]


@pytest.mark.parametrize("nonsense", ["", "x", "x-1", "{epoch}-9", "{epoch}-0", "{epoch}-1"])
async def test_a_position_that_leads_nowhere_brings_the_history(nonsense: str) -> None:
    hub = MemoryHub(history=4)
    async with open_two(hub, envelope=numbered, history=2) as (here, there):
        async with there.open_channel("a") as channel:
            for number in range(1, 7):
                there.publish(str(number), "a")
            epoch = (await positions(channel))[0].split("-")[0]
        position = nonsense.format(epoch=epoch)
        for _ in range(2):
            async with here.open_channel("a", position=position) as channel:
                assert not channel.recovered
                assert await texts(channel) == ["5", "6"]
        assert hub.reads <= 4


async def test_more_is_not_read_than_max_recovered() -> None:
    hub = MemoryHub(history=100)
    async with open_two(hub, envelope=numbered, max_recovered=5) as (here, there):
        async with there.open_channel("a") as channel:
            for number in range(10):
                there.publish(str(number), "a")
            known = await positions(channel)
        async with here.open_channel("a", position=known[4]) as channel:
            assert channel.recovered
            assert await texts(channel) == ["5", "6", "7", "8", "9"]
        async with here.open_channel("a", position=known[3]) as channel:
            assert not channel.recovered
            assert await texts(channel) == []
        async with here.open_channel("a", position=known[9]) as channel:
            assert channel.recovered


async def test_with_subscribe_several_topics_and_add_wait() -> None:
    hub = MemoryHub(history=10)
    async with (
        open_two(hub, envelope=numbered) as (here, there),
        open_server_with_raw_client() as (ws, peer),
    ):
        async with there.open_channel("a") as one, there.open_channel("b") as other:
            for number in range(3):
                for topic in ("a", "b"):
                    there.publish(str(number), topic)
            known = {"a": (await positions(one))[1], "b": (await positions(other))[0]}
        with pytest.raises(RuntimeError, match="async with broadcast.subscribe"):
            here.subscribe(ws, "a").__enter__()
        async with here.subscribe(ws, "a", "b", position=known) as subscription:
            assert subscription.recovered
            received = [str(each) for each in await receive(peer, 3)]
            assert [each.partition(" ")[2] for each in received] == ["a 2", "b 1", "b 2"]
            at = {each.split()[1]: each.split()[0] for each in received}
            assert subscription.positions == at
            with pytest.raises(RuntimeError, match="await subscription.add_wait"):
                subscription.add("c")
            assert not await subscription.add_wait("a", "c")
            assert not await subscription.add_wait()
            assert subscription.topics == {"a", "b", "c"}
            fresh = Position.parse(subscription.positions["c"])
            assert fresh is not None
            assert fresh.offset == 0
            assert here.subscribers("c") == {ws}
            with pytest.raises(ValueError, match="subscribed to 'c' already"):
                async with here.subscribe(ws, "c"):
                    pytest.fail("it is")
        with pytest.raises(RuntimeError, match="entered once"):
            await subscription.__aenter__()
        with pytest.raises(trio.ClosedResourceError):
            await subscription.add_wait("d")
        assert len(here) == 0


async def test_two_thousand_that_come_back_at_once_read_at_most_five_times() -> None:
    hub = MemoryHub(history=1000)
    async with open_two(hub, envelope=numbered, history=10) as (here, there):
        async with there.open_channel("a", max_queued_messages=1000) as channel:
            for number in range(500):
                there.publish(str(number), "a")
            known = await positions(channel)
            assert len(known) == 500
        outcomes: list[tuple[bool, list[str]]] = []

        async def come_back(number: int) -> None:
            position = known[number % 400]
            async with here.open_channel("a", position=position, max_queued_messages=1000) as mine:
                await ready.wait()
                messages = [await mine.receive() for _ in range(502 - number % 400)]
                outcomes.append((mine.recovered, [str(each).split()[-1] for each in messages]))

        def publishing() -> float:
            began = time.thread_time()
            for number in range(500, 503):
                here.publish(str(number), "a")
            return time.thread_time() - began

        ready = trio.Event()
        async with trio.open_nursery() as nursery:
            for number in range(2000):
                nursery.start_soon(come_back, number)
            await trio.lowlevel.checkpoint()
            assert publishing() < 0.05  # it does nothing for any of them
            ready.set()
        assert len(outcomes) == 2000
        for recovered, messages in outcomes:
            assert recovered
            assert messages == [str(each) for each in range(int(messages[0]), 503)]
        assert hub.reads <= 5
        assert here._catch_up._questions == {}


async def test_who_has_seen_more_than_this_process_is_waited_for() -> None:
    backplane = StubBackplane()

    async def answer(after: Position | None) -> Past:
        return Past(Position("x", 5), ())

    async with open_broadcast(backplane=backplane, history=5) as broadcast:
        outcomes: list[tuple[bool, list[str]]] = []

        async def come_back(offset: int) -> None:
            async with broadcast.open_channel("a", position=Position("x", offset)) as channel:
                await settle()
                outcomes.append((channel.recovered, await texts(channel)))

        backplane.answer = answer
        backplane.attach_wait.set()
        async with broadcast.open_channel("a") as channel, trio.open_nursery() as nursery:
            backplane.attach("a", Position("x", 3))
            nursery.start_soon(come_back, 5)
            await settle()
            backplane.deliver("a", Position("x", 4))
            await settle()
            assert outcomes == []
            backplane.deliver("a", Position("x", 5))
            backplane.deliver("a", Position("x", 6))
            assert await texts(channel) == ["4", "5", "6"]
        assert outcomes == [(True, ["6"])]


@pytest.mark.parametrize("change", ["nothing", "away", "epoch", "another epoch", "end"])
async def test_who_has_seen_more_than_there_is_is_not_waited_for_for_ever(change: str) -> None:
    backplane = StubBackplane()

    async def answer(after: Position | None) -> Past:
        return Past(Position("y" if change == "another epoch" else "x", 5), ())

    async def come_back() -> None:
        try:
            async with broadcast.open_channel("a", position="x-5") as channel:
                assert not channel.recovered
                outcomes.append("opened")
        except trio.ClosedResourceError:
            outcomes.append("over")

    outcomes: list[str] = []
    if change != "away":
        backplane.answer = answer
    backplane.attach_wait.set()
    async with trio.open_nursery() as nursery:
        async with open_broadcast(backplane=backplane) as broadcast, broadcast.open_channel("a"):
            backplane.attach("a", Position("x", 3))
            nursery.start_soon(come_back)
            await settle()
            if change == "epoch":
                backplane.attach("a", Position("y", 0))
            if change != "end":
                await trio.sleep(2)
                await settle()
        await settle()
        assert outcomes == ["over" if change == "end" else "opened"]


# Whatever happens between any two steps…


STEPS = range(16)


async def slow_state(topic: str) -> str:
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    return "state"


async def turns(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("state", [None, slow_state])
async def test_cancelled_at_any_step_a_subscriber_leaves_nothing_behind(
    state: GetState | None,
) -> None:
    for step in STEPS:
        async with (
            open_two(MemoryHub(history=9), state=state, history=2) as (here, there),
            open_pair() as (client, ws),
        ):
            there.publish("1", "a")
            there.publish("1", "b")
            await settle()

            async def subscribe(scope: trio.CancelScope) -> None:
                with scope:
                    async with here.subscribe(ws, "a", "b"):
                        await trio.sleep_forever()

            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(subscribe, scope)
                await turns(step)
                scope.cancel()
            assert len(here) == 0
            for topic in ("a", "b"):  # its history may be kept
                record = here._topics.find(topic)
                assert record is None or not record.is_wanted
            assert here._catch_up._questions == {}
            async with here.subscribe(ws, "c"):
                there.publish("2", "c")
                while await client.receive() != "2":
                    pass


async def test_a_broker_that_goes_away_at_any_step_is_not_waited_for() -> None:
    outcomes: set[bool] = set()
    for step in STEPS:
        hub = MemoryHub(history=9)
        async with open_two(hub, envelope=numbered) as (here, there):
            async with there.open_channel("a") as channel:
                for number in range(3):
                    there.publish(str(number), "a")
                known = await positions(channel)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pause_after, hub, step)
                async with here.open_channel("a", position=known[0]) as channel:
                    outcomes.add(channel.recovered)
                    assert await texts(channel) == (["1", "2"] if channel.recovered else [])
                    hub.resume()
                    there.publish("3", "a")
                    assert await texts(channel) == ["3"]
    assert outcomes == {True, False}


async def pause_after(hub: MemoryHub, step: int) -> None:
    await turns(step)
    hub.pause()


@pytest.mark.parametrize("state", [None, slow_state])
async def test_a_broadcast_that_ends_at_any_step_says_so(state: GetState | None) -> None:
    outcomes: set[str] = set()

    async def subscribe(broadcast: Broadcast) -> None:
        try:
            async with broadcast.open_channel("a") as channel:
                outcomes.add("open")
                await rest(channel)
        except trio.ClosedResourceError:
            outcomes.add("over")

    for step in STEPS:
        async with trio.open_nursery() as nursery:
            async with open_two(MemoryHub(history=9), state=state, history=2) as (here, there):
                there.publish("1", "a")
                await settle()
                nursery.start_soon(subscribe, here)
                await turns(step)
    assert outcomes == {"open", "over"}


async def test_new_messages_at_any_step_come_once_and_in_order() -> None:
    for step in STEPS:
        async with open_two(MemoryHub(history=99), envelope=numbered) as (here, there):
            async with there.open_channel("a") as channel:
                there.publish("0", "a")
                (known,) = await positions(channel)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_after, there, step)
                async with here.open_channel("a", position=known) as channel:
                    assert channel.recovered
                    assert await texts(channel) == [str(number) for number in range(1, 31)]


async def publish_after(broadcast: Broadcast, step: int) -> None:
    for number in range(1, 31):
        broadcast.publish(str(number), "a")
        if number >= step:
            await trio.lowlevel.checkpoint()


# What a broker may answer…


async def open_and_note(
    broadcast: Broadcast, position: str, outcomes: list[tuple[bool, list[str]]]
) -> None:
    async with broadcast.open_channel("a", position=position) as channel:
        outcomes.append((channel.recovered, await texts(channel)))


def answer_with(newest: int, count: int) -> Callable[[Position | None], Awaitable[Past]]:
    async def answer(after: Position | None) -> Past:
        await trio.sleep(1)
        return Past(Position("x", newest), tuple(map(str, range(newest - count + 1, newest + 1))))

    return answer


async def test_where_more_comes_than_is_held_while_the_past_is_read_it_is_read_again() -> None:
    backplane = StubBackplane()
    outcomes: list[tuple[bool, list[str]]] = []
    async with open_broadcast(backplane=backplane, max_recovered=3000) as broadcast:
        backplane.attach_wait.set()
        async with trio.open_nursery() as nursery, broadcast.open_channel("b"):
            backplane.answer = answer_with(6, 4)
            nursery.start_soon(open_and_note, broadcast, "x-5", outcomes)
            await settle()
        assert outcomes == [(False, [])]
        outcomes.clear()
        # Nothing is known of the topic, since it was not attached. Now it is.
        async with trio.open_nursery() as nursery, broadcast.open_channel("a"):
            backplane.attach("a", Position("x", 6))
            nursery.start_soon(open_and_note, broadcast, "x-5", outcomes)
            await settle()
            for offset in range(7, 3007):
                backplane.deliver("a", Position("x", offset))
            await trio.sleep(1.5)
            assert len(backplane.reads) == 2
            backplane.answer = answer_with(3006, 3001)
            await trio.sleep(3)
        assert len(outcomes) == 1
        recovered, messages = outcomes[0]
        assert recovered
        assert messages == [str(offset) for offset in range(6, 3007)]


async def test_what_belongs_to_another_epoch_or_cannot_be_sent_is_not_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def envelope(message: str | bytes, position: str, topic: str) -> str:
        if message == "4":
            raise ValueError("mine")
        return numbered(message, position, topic)

    backplane = StubBackplane()
    outcomes: list[tuple[bool, list[str]]] = []
    async with open_broadcast(backplane=backplane, envelope=envelope) as broadcast:
        backplane.attach_wait.set()
        async with trio.open_nursery() as nursery, broadcast.open_channel("a"):
            backplane.attach("a", Position("x", 6))
            backplane.answer = answer_with(6, 2)
            await open_and_note(broadcast, "x-4", outcomes)
            await open_and_note(broadcast, "x-3", outcomes)
            backplane.answer = answer_with(6, 4)
            backplane.attach("a", Position("x", 6))
            await open_and_note(broadcast, "x-3", outcomes)
            backplane.attach("a", Position("y", 6))
            await open_and_note(broadcast, "y-3", outcomes)
            nursery.cancel_scope.cancel()
        assert outcomes == [(True, ["5", "6"]), (False, []), (False, []), (False, [])]
        backplane.attach("unknown", Position("x", 1))
        backplane.deliver("unknown", Position("x", 2))
        assert broadcast.statistics().topics == 0
    assert "ValueError: mine" in caplog.text


async def test_a_past_that_nobody_waits_for_any_more_is_let_go() -> None:
    backplane = StubBackplane()
    async with open_broadcast(backplane=backplane, history=2) as broadcast:
        backplane.attach_wait.set()
        async with broadcast.open_channel("a"):
            backplane.attach("a", Position("x", 6))
            backplane.answer = answer_with(6, 4)
            with trio.move_on_after(0.5):
                async with broadcast.open_channel("a", position="x-2"):
                    pytest.fail("it is being read")
            await trio.sleep(1)
            async with broadcast.open_channel("a") as channel:
                assert await texts(channel) == ["5", "6"]
            assert len(backplane.reads) == 1


async def test_a_broker_that_knows_less_than_it_told_is_not_asked_for_ever() -> None:
    backplane = StubBackplane()
    outcomes: list[tuple[bool, list[str]]] = []
    async with open_broadcast(backplane=backplane, history=2) as broadcast:
        backplane.attach_wait.set()
        async with broadcast.open_channel("a"):
            backplane.attach("a", Position("x", 6))
            backplane.answer = answer_with(4, 2)
            await open_and_note(broadcast, "", outcomes)
            assert len(backplane.reads) == 3
            await open_and_note(broadcast, "x-5", outcomes)
    assert outcomes == [(False, []), (False, [])]
