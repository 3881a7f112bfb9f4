"""`Broadcast.publish`: recipients, arguments, threads, and use beside a server."""

from __future__ import annotations

import logging
from math import inf

import pytest
import trio
import trio.testing

from tests.broadcast.broadcast_helpers import open_slow, receive
from tests.helpers import (
    FIN,
    TEXT,
    open_client_with_raw_server,
    open_pair,
    open_server,
    open_server_with_raw_client,
)
from trio_ws import Disconnect, DropOldest, Latest, WebSocket, open_broadcast, open_websocket_url
from trio_ws._protocol.prepared import Prepared

pytestmark = pytest.mark.autojump


# Publishing…


async def test_a_message_goes_to_all_subscribers_of_its_topic_and_to_no_others() -> None:
    async with (
        open_broadcast() as broadcast,
        open_server_with_raw_client() as (one, one_peer),
        open_server_with_raw_client() as (other, other_peer),
    ):
        with broadcast.subscribe(one, "a", "b"), broadcast.subscribe(other, "b"):
            assert broadcast.publish("to one", "a") == 1
            assert broadcast.publish(b"to both", "b") == 2
            assert broadcast.publish_json({"to": "one"}, "a") == 1
            assert broadcast.publish_json("x", "a", dumps=lambda value: value.encode()) == 1
            assert broadcast.publish(bytearray(b"nobody"), "c") == 0
        assert await receive(one_peer, 4) == ["to one", b"to both", '{"to": "one"}', "x"]
        assert await receive(other_peer, 1) == [b"to both"]
        assert broadcast.publish("too late", "a") == 0
        assert one.statistics().messages_sent == 4


async def test_the_one_it_came_from_or_several_can_be_excluded() -> None:
    async with (
        open_broadcast() as broadcast,
        open_server_with_raw_client() as (one, _),
        open_server_with_raw_client() as (other, peer),
    ):
        with broadcast.subscribe(one, "a"), broadcast.subscribe(other, "a"):
            assert broadcast.publish("1", "a", exclude=one) == 1
            assert broadcast.publish("2", "a", exclude={one, other}) == 0
            assert await broadcast.publish_wait("3", "a", exclude=[one]) == 1
            assert await receive(peer, 2) == ["1", "3"]
            assert one.statistics().messages_sent == 0


async def test_a_wrong_argument_is_an_error_at_once() -> None:
    for wrong in (
        {"policy": DropOldest},
        {"max_queued_messages": True},
        {"history": 1.5},
        {"history": True},
        {"envelope": "x"},
        {"on_drop": 1},
        {"backplane": "redis://"},
        {"logger": "x"},
        {"max_idle_topics": "1"},
    ):
        with pytest.raises(TypeError):
            async with open_broadcast(**wrong):
                pass
    for impossible in ({"max_queued_bytes": 0}, {"history": -1}, {"max_idle_topics": 0}):
        with pytest.raises(ValueError, match="0"):
            async with open_broadcast(**impossible):  # type: ignore[arg-type]
                pass
    with pytest.raises(ValueError, match="1005"):
        Disconnect(1005)
    with pytest.raises(TypeError):
        Latest(key="symbol")  # type: ignore[arg-type]
    async with open_broadcast() as broadcast, open_pair() as (_, ws):
        with pytest.raises(TypeError, match="a topic is a str"):
            broadcast.publish("x", 1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a message is str"):
            broadcast.publish(1, "a")  # type: ignore[arg-type]
        with pytest.raises(UnicodeEncodeError):
            broadcast.publish("\ud800", "a")
        with pytest.raises(TypeError, match="exclude is"):
            broadcast.publish("x", "a", exclude=["ws"])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="a subscriber is"):
            broadcast.subscribe("ws", "a")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a topic is a str"):
            broadcast.subscribe(ws, b"a")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="position is"):
            broadcast.subscribe(ws, "a", position=5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="position is"):
            broadcast.subscribe(ws, "a", position={"a": 5})  # type: ignore[dict-item]


async def test_a_thread_can_publish() -> None:
    async with (
        open_broadcast() as broadcast,
        open_server_with_raw_client(ping_interval=inf) as (ws, peer),
    ):

        def work() -> int:
            return trio.from_thread.run_sync(broadcast.publish, "from a thread", "a")

        with broadcast.subscribe(ws, "a"):
            assert await trio.to_thread.run_sync(work) == 1
            assert await receive(peer, 1) == ["from a thread"]


async def test_a_client_can_subscribe_and_masks_what_it_sends() -> None:
    async with (
        open_broadcast() as broadcast,
        open_client_with_raw_server(compression=None) as (ws, peer),
    ):
        with broadcast.subscribe(ws, "a"):
            assert broadcast.publish("hello", "a") == 1
            assert await peer.receive_frame() == (FIN | TEXT, b"hello")
            frames = {ws._wire.frame_of_prepared(Prepared("hello")) for _ in range(50)}
            assert len(frames) > 45  # each with a key of its own


async def test_the_repr_of_a_broadcast_tells_what_it_is() -> None:
    async with open_broadcast() as broadcast, open_pair() as (_, ws):
        assert broadcast
        assert repr(broadcast) == "<Broadcast open, 0 subscribers, 0 topics, 0 published>"
        subscription = broadcast.subscribe(ws)
        assert repr(subscription) == f"<Subscription of {ws.id} to nothing>"
        with subscription:
            subscription.add("a")
            broadcast.publish("x", "a")
            assert repr(subscription) == f"<Subscription of {ws.id} to 'a'>"
            assert repr(broadcast) == "<Broadcast open, 1 subscribers, 1 topics, 1 published>"
    assert repr(broadcast) == "<Broadcast ended, 0 subscribers, 0 topics, 1 published>"


# In a server…


async def test_a_handler_publishes_what_it_receives_and_leaves_nothing_behind() -> None:
    async with open_broadcast() as broadcast:

        async def relay(ws: WebSocket) -> None:
            with broadcast.subscribe(ws, "all"):
                async for message in ws:
                    broadcast.publish(message, "all", exclude=ws)

        async with open_server(relay) as server:
            async with (
                open_websocket_url(server.urls[0]) as one,
                open_websocket_url(server.urls[0]) as other,
            ):
                while len(broadcast) < 2:
                    await trio.sleep(0.01)
                await one.send("hello")
                assert await other.receive() == "hello"
            while len(broadcast):
                await trio.sleep(0.01)
            assert broadcast.statistics().topics == 0


async def test_publishing_goes_on_while_the_server_shuts_down() -> None:
    counts: list[int] = []
    async with open_broadcast() as broadcast, trio.open_nursery() as nursery:

        async def listen(ws: WebSocket) -> None:
            with broadcast.subscribe(ws, "t"):
                try:
                    await ws.wait_closed()
                finally:
                    broadcast.publish("somebody leaves", "t")

        async def publish() -> None:
            while True:
                counts.append(broadcast.publish("x", "t"))
                await trio.sleep(0.001)

        async with open_server(listen, close_timeout=0.2) as server:
            async with open_websocket_url(server.urls[0]) as client:
                nursery.start_soon(publish)
                with trio.move_on_after(1):
                    async for _ in client:
                        pass
                nursery.start_soon(server.aclose)
                async for _ in client:
                    pass
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert {0, 1} == set(counts)
    assert broadcast.statistics().subscribers == 0


async def test_idle_time_and_the_log_know_of_what_is_published(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="trio_ws")
    async with open_broadcast() as broadcast, open_slow(idle_timeout=10) as (ws, peer, stream):
        stream.go_on()
        with broadcast.subscribe(ws, "t"):
            for _ in range(5):
                await trio.sleep(8)
                broadcast.publish("x", "t")
                await receive(peer, 1)
            assert ws.state.value == "open"
            await trio.sleep(11)
            assert ws.state.value == "closing"
            await peer.send_close(1000)
    assert caplog.text.count("sent text 'x'") == 5


async def test_a_message_that_waited_counts_for_idle_time_when_its_turn_has_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="trio_ws")
    async with open_broadcast() as broadcast, open_slow(idle_timeout=10) as (ws, peer, stream):
        with broadcast.subscribe(ws, "t"):
            broadcast.publish("at once", "t")
            broadcast.publish("later", "t")
            assert "sent text 'at once'" in caplog.text
            assert "sent text 'later'" not in caplog.text
            await trio.sleep(8)
            stream.go_on()
            assert await receive(peer, 2) == ["at once", "later"]
            assert "sent text 'later'" in caplog.text
            await trio.sleep(8)
            assert ws.state.value == "open"
            await trio.sleep(3)
            assert ws.state.value == "closing"
            await peer.send_close(1000)


async def test_an_envelope_that_publishes_to_its_own_topic_is_an_error() -> None:
    def envelope(message: str | bytes, position: str, topic: str) -> str | bytes:
        if message == "outer":
            broadcast.publish("inner", topic)
        return message

    async with open_broadcast(envelope=envelope) as broadcast:
        async with broadcast.open_channel("a") as channel:
            with pytest.raises(RuntimeError, match="an envelope published to the topic"):
                broadcast.publish("outer", "a")
            assert channel.receive_nowait() == "inner"
            assert channel.statistics().current_buffer_used == 0
