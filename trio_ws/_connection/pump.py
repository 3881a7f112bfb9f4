"""Forward from one channel to another: the consumer and the producer pattern in one function."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TypeVar

import trio

T = TypeVar("T")


async def pump(source: AsyncIterable[T], sink: trio.abc.SendChannel[T]) -> None:
    """Send everything that `source` gives to `sink`, until `source` ends.

    With a WebSocket as the source this is the consumer pattern, and with one as the sink the
    producer pattern. Between two WebSockets it is a relay::

        send_channel, receive_channel = trio.open_memory_channel(0)
        async with ws.open_nursery() as nursery:
            nursery.start_soon(pump, ws, send_channel)
            ...

    Neither is closed at the end. If it is cancelled, the one item in hand may be lost.

    Args:
        source: any asynchronous iterable: a WebSocket, a memory channel, a generator.
        sink: any `trio.abc.SendChannel`: a WebSocket, a memory channel.

    Raises:
        What the iteration or the sending raises: for example, a `ConnectionLost` of the source, or
        the `trio.BrokenResourceError` of a sink that no task receives from any more.
    """
    async for item in source:
        await sink.send(item)
