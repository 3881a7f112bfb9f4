"""Where lines are typed and text is shown, without any line editing: a pipe, or a plain terminal.

`prompting` and `line_editing` have the consoles with line editing. Each of them waits in a thread
that can be abandoned, and shows text above the line that is being typed.
"""

from __future__ import annotations

import codecs
import os
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import trio

from .terminal import STDIN, write_all

PROMPT: Final = "> "

_READ_SIZE: Final = 65536

#: How many seconds to wait at the end for text that is still being written.
_LAST_WRITE: Final = 1.0


class Console:
    """Lines from the standard input, and text to the standard output or error.

    One task at a time reads, and any number of tasks write.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._lines: list[str] = []  # the next one is the last
        self._pieces: list[str] = []  # of a line whose end has not been read
        self._at_end = False
        self._writing = threading.Lock()

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """Use the terminal, for as long as the block goes on."""
        try:
            yield
        finally:
            # What is written by a thread that was abandoned should not end in the middle. But the
            # reader of a pipe may have stopped for good.
            if self._writing.acquire(timeout=_LAST_WRITE):
                self._writing.release()

    async def read_line(self) -> str | None:
        """The next line, without its end; `None` at the end of the input.

        When it is cancelled, what is typed next may be lost: nobody wants another line then.
        """
        while not self._lines:
            if self._at_end:
                return None
            # A thread that waits in sys.stdin would hold its lock, and Python needs that lock to
            # exit. A thread that waits in os.read can be abandoned; it ends with the process.
            data = await trio.to_thread.run_sync(read_some, abandon_on_cancel=True)
            self._take(data)
        return self._lines.pop()

    def _take(self, data: bytes) -> None:
        self._at_end = not data
        first, *others = self._decode(data, final=self._at_end).split("\n")
        self._pieces.append(first)
        if others or self._at_end:
            whole = ["".join(self._pieces), *others]
            rest = whole.pop() if not self._at_end or not whole[-1] else ""
            self._pieces = [rest]
            self._lines = [line.removesuffix("\r") for line in reversed(whole)]

    async def write(self, descriptor: int, text: str) -> None:
        """Write text. When this is cancelled, a part of it may have been written.

        Raises:
            BrokenPipeError: nobody reads it any more.
        """
        await trio.to_thread.run_sync(self.write_now, descriptor, text, abandon_on_cancel=True)

    def write_now(self, descriptor: int, text: str) -> None:
        """The same, in the thread that calls it."""
        with self._writing:  # after the text of a thread that was abandoned
            write_all(descriptor, text)


def read_some() -> bytes:
    """Some bytes of the standard input, as soon as there are any; none at its end."""
    try:
        return os.read(STDIN, _READ_SIZE)
    except OSError:  # what a terminal says that has gone away
        return b""
