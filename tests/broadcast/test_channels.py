"""`Broadcast.open_channel`: the same messages for any task, within bounds."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ws import (
    ChannelStatistics,
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


async def test_a_channel_is_bounded_in_bytes() -> None:
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


async def test_tasks_that_wait_get_one_message_each_in_the_order_in_which_they_came() -> None:
    received: list[tuple[int, str | bytes]] = []

    async def receive(number: int) -> None:
        received.append((number, await channel.receive()))

    async with open_broadcast() as broadcast:
        # What goes straight to a task that waits does not count as waiting.
        async with (
            broadcast.open_channel("a", policy=DropNewest(), max_queued_messages=1) as channel,
            trio.open_nursery() as nursery,
        ):
            for number in range(3):
                nursery.start_soon(receive, number)
                await trio.testing.wait_all_tasks_blocked()
            assert channel.statistics().tasks_waiting_receive == 3
            assert [broadcast.publish(text, "a") for text in "abcde"] == [1, 1, 1, 1, 0]
            assert channel.statistics() == ChannelStatistics(1, 3, 0)
            assert repr(channel) == "<BroadcastChannel open, 1 messages waiting>"
            assert channel.receive_nowait() == "d"
    assert sorted(received) == [(0, "a"), (1, "b"), (2, "c")]


async def test_a_task_that_was_given_a_message_gets_it_although_it_is_cancelled() -> None:
    received: list[str | bytes] = []

    async def receive(scope: trio.CancelScope) -> None:
        with scope:
            received.append(await channel.receive())

    async with open_broadcast() as broadcast:
        async with broadcast.open_channel("a") as channel, trio.open_nursery() as nursery:
            scopes = [trio.CancelScope() for _ in range(3)]
            for scope in scopes:
                nursery.start_soon(receive, scope)
                await trio.testing.wait_all_tasks_blocked()
            scopes[0].cancel()
            await trio.testing.wait_all_tasks_blocked()
            broadcast.publish("1", "a")
            scopes[1].cancel()
            broadcast.publish("2", "a")
            channel.close()
    assert sorted(map(str, received)) == ["1", "2"]
    assert [scope.cancelled_caught for scope in scopes] == [True, False, False]


async def test_tasks_that_wait_learn_that_the_broadcast_has_ended() -> None:
    ended = 0

    async def receive() -> None:
        nonlocal ended
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
        ended += 1

    async with trio.open_nursery() as nursery:
        async with open_broadcast() as broadcast:
            opened = broadcast.open_channel("a")
            channel = await opened.__aenter__()
            nursery.start_soon(receive)
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        assert ended == 2
        assert repr(channel) == "<BroadcastChannel ended, 0 messages waiting>"
        assert [message async for message in channel] == []
        await opened.__aexit__(None, None, None)


async def test_a_channel_that_is_closed_throws_away_what_waits_and_says_so_to_all() -> None:
    reports: list[Dropped] = []
    closed = 0

    async def receive() -> None:
        nonlocal closed
        with pytest.raises(trio.ClosedResourceError):
            await channel.receive()
        closed += 1

    async with open_broadcast(on_drop=reports.append) as broadcast:
        async with broadcast.open_channel("a", max_queued_messages=2) as channel:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                await channel.aclose()
            assert closed == 2
        async with broadcast.open_channel("a", max_queued_messages=2) as channel:
            broadcast.publish("1", "a")
            broadcast.publish("2", "a")
            with trio.CancelScope() as scope:
                scope.cancel()
                await channel.aclose()
            assert scope.cancelled_caught
            channel.close()
            assert broadcast.statistics().queued_messages == 0
            assert broadcast.statistics().queued_bytes == 0
            assert broadcast.publish("3", "a") == 0
            await receive()
            with pytest.raises(trio.ClosedResourceError):
                channel.receive_nowait()
    assert reports == []


async def test_receiving_what_is_there_lets_other_tasks_run_now_and_then() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with open_broadcast(max_queued_messages=2000) as broadcast:
        async with broadcast.open_channel("a") as channel, trio.open_nursery() as nursery:
            for _ in range(2000):
                broadcast.publish("x", "a")
            nursery.start_soon(count)
            for _ in range(2000):
                await channel.receive()
            assert turns >= 10
            with trio.CancelScope() as scope:
                scope.cancel()
                await channel.receive()
            assert scope.cancelled_caught
            nursery.cancel_scope.cancel()
