"""Catching up: a client that loses its connection comes back and is sent what it has missed.

The envelope gives each message its position. The client remembers that of the last that it saw and
gives it back when it returns, here as the query of the URL. Where not all that came after it is
kept, it is told so.
"""

import json

import trio

from trio_ws import (
    Broadcast,
    WebSocket,
    WebSocketServer,
    open_broadcast,
    open_websocket_url,
    serve_websocket,
)


def envelope(message: str | bytes, position: str, topic: str) -> str:
    return json.dumps({"position": position, "text": str(message)})


class News:
    def __init__(self, broadcast: Broadcast) -> None:
        self.broadcast = broadcast

    async def handler(self, ws: WebSocket) -> None:
        position = ws.request.query or None
        async with self.broadcast.subscribe(ws, "news", position=position) as subscription:
            if position and not subscription.recovered:
                await ws.send_json({"text": "(there was more)"})
            async for _ in ws:
                pass  # nothing is expected, but this notices the end


async def read(url: str, count: int) -> str:
    """Print some messages, and give the position of the last."""
    last = ""
    async with open_websocket_url(url) as ws:
        for _ in range(count):
            message = await ws.receive_json()
            last = message.get("position", last)
            print(message["text"])
    return last


async def main() -> None:
    async with (
        open_broadcast(history=3, envelope=envelope) as broadcast,
        trio.open_nursery() as nursery,
    ):
        server: WebSocketServer = await nursery.start(
            serve_websocket, News(broadcast).handler, "localhost", 0
        )
        url = server.urls[0]
        broadcast.publish("It is one o'clock.", "news")
        last = await read(url, 1)
        for hour in ("two", "three"):
            broadcast.publish(f"It is {hour} o'clock.", "news")
        last = await read(f"{url}?{last}", 2)
        for hour in ("four", "five", "six", "seven"):
            broadcast.publish(f"It is {hour} o'clock.", "news")
        await read(f"{url}?{last}", 4)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
