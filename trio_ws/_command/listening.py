"""Sockets for ``trio-ws serve``: bound here, and made to listen when the application is ready.

This module owns the addresses, one port for all of them, and sharing it (SO_REUSEPORT). What goes
wrong comes out as the one line that the user is told.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio

from .._reasons import reason_of
from .exits import CommandFailed

#: How many ports are tried where any will do: what is free on one address may be taken on another.
_ATTEMPTS: Final = 10

#: The most that is waiting to be accepted. The kernel has a limit of its own, and takes the less.
_BACKLOG: Final = 65535

#: Why one address of several that a name stands for may be left out: this machine does not have it.
#: Where IPv6 is turned off, "localhost" can mean ::1 all the same.
_NOT_HERE = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}

#: A port can be used again at once. On Windows the option means another thing.
_REUSE_ADDRESS: Final = os.name == "posix"

#: What this system has: several processes on one port, and Unix sockets.
CAN_SHARE: Final = hasattr(socket, "SO_REUSEPORT")
HAS_UNIX: Final = hasattr(socket, "AF_UNIX")


@asynccontextmanager
async def bound_tcp_sockets(
    hosts: Sequence[str], port: int, *, shared: bool = False
) -> AsyncGenerator[list[socket.socket], None]:
    """Sockets on every address of `hosts`, all on one port, closed at the end.

    Args:
        hosts: names or addresses.
        port: 0 for a free one that the system picks.
        shared: other processes of this user may listen on it as well (SO_REUSEPORT).

    Raises:
        CommandFailed: a name does not resolve, or an address cannot be bound.
    """
    addresses = [await _resolve(host) for host in hosts]
    attempts = 1 if port else _ATTEMPTS
    while True:
        attempts -= 1
        try:
            sockets = _bind_all(addresses, port, shared=shared)
            break
        except CommandFailed:
            if not attempts:
                raise
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


@asynccontextmanager
async def reserved_port(
    hosts: Sequence[str], port: int
) -> AsyncGenerator[list[socket.socket], None]:
    """Hold a port for the processes that are to share it, without listening on it.

    Raises:
        CommandFailed: as above; also where somebody shares it already, who would get some of the
            connections.
    """
    async with bound_tcp_sockets(hosts, port) as sockets:
        port = port_of(sockets)
    async with bound_tcp_sockets(hosts, port, shared=True) as sockets:
        yield sockets


def port_of(sockets: Sequence[socket.socket]) -> int:
    port: int = sockets[0].getsockname()[1]
    return port


_Address: TypeAlias = tuple[int, tuple[Any, ...]]


async def _resolve(host: str) -> list[_Address]:
    try:
        found = await trio.socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as exc:
        raise CommandFailed(f"cannot find the host {host!r}: {reason_of(exc)}") from None
    return [(family, address) for family, _, _, _, address in found]


def _bind_all(
    hosts: Sequence[Sequence[_Address]], port: int, *, shared: bool
) -> list[socket.socket]:
    sockets: dict[_Address, socket.socket] = {}
    with ExitStack() as unless_all:
        for addresses in hosts:
            missing: list[CommandFailed] = []
            for family, address in addresses:
                if (family, address) in sockets:
                    continue  # two names for it
                host, _, *rest = address
                try:
                    sock = _bind(family, (host, port, *rest), shared=shared)
                except OSError as exc:
                    missing.append(_cannot_listen(host, port, exc))
                    if exc.errno not in _NOT_HERE:
                        raise missing[-1] from None
                else:
                    sockets[family, address] = unless_all.enter_context(sock)
                    port = port or port_of([sock])
            if len(missing) == len(addresses):
                raise missing[0]
        unless_all.pop_all()
    return list(sockets.values())


def _bind(family: int, address: tuple[Any, ...], *, shared: bool) -> socket.socket:
    with ExitStack() as unless_bound:
        sock = unless_bound.enter_context(socket.socket(family, socket.SOCK_STREAM))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, _REUSE_ADDRESS)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:  # the IPv4 address, where it is wanted, has its own socket
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        unless_bound.pop_all()
    return sock


def _cannot_listen(host: str, port: int, exc: OSError) -> CommandFailed:
    if exc.errno == errno.EADDRINUSE:
        return CommandFailed(f"port {port} on {host} is taken: try another --port, or 0 for any")
    return CommandFailed(f"cannot listen on port {port} of {host}: {reason_of(exc)}")


@contextmanager
def bound_unix_socket(path: str) -> Generator[socket.socket, None, None]:
    """A socket in the file system, removed at the end.

    One that a process left behind without removing it is replaced.

    Raises:
        CommandFailed: somebody listens there, there is something else, or it cannot be bound.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            _remove_stale(path)
            sock.bind(path)
        except OSError as exc:
            raise CommandFailed(f"cannot listen on {path}: {reason_of(exc)}") from None
        ours = Path(path).stat()
        try:
            yield sock
        finally:
            with suppress(FileNotFoundError):
                if os.path.samestat(ours, Path(path).stat()):  # and not our successor's
                    Path(path).unlink()


def _remove_stale(path: str) -> None:
    with suppress(FileNotFoundError):
        if Path(path).is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                try:
                    client.connect(path)
                except ConnectionRefusedError:
                    Path(path).unlink()


def listen(sock: socket.socket) -> trio.SocketListener:
    """A listener on a bound socket, which belongs to the listener from now on.

    Raises:
        CommandFailed: somebody else has begun to listen there since it was bound.
    """
    address = sock.getsockname()
    try:
        sock.listen(_BACKLOG)
    except OSError as exc:
        raise CommandFailed(f"cannot listen on {address}: {reason_of(exc)}") from None
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))
