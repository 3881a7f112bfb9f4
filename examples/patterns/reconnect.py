"""Coming back: a client that reconnects as often as it has to, and misses nothing.

The server closes each connection after a moment, as servers do that are replaced. The client says
in the URL which message it saw last. That is a function, so it is up to date at each attempt.
"""

import json

import trio

from trio_ws import (
    Broadcast,
    WebSocket,
    WebSocketServer,
    open_broadcast,
    reconnecting,
    serve_websocket,
)

HOURS = ("one", "two", "three", "four", "five", "six", "seven")


def envelope(message: str | bytes, position: str, topic: str) -> str:
    return json.dumps({"position": position, "text": str(message)})


class News:
    def __init__(self, broadcast: Broadcast) -> None:
        self.broadcast = broadcast

    async def handler(self, ws: WebSocket) -> None:
        async with self.broadcast.subscribe(ws, "news", position=ws.request.query or None):
            with trio.move_on_after(0.2):
                await ws.wait_closed()
            await ws.aclose(1012, "come back")

    async def publish(self) -> None:
        for hour in HOURS:
            self.broadcast.publish(f"It is {hour} o'clock.", "news")
            await trio.sleep(0.1)


async def follow(url: str) -> None:
    """Print the news up to seven o'clock."""
    last = ""

    def where() -> str:
        return f"{url}?{last}"

    async for link in reconnecting(where, min_delay=0.05):
        async with link as ws:
            async for data in ws:
                message = json.loads(data)
                last = message["position"]
                print(message["text"])
                if "seven" in message["text"]:
                    return


async def main() -> None:
    async with (
        open_broadcast(history=10, envelope=envelope) as broadcast,
        trio.open_nursery() as nursery,
    ):
        news = News(broadcast)
        server: WebSocketServer = await nursery.start(serve_websocket, news.handler, "localhost", 0)
        nursery.start_soon(news.publish)
        await follow(server.urls[0])
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
