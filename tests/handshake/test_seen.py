"""Requests and responses of the handshake, as hooks, handlers and clients see them."""

from __future__ import annotations

import pytest
import trio

from tests.helpers import HOST
from trio_ws import Accept, Address, Request, Response, Router, WebSocket, open_websocket_url
from trio_ws.testing import open_test_server


@pytest.mark.parametrize("host", [HOST, "localhost"])
async def test_hooks_and_handlers_see_the_address_that_a_client_came_to(host: str) -> None:
    asked: list[Address] = []

    def remember(request: Request) -> None:
        asked.append(request.local_address)

    async def tell(ws: WebSocket) -> None:
        await ws.send_json([ws.local_address, ws.request.local_address, ws.remote_address])

    async with (
        open_test_server(tell, process_request=remember) as server,
        open_websocket_url(f"ws://{host}:{server.port}/") as ws,
    ):
        local, requested, remote = await ws.receive_json()
        assert local == requested == list(asked[0] or ()) == list(ws.remote_address or ())
        assert remote == list(ws.local_address or ())
        assert local[1] == server.port
        assert ws.request.local_address == ws.local_address


async def test_a_page_is_told_the_address_that_it_was_asked_at() -> None:
    router = Router()

    @router.get("/")
    async def where(request: Request) -> Response:
        return Response.json(request.local_address)

    async with open_test_server(router) as server:
        stream = await trio.open_tcp_stream(HOST, server.port)
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            data = b"".join([piece async for piece in stream])
        assert data.endswith(f'["{HOST}", {server.port}]'.encode())


async def test_both_sides_see_all_of_the_101_that_opened_the_connection() -> None:
    def accept(request: Request) -> Accept:
        return Accept(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])

    seen: list[Response] = []

    async def look(ws: WebSocket) -> None:
        seen.append(ws.response)
        await ws.receive()

    async with (
        open_test_server(
            look, process_request=accept, subprotocols=["chat"], headers={"X-A": "b"}
        ) as server,
        open_websocket_url(server.urls[0], subprotocols=["chat"]) as ws,
    ):
        assert (ws.response.status, ws.response.phrase) == (101, "Switching Protocols")
        assert ws.response.headers.get_all("Set-Cookie") == ("a=1", "b=2")
        assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]
        for name in ("Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Server", "X-A"):
            assert name in ws.response.headers
    assert seen == [ws.response]
