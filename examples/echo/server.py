"""Sends every message back. Run it, then run client.py next to it."""

import argparse
import signal

import trio

from trio_ws import WebSocket, WebSocketServer, serve_websocket


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)
    print(f"{ws.request.path}: {ws.close_reason}")


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve_websocket, echo, "localhost", port)
        print(f"Serving on {server.urls[0]} (Ctrl-C ends it)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of scripts
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        trio.run(main, parser.parse_args().port)
    except* KeyboardInterrupt:
        pass
