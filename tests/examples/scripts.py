"""The scripts of the examples as processes: what they print, and how they end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.helpers import kill

EXAMPLES = Path(__file__).parents[2] / "examples"

#: How many seconds one test may take on a busy machine.
PATIENCE = 60


def command(script: str, *arguments: str) -> list[str]:
    # Unbuffered, and with every warning shown: in what a script prints, none may appear.
    python = [sys.executable, "-u", "-X", "dev"]
    return [*python, str(EXAMPLES / script), *arguments]


class Script:
    """A running script: what it prints, errors included, line by line."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._rest = ""

    async def read_line(self) -> str:
        assert self.process.stdout is not None
        while "\n" not in self._rest:
            data = await self.process.stdout.receive_some()
            assert data, f"it ended after {[*self.lines, self._rest]}"
            self._rest += data.decode()
        line, _, self._rest = self._rest.partition("\n")
        self.lines.append(line)
        return line

    async def interrupt(self, how: signal.Signals = signal.SIGINT) -> list[str]:
        """Press Ctrl-C; give what it still prints. It must end by itself, and in good order."""
        assert self.process.stdout is not None
        self.process.send_signal(how)
        async for data in self.process.stdout:
            self._rest += data.decode()
        assert await self.process.wait() == 0, self._rest
        rest, self._rest = self._rest, ""
        return rest.splitlines()


@asynccontextmanager
async def running(script: str, *arguments: str) -> AsyncGenerator[Script, None]:
    process = await trio.lowlevel.open_process(
        command(script, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield Script(process)
    finally:
        await kill(process)


@asynccontextmanager
async def serving(script: str, *arguments: str) -> AsyncGenerator[tuple[Script, str], None]:
    """A server on a port that the system picks, and its URL."""
    async with running(script, "--port", "0", *arguments) as server:
        line = await server.read_line()
        assert line.startswith("Serving on ws"), line
        yield server, line.split()[2]


async def output_of(script: str, *arguments: str) -> list[str]:
    """The output of a script that ends by itself."""
    result = await trio.run_process(
        command(script, *arguments), capture_stdout=True, stderr=subprocess.STDOUT, check=False
    )
    text = result.stdout.decode()
    assert result.returncode == 0, text
    return text.splitlines()
