"""What both sides of a handshake need: the proof that a key was read, and the wire behind it."""

from __future__ import annotations

import base64
import hashlib

from .._options import ConnectionOptions
from .._protocol.deflate import Agreement
from .._protocol.events import Role
from .._protocol.wire import BATCH, Wire

#: RFC 6455 section 1.3.
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_value(key: str) -> str:
    """The Sec-WebSocket-Accept that proves that `key` was read (RFC 6455 section 4.2.2)."""
    digest = hashlib.sha1((key + _GUID).encode("latin-1"), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def make_wire(role: Role, options: ConnectionOptions, agreement: Agreement | None) -> Wire:
    deflate = None
    if agreement is not None:
        assert options.compression is not None
        deflate = (options.compression, agreement)
    batch = max(1, int(min(BATCH, options.max_queued_messages)))
    return Wire(
        role,
        max_message_size=options.max_message_size,
        deflate=deflate,
        batch=batch,
        decode_text=options.decode_text,
    )
