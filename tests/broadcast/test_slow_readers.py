"""Messages for a slow reader: each policy, its bounds, and its reports."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from tests.broadcast.broadcast_helpers import open_slow, receive
from trio_ws import (
    ConnectionLost,
    Disconnect,
    DropNewest,
    DropOldest,
    Dropped,
    Latest,
    SlowReaderPolicy,
    open_broadcast,
)

pytestmark = pytest.mark.autojump


@pytest.mark.parametrize(
    ("policy", "received", "dropped", "replaced"),
    [
        (DropOldest(), ["a0", "a3", "b2", "b3"], ["a1", "a2", "b1"], 0),
        (DropNewest(), ["a0", "a1", "a2", "b1"], ["a3", "b2", "b3"], 0),
        (Latest(), ["a0", "b3"], [], 5),
        (Latest(key=lambda message: message[:1]), ["a0", "a3", "b3"], [], 4),
        (Latest(key=lambda message: message), ["a0", "a3", "b2", "b3"], ["a1", "a2", "b1"], 0),
    ],
)
async def test_a_slow_reader_gets_what_its_policy_leaves(
    policy: SlowReaderPolicy, received: list[str], dropped: list[str], replaced: int
) -> None:
    reports: list[Dropped] = []
    async with (
        open_broadcast(on_drop=reports.append) as broadcast,
        open_slow() as (
            ws,
            peer,
            stream,
        ),
    ):
        with broadcast.subscribe(ws, "t", policy=policy, max_queued_messages=3):
            counts = [
                broadcast.publish(message, "t")
                for message in ("a0", "a1", "a2", "b1", "a3", "b2", "b3")
            ]
            assert sum(counts) == 7 - (len(dropped) if isinstance(policy, DropNewest) else 0)
            stream.go_on()
            assert await receive(peer, len(received)) == received
            await trio.testing.wait_all_tasks_blocked()
            assert ws.statistics().unsent_bytes == 0
            assert ws.statistics().messages_sent == len(received)
    assert reports == [Dropped(ws, "t", message, policy) for message in dropped]
    assert broadcast.statistics().dropped == len(dropped)
    assert broadcast.statistics().replaced == replaced


async def test_a_slow_reader_to_be_disconnected_is_told_so_and_its_queue_is_thrown_away() -> None:
    reports: list[Dropped] = []
    async with open_broadcast(max_queued_messages=3, on_drop=reports.append) as broadcast:
        async with open_slow() as (ws, peer, stream):
            with broadcast.subscribe(ws, "t"):
                assert [broadcast.publish(str(number), "t") for number in range(7)] == [
                    *[1] * 4,
                    *[0] * 3,
                ]
                assert broadcast.statistics().queued_messages == 0
                assert broadcast.statistics().disconnected == 1
                assert [report.message for report in reports] == ["4"]
                assert ws.close_reason is not None
                assert (ws.close_reason.code, ws.close_reason.reason) == (1013, "too slow")
                stream.go_on()
                assert await receive(peer, 1) == ["0"]
                assert await peer.receive_close() == 1013
                await peer.send_close(1013)


async def test_a_slow_reader_that_never_reads_again_is_gone_after_close_timeout() -> None:
    async with open_broadcast(max_queued_messages=3) as broadcast:
        async with open_slow(close_timeout=5) as (ws, _, _stream):
            with broadcast.subscribe(ws, "t", policy=Disconnect(4000, "sorry")):
                start = trio.current_time()
                for _ in range(5):
                    broadcast.publish("x", "t")
                with pytest.raises(ConnectionLost, match="4000"):
                    await ws.receive()
                await ws.wait_closed()
                assert trio.current_time() == start + 5


async def test_a_slow_reader_is_bounded_in_bytes_and_one_message_may_be_larger() -> None:
    async with open_broadcast(policy=DropNewest(), max_queued_bytes=100) as broadcast:
        async with open_slow() as (ws, _, _stream):
            with broadcast.subscribe(ws, "t"):
                broadcast.publish("in flight", "t")
                assert broadcast.publish("x" * 150, "t") == 1
                assert broadcast.publish("", "t") == 0
                assert broadcast.statistics().queued_bytes == 154


async def test_a_newer_message_that_outgrows_its_place_gets_another() -> None:
    policy = Latest(key=lambda message: message[:1])
    async with open_broadcast(policy=policy, max_queued_bytes=100) as broadcast:
        async with open_slow() as (ws, peer, stream):
            with broadcast.subscribe(ws, "t"):
                for message in ("0", "a" * 30, "b" * 30, "a" * 40, "a" * 80):
                    assert broadcast.publish(message, "t") == 1
                stream.go_on()
                assert await receive(peer, 2) == ["0", "a" * 80]
            assert broadcast.statistics().replaced == 2
            assert broadcast.statistics().dropped == 1


async def test_a_newer_message_may_be_longer_where_as_many_wait_as_may() -> None:
    policy = Latest(key=lambda message: message[:1])
    async with open_broadcast(policy=policy, max_queued_messages=2) as broadcast:
        async with open_slow() as (ws, peer, stream):
            with broadcast.subscribe(ws, "t"):
                for message in ("0", "a1", "b1", "a22", "a333"):
                    assert broadcast.publish(message, "t") == 1
                stream.go_on()
                assert await receive(peer, 3) == ["0", "a333", "b1"]
            assert broadcast.statistics().replaced == 2
            assert broadcast.statistics().dropped == 0


async def test_a_long_message_takes_the_room_of_as_many_old_ones_as_it_needs() -> None:
    async with open_broadcast(policy=DropOldest(), max_queued_bytes=100) as broadcast:
        async with open_slow() as (ws, peer, stream):
            with broadcast.subscribe(ws, "t"):
                for message in ("0", "a" * 30, "b" * 30, "c" * 30, "d" * 60):
                    assert broadcast.publish(message, "t") == 1
                stream.go_on()
                assert await receive(peer, 3) == ["0", "c" * 30, "d" * 60]
            assert broadcast.statistics().dropped == 2


async def test_nothing_is_replaced_across_what_was_sent_directly() -> None:
    async with open_broadcast(policy=Latest()) as broadcast, open_slow() as (ws, peer, stream):
        with broadcast.subscribe(ws, "t"):
            broadcast.publish("0", "t")
            broadcast.publish("1", "t")
            await ws.send("direct")
            broadcast.publish("2", "t")
            broadcast.publish("3", "t")
            stream.go_on()
            assert await receive(peer, 4) == ["0", "1", "direct", "3"]
            assert broadcast.statistics().replaced == 1


async def test_topics_have_keys_of_their_own() -> None:
    async with open_broadcast(policy=Latest()) as broadcast, open_slow() as (ws, peer, stream):
        with broadcast.subscribe(ws, "a", "b"):
            for message in ("0", "1", "2"):
                broadcast.publish(message, "a")
                broadcast.publish(message, "b")
            stream.go_on()
            assert await receive(peer, 3) == ["0", "2", "2"]


async def test_a_key_that_cannot_be_told_is_logged_and_replaces_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = Latest(key=lambda message: json.loads(message)["key"])
    async with open_broadcast(policy=policy) as broadcast, open_slow() as (ws, peer, stream):
        with broadcast.subscribe(ws, "t"):
            for message in ("0", "{}", "{}", '{"key": []}', '{"key": 1}', '{"key": 1, "b": 2}'):
                assert broadcast.publish(message, "t") == 1
            stream.go_on()
            expected = ["0", "{}", "{}", '{"key": []}', '{"key": 1, "b": 2}']
            assert await receive(peer, 5) == expected
    assert len(caplog.records) == 3
    assert "the key of Latest failed, over '{}'" in caplog.text


async def test_two_subscriptions_of_a_connection_share_its_room_but_not_their_messages() -> None:
    async with (
        open_broadcast(max_queued_messages=2) as broadcast,
        open_slow() as (
            ws,
            peer,
            stream,
        ),
    ):
        with (
            broadcast.subscribe(ws, "orders", policy=DropNewest()),
            broadcast.subscribe(ws, "prices", policy=DropOldest()),
        ):
            broadcast.publish("in flight", "orders")
            assert broadcast.publish("order 1", "orders") == 1
            assert broadcast.publish("price 1", "prices") == 1
            assert broadcast.publish("price 2", "prices") == 1
            stream.go_on()
            assert await receive(peer, 3) == ["in flight", "order 1", "price 2"]
            stream.stall_sends()
            for number in range(4):
                broadcast.publish(f"order {number}", "orders")
            assert broadcast.publish("price 3", "prices") == 0
            stream.go_on()
            assert await receive(peer, 3) == ["order 0", "order 1", "order 2"]


async def test_waiting_messages_are_sent_after_the_subscription_has_ended_and_count_on() -> None:
    async with open_broadcast(policy=DropNewest(), max_queued_messages=2) as broadcast:
        async with open_slow() as (ws, peer, stream):
            for _ in range(5):
                with broadcast.subscribe(ws, "t"):
                    for number in range(5):
                        broadcast.publish(str(number), "t")
            assert ws.statistics().unsent_bytes == 3 * 3
            stream.go_on()
            assert await receive(peer, 3) == ["0", "1", "2"]


async def test_a_callback_of_a_broadcast_may_fail_or_publish_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str | bytes] = []

    def tell(dropped: Dropped) -> None:
        told.append(dropped.message)
        broadcast.publish("about " + str(dropped.message), "t")  # it is dropped as well
        raise ValueError("mine")

    async with open_broadcast(
        policy=DropNewest(), max_queued_messages=1, on_drop=tell
    ) as broadcast:
        async with open_slow() as (ws, _, _stream):
            with broadcast.subscribe(ws, "t"):
                for number in range(4):
                    broadcast.publish(str(number), "t")
            assert told == ["2", "3"]
            assert broadcast.statistics().dropped == 4
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError] * 2
