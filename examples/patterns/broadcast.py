"""Broadcast: a counter that all share, and how many of them there are. Nobody waits for anybody.

Whoever presses the button changes the state, and everybody is told. Only the newest state matters,
so a reader that is slow skips those that it has missed.
"""

import json

import trio

from trio_ws import (
    Broadcast,
    Latest,
    WebSocket,
    WebSocketServer,
    open_broadcast,
    open_websocket_url,
    serve_websocket,
)


class Counter:
    def __init__(self, broadcast: Broadcast) -> None:
        self.broadcast = broadcast
        self.value = 0

    async def handler(self, ws: WebSocket) -> None:
        with (
            self.broadcast.subscribe(ws, "state", policy=Latest()),
            self.broadcast.join("state", ws.id, websocket=ws),
        ):
            async for message in ws:
                self.value += int(json.loads(message))
                self.publish()

    def publish(self) -> None:
        users = self.broadcast.presence("state").count
        self.broadcast.publish_json({"value": self.value, "users": users}, "state")

    async def announce_users(self) -> None:
        async for _ in self.broadcast.presence("state"):
            self.publish()


async def main() -> None:
    async with open_broadcast() as broadcast, trio.open_nursery() as nursery:
        counter = Counter(broadcast)
        nursery.start_soon(counter.announce_users)
        server: WebSocketServer = await nursery.start(
            serve_websocket, counter.handler, "localhost", 0
        )
        url = server.urls[0]

        async with open_websocket_url(url) as alice:
            print("Alice sees", await alice.receive_json())
            async with open_websocket_url(url) as bob:
                print("Alice sees", await alice.receive_json())
                await bob.receive_json()
                await bob.send_json(+1)
                print("Bob sees", await bob.receive_json())
                print("Alice sees", await alice.receive_json())
            print("Alice sees", await alice.receive_json())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
