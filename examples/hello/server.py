"""A greeting server. Run it, then run client.py next to it, or open the page that it names."""

import argparse
import signal
from functools import partial
from pathlib import Path

import trio

from trio_ws import Request, Response, WebSocket, WebSocketServer, serve_websocket

PAGE = Path(__file__).with_name("index.html").read_text("utf-8")


async def hello(ws: WebSocket) -> None:
    async for name in ws:
        print(f"<<< {name!r}")

        greeting = f"Hello {name!s}!"
        await ws.send(greeting)
        print(f">>> {greeting!r}")


def page(request: Request) -> Response | None:
    """The page for a browser; whoever asks for a WebSocket is let through to `hello`."""
    return None if request.is_upgrade else Response.html(PAGE)


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, hello, "localhost", port, process_request=page)
        server: WebSocketServer = await nursery.start(serve)
        print(f"Serving on {server.urls[0]} (Ctrl-C ends it)", flush=True)
        print(f"Open http://localhost:{server.port}/", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of scripts
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        trio.run(main, parser.parse_args().port)
    except* KeyboardInterrupt:
        pass
