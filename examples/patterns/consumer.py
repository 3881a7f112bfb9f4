"""The consumer pattern: many connections, and one task that handles what they send.

Each handler pumps its connection into a memory channel. The channel has little room, so a slow
consumer makes the handlers wait, they make the connections wait, and TCP makes the peers wait.
"""

import trio

from trio_ws import WebSocket, WebSocketServer, open_websocket_url, pump, serve_websocket

READINGS = {"kitchen": ["19.5", "20.0"], "cellar": ["11.0"]}


async def consume(readings: trio.MemoryReceiveChannel[str | bytes]) -> None:
    async with readings:
        async for reading in readings:
            print(f"stored {reading!s}")


async def sensor(url: str, room: str) -> None:
    async with open_websocket_url(url) as ws:
        for degrees in READINGS[room]:
            await ws.send(f"{room}: {degrees} °C")


async def main() -> None:
    send_channel, receive_channel = trio.open_memory_channel[str | bytes](1)

    async def handler(ws: WebSocket) -> None:
        await pump(ws, send_channel)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume, receive_channel)
        server: WebSocketServer = await nursery.start(serve_websocket, handler, "localhost", 0)

        async with trio.open_nursery() as sensors:
            for room in READINGS:
                sensors.start_soon(sensor, server.urls[0], room)

        await server.aclose()  # returns when every handler has: nothing more will be sent
        await send_channel.aclose()  # and with that, the consumer comes to its end


if __name__ == "__main__":
    trio.run(main)
