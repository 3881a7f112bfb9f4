"""``trio-ws bench``: its arguments, and how they become a plan."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import Final

import trio

from .._options import ClientOptions
from .arguments import Subcommand, number, seconds, timeout, whole_number
from .benching.plan import NUMBER_SIZE, Mode, Plan
from .benching.running import allow_many_sockets, bench
from .client_options import add_client_options, client_options
from .serve import GARBAGE_THRESHOLDS

#: The largest message: more is no load of messages, and would have to be held for each connection.
_LARGEST: Final = 64 * 1024 * 1024

_MOST_CONNECTIONS: Final = 1_000_000


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_client_options(parser)
    load = parser.add_argument_group("the load")
    load.add_argument(
        "--connections",
        type=partial(whole_number, least=1, most=_MOST_CONNECTIONS),
        default=Plan.connections,
        metavar="N",
        help=f"how many connections to open (default: {Plan.connections})",
    )
    load.add_argument(
        "--open-at-once",
        type=partial(whole_number, least=1, most=_MOST_CONNECTIONS),
        default=Plan.open_at_once,
        metavar="N",
        help="how many of them may be in their opening handshake at a time (default: "
        f"{Plan.open_at_once})",
    )
    how = load.add_mutually_exclusive_group()
    how.add_argument(
        "--rate",
        type=_rate,
        metavar="N",
        help="messages a second on all connections together, at fixed times, whether answers come "
        "or not",
    )
    how.add_argument(
        "--in-flight",
        type=partial(whole_number, least=1, most=_MOST_CONNECTIONS),
        metavar="N",
        help="messages under way on each connection: another is sent when an answer comes "
        f"(default, without --rate: {Plan.in_flight})",
    )
    load.add_argument(
        "--size",
        type=partial(whole_number, least=NUMBER_SIZE, most=_LARGEST),
        default=Plan.size,
        metavar="BYTES",
        help=f"of a message, at least {NUMBER_SIZE} (default: {Plan.size})",
    )
    load.add_argument("--binary", action="store_true", help="send binary messages, and not text")
    what = load.add_mutually_exclusive_group()
    what.add_argument(
        "--no-reply",
        dest="mode",
        action="store_const",
        const=Mode.SEND,
        default=Mode.ECHO,
        help="expect no answers (default: each message comes back as it was); needs --rate",
    )
    what.add_argument(
        "--receive-only",
        dest="mode",
        action="store_const",
        const=Mode.RECEIVE,
        help="send nothing, and count what comes",
    )
    duration = parser.add_argument_group("how long", "Times are in seconds.")
    duration.add_argument(
        "--seconds",
        type=_duration,
        default=Plan.seconds,
        metavar="N",
        help=f"how long to measure (default: {Plan.seconds:g})",
    )
    duration.add_argument(
        "--warmup",
        type=seconds,
        default=Plan.warmup,
        metavar="N",
        help=f"how long to send before that (default: {Plan.warmup:g})",
    )
    duration.add_argument(
        "--drain",
        type=seconds,
        default=Plan.drain,
        metavar="N",
        help=f"how long to wait for answers at the end, at most (default: {Plan.drain:g})",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="report in one line of JSON, with times in seconds and sizes in bytes",
    )


def _rate(text: str) -> float:
    value = number(text)
    if not 0 < value < inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of messages a second")
    return value


def _duration(text: str) -> float:
    value = timeout(text)
    if value == inf:
        raise argparse.ArgumentTypeError("the load has to end some time; Ctrl-C ends it earlier")
    return value


def _run(parsed: argparse.Namespace, arguments: Sequence[str]) -> int:
    plan = _plan(parsed)
    options = client_options(parsed)
    options["decode_text"] = False  # they are compared as bytes
    options["max_message_size"] = max(plan.size, ClientOptions.max_message_size)
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    allow_many_sockets()
    return trio.run(partial(bench, parsed.url, plan, in_json=parsed.json, **options))


def _plan(parsed: argparse.Namespace) -> Plan:
    if parsed.mode is Mode.SEND and parsed.rate is None:
        parsed.parser.error("--no-reply needs --rate: there is no answer to send the next one at")
    if parsed.mode is not Mode.ECHO and parsed.in_flight is not None:
        parsed.parser.error("--in-flight is for servers that answer")
    if parsed.mode is Mode.RECEIVE and parsed.rate is not None:
        parsed.parser.error("--receive-only sends nothing, at no --rate")
    return Plan(
        connections=parsed.connections,
        rate=parsed.rate,
        in_flight=parsed.in_flight or Plan.in_flight,
        seconds=parsed.seconds,
        warmup=parsed.warmup,
        drain=parsed.drain,
        size=parsed.size,
        binary=parsed.binary,
        mode=parsed.mode,
        open_at_once=parsed.open_at_once,
    )


BENCH: Final = Subcommand(
    name="bench",
    summary="put load on a server, and measure its answers",
    description=(
        "Open connections, send messages, and say how many a second came back and how long they "
        "took. Latency counts from the time at which a message was due, so a server that stalls "
        "is late with all that was due meanwhile. Ctrl-C ends the run early, with its report."
    ),
    epilog=(
        "Exit codes: 0 all connections were opened and kept, 1 one was not opened or was lost, "
        "2 wrong command line, 130 Ctrl-C, 143 SIGTERM. Messages without an answer are no failure: "
        "the report counts them."
    ),
    add_arguments=_add_arguments,
    run=_run,
)
