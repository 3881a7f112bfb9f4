"""Servers for clients that open their own stream."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
import trustme

import trio_ws
from tests.helpers import echo
from trio_ws import WebSocketServer, open_websocket_url

LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def tcp_server(
    host: str = LOOPBACK, ssl_context: ssl.SSLContext | None = None, **options: Any
) -> AsyncGenerator[WebSocketServer, None]:
    """An echo server on a port that the system picks, for whatever name it is asked."""
    options = {"hosts": ["*"], **options}
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[WebSocketServer]) -> None:
            await trio_ws.serve_websocket(
                echo, host, 0, ssl_context=ssl_context, task_status=task_status, **options
            )

        server = await nursery.start(serve)
        yield server
        await server.aclose()


async def open_and_leave(url: str, **options: Any) -> None:
    async with open_websocket_url(url, **options):
        pass


class Resolver(trio.abc.HostnameResolver):
    """Names as a test wants them."""

    def __init__(self, look_up: Callable[[str], Any]) -> None:
        self._look_up = look_up

    async def getaddrinfo(  # type: ignore[override] # bytes, from trio
        self, host: bytes, port: int, *args: Any, **kwargs: Any
    ) -> Any:
        await trio.lowlevel.checkpoint()
        address = self._look_up(host.decode())
        if address is None:
            await trio.sleep_forever()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in address.split()]

    async def getnameinfo(self, *args: Any) -> tuple[str, str]:
        raise NotImplementedError


AUTHORITY = trustme.CA()


def redirect(location: str, status: int = 302) -> bytes:
    text = f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    return text.encode("latin-1")
