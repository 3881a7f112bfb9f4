"""Applications that fail, for tests of applications in memory."""

from __future__ import annotations

import trio
import trio.testing

from trio_ws import Request, WebSocket


class Oops(Exception):
    """The error of the application."""


async def fail_at_once(ws: WebSocket) -> None:
    raise Oops("at once")


async def fail_after_a_message(ws: WebSocket) -> None:
    await ws.receive()
    raise Oops("after a message")


def tasks_living() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def description(request: Request) -> dict[str, object]:
    return {
        "method": request.method,
        "target": request.target,
        "host": request.headers["Host"],
        "scheme": request.scheme,
        "address": request.remote_address,
        "cookies": request.cookies,
        "type": request.headers.get("Content-Type"),
        "authorization": request.headers.get("Authorization"),
        "body": request.body.decode(),
    }


async def describe(ws: WebSocket) -> None:
    await ws.send_json(description(ws.request))
