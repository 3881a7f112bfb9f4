"""What the peers exchange: the same messages in every language, told apart by their digests.

A peer says what it got as ``{"kind": "text", "size": 3, "sha256": "…"}``, so contents are compared
although they never leave the process that received them. Sizes are those of the payload, in bytes:
0, 1, both ends of each of the three length encodings (RFC 6455 section 5.2), and a large one.

Imported by the Python peers as well; the others have the same few lines in their own language.
"""

from __future__ import annotations

import hashlib

SIZES = [0, 1, 125, 126, 65535, 65536, 1_000_000]

#: The kinds of messages.
KINDS = ["text", "binary"]

#: The result of `describe`.
Description = dict[str, str | int]

#: One character each of two, three, four and one bytes in UTF-8.
TEN_BYTES = "é€😀a"


def make(kind: str, size: int) -> str | bytes:
    if kind == "text":
        return TEN_BYTES * (size // 10) + "x" * (size % 10)
    return (bytes(range(251)) * (size // 251 + 1))[:size]  # a prime: no power of two repeats


def describe(message: str | bytes) -> Description:
    data = message.encode() if isinstance(message, str) else message
    return {
        "kind": "text" if isinstance(message, str) else "binary",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
