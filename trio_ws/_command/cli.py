"""The command line: which commands ``trio-ws`` has, and how a failure is shown.

Each command has a file of its name, with its arguments. The other modules do the work.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, NoReturn

import trio

from .._nursery import leaf_exceptions
from .._version import __version__
from .bench import BENCH
from .connect import CONNECT
from .exits import FAILED, INTERRUPTED, USAGE, CommandFailed
from .listen import LISTEN
from .serve import SERVE
from .terminal import STDERR, STDIN, STDOUT

#: In the order in which the help shows them.
COMMANDS: Final = (SERVE, CONNECT, LISTEN, BENCH)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. By default, the arguments are the process's."""
    _open_closed_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    parsed, unknown = make_parser().parse_known_args(arguments)
    if unknown:  # said by the command's own parser, whose --help lists what there is
        parsed.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    command: Callable[[argparse.Namespace, Sequence[str]], int] = parsed.command
    try:
        return command(parsed, arguments[1:])
    except BaseException as exc:
        return _failure(_the_one_that_counts(exc))


def _open_closed_streams() -> None:
    """Put the null device where a standard stream is closed (``>&-``).

    Otherwise the next file or socket that is opened would be taken for it.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
            pass
        os.close(descriptor)
        sys.stdin = sys.stdin or os.fdopen(STDIN)
        sys.stdout = sys.stdout or os.fdopen(STDOUT, "w")
        sys.stderr = sys.stderr or os.fdopen(STDERR, "w")


class _Parser(argparse.ArgumentParser):
    """argparse's, which says what is wrong in one line, and not below twelve lines of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message} ({self.prog} --help tells more)\n")


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="trio-ws", description="WebSocket servers and clients, on trio.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"trio-ws {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=command.description,
            epilog=command.epilog,
            allow_abbrev=False,
        )
        subparser.set_defaults(command=command.run, parser=subparser)
        command.add_arguments(subparser)
    return parser


def _the_one_that_counts(exc: BaseException) -> BaseException:
    """The error that a nursery may have wrapped."""
    leaves = leaf_exceptions(exc)
    # Each task that writes finds a broken pipe, and Ctrl-C may end the reader of the pipe as well.
    # Where both come at once, tasks that the one has cancelled are beside the other.
    lesser = (BrokenPipeError, trio.Cancelled)
    others = [leaf for leaf in leaves if not isinstance(leaf, lesser)] or leaves[:1]
    return others[0] if len(others) == 1 else exc


def _failure(exc: BaseException) -> int:
    """Show the error in one line, and return the exit code. An unexpected error is raised again."""
    if isinstance(exc, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(exc, BrokenPipeError):  # the program that reads our output has ended
        # Python flushes sys.stdout at exit, and would complain of the pipe once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if not isinstance(exc, CommandFailed):
        raise exc
    if exc.__cause__ is not None:
        _show_users_error(exc.__cause__)
    sys.stderr.write(f"trio-ws: {exc}\n")
    return exc.status


def _show_users_error(exc: BaseException) -> None:
    """Print the traceback, from the first line in the user's code."""
    rest = exc.__traceback__
    while rest is not None and _is_ours(rest):
        rest = rest.tb_next
    traceback.print_exception(exc.with_traceback(rest))


def _is_ours(entry: TracebackType) -> bool:
    module = str(entry.tb_frame.f_globals.get("__name__"))
    return module.partition(".")[0] in ("trio_ws", "trio", "importlib", "contextlib")
