"""`Broadcast.subscribe`: topics that come and go, arguments, and how subscriptions end."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.broadcast.broadcast_helpers import receive
from tests.helpers import RawPeer, open_pair, open_server_with_raw_client, tcp_pair
from trio_ws import Broadcast, Latest, Subscription, WebSocket, open_broadcast

pytestmark = pytest.mark.autojump


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
        ("envelope", "a message, its position and its topic"),
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


async def test_a_topic_that_is_discarded_while_it_is_told_of_is_not_subscribed_to() -> None:
    subscriptions: list[Subscription] = []

    def discard(broadcast: Broadcast, topic: str) -> None:
        for subscription in subscriptions:
            subscription.discard(topic)

    async with open_broadcast(on_change=discard) as broadcast, open_pair() as (_, ws):
        with broadcast.subscribe(ws, "a") as subscription:
            subscriptions.append(subscription)
            subscription.add("b")
            assert subscription.topics == {"a"}
            assert broadcast.statistics().topics == 1


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

    def envelope(message: str | bytes, position: str, topic: str) -> str | bytes:
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


async def be_aborted(
    broadcast: Broadcast, ws: WebSocket, peer: RawPeer, ours: trio.SocketStream
) -> None:
    await trio.aclose_forcefully(peer.stream)
    while ws.close_reason is None:
        broadcast.publish("x", "a")
        await trio.lowlevel.checkpoint()


async def be_closed(
    broadcast: Broadcast, ws: WebSocket, peer: RawPeer, ours: trio.SocketStream
) -> None:
    ws._ending.close(1000, "")


async def be_found_broken(
    broadcast: Broadcast, ws: WebSocket, peer: RawPeer, ours: trio.SocketStream
) -> None:
    ours.socket.close()
    assert broadcast.publish("x", "a") == 1  # it finds out by writing


async def test_publishing_after_a_subscribers_connection_died_never_raises() -> None:
    async with open_broadcast() as broadcast:
        for die in (be_aborted, be_closed, be_found_broken):
            one, other = await tcp_pair()
            async with open_server_with_raw_client(streams=(one, other)) as (ws, peer):
                with broadcast.subscribe(ws, "a"):
                    await die(broadcast, ws, peer, other)
                    assert broadcast.publish("x", "a") == 0
                    await trio.aclose_forcefully(peer.stream)
            assert broadcast.statistics().subscribers == 0
