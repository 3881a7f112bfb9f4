"""Reconnecting over TCP: left at every step, and with servers that are killed and come back.

With TRIO_WS_SOAK=1 in the environment, each way of leaving is tried at each step, and servers are
killed for a minute.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import trio
import trio.testing

from tests.conftest import open_descriptors
from tests.helpers import HOST, PATIENCE, free_port, kill, open_server
from trio_ws import Link, WebSocket, reconnecting
from trio_ws._waking import LOOKOUT, Lookout

SOAK = os.environ.get("TRIO_WS_SOAK") == "1"

# Left at every step…

WAYS = ["break", "return", "raise", "cancelled within", "cancelled from outside"]


class MineError(Exception):
    """What the application raises."""


class Leaving(trio.abc.Instrument):
    """Has a loop left in one of these ways after the k-th step from now on, of whichever task."""

    def __init__(self, way: str, step: int) -> None:
        self.way = way
        self.steps_left = step
        self.scope = trio.CancelScope()
        self.outside = trio.CancelScope()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps_left -= 1
        if self.steps_left == 0:
            scope = self.outside if self.way == WAYS[-1] else self.scope
            scope.cancel()

    @property
    def is_due(self) -> bool:
        return self.scope.cancel_called

    def new_scope(self) -> trio.CancelScope:
        """One that is cancelled when, or as soon as, it is due."""
        before, self.scope = self.scope, trio.CancelScope()
        if before.cancel_called:
            self.scope.cancel()
        return self.scope

    async def go_through(self, url: str) -> None:
        """Three rounds: one that is renewed, one that ends by plan, and one that is lost."""
        rounds = 0
        async for link in reconnecting(url, min_delay=0.001, max_delay=0.002, receive_timeout=60):
            rounds += 1
            if self.way == "cancelled within":
                with self.new_scope():
                    async with link as ws:
                        await self.talk(link, ws, rounds)
            else:
                async with link as ws:
                    with self.new_scope():
                        await self.talk(link, ws, rounds)
                    if self.is_due and self.way == "return":
                        return
                    if self.is_due and self.way == "raise":
                        raise MineError
                    if self.is_due and self.way == "break":
                        break
            if self.is_due or rounds == 3:
                break

    async def talk(self, link: Link, websocket: WebSocket, rounds: int) -> None:
        await websocket.send(str(rounds))
        if rounds == 1:
            link.renew()
        async for _ in websocket:
            pass


async def serve_rounds(websocket: WebSocket) -> None:
    number = await websocket.receive()
    await websocket.send("a")
    await websocket.send("b")
    if number == "1":
        async for _ in websocket:
            pass
    elif number == "2":
        await websocket.aclose(1012)
    else:
        websocket._ending.abort()


async def test_left_at_any_step_in_any_way_a_loop_leaves_nothing_behind() -> None:
    LOOKOUT.set(Lookout(None))  # its one task for all loops ends up to a second after them
    async with open_server(serve_rounds, close_timeout=0.5) as server:
        url = server.urls[0]
        await Leaving("break", -1).go_through(url)
        await trio.testing.wait_all_tasks_blocked(0.05)
        tasks = trio.lowlevel.current_statistics().tasks_living
        descriptors = len(open_descriptors())
        step, ways_through = 0, set[str]()
        while len(ways_through) < len(WAYS):
            step += 1
            assert step < 2000, "it never got through"
            for way in WAYS if SOAK else [WAYS[step % len(WAYS)]]:
                leaving = Leaving(way, step)
                trio.lowlevel.add_instrument(leaving)
                try:
                    with trio.fail_after(PATIENCE), leaving.outside, suppress(MineError):
                        await leaving.go_through(url)
                finally:
                    trio.lowlevel.remove_instrument(leaving)
                if leaving.steps_left > 0:
                    ways_through.add(way)
                with trio.fail_after(PATIENCE):
                    while (
                        trio.lowlevel.current_statistics().tasks_living > tasks
                        or len(open_descriptors()) > descriptors
                    ):
                        await trio.sleep(0.001)
    assert step > 50


# Servers that are killed…

OURS = """
import sys, trio, trio_ws

async def echo(ws):
    async for message in ws:
        await ws.send(message)

async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(trio_ws.serve_websocket, echo, "127.0.0.1", int(sys.argv[1]))
        print("there", flush=True)

trio.run(main)
"""

THEIRS = """
import asyncio, sys
from websockets.asyncio.server import serve

async def echo(ws):
    async for message in ws:
        await ws.send(message)

async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1])):
        print("there", flush=True)
        await asyncio.Future()

asyncio.run(main())
"""


async def test_real_servers_are_killed_each_second_and_every_one_of_them_is_found() -> None:
    port = free_port()
    seconds = 60 if SOAK else 4
    #: The numbers of the servers, as the client finds them; `None` while there is none.
    running: int | None = None
    found = set[int]()
    rounds = 0

    async def be_servers() -> int:
        nonlocal running
        ends = trio.current_time() + seconds
        number = 0
        while trio.current_time() < ends:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-c", (OURS, THEIRS)[number % 2], str(port)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            try:
                assert process.stdout is not None
                assert await process.stdout.receive_some()  # it listens
                running = number
                await trio.sleep(1)
                running = None
                if number % 4 < 2:
                    process.send_signal(signal.SIGINT)
                    with trio.move_on_after(1):
                        await process.wait()
            finally:
                await kill(process)
            number += 1
        return number

    async def be_client() -> None:
        nonlocal rounds
        position = 0
        url = f"ws://{HOST}:{port}/"
        async for link in reconnecting(url, min_delay=0.05, max_delay=0.2, receive_timeout=5):
            async with link as ws:
                rounds += 1
                while True:
                    await ws.send(str(position))
                    assert await ws.receive() == str(position)
                    position += 1
                    if running is not None:
                        found.add(running)
                    await trio.sleep(0.01)

    with trio.fail_after(2 * PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_client)
            started = await be_servers()
            nursery.cancel_scope.cancel()
    assert found == {*range(started)}
    assert rounds <= started + 2


# Storms…


async def test_a_server_that_closes_at_once_sees_at_most_10_attempts_in_2_real_seconds() -> None:
    attempts = 0

    async def close(websocket: WebSocket) -> None:
        nonlocal attempts
        attempts += 1
        await websocket.aclose(1011)

    async with open_server(close) as server:
        with trio.move_on_after(2):
            async for link in reconnecting(server.urls[0]):
                async with link as ws:
                    async for _ in ws:
                        pass
    assert 2 <= attempts <= 10
