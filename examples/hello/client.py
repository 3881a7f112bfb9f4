"""Says its name to server.py and prints the greeting."""

import argparse

import trio

from trio_ws import open_websocket_url


async def main(url: str, name: str) -> None:
    async with open_websocket_url(url) as ws:
        await ws.send(name)
        print(f">>> {name!r}")

        greeting = await ws.receive()
        print(f"<<< {greeting!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://localhost:8765/")
    parser.add_argument("--name", default="trio")
    arguments = parser.parse_args()
    trio.run(main, arguments.url, arguments.name)
