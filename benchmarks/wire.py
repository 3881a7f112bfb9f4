"""What the load puts on the wire, prepared once: frames, the opening handshake, the closing one.

Written by hand rather than with any of the libraries that are measured.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import struct
import zlib

FIN, RSV1 = 0x80, 0x40
TEXT, CLOSE = 0x1, 0x8
MASKED = 0x80

#: Any key does: masking is not to protect this load from itself. Zeros would be no work to undo.
MASK = b"\x9e\x37\x79\xb9"

KEY = base64.b64encode(b"0123456789abcdef").decode()

#: What browsers offer.
DEFLATE = "permessage-deflate; client_max_window_bits"

#: Each message is compressed by itself, so that the same one always becomes the same bytes, and
#: the load need only count them.
DEFLATE_WITHOUT_TAKEOVER = (
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
)

END_OF_HEAD = b"\r\n\r\n"


def request(port: int, extension: str | None = None) -> bytes:
    """The head of the opening request, with an offer to compress or without."""
    lines = [
        "GET / HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    ]
    if extension:
        lines.append(f"Sec-WebSocket-Extensions: {extension}")
    return "\r\n".join([*lines, "", ""]).encode()


def response(key: str) -> bytes:
    """The head of the answer to a client's request with that key."""
    accept = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(accept).decode()}\r\n\r\n"
    ).encode()


def frame(first: int, payload: bytes, *, masked: bool) -> bytes:
    """One frame, as a client sends it (masked) or a server."""
    second = MASKED if masked else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, second | len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, second | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, second | 127, len(payload))
    return head + MASK + mask(payload) if masked else head + payload


def mask(payload: bytes) -> bytes:
    key = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    return number.to_bytes(len(payload), "little")


def text(size: int) -> bytes:
    """A text message of that many bytes."""
    return b"x" * size


def document(size: int) -> bytes:
    """JSON of that many bytes, as compressible as such things are."""
    rng = random.Random(7)
    rows = [
        {"id": number, "name": f"sensor-{rng.randint(1, 40)}", "value": round(rng.random(), 4)}
        for number in range(size // 40)
    ]
    padded = json.dumps(rows).encode()[:size].ljust(size)
    assert len(padded) == size
    return padded


def deflated(payload: bytes) -> bytes:
    """The payload of a compressed frame (RFC 7692 section 7.2.1)."""
    compressor = zlib.compressobj(wbits=-15)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(b"\x00\x00\xff\xff")


def inflated(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(data + b"\x00\x00\xff\xff")


#: A Close frame with 1000, as a client sends it.
GOODBYE = frame(FIN | CLOSE, struct.pack("!H", 1000), masked=True)
