"""Who has joined a topic in other processes: changes, deaths, restarts, and how much is told."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.broadcast.broadcast_helpers import open_two
from tests.helpers import open_pair
from trio_ws import Broadcast, PresenceSnapshot, open_broadcast
from trio_ws._waking import LOOKOUT, Lookout
from trio_ws.backplane import MemoryBackplane, MemoryHub

pytestmark = pytest.mark.autojump

PRESENCE = "\0trio_ws.presence:"
EVERYBODY = "\0trio_ws.processes"


class Ear:
    """Hears what processes tell each other over a hub."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def deliver(self, message: Any) -> None:
        self.heard.append((message.topic, json.loads(message.message)))

    def take(self, topic: str = PRESENCE + "a") -> list[tuple[str, int]]:
        """The kind of each message, and how many members it names."""
        heard, self.heard = self.heard, []
        return [
            (said["kind"], len(said.get("in", ())) + len(said.get("out", ())))
            for name, said in heard
            if name == topic
        ]


@asynccontextmanager
async def listening(hub: MemoryHub) -> AsyncGenerator[tuple[Ear, MemoryBackplane], None]:
    ear, backplane = Ear(), MemoryBackplane(hub)
    backplane.subscribe(PRESENCE + "a")
    backplane.subscribe(EVERYBODY)
    async with trio.open_nursery() as nursery:
        await nursery.start(backplane.run, ear.deliver, lambda _: None)
        yield ear, backplane
        nursery.cancel_scope.cancel()


class Watch:
    """Follows who is in a topic."""

    def __init__(self) -> None:
        self.snapshots: list[PresenceSnapshot] = []
        self.times: list[float] = []

    async def run(self, broadcast: Broadcast, topic: str = "a") -> None:
        async for snapshot in broadcast.presence(topic):
            self.snapshots.append(snapshot)
            self.times.append(trio.current_time())

    @property
    def counts(self) -> list[int]:
        return [snapshot.count for snapshot in self.snapshots]

    @property
    def members(self) -> dict[str, Any]:
        return dict(self.snapshots[-1].members)


async def test_all_processes_see_the_members_of_all() -> None:
    async with open_two(MemoryHub()) as (here, there), trio.open_nursery() as nursery:
        with here.join("a", "ada", {"n": 1}) as ada, there.join("a", "bob"):
            watch = Watch()
            nursery.start_soon(watch.run, there)
            await trio.sleep(2)
            everybody = {"ada": {"n": 1}, "bob": None}
            # The first snapshot waits for what the others say.
            assert [dict(each.members) for each in watch.snapshots] == [everybody]
            assert dict(here.presence("a").members) == everybody
            ada.update({"n": 2})
            with here.join("a", "bob", "twice"):
                await trio.sleep(0.1)
                assert dict(watch.snapshots[-1].changed) == {"ada": {"n": 2}, "bob": "twice"}
            await trio.sleep(0.1)
            assert dict(watch.snapshots[-1].changed) == {"bob": None}
            assert (here.statistics().members, there.statistics().members) == (1, 1)
        await trio.sleep(0.1)
        left = [dict(snapshot.left) for snapshot in watch.snapshots[-2:]]
        assert left == [{"bob": None}, {"ada": {"n": 2}}]
        assert here.presence("a").count == 0
        nursery.cancel_scope.cancel()


async def test_a_process_that_only_looks_knows_after_the_others_have_answered() -> None:
    async with open_two(MemoryHub()) as (here, there):
        with here.join("a", "ada"):
            await trio.sleep(5)
            presence = there.presence("a")
            assert presence.count == 0  # nobody here knows yet
            assert (await anext(there.presence("a"))).count == 1
            assert presence.count == 1
            await trio.sleep(10)
            with here.join("a", "bob"):
                await trio.sleep(0.1)
                assert presence.count == 2
        await trio.sleep(60)
        for broadcast in (here, there):  # nobody looks any more
            assert not broadcast._attendance.roster.places
            assert broadcast._backplane is not None
            wanted = broadcast._backplane._interest.wanted  # type: ignore[attr-defined]  # of memory
            assert list(wanted) == [EVERYBODY]


async def test_topics_that_were_only_looked_at_are_bounded() -> None:
    async with open_two(MemoryHub()) as (here, there):
        for number in range(1100):
            assert there.presence(f"{number}").count == 0
            await trio.sleep(0.0001)
        await trio.sleep(1)
        places = there._attendance.roster.places
        assert len(places) == 1024
        assert "75" not in places and "76" in places
        with trio.move_on_after(100):
            async for _ in there.presence("76"):  # which is looked at all the time
                pass
        assert list(places) == ["76"]
        del here


async def test_the_members_of_a_process_that_was_killed_are_gone_within_the_lease() -> None:
    hub = MemoryHub()
    backplane = MemoryBackplane(hub)
    async with (
        open_broadcast(backplane=MemoryBackplane(hub)) as here,
        open_broadcast(backplane=backplane) as there,
        trio.open_nursery() as nursery,
    ):
        watch = Watch()
        nursery.start_soon(watch.run, here)
        with here.join("a", "ada"), there.join("a", "ada"), there.join("a", "bob"):
            await trio.sleep(60)
            assert watch.members == {"ada": None, "bob": None}
            killed = trio.current_time()
            backplane._outgoing.close()  # it says nothing more
            await trio.sleep(15)
            assert watch.members == {"ada": None}
            assert 6 < watch.times[-1] - killed <= 10
        nursery.cancel_scope.cancel()


async def test_the_end_in_good_order_makes_nobody_flicker_who_comes_back() -> None:
    hub = MemoryHub()
    async with open_two(hub) as (here, _), trio.open_nursery() as nursery:
        watch = Watch()
        nursery.start_soon(watch.run, here)
        with here.join("a", "eve"):
            async with open_broadcast(backplane=MemoryBackplane(hub)) as old:
                async with AsyncExitStack() as stack:
                    codes = {"ada": 1012, "bob": 1001, "leaves for good": 1000}
                    for name, code in codes.items():
                        _, ws = await stack.enter_async_context(open_pair())
                        stack.enter_context(old.join("a", name, websocket=ws))
                        stack.enter_context(old.join("b", name, websocket=ws))
                        stack.push_async_callback(ws.aclose, code)
                    with old.join("a", "leaves first"):
                        await trio.sleep(5)
                    await trio.sleep(0.1)
                    assert len(watch.members) == 4
            ended = trio.current_time()
            await trio.sleep(1)
            assert watch.members == {"eve": None, "ada": None, "bob": None}
            # A process that begins now hears it too, also of topics that nobody was in elsewhere.
            async with open_broadcast(backplane=MemoryBackplane(hub)) as new:
                await trio.sleep(1)
                assert (await anext(new.presence("a"))).count == 3
                assert (await anext(new.presence("b"))).count == 2
                with new.join("a", "ada"):
                    await trio.sleep(12)
                    assert watch.members == {"eve": None, "ada": None}
                    assert dict(watch.snapshots[-1].left) == {"bob": None}
                    assert 10 <= watch.times[-1] - ended <= 11
                    assert (await anext(new.presence("b"))).count == 0
                await trio.sleep(1)
                assert watch.members == {"eve": None}
            assert not any("ada" in each.left for each in watch.snapshots[:-1])
        nursery.cancel_scope.cancel()


async def test_ten_thousand_who_join_at_once_are_few_messages_and_so_is_their_heartbeat() -> None:
    hub = MemoryHub()
    async with listening(hub) as (ear, _), open_two(hub) as (here, there), AsyncExitStack() as all_:
        await trio.sleep(1)
        for number in range(10_000):
            all_.enter_context(here.join("a", f"member {number}"))
        await trio.sleep(0.1)
        told = ear.take()
        assert sorted(told) == [("ask", 0), ("change", 16), *[("change", 256)] * 39]
        await trio.sleep(60)
        told = ear.take()
        assert set(told) == {("digest", 0)}
        assert 15 <= len(told) <= 21
        assert (await anext(there.presence("a"))).count == 10_000
        assert sorted(set(ear.take())) == [("ask", 0), ("list", 16), ("list", 256)]


async def test_large_values_are_told_in_messages_of_bounded_size() -> None:
    hub = MemoryHub()
    async with listening(hub) as (ear, _), open_two(hub) as (here, there), AsyncExitStack() as all_:
        for number in range(100):
            all_.enter_context(here.join("a", f"member {number}", "x" * 4000))
        assert (await anext(there.presence("a"))).count == 100
        sizes = [len(json.dumps(said)) for _, said in ear.heard]
        assert 60_000 < max(sizes) < 70_000


async def test_what_gets_lost_is_asked_for() -> None:
    hub = MemoryHub()
    async with open_two(hub) as (here, there), trio.open_nursery() as nursery:
        watch = Watch()
        nursery.start_soon(watch.run, there)
        with here.join("a", "ada"):
            await trio.sleep(5)
            assert there._backplane is not None
            there._backplane.unsubscribe(PRESENCE + "a")
            with here.join("a", "bob"):
                await trio.sleep(1)
                there._backplane.subscribe(PRESENCE + "a")
                await trio.sleep(4)
                assert watch.members == {"ada": None, "bob": None}
                there._backplane.unsubscribe(PRESENCE + "a")
            await trio.sleep(1)
            there._backplane.subscribe(PRESENCE + "a")
            with here.join("a", "eve"):  # shows at once that something was missed
                await trio.sleep(0.1)
                assert watch.members == {"ada": None, "eve": None}
        nursery.cancel_scope.cancel()


async def test_nobody_is_given_up_while_the_broker_is_away() -> None:
    hub = MemoryHub()
    gaps: list[str | None] = []
    async with (
        open_two(hub, on_gap=lambda _, topic: gaps.append(topic)) as (here, there),
        trio.open_nursery() as nursery,
    ):
        watch = Watch()
        nursery.start_soon(watch.run, there)
        with here.join("a", "ada"), there.join("a", "bob"):
            await trio.sleep(5)
            hub.pause()
            await trio.sleep(60)
            with here.join("a", "eve"), here.join("a", "max"):
                await trio.sleep(1)
            with here.join("a", "eve"):
                await trio.sleep(60)
                assert watch.members == {"ada": None, "bob": None}
                assert here.presence("a").count == 3
                queued = here._backplane.statistics().queued_messages  # type: ignore[union-attr]
                assert queued <= 1  # nothing is said again and again to nobody
                hub.resume()
                await trio.sleep(1)
                assert watch.members == {"ada": None, "bob": None, "eve": None}
                await trio.sleep(30)
            await trio.sleep(0.1)
            assert watch.members == {"ada": None, "bob": None}
        nursery.cancel_scope.cancel()
    assert not any("ada" in each.left for each in watch.snapshots[:-1])
    assert gaps == []  # what is ours is not the application's business


async def test_a_process_that_stood_still_blames_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_two(MemoryHub()) as (here, there), trio.open_nursery() as nursery:
        watch = Watch()
        nursery.start_soon(watch.run, there)
        with here.join("a", "ada"), there.join("a", "bob"):
            await trio.sleep(5)
            before = len(watch.snapshots)
            autojump_clock.jump(100)
            await trio.sleep(30)
            assert len(watch.snapshots) == before
        nursery.cancel_scope.cancel()


async def test_a_computer_that_has_slept_tells_and_hears_at_once() -> None:
    slept = [0.0]
    LOOKOUT.set(Lookout(lambda: slept[0]))
    hub = MemoryHub()
    async with listening(hub) as (ear, _), open_two(hub) as (here, _):
        with here.join("a", "ada"):
            await trio.sleep(4)
            ear.take()
            slept[0] += 1000
            await trio.sleep(1.6)
            heard = [said["kind"] for _, said in ear.heard]
            assert "beat" in heard and "digest" in heard


async def test_what_makes_no_sense_is_counted_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    hub = MemoryHub()
    caplog.set_level(logging.WARNING)
    async with listening(hub) as (_, stranger), open_two(hub) as (here, _):
        with here.join("a", "ada"):
            await trio.sleep(1)
            good = {"v": 1, "from": "stranger"}
            for text in (
                *("", "[]", "{}", "null", b"\xff", '{"v": 2}', "[" * 100_000),
                json.dumps({**good, "kind": "digest", "version": -1}),
            ):
                stranger.publish(PRESENCE + "a", text, keep=False)
                stranger.publish(EVERYBODY, text, keep=False)
            for kind in ("digest", "ask", "change", "list", "of the future", "beat", "hello"):
                said = {"kind": kind, "version": 5, "whom": ["x"], "lease": 5, "base": 3}
                text = json.dumps({**good, **said, "in": [], "out": [], "part": 0, "parts": 2})
                stranger.publish(PRESENCE + "a", text, keep=False)
                stranger.publish(EVERYBODY, text, keep=False)
            await trio.sleep(1)
            assert here.statistics().malformed == 16
            assert dict(here.presence("a").members) == {"ada": None}
    assert (
        caplog.text.count("ignored what is no message about presence") == 5 + 4
    )  # and the other is not in "a"


async def test_without_a_backplane_there_is_no_task_and_no_message() -> None:
    async with open_broadcast() as broadcast:
        tasks = trio.lowlevel.current_statistics().tasks_living
        with broadcast.join("a", "ada"):
            await trio.testing.wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().tasks_living == tasks
            assert broadcast.presence("a").count == 1


async def test_leaving_waits_for_the_broker_for_a_second_and_only_with_something_to_say() -> None:
    hub = MemoryHub()
    async with open_broadcast(backplane=MemoryBackplane(hub)) as broadcast:
        await trio.sleep(1)
        started = trio.current_time()
    assert trio.current_time() == started
    async with open_broadcast(backplane=MemoryBackplane(hub)) as broadcast:
        with broadcast.join("a", "ada"):
            await trio.sleep(1)
        hub.pause()
        started = trio.current_time()
    assert trio.current_time() == started
