"""Subscribers of a topic, and callbacks when they change."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.broadcast.broadcast_helpers import open_two, receive
from tests.helpers import open_pair, open_server_with_raw_client
from trio_ws import Broadcast, open_broadcast
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

    def numbered(message: str | bytes, message_id: str, topic: str) -> str:
        return f"{message!s} {'with' if message_id else 'without'} id"

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


async def test_presence_gives_the_newest_number_and_ends_with_the_broadcast() -> None:
    seen: list[int] = []

    async def watch() -> None:
        async for users in broadcast.presence("a"):
            seen.append(users)
        seen.append(-1)

    async with trio.open_nursery() as nursery, open_pair() as (one, other):
        async with open_broadcast() as broadcast:
            nursery.start_soon(watch)
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            with broadcast.subscribe(one, "a"):
                with broadcast.subscribe(other, "a"), broadcast.subscribe(one, "b"):
                    await trio.testing.wait_all_tasks_blocked()
                with broadcast.subscribe(other, "a"):
                    pass
                await trio.testing.wait_all_tasks_blocked()
                with broadcast.subscribe(other, "a"):
                    pass
                await trio.testing.wait_all_tasks_blocked()  # as it was: there is nothing to tell
            with trio.move_on_after(1):
                async for _ in broadcast.presence("a"):
                    pass
    assert seen == [0, 0, 2, 2, 1, 1, 0, 0, -1, -1]
    assert len(broadcast._watchers) == 0
