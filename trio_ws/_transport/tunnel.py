"""A transport as a trio stream again, so that TLS can run over it.

This module owns what a tunnel looks like that is no plain socket: it leads through TLS to a proxy,
or its first bytes have been read already.
"""

from __future__ import annotations

import trio

from .stream import Transport


class TunnelStream(trio.abc.Stream):
    """The stream at this end of a tunnel.

    It does not show the TLS that leads to the proxy: that says nothing of the server.

    Args:
        transport: what it is read from and written to. It belongs to the stream from now on.
        first: the bytes that were read already.
    """

    def __init__(self, transport: Transport, first: bytes) -> None:
        self._transport = transport
        self._unread = first

    @property
    def socket(self) -> object:
        """The socket under it all, which is asked for its addresses."""
        return getattr(self._transport.below_tls, "socket", None)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._unread:
            await trio.lowlevel.checkpoint()
        else:
            self._unread = await self._transport.receive()
        size = len(self._unread) if max_bytes is None else max_bytes
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._transport.send_all(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._unread = b""
        await self._transport.aclose()
        await trio.lowlevel.checkpoint()
