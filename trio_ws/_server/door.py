"""Turning away addresses that connect too often, at so little cost that others do not notice.

This module owns what a refused client gets. `addresses` decides, and `visit` asks here again for
clients whose address a proxy tells.

Where the peer is the client itself, it is refused before there is a task for it. Over TLS, the
socket is closed without a word: a TLS handshake, which would have to come before the 429, costs
more than all else that a refusal does. Otherwise, where the request is here already, it is read,
answered and hung up on in one step. A client whose request has yet to arrive has a task and a
second, but no more than `MOST_IN_HAND` of them at a time: beyond that, they are hung up on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import trio

from .._addresses import Address
from .._errors import ConnectionFailed
from .._http.exchange import ServerExchange
from .._http.values import ConnectionRejected, Response
from .._options import ListenerOptions
from .._transport.opening import REFUSAL_LINGER, respond_and_hang_up
from .._transport.stream import Transport
from .._transport.system import GONE
from .addresses import Addresses, Place, RefusalLog, TooMany
from .shutdown import Shutdown

#: How many refused clients may wait for their 429 at a time.
MOST_IN_HAND: Final = 100


class TurnedAway(ConnectionRejected):
    """A client gets 429 or 503. It has been logged, as far as that is worth a line."""


@final
class Door:
    """What clients come in by, where `options` limit addresses.

    Args:
        options: the server's.
        shutdown: cuts short what waits for refused clients.
    """

    def __init__(self, options: ListenerOptions, shutdown: Shutdown) -> None:
        self._options = options
        self._shutdown = shutdown
        self._addresses = Addresses(
            options.max_handshakes_per_second, options.max_connections_per_address
        )
        self._log = RefusalLog(options.logger)
        self._in_hand = 0
        #: The last answer, and how long it stands: those of a flood are all the same.
        self._answer = Response(429)
        self._answers: tuple[str, int] | None = None
        self._data = b""

    def enter(self, address: Address) -> Place | None:
        """Let in a client. `leave` follows, if this gives a place.

        Raises:
            TurnedAway: its address came too often.
        """
        now = trio.current_time()
        try:
            return self._addresses.enter(address, now)
        except TooMany as exc:
            self._log.note(address, exc, now)
            raise TurnedAway(self._answer_to(exc, now)) from None

    def _answer_to(self, exc: TooMany, now: float) -> Response:
        key = f"{exc}, {exc.retry_after}", int(now)
        if self._answers != key:
            body = f"Too many connections from your address, try again later ({exc}).\n"
            self._answer = Response(429, {"Retry-After": str(exc.retry_after)}, body)
            self._answers, self._data = key, b""
        return self._answer

    def enter_directly(self, transport: Transport) -> Place | None:
        """`enter`, for a peer that is the client: `None` for a proxy that will tell its address."""
        address, proxies = transport.remote_address, self._options.proxy_networks
        return None if proxies and address in proxies else self.enter(address)

    def leave(self, place: Place | None) -> None:
        """Its connection is over."""
        if place is not None:
            self._addresses.leave(place, trio.current_time())

    def refuse(
        self,
        transport: Transport,
        response: Response,
        start_soon: Callable[..., object],
    ) -> None:
        """Turn away a client that just connected."""
        try:
            if transport.plain_socket is not None:
                # Written once a second: it has the time in it.
                data = self._data = self._data or ServerExchange().response(
                    response, self._options.response_fields
                )
                if transport.receive_nowait() is not None:
                    transport.send_nowait([data])
                elif self._in_hand < MOST_IN_HAND:
                    self._in_hand += 1
                    start_soon(self._refuse_in_time, transport, data)
                    return
        except GONE:
            pass
        transport.drop()

    @trio.lowlevel.enable_ki_protection
    async def _refuse_in_time(self, transport: Transport, data: bytes) -> None:
        try:
            with self._shutdown.cutting_short(trio.current_time() + REFUSAL_LINGER):
                await respond_and_hang_up(transport, data)
        except ConnectionFailed:
            pass
        finally:
            self._in_hand -= 1
            await transport.aclose_forcefully()
