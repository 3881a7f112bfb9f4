"""`receive_timeout`: a feed that went silent behind an open socket is a lost connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.client.network import URL, Server, memory_network, serving
from tests.helpers import Laptop, echo
from trio_ws import ConnectionLost, Initiator, WebSocket, reconnecting

pytestmark = pytest.mark.autojump

SECONDS = 30.0


@asynccontextmanager
async def client(server: Server, **options: Any) -> AsyncGenerator[WebSocket, None]:
    """The first connection of a client that does not connect again."""
    async with memory_network(server):
        links = reconnecting(
            URL, receive_timeout=SECONDS, retry=lambda exc, transient: False, **options
        )
        async with await anext(links) as websocket:
            yield websocket


async def be_silent(websocket: WebSocket) -> None:
    await websocket.wait_closed()


async def test_a_feed_that_says_nothing_is_lost() -> None:
    with pytest.raises(ConnectionLost) as caught:
        async with client(serving(be_silent)) as ws:
            await ws.receive()
    assert SECONDS <= trio.current_time() < SECONDS + 1
    reason = caught.value.reason
    assert str(reason) == "1011 (internal error), closed by us: no message for 30 s"
    assert (reason.code, reason.initiator, reason.failed) == (1011, Initiator.LOCAL, True)


async def test_pongs_and_pings_are_no_messages() -> None:
    async def ping(websocket: WebSocket) -> None:
        while True:
            await websocket.ping()
            await trio.sleep(1)

    with pytest.raises(ConnectionLost):
        async with client(serving(ping)) as ws:
            await ws.receive()
    assert SECONDS <= trio.current_time() < SECONDS + 1


async def test_it_is_noticed_though_no_task_receives() -> None:
    async with client(serving(be_silent)) as ws:
        reason = await ws.wait_closed()
    assert reason.code == 1011
    assert SECONDS <= trio.current_time() < SECONDS + 1


async def test_a_peer_that_does_not_answer_the_close_frame_holds_nobody_up() -> None:
    async def stop(websocket: WebSocket) -> None:
        websocket._transport.receive = trio.sleep_forever  # type: ignore[method-assign]
        await trio.sleep_forever()

    with pytest.raises(ConnectionLost):
        async with client(serving(stop), close_timeout=600, ping_interval=3600) as ws:
            await ws.receive()
    assert trio.current_time() < SECONDS + 1


async def test_a_feed_that_says_something_in_time_is_kept() -> None:
    async def speak(websocket: WebSocket) -> None:
        for _ in range(10):
            await trio.sleep(SECONDS - 1)
            await websocket.send("still here")
        await be_silent(websocket)

    heard = 0
    with pytest.raises(ConnectionLost):
        async with client(serving(speak)) as ws:
            while True:
                await ws.receive()
                heard += 1
    assert heard == 10
    assert 11 * SECONDS - 10 <= trio.current_time() < 11 * SECONDS - 9


async def test_messages_that_wait_are_no_silence() -> None:
    async def send_two(websocket: WebSocket) -> None:
        await websocket.send("one")
        await websocket.send("two")
        await be_silent(websocket)

    with pytest.raises(ConnectionLost):
        async with client(serving(send_two)) as ws:
            assert await ws.receive() == "one"
            await trio.sleep(10 * SECONDS)
            assert await ws.receive() == "two"
            await ws.send("still open")
            started = trio.current_time()
            await ws.receive()
    assert SECONDS <= trio.current_time() - started < SECONDS + 1


async def test_a_queue_that_is_full_is_no_silence() -> None:
    async def flood(websocket: WebSocket) -> None:
        for _ in range(1000):
            await websocket.send("x")
        await be_silent(websocket)

    async with client(serving(flood), max_queued_messages=3) as ws:
        await trio.sleep(10 * SECONDS)
        for _ in range(100):
            await ws.receive()


async def test_a_message_that_is_arriving_is_no_silence() -> None:
    async def drip(websocket: WebSocket) -> None:
        async with websocket.open_message("text") as writer:
            for _ in range(10):
                await writer.send("drop")
                await trio.sleep(SECONDS - 1)
        await be_silent(websocket)

    with pytest.raises(ConnectionLost):
        async with client(serving(drip)) as ws:
            assert await ws.receive() == "drop" * 10
            started = trio.current_time()
            await ws.receive()
    assert SECONDS <= trio.current_time() - started < SECONDS + 1


async def test_a_message_that_stops_arriving_is_silence() -> None:
    async def stall(websocket: WebSocket) -> None:
        async with websocket.open_message("text") as writer:
            await writer.send("drop")
            await trio.sleep_forever()

    with pytest.raises(ConnectionLost, match="no message for 30 s"):
        async with client(serving(stall)) as ws:
            await ws.receive()
    assert SECONDS <= trio.current_time() < SECONDS + 1


async def test_a_program_that_stood_still_reads_first_what_came_meanwhile(
    mock_clock: trio.testing.MockClock,
) -> None:
    async def speak(websocket: WebSocket) -> None:
        async for message in websocket:
            await trio.sleep(SECONDS - 1)
            await websocket.send(message)

    async with client(serving(speak)) as ws:
        for _ in range(3):
            await ws.send("hello")
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(SECONDS + 10)  # both sides stood still
            assert await ws.receive() == "hello"


async def test_a_computer_that_wakes_gives_the_feed_all_its_time_again() -> None:
    laptop = Laptop()
    with pytest.raises(ConnectionLost, match="no message for 30 s"):
        async with client(serving(be_silent)) as ws:
            await trio.sleep(20)
            laptop.sleep(3600)
            await ws.receive()
    assert 20 + SECONDS <= trio.current_time() < 20 + SECONDS + 2


async def test_the_loop_goes_on_after_it() -> None:
    rounds = 0
    async with memory_network(serving(be_silent)) as network:
        async for link in reconnecting(URL, receive_timeout=SECONDS):
            async with link as ws:
                rounds += 1
                if rounds == 3:
                    break
                async for _ in ws:
                    pass
        assert all(SECONDS + 0.5 <= gap <= SECONDS + 1.2 for gap in network.gaps)


async def test_a_connection_that_is_closing_is_left_alone() -> None:
    async with client(serving(echo)) as ws:
        await trio.sleep(SECONDS - 1)
        await ws.aclose(4000)
        await trio.sleep(10)
        assert ws.close_reason is not None
        assert ws.close_reason.code == 4000
