"""The last messages of a topic, for new subscribers and for clients that come back."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.broadcast.broadcast_helpers import numbered, open_slow, receive
from tests.helpers import RawPeer, open_pair, open_server_with_raw_client, socket_pair
from trio_ws import Position, open_broadcast

pytestmark = pytest.mark.autojump


async def test_a_new_subscriber_gets_the_last_messages_of_the_topic() -> None:
    async with open_broadcast(history=3) as broadcast, open_server_with_raw_client() as (ws, peer):
        for number in range(5):
            assert broadcast.publish(str(number), "a") == 0
        broadcast.publish("other", "b")
        with broadcast.subscribe(ws, "a") as subscription:
            broadcast.publish("5", "a")
            assert await receive(peer, 4) == ["2", "3", "4", "5"]
            assert not subscription.recovered
        async with broadcast.open_channel("a") as channel:
            assert not channel.recovered
            assert [channel.receive_nowait() for _ in range(3)] == ["3", "4", "5"]
        assert ws.statistics().messages_sent == 4


async def test_a_client_that_comes_back_gets_what_it_missed_and_knows_whether_that_is_all() -> None:
    async with (
        open_broadcast(history=3, envelope=numbered) as broadcast,
        open_pair() as (
            client,
            ws,
        ),
    ):
        for topic in ("a", "b"):
            broadcast.publish("0", topic)
        with broadcast.subscribe(ws, "a", "b"):
            known = {topic: str(await client.receive()).split()[0] for topic in ("a", "b")}

        async def come_back(position: object) -> tuple[list[str], bool]:
            with broadcast.subscribe(ws, "a", "b", position=position) as subscription:  # type: ignore[arg-type]
                await ws.send("end")
            messages: list[str] = []
            while (message := str(await client.receive())) != "end":
                messages.append(" ".join(message.split()[1:]))
            return messages, subscription.recovered

        assert await come_back(known) == ([], True)
        broadcast.publish("1", "a")
        broadcast.publish("passing", "a", keep=False)
        assert await come_back(known) == (["a 1"], True)
        assert await come_back({"b": known["b"]}) == (["a 0", "a 1"], False)
        assert await come_back(known["a"]) == (["a 1", "b 0"], False)
        parsed = {topic: Position.parse(position) for topic, position in known.items()}
        assert await come_back(parsed) == (["a 1"], True)
        for number in range(2, 5):
            broadcast.publish(str(number), "a")
        newest = ["a 2", "a 3", "a 4"]
        assert await come_back(known) == (newest, False)
        everything = [*newest, "b 0"]
        assert await come_back(None) == (everything, False)
        epoch = known["a"].split("-")[0]
        for nonsense in (
            *("", "x", "0000-1", f"{epoch}-", f"{epoch}-6", f"{epoch}-²", epoch + "-9" * 9),
            f"{epoch}-" + "9" * 5000,
        ):
            assert await come_back(nonsense) == (everything, False), nonsense
        assert await come_back({"a": f"{epoch}-1", "b": known["b"]}) == (newest, False)
        assert await come_back({"a": f"{epoch}-2", "b": known["b"]}) == (newest, True)


async def test_without_a_history_only_a_client_that_missed_nothing_has_it_all() -> None:
    async with open_broadcast(envelope=numbered) as broadcast, open_pair() as (_, ws):
        with broadcast.subscribe(ws, "a", position="1234-5") as subscription:
            assert not subscription.recovered
            async with broadcast.open_channel("a") as channel:
                broadcast.publish("1", "a")
                known = str(await channel.receive()).split()[0]
            async with broadcast.open_channel("a", position=known) as channel:
                assert channel.recovered
            broadcast.publish("2", "a")
            async with broadcast.open_channel("a", position=known) as channel:
                assert not channel.recovered
        async with broadcast.open_channel("a", position=known) as channel:
            assert not channel.recovered  # the topic was forgotten


async def test_the_history_of_idle_topics_is_bounded_and_what_is_forgotten_is_known() -> None:
    async with open_broadcast(history=1, max_idle_topics=2, envelope=numbered) as broadcast:
        async with open_pair() as (client, ws):
            with broadcast.subscribe(ws, "a", "kept"):
                broadcast.publish("0", "kept")
                broadcast.publish("0", "a")
                await client.receive()
                known = str(await client.receive()).split()[0]
                for number in range(10):
                    broadcast.publish("x", f"topic {number}")
                    broadcast.publish("x", "topic 0")  # used again and again, so not forgotten
                assert broadcast.statistics().topics == 4
            assert broadcast.statistics().topics == 2
            with broadcast.subscribe(ws, "a", position=known) as subscription:
                assert subscription.recovered
            for topic in ("topic 1", "topic 2"):
                broadcast.publish("x", topic)
            broadcast.publish("x", "a")
            with broadcast.subscribe(ws, "a", position=known) as subscription:
                assert not subscription.recovered  # another life of the topic


async def receive_until(peer: RawPeer, last: str) -> list[str | bytes]:
    received = await receive(peer, 1)
    while received[-1] != last:
        received += await receive(peer, 1)
    return received


async def test_a_history_may_be_longer_than_the_bounds_but_only_once() -> None:
    """Else who reads it slowly would be disconnected over it again and again, or never be."""
    async with open_broadcast(history=20, max_queued_messages=5) as broadcast:
        for number in range(20):
            broadcast.publish(str(number), "t")
        async with open_slow() as (ws, peer, stream):
            await ws.send("in flight")
            with broadcast.subscribe(ws, "t") as subscription:
                for number in range(20, 25):
                    assert broadcast.publish(str(number), "t") == 1
                stream.go_on()
                expected = ["in flight", *(str(number) for number in range(25))]
                assert await receive(peer, 26) == expected
                stream.stall_sends()
                await trio.testing.wait_all_tasks_blocked()
                await ws.send("in flight")
            record = broadcast._topics.find("t")
            assert record is not None
            position = Position(record.window.epoch, 5)
            for round_ in range(5):
                with broadcast.subscribe(ws, "t", position=position) as subscription:
                    assert subscription.recovered is (round_ == 0)
            assert broadcast.publish("nobody", "t") == 0
            with broadcast.subscribe(ws, "t", max_queued_messages=22) as subscription:
                assert not subscription.recovered
                stream.go_on()
                assert await receive(peer, 1) == ["in flight"]
                assert await receive_until(peer, "nobody") == [
                    *(str(number) for number in range(5, 25)),
                    "24",
                    "nobody",
                ]


async def test_a_long_history_over_a_socket_goes_out_in_order() -> None:
    one, other = socket_pair()
    async with open_broadcast(history=100) as broadcast:
        for number in range(100):
            broadcast.publish(f"{number} " + "x" * 10_000, "t")
        async with open_server_with_raw_client(streams=(one, other), compression=None) as (
            ws,
            peer,
        ):
            with broadcast.subscribe(ws, "t"):
                broadcast.publish("100 ", "t")
                numbers = [int(str(message).split()[0]) for message in await receive(peer, 101)]
            assert numbers == list(range(101))
            assert ws.statistics().messages_sent == 101


async def test_a_history_for_a_connection_that_is_over_goes_nowhere() -> None:
    async with open_broadcast(history=10) as broadcast, open_pair() as (_, ws):
        broadcast.publish("x", "t")
        ws._ending.close(1000, "")
        with broadcast.subscribe(ws, "t"):
            assert broadcast.publish("y", "t") == 0
        assert ws.statistics().messages_sent == 0
        assert broadcast.statistics().queued_messages == 0
