"""`Broadcast.open_channel`: the same messages for any task, within bounds."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ws import (
    Disconnect,
    DropNewest,
    DropOldest,
    Dropped,
    Latest,
    SlowReaderPolicy,
    open_broadcast,
)

pytestmark = pytest.mark.autojump


async def test_a_channel_gives_any_task_the_same_messages() -> None:
    async with open_broadcast() as broadcast:
        async with broadcast.open_channel("a") as channel:
            assert broadcast.statistics().channels == 1
            assert broadcast.publish("1", "a") == 1
            assert broadcast.publish(b"2", "a") == 1
            assert broadcast.statistics().queued_messages == 2
            assert await channel.receive() == "1"
            assert await channel.receive() == b"2"
            assert broadcast.statistics().queued_bytes == 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.receive)
                await trio.testing.wait_all_tasks_blocked()
                assert broadcast.publish("3", "a") == 1
            channel.close()
            assert broadcast.publish("nobody receives", "a") == 0
        assert broadcast.statistics().topics == 0


@pytest.mark.parametrize(
    ("policy", "kept", "dropped", "replaced"),
    [
        (DropOldest(), ["a3", "b2", "b3"], ["a1", "a2", "b1"], 0),
        (DropNewest(), ["a1", "a2", "b1"], ["a3", "b2", "b3"], 0),
        (Latest(), ["b3"], [], 5),
        (Latest(key=lambda message: message[:1]), ["a3", "b3"], [], 4),
        (Latest(key=lambda message: message), ["a3", "b2", "b3"], ["a1", "a2", "b1"], 0),
        (Disconnect(), ["a1", "a2", "b1"], ["a3"], 0),
    ],
)
async def test_a_channel_that_is_not_received_from_does_as_its_policy_says(
    policy: SlowReaderPolicy, kept: list[str], dropped: list[str], replaced: int
) -> None:
    reports: list[Dropped] = []
    async with open_broadcast(on_drop=reports.append) as broadcast:
        async with broadcast.open_channel("t", policy=policy, max_queued_messages=3) as channel:
            for message in ("a1", "a2", "b1", "a3", "b2", "b3"):
                broadcast.publish(message, "t")
            assert [channel.receive_nowait() for _ in kept] == kept
            if isinstance(policy, Disconnect):
                with pytest.raises(trio.EndOfChannel):
                    channel.receive_nowait()
                assert broadcast.publish("more", "t") == 0
            else:
                with pytest.raises(trio.WouldBlock):
                    channel.receive_nowait()
    assert [report.message for report in reports] == dropped
    assert all(report.websocket is None and report.topic == "t" for report in reports)
    statistics = broadcast.statistics()
    counted = statistics.disconnected if isinstance(policy, Disconnect) else statistics.dropped
    assert (counted, statistics.replaced) == (len(dropped), replaced)


async def test_a_channel_is_bounded_in_bytes_as_well() -> None:
    async with open_broadcast() as broadcast:
        latest = Latest(key=lambda message: message[:1])
        async with broadcast.open_channel("t", policy=latest, max_queued_bytes=100) as channel:
            broadcast.publish("x" * 200, "t")  # the only one may be larger
            broadcast.publish("x" * 300, "t")
            assert channel.statistics().current_buffer_used == 1
            broadcast.publish("a", "t")
            assert broadcast.statistics().dropped == 1
            broadcast.publish("b" * 50, "t")
            broadcast.publish("a" * 60, "t")  # its place is too small for it now
            assert broadcast.statistics().queued_bytes <= 100
            assert [await channel.receive()] == ["a" * 60]
