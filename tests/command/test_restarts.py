"""Restarts that lose no connection: clients come all the time, and every one of them is served.

The sockets are the supervisor's, or systemd's: systemd-socket-activate passes them as systemd does.
With TRIO_WS_SOAK=1 in the environment, there are 200 restarts under 500 clients a second.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from tests.command.cli_helpers import (
    APPLICATION,
    PATIENCE,
    Command,
    running,
    serving,
    socket_activate,
)
from tests.helpers import HOST, REQUEST
from tests.whole.server_process import SOAK, report

RESTARTS = 200 if SOAK else 2
RATE = 500 if SOAK else 150

#: How long a client may wait before it counts as one that hangs.
HANGS = 20.0

#: A Close frame of a client, with a mask of zeros.
CLOSE_1000 = b"\x88\x82\0\0\0\0\x03\xe8"

OPTIONS = ["--workers", "2", "--grace-period", "1", "--close-timeout", "2"]

Connect = Callable[[], Awaitable[trio.abc.Stream]]


async def visit(connect: Connect) -> str:
    """What becomes of one client, which leaves as soon as it was let in."""
    with trio.move_on_after(HANGS):
        try:
            stream = await connect()
            async with stream:
                await stream.send_all(REQUEST)
                answer = bytes(await stream.receive_some())
                await stream.send_all(CLOSE_1000)
                while data := await stream.receive_some():
                    answer += data
        except (OSError, trio.BrokenResourceError) as exc:
            return repr(exc.__cause__ or exc)
        return answer.partition(b"\r\n")[0].decode()
    return "hangs"


@asynccontextmanager
async def clients(connect: Connect, rate: float) -> AsyncGenerator[Counter[str], None]:
    """New clients all the time, and what becomes of them; complete at the end."""
    outcomes: Counter[str] = Counter()

    async def come(number: int) -> None:
        outcomes[await visit(connect)] += 1

    async def keep_coming() -> None:
        start = trio.current_time()
        number = 0
        with until:
            while True:
                await trio.sleep_until(start + number / rate)
                nursery.start_soon(come, number)
                number += 1

    until = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_coming)
        yield outcomes
        until.cancel()


async def restart_again_and_again(command: Command, supervisor: int, connect: Connect) -> None:
    start = trio.current_time()
    async with clients(connect, RATE) as outcomes:
        for _ in range(RESTARTS):
            await trio.sleep(0.2)
            os.kill(supervisor, signal.SIGHUP)
            await command.read_until("all workers are replaced")
        seconds = trio.current_time() - start
    report(restarts=RESTARTS, seconds=f"{seconds:.0f}", outcomes=dict(outcomes))
    assert {*outcomes} == {"HTTP/1.1 101 Switching Protocols"}
    assert outcomes.total() > RATE * seconds / 2  # a machine may have no time for more


async def test_while_the_supervisor_replaces_workers_every_client_is_served(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE * RESTARTS):
        async with serving(tmp_path, "handler", *OPTIONS) as (command, url):
            connect = partial(trio.open_tcp_stream, HOST, int(url.rpartition(":")[2].strip("/")))
            await restart_again_and_again(command, command.process.pid, connect)
            assert await command.stop(signal.SIGTERM) == 0


@asynccontextmanager
async def activated(
    directory: Path, application: str, *arguments: str, listen: str = "socket"
) -> AsyncGenerator[Command, None]:
    """`application`, started by systemd-socket-activate when the first client comes."""
    (directory / "chat.py").write_text(APPLICATION, "utf-8")
    starter = [*socket_activate(), "--listen", listen]
    async with running(
        "serve", f"chat:{application}", *arguments, starter=starter, cwd=directory
    ) as command:
        await command.read_until("Listening on")
        yield command


async def test_while_workers_on_a_socket_of_systemd_are_replaced_every_client_is_served(
    tmp_path: Path,
) -> None:
    path = tmp_path / "socket"
    connect = partial(trio.open_unix_socket, path)
    with trio.fail_after(PATIENCE * RESTARTS):
        async with activated(tmp_path, "handler", *OPTIONS, listen=str(path)) as command:
            assert await visit(connect) == "HTTP/1.1 101 Switching Protocols"  # it was waiting
            await command.read_until(f"Serving on the Unix socket {path} with 2 workers")
            await restart_again_and_again(command, command.process.pid, connect)
            assert await command.stop(signal.SIGTERM) == 0
            assert path.exists()
