"""Sends text, bytes and JSON to server.py, and prints what comes back."""

import argparse

import trio

from trio_ws import open_websocket_url


async def main(url: str) -> None:
    async with open_websocket_url(url) as ws:
        await ws.send("Hello world!")
        print("text:  ", await ws.receive())

        await ws.send(b"\x00\x01\x02")
        print("binary:", await ws.receive())

        await ws.send_json({"answer": 42})
        print("JSON:  ", await ws.receive_json())

        print(f"a ping takes {1000 * await ws.ping():.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://localhost:8765/")
    trio.run(main, parser.parse_args().url)
