"""``trio-ws connect``: its arguments, and what it makes of a failure to connect."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from .._errors import HandshakeError
from .arguments import Subcommand, seconds
from .client_options import add_client_options, client_options
from .exits import CommandFailed
from .talking import STDIN, talk


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_client_options(parser)
    parser.add_argument(
        "--wait",
        type=seconds,
        metavar="SECONDS",
        help="how many seconds to listen after the end of the input, inf for no limit (default: 1, "
        "or 0 if the input is a terminal)",
    )


def _run(parsed: argparse.Namespace, arguments: Sequence[str]) -> int:
    options = client_options(parsed)
    wait = parsed.wait
    if wait is None:
        wait = 0.0 if os.isatty(STDIN) else 1.0
    try:
        return trio.run(partial(talk, parsed.url, wait, **options))
    except HandshakeError as exc:
        raise CommandFailed(str(exc)) from None


CONNECT: Final = Subcommand(
    name="connect",
    summary="talk to a server, line by line",
    description=(
        "Send each line of the standard input as a text message, and print what arrives. The end "
        "of the input (Ctrl-D) closes the connection."
    ),
    epilog=(
        "Exit codes: 0 closed normally (1000, 1001, or no code), 1 could not connect or lost the "
        "connection, 2 wrong command line, 130 Ctrl-C."
    ),
    add_arguments=_add_arguments,
    run=_run,
)
