"""The outgoing queue of a backplane: its bounds, its order, and tasks that wait for room."""

from __future__ import annotations

from math import inf

import pytest
import trio
import trio.testing

from tests.backplane.backplane_helpers import run
from trio_ws.backplane import MemoryBackplane, MemoryHub
from trio_ws.backplane._outgoing import BATCH_MESSAGES, Item, Outgoing

pytestmark = pytest.mark.autojump


def item(number: int, size: int = 1) -> Item:
    return Item(number, "news", bytes(size))


async def test_the_queue_is_bounded_in_bytes_and_one_large_message_may_wait_alone() -> None:
    outgoing = Outgoing(inf, 100)
    for number in range(1, 4):
        outgoing.put(item(number, 40))
    assert (outgoing.queued_bytes, outgoing.dropped) == (80, 1)
    outgoing.put(item(4, 1000))
    assert (outgoing.queued_messages, outgoing.dropped) == (1, 3)
    assert not outgoing.has_room(1)
    outgoing.put(item(5))
    assert (outgoing.queued_messages, outgoing.queued_bytes) == (1, 1)


async def test_waiting_for_room_waits_for_room_for_all_of_a_message() -> None:
    hub = MemoryHub()
    joined = MemoryBackplane(hub, max_queued_bytes=1000)
    async with run(joined), run(MemoryBackplane(hub), "news") as other:
        hub.pause()
        for _ in range(3):  # of which the first is on its way, and the next fills most of the queue
            joined.publish("news", bytes(600))
            await trio.testing.wait_all_tasks_blocked()
        assert joined.statistics().dropped == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.publish_wait, "news", bytes(600))
            await trio.testing.wait_all_tasks_blocked()
            assert joined.statistics().queued_messages == 1
            hub.resume()
        await joined.flush()
        assert joined.statistics().dropped == 1
        assert len(other.received) == 3


async def test_messages_that_were_not_settled_are_sent_again_first() -> None:
    outgoing = Outgoing(inf, inf)
    for number in range(1, 4):
        outgoing.put(item(number))
    assert [each.number for each in await outgoing.next_batch()] == [1, 2, 3]
    outgoing.put(item(4))
    outgoing.settle()
    assert [each.number for each in await outgoing.next_batch()] == [2, 3]
    outgoing.settle(refused=True)
    outgoing.settle()
    assert [each.number for each in await outgoing.next_batch()] == [4]
    assert (outgoing.sent, outgoing.refused) == (2, 1)


async def test_a_batch_is_bounded() -> None:
    outgoing = Outgoing(inf, inf)
    for number in range(BATCH_MESSAGES + 1):
        outgoing.put(item(number))
    assert len(await outgoing.next_batch()) == BATCH_MESSAGES
    large = Outgoing(inf, inf)
    for number in range(3):
        large.put(item(number, 200_000))
    assert len(await large.next_batch()) == 2


async def test_the_queue_hands_out_what_comes_to_those_who_wait() -> None:
    outgoing = Outgoing(inf, inf)
    with trio.move_on_after(1) as scope:
        await outgoing.next_batch()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outgoing.next_batch)
        await trio.testing.wait_all_tasks_blocked()
        outgoing.put(item(1))
