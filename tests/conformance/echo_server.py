"""The server that Autobahn's fuzzing client tests: an echo without limits in its way.

python -m tests.conformance.echo_server [CHAIN KEY]

Prints its URL as the first line and serves until it is ended. With the files of a certificate,
it serves TLS.
"""

from __future__ import annotations

import math
import ssl
import sys

import trio

from trio_ws import ConnectionClosed, Deflate, WebSocket, WebSocketServer, serve_websocket


async def echo(websocket: WebSocket) -> None:
    try:
        async for message in websocket:
            await websocket.send(message)
    except ConnectionClosed:
        pass  # most cases break the protocol: Autobahn judges what we make of it


async def main(certificate: list[str]) -> None:
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve, context)
        sys.stdout.write(server.urls[0] + "\n")
        sys.stdout.flush()


async def serve(
    context: ssl.SSLContext | None, task_status: trio.TaskStatus[WebSocketServer]
) -> None:
    await serve_websocket(
        echo,
        "127.0.0.1",
        0,
        ssl_context=context,
        task_status=task_status,
        max_message_size=math.inf,  # 9.* sends 16 MiB
        compression=Deflate(threshold=0),  # what is agreed on is to be used
        ping_interval=math.inf,  # a ping of ours would be an answer that no case expects
        open_timeout=60,
        close_timeout=60,  # longer than Autobahn waits: closing in time is its to judge
    )


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
