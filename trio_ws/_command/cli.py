"""The command line: ``trio-ws serve`` and ``trio-ws connect``.

This module owns the arguments, the log, and how a failure is shown. The modules beside it do the
work.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import ssl
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import trio

from .._arguments import check_host
from .._errors import HandshakeError, InvalidURL
from .._http.url import parse_url
from .._keywords import ClientKeywords, ListenerKeywords
from .._nursery import leaf_exceptions
from .._options import ClientOptions, ListenerOptions
from .._reasons import reason_of
from .._redaction import without_secrets
from .._server.listening import CAN_REUSE_PORT, HAS_UNIX, port_of
from .._version import __version__
from .application import load_application
from .exits import FAILED, INTERRUPTED, USAGE, CommandFailed
from .limits import LIMITS
from .listening import reserved_port
from .reload import reload_worker
from .serving import Service, serve_alone, serve_as_worker
from .talking import STDIN, talk
from .workers import MARGIN, START_TIMEOUT, WORKER_VARIABLE, Crew, keep_workers

LOG_LEVELS: Final = ("debug", "info", "warning", "error")

#: For `gc.set_threshold`. Ten thousand connections are a million objects, and a round of messages
#: makes and drops many more. At Python's default thresholds, the collector takes half the time. A
#: connection that is over needs no collector, because it leaves no reference cycle.
GARBAGE_THRESHOLDS: Final = (100_000, 50, 100)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. By default, the arguments are the process's."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parsed = make_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace, Sequence[str]], int] = parsed.command
    try:
        return command(parsed, arguments[1:])
    except BaseException as exc:
        # A nursery may have wrapped the error.
        leaves = leaf_exceptions(exc)
        return _failure(leaves[0] if len(leaves) == 1 else exc)


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


# ---------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-ws", description="WebSocket servers and clients, on trio.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"trio-ws {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(
        commands.add_parser("serve", help="run a server, in one process or several", **_SERVE)
    )
    _add_connect(commands.add_parser("connect", help="talk to a server, line by line", **_CONNECT))
    return parser


_SERVE: Final[dict[str, Any]] = {
    "allow_abbrev": False,
    "description": (
        "Serve WebSockets until SIGINT (Ctrl-C) or SIGTERM asks to stop. Then every client is sent "
        "1001, and handlers get the grace period. A second signal ends the process at once."
    ),
    "epilog": (
        "Exit codes: 0 stopped gracefully, 1 could not start or failed, 2 wrong command line, "
        "130 and 143 stopped at once by a second SIGINT or SIGTERM."
    ),
}

_CONNECT: Final[dict[str, Any]] = {
    "allow_abbrev": False,
    "description": (
        "Send each line of the standard input as a text message, and print what arrives. The end "
        "of the input (Ctrl-D) closes the connection."
    ),
    "epilog": (
        "Exit codes: 0 closed normally (1000, 1001, or no code), 1 could not connect or lost the "
        "connection, 2 wrong command line, 130 Ctrl-C."
    ),
}


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_serve, parser=parser)
    parser.add_argument(
        "application",
        metavar="module:attribute",
        help="a handler, a Router, or a function without parameters that is decorated with "
        "contextlib.asynccontextmanager and yields one; modules in the current directory are found",
    )

    where = parser.add_argument_group("where to listen")
    where.add_argument(
        "--host",
        action="append",
        type=_host,
        help="a name or an address, several if repeated; 0.0.0.0 and :: stand for every interface "
        "(default: localhost)",
    )
    where.add_argument("--port", type=_port, help="0 for any free port (default: 8765)")
    where.add_argument("--unix", type=_path, metavar="PATH", help="a Unix socket instead of a port")
    where.add_argument("--certfile", type=_path, metavar="FILE", help="certificate chain, for TLS")
    where.add_argument(
        "--keyfile", type=_path, metavar="FILE", help="its private key, if that is in another file"
    )

    how = parser.add_argument_group("how to run")
    how.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="processes (default: 1)"
    )
    how.add_argument(
        "--start-timeout",
        type=_timeout,
        default=START_TIMEOUT,
        metavar="N",
        help="how many seconds a worker may take to be ready, before it is stopped and counts as "
        f"failed; inf for no limit (default: {START_TIMEOUT:g})",
    )
    how.add_argument(
        "--reload",
        action="store_true",
        help="restart when a .py file under the current directory changes; for development",
    )
    how.add_argument("--log-level", choices=LOG_LEVELS, default="info", help="(default: info)")
    how.add_argument("--access-log", action="store_true", help="log a line when a connection ends")
    how.add_argument("--as-worker", type=_link, help=argparse.SUPPRESS)

    limits = parser.add_argument_group(
        "limits", "Times are in seconds, sizes in bytes, and inf is no limit."
    )
    limits.add_argument(
        "--origin",
        action="append",
        help="an accepted Origin header, several if repeated; 'none' accepts requests without one "
        "(default: every origin)",
    )
    limits.add_argument("--no-compression", action="store_true", help="no permessage-deflate")
    for name, what in LIMITS.items():
        default = str(getattr(ListenerOptions, name)).removesuffix(".0")
        limits.add_argument(
            "--" + name.replace("_", "-"),
            type=_number,
            default=argparse.SUPPRESS,
            metavar="N",
            help=f"{what} (default: {default})".replace("%", "%%"),
        )


def _add_connect(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_connect, parser=parser)
    parser.add_argument("url", metavar="URL", help="ws://… or wss://…")
    parser.add_argument(
        "--wait",
        type=_seconds,
        metavar="SECONDS",
        help="how many seconds to listen after the end of the input, inf for no limit (default: 1, "
        "or 0 if the input is a terminal)",
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        type=_header,
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
    parser.add_argument("--unix", type=_path, metavar="PATH", help="connect to a Unix socket")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--cafile", type=_path, metavar="FILE", help="trust these authorities, not the system's"
    )
    trust.add_argument(
        "--insecure", action="store_true", help="do not check the server's certificate"
    )


# The functions below check what was typed. They raise argparse.ArgumentTypeError, and nothing else.


def _port(text: str) -> int:
    return _whole(text, 0, 65535)


def _host(text: str) -> str:
    try:
        check_host(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return text


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def _count(text: str) -> int:
    return _whole(text, 1, 1000)


def _whole(text: str, least: int, most: int) -> int:
    # A float first: Python makes no int from more than 4300 digits.
    number = float(text) if text.isdecimal() else inf
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(number)


def _seconds(text: str) -> float:
    number = _number(text)
    if not number >= 0:  # written so that NaN fails it
        raise argparse.ArgumentTypeError(f"{text!r} is not a time")
    return number


def _timeout(text: str) -> float:
    seconds = _seconds(text)
    if not seconds:
        raise argparse.ArgumentTypeError("0 seconds are too short for anything")
    return seconds


def _number(text: str) -> float:
    """An int if it is a whole number, so that error texts show it as it was typed."""
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{without_secrets(text)!r} has no colon")
    return name.strip(), value.strip()


def _link(text: str) -> tuple[int, int]:
    """The argument that a supervisor gives a worker: a descriptor, and the port."""
    descriptor, _, port = text.partition(":")
    return int(descriptor), int(port)


# ---------------------------------------------------------------------------
# serve
# ---------------------------------------------------------------------------


def _serve(parsed: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Serve as `parsed` says. A supervisor passes `arguments` on to its workers unchanged."""
    _check_combinations(parsed)
    service = _service(parsed)
    several = parsed.reload or parsed.workers > 1
    if several and parsed.as_worker is None:
        _configure_logging(parsed)
        return trio.run(_supervise, parsed, service, arguments)

    # An application may set the thresholds, or configure logging, when it is imported. Its choice
    # holds: our thresholds are set before that, and our logging is configured after it, if at all.
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    application = load_application(parsed.application)
    _configure_logging(parsed)
    if parsed.as_worker is None:
        return trio.run(serve_alone, service, application)
    return trio.run(serve_as_worker, service, application, parsed.as_worker[0])


def _check_combinations(parsed: argparse.Namespace) -> None:
    several = parsed.workers > 1
    wrong = {
        "--reload runs one process: leave --workers out": parsed.reload and several,
        "--workers share a port, and not a Unix socket: leave one out": parsed.unix and several,
        "--unix takes the place of --host and --port: leave one out": (
            parsed.unix and (parsed.host or parsed.port is not None)
        ),
        "--keyfile needs --certfile": parsed.keyfile and not parsed.certfile,
        "--workers and --reload need SO_REUSEPORT, which this system does not have": (
            (several or parsed.reload) and not CAN_REUSE_PORT
        ),
        "--unix needs Unix sockets, which this system does not have": (
            parsed.unix and not HAS_UNIX
        ),
    }
    for message, applies in wrong.items():
        if applies:
            parsed.parser.error(message)


def _service(parsed: argparse.Namespace) -> Service:
    port = 8765 if parsed.port is None else parsed.port
    if parsed.as_worker is not None:
        port = parsed.as_worker[1]
    return Service(
        name=parsed.application,
        hosts=parsed.host or ["localhost"],
        port=port,
        unix=parsed.unix,
        reuse_port=parsed.as_worker is not None,
        ssl_context=_server_context(parsed.certfile, parsed.keyfile) if parsed.certfile else None,
        options=_listener_options(parsed),
    )


def _listener_options(parsed: argparse.Namespace) -> ListenerKeywords:
    given = vars(parsed)
    options: dict[str, Any] = {name: given[name] for name in LIMITS if name in given}
    if parsed.origin is not None:
        options["origins"] = [None if origin == "none" else origin for origin in parsed.origin]
    if parsed.no_compression:
        options["compression"] = None
    _check(parsed, ListenerOptions, options)
    return cast("ListenerKeywords", options)


def _check(parsed: argparse.Namespace, kind: type, options: dict[str, Any]) -> None:
    try:
        kind(**options)
    except ValueError as exc:
        parsed.parser.error(str(exc))


def _server_context(certfile: str, keyfile: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile)
    except OSError as exc:  # ssl.SSLError is one
        files = certfile if keyfile is None else f"{certfile} with {keyfile}"
        raise CommandFailed(f"cannot use the certificate {files}: {reason_of(exc)}") from None
    return context


async def _supervise(parsed: argparse.Namespace, service: Service, arguments: Sequence[str]) -> int:
    limits = ListenerOptions(**service.options)
    patience = limits.grace_period + limits.close_timeout + MARGIN
    make_crew = partial(
        Crew,
        arguments,
        patience=patience,
        # With --reload a person waits, perhaps in a debugger.
        start_timeout=inf if parsed.reload else parsed.start_timeout,
        foreground=parsed.reload,
    )
    if service.unix is not None:
        return await make_crew(0).run(reload_worker(Path.cwd(), service.where([])))
    async with reserved_port(service.hosts, service.port) as sockets:
        where = service.where(sockets)
        crew = make_crew(port_of(sockets))
        if parsed.reload:
            return await crew.run(reload_worker(Path.cwd(), where))
        return await crew.run(keep_workers(parsed.workers, where), [signal.SIGHUP])


def _configure_logging(parsed: argparse.Namespace) -> None:
    """Write the log to the standard error, unless the application has configured logging."""
    if logging.getLogger().hasHandlers():
        return
    level = logging.getLevelNamesMapping()[parsed.log_level.upper()]
    who = ""
    if parsed.as_worker is not None and not parsed.reload:
        who = f"[worker {os.environ[WORKER_VARIABLE]}] "
    logging.basicConfig(level=level, format=f"%(asctime)s %(levelname)s {who}%(message)s")
    logging.getLogger("trio_ws.serve").setLevel(level)
    # The access log consists of the lines that connections log at INFO.
    of_connections = min(level, logging.INFO) if parsed.access_log else max(level, logging.WARNING)
    logging.getLogger("trio_ws").setLevel(level if level == logging.DEBUG else of_connections)


# ---------------------------------------------------------------------------
# connect
# ---------------------------------------------------------------------------


def _connect(parsed: argparse.Namespace, arguments: Sequence[str]) -> int:
    options: dict[str, Any] = {
        "headers": parsed.header,
        "origin": parsed.origin,
        "subprotocols": parsed.subprotocol,
        "path": parsed.unix,
        "ssl_context": _client_context(parsed.cafile, insecure=parsed.insecure),
    }
    _check(parsed, ClientOptions, options)
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
