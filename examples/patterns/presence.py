"""Presence: all in the lobby see who is there, over all processes if there is a backplane.

Whoever is asked to come back, in a restart, stays in the list until the client is there again.
"""

import trio

from trio_ws import (
    Broadcast,
    WebSocket,
    WebSocketServer,
    open_broadcast,
    open_websocket_url,
    serve_websocket,
)


async def lobby(ws: WebSocket, broadcast: Broadcast) -> None:
    async def show() -> None:
        async for snapshot in broadcast.presence("lobby"):
            await ws.send_json({"here": sorted(snapshot.members), "new": list(snapshot.joined)})

    user = ws.request.query_params["user"]  # who it is really, an authentication has to say
    with broadcast.join("lobby", user, {"typing": False}, websocket=ws):
        async with ws.open_nursery() as nursery:
            nursery.start_soon(show)
            async for _ in ws:
                pass


async def main() -> None:
    async with open_broadcast() as broadcast, trio.open_nursery() as nursery:

        async def handler(ws: WebSocket) -> None:
            await lobby(ws, broadcast)

        server: WebSocketServer = await nursery.start(serve_websocket, handler, "localhost", 0)
        url = server.urls[0]

        async with open_websocket_url(f"{url}?user=alice") as alice:
            print("Alice sees", await alice.receive_json())
            async with open_websocket_url(f"{url}?user=bob") as bob:
                print("Bob sees", await bob.receive_json())
                print("Alice sees", await alice.receive_json())
            print("Alice sees", await alice.receive_json())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
