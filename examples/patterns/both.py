"""Both at once: a chat. Each connection receives and sends, and neither waits for the other.

What a connection has to send waits in a memory channel of its own. It is filled without waiting,
so that one slow listener holds up nobody: where the channel is full, that listener misses a line.
"""

from contextlib import suppress

import trio

from trio_ws import WebSocket, WebSocketServer, open_websocket_url, pump, serve_websocket

Line = str | bytes


class Chat:
    def __init__(self) -> None:
        self.members: set[trio.MemorySendChannel[Line]] = set()

    async def handler(self, ws: WebSocket) -> None:
        send_channel, receive_channel = trio.open_memory_channel[Line](100)
        self.members.add(send_channel)
        try:
            async with ws.open_nursery() as nursery:
                nursery.start_soon(pump, receive_channel, ws)  # what the others say
                async for line in ws:
                    self.say(line)
        finally:
            self.members.remove(send_channel)

    def say(self, line: Line) -> None:
        for member in self.members:
            with suppress(trio.WouldBlock):
                member.send_nowait(line)


async def main() -> None:
    chat = Chat()
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve_websocket, chat.handler, "localhost", 0)
        url = server.urls[0]

        async with open_websocket_url(url) as alice, open_websocket_url(url) as bob:
            await alice.send("Alice: is anybody here?")
            print("Bob hears", repr(await bob.receive()))
            await bob.send("Bob: I am!")
            print("Alice hears", repr(await alice.receive()), "and", repr(await alice.receive()))

        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
