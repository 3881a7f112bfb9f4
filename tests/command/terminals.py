"""A terminal to run the command line in: a pseudo-terminal, and an emulator that draws it."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyte
import trio

from tests.helpers import kill

#: A module that stands in the way of the real one.
BLOCKED = 'raise ImportError("blocked")'


class Terminal:
    """What a person sees of a process, and types.

    Attributes:
        process: the process that runs in it.
        settings: those of the terminal before the process was started.
        raw: all bytes that the process has written.
    """

    process: trio.Process

    def __init__(self, ours: int, columns: int, rows: int) -> None:
        self._ours = ours
        self._stream = trio.lowlevel.FdStream(ours)
        self._screen = pyte.HistoryScreen(columns, rows, history=1000, ratio=0.5)
        self._emulator = pyte.ByteStream(self._screen)
        self._is_ended = trio.Event()
        self._changed = trio.Event()
        self.settings = termios.tcgetattr(ours)
        self.raw = b""
        self.resize(columns, rows)

    async def draw(self) -> None:
        """Draw what the process writes, until it has ended."""
        try:
            async for data in self._stream:
                self.raw += data
                self._emulator.feed(bytes(data))
                self._tell_change()
        except trio.BrokenResourceError:  # EIO: no process has it open any more
            pass
        self._is_ended.set()
        self._tell_change()

    def _tell_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def rows(self) -> list[str]:
        """The rows of the screen, and those that have left it at the top."""
        top = ["".join(row[x].data for x in range(self._screen.columns)) for row in self._above()]
        rows = [row.rstrip() for row in [*top, *self._screen.display]]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def _above(self) -> list[Any]:
        return list(self._screen.history.top)

    @property
    def cursor(self) -> int:
        """The column of the cursor."""
        return self._screen.cursor.x

    async def until(self, seen: Callable[[list[str]], bool]) -> list[str]:
        """Wait until the screen is like this. Returns its rows."""
        while not seen(self.rows()):
            assert not self._is_ended.is_set(), "\n".join(self.rows())
            try:
                with trio.fail_after(20):
                    await self._changed.wait()
            except trio.TooSlowError:
                raise AssertionError("\n".join(self.rows())) from None
        return self.rows()

    async def until_row(self, *wanted: str) -> list[str]:
        """Wait until these are rows of the screen, in this order, with any others in between."""

        def are_there(rows: list[str]) -> bool:
            rest = iter(rows)
            return all(any(row == one for row in rest) for one in wanted)

        return await self.until(are_there)

    async def until_last(self, wanted: str) -> list[str]:
        """Wait until this is the last row, the one that is typed in."""
        return await self.until(lambda rows: bool(rows) and rows[-1] == wanted)

    async def type(self, text: str) -> None:
        await self._stream.send_all(text.encode())

    def resize(self, columns: int, rows: int) -> None:
        self._screen.resize(rows, columns)
        # The kernel tells the process by SIGWINCH.
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)

    async def status(self) -> int:
        """Its exit code, when it has ended and all it wrote is drawn."""
        status = await self.process.wait()
        await self._is_ended.wait()
        return status

    def is_as_before(self) -> bool:
        """Whether the terminal has the settings that it had before."""
        return termios.tcgetattr(self._ours) == self.settings


@asynccontextmanager
async def in_terminal(
    *arguments: str,
    state: Path,
    blocked: tuple[str, ...],
    **variables: str,
) -> AsyncGenerator[Terminal, None]:
    """``trio-ws`` in a terminal of its own; killed at the end if it still runs.

    Args:
        arguments: of the command line.
        state: the folder for the history, and for modules that stand in the way.
        blocked: modules that cannot be imported.
        variables: of the environment.
    """
    path = state / "blocked"
    path.mkdir(exist_ok=True)
    for module in blocked:
        (path / f"{module}.py").write_text(BLOCKED, "utf-8")
    environment = {
        **{name: value for name, value in os.environ.items() if name != "NO_COLOR"},
        "TERM": "xterm",
        "XDG_STATE_HOME": str(state),
        "PYTHONWARNINGS": "default",
        **({"PYTHONPATH": str(path)} if blocked else {}),
        **variables,
    }
    ours, theirs = os.openpty()
    terminal = Terminal(ours, 80, 24)
    async with trio.open_nursery() as nursery:
        terminal.process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "trio_ws", *arguments],
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=lambda: os.login_tty(theirs),  # so that Ctrl-C is a signal
        )
        os.close(theirs)
        nursery.start_soon(terminal.draw)
        try:
            yield terminal
        finally:
            await kill(terminal.process)
            nursery.cancel_scope.cancel()
    await terminal.aclose()
