"""``trio-ws connect``: its arguments, and how they become the options of a client."""

from __future__ import annotations

import argparse
import os
import ssl
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, cast

import trio

from .._errors import HandshakeError, InvalidURL
from .._http.url import parse_url
from .._keywords import ClientKeywords
from .._options import ClientOptions
from .._reasons import reason_of
from .arguments import Subcommand, check_options, header_field, path_name, seconds
from .exits import FAILED, USAGE, CommandFailed
from .talking import STDIN, talk


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="ws://… or wss://…")
    parser.add_argument(
        "--wait",
        type=seconds,
        metavar="SECONDS",
        help="how many seconds to listen after the end of the input, inf for no limit (default: 1, "
        "or 0 if the input is a terminal)",
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        type=header_field,
        metavar="'NAME: VALUE'",
        help="an additional header, several if repeated",
    )
    parser.add_argument("--origin", help="the Origin header")
    parser.add_argument(
        "--subprotocol",
        action="append",
        default=[],
        metavar="NAME",
        help="a subprotocol to offer, several if repeated",
    )
    parser.add_argument("--unix", type=path_name, metavar="PATH", help="connect to a Unix socket")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--cafile", type=path_name, metavar="FILE", help="trust these authorities, not the system's"
    )
    trust.add_argument(
        "--insecure", action="store_true", help="do not check the server's certificate"
    )


def _run(parsed: argparse.Namespace, arguments: Sequence[str]) -> int:
    options: dict[str, Any] = {
        "headers": parsed.header,
        "origin": parsed.origin,
        "subprotocols": parsed.subprotocol,
        "path": parsed.unix,
        "ssl_context": _client_context(parsed.cafile, insecure=parsed.insecure),
    }
    check_options(parsed, ClientOptions, options)
    wait = parsed.wait
    if wait is None:
        wait = 0.0 if os.isatty(STDIN) else 1.0
    try:
        if options["ssl_context"] is not None and not parse_url(parsed.url).secure:
            parsed.parser.error("--cafile and --insecure are for wss:// URLs")
        return trio.run(partial(talk, parsed.url, wait, **cast("ClientKeywords", options)))
    except HandshakeError as exc:
        raise CommandFailed(str(exc), USAGE if isinstance(exc, InvalidURL) else FAILED) from None


def _client_context(cafile: str | None, *, insecure: bool) -> ssl.SSLContext | None:
    if cafile is None and not insecure:
        return None
    try:
        context = ssl.create_default_context(cafile=cafile)
    except OSError as exc:
        raise CommandFailed(f"cannot use the authorities in {cafile}: {reason_of(exc)}") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


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
