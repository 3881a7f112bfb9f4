"""``trio-ws listen``: its arguments, and how they become a service."""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from .arguments import Subcommand, host_name, path_name, port_number
from .certificates import load_certificate
from .console import Console
from .formats import Text
from .hosting import Answer, host
from .serving import Service
from .terminal import STDOUT, takes_colour


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("where to listen")
    where.add_argument(
        "--host",
        action="append",
        type=host_name,
        help="a name or an address, several if repeated; 0.0.0.0 and :: stand for every interface "
        "(default: localhost)",
    )
    where.add_argument("--port", type=port_number, default=0, help="(default: any free port)")
    where.add_argument(
        "--certfile", type=path_name, metavar="FILE", help="certificate chain, for TLS"
    )
    where.add_argument(
        "--keyfile",
        type=path_name,
        metavar="FILE",
        help="its private key, if that is in another file",
    )

    what = parser.add_argument_group("what clients get").add_mutually_exclusive_group()
    for answer, told in {
        Answer.ECHO: "send each message back (the default)",
        Answer.BROADCAST: "send each message to all other clients",
        Answer.PRINT: "send nothing",
    }.items():
        what.add_argument(
            f"--{answer.value}",
            dest="answer",
            action="store_const",
            const=answer,
            default=Answer.ECHO,
            help=told,
        )
    parser.add_argument(
        "--subprotocol",
        action="append",
        default=[],
        metavar="NAME",
        help="a subprotocol to accept, several if repeated",
    )

    shown = parser.add_argument_group("what is shown")
    shown.add_argument("--json", action="store_true", help="lay out messages that are JSON")
    shown.add_argument("--times", action="store_true", help="show the time of each message")


def _run(parsed: argparse.Namespace, arguments: Sequence[str]) -> int:
    if parsed.keyfile and not parsed.certfile:
        parsed.parser.error("--keyfile needs --certfile")
    context = None
    if parsed.certfile:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        load_certificate(context, parsed.certfile, parsed.keyfile)
    service = Service(
        name="listen",
        hosts=parsed.host or ["localhost"],
        port=parsed.port,
        unix=None,
        ssl_context=context,
        options={"subprotocols": parsed.subprotocol},
    )
    form = Text(json=parsed.json, times=parsed.times, colour=takes_colour(STDOUT))
    return trio.run(partial(host, service, parsed.answer, Console(), form))


LISTEN: Final = Subcommand(
    name="listen",
    summary="a server to try clients with",
    description=(
        "Print what clients send, each line with the client's number, and answer as asked. Ctrl-C "
        "ends it in good order, and a second one at once."
    ),
    epilog=(
        "Exit codes: 0 stopped by SIGINT (Ctrl-C) or SIGTERM, 1 could not start, or nobody reads "
        "the output any more, 2 wrong command line, 130 and 143 stopped at once by a second signal."
    ),
    add_arguments=_add_arguments,
    run=_run,
)
