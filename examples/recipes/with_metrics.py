"""An echo server that shows its numbers to a Prometheus on the same computer."""

import trio

from trio_ws import Request, Response, Router, WebSocket, serve_websocket
from trio_ws.metrics import open_metrics

router = Router()


@router.websocket("/")
async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


def only_from_here(request: Request) -> Response | None:
    here = isinstance(request.remote_address, tuple) and request.remote_address[0] == "127.0.0.1"
    return None if here else Response(403)


async def main() -> None:
    async with open_metrics() as metrics:
        router.get("/metrics", before=only_from_here)(metrics.page)
        await serve_websocket(router, "127.0.0.1", 8765)


if __name__ == "__main__":
    trio.run(main)
