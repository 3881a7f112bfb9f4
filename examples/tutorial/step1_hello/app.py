"""A server that greets."""

from trio_ws import WebSocket


async def handler(ws: WebSocket) -> None:
    async for name in ws:
        await ws.send(f"Hello, {name!s}!")
