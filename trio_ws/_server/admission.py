"""Accepting connections: one task for each listener, and what happens when the system has no room.

This module owns the pause after such an error, and the lines in the log about it. What becomes of
an accepted connection is up to its caller.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import final

import trio

from .._log import LoggerLike
from .._transport.accepting import wrap_listener
from .._transport.stream import Transport

#: How many seconds to accept nobody when the system has no descriptors or memory left for another
#: connection. It would say so again at once, and open connections may end meanwhile.
ACCEPT_PAUSE = 0.1

#: A shortage of these is over when nobody has had to wait for this many seconds. Until then each
#: connection that ends lets one client in, and leaves the next one out.
SHORTAGE_QUIET = 5.0

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


@trio.lowlevel.enable_ki_protection
async def accept_all(
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    serve: Callable[[Transport], object],
    logger: LoggerLike,
) -> None:
    """Accept connections until cancelled, and close the listeners.

    Args:
        listeners: where from.
        serve: called with each connection. It starts a task.
        logger: the server's.

    Raises:
        BaseExceptionGroup: a listener broke: its error, perhaps with cancellations beside it.
    """
    # trio.serve_listeners would do, but it adds a task frame and two cancel scopes to each
    # connection, in order to close a stream that is closed anyway.
    async with trio.open_nursery() as nursery:
        shortage = _Shortage(logger, nursery)
        for listener in listeners:
            nursery.start_soon(_accept_from, listener, serve, shortage, logger)


@trio.lowlevel.enable_ki_protection
async def _accept_from(
    listener: trio.abc.Listener[trio.abc.Stream],
    serve: Callable[[Transport], object],
    shortage: _Shortage,
    logger: LoggerLike,
) -> None:
    def note_lost(exc: OSError) -> None:
        logger.info("a connection was lost before it was accepted: %s", exc)

    async with listener:
        acceptor = await wrap_listener(listener, note_lost)
        while True:
            try:
                accepted = await acceptor.accept()
            except OSError as exc:
                if exc.errno not in _OUT_OF_RESOURCES:
                    raise
                shortage.feel(exc)
                await trio.sleep(ACCEPT_PAUSE)
            else:
                for transport in accepted:
                    serve(transport)


@final
class _Shortage:
    """Logs that the system has no room for another connection.

    There is a line when that begins and one when it is over, however many attempts fail meanwhile.
    """

    def __init__(self, logger: LoggerLike, nursery: trio.Nursery) -> None:
        self._logger = logger
        self._nursery = nursery
        #: While a shortage lasts: what waits for its end.
        self._lasting: trio.CancelScope | None = None

    def feel(self, exc: OSError) -> None:
        """An attempt failed with `exc`."""
        if self._lasting is None:
            self._lasting = trio.CancelScope()
            self._logger.error("cannot accept connections for now: %s", exc)
            self._nursery.start_soon(self._wait_for_end, self._lasting)
        self._lasting.deadline = trio.current_time() + SHORTAGE_QUIET

    async def _wait_for_end(self, lasting: trio.CancelScope) -> None:
        began = trio.current_time()
        with lasting:
            await trio.sleep_forever()
        self._lasting = None
        seconds = lasting.deadline - SHORTAGE_QUIET + ACCEPT_PAUSE - began
        self._logger.warning("connections are accepted again, after %.1f s", seconds)
