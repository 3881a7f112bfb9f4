"""Sockets to accept connections on: TCP on every address of a name, and Unix sockets.

This module owns addresses, and one port for all of them. It binds in one step and listens in
another, so that an application can do its set-up in between. Its errors name the address; it knows
no handlers and no command line.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import trio

from .._reasons import reason_of
from .._transport.accepting import prepare

#: How many ports are tried where any will do: what is free on one address may be taken on another.
_ATTEMPTS: Final = 10

#: How many connections may wait to be accepted. The kernel lowers this to its own limit.
_BACKLOG: Final = 65535

#: Why one of a name's addresses may be left out: this machine does not have it. "localhost" can
#: mean ::1 even where IPv6 is turned off.
_NOT_HERE: Final = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}

#: Lets a restarted server have its port back at once. On Windows the option means another thing:
#: two servers could take the same port.
_REUSE_ADDRESS: Final = os.name == "posix"

#: Whether this system has Unix sockets.
HAS_UNIX: Final = hasattr(socket, "AF_UNIX")

#: How errors call the addresses that stand for every interface.
_NAMES: Final = dict.fromkeys(("0.0.0.0", "::"), "every interface")  # noqa: S104 - only named here

_Address: TypeAlias = tuple[int, tuple[Any, ...]]
_T = TypeVar("_T")


# ---------------------------------------------------------------------------
# TCP
# ---------------------------------------------------------------------------


async def open_tcp_listeners(host: str | None, port: int) -> list[trio.SocketListener]:
    """Listen on every address of `host`, all on one port.

    Args:
        host: a name or an address; `None` for every interface.
        port: 0 for a free one that the system picks.

    Raises:
        OSError, ValueError: as `bind_tcp_sockets`; also where another process has begun to listen.
    """
    addresses = [await _resolve(host)]

    def open_all() -> list[trio.SocketListener]:
        with ExitStack() as unless_all:
            bound = [unless_all.enter_context(sock) for sock in _bind_all(addresses, port)]
            listeners = [listen(sock) for sock in bound]
            unless_all.pop_all()
        return listeners

    return _on_one_port(port, open_all)


async def bind_tcp_sockets(hosts: Sequence[str | None], port: int) -> list[socket.socket]:
    """Sockets on every address of `hosts`, all on one port; for `listen`.

    Args:
        hosts: names or addresses; `None` for every interface.
        port: 0 for a free one that the system picks.

    Raises:
        OSError: a name does not resolve (`socket.gaierror`), or an address cannot be bound. The
            text says which.
        ValueError: no host can have such a name.
    """
    addresses = [await _resolve(host) for host in hosts]
    return _on_one_port(port, lambda: _bind_all(addresses, port))


def _on_one_port(port: int, open_all: Callable[[], list[_T]]) -> list[_T]:
    """Call `open_all`. Where any port will do, call it again if it fails, for another port."""
    for _ in range(0 if port else _ATTEMPTS - 1):
        with suppress(OSError):
            return open_all()
    return open_all()


async def _resolve(host: str | None) -> list[_Address]:
    cannot = f"cannot find the host {host!r}"
    try:
        found = await trio.socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as exc:
        raise socket.gaierror(exc.errno, f"{cannot}: {reason_of(exc)}") from exc
    except UnicodeError as exc:  # from encoding it for the DNS
        raise ValueError(f"{cannot}: this is no name of a host: {reason_of(exc)}") from exc
    return [(family, address) for family, _, _, _, address in found]


def _bind_all(hosts: Sequence[Sequence[_Address]], port: int) -> list[socket.socket]:
    sockets: dict[_Address, socket.socket] = {}
    with ExitStack() as unless_all:
        for addresses in hosts:
            missing: list[OSError] = []
            for family, address in addresses:
                if (family, address) in sockets:
                    continue  # two of the names stand for it
                host, _, *rest = address
                try:
                    sock = _bind(family, (host, port, *rest))
                except OSError as exc:
                    missing.append(_cannot_listen(f"port {port} of {_NAMES.get(host, host)}", exc))
                    if exc.errno not in _NOT_HERE:
                        raise missing[-1] from exc
                else:
                    sockets[family, address] = unless_all.enter_context(sock)
                    port = port or port_of([sock])
            if len(missing) == len(addresses):
                raise missing[0]
        unless_all.pop_all()
    return list(sockets.values())


def _bind(family: int, address: tuple[Any, ...]) -> socket.socket:
    with ExitStack() as unless_bound:
        sock = unless_bound.enter_context(socket.socket(family, socket.SOCK_STREAM))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, _REUSE_ADDRESS)
        if family == socket.AF_INET6:
            # Otherwise :: takes the port of 0.0.0.0 with it, which gets its own socket.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        unless_bound.pop_all()
    return sock


def port_of(sockets: Sequence[socket.socket]) -> int:
    port: int = sockets[0].getsockname()[1]
    return port


def listen(sock: socket.socket) -> trio.SocketListener:
    """A listener on a bound socket, which belongs to the listener from now on.

    One that listens already, in another process, keeps the length of its queue.

    Raises:
        OSError: another process has begun to listen there since the socket was bound.
    """
    address = sock.getsockname()
    # Before anybody can connect: clients that come before the first `accept` need the options too.
    prepare(sock)
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        try:
            sock.listen(_BACKLOG)
        except OSError as exc:
            raise _cannot_listen(address, exc) from exc
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _cannot_listen(where: object, exc: OSError) -> OSError:
    return OSError(exc.errno, f"cannot listen on {where}: {reason_of(exc)}")


# ---------------------------------------------------------------------------
# Unix sockets
# ---------------------------------------------------------------------------


@contextmanager
def bound_unix_socket(path: str) -> Generator[socket.socket, None, None]:
    """A socket in the file system, closed and removed at the end.

    One that a process left behind without removing it is replaced.

    Raises:
        OSError: on entering: somebody listens there, the path is something else, or it cannot be
            bound.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            _remove_stale(path)
            sock.bind(path)
        except OSError as exc:
            raise _cannot_listen(path, exc) from exc
        ours = Path(path).stat()
        try:
            yield sock
        finally:
            with suppress(FileNotFoundError):
                if os.path.samestat(ours, Path(path).stat()):  # else it is our successor's
                    Path(path).unlink()


def _remove_stale(path: str) -> None:
    with suppress(FileNotFoundError):
        if Path(path).is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.setblocking(False)
                try:
                    with suppress(BlockingIOError):  # its queue is full, so that somebody listens
                        client.connect(path)
                except ConnectionRefusedError:
                    Path(path).unlink()
