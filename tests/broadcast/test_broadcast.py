"""`open_broadcast`: who gets what, in which order, and what becomes of it for a slow reader."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings, strategies as st
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

from tests.helpers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    TEXT,
    RawPeer,
    close_code,
    open_client_with_raw_server,
    open_pair,
    open_server,
    open_server_with_raw_client,
    socket_pair,
    tcp_pair,
)
from trio_ws import (
    Broadcast,
    ConnectionLost,
    Deflate,
    Disconnect,
    DropNewest,
    DropOldest,
    Dropped,
    Latest,
    SlowReaderPolicy,
    WebSocket,
    open_broadcast,
    open_websocket_url,
)
from trio_ws._protocol.prepared import Prepared
from trio_ws.backplane import MemoryBackplane, MemoryHub
from trio_ws.backplane._envelope import decode
from trio_ws.testing import FaultyStream

pytestmark = pytest.mark.autojump


@asynccontextmanager
async def open_slow(
    *, delay: float = 0, max_send: int | None = None, **options: Any
) -> AsyncGenerator[tuple[WebSocket, RawPeer, FaultyStream], None]:
    """A server's connection whose stream takes one message more, and then nothing until told."""
    client, server = trio.testing.memory_stream_pair()
    stream = FaultyStream(server, delay=delay, max_send=max_send)
    options = {"ping_interval": inf, "compression": None, **options}
    async with open_server_with_raw_client(streams=(client, stream), **options) as (ws, peer):
        stream.stall_sends()
        yield ws, peer, stream


async def receive(peer: RawPeer, count: int) -> list[str | bytes]:
    """The next messages."""
    received: list[str | bytes] = []
    while len(received) < count:
        frame = await peer.receive_frame()
        assert frame is not None
        first, payload = frame
        assert first & 0xF in (TEXT, BINARY)
        received.append(payload.decode() if first & 0xF == TEXT else payload)
    return received


async def receive_until(peer: RawPeer, last: str) -> list[str | bytes]:
    received = await receive(peer, 1)
    while received[-1] != last:
        received += await receive(peer, 1)
    return received


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
        with pytest.raises(TypeError, match="since is"):
            broadcast.subscribe(ws, "a", since=5)  # type: ignore[arg-type]


async def test_it_can_be_published_from_a_thread() -> None:
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
            frames = {ws._wire.shared(Prepared("hello")) for _ in range(50)}
            assert len(frames) > 45  # each with a key of its own


async def test_it_tells_what_it_is() -> None:
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


# Subscribing…


async def test_topics_can_be_added_and_discarded_within_the_block() -> None:
    async with open_broadcast() as broadcast, open_server_with_raw_client() as (ws, peer):
        with broadcast.subscribe(ws, "a", "a") as subscription:
            subscription.add("a", "b", "b")
            assert subscription.topics == {"a", "b"}
            subscription.discard("a", "unknown")
            assert broadcast.publish("no", "a") == 0
            assert broadcast.publish("yes", "b") == 1
            assert await receive(peer, 1) == ["yes"]
        assert subscription.topics == set()
        assert broadcast.statistics().topics == 0


async def test_a_connection_cannot_have_a_topic_twice() -> None:
    async with open_broadcast() as broadcast, open_pair() as (_, ws):
        with broadcast.subscribe(ws, "a"):
            with pytest.raises(ValueError, match="subscribed to 'a' already"):
                with broadcast.subscribe(ws, "b", "a"):
                    pass
            assert broadcast.subscribers("b") == set()
            with broadcast.subscribe(ws, "b") as subscription:
                with pytest.raises(ValueError, match="subscribed to 'a' already"):
                    subscription.add("c", "a")
                assert subscription.topics == {"b"}
                assert len(broadcast) == 1
            assert len(broadcast) == 1
        assert len(broadcast) == 0


async def test_a_subscription_is_good_for_one_block() -> None:
    async with open_broadcast() as broadcast, open_pair() as (_, ws):
        subscription = broadcast.subscribe(ws, "a")
        assert broadcast.publish("x", "a") == 0
        with pytest.raises(trio.ClosedResourceError):
            subscription.add("b")
        with subscription:
            pass
        with pytest.raises(RuntimeError):
            subscription.__enter__()
        with pytest.raises(trio.ClosedResourceError):
            subscription.add("b")
        channel = broadcast.open_channel("a")
        async with channel:
            pass
        with pytest.raises(RuntimeError):
            await channel.__aenter__()


@pytest.mark.parametrize(
    ("name", "called_with"),
    [
        ("envelope", "a message, its id and its topic"),
        ("on_drop", "a Dropped"),
        ("on_change", "the broadcast and a topic"),
        ("on_gap", "the broadcast and a topic or None"),
    ],
)
async def test_a_function_that_cannot_be_called_is_an_error_when_it_is_given(
    name: str, called_with: str
) -> None:
    async def asynchronous(*arguments: Any) -> None:
        """Would never be awaited."""

    async def give(function: Any) -> None:
        keyword: dict[str, Any] = {name: function}
        async with open_broadcast(**keyword):
            pass

    wrong: list[Any] = [lambda: None, lambda a, b, c, d: None, lambda *, topic: None]
    for function in wrong:
        with pytest.raises(
            TypeError, match=f"{name} is called with {called_with}, which does not suit "
        ):
            await give(function)
    with pytest.raises(TypeError, match=f"{name} is a plain function of {called_with}: nobody"):
        await give(asynchronous)
    with pytest.raises(TypeError, match=f"{name} is a function of {called_with}, not 1"):
        await give(1)
    await give(lambda *arguments: None)


def test_a_key_that_cannot_be_called_is_an_error_when_it_is_given() -> None:
    wrong: Any = lambda message, topic: topic
    with pytest.raises(TypeError, match="key is called with a message, .*: missing a required"):
        Latest(key=wrong)
    Latest(key=str)  # of which Python does not say what it takes
    Latest(key=len)


async def test_opening_a_channel_that_is_cancelled_opens_nothing() -> None:
    async with open_broadcast() as broadcast:
        async with broadcast.open_channel("a") as channel:
            broadcast.publish("1", "a")
            assert await channel.receive() == "1"
        with trio.CancelScope() as scope:
            scope.cancel()
            async with broadcast.open_channel("a"):
                pytest.fail("entering is a checkpoint")
        assert scope.cancelled_caught
        assert broadcast.statistics().channels == 0
        with trio.CancelScope() as scope:
            async with broadcast.open_channel("a"):
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert broadcast.statistics().channels == 0


async def test_leaving_the_broadcast_ends_every_subscription_and_waits_for_nothing() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        async with open_broadcast() as broadcast:
            subscription = broadcast.subscribe(ws, "a")
            subscription.__enter__()
            channel = broadcast.open_channel("a")
            receive_channel = await channel.__aenter__()
            assert broadcast.publish("last", "a") == 2
        assert broadcast.publish("too late", "a") == 0
        assert await broadcast.publish_wait("too late", "a") == 0
        assert len(broadcast) == 0
        assert broadcast.statistics().topics == 0
        assert [message async for message in receive_channel] == ["last"]
        with pytest.raises(trio.ClosedResourceError):
            subscription.add("b")
        with pytest.raises(trio.ClosedResourceError), broadcast.subscribe(ws, "a"):
            pass
        with pytest.raises(trio.ClosedResourceError):
            async with broadcast.open_channel("a"):
                pass
        subscription.__exit__(None, None, None)
        await channel.__aexit__(None, None, None)
        assert await receive(peer, 1) == ["last"]
        await ws.send("goes on")
        assert await receive(peer, 1) == ["goes on"]


async def test_ctrl_c_does_not_stop_a_publish_half_way() -> None:
    protected: list[bool] = []

    def envelope(message: str | bytes, message_id: str, topic: str) -> str | bytes:
        protected.append(trio.lowlevel.currently_ki_protected())
        return message

    async with open_broadcast(envelope=envelope) as broadcast:
        async with open_server_with_raw_client() as (ws, peer):
            with broadcast.subscribe(ws, "a"):
                assert not trio.lowlevel.currently_ki_protected()
                assert broadcast.publish("1", "a") == 1
                assert await broadcast.publish_wait("2", "a") == 1
                assert await receive(peer, 2) == ["1", "2"]
    assert protected
    assert all(protected)


async def test_publishing_after_a_subscribers_connection_died_never_raises() -> None:
    async with open_broadcast() as broadcast:
        for how in ("aborted", "closed", "broken"):
            one, other = await tcp_pair()
            async with open_server_with_raw_client(streams=(one, other)) as (ws, peer):
                with broadcast.subscribe(ws, "a"):
                    if how == "aborted":
                        await trio.aclose_forcefully(peer.stream)
                        while ws.close_reason is None:
                            broadcast.publish("x", "a")
                            await trio.lowlevel.checkpoint()
                    elif how == "closed":
                        ws._begin_close(1000, "")
                    else:
                        other.socket.close()
                        assert broadcast.publish("x", "a") == 1  # it finds out by writing
                    assert broadcast.publish("x", "a") == 0
                    await trio.aclose_forcefully(peer.stream)
            assert broadcast.statistics().subscribers == 0


# Channels…


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


# Sockets…


async def test_a_socket_that_takes_nothing_at_all_is_waited_for() -> None:
    one, other = socket_pair()
    async with open_broadcast() as broadcast:
        async with open_server_with_raw_client(streams=(one, other)) as (ws, _):
            with broadcast.subscribe(ws, "t"):
                with pytest.raises(BlockingIOError):
                    while True:
                        os.write(other.socket.fileno(), bytes(100_000))
                assert broadcast.publish("waits", "t") == 1
                assert ws.statistics().unsent_bytes == 2 + len("waits")
                await trio.aclose_forcefully(one)


async def test_a_history_for_a_connection_that_is_over_goes_nowhere() -> None:
    async with open_broadcast(history=10) as broadcast, open_pair() as (_, ws):
        broadcast.publish("x", "t")
        ws._begin_close(1000, "")
        with broadcast.subscribe(ws, "t"):
            assert broadcast.publish("y", "t") == 0
        assert ws.statistics().messages_sent == 0
        assert broadcast.statistics().queued_messages == 0


# Order…


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.sampled_from(["publish", "send", "fragments", "go on", "stall", "wait", "big"]),
        max_size=25,
    ),
    st.sampled_from(["memory", "socket"]),
    st.booleans(),
)
def test_what_is_published_and_what_is_sent_keep_their_order(
    steps: list[str], kind: str, takeover: bool
) -> None:
    trio.run(_keep_order, steps, kind, takeover, clock=trio.testing.MockClock(autojump_threshold=0))


async def _keep_order(steps: list[str], kind: str, takeover: bool) -> None:
    numbers = itertools.count()
    given_: list[str] = []
    deflate = Deflate(threshold=0, server_context_takeover=takeover)
    streams = trio.testing.memory_stream_pair() if kind == "memory" else socket_pair()
    faulty = FaultyStream(streams[1]) if kind == "memory" else None
    async with (
        open_broadcast(max_queued_messages=1000, max_queued_bytes=inf) as broadcast,
        open_pair(
            streams=(streams[0], faulty or streams[1]),
            server={"compression": deflate, "max_send_buffer": inf, "ping_interval": inf},
            client={"max_queued_messages": 1000, "ping_interval": inf},
        ) as (client, ws),
    ):
        with broadcast.subscribe(ws, "t"):
            for step in steps:
                message = f"{next(numbers)} some text that repeats itself, some text"
                if step == "publish":
                    assert broadcast.publish(message, "t") == 1
                    given_.append(message)
                elif step == "big":
                    message += "x" * 300_000
                    assert broadcast.publish(message, "t", compress=False) == 1
                    given_.append(message)
                elif step == "send":
                    await ws.send(message)
                    given_.append(message)
                elif step == "fragments":
                    async with ws.open_message("text") as writer:
                        await writer.send(message[:10])
                        later = f"{next(numbers)} published within a message, within a message"
                        assert broadcast.publish(later, "t") == 1
                        await writer.send(message[10:])
                        await writer.send("")
                    given_ += [message, later]
                elif step == "wait":
                    await trio.testing.wait_all_tasks_blocked()
                elif faulty is not None:
                    (faulty.stall_sends if step == "stall" else faulty.go_on)()
            if faulty is not None:
                faulty.go_on()
            with trio.fail_after(100):
                received = [await client.receive() for _ in given_]
            assert received == given_
            assert ws.statistics().messages_sent == len(given_)
            await trio.testing.wait_all_tasks_blocked()
            assert ws.statistics().unsent_bytes == 0


async def test_what_is_published_in_the_middle_of_a_message_follows_it() -> None:
    async with (
        open_broadcast() as broadcast,
        open_server_with_raw_client(compression=None) as (ws, peer),
    ):
        with broadcast.subscribe(ws, "a"):
            async with ws.open_message("text") as writer:
                await writer.send("one ")
                assert broadcast.publish("published", "a") == 1
                await peer.send_frame(PING, b"?")
                await trio.testing.wait_all_tasks_blocked()
                await writer.send("message")
            frames = [await peer.receive_frame() for _ in range(5)]
    assert frames == [
        (TEXT, b"one "),
        (FIN | PONG, b"?"),
        (CONTINUATION, b"message"),
        (FIN | CONTINUATION, b""),
        (FIN | TEXT, b"published"),
    ]


async def test_what_waits_behind_a_message_in_fragments_does_not_hold_up_the_fragments() -> None:
    async with (
        open_broadcast() as broadcast,
        open_server_with_raw_client(compression=None, ping_interval=inf) as (ws, peer),
    ):
        received: list[tuple[int, bytes]] = []

        async def read_all() -> None:
            while (frame := await peer.receive_frame()) is not None:
                received.append(frame)
                if frame[0] == FIN | PING:
                    await peer.send_frame(PONG, frame[1])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all)
            with broadcast.subscribe(ws, "a"), trio.fail_after(5):
                async with ws.open_message("binary") as writer:
                    await writer.send(b"one")
                    for _ in range(100):  # more than `max_send_buffer`
                        assert broadcast.publish(bytes(1000), "a") == 1
                    assert ws.statistics().unsent_bytes > 100_000
                    await writer.send(b"two")
                    await ws.ping(b"ours")
                    await peer.send_frame(PING, b"theirs")
                    await trio.testing.wait_all_tasks_blocked()
                    assert received == [
                        (BINARY, b"one"),
                        (CONTINUATION, b"two"),
                        (FIN | PING, b"ours"),
                        (FIN | PONG, b"theirs"),
                    ]
                await ws.send("last")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert received[4:] == [
        (FIN | CONTINUATION, b""),
        *[(FIN | BINARY, bytes(1000))] * 100,
        (FIN | TEXT, b"last"),
    ]


async def test_a_sender_behind_a_message_in_fragments_follows_what_was_posted_meanwhile() -> None:
    # What was posted meanwhile leaves before it, and takes its time where the peer is slow.
    async with open_broadcast() as broadcast, open_slow(max_send=1000) as (ws, peer, stream):
        stream.go_on()
        async with trio.open_nursery() as nursery:
            with broadcast.subscribe(ws, "a"):
                async with ws.open_message("text") as writer:
                    await writer.send("part")
                    nursery.start_soon(ws.send, "sent")
                    await trio.testing.wait_all_tasks_blocked()
                    for _ in range(100):
                        assert broadcast.publish("x" * 1000, "a") == 1
                assert await peer.receive_frame() == (TEXT, b"part")
                assert await peer.receive_frame() == (FIN | CONTINUATION, b"")
                assert await receive(peer, 100) == ["x" * 1000] * 100
                assert await receive(peer, 1) == ["sent"]


async def test_a_fragment_that_is_written_in_part_does_not_lose_count_of_what_follows_it() -> None:
    one, other = socket_pair()
    async with (
        open_broadcast() as broadcast,
        open_server_with_raw_client(streams=(one, other), compression=None) as (ws, peer),
    ):
        with broadcast.subscribe(ws, "a"):
            async with ws.open_message("binary") as writer:
                assert broadcast.publish("published", "a") == 1
                await writer.send(bytes(5_000_000))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(peer.receive_frame)
            frames = [await peer.receive_frame() for _ in range(2)]
            assert frames == [(FIN | CONTINUATION, b""), (FIN | TEXT, b"published")]
            assert ws.statistics().unsent_bytes == 0


async def test_what_waits_before_a_message_in_fragments_goes_out_before_it() -> None:
    async with open_broadcast(policy=DropOldest()) as broadcast, open_slow() as (ws, peer, stream):
        with broadcast.subscribe(ws, "a", max_queued_messages=2):
            for number in range(3):
                broadcast.publish(str(number), "a")
            async with ws.open_message("text") as writer:
                await writer.send("part")
                for number in range(3, 6):
                    broadcast.publish(str(number), "a")
                stream.go_on()
                await trio.testing.wait_all_tasks_blocked()
            assert await receive(peer, 3) == ["0", "1", "2"]
            assert await peer.receive_frame() == (TEXT, b"part")
            assert await peer.receive_frame() == (FIN | CONTINUATION, b"")
            assert await receive(peer, 2) == ["4", "5"]


async def test_a_message_left_unfinished_takes_what_waits_behind_it_with_it() -> None:
    async with open_broadcast() as broadcast, open_server_with_raw_client() as (ws, peer):
        with broadcast.subscribe(ws, "a"):
            with pytest.raises(ZeroDivisionError):
                async with ws.open_message("text", compress=False) as writer:
                    await writer.send("half")
                    broadcast.publish("published", "a")
                    raise ZeroDivisionError
            assert broadcast.publish("after", "a") == 0
            assert await peer.receive_frame() == (TEXT, b"half")
            first, payload = await peer.receive_frame() or (0, b"")
            assert (first, close_code(payload)) == (FIN | CLOSE, 1011)
            assert ws.statistics().unsent_bytes == 0
            await peer.send_close(1011)


async def test_a_close_frame_comes_after_what_waits() -> None:
    async with open_broadcast() as broadcast:
        async with open_slow() as (ws, peer, stream):
            with broadcast.subscribe(ws, "a"):
                for number in range(4):
                    broadcast.publish(str(number), "a")
            ws._begin_close(1001, "")
            stream.go_on()
            assert await receive(peer, 4) == ["0", "1", "2", "3"]
            assert await peer.receive_close() == 1001
            await peer.send_close(1001)


async def test_sending_is_not_kept_waiting_by_those_who_publish_on_and_on() -> None:
    """The line is never empty, and yet who waits for room gets it, and a ping its pong."""
    async with open_broadcast(policy=DropOldest()) as broadcast:
        async with open_slow(delay=0.1, max_send=1000, max_send_buffer=100) as (
            ws,
            peer,
            stream,
        ):
            stop = trio.Event()
            frames: list[tuple[int, bytes] | None] = []

            async def publish_on_and_on() -> None:
                while not stop.is_set():
                    for _ in range(20):
                        broadcast.publish("x" * 1000, "a")
                    await trio.sleep(0.5)

            async def read() -> None:
                while (FIN | TEXT, b"sent") not in frames:
                    frames.append(await peer.receive_frame())

            with broadcast.subscribe(ws, "a", max_queued_messages=50):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(publish_on_and_on)
                    await trio.sleep(2)
                    assert ws.statistics().unsent_bytes > 20_000
                    await peer.send_frame(PING, b"1")
                    await peer.send_frame(PING, b"2")
                    await trio.testing.wait_all_tasks_blocked()
                    stream.go_on()
                    nursery.start_soon(read)
                    with trio.fail_after(60):
                        await ws.send("sent")
                        while (FIN | TEXT, b"sent") not in frames:
                            await trio.sleep(0.1)
                    stop.set()
            assert (FIN | PONG, b"2") in frames
            assert (FIN | PONG, b"1") not in frames


# Slow readers…


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


async def test_one_that_is_to_be_disconnected_is_told_so_and_what_waits_is_thrown_away() -> None:
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


async def test_one_that_never_reads_again_is_gone_after_close_timeout() -> None:
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


async def test_the_bound_is_in_bytes_as_well_and_one_message_may_be_larger() -> None:
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


async def test_what_waits_is_sent_after_the_subscription_has_ended_and_counts_on() -> None:
    async with open_broadcast(policy=DropNewest(), max_queued_messages=2) as broadcast:
        async with open_slow() as (ws, peer, stream):
            for _ in range(5):
                with broadcast.subscribe(ws, "t"):
                    for number in range(5):
                        broadcast.publish(str(number), "t")
            assert ws.statistics().unsent_bytes == 3 * 3
            stream.go_on()
            assert await receive(peer, 3) == ["0", "1", "2"]


async def test_what_the_application_is_told_may_fail_or_publish_and_harms_nobody(
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


# With back-pressure…


async def test_publish_wait_waits_for_the_slowest_and_nothing_is_dropped() -> None:
    async with open_broadcast(max_queued_messages=3) as broadcast:
        async with open_slow() as (ws, peer, stream):
            published = 0

            async def publish() -> None:
                nonlocal published
                for number in range(20):
                    assert await broadcast.publish_wait(str(number), "t") == 1
                    published += 1

            with broadcast.subscribe(ws, "t"):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(publish)
                    await trio.testing.wait_all_tasks_blocked()
                    assert published == 4
                    stream.go_on()
                    assert await receive(peer, 20) == [str(number) for number in range(20)]


@pytest.mark.parametrize("paused", [False, True])
async def test_publish_wait_waits_for_room_here_and_in_the_backplane_at_once(paused: bool) -> None:
    hub = MemoryHub()
    backplane = MemoryBackplane(hub, max_queued_messages=2)
    async with open_broadcast(max_queued_messages=3, backplane=backplane) as broadcast:
        async with open_slow() as (ws, peer, stream):
            with broadcast.subscribe(ws, "t"):
                async with trio.open_nursery() as nursery:
                    if paused:
                        hub.pause()
                    for number in range(20):
                        nursery.start_soon(broadcast.publish_wait, str(number), "t")
                    await trio.testing.wait_all_tasks_blocked()
                    hub.resume()
                    await trio.testing.wait_all_tasks_blocked()
                    assert broadcast.statistics().published == 4
                    stream.go_on()
                    received = await receive(peer, 20)
                assert {*received} == {str(number) for number in range(20)}
                assert broadcast.statistics().disconnected == 0
                assert backplane.statistics().dropped == 0


async def test_publish_wait_refuses_to_wait_for_a_message_of_the_same_task() -> None:
    async with (
        open_broadcast(max_queued_messages=1) as broadcast,
        open_server_with_raw_client() as (ws, peer),
    ):
        with broadcast.subscribe(ws, "t"):
            async with ws.open_message("text", compress=False) as writer:
                await writer.send("a ")
                assert await broadcast.publish_wait("first", "t") == 1
                with pytest.raises(RuntimeError, match="inside open_message"):
                    await broadcast.publish_wait("second", "t")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(broadcast.publish_wait, "of another task", "t")
                    await trio.testing.wait_all_tasks_blocked()
                    await writer.send("message")
                    nursery.cancel_scope.cancel()
        frames = [await peer.receive_frame() for _ in range(4)]
        assert frames == [
            (TEXT, b"a "),
            (CONTINUATION, b"message"),
            (FIN | CONTINUATION, b""),
            (FIN | TEXT, b"first"),
        ]


async def test_publish_wait_knows_what_the_envelope_adds() -> None:
    def wrap(message: str | bytes, message_id: str, topic: str) -> str:
        return f"{message!s:500}"

    async with open_broadcast(envelope=wrap, max_queued_bytes=3000) as broadcast:
        async with open_slow() as (ws, _, _stream):
            with broadcast.subscribe(ws, "t"):
                with trio.move_on_after(1):
                    while True:
                        await broadcast.publish_wait("x", "t")
                assert broadcast.statistics().disconnected == 0
                assert broadcast.statistics().queued_messages == 5


@pytest.mark.parametrize("how", ["leave", "close", "end", "cancel"])
async def test_publish_wait_ends_when_what_it_waits_for_does(how: str) -> None:
    done = trio.Event()

    async def publish(scope: trio.CancelScope) -> None:
        with scope:
            assert await broadcast.publish_wait("waits", "t") == 0
        done.set()

    async with open_slow() as (ws, _, _stream):
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            async with open_broadcast(max_queued_messages=1) as broadcast:
                subscription = broadcast.subscribe(ws, "t")
                with subscription:
                    broadcast.publish("1", "t")
                    broadcast.publish("2", "t")
                    nursery.start_soon(publish, scope)
                    await trio.testing.wait_all_tasks_blocked()
                    assert not done.is_set()
                    if how == "leave":
                        subscription.discard("t")
                    elif how == "close":
                        ws._begin_close(1000, "")
                    elif how == "cancel":
                        scope.cancel()
                    if how != "end":
                        await done.wait()
            await done.wait()
        assert scope.cancelled_caught is (how == "cancel")
        assert broadcast.statistics().published == 2 + (how not in ("cancel", "end"))


# Compression…


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("slow", [True, False])
async def test_it_is_compressed_once_for_each_agreement_and_read_in_order(
    takeover: bool, slow: bool
) -> None:
    server = {
        "compression": Deflate(threshold=100, server_context_takeover=takeover),
        "ping_interval": inf,
    }
    plain = {"compression": None, "ping_interval": inf}
    client_stream, server_stream = trio.testing.memory_stream_pair()
    faulty = FaultyStream(server_stream)
    text = "the same text again and again, " * 20
    async with (
        open_broadcast(policy=DropOldest()) as broadcast,
        open_pair(server=server, streams=(client_stream, faulty)) as (one, one_ws),
        open_pair(server=server) as (two, two_ws),
        open_pair(server=plain) as (three, three_ws),
    ):
        with (
            broadcast.subscribe(one_ws, "t", max_queued_messages=4 if slow else 100),
            broadcast.subscribe(two_ws, "t"),
            broadcast.subscribe(three_ws, "t"),
        ):
            if slow:
                faulty.stall_sends()
            expected: list[str] = []
            for number in range(8):
                await one_ws.send(f"direct {number} {text}")
                broadcast.publish(f"{number} {text}", "t")
                broadcast.publish(f"{number} short", "t")
                broadcast.publish(f"{number} forced {text[:60]}", "t", compress=True)
                broadcast.publish(f"{number} not {text}", "t", compress=False)
                expected += [f"{number} {text}", f"{number} short", f"{number} forced {text[:60]}"]
                expected += [f"{number} not {text}"]
            faulty.go_on()
            for peer in (two, three):
                assert [await peer.receive() for _ in expected] == expected
            await one_ws.send("end")
            received: list[str | bytes] = []
            while not received or received[-1] != "end":
                received.append(await one.receive())
            if not slow:
                assert [m for m in received if m in expected] == expected
            assert [m for m in received if str(m).startswith("direct")] == [
                f"direct {number} {text}" for number in range(8)
            ]
            assert two_ws.statistics().compression_sent is not None
            assert three_ws.statistics().compression_sent is None
            assert two_ws.statistics().bytes_sent < three_ws.statistics().bytes_sent


@pytest.mark.parametrize("bits", [9, 12])
@pytest.mark.parametrize("takeover", [True, False])
async def test_another_implementation_reads_what_is_compressed(bits: int, takeover: bool) -> None:
    text = "the same text again and again, " * 20
    expected: list[str] = []
    extension = ClientPerMessageDeflateFactory(
        server_max_window_bits=bits, server_no_context_takeover=not takeover
    )

    def read(url: str) -> list[str | bytes]:
        with connect(url, extensions=[extension], compression=None) as client:
            return list(client)

    async with open_broadcast() as broadcast:

        async def send(ws: WebSocket) -> None:
            with broadcast.subscribe(ws, "t"):
                for number in range(10):
                    async with ws.open_message("text") as writer:
                        await writer.send(f"fragments {number} {text}")
                        broadcast.publish(f"published within {number} {text}", "t")
                        await writer.send(text)
                    await ws.send(f"direct {number} {text}")
                    broadcast.publish(f"published {number} {text}", "t")
                    expected.extend(
                        [
                            f"fragments {number} {text}{text}",
                            f"published within {number} {text}",
                            f"direct {number} {text}",
                            f"published {number} {text}",
                        ]
                    )
            assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]

        deflate = Deflate(threshold=0, server_window_bits=15)
        # The clock jumps while the thread works, so there must not be a time to jump to.
        times = dict.fromkeys(["open_timeout", "close_timeout", "ping_interval"], inf)
        async with open_server(send, compression=deflate, **times) as server:
            with trio.CancelScope(shield=True):
                received = await trio.to_thread.run_sync(read, server.urls[0])
    assert received == expected


async def test_a_client_that_compresses_can_subscribe_as_well() -> None:
    options = {"compression": Deflate(threshold=0)}
    async with (
        open_broadcast() as broadcast,
        open_pair(client=options, server=options) as (
            client,
            ws,
        ),
    ):
        with broadcast.subscribe(client, "t"):
            expected: list[str] = []
            for number in range(5):
                await client.send(f"direct {number} direct direct direct")
                broadcast.publish(f"published {number} direct direct direct", "t")
                expected += [
                    f"direct {number} direct direct direct",
                    f"published {number} direct direct direct",
                ]
            broadcast.publish("", "t")
            assert [await ws.receive() for _ in range(11)] == [*expected, ""]
            ratio = client.statistics().compression_sent
            assert ratio is not None
            assert ratio > 1


# History…


async def test_a_new_subscriber_gets_the_last_messages_of_the_topic() -> None:
    async with open_broadcast(history=3) as broadcast, open_server_with_raw_client() as (ws, peer):
        for number in range(5):
            assert broadcast.publish(str(number), "a") == 0
        broadcast.publish("other", "b")
        with broadcast.subscribe(ws, "a") as subscription:
            broadcast.publish("5", "a")
            assert await receive(peer, 4) == ["2", "3", "4", "5"]
            assert not subscription.missed
        async with broadcast.open_channel("a") as channel:
            assert [channel.receive_nowait() for _ in range(3)] == ["3", "4", "5"]
        assert ws.statistics().messages_sent == 4


def numbered(message: str | bytes, message_id: str, topic: str) -> str:
    return f"{message_id} {topic} {message!s}"


async def test_who_comes_back_gets_what_it_missed_and_knows_whether_that_is_all() -> None:
    async with (
        open_broadcast(history=3, envelope=numbered) as broadcast,
        open_pair() as (
            client,
            ws,
        ),
    ):
        with broadcast.subscribe(ws, "a"):
            broadcast.publish("0", "a")
            broadcast.publish("0", "b")
        known = str(await client.receive()).split()[0]

        async def come_back(since: object) -> tuple[list[str], bool]:
            with broadcast.subscribe(ws, "a", "b", since=since) as subscription:  # type: ignore[arg-type]
                await ws.send("end")
            messages: list[str] = []
            while (message := str(await client.receive())) != "end":
                messages.append(" ".join(message.split()[1:]))
            return messages, subscription.missed

        assert await come_back(known) == (["b 0"], False)
        broadcast.publish("1", "a")
        assert await come_back(known) == (["a 1", "b 0"], False)
        assert await come_back({"b": known}) == (["a 0", "a 1", "b 0"], False)
        for number in range(2, 5):
            broadcast.publish(str(number), "a")
        everything = ["a 2", "a 3", "a 4", "b 0"]
        assert await come_back(known) == (everything, True)
        assert await come_back(None) == (everything, False)
        epoch = known.split("-")[0]
        for nonsense in (
            "",
            "x",
            "0000-1",
            f"{epoch}-",
            f"{epoch}-99",
            f"{epoch}-²",
            epoch + "-9" * 9,
        ):
            assert await come_back(nonsense) == (everything, True), nonsense
        assert await come_back(f"{epoch}-" + "9" * 5000) == (everything, True)


async def test_without_a_history_who_comes_back_has_missed_what_there_was() -> None:
    async with open_broadcast() as broadcast, open_pair() as (_, ws):
        with broadcast.subscribe(ws, "a", since="1234-5") as subscription:
            assert subscription.missed


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
            with broadcast.subscribe(ws, "topic 0", since=known) as subscription:
                assert subscription.missed
            with broadcast.subscribe(ws, "topic 1", since=known) as subscription:
                assert subscription.missed


async def test_a_history_may_be_longer_than_the_bounds_but_only_once() -> None:
    """Else who reads it slowly would be disconnected over it again and again, or never be."""
    async with open_broadcast(history=20, max_queued_messages=5) as broadcast:
        for number in range(20):
            broadcast.publish(str(number), "t")
        async with open_slow() as (ws, peer, stream):
            await ws.send("in flight")
            with broadcast.subscribe(ws, "t") as subscription:
                assert not subscription.missed
                for number in range(20, 25):
                    assert broadcast.publish(str(number), "t") == 1
                stream.go_on()
                expected = ["in flight", *(str(number) for number in range(25))]
                assert await receive(peer, 26) == expected
                stream.stall_sends()
                await trio.testing.wait_all_tasks_blocked()
                await ws.send("in flight")
            for round_ in range(5):
                with broadcast.subscribe(ws, "t") as subscription:
                    assert subscription.missed is (round_ > 0)
            assert broadcast.publish("nobody", "t") == 0
            with broadcast.subscribe(ws, "t", max_queued_messages=22) as subscription:
                assert subscription.missed
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
            with broadcast.subscribe(ws, "t") as subscription:
                assert not subscription.missed
                broadcast.publish("100 ", "t")
                numbers = [int(str(message).split()[0]) for message in await receive(peer, 101)]
            assert numbers == list(range(101))
            assert ws.statistics().messages_sent == 101


# Who is there…


async def test_it_is_known_who_is_there_and_told_when_that_changes() -> None:
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


async def test_who_is_there_is_told_to_a_topic_without_becoming_its_history() -> None:
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


async def test_what_is_not_to_be_kept_is_kept_by_no_process() -> None:
    hub = MemoryHub(history=10)
    async with open_two(hub, history=10) as (here, there):
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
    assert [decode(data).message for data in hub._history["a"]] == ["1", "2"]


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
    assert broadcast._watchers == {}


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


# Other processes…


@asynccontextmanager
async def open_two(
    hub: MemoryHub, **options: Any
) -> AsyncGenerator[tuple[Broadcast, Broadcast], None]:
    """The broadcasts of two processes, as far as they can tell."""
    async with (
        open_broadcast(backplane=MemoryBackplane(hub), **options) as here,
        open_broadcast(backplane=MemoryBackplane(hub), **options) as there,
    ):
        yield here, there


async def test_a_backplane_brings_messages_to_the_subscribers_of_other_processes() -> None:
    async with open_two(MemoryHub(), envelope=numbered) as (here, there):
        async with here.open_channel("a") as one, there.open_channel("a") as other:
            assert here.publish("1", "a") == 1
            assert await there.publish_wait("2", "a") == 1
            assert sorted([await one.receive(), await one.receive()]) == sorted(
                [await other.receive(), await other.receive()]
            )
        assert here.publish("nobody", "a") == 0
        await trio.testing.wait_all_tasks_blocked()
        assert (here.statistics().published, there.statistics().published) == (3, 2)
    assert here.publish("too late", "a") == 0
    here._take("a", "too late as well", "1-1")
    assert here.statistics().published == 3
    with pytest.raises(ZeroDivisionError):
        async with open_two(MemoryHub()):
            raise ZeroDivisionError


async def test_who_comes_back_to_another_process_gets_what_it_missed() -> None:
    async with open_two(MemoryHub(), envelope=numbered, history=10) as (here, there):
        async with there.open_channel("a") as channel:
            for number in range(3):
                here.publish(str(number), "a")
            known = [str(await channel.receive()).split()[0] for _ in range(3)]
        here.publish("3", "a")  # the topic's history is kept, and so is its subscription
        await trio.testing.wait_all_tasks_blocked()
        async with there.open_channel("a", since=known[1]) as channel:
            assert str(await channel.receive()).endswith("2")
            assert str(await channel.receive()).endswith("3")


async def test_a_gap_is_told_and_remembered(caplog: pytest.LogCaptureFixture) -> None:
    gaps: list[str | None] = []
    hub = MemoryHub()

    def note(broadcast: Broadcast, topic: str | None) -> None:
        gaps.append(topic)
        raise ValueError("mine")

    async with open_two(hub, envelope=numbered, history=10, on_gap=note) as (here, there):
        async with open_pair() as (client, ws):
            async with there.open_channel("b"):
                with there.subscribe(ws, "a"):
                    here.publish("1", "a")
                    known = str(await client.receive()).split()[0]
            there._note_gap("of another topic")
            with there.subscribe(ws, "a", since=known) as subscription:
                assert not subscription.missed
            hub.pause()
            hub.resume()
            await trio.testing.wait_all_tasks_blocked()
            assert "a" in gaps
            with there.subscribe(ws, "a", since=known) as subscription:
                assert subscription.missed
            with there.subscribe(ws, "a") as subscription:
                assert not subscription.missed
    assert "ValueError: mine" in caplog.text


async def test_an_envelope_that_fails_is_the_publishers_error_and_logged_elsewhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(message: str | bytes, message_id: str, topic: str) -> str:
        raise ValueError("mine")

    async with open_two(MemoryHub(), envelope=fail) as (here, there):
        async with there.open_channel("a"):
            with pytest.raises(ValueError, match="mine"):
                here.publish("1", "a")
            await trio.testing.wait_all_tasks_blocked()
    assert caplog.text.count("ValueError: mine") == 1
