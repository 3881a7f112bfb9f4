"""Servers of ASGI: `uvicorn websockets-sansio`, `uvicorn wsproto` or `hypercorn`.

The application echoes. The messages of ASGI are dictionaries of anything.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import uvicorn

from tests.interop.messages import describe
from tests.interop.peers.reporting import report

LIMIT = 2_000_000


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        raise NotImplementedError  # which is how ASGI says so, of "lifespan" for example
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        message = event.get("text")
        if message is None:
            message = event["bytes"]
        report("message", **describe(message))
        kind = "text" if isinstance(message, str) else "bytes"
        await send({"type": "websocket.send", kind: message})
    report("closed", code=event["code"], reason=event.get("reason") or "")


def listen() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    report("listening", port=sock.getsockname()[1])
    return sock


def run_uvicorn(protocol: Any) -> None:
    config = uvicorn.Config(
        application, ws=protocol, ws_max_size=LIMIT, log_level="warning", lifespan="off"
    )
    server = uvicorn.Server(config)

    def wait_for_the_end() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    server.run(sockets=[listen()])


async def run_hypercorn() -> None:
    sock = listen()
    config = hypercorn.config.Config()
    config.bind = [f"fd://{sock.detach()}"]
    config.websocket_max_message_size = LIMIT
    config.errorlog = None

    async def wait_for_the_end() -> None:
        await asyncio.to_thread(sys.stdin.read)

    await hypercorn.asyncio.serve(application, config, shutdown_trigger=wait_for_the_end)


if __name__ == "__main__":
    if sys.argv[1] == "hypercorn":
        asyncio.run(run_hypercorn())
    else:
        run_uvicorn(sys.argv[2])
