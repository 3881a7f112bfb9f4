"""A counter that all its visitors share: the page at /, its WebSocket at /ws, one port.

Open the page in several tabs, or on several machines, and press the buttons.
"""

import argparse
import signal
import sys
from functools import partial
from pathlib import Path

import trio

from trio_ws import (
    Broadcast,
    CloseCode,
    Latest,
    Request,
    Response,
    WebSocket,
    WebSocketServer,
    open_broadcast,
    serve_websocket,
)

PAGE = Path(__file__).with_name("index.html").read_bytes()


class Counter:
    """What all connections share. Trio tasks change it without locks: none is interrupted."""

    def __init__(self) -> None:
        self.value = 0

    async def serve(self, ws: WebSocket, broadcast: Broadcast) -> None:
        with broadcast.subscribe(ws, "counter"):
            async for message in ws:
                match message:
                    case "plus":
                        self.value += 1
                    case "minus":
                        self.value -= 1
                    case _:
                        await ws.aclose(CloseCode.UNSUPPORTED_DATA, "say plus or minus")
                        return
                self.show(broadcast, "counter")

    def show(self, broadcast: Broadcast, topic: str) -> None:
        """Tell everybody; also called when somebody has come or gone."""
        broadcast.publish_json({"value": self.value, "users": len(broadcast)}, topic)


def answer(request: Request) -> Response | None:
    """The page, and nothing else, for whoever does not ask for the WebSocket."""
    if request.path == "/ws":
        return None
    if request.path == "/":
        headers = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-cache"}
        return Response(200, headers, PAGE)
    return Response(404, body="There is nothing here.\n")


async def main(host: str, port: int) -> None:
    counter = Counter()
    # Who is slow gets the newest state, and not all those that it missed.
    async with (
        open_broadcast(policy=Latest(), on_change=counter.show) as broadcast,
        trio.open_nursery() as nursery,
    ):
        handler = partial(counter.serve, broadcast=broadcast)
        serve = partial(serve_websocket, handler, host, port, process_request=answer)
        server: WebSocketServer = await nursery.start(serve)
        print(f"http://{host}:{server.port}/", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    arguments = parser.parse_args()
    problem = None
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        trio.run(main, arguments.host, arguments.port)
    except* KeyboardInterrupt:
        pass
    except* OSError as group:
        problem = f"Cannot serve on port {arguments.port} (try --port 0): {group.exceptions[0]}"
    sys.exit(problem)
