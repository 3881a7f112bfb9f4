"""`flusher`: what was gathered goes out when the task that sent it waits, and not later."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.connection.reading_helpers import AWAY
from tests.helpers import open_server
from trio_ws import WebSocket, open_websocket_url
from trio_ws._connection.flusher import Flusher

pytestmark = pytest.mark.autojump


class Gathered:
    def __init__(self, events: list[str], name: str) -> None:
        self.events = events
        self.name = name

    def flush(self) -> None:
        self.events.append(self.name)


async def test_all_that_is_due_is_flushed_once_when_the_task_waits() -> None:
    events: list[str] = []
    flusher = Flusher()
    flusher.flush_soon(Gathered(events, "before it runs"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        await trio.testing.wait_all_tasks_blocked()
        assert events == ["before it runs"]
        flusher.flush_soon(Gathered(events, "a"))
        flusher.flush_soon(Gathered(events, "b"))
        assert len(events) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert events == ["before it runs", "a", "b"]
        nursery.cancel_scope.cancel()


async def test_outboxes_that_come_up_in_flushing_are_flushed() -> None:
    events: list[str] = []
    flusher = Flusher()

    class Chain(Gathered):
        def flush(self) -> None:
            super().flush()
            flusher.flush_soon(Gathered(events, "next"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        await trio.testing.wait_all_tasks_blocked()
        flusher.flush_soon(Chain(events, "first"))
        await trio.testing.wait_all_tasks_blocked()
        assert events == ["first", "next"]
        nursery.cancel_scope.cancel()
    flusher.flush_soon(Gathered(events, "after it ended"))
    assert events == ["first", "next"]


async def sleep(ws: WebSocket, answered: trio.Event) -> None:
    await trio.sleep(100)


async def wait_for_an_event(ws: WebSocket, answered: trio.Event) -> None:
    await answered.wait()


async def do_nothing(ws: WebSocket, answered: trio.Event) -> None:
    pass


async def close(ws: WebSocket, answered: trio.Event) -> None:
    await ws.aclose(4000)


#: Things that a sender may wait for.
WAITS = {"sleep": sleep, "event": wait_for_an_event, "return": do_nothing, "close": close}


@pytest.mark.parametrize("wait", WAITS)
async def test_a_sender_that_waits_for_something_else_holds_nothing_back(wait: str) -> None:
    """Real sockets, because only to them frames are written at once."""
    answered = trio.Event()

    async def handler(ws: WebSocket) -> None:
        await trio.sleep(AWAY)  # the reader task reads
        await trio.testing.wait_all_tasks_blocked()  # until all messages are in the queue
        assert ws.statistics().queued_messages == 20
        for number in range(5):
            await ws.receive()
            await ws.send(str(number))
        assert ws.statistics().unsent_bytes > 0
        await WAITS[wait](ws, answered)

    async with open_server(handler) as server, open_websocket_url(server.urls[0]) as client:
        for _ in range(20):
            client.send_nowait("x")
        start = trio.current_time()
        assert [await client.receive() for _ in range(5)] == list("01234")
        assert trio.current_time() - start < 1
        answered.set()
        assert (await client.wait_closed()).code == (4000 if wait == "close" else 1000)
