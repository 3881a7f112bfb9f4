"""A prompt by Python's `readline`, which edits a line and remembers the earlier ones."""

from __future__ import annotations

import os
import readline
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import trio

from .above import above_cursor
from .console import PROMPT, Console
from .history import History
from .terminal import STDERR, STDOUT, is_terminal, write_all

#: To the beginning of the row, and erase it.
_ERASE: Final = "\r\x1b[K"


class ReadlineConsole(Console):
    """A terminal in which `input` asks for a line, in a thread."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self._history = history
        self._is_asking = False
        # Then the line takes one row, however long it is, and text can be shown above it.
        readline.parse_and_bind("set horizontal-scroll-mode on")
        # A thread that is abandoned would leave the terminal in this mode.
        readline.parse_and_bind("set enable-bracketed-paste off")
        for line in history.lines:
            readline.add_history(line)

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        async with super().opened():
            try:
                yield
            finally:
                if self._is_asking:
                    write_all(STDOUT, _ERASE)

    async def read_line(self) -> str | None:
        try:
            line = await trio.to_thread.run_sync(self._ask, abandon_on_cancel=True)
        except EOFError:  # Ctrl-D, which leaves the cursor behind the prompt
            await self.write(STDOUT, "\n")
            return None
        # Bytes that are not UTF-8 may come as surrogates, which no message can hold.
        line = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if line:
            self._history.append(line)
        return line

    def _ask(self) -> str:
        self._is_asking = True
        try:
            return input(PROMPT)
        finally:
            self._is_asking = False

    def write_now(self, descriptor: int, text: str) -> None:
        if not self._is_asking or (descriptor == STDERR and not is_terminal(STDERR)):
            super().write_now(descriptor, text)
            return
        # That thread is inside readline, which no other thread may call.
        columns, rows = os.get_terminal_size(STDOUT)
        with self._writing:
            for piece in above_cursor(text, columns, rows):
                write_all(descriptor, piece)
