"""A byte stream over a WebSocket, for code that uses streams: TLS, a relay, another protocol.

This module owns how bytes become messages, and messages bytes. It knows nothing of frames.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

import trio

from .._buffer import bytes_of
from .._errors import ConnectionEnded
from .websocket import WebSocket

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: The most bytes in one message. Every common limit on messages is larger.
MESSAGE_SIZE = 64 * 1024


def as_stream(websocket: WebSocket, *, compress: bool | None = None) -> trio.abc.Stream:
    """The connection as a byte stream: ``trio.SSLStream(as_stream(ws), …)``, for example.

    Bytes go out in binary messages of at most 64 KiB. The peer's messages are joined, text as its
    UTF-8; where one message ends and the next begins means nothing. The end of the stream is a
    Close frame with 1000, 1001 or no code. Any other end is a `ConnectionLost`, which is a
    `trio.BrokenResourceError`. Closing the stream closes the connection with 1000.

    There is no ``send_eof``, because a WebSocket cannot be closed in one direction: a peer that
    gets a Close frame has to answer it, and sends nothing after that (RFC 6455 section 5.5.1). A
    protocol that needs an answer to its last message has to mark that message itself.

    Args:
        websocket: the connection; no other task should receive from it.
        compress: as for `WebSocket.send`. False suits data that is encrypted or compressed.
    """
    return _WebSocketStream(websocket, compress=compress)


class _Turn:
    """What only one task at a time may do. Like trio's streams, it raises if two try."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._taken = False

    @contextmanager
    def taken(self) -> Generator[None, None, None]:
        if self._taken:
            raise trio.BusyResourceError(f"another task is {self._what} this stream")
        self._taken = True
        try:
            yield
        finally:
            self._taken = False


@final
class _WebSocketStream(trio.abc.Stream):
    def __init__(self, websocket: WebSocket, *, compress: bool | None) -> None:
        self._websocket = websocket
        self._compress = compress
        self._sending = _Turn("sending to")
        self._receiving = _Turn("receiving from")
        #: What is left of the last message.
        self._rest = memoryview(b"")

    async def send_all(self, data: Buffer) -> None:
        """Send all of `data`. If it is cancelled, an unknown part has been sent."""
        view = memoryview(bytes_of(data, "data for a stream is a buffer, such as bytes"))
        with self._sending.taken():
            await self._wait_to_send()
            for start in range(0, len(view), MESSAGE_SIZE):
                piece = view[start : start + MESSAGE_SIZE]
                await self._websocket.send(piece, compress=self._compress)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room in the connection's send buffer."""
        with self._sending.taken():
            await self._wait_to_send()

    async def _wait_to_send(self) -> None:
        await trio.lowlevel.checkpoint()
        await self._websocket._sender.wait_to_send()

    @trio.lowlevel.enable_ki_protection
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes, at least one; ``b""`` at the end of the stream.

        Cancelling it loses nothing.
        """
        if max_bytes is not None:
            if not isinstance(max_bytes, int):
                raise TypeError(f"max_bytes is an int or None, not {max_bytes!r}")
            if max_bytes < 1:
                raise ValueError(f"max_bytes is at least 1, not {max_bytes}")
        with self._receiving.taken():
            await trio.lowlevel.checkpoint()
            if self._websocket._ending.is_ours:
                raise self._websocket._ending.error()
            while not self._rest:
                try:
                    message = await self._websocket.receive()
                except ConnectionEnded:
                    return b""
                self._rest = memoryview(message.encode() if isinstance(message, str) else message)
            size = len(self._rest) if max_bytes is None else max_bytes
            data, self._rest = bytes(self._rest[:size]), self._rest[size:]
            return data

    async def aclose(self) -> None:
        """Close the connection. If it is cancelled, the socket is closed at once."""
        await self._websocket.aclose()

    def __repr__(self) -> str:
        return f"<byte stream over {self._websocket!r}>"
