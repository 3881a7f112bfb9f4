"""One message in pieces: what `WebSocket.open_message` and `WebSocket.receive_message` give."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias, final

import trio

from .._buffer import bytes_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

    #: What can be sent: `str` goes out as text. Everything with the buffer protocol goes out as
    #: binary: bytes, bytearray, memoryview, array.array, mmap, NumPy's arrays and more, as the
    #: bytes of its items in C order.
    Message: TypeAlias = str | Buffer
else:
    Message = str | bytes | bytearray | memoryview


def checked_message(message: Message) -> str | bytes:
    """`message`, safe from changes that its owner makes later.

    Raises:
        TypeError: it is neither `str` nor made of bytes.
        ValueError: it is a buffer that has been released or closed.
    """
    if isinstance(message, (str, bytes)):
        return message
    return bytes_of(message, _MESSAGE)


_MESSAGE = (
    "a message is str (sent as text) or a buffer such as bytes (sent as binary), and send_json() "
    "is for the rest"
)


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
        """Send the next part, in a frame of its own.

        It waits, fails and is cancelled like `WebSocket.send`: cancelled, the part was not sent.

        Raises:
            As `WebSocket.send`; `TypeError` also for bytes in a text message or the reverse.
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
