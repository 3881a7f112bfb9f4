"""systemd, as far as a service speaks with it: sockets that it passes, and what it is told.

Both are a few lines of its documented interface, sd_listen_fds(3) and sd_notify(3), and need none
of its libraries. Other service managers, and containers, speak the same. Where the environment
names no service manager, nothing happens here.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Generator, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from math import inf
from typing import Final, final

from .._reasons import reason_of
from .exits import USAGE, CommandFailed

logger = logging.getLogger("trio_ws.serve")

#: The first descriptor that is passed, and the variables that speak of all of them.
_FIRST: Final = 3
_COUNT: Final = "LISTEN_FDS"
_LISTEN_VARIABLES: Final = ("LISTEN_PID", "LISTEN_PIDFDID", _COUNT, "LISTEN_FDNAMES")

#: How many seconds a message may wait for room in the manager's queue, while nothing else runs.
#: There is room, unless the machine is in deep trouble.
_PATIENCE: Final = 1.0


# ---------------------------------------------------------------------------
# Sockets
# ---------------------------------------------------------------------------


def adopt(descriptor: int) -> socket.socket:
    """The socket that another process has passed on, kept from those that this one starts.

    Raises:
        OSError: there is none.
    """
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def passed_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets that systemd has passed to this process, if any.

    Their variables are removed, so that no program takes them for its own that this one starts.

    Raises:
        CommandFailed: what was passed is something else.
    """
    passed = [environ.pop(name, "") for name in _LISTEN_VARIABLES]
    if passed[0] != str(os.getpid()):  # for the program that has started this one, or for none
        return []
    count = passed[_LISTEN_VARIABLES.index(_COUNT)]
    if not (count.isascii() and count.isdigit()):
        raise CommandFailed(f"{_COUNT} should be the number of sockets, and not {count!r}", USAGE)
    with ExitStack() as unless_all:
        sockets: list[socket.socket] = []
        for descriptor in range(_FIRST, _FIRST + int(count)):
            try:
                sockets.append(unless_all.enter_context(adopt(descriptor)))
                problem = _problem_of(sockets[-1])
            except OSError as exc:
                problem = f"is no socket: {reason_of(exc)}"
            if problem:
                raise CommandFailed(
                    f"descriptor {descriptor}, of {count} that systemd has passed, {problem}", USAGE
                )
        unless_all.pop_all()
    return sockets


def _problem_of(sock: socket.socket) -> str:
    """What keeps it from being served, in words; empty if nothing does."""
    families = {socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_UNIX", socket.AF_INET)}
    if sock.family not in families or sock.type != socket.SOCK_STREAM:
        return "is a socket of another kind: write ListenStream= in the socket unit"
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "is a connection, and no socket that listens: write Accept=no in the socket unit"
    return ""


# ---------------------------------------------------------------------------
# Messages
# ---------------------------------------------------------------------------


@final
class ServiceManager:
    """Who has started this service, and wants to know how it is.

    Args:
        address: its datagram socket: a path, or @ and an abstract name. `None` for nobody.
        watchdog: how many seconds it waits for a sign of life before it kills the service.
    """

    def __init__(self, address: str | None = None, watchdog: float = inf) -> None:
        self._address = address
        self.watchdog = watchdog
        self._where = ""
        self._reloads = 0
        #: Whether it was told that the service stops.
        self.knows_of_stop = False

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> ServiceManager:
        """The one that these variables name."""
        address = environ.get("NOTIFY_SOCKET") or None
        if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return cls(address)
        with suppress(ValueError):
            return cls(address, (int(environ.get("WATCHDOG_USEC", "")) or inf) / 1e6)
        return cls(address)

    def ready(self, where: str) -> None:
        """The service takes connections, `where` this says."""
        self._where = where
        self._tell("READY=1", f"STATUS=Serving on {where}", f"MAINPID={os.getpid()}")

    @contextmanager
    def reloading(self) -> Generator[None, None, None]:
        """It takes up new code or certificates within the block. Such blocks may overlap."""
        self._reloads += 1
        if not self.knows_of_stop:
            now = time.monotonic_ns() // 1000
            self._tell("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=Reloading")
        try:
            yield
        finally:
            self._reloads -= 1
            if not (self._reloads or self.knows_of_stop):
                self.ready(self._where)

    def stopping(self) -> None:
        """It takes no more clients, and will end."""
        self.knows_of_stop = True
        self._tell("STOPPING=1", "STATUS=Stopping")

    def alive(self) -> None:
        """It works. This never waits: another sign of life follows soon."""
        self._tell("WATCHDOG=1", patience=0)

    def _tell(self, *lines: str, patience: float = _PATIENCE) -> None:
        if self._address is None:
            return
        # Connected anew each time: the manager may have been replaced meanwhile, at the same place.
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(patience)
                address = self._address
                sock.connect("\0" + address[1:] if address.startswith("@") else address)
                sock.send("\n".join(lines).encode())
        except (OSError, AttributeError) as exc:  # AttributeError: no Unix sockets on this system
            logger.warning("cannot tell the service manager %s: %s", lines[0], reason_of(exc))
