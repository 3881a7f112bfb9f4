"""``trio-ws serve``: its arguments, and how they become a service.

This module also owns the log of the command. `serving` and `workers` do the work.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from math import inf
from pathlib import Path
from typing import Any, Final, cast, get_args

import trio

from .._keywords import ListenerKeywords
from .._options import ListenerOptions, ProxyHeader, RateLimitPolicy
from .._server.listening import HAS_UNIX
from ..metrics._metrics import open_metrics
from .application import Application, load_application
from .arguments import (
    Subcommand,
    check_options,
    finite_seconds,
    host_name,
    metrics_address,
    number,
    path_name,
    port_number,
    process_count,
    timeout,
    url_path,
)
from .boards import Boards, measured_on_board
from .certificates import HAS_SIGHUP, ServerFiles, renewed_on_sighup
from .exits import DONE
from .limits import LIMITS
from .reload import reload_worker
from .scraping import check_can_show, scraped
from .serving import Service, serve_alone, serve_as_worker
from .systemd import ServiceManager, adopt, passed_sockets
from .workers import MARGIN, START_TIMEOUT, WORKER_VARIABLE, Crew, keep_workers

#: Whether a process can inherit the sockets of the one that starts it.
CAN_PASS_SOCKETS: Final = os.name == "posix"

LOG_LEVELS: Final = ("debug", "info", "warning", "error")

#: For `gc.set_threshold`. Ten thousand connections are a million objects, and a round of messages
#: makes and drops many more. At Python's default thresholds, the collector takes half the time. A
#: connection that is over needs no collector, because it leaves no reference cycle.
GARBAGE_THRESHOLDS: Final = (100_000, 50, 100)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
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
        type=host_name,
        help="a name or an address, several if repeated; 0.0.0.0 and :: stand for every interface "
        "(default: localhost)",
    )
    where.add_argument("--port", type=port_number, help="0 for any free port (default: 8765)")
    where.add_argument(
        "--unix", type=path_name, metavar="PATH", help="a Unix socket instead of a port"
    )
    where.add_argument(
        "--certfile", type=path_name, metavar="FILE", help="certificate chain, for TLS"
    )
    where.add_argument(
        "--keyfile",
        type=path_name,
        metavar="FILE",
        help="its private key, if that is in another file",
    )
    where.add_argument(
        "--client-ca",
        type=path_name,
        metavar="FILE",
        help="authorities of clients: each client has to show a certificate of one of these",
    )

    how = parser.add_argument_group("how to run")
    how.add_argument(
        "--workers", type=process_count, default=1, metavar="N", help="processes (default: 1)"
    )
    how.add_argument(
        "--start-timeout",
        type=timeout,
        default=START_TIMEOUT,
        metavar="N",
        help="how many seconds a worker may take to be ready, before it is stopped and counts as "
        f"failed; inf for no limit (default: {START_TIMEOUT:g})",
    )
    how.add_argument(
        "--drain",
        type=finite_seconds,
        metavar="N",
        help="take this many seconds to stop: each client is sent 1012 at a moment of its own, "
        "evenly spread; another signal hurries (default: all are sent 1001 at once)",
    )
    how.add_argument(
        "--reload",
        action="store_true",
        help="restart when a .py file under the current directory changes; for development",
    )
    how.add_argument("--log-level", choices=LOG_LEVELS, default="info", help="(default: info)")
    how.add_argument("--access-log", action="store_true", help="log a line when a connection ends")
    how.add_argument(
        "--check",
        action="store_true",
        help="only load the application and the certificates, and check the options: nothing is "
        "set up or listened on",
    )
    how.add_argument(
        "--metrics",
        type=metrics_address,
        metavar="HOST:PORT",
        help="answer GET /metrics there for Prometheus, in sums over all workers; needs "
        "trio-ws[metrics] (default: nowhere)",
    )
    how.add_argument("--as-worker", type=_descriptors, help=argparse.SUPPRESS)
    how.add_argument("--metrics-board", type=_board, help=argparse.SUPPRESS)

    requests = parser.add_argument_group("requests")
    requests.add_argument(
        "--trusted-proxy",
        action="append",
        metavar="ADDRESS",
        help="a proxy that is believed when it says who the client is, several if repeated: an "
        "address, a network like 10.0.0.0/8, or 'unix' for those on a Unix socket (default: none)",
    )
    requests.add_argument(
        "--proxy-header",
        choices=get_args(ProxyHeader),
        help="how the trusted proxies say it (default: X-Forwarded-For)",
    )
    requests.add_argument(
        "--ready-path",
        type=url_path,
        metavar="PATH",
        help="answer 200 there, and 503 from when it is asked to stop (default: none)",
    )
    requests.add_argument(
        "--health-path",
        type=url_path,
        metavar="PATH",
        help="answer 200 there for as long as the process serves (default: none)",
    )
    requests.add_argument(
        "--subprotocol",
        action="append",
        metavar="NAME",
        help="a subprotocol that the application speaks, several if repeated, the preferred one "
        "first (default: none)",
    )

    limits = parser.add_argument_group(
        "limits", "Times are in seconds, sizes in bytes, and inf is no limit."
    )
    limits.add_argument(
        "--origin",
        action="append",
        help="whose pages may connect, by their Origin header, several if repeated; 'same-origin' "
        "for those of the requested host, 'none' for requests without one, '*' for all (default: "
        "same-origin and none)",
    )
    limits.add_argument(
        "--server-name",
        action="append",
        metavar="HOST",
        help="a host that is answered to, several if repeated: a name, '*.name', an address or a "
        "network, or '*' for all (default: all; loopback names on a loopback address)",
    )
    limits.add_argument(
        "--on-rate-limit",
        choices=get_args(RateLimitPolicy),
        help="what to do with a client that sends too many messages or bytes: make it wait, or "
        "close with 1008 (default: wait)",
    )
    limits.add_argument("--no-compression", action="store_true", help="no permessage-deflate")
    for name, what in LIMITS.items():
        default = str(getattr(ListenerOptions, name)).removesuffix(".0")
        limits.add_argument(
            "--" + name.replace("_", "-"),
            type=number,
            default=argparse.SUPPRESS,
            metavar="N",
            help=f"{what} (default: {default})".replace("%", "%%"),
        )


def _descriptors(text: str) -> list[int]:
    """The argument that a supervisor gives a worker: those of the line, and of its sockets."""
    return [int(descriptor) for descriptor in text.split(",")]


def _board(text: str) -> tuple[int, int]:
    """The argument that a supervisor gives a worker: a descriptor, and what table of metrics."""
    descriptor, _, table = text.partition(":")
    return int(descriptor), int(table)


# ---------------------------------------------------------------------------
# From arguments to a service
# ---------------------------------------------------------------------------


def _run(parsed: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Serve as `parsed` says. A supervisor passes `arguments` on to its workers unchanged."""
    _check_combinations(parsed)
    if parsed.metrics is not None:
        check_can_show()
    if parsed.check:
        _service(parsed)
        load_application(parsed.application)
        return DONE
    with ExitStack() as passed:
        # First of all, so that no process which the application starts inherits what is ours.
        if parsed.as_worker is not None:
            line, *sockets = [passed.enter_context(adopt(number)) for number in parsed.as_worker]
            if parsed.metrics_board is not None:
                os.set_inheritable(parsed.metrics_board[0], False)
            service = _service(parsed, sockets)
            application = _prepare_application(parsed)
            return trio.run(_serve_as_worker, parsed, service, line, application)
        sockets = [passed.enter_context(sock) for sock in passed_sockets(os.environ)]
        if sockets and (parsed.host or parsed.port is not None or parsed.unix):
            parsed.parser.error(
                "systemd passes the sockets to listen on: leave --host, --port and --unix out"
            )
        service = _service(parsed, sockets)
        manager = ServiceManager.of(os.environ)
        if parsed.reload or parsed.workers > 1:
            _configure_logging(parsed)
            return trio.run(_supervise, parsed, service, manager, arguments)
        return trio.run(_serve_alone, parsed, service, manager, _prepare_application(parsed))


def _prepare_application(parsed: argparse.Namespace) -> Application:
    # An application may set the thresholds, or configure logging, when it is imported. Its choice
    # holds: our thresholds are set before that, and our logging is configured after it, if at all.
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    application = load_application(parsed.application)
    _configure_logging(parsed)
    return application


def _check_combinations(parsed: argparse.Namespace) -> None:
    several = parsed.workers > 1
    wrong = {
        "--reload runs one process: leave --workers out": parsed.reload and several,
        "--unix takes the place of --host and --port: leave one out": (
            parsed.unix and (parsed.host or parsed.port is not None)
        ),
        "--reload restarts without waiting: leave --drain out": (
            parsed.reload and parsed.drain is not None
        ),
        "--keyfile needs --certfile": parsed.keyfile and not parsed.certfile,
        "--client-ca needs --certfile": parsed.client_ca and not parsed.certfile,
        "--proxy-header needs --trusted-proxy": parsed.proxy_header and not parsed.trusted_proxy,
        "--workers and --reload need sockets to inherit, which this system does not have": (
            (several or parsed.reload) and not CAN_PASS_SOCKETS
        ),
        "--unix needs Unix sockets, which this system does not have": (
            parsed.unix and not HAS_UNIX
        ),
    }
    for message, applies in wrong.items():
        if applies:
            parsed.parser.error(message)


def _service(parsed: argparse.Namespace, sockets: Sequence[socket.socket] = ()) -> Service:
    return Service(
        name=parsed.application,
        hosts=parsed.host or ["localhost"],
        port=8765 if parsed.port is None else parsed.port,
        unix=None if sockets else parsed.unix,
        sockets=sockets,
        ssl_context=_server_files(parsed).load() if parsed.certfile else None,
        drain=parsed.drain,
        ready_path=parsed.ready_path,
        health_path=parsed.health_path,
        options=_listener_options(parsed),
    )


#: Options of a server, and the arguments that are theirs.
_ARGUMENTS: Final = {
    "hosts": "server_name",
    "trusted_proxies": "trusted_proxy",
    "proxy_header": "proxy_header",
    "subprotocols": "subprotocol",
    "on_rate_limit": "on_rate_limit",
}


def _listener_options(parsed: argparse.Namespace) -> ListenerKeywords:
    given = vars(parsed)
    options: dict[str, Any] = {name: given[name] for name in LIMITS if name in given}
    if parsed.origin is not None:
        options["origins"] = [None if origin == "none" else origin for origin in parsed.origin]
    for option, name in _ARGUMENTS.items():
        if given[name] is not None:
            options[option] = given[name]
    if parsed.no_compression:
        options["compression"] = None
    check_options(parsed, ListenerOptions, options)
    return cast("ListenerKeywords", options)


def _server_files(parsed: argparse.Namespace) -> ServerFiles:
    return ServerFiles(certfile=parsed.certfile, keyfile=parsed.keyfile, client_ca=parsed.client_ca)


async def _serve_alone(
    parsed: argparse.Namespace, service: Service, manager: ServiceManager, application: Application
) -> int:
    async with AsyncExitStack() as around:
        if parsed.metrics is not None:
            metrics = await around.enter_async_context(open_metrics())
            host, port = parsed.metrics
            await around.enter_async_context(scraped(host, port, metrics._read))
        if service.ssl_context is not None and HAS_SIGHUP:
            renewed = renewed_on_sighup(_server_files(parsed), service.ssl_context, manager)
            await around.enter_async_context(renewed)
        return await serve_alone(service, application, manager)


async def _serve_as_worker(
    parsed: argparse.Namespace, service: Service, line: socket.socket, application: Application
) -> int:
    async with AsyncExitStack() as around:
        if parsed.metrics_board is not None:
            await around.enter_async_context(measured_on_board(*parsed.metrics_board))
        return await serve_as_worker(service, application, line)


async def _supervise(
    parsed: argparse.Namespace,
    service: Service,
    manager: ServiceManager,
    arguments: Sequence[str],
) -> int:
    if parsed.metrics is None:
        return await _run_crew(parsed, service, manager, arguments, None)
    boards = Boards()
    host, port = parsed.metrics
    async with scraped(host, port, boards.read):
        return await _run_crew(parsed, service, manager, arguments, boards)


async def _run_crew(
    parsed: argparse.Namespace,
    service: Service,
    manager: ServiceManager,
    arguments: Sequence[str],
    boards: Boards | None,
) -> int:
    limits = ListenerOptions(**service.options)
    async with service.bound_sockets() as sockets:
        where = service.where(sockets)
        crew = Crew(
            arguments,
            sockets,
            manager=manager,
            patience=(service.drain or 0) + limits.grace_period + limits.close_timeout + MARGIN,
            open_timeout=limits.open_timeout,
            drains=service.drain is not None,
            lent=bool(service.sockets),
            boards=boards,
            # With --reload a person waits, perhaps in a debugger.
            start_timeout=inf if parsed.reload else parsed.start_timeout,
            foreground=parsed.reload,
        )
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
    # It says at INFO that a connection was lost, which is told once already, by the backplane.
    logging.getLogger("coredis").setLevel(max(level, logging.WARNING))
    # The access log consists of the lines that connections log at INFO.
    of_connections = min(level, logging.INFO) if parsed.access_log else max(level, logging.WARNING)
    logging.getLogger("trio_ws").setLevel(level if level == logging.DEBUG else of_connections)


SERVE: Final = Subcommand(
    name="serve",
    summary="run a server, in one process or several",
    description=(
        "Serve WebSockets until SIGINT (Ctrl-C) or SIGTERM asks to stop. Then every client is sent "
        "1001, and handlers get the grace period. A second signal ends the process at once. With "
        "--drain, the first signal begins the drain, the second does what the first does without, "
        "and the third ends the process."
    ),
    epilog=(
        "Exit codes: 0 stopped gracefully, 1 could not start or failed, 2 wrong command line, "
        "130 and 143 stopped at once by a further SIGINT or SIGTERM."
    ),
    add_arguments=_add_arguments,
    run=_run,
)
