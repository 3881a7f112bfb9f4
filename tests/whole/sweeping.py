"""A conversation that uses every part of a connection, for sweeps over each of its steps."""

from __future__ import annotations

from trio_ws import WebSocket


async def converse(ws: WebSocket) -> None:
    await ws.send("text" * 100)
    assert await ws.receive() == "text" * 100
    async with ws.open_message("binary") as writer:
        await writer.send(b"a")
        await writer.send(b"b")
    async with ws.receive_message() as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"ab"  # type: ignore[misc]
    await ws.ping()
    await ws.aclose(4000, "done")
