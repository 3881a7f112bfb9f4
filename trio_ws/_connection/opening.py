"""What a connection starts with.

This module owns the seam between a handshake, of a client or a server, and the connection after it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._http.values import Request, Response
from .._protocol.wire import Wire


@dataclass(frozen=True, slots=True)
class Opening:
    """The result of a complete handshake: everything that a connection starts with."""

    wire: Wire
    request: Request
    response: Response
    subprotocol: str | None
    trailing_data: bytes
