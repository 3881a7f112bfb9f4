"""The process's own input and output: which of them are terminals, writing, and tidying up."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import trio

from .exits import CommandFailed

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2


def is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:  # pragma: no cover - the descriptor is closed, which isatty says on Windows
        return False


def takes_colour(descriptor: int) -> bool:
    """Whether to use colours there: see no-color.org."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return is_terminal(descriptor) and not plain


def write_all(descriptor: int, text: str) -> None:
    """Write text, as far as the encoding of the standard output allows. This may block.

    Not by way of `sys.stdout`: a thread that is abandoned while it writes would hold its lock, and
    Python needs that lock to exit.

    Raises:
        BrokenPipeError: nobody reads it any more.
        CommandFailed: it cannot be written.
    """
    encoding = sys.stdout.encoding
    data = memoryview(text.encode(encoding, "backslashreplace"))
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # another program made it so, and it is ours as well
            select.select([], [descriptor], [])
        except BrokenPipeError:
            raise
        except OSError as exc:  # a full disk, for example
            raise CommandFailed(f"cannot write the output: {exc.strerror}") from None


def print_all(text: str) -> None:
    """Print text, and see to it that it is out.

    Raises:
        CommandFailed: it cannot be written.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as exc:  # a full disk, or nobody reads it
        # Python flushes sys.stdout at exit, and would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise CommandFailed(f"cannot write the output: {exc.strerror}") from None


@contextmanager
def restored_terminal() -> Generator[None, None, None]:
    """Put the terminal's settings back at the end, whoever has changed them."""
    if sys.platform == "win32" or not is_terminal(STDIN):
        yield
        return
    import termios  # noqa: PLC0415 - Windows has none

    before = termios.tcgetattr(STDIN)
    try:
        yield
    finally:
        # At once: draining would wait for a terminal whose output is stopped (Ctrl-S).
        termios.tcsetattr(STDIN, termios.TCSANOW, before)


def pass_on_every_key() -> None:
    """Have the terminal keep and show no line, so that all that is typed is for the next prompt.

    In its usual mode, it would swallow a Ctrl-D between two prompts. Ctrl-C still is a signal.
    """
    if sys.platform != "win32":  # pragma: no branch - Windows
        import termios  # noqa: PLC0415 - Windows has none
        import tty  # noqa: PLC0415

        tty.setcbreak(STDIN, termios.TCSANOW)


async def wait_until_nobody_reads(descriptor: int) -> None:
    """Return when the reader of a pipe has ended. Where that cannot be told, wait for ever."""
    if sys.platform == "linux" and stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        # Nothing can be read at this end, but Linux wakes whoever waits for that when the other end
        # is closed.
        await trio.lowlevel.wait_readable(descriptor)
    else:
        await trio.sleep_forever()
