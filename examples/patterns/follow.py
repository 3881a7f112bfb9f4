"""Following a topic by the live protocol, in a dozen lines: what a page does, without the page.

`follow` comes back as often as it has to, says each time which message it has, and gets those that
it has missed. The server closes each connection after a moment, as servers do that are replaced.
"""

import trio

from trio_ws import Router, WebSocket, WebSocketServer, reconnecting, serve_websocket
from trio_ws.live import Live, open_live

HOURS = ("one", "two", "three", "four", "five", "six", "seven")


async def follow(url: str, topic: str) -> None:
    """Print the messages of a topic up to seven o'clock, and where some are missing."""
    position: str | None = None
    async for link in reconnecting(url, subprotocols=["trio-ws.live.v1"], min_delay=0.05):
        async with link as ws:
            await ws.send_json({"type": "subscribe", "topic": topic, "position": position})
            while True:
                message = await ws.receive_json()
                position = message.get("position", position)
                match message:
                    case {"type": "message", "data": data}:
                        print(data)
                        if "seven" in data:
                            return
                    case {"type": "subscribed", "recovered": False} | {"type": "gap"}:
                        print("(from here on)")
                    case {"type": "error", "reason": reason}:
                        raise PermissionError(reason)
                    case _:
                        pass  # of a later version, or nothing to this client


async def publish(live: Live) -> None:
    for hour in HOURS:
        live.publish(f"It is {hour} o'clock.", "news")
        await trio.sleep(0.1)


async def main() -> None:
    async with open_live() as live, trio.open_nursery() as nursery:
        router = Router()

        @router.websocket("/live", before=live.admit)
        async def for_a_moment(ws: WebSocket) -> None:
            with trio.move_on_after(0.2):
                await live(ws)
            await ws.aclose(1012, "come back")

        server: WebSocketServer = await nursery.start(serve_websocket, router, "localhost", 0)
        nursery.start_soon(publish, live)
        await follow(f"{server.urls[0]}live", "news")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
