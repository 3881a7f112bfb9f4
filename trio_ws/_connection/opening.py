"""What a connection starts with.

This module owns the seam between a handshake, whichever side it was, and the connection after it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._http.values import Request, Response
from .._protocol.wire import Wire


@dataclass(frozen=True, slots=True)
class Opening:
    """What a completed handshake leaves: everything that a connection starts with."""

    wire: Wire
    request: Request
    response: Response
    subprotocol: str | None
    trailing_data: bytes
