"""What Quart's documentation makes with WebSockets: an echo, and messages for everybody.

Open the page that it names. Or, as any other program might, post a message:

    curl --json '{"message": "hello from curl"}' http://localhost:8765/api/v2/messages
"""

import argparse
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import trio

from trio_ws import (
    Request,
    Response,
    Router,
    WebSocket,
    WebSocketServer,
    open_broadcast,
    serve_websocket,
)

HERE = Path(__file__).parent
PAGE = (HERE / "index.html").read_text("utf-8")


@asynccontextmanager
async def application() -> AsyncGenerator[Router, None]:
    router = Router()
    router.static("/static", HERE.parent / "static")
    router.live_module("/live.js")

    @router.get("/")
    def index(request: Request) -> str:
        return PAGE

    @router.websocket("/ws")
    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(f"echo {message!s}")

    async with open_broadcast() as broadcast:

        @router.websocket("/api/v2/ws")
        async def listen(ws: WebSocket) -> None:
            # The queue of each client, and the decorator that keeps it for as long as it is here.
            with broadcast.subscribe(ws, "messages"):
                async for message in ws:
                    broadcast.publish(message, "messages")

        @router.post("/api/v2/messages")
        def create(request: Request) -> Response:
            match request.json():  # what is no JSON is answered with 400 or 415
                case {"message": str(message)}:
                    told = broadcast.publish(message, "messages")
                    return Response.json({"told": told}, HTTPStatus.CREATED)
                case _:
                    return Response.json({"error": "send a message"}, HTTPStatus.BAD_REQUEST)

        yield router


async def main(port: int) -> None:
    async with application() as router, trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve_websocket, router, "localhost", port)
        print(f"Open http://localhost:{server.port}/ (Ctrl-C ends it)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of scripts
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        trio.run(main, arguments.port)
    except* KeyboardInterrupt:
        pass
