"""``trio-ws connect``: its arguments, and how they become a conversation."""

from __future__ import annotations

import argparse
import re
import ssl
import warnings
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import Final

import trio

from .._errors import HandshakeError
from .arguments import Subcommand, seconds, timeout, whole_number
from .client_options import add_client_options, client_options
from .consoles import make_console
from .exits import CommandFailed
from .formats import Format, Records, Text
from .history import history_file
from .talking import Plan, talk
from .terminal import STDIN, STDOUT, is_terminal, takes_colour

#: How many seconds `--expect` waits, if the user does not say. A smoke test should not hang.
_EXPECT_TIMEOUT: Final = 10.0

_TRUST: Final = "; --cafile FILE trusts an authority of your own, and --insecure anybody"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_client_options(parser)

    what = parser.add_argument_group("the conversation")
    what.add_argument(
        "--wait",
        type=seconds,
        metavar="SECONDS",
        help="how many seconds to listen after the end of the input, inf for no limit (default: 1; "
        "0 if the input is a terminal; inf with --expect or --count)",
    )
    what.add_argument(
        "--expect",
        type=pattern,
        metavar="REGEX",
        help="end when a text message has this in it; without such a message, exit with 3",
    )
    what.add_argument(
        "--count",
        type=message_count,
        metavar="N",
        help="end after N messages from the server; if fewer come, exit with 3",
    )
    what.add_argument(
        "--timeout",
        type=timeout,
        metavar="SECONDS",
        help="how long it may take until --expect or --count is met, connecting included "
        "(default: 10 with --expect, else no limit)",
    )
    what.add_argument(
        "--ping",
        type=timeout,
        metavar="SECONDS",
        default=inf,
        help="send a ping every so many seconds, and show how long the pong takes",
    )
    what.add_argument(
        "--slash",
        action="store_true",
        help="take lines that begin with a slash for commands, as in a terminal",
    )
    what.add_argument(
        "--reconnect",
        action="store_true",
        help="connect again whenever the connection is lost, unless that is hopeless",
    )

    shown = parser.add_argument_group("what is shown and kept")
    how = shown.add_mutually_exclusive_group()
    how.add_argument(
        "--jsonl",
        action="store_true",
        help="write a line of JSON for each event, for programs to read",
    )
    how.add_argument("--json", action="store_true", help="lay out messages that are JSON")
    shown.add_argument("--times", action="store_true", help="show the time of each message")
    shown.add_argument(
        "--no-history",
        action="store_true",
        help="do not keep what is typed, and do not offer what was kept",
    )


def pattern(text: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what may mean something else one day
            return re.compile(text)
    except (re.error, ValueError, OverflowError, RecursionError) as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {exc}") from None


def message_count(text: str) -> int:
    return whole_number(text, 1, 10**9)


def _run(parsed: argparse.Namespace, arguments: Sequence[str]) -> int:
    if parsed.timeout is not None and parsed.expect is None and parsed.count is None:
        parsed.parser.error("--timeout is for --expect and --count; --wait is for the others")
    options = client_options(parsed)
    console = make_console(None if parsed.no_history else history_file())
    try:
        return trio.run(partial(talk, _plan(parsed), console, _format(parsed), **options))
    except HandshakeError as exc:
        is_distrust = isinstance(exc.__cause__, ssl.SSLCertVerificationError)
        raise CommandFailed(f"{exc}{_TRUST if is_distrust else ''}") from None


def _plan(parsed: argparse.Namespace) -> Plan:
    at_terminal = is_terminal(STDIN)
    wait = 0.0 if at_terminal else 1.0
    if parsed.expect is not None or parsed.count is not None:
        wait = inf
    limit = inf if parsed.expect is None else _EXPECT_TIMEOUT
    return Plan(
        url=parsed.url,
        commands=at_terminal or parsed.slash,
        wait=wait if parsed.wait is None else parsed.wait,
        expect=parsed.expect,
        count=inf if parsed.count is None else parsed.count,
        timeout=limit if parsed.timeout is None else parsed.timeout,
        ping=parsed.ping,
        reconnect=parsed.reconnect,
    )


def _format(parsed: argparse.Namespace) -> Format:
    if parsed.jsonl:
        return Records()
    return Text(json=parsed.json, times=parsed.times, colour=takes_colour(STDOUT))


CONNECT: Final = Subcommand(
    name="connect",
    summary="talk to a server, in the terminal or from a script",
    description=(
        "Send each line of the standard input as a text message, and print what arrives. The end "
        "of the input (Ctrl-D) closes the connection. In a terminal, lines can be edited, and "
        "those that begin with a slash are commands: /help lists them."
    ),
    epilog=(
        "Exit codes: 0 closed in good order (1000, 1001, no code, or any code that you gave), or "
        "--expect or --count was met; 1 could not connect, lost the connection, or nobody reads "
        "the output any more; 2 wrong command line; 3 --expect or --count was not met; 130 Ctrl-C; "
        "143 SIGTERM."
    ),
    add_arguments=_add_arguments,
    run=_run,
)
