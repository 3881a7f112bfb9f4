"""The client that Autobahn's fuzzing server tests: one connection for each case, then the report.

python -m tests.conformance.echo_client ws://127.0.0.1:9001 trio_ws
python -m tests.conformance.echo_client wss://127.0.0.1:9001 trio_ws AUTHORITY
"""

from __future__ import annotations

import math
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from trio_ws import ConnectionClosed, Deflate, WebSocket, open_websocket_url


@asynccontextmanager
async def connect(url: str, context: ssl.SSLContext | None) -> AsyncGenerator[WebSocket, None]:
    async with open_websocket_url(
        url,
        ssl_context=context,
        max_message_size=math.inf,  # 9.* sends 16 MiB
        compression=Deflate(threshold=0),  # what is agreed on is to be used
        ping_interval=math.inf,  # a ping of ours would be an answer that no case expects
        open_timeout=60,
        close_timeout=60,  # longer than Autobahn waits: closing in time is its to judge
    ) as websocket:
        yield websocket


async def run_case(url: str, context: ssl.SSLContext | None) -> None:
    try:
        async with connect(url, context) as websocket:
            async for message in websocket:
                await websocket.send(message)
    except ConnectionClosed:
        pass  # most cases break the protocol: Autobahn judges what we make of it


async def main(arguments: list[str]) -> None:
    server, agent, *authority = arguments
    context = ssl.create_default_context(cafile=authority[0]) if authority else None
    async with connect(f"{server}/getCaseCount", context) as websocket:
        cases = int(await websocket.receive())
    for number in range(1, cases + 1):
        await run_case(f"{server}/runCase?case={number}&agent={agent}", context)
    # Autobahn writes the report before it closes this connection.
    async with connect(f"{server}/updateReports?agent={agent}", context) as websocket:
        await websocket.wait_closed()


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
