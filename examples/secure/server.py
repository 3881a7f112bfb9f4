"""The greeting server over TLS, with the page of the other one. Run make_certificate.py first."""

import argparse
import signal
import ssl
from functools import partial
from pathlib import Path

import trio

from trio_ws import Request, Response, WebSocket, WebSocketServer, serve_websocket

HERE = Path(__file__).parent
PAGE = (HERE.parent / "hello" / "index.html").read_text("utf-8")


async def hello(ws: WebSocket) -> None:
    async for name in ws:
        print(f"<<< {name!r}")

        greeting = f"Hello {name!s}!"
        await ws.send(greeting)
        print(f">>> {greeting!r}")


def page(request: Request) -> Response | None:
    return None if request.is_upgrade else Response.html(PAGE)


async def main(port: int, certificate: Path) -> None:
    ssl_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ssl_context.load_cert_chain(certificate)
    serve = partial(serve_websocket, hello, "localhost", port, ssl_context=ssl_context)

    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(partial(serve, process_request=page))
        print(f"Serving on {server.urls[0]} (Ctrl-C ends it)", flush=True)
        print(f"Open https://localhost:{server.port}/", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    parser.add_argument("--certificate", type=Path, default=HERE / "server.pem")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of scripts
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        trio.run(main, arguments.port, arguments.certificate)
    except* KeyboardInterrupt:
        pass
