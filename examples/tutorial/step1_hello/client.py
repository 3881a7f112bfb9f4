"""A client that says hello."""

import trio

from trio_ws import open_websocket_url


async def main() -> None:
    async with open_websocket_url("ws://localhost:8765") as ws:
        await ws.send("Ada")
        with trio.fail_after(5):
            print(await ws.receive())


if __name__ == "__main__":
    trio.run(main)
