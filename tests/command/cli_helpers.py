"""Applications to serve, and the command line as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.helpers import kill
from trio_ws._command.cli import main

#: How long anything may take before it counts as hanging.
PATIENCE = 60

#: An application for all tests; what a connection gets depends on its path.
APPLICATION = """
import contextlib
import os

import trio

import trio_ws


def say(line):
    # In one piece: `print` may write the end of a line by itself, after what another process wrote.
    os.write(1, f"{line}\\n".encode())


async def handler(ws):
    if ws.request.path == "/who":
        await ws.send_json([os.environ.get("TRIO_WS_WORKER"), os.getpid()])
    if ws.request.path == "/never":
        with trio.CancelScope(shield=True):
            await ws.send("you will wait")
            await trio.sleep_forever()
    if ws.request.path == "/slow":
        await trio.sleep_forever()
    async for message in ws:
        await ws.send(message)


router = trio_ws.Router()
router.websocket("/chat")(handler)


@contextlib.asynccontextmanager
async def application():
    say("set up")
    yield handler
    await trio.sleep(0)
    say("tidied up")


@contextlib.asynccontextmanager
async def hanging():
    say("setting up")
    await trio.sleep_forever()
    yield


@contextlib.asynccontextmanager
async def perhaps_hanging():
    if os.path.exists("hang"):
        say("setting up " + os.environ["TRIO_WS_WORKER"])
        try:
            await trio.sleep_forever()
        finally:
            say("given up")
    yield handler


@contextlib.asynccontextmanager
async def stubborn():
    yield handler
    say("not ending")
    await trio.sleep_forever()
"""


class Command:
    """``trio-ws`` as a process: what it prints, standard error included, and how it ends."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.output = ""
        self._read = 0

    async def read_until(self, pattern: str) -> re.Match[str]:
        """Wait for a line that has this in it. What was found before is not looked at again."""
        assert self.process.stdout is not None
        while True:
            end = self.output.rfind("\n") + 1
            found = re.compile(pattern, re.MULTILINE).search(self.output, self._read, end)
            if found is not None:
                self._read = found.end()  # not that line's: two processes may have written it
                return found
            data = await self.process.stdout.receive_some()
            assert data, f"no {pattern!r} in {self.output!r}"
            self.output += data.decode()

    async def urls(self) -> list[str]:
        """The URLs that it serves, as soon as it prints them."""
        found = await self.read_until("^Serving on .*")
        return re.findall(r"wss?://\S+", found[0])

    async def write(self, text: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode())

    async def end_input(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def status(self) -> int:
        """Its exit code. The rest of its output is read meanwhile."""
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            self.output += data.decode()
        assert "Warning" not in self.output  # Python's, of something left open
        return await self.process.wait()

    async def stop(self, how: int) -> int:
        self.process.send_signal(how)
        return await self.status()


def socket_activate() -> list[str]:
    """The beginning of a command line of systemd-socket-activate.

    It starts programs in an environment of their own. What measures coverage has to get into it.
    """
    names = [name for name in os.environ if name.startswith("COVERAGE_")]
    return ["systemd-socket-activate", *(f"--setenv={each}" for each in ["PYTHONWARNINGS", *names])]


@asynccontextmanager
async def running(
    *arguments: str, starter: Sequence[str] = (), cwd: Path | None = None, **options: Any
) -> AsyncGenerator[Command, None]:
    """``trio-ws`` with these arguments; killed at the end if it still runs.

    Args:
        arguments: those of the command.
        starter: a program that becomes ``trio-ws``, with its arguments.
        cwd: the directory in which it runs.
        options: of `trio.lowlevel.open_process`.
    """
    process = await trio.lowlevel.open_process(
        [*starter, sys.executable, "-m", "trio_ws", *arguments],
        **{
            "cwd": cwd,
            "env": {**os.environ, "PYTHONWARNINGS": "default"},
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            **options,
        },
    )
    try:
        yield Command(process)
    finally:
        await kill(process)


@asynccontextmanager
async def serving(
    directory: Path, application: str, *arguments: str
) -> AsyncGenerator[tuple[Command, str], None]:
    """`application` of `APPLICATION`, served on a free port, and the URL."""
    (directory / "chat.py").write_text(APPLICATION, "utf-8")
    where: Sequence[str] = ("--port", "0", "--host", "127.0.0.1")
    if "--unix" in arguments:
        where = ()
    elif "--host" in arguments:
        where = ("--port", "0")
    async with running(
        "serve", f"chat:{application}", *where, *arguments, cwd=directory
    ) as command:
        urls = await command.urls()
        yield command, urls[0] if urls else ""


def run(*arguments: str) -> int:
    """The exit code, from this process."""
    try:
        return main(arguments)
    except SystemExit as exc:  # argparse
        assert isinstance(exc.code, int)
        return exc.code
