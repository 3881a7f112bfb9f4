"""The next handshake, made while a connection is still read.

This module owns when that is due, and how the old connection makes way: in good order, once the
next one is ready, so that its block ends after the messages that had come. Who gets the next one is
up to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import trio

from .._connection.websocket import WebSocket
from .._errors import CloseCode, CloseReason, HandshakeError, Initiator
from .attempts import Attempts, Shaken

#: With these a server says that it goes away by plan. What it sent before may take a while to be
#: handled, and the next handshake need not wait for that.
PLANNED = {CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART}


@final
class Renewal:
    """A task beside the block of one connection.

    Args:
        websocket: is replaced.
        attempts: make the next connection.
        due_at: when to begin at the latest, on trio's clock; `math.inf` for never.
        note_end: is called where the server ended the connection by plan, and says whether another
            one is worth trying.
    """

    def __init__(
        self,
        websocket: WebSocket,
        attempts: Attempts,
        due_at: float,
        note_end: Callable[[], bool],
    ) -> None:
        self.websocket: Final = websocket
        self._attempts = attempts
        self._note_end = note_end
        self._until_due = trio.CancelScope(deadline=due_at)
        # Shielded, because it ends with the block, which a cancellation reaches first.
        self._scope = trio.CancelScope(shield=True)
        #: Around the block, which ends if a function of the application fails here.
        self.block = trio.CancelScope()
        #: What that function raised, if it did.
        self.failed: list[Exception] = []
        #: The next connection, when it is ready.
        self.next: Shaken | None = None

    def begin(self) -> None:
        """It is due now."""
        self._until_due.cancel()

    def stop(self) -> None:
        """The block is over. What is not ready by now is given up."""
        self._scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        with self._scope:
            try:
                await self._renew()
            except Exception as exc:  # no handshake's
                self.failed.append(exc)
                self.block.cancel()

    async def _renew(self) -> None:
        with self._until_due:
            reason = await self.websocket.wait_closed()
            if not (_is_planned(reason) and self._note_end()):
                return
        while self.next is None:
            try:
                self.next = await self._attempts.connect()
            except HandshakeError as exc:
                # The connection goes on. If it is over, the next round tries, and raises it.
                self._attempts.log_failure(exc)
                if self.websocket.close_reason is not None:
                    return
        self.websocket._ending.close(CloseCode.NORMAL_CLOSURE, "renewed")


def _is_planned(reason: CloseReason) -> bool:
    return reason.code in PLANNED and reason.initiator is Initiator.REMOTE
