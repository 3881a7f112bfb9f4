"""Examples in several processes: the number, the games and the people are those of all."""

from __future__ import annotations

import http.client
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from examples.connect_four import server as connect_four
from examples.counter import server as counter
from examples.counter.server import InMemory, open_counter
from tests.backplane.redis_server import run_redis
from tests.command.cli_helpers import Command, running
from tests.examples.scripts import EXAMPLES, PATIENCE
from trio_ws import ConnectionClosed, Router, WebSocket, open_websocket_url, reconnecting
from trio_ws.backplane import MemoryBackplane, MemoryHub
from trio_ws.testing import open_test_app, open_test_websocket

WORKERS = 4
LEASE = 3  # seconds, rather than 10
SLACK = 20  # for a busy machine

#: The example, with a presence that notices sooner who is gone.
COUNTER = f"""
from functools import partial

import examples.counter.server as counter

counter.open_broadcast = partial(counter.open_broadcast, presence_lease={LEASE})
application = counter.application
"""


class Visitor:
    """A page without a browser: it comes back, and knows what it was shown last."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ws: WebSocket | None = None
        self.shown: dict[str, Any] = {}
        self.visits = 0

    async def run(self) -> None:
        async for link in reconnecting(self._url, min_delay=0.1, max_delay=0.5, proxy=None):
            try:
                async with link as self._ws:
                    self.visits += 1
                    while True:
                        self.shown = await self._ws.receive_json()
            except ConnectionClosed:
                self.shown = {}

    async def press(self, button: str, times: int) -> None:
        assert self._ws is not None
        for _ in range(times):
            await self._ws.send(button)


async def until_shown(visitors: list[Visitor], value: int) -> None:
    wanted = {"value": value, "users": len(visitors)}
    while not all(visitor.shown == wanted for visitor in visitors):
        await trio.sleep(0.01)


def workers_of(command: Command) -> list[int]:
    threads = Path(f"/proc/{command.process.pid}/task").iterdir()
    return [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]


async def test_four_workers_are_one_counter_when_workers_and_redis_die(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(COUNTER, "utf-8")
    with trio.fail_after(2 * PATIENCE):
        async with (
            run_redis(tmp_path) as redis,
            running(
                *("serve", "app:application", "--port", "0", "--workers", str(WORKERS)),
                cwd=tmp_path,
                env={**os.environ, "REDIS_URL": redis.url, "PYTHONPATH": str(EXAMPLES.parent)},
            ) as command,
            trio.open_nursery() as nursery,
        ):
            (url, *_) = await command.urls()
            visitors = [Visitor(f"{url}/ws") for _ in range(5 * WORKERS)]
            for visitor in visitors:
                nursery.start_soon(visitor.run)
            await until_shown(visitors, 0)

            async with trio.open_nursery() as pressing:
                for number, visitor in enumerate(visitors):
                    button = "minus" if number % 4 == 0 else "plus"
                    pressing.start_soon(visitor.press, button, 20)
            await until_shown(visitors, 200)

            workers = workers_of(command)
            assert len(workers) == WORKERS
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
                await trio.sleep(0.2)
                if any(visitor.visits > 1 for visitor in visitors):
                    break
            # Those who come back are counted twice until the worker is known to be gone.
            killed = trio.current_time()
            await until_shown(visitors, 200)
            assert trio.current_time() - killed < LEASE + SLACK
            assert any(visitor.visits > 1 for visitor in visitors)

            redis.kill()
            await trio.sleep(0.2)
            await redis.start()
            await visitors[0].press("plus", 1)
            await until_shown(visitors, 201)
            nursery.cancel_scope.cancel()


class Player:
    """Somebody at a table, or a watcher without a secret."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws
        self._state: dict[str, Any] = {}
        self.refusals = 0

    async def sit_down(self, secret: str) -> dict[str, Any]:
        if secret:
            await self._ws.send(secret)
        seat: dict[str, Any] = await self._ws.receive_json()
        return seat

    async def drop(self, column: int) -> None:
        """Returns as soon as that was done or refused."""
        await self._ws.send(f"drop {column}")
        await self._ws.send("?")
        while "neither a move" not in (problem := await self._next()):
            self.refusals += "not your turn" in problem

    async def see(self, **wanted: object) -> None:
        while not wanted.items() <= self._state.items():
            await self._next()

    async def _next(self) -> str:
        """Take in a message; its problem, if it is one."""
        message: dict[str, Any] = await self._ws.receive_json()
        if "problem" not in message:
            self._state = {**message, "discs": sum(map(len, message["columns"]))}
        return str(message.get("problem", ""))


async def test_four_workers_are_one_house_for_connect_four(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with (
            run_redis(tmp_path) as redis,
            running(
                *("serve", "server:application", "--port", "0", "--workers", str(WORKERS)),
                cwd=EXAMPLES / "connect_four",
                env={**os.environ, "REDIS_URL": redis.url},
            ) as command,
            AsyncExitStack() as stack,
        ):
            (url, *_) = await command.urls()
            answer = await post(f"{url.replace('ws:', 'http:')}/games")
            link = answer.removeprefix("/?join=")

            async def enter(link: str) -> Player:
                opening = open_websocket_url(f"{url}/ws/{link}", proxy=None)
                return Player(await stack.enter_async_context(opening))

            # Red has many tabs, in all workers, and they all want the same column at once.
            tabs = [await enter(link) for _ in range(3 * WORKERS)]
            seats = [await tab.sit_down("one") for tab in tabs]
            assert {seat["you"] for seat in seats} == {"red"}
            yellow = await enter(link)
            assert (await yellow.sit_down("two"))["you"] == "yellow"
            watchers = [await enter(seats[0]["watch"]) for _ in range(2 * WORKERS)]
            for watcher in watchers:
                assert await watcher.sit_down("") == {"you": None}
            everybody = [*tabs, yellow, *watchers]
            people = {"here": {"red": len(tabs), "yellow": 1}, "watchers": len(watchers)}
            for player in everybody:
                await player.see(**people, discs=0)

            for column in range(3):
                async with trio.open_nursery() as nursery:
                    for tab in tabs:
                        nursery.start_soon(tab.drop, column)
                assert sum(tab.refusals for tab in tabs) == (column + 1) * (len(tabs) - 1)
                for player in everybody:
                    await player.see(**people, discs=2 * column + 1, turn="yellow")
                await yellow.drop(column)
                for player in everybody:
                    await player.see(**people, discs=2 * column + 2, turn="red")
            await tabs[0].drop(3)
            for player in everybody:
                await player.see(**people, discs=7, winner="red")


async def post(url: str) -> str:
    """Where it leads."""

    def fetch() -> str:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENCE)
        try:
            connection.request("POST", parts.path)
            return str(connection.getresponse().headers["Location"])
        finally:
            connection.close()

    return await trio.to_thread.run_sync(fetch)


@pytest.mark.parametrize(
    ("application", "problem"),
    [
        (counter.application, "set REDIS_URL, for example to redis://localhost"),
        (connect_four.application, "set REDIS_URL, for example to redis://localhost"),
    ],
    ids=["counter", "connect_four"],
)
async def test_one_of_several_workers_says_what_it_needs(
    application: Callable[[], AbstractAsyncContextManager[Router]],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("TRIO_WS_WORKER", "2")
    with pytest.raises(RuntimeError, match=problem):
        async with application():
            raise AssertionError("it has started")


@pytest.mark.parametrize("example", ["counter", "connect_four"])
async def test_one_worker_needs_nothing(example: str) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    arguments = ("serve", "server:application", "--port", "0", "--workers", "1")
    with trio.fail_after(PATIENCE):
        async with running(*arguments, cwd=EXAMPLES / example, env=kept) as command:
            assert await command.urls()


@pytest.mark.autojump
async def test_the_application_of_one_worker_counts_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    async with counter.application() as router, open_test_app(router) as app:
        page = await app.request("GET", "/")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        async with app.websocket("/ws") as ws:
            assert await ws.receive_json() == {"value": 0, "users": 1}
            await ws.send("minus")
            assert await ws.receive_json() == {"value": -1, "users": 1}


class Slow(InMemory):
    """Its answers are on their way for `delay` seconds."""

    delay = 0.0

    async def get(self) -> int:
        value = await super().get()
        await trio.sleep(self.delay)
        return value


async def values_for(ws: WebSocket, seconds: float) -> list[int]:
    """What a page shows in this time."""
    shown: list[int] = []
    with trio.move_on_after(seconds):
        while True:
            shown.append((await ws.receive_json())["value"])
    return shown


@pytest.mark.autojump
async def test_an_older_number_never_comes_after_a_newer_one() -> None:
    number = Slow()
    async with (
        open_counter(number) as here,
        open_test_websocket(here.serve) as ws,
    ):
        assert await values_for(ws, 1) == [0]
        number.delay = 5
        async with open_test_websocket(here.serve):
            await trio.sleep(1)  # somebody has come: an answer is on its way
            number.delay = 0
            await ws.send("plus")
            assert await values_for(ws, 60) == [0, 1]


@pytest.mark.autojump
async def test_a_change_that_a_worker_was_not_told_of_is_shown_when_it_is_back() -> None:
    hub, number = MemoryHub(), InMemory()
    backplane = MemoryBackplane(hub)
    async with (
        open_counter(number, backplane) as here,
        open_counter(number, MemoryBackplane(hub)) as there,
        open_test_websocket(here.serve) as ws,
    ):
        await values_for(ws, 1)
        hub.cut_off(backplane)
        await there.add(1)
        assert await values_for(ws, 5) == []
        hub.let_back(backplane)
        assert 1 in await values_for(ws, 5)
