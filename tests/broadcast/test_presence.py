"""Subscribers of a topic and callbacks when they change; who has joined a topic, in one process."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from tests.broadcast.broadcast_helpers import open_two, receive
from tests.helpers import open_pair, open_server_with_raw_client
from trio_ws import Broadcast, ConnectionClosed, open_broadcast
from trio_ws.backplane import MemoryHub

pytestmark = pytest.mark.autojump


async def test_subscribers_are_known_and_their_changes_are_told() -> None:
    changes: list[tuple[str, int]] = []

    def note(broadcast: Broadcast, topic: str) -> None:
        changes.append((topic, len(broadcast.subscribers(topic))))
        broadcast.publish_json({"users": len(broadcast.subscribers(topic))}, topic)

    async with open_broadcast(on_change=note) as broadcast:
        async with open_server_with_raw_client() as (one, peer), open_pair() as (_, other):
            with broadcast.subscribe(one, "a"):
                with broadcast.subscribe(other, "a", "b"):
                    assert broadcast.subscribers("a") == {one, other}
                    assert broadcast.subscribers("c") == set()
                    assert len(broadcast) == 2
                assert await receive(peer, 3) == [f'{{"users": {users}}}' for users in (1, 2, 1)]
    assert changes == [("a", 1), ("a", 2), ("b", 1), ("a", 1), ("b", 0), ("a", 0)]


async def test_presence_is_published_to_a_topic_without_entering_its_history() -> None:
    def tell(broadcast: Broadcast, topic: str) -> None:
        users = len(broadcast.subscribers(topic))
        broadcast.publish_json({"users": users}, topic, keep=False)

    def numbered(message: str | bytes, position: str, topic: str) -> str:
        return f"{message!s} {'with' if position else 'without'} id"

    async with open_broadcast(on_change=tell, history=10, envelope=numbered) as broadcast:
        async with open_server_with_raw_client() as (one, peer), open_pair() as (client, other):
            with broadcast.subscribe(one, "a"):
                broadcast.publish("1", "a")
                assert await broadcast.publish_wait("passing", "a", keep=False) == 1
                with broadcast.subscribe(other, "a"):
                    assert await client.receive() == "1 with id"
                    assert await client.receive() == '{"users": 2} without id'
                assert await receive(peer, 5) == [
                    '{"users": 1} without id',
                    "1 with id",
                    "passing without id",
                    '{"users": 2} without id',
                    '{"users": 1} without id',
                ]
        assert broadcast.publish("to nobody", "b", keep=False) == 0
        assert broadcast.statistics().topics == 1


async def test_a_message_not_to_be_kept_is_kept_by_no_process() -> None:
    async with open_two(MemoryHub(), history=10) as (here, there):
        async with there.open_channel("a") as channel:
            here.publish("1", "a")
            here.publish("passing", "a", keep=False)
            await here.publish_wait("passing, too", "a", keep=False)
            here.publish("2", "a")
            expected = ["1", "passing", "passing, too", "2"]
            assert [await channel.receive() for _ in expected] == expected
        for broadcast in (here, there):
            async with broadcast.open_channel("a") as channel:
                assert [channel.receive_nowait() for _ in range(2)] == ["1", "2"]
                with pytest.raises(trio.WouldBlock):
                    channel.receive_nowait()


# ---------------------------------------------------------------------------
# Members
# ---------------------------------------------------------------------------


async def test_presence_gives_who_is_there_and_then_what_changes_until_the_broadcast_ends() -> None:
    seen: list[object] = []

    async def watch() -> None:
        async for snapshot in broadcast.presence("a"):
            assert snapshot.count == len(snapshot.members)
            seen.append([dict(each) for each in (snapshot.joined, snapshot.left, snapshot.changed)])
        seen.append("over")

    async with trio.open_nursery() as nursery:
        async with open_broadcast() as broadcast:
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            with broadcast.join("a", "ada", 1) as ada, broadcast.join("b", "somebody else"):
                await trio.testing.wait_all_tasks_blocked()
                with broadcast.join("a", "bob"):
                    pass
                await trio.testing.wait_all_tasks_blocked()  # as it was: there is nothing to tell
                ada.update([2])
                with broadcast.join("a", "bob"):
                    await trio.testing.wait_all_tasks_blocked()
                    assert dict(broadcast.presence("a").members) == {"ada": [2], "bob": None}
                    assert broadcast.presence("a").count == 2
                    assert broadcast.statistics().members == 3
            await trio.testing.wait_all_tasks_blocked()
        assert (broadcast.presence("a").count, dict(broadcast.presence("a").members)) == (0, {})
    assert seen == [
        [{}, {}, {}],
        [{"ada": 1}, {}, {}],
        [{"bob": None}, {}, {"ada": [2]}],
        [{}, {"ada": [2], "bob": None}, {}],
        "over",
    ]


async def test_the_same_id_is_there_until_its_last_block_is_left() -> None:
    async with open_broadcast() as broadcast:
        presence = broadcast.presence("a")
        assert presence.count == 0
        with broadcast.join("a", "ada", "phone") as phone:
            with broadcast.join("a", "ada", "desktop"):
                assert dict(presence.members) == {"ada": "desktop"}
                phone.update("phone again")
                assert dict(presence.members) == {"ada": "phone again"}
            assert dict(presence.members) == {"ada": "phone again"}
        assert presence.count == 0
        assert not broadcast._attendance.roster.places


async def test_a_snapshot_stays_as_it_is_and_is_made_once_for_all_who_ask() -> None:
    async with open_broadcast() as broadcast:
        value = {"name": "Ada"}
        with broadcast.join("a", "ada", value):
            value["name"] = "Bob"
            first, again = broadcast.presence("a"), broadcast.presence("a")
            one, other = await anext(first), await anext(again)
            assert one is other
            assert one.members == {"ada": {"name": "Ada"}}
            with broadcast.join("a", "bob"):
                one_more, other_more = await anext(first), await anext(again)
                assert one_more is other_more
                assert list(one_more.joined) == ["bob"]
            assert one.members == {"ada": {"name": "Ada"}}
            with pytest.raises(TypeError, match="does not support item assignment"):
                one.members["eve"] = 1  # type: ignore[index]  # what a type checker sees as well


async def test_a_cancelled_wait_for_a_change_loses_none() -> None:
    async with open_broadcast() as broadcast:
        presence, other = broadcast.presence("a"), broadcast.presence("a")
        await anext(presence)
        await anext(other)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.__anext__)  # waits on
            with trio.move_on_after(1) as scope:
                await anext(presence)
            assert scope.cancelled_caught
            nursery.start_soon(presence.__anext__)
            await trio.testing.wait_all_tasks_blocked()
            with broadcast.join("a", "eve"):
                await trio.testing.wait_all_tasks_blocked()
        assert not (await anext(presence)).members
        with broadcast.join("a", "ada"):
            with trio.CancelScope() as scope:
                scope.cancel()
                await anext(presence)
            assert dict((await anext(presence)).joined) == {"ada": None}
        assert len(broadcast._attendance.watchers) == 0


async def test_what_cannot_be_a_member_is_refused_and_changes_nothing() -> None:
    async with open_broadcast() as broadcast:
        with pytest.raises(TypeError, match="a topic is a str, not int"):
            broadcast.join(1, "ada")  # type: ignore[arg-type]  # the mistake
        with pytest.raises(ValueError, match="belong to trio_ws"):
            broadcast.presence("\0trio_ws.anything")
        with pytest.raises(TypeError, match="id is a str, not int"):
            broadcast.join("a", 1)  # type: ignore[arg-type]  # the mistake
        with pytest.raises(ValueError, match="at most 256 bytes, not 258"):
            broadcast.join("a", "é" * 129)
        with pytest.raises(ValueError, match="surrogates"):
            broadcast.join("a", "\ud800")
        with pytest.raises(ValueError, match="at most 4096 bytes as JSON, not 4097"):
            broadcast.join("a", "ada", "x" * 4095)
        with pytest.raises(ValueError, match="NaN"):
            broadcast.join("a", "ada", float("nan"))
        with pytest.raises(TypeError, match="not JSON serializable"):
            broadcast.join("a", "ada", b"")
        with pytest.raises(TypeError, match="websocket is a WebSocket or None, not 'ws'"):
            broadcast.join("a", "ada", websocket="ws")  # type: ignore[arg-type]  # the mistake
        membership = broadcast.join("a", "ada", "x" * 4094)
        with pytest.raises(trio.ClosedResourceError, match="not inside the block"):
            membership.update(1)
        assert repr(membership) == "<Membership of 'ada' in 'a', new>"
        with membership:
            assert repr(membership) == "<Membership of 'ada' in 'a', present>"
            with pytest.raises(ValueError, match="at most 4096"):
                membership.update("x" * 5000)
            assert membership.value == "x" * 4094
            with pytest.raises(RuntimeError, match="entered once"):
                membership.__enter__()
        with pytest.raises(RuntimeError, match="entered once"):
            membership.__enter__()
        assert repr(membership) == "<Membership of 'ada' in 'a', left>"
        assert repr(broadcast.presence("a")) == "<Presence in 'a'>"
        with broadcast.join("a", "bob") as bob:
            broadcast._end()
            with pytest.raises(trio.ClosedResourceError, match=r"open_broadcast\(\) was left"):
                bob.update(1)
        with pytest.raises(trio.ClosedResourceError, match=r"open_broadcast\(\) was left"):
            broadcast.join("a", "ada").__enter__()
    for seconds in (0.5, 86_401, float("nan")):
        with pytest.raises(ValueError, match="presence_lease is 1 to 86400 seconds"):
            async with open_broadcast(presence_lease=seconds):
                pass
    with pytest.raises(TypeError, match="presence_lease is a number of seconds, not '10'"):
        async with open_broadcast(presence_lease="10"):  # type: ignore[arg-type]  # the mistake
            pass


@pytest.mark.parametrize("code", [1001, 1012, 1000, 4000])
async def test_who_was_asked_to_come_back_lingers_until_it_is_seen_or_a_lease_is_over(
    code: int,
) -> None:
    left: list[float] = []

    async def watch() -> None:
        async for snapshot in broadcast.presence("a"):
            if snapshot.left:
                left.append(trio.current_time() - gone)

    async with open_broadcast() as broadcast, trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        lingers = code in (1001, 1012)
        for comes_back in (True, False):
            async with open_pair() as (_, ws):
                with broadcast.join("a", "ada", websocket=ws):
                    await ws.aclose(code)
                gone = trio.current_time()
            await trio.sleep(3)
            assert broadcast.presence("a").count == lingers
            if comes_back:
                with broadcast.join("a", "ada"):
                    await trio.sleep(20)
                    assert broadcast.presence("a").count == 1
                assert broadcast.presence("a").count == 0
                await trio.testing.wait_all_tasks_blocked()
                left.clear()
        await trio.sleep(20)
        assert left == [10 if lingers else 0]
        assert broadcast.statistics().members == 0
        nursery.cancel_scope.cancel()


async def test_whoever_leaves_by_itself_or_is_lost_is_gone_at_once() -> None:
    async with open_broadcast() as broadcast:
        async with open_pair() as (client, ws):
            with broadcast.join("a", "ada", websocket=ws):
                await client.aclose(1001)
                with pytest.raises(ConnectionClosed):
                    await ws.receive()
            assert broadcast.presence("a").count == 0


@pytest.mark.parametrize(("before", "after"), [(0, False), (True, 1), ([1], [1.0])])
async def test_a_value_that_is_written_otherwise_is_a_change(before: object, after: object) -> None:
    async with open_broadcast() as broadcast:
        with broadcast.join("a", "ada", before) as ada:
            presence = broadcast.presence("a")
            await anext(presence)
            ada.update(after)
            (value,) = (await anext(presence)).changed.values()
            assert json.dumps(value) == json.dumps(after)
