"""The producer pattern: a task makes messages, and the connection sends them.

The producer may be silent for a long time, and would not notice that its listener is gone: there
is nothing to send. `ws.open_nursery()` ends it with the connection.
"""

from itertools import count

import trio

from trio_ws import WebSocket, WebSocketServer, open_websocket_url, pump, serve_websocket


async def produce(news: trio.MemorySendChannel[str]) -> None:
    async with news:
        for number in count(1):
            await news.send(f"news {number}")
            await trio.sleep(0.1 if number < 3 else 3600)


async def handler(ws: WebSocket) -> None:
    send_channel, receive_channel = trio.open_memory_channel[str](0)
    try:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(produce, send_channel)
            await pump(receive_channel, ws)
    finally:
        print(f"the producer has ended: {ws.close_reason}")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve_websocket, handler, "localhost", 0)

        async with open_websocket_url(server.urls[0]) as ws:
            for _ in range(3):
                print(await ws.receive())

        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
