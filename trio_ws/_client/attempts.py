"""One handshake after another, until one succeeds or another try is not worth it.

This module owns what an attempt is made of, each time afresh, and what is logged of attempts. Whose
turn it is and when is up to `turns`, and what is worth another try up to `failures`. It starts no
task: what it opens is a connection that nobody reads yet.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from math import inf
from typing import TypeAlias, TypeVar, cast, final

import trio

from .._addresses import show_address
from .._connection.websocket import WebSocket
from .._errors import CloseReason, HandshakeError
from .._http.headers import HeadersLike
from .._http.values import ConnectionRejected, ProxyError
from .._log import ConnectionLogger, new_connection_id
from .._options import ClientOptions
from .._redaction import without_secrets
from .._waking import sleep_or_wake
from .client import checked_target, connect
from .failures import is_transient
from .turns import Place, Turns

T = TypeVar("T")

#: A function that is called for each attempt, and may be async.
Fresh: TypeAlias = Callable[[], T | Awaitable[T]]
#: A function that is asked whether to go on; see `reconnecting`.
Retry: TypeAlias = Callable[[Exception, bool], bool]


@final
class Shaken:
    """A connection that has shaken hands, until a block takes it.

    Where nobody does, its socket is closed when this is freed. So what was opened for a round that
    never comes is not left behind.

    Attributes:
        place: whose it is.
        attempt: how many handshakes it took.
        waited: how many seconds were waited before these.
    """

    __slots__ = ("_websocket", "attempt", "place", "waited")

    def __init__(self, websocket: WebSocket, place: Place, attempt: int, waited: float) -> None:
        self._websocket: WebSocket | None = websocket
        self.place: Place = place
        self.attempt: int = attempt
        self.waited: float = waited

    def take(self) -> WebSocket | None:
        """The connection, which is the caller's from now on; `None` if it was taken or closed."""
        websocket, self._websocket = self._websocket, None
        return websocket

    def drop(self) -> bool:
        """Close the socket, and say whether nobody had taken the connection."""
        websocket = self.take()
        if websocket is None:
            return False
        websocket._transport.drop()
        return True

    def __del__(self) -> None:
        self.drop()


@final
class Attempts:
    """Those of one client.

    Args:
        urls: for each place, a function that gives the URL.
        options: of each attempt, but for what follows.
        headers, subprotocols: functions that give these; `None` if `options` has them.
        turns: whose turn it is.
        retry: is asked what is worth another try, if it is given.
        max_retry_after: at most so many seconds of a Retry-After field are waited for.
    """

    def __init__(
        self,
        urls: Sequence[Fresh[str]],
        options: ClientOptions,
        *,
        headers: Fresh[HeadersLike] | None,
        subprotocols: Fresh[Sequence[str]] | None,
        turns: Turns,
        retry: Retry | None,
        max_retry_after: float,
    ) -> None:
        self._urls = urls
        self._options = options
        self._headers = headers
        self._subprotocols = subprotocols
        self._turns = turns
        self._retry = retry
        self._max_retry_after = max_retry_after
        #: Whether the log says that the connection is lost, and not yet that it is there again.
        self._is_lost = False

    # Trying…

    async def connect(self) -> Shaken:
        """Try, each time after the place's delay, until a handshake succeeds.

        Raises:
            HandshakeError: it failed, and another try is not worth it.
            Exception: a function of the application raised it.
        """
        attempt, waited = 0, 0.0
        while True:
            place = self._turns.next_place()
            waited += await self._wait_for(place)
            place.begin()
            attempt += 1
            try:
                websocket = await self._shake_hands(place)
            except Exception as exc:  # Cancelled is none of these
                self._put_off(place, exc)
                if not self.may_retry(exc):
                    raise
                self.log_failure(exc)
            else:
                self._turns.keep(place)
                self._log_success(websocket, attempt, waited)
                return Shaken(websocket, place, attempt, waited)

    async def _wait_for(self, place: Place) -> float:
        """Wait until it is its turn, and say for how many seconds.

        A computer that has slept meanwhile has lost its connections to that, and to no server.
        """
        started = trio.current_time()
        if started < place.ready_at and await sleep_or_wake(place.ready_at - started):
            self._turns.wake()
        return trio.current_time() - started

    async def _shake_hands(self, place: Place) -> WebSocket:
        options = self._options
        if self._headers is not None:
            options = replace(options, headers=await _call(self._headers))
        if self._subprotocols is not None:
            options = replace(options, subprotocols=await _call(self._subprotocols))
        url = await _call(self._urls[place.index])
        try:
            return await connect(checked_target(url, options), options)
        except HandshakeError as exc:
            # As with `open_websocket_url`: our frames would only bury the caller's line.
            exc.__traceback__ = None
            raise

    def may_retry(self, exc: Exception) -> bool:
        """Whether another try is worth it after `exc`."""
        transient = is_transient(exc)
        return transient if self._retry is None else self._retry(exc, transient)

    # What came of it…

    def _put_off(self, place: Place, exc: Exception) -> None:
        asked = exc.retry_after if isinstance(exc, (ConnectionRejected, ProxyError)) else None
        place.put_off(-inf, least=min(asked or 0.0, self._max_retry_after))
        self._turns.pass_over(place)

    def note_end(self, place: Place, lasted: float) -> None:
        """A connection is over that was open for so many seconds; `math.inf` if it was healthy."""
        if not place.has_held(lasted):
            self._turns.pass_over(place)
        place.put_off(lasted)

    # The log: a line when the connection is lost, and one when it is there again…

    def log_loss(self, websocket: WebSocket, reason: CloseReason) -> None:
        """The connection ended, and the client goes on."""
        self._is_lost = True
        peer = show_address(websocket.remote_address)
        websocket._logger.info("lost the connection with %s: %s; connecting again", peer, reason)

    def log_failure(self, exc: Exception) -> None:
        """An attempt failed, and another one follows."""
        level = logging.DEBUG if self._is_lost else logging.INFO
        self._is_lost = True
        logger = ConnectionLogger(self._options.logger, new_connection_id())
        kind = "" if isinstance(exc, HandshakeError) else f"{type(exc).__name__}: "
        logger.log(level, "not connected: %s; trying again", kind + without_secrets(str(exc)))

    def _log_success(self, websocket: WebSocket, attempt: int, waited: float) -> None:
        if self._is_lost:
            self._is_lost = False
            peer = show_address(websocket.remote_address)
            websocket._logger.info(
                "connected again with %s, at attempt %d, after %.1f s of waiting",
                *(peer, attempt, waited),
            )


@trio.lowlevel.disable_ki_protection
async def _call(function: Fresh[T]) -> T:
    result = function()
    if isinstance(result, Awaitable):
        return await cast("Awaitable[T]", result)
    return result
