"""Presence over Redis, with real workers of ``trio-ws serve`` that restart, die and stand still.

What a client is shown is compared with who is there: with everybody while nobody leaves, whatever
happens to the workers.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trio

from tests.backplane.redis_server import run_redis
from tests.command.cli_helpers import PATIENCE, running
from tests.whole.server_process import SOAK
from trio_ws import ConnectionClosed, reconnecting

APPLICATION = """
import os
from contextlib import asynccontextmanager

import trio_ws
from trio_ws.backplane import RedisBackplane


@asynccontextmanager
async def application():
    backplane = RedisBackplane(os.environ["REDIS"])
    lease = float(os.environ["LEASE"])
    async with trio_ws.open_broadcast(backplane=backplane, presence_lease=lease) as broadcast:

        async def handler(ws):
            async def show():
                async for snapshot in broadcast.presence("room"):
                    await ws.send_json([os.getpid(), sorted(snapshot.members), [*snapshot.left]])

            with broadcast.join("room", ws.request.query_params["user"], websocket=ws):
                async with ws.open_nursery() as nursery:
                    nursery.start_soon(show)
                    async for _ in ws:
                        pass

        yield handler
"""

#: The default, or one that is over sooner.
LEASE = 10 if SOAK else 4

#: How many seconds a busy machine may take for what is due.
SLACK = 20

USERS = [f"user {number}" for number in range(12)]


class Client:
    """Comes back again and again, and remembers what it was shown."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.worker = 0
        self.members: list[str] = []
        #: Who was said to have left, and by whom.
        self.left: list[tuple[int, str]] = []
        #: How many were shown at first, on each connection.
        self.first: list[int] = []
        self.is_connected = False

    async def run(self, url: str) -> None:
        links = reconnecting(
            f"{url}?user={quote(self.user)}", min_delay=0.1, max_delay=1, proxy=None
        )
        async for link in links:
            try:
                async with link as ws:
                    self.first.append(-1)
                    while True:
                        self._note(await ws.receive_json())
            except ConnectionClosed:
                continue
            finally:
                self.is_connected = False

    def _note(self, shown: Any) -> None:
        self.worker, self.members, left = shown
        self.left += [(self.worker, user) for user in left]
        self.is_connected = True
        if self.first[-1] < 0:
            self.first[-1] = len(self.members)


async def wait_until_shown(clients: list[Client], users: list[str]) -> None:
    while not all(each.is_connected and each.members == sorted(users) for each in clients):
        await trio.sleep(0.01)


async def test_over_restarts_deaths_and_standstills_all_workers_agree_on_who_is_there(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(APPLICATION, "utf-8")
    with trio.fail_after(2 * PATIENCE):
        async with (
            run_redis(tmp_path) as redis,
            running(
                *("serve", "app:application", "--port", "0", "--workers", "2"),
                cwd=tmp_path,
                env={**os.environ, "REDIS": redis.url, "LEASE": str(LEASE)},
            ) as command,
            trio.open_nursery() as nursery,
        ):
            (url, *_) = await command.urls()
            clients = [Client(user) for user in USERS]
            for client in clients:
                nursery.start_soon(client.run, url)
            await wait_until_shown(clients, USERS)
            before = {client.worker for client in clients}
            for client in clients:
                client.first.clear()

            command.process.send_signal(signal.SIGHUP)
            await command.read_until("all workers are replaced")
            await wait_until_shown(clients, USERS)
            await trio.sleep(1)
            await wait_until_shown(clients, USERS)
            assert not before & {client.worker for client in clients}
            for client in clients:
                # Nobody was ever said to have left, and nobody was missing for whoever came back.
                assert client.left == []
                assert set(client.first) == {len(USERS)}

            # One stands still for longer than the lease: the others give it up, and take it back.
            workers = sorted({client.worker for client in clients})
            stopped = workers[0]
            here = [client for client in clients if client.worker == stopped]
            there = [client for client in clients if client.worker != stopped]
            if there:
                os.kill(stopped, signal.SIGSTOP)
                started = trio.current_time()
                await wait_until_shown(there, [client.user for client in there])
                assert trio.current_time() - started < LEASE + SLACK
                os.kill(stopped, signal.SIGCONT)
                started = trio.current_time()
                await wait_until_shown(clients, USERS)
                assert trio.current_time() - started < SLACK
                assert not any(client.left for client in here)

                # One is killed. Its clients come back before anybody has missed them.
                for client in clients:
                    client.left.clear()
                os.kill(stopped, signal.SIGKILL)
                await trio.sleep(1)
                await wait_until_shown(clients, USERS)
                await trio.sleep(LEASE + 1)
                await wait_until_shown(clients, USERS)
                assert not any(client.left for client in there)
            nursery.cancel_scope.cancel()
