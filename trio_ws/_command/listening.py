"""The sockets of ``trio-ws serve``, and the one line that the user is shown if binding fails."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager

from .._server.listening import bind_tcp_sockets
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
    hosts: Sequence[str], port: int, *, option: str = "--port"
) -> AsyncGenerator[list[socket.socket], None]:
    """`bind_tcp_sockets`, with sockets that are closed at the end; `option` is what chose the port.

    Raises:
        CommandFailed: a name does not resolve, or an address cannot be bound.
    """
    with failing_in_one_line(hint_if_taken=f"; try another {option}, or 0 for any"):
        sockets = await bind_tcp_sockets(hosts, port)
    with ExitStack() as bound:
        for sock in sockets:
            bound.enter_context(sock)
        yield sockets
