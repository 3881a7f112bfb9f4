"""`Broadcast.publish_wait`: waiting for the slowest, here and in the backplane."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.broadcast.broadcast_helpers import open_slow, receive
from tests.helpers import CONTINUATION, FIN, TEXT, open_server_with_raw_client
from trio_ws import Subscription, WebSocket, open_broadcast
from trio_ws.backplane import MemoryBackplane, MemoryHub

pytestmark = pytest.mark.autojump


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
    def wrap(message: str | bytes, position: str, topic: str) -> str:
        return f"{message!s:500}"

    async with open_broadcast(envelope=wrap, max_queued_bytes=3000) as broadcast:
        async with open_slow() as (ws, _, _stream):
            with broadcast.subscribe(ws, "t"):
                with trio.move_on_after(1):
                    while True:
                        await broadcast.publish_wait("x", "t")
                assert broadcast.statistics().disconnected == 0
                assert broadcast.statistics().queued_messages == 5


def leave(subscription: Subscription, ws: WebSocket, scope: trio.CancelScope) -> None:
    subscription.discard("t")


def close(subscription: Subscription, ws: WebSocket, scope: trio.CancelScope) -> None:
    ws._ending.close(1000, "")


def end_the_block(subscription: Subscription, ws: WebSocket, scope: trio.CancelScope) -> None:
    """Do nothing: what comes next is the end of the broadcast's block."""


def cancel(subscription: Subscription, ws: WebSocket, scope: trio.CancelScope) -> None:
    scope.cancel()


ENDS = {"leave": leave, "close": close, "end": end_the_block, "cancel": cancel}


@pytest.mark.parametrize("how", ENDS)
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
                    ENDS[how](subscription, ws, scope)
                    if how != "end":
                        await done.wait()
            await done.wait()
        assert scope.cancelled_caught is (how == "cancel")
        assert broadcast.statistics().published == 2 + (how not in ("cancel", "end"))
