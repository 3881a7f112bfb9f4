"""A greeting server. Run it, then run client.py next to it."""

import argparse

import trio

from trio_ws import WebSocket, WebSocketServer, serve_websocket


async def hello(ws: WebSocket) -> None:
    name = await ws.receive()
    print(f"<<< {name!r}")

    greeting = f"Hello {name!s}!"
    await ws.send(greeting)
    print(f">>> {greeting!r}")


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve_websocket, hello, "localhost", port)
        print(f"Serving on {server.urls[0]} (Ctrl-C ends it)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    try:
        trio.run(main, parser.parse_args().port)
    except* KeyboardInterrupt:
        pass
