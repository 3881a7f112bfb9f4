"""One of several processes that serve a chat over Redis's streams; it may be killed at any time.

    python -m tests.backplane.chat_worker URL PORT

A client sends the position that it has, or nothing. It gets what it missed, then whether that is
all, then what is new. What it sends is published. A gap is told to it, too.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from math import inf

import trio

from tests.helpers import HOST
from trio_ws import Broadcast, WebSocket, open_broadcast, serve_websocket
from trio_ws.backplane import RedisBackplane

TOPIC = "chat"

#: Nobody here is to be disconnected for being slow.
MANY = 100_000


def with_position(message: str | bytes, position: str, topic: str) -> str:
    return json.dumps({"position": position, "message": str(message)})


def tell_gap(broadcast: Broadcast, topic: str | None) -> None:
    for ws in broadcast.subscribers(TOPIC):
        ws.send_nowait(json.dumps({"gap": True}))


async def chat(broadcast: Broadcast, ws: WebSocket) -> None:
    position = await ws.receive_text()
    async with broadcast.subscribe(ws, TOPIC, position=position or None) as subscription:
        await ws.send(json.dumps({"recovered": subscription.recovered}))
        async for message in ws:
            broadcast.publish(message, TOPIC)


async def main(url: str, port: int) -> None:
    backplane = RedisBackplane(url, mode="streams", stream_length=inf)
    async with open_broadcast(
        history=MANY,
        max_recovered=MANY,
        max_queued_messages=MANY,
        max_queued_bytes=inf,
        envelope=with_position,
        on_gap=tell_gap,
        backplane=backplane,
    ) as broadcast:
        await serve_websocket(partial(chat, broadcast), HOST, port)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
