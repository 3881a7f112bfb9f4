"""One message in pieces: what `WebSocket.open_message` and `WebSocket.receive_message` give."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

import trio

from .._protocol.message import Message, checked_message


@final
class MessageWriter:
    """The open end of a message that is sent in fragments."""

    __slots__ = ("_closed", "_kind", "_send")

    def __init__(
        self, kind: type[str | bytes], send: Callable[[str | bytes], Awaitable[None]]
    ) -> None:
        self._kind = kind
        self._send = send
        self._closed = False

    def _close(self) -> None:
        self._closed = True

    async def send(self, part: Message) -> None:
        """Send the next part, in one frame.

        It waits, fails and can be cancelled like `WebSocket.send`: if it is cancelled, the part was
        not sent.

        Raises:
            As `WebSocket.send`; `TypeError` also for bytes in a text message, or the reverse.
        """
        data = checked_message(part)
        if not isinstance(data, self._kind):
            made_of, given = self._kind.__name__, type(part).__name__
            raise TypeError(f"this message is made of {made_of}, not {given}")
        if self._closed:
            raise trio.ClosedResourceError("the block of open_message() was left")
        await self._send(data)


@final
class MessageReader:
    """An asynchronous iterator over the chunks of a message that is still arriving."""

    __slots__ = ("_next",)

    def __init__(self, next_chunk: Callable[[], Awaitable[str | bytes | None]]) -> None:
        self._next = next_chunk

    def __aiter__(self) -> MessageReader:
        return self

    async def __anext__(self) -> str | bytes:
        """The next chunk. Cancelling loses nothing."""
        chunk = await self._next()
        if chunk is None:
            raise StopAsyncIteration
        return chunk
