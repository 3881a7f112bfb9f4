"""A counter that all its visitors share: the page at /, its WebSocket at /ws, one port.

Open the page in several tabs, or on several machines, and press the buttons.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import trio

from trio_ws import CloseCode, Request, Response, WebSocket, WebSocketServer, serve_websocket

PAGE = Path(__file__).with_name("index.html").read_bytes()


class Counter:
    """What all connections share. Trio tasks change it without locks: none is interrupted."""

    def __init__(self) -> None:
        self.value = 0
        self.users = 0
        self._changed = trio.Event()

    def change(self, *, value: int = 0, users: int = 0) -> None:
        self.value += value
        self.users += users
        self._changed.set()
        self._changed = trio.Event()

    async def serve(self, ws: WebSocket) -> None:
        self.change(users=+1)
        try:
            async with ws.open_nursery() as nursery:
                nursery.start_soon(self._show, ws)
                await self._obey(ws)
        finally:
            self.change(users=-1)

    async def _show(self, ws: WebSocket) -> None:
        # Each connection has a task of its own here, so a slow one waits in `send_json` alone.
        # Only the newest state matters: what it missed while it waited is not sent later.
        while True:
            changed = self._changed  # noted before the state is, or a change might be missed
            await ws.send_json({"value": self.value, "users": self.users})
            await changed.wait()

    async def _obey(self, ws: WebSocket) -> None:
        async for message in ws:
            match message:
                case "plus":
                    self.change(value=+1)
                case "minus":
                    self.change(value=-1)
                case _:
                    await ws.aclose(CloseCode.UNSUPPORTED_DATA, "say plus or minus")
                    return


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
    serve = partial(serve_websocket, counter.serve, host, port, process_request=answer)
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve)
        print(f"http://{host}:{server.port}/", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    arguments = parser.parse_args()
    problem = None
    try:
        trio.run(main, arguments.host, arguments.port)
    except* KeyboardInterrupt:
        pass
    except* OSError as group:
        problem = f"Cannot serve on port {arguments.port} (try --port 0): {group.exceptions[0]}"
    sys.exit(problem)
