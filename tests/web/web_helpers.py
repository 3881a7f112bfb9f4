"""A raw HTTP client that keeps its connection, and the site that it talks to."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from tests.handshake.handshake_helpers import (
    MemoryServer,
    RawResponse,
    memory_server,
    parse_response,
    read_head,
)
from trio_ws import Headers, Request, Response, Router, WebSocket

#: No response of these has a body (RFC 9110 section 6.4.1).
BODILESS = (204, 304)


class HTTPClient:
    """One connection: requests as bytes, responses read one by one."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def response(self, *, to_head: bool = False) -> RawResponse:
        head = await read_head(self.stream)
        assert head, "the server hung up instead of answering"
        response = parse_response(head)
        size = int(response.headers.get("Content-Length", "0"))
        if to_head or response.status in BODILESS or response.status < 200:
            size = 0
        body = b""
        while len(body) < size:
            data = await self.stream.receive_some(size - len(body))
            assert data, "the server hung up in the middle of a body"
            body += data
        return RawResponse(response.status, response.phrase, response.headers, body)

    async def ask(self, data: bytes) -> RawResponse:
        await self.send(data)
        return await self.response(to_head=data.startswith(b"HEAD"))

    async def is_hung_up_on(self) -> bool:
        """Whether the server sends nothing more, and has closed."""
        try:
            return await self.stream.receive_some(1) == b""
        except trio.BrokenResourceError:
            return True


def http(line: str = "GET /", body: bytes = b"", **fields: str) -> bytes:
    """A request of HTTP/1.1; ``Content_Length="3"`` is a field, and a body gets one."""
    headers = {"Host": "localhost"}
    if body:
        headers["Content-Length"] = str(len(body))
    headers |= {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [f"{line} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes, line: str = "POST /echo") -> bytes:
    data = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return http(line, Transfer_Encoding="chunked") + data + b"0\r\n\r\n"


class TestSite:
    """Routes of every kind, and what went on behind them."""

    __test__ = False

    def __init__(self) -> None:
        self.router = Router()
        self.entered = trio.Event()
        self.may_leave = trio.Event()
        self.left = False
        router = self.router

        @router.get("/")
        async def index(request: Request) -> str:
            await trio.lowlevel.checkpoint()
            return "<h1>Welcome</h1>"

        @router.post("/echo")
        def echo_body(request: Request) -> Response:
            return Response(200, {"X-Size": str(len(request.body))}, request.body)

        @router.get("/number/<int:number>")
        def number(request: Request, number: int) -> dict[str, int]:
            return {"number": number}

        @router.get("/wait")
        async def wait(request: Request) -> str:
            self.entered.set()
            try:
                await self.may_leave.wait()
            finally:
                self.left = True
            return "waited"

        @router.get("/fail")
        def fail(request: Request) -> str:
            raise RuntimeError("the database is down")

        @router.get("/large")
        def large(request: Request) -> Response:
            return Response(200, body=b"x" * 5_000_000)

        @router.websocket("/ws")
        async def ws(websocket: WebSocket) -> None:
            async for message in websocket:
                await websocket.send(message)


@asynccontextmanager
async def open_site(
    router: Router | None = None, **options: Any
) -> AsyncGenerator[tuple[MemoryServer, HTTPClient], None]:
    """A server in memory, and a client that is connected to it."""
    async with memory_server(router or TestSite().router, **options) as server:
        client = HTTPClient(server.connect())
        async with client.stream:
            yield server, client


def fields(response: RawResponse) -> Headers:
    return response.headers
