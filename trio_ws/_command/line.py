"""The line between a supervisor and each of its workers: what they say to each other.

A message is a word, and perhaps a text behind it, that ends with a newline. Each end learns from
the kernel when the process at the other is gone. This module knows no workers: what a word means is
up to `workers`, which hears one end, and `serving`, which hears the other.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final, final

import trio

#: What a worker says: it accepts connections; and it lives, in answer to `PROBE`.
READY: Final = "ready"
ALIVE: Final = "alive"

#: What a supervisor says: others serve in its place, so stop accepting and leave; stop without a
#: drain, or cut it short; and answer, if your event loop runs.
LEAVE: Final = "leave"
HURRY: Final = "hurry"
PROBE: Final = "probe"


@final
class Line:
    """One end of a line. It is closed at the end of its ``async with`` block.

    Args:
        sock: one of a `socket.socketpair`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._speaking = trio.Lock()

    async def __aenter__(self) -> Line:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.aclose()

    async def say(self, word: str, text: str = "") -> None:
        """Send a message. Does nothing if the other end is gone.

        Tasks that call it at the same time take turns. Cancel it only to close the line afterwards:
        half a message may have been sent.
        """
        async with self._speaking:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._stream.send_all(f"{word} {text}".rstrip().encode() + b"\n")

    async def messages(self) -> AsyncGenerator[tuple[str, str], None]:
        """Each message that comes, as its word and its text, until the other end is gone."""
        rest = b""
        with suppress(trio.BrokenResourceError):
            async for data in self._stream:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    word, _, text = line.decode().partition(" ")
                    yield word, text
