"""The sockets of ``trio-ws serve``, and the one line that the user is shown if binding fails."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager

from .._server.listening import bind_tcp_sockets, port_of
from .exits import CommandFailed


@contextmanager
def failing_in_one_line(*, hint_if_taken: str = "") -> Generator[None, None, None]:
    """Turn the errors of binding and listening into `CommandFailed`. For such calls only.

    Raises:
        CommandFailed: in place of those errors, with the same text.
    """
    try:
        yield
    except OSError as exc:
        hint = hint_if_taken if exc.errno == errno.EADDRINUSE else ""
        raise CommandFailed(f"{exc.strerror}{hint}") from None
    except ValueError as exc:
        raise CommandFailed(str(exc)) from None


@asynccontextmanager
async def bound_tcp_sockets(
    hosts: Sequence[str], port: int, *, reuse_port: bool = False, option: str = "--port"
) -> AsyncGenerator[list[socket.socket], None]:
    """`bind_tcp_sockets`, with sockets that are closed at the end; `option` is what chose the port.

    Raises:
        CommandFailed: a name does not resolve, or an address cannot be bound.
    """
    with failing_in_one_line(hint_if_taken=f"; try another {option}, or 0 for any"):
        sockets = await bind_tcp_sockets(hosts, port, reuse_port=reuse_port)
    with ExitStack() as bound:
        for sock in sockets:
            bound.enter_context(sock)
        yield sockets


@asynccontextmanager
async def reserved_port(
    hosts: Sequence[str], port: int
) -> AsyncGenerator[list[socket.socket], None]:
    """Hold a port for the processes that are to share it, without listening on it.

    Raises:
        CommandFailed: as above; also where another program shares the port already. It would get
            some of the connections.
    """
    # A socket without SO_REUSEPORT cannot be bound beside that program's.
    async with bound_tcp_sockets(hosts, port) as sockets:
        port = port_of(sockets)
    async with bound_tcp_sockets(hosts, port, reuse_port=True) as sockets:
        yield sockets
