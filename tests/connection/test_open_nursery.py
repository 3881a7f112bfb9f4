"""`WebSocket.open_nursery`: it lives as long as the connection, and takes nothing with it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.helpers import TEXT, close_frame, forever, frame, open_pair, open_server_with_raw_client
from trio_ws import CloseReason, ConnectionLost, Initiator, pump
from trio_ws._nursery import leaf_exceptions

pytestmark = pytest.mark.autojump


async def test_both_patterns_end_when_the_peer_closes() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        received: list[str | bytes] = []

        async def producer() -> None:
            await trio.sleep_forever()

        async with ws.open_nursery() as nursery:
            nursery.start_soon(producer)
            await peer.send_frame(TEXT, b"one")
            await peer.send_close(1000)
            async for message in ws:
                received.append(message)
        assert received == ["one"]


async def test_one_inside_another_and_one_after_another_all_end_with_the_connection() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        async with ws.open_nursery() as outer:
            outer.start_soon(trio.sleep_forever)
            async with ws.open_nursery() as inner:
                inner.start_soon(trio.sleep_forever)
                await peer.send_close(1000)
        async with ws.open_nursery() as late:
            late.start_soon(trio.sleep_forever)
    assert not (outer.child_tasks or inner.child_tasks or late.child_tasks)


async def test_messages_before_the_close_are_not_lost_to_the_cancellation() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        handled: list[str | bytes] = []
        async with ws.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await peer.send(frame(TEXT, b"1"), frame(TEXT, b"2"), frame(TEXT, b"3"))
            await peer.send(close_frame(1000))
            async for message in ws:
                await trio.sleep(2)
                handled.append(message)
        assert handled == ["1", "2", "3"]


async def test_a_producer_that_nobody_receives_for_ends_at_once() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        start = trio.current_time()
        async with ws.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await peer.send_close(1000)
        assert trio.current_time() == start


async def test_unread_messages_keep_it_for_close_timeout() -> None:
    async with open_server_with_raw_client(close_timeout=3) as (ws, peer):
        start = trio.current_time()
        async with ws.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await peer.send_frame(TEXT, b"unread")
            await peer.send_close(1000)
        assert trio.current_time() - start == pytest.approx(3)


async def test_a_handler_stuck_over_the_last_message_gets_close_timeout() -> None:
    async with open_server_with_raw_client(close_timeout=3) as (ws, peer):
        start = trio.current_time()
        async with ws.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await peer.send_frame(TEXT, b"1")
            await peer.send_close(1000)
            await ws.receive()
            await forever()
        assert trio.current_time() - start == pytest.approx(3)


async def test_a_lost_connection_ends_the_nursery_bare_where_a_task_was_told() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        with pytest.raises(ConnectionLost, match="1006"):
            async with ws.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await peer.send_frame(TEXT, b"last words")
                await peer.stream.aclose()
                async for message in ws:
                    assert message == "last words"


async def test_a_lost_connection_ends_the_nursery_in_silence_where_no_task_was_told() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        async with ws.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await peer.stream.aclose()
        assert ws.close_reason is not None
        assert ws.close_reason.code == 1006


async def test_a_producer_that_sends_after_the_end_ends_it_in_silence() -> None:
    async with open_server_with_raw_client() as (ws, peer):

        async def producer() -> None:
            while True:
                await ws.send("tick")
                await trio.sleep(1)

        async with ws.open_nursery() as nursery:
            nursery.start_soon(producer)
            nursery.start_soon(producer)
            await peer.send_frame(TEXT, b"so that a task has received")
            await ws.receive()
            await trio.sleep(2.5)
            await peer.send_close(1001)


async def test_our_own_close_within_it_is_a_proper_one_and_then_cancels_it() -> None:
    async with open_pair() as (client, server):
        events: list[str] = []

        async def receive() -> None:
            try:
                async for _ in client:
                    raise AssertionError
            except trio.Cancelled:
                events.append("receiver cancelled")
                raise

        async with client.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await client.aclose(4001, "enough")
            events.append("closed")
            await forever()
        assert sorted(events) == ["closed", "receiver cancelled"]
        assert client.close_reason == CloseReason(4001, "enough", Initiator.LOCAL)
        assert (await server.wait_closed()).code == 4001


async def test_opening_it_on_a_closed_connection_cancels_it_at_once() -> None:
    async with open_pair() as (client, server):
        await client.aclose()
        async with client.open_nursery():
            await forever()
        await server.wait_closed()
        async with server.open_nursery():
            await forever()


async def test_a_message_taken_long_ago_does_not_keep_it() -> None:
    async with open_server_with_raw_client(close_timeout=3) as (ws, peer):
        await peer.send_frame(TEXT, b"subscribe")
        await ws.receive()
        await trio.sleep(5)
        start = trio.current_time()
        async with ws.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await peer.send_close(1000)
        assert trio.current_time() == start


async def test_a_nursery_ends_even_with_an_infinite_close_timeout() -> None:
    async with open_server_with_raw_client(close_timeout=float("inf")) as (ws, peer):
        async with ws.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await peer.send_close(1000)


async def test_opened_after_our_own_close_it_is_cancelled_at_once_whatever_was_received() -> None:
    async with open_server_with_raw_client(close_timeout=3) as (ws, peer):
        await peer.send(frame(TEXT, b"taken"), close_frame(1000))
        await ws.receive()
        await ws.aclose()
        start = trio.current_time()
        async with ws.open_nursery():
            await forever()
        assert trio.current_time() == start


async def test_a_cancellation_from_outside_that_meets_the_end_goes_on_alone() -> None:
    async with open_pair() as (client, server):
        with trio.CancelScope() as outer:
            async with client.open_nursery() as nursery:

                async def say_goodbye() -> None:
                    try:
                        await trio.sleep_forever()
                    finally:
                        with trio.CancelScope(shield=True):
                            await client.wait_closed()
                            await client.send("bye")

                nursery.start_soon(say_goodbye)
                await trio.testing.wait_all_tasks_blocked()
                outer.cancel()
                server._ending.close(1000, "")
                await trio.sleep_forever()
        assert outer.cancelled_caught


async def test_a_producer_that_sends_while_the_consumer_closes_ends_in_silence() -> None:
    async with open_server_with_raw_client(close_timeout=1) as (ws, peer):

        async def producer() -> None:
            while True:
                await ws.send("tick")
                await trio.sleep(0.1)

        async with ws.open_nursery() as nursery:
            nursery.start_soon(producer)
            await peer.send_frame(TEXT, b"quit")
            async for _ in ws:
                await ws.aclose()


async def test_aclose_after_the_end_ends_it_at_once() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_frame(TEXT, b"last")
        await ws.receive()
        async with ws.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await peer.send_close(1000)
            await ws.wait_closed()
            start = trio.current_time()
            await ws.aclose()
        assert trio.current_time() == start


async def test_other_exceptions_come_out_in_a_group_as_from_any_nursery() -> None:
    async with open_pair() as (client, _):
        with pytest.raises(ExceptionGroup) as caught:
            async with client.open_nursery():
                raise KeyError
        assert isinstance(caught.value.exceptions[0], KeyError)


@pytest.mark.parametrize("raiser", ["body", "task"])
async def test_ctrl_c_comes_out_bare_where_it_is_alone(raiser: str) -> None:
    async def interrupt() -> None:
        raise KeyboardInterrupt

    async with open_pair() as (client, _):
        with pytest.raises(KeyboardInterrupt):
            async with client.open_nursery() as nursery:
                if raiser == "body":
                    await interrupt()
                nursery.start_soon(interrupt)


async def test_ctrl_c_comes_out_in_a_group_where_something_else_failed_too() -> None:
    async with open_pair() as (client, _):
        with pytest.raises(BaseExceptionGroup) as caught:
            async with client.open_nursery():
                raise BaseExceptionGroup("both", [KeyboardInterrupt(), ValueError()])
    assert len(leaf_exceptions(caught.value)) == 2


async def test_a_nursery_ends_by_itself_when_its_tasks_do() -> None:
    async with open_pair() as (client, server):
        async with client.open_nursery() as nursery:
            nursery.start_soon(client.send, "x")
        assert await server.receive() == "x"


async def test_a_cancellation_from_outside_goes_through_it() -> None:
    async with open_pair() as (client, _):
        with trio.move_on_after(1) as scope:
            async with client.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
        assert scope.cancelled_caught


async def test_pump_forwards_between_channels_and_websockets() -> None:
    async with open_pair() as (client, server):
        send_channel, receive_channel = trio.open_memory_channel[str | bytes](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, server, send_channel)
            await client.send("one")
            await client.send(b"two")
            assert await receive_channel.receive() == "one"
            assert await receive_channel.receive() == b"two"
            await client.aclose()
        send_channel.close()
        receive_channel.close()


async def test_pump_relays_from_one_connection_to_another() -> None:
    async with open_pair() as (near, inside), open_pair() as (outside, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, inside, outside)
            await near.send("through")
            assert await far.receive() == "through"
            await near.aclose()
        await outside.send("not closed by pump")
        assert await far.receive() == "not closed by pump"
