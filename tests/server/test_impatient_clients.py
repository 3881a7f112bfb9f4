"""Clients that leave while `process_request` waits are not handed to the handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.helpers import HOST, PATIENCE, REQUEST, TEXT, echo, frame, open_server, reset
from tests.tls_helpers import tls_contexts
from trio_ws import ConnectionLost, WebSocket, WebSocketServer, open_websocket_url


class Gate:
    """A `process_request` that takes its time."""

    def __init__(self) -> None:
        self.entered, self.opens = trio.Event(), trio.Event()
        self.served: list[WebSocket] = []

    async def process_request(self, request: trio_ws.Request) -> None:
        self.entered.set()
        await self.opens.wait()

    async def handler(self, ws: WebSocket) -> None:
        self.served.append(ws)
        await echo(ws)


async def wait_until_refused(server: WebSocketServer) -> None:
    with trio.fail_after(PATIENCE):
        while not server.statistics().refused_total:
            await trio.sleep(0.001)


@pytest.mark.parametrize("how", [trio.SocketStream.aclose, reset])
@pytest.mark.parametrize("with_router", [False, True])
async def test_a_client_that_left_while_process_request_waited_is_not_handed_to_the_handler(
    how: Callable[[trio.SocketStream], Any], with_router: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    gate = Gate()
    router = trio_ws.Router(before=gate.process_request)
    router.websocket("/chat")(gate.handler)
    process_request = None if with_router else gate.process_request
    handler = router if with_router else gate.handler
    async with open_server(handler, process_request=process_request) as server:
        stream = await trio.open_tcp_stream(HOST, server.port)
        await stream.send_all(REQUEST)
        await gate.entered.wait()
        if (leaving := how(stream)) is not None:
            await leaving
        await trio.sleep(0.01)  # the kernel hands it over
        gate.opens.set()
        await wait_until_refused(server)
    assert not gate.served
    assert "left: the client hung up while it was decided whether to let it in" in caplog.text


async def test_a_tls_client_that_left_while_process_request_waited_is_not_handed_over_either() -> (
    None
):
    server_context, client_context = tls_contexts(HOST)
    gate = Gate()
    options: Any = {"ssl_context": server_context, "process_request": gate.process_request}
    async with open_server(gate.handler, **options) as server:
        stream = await trio.open_tcp_stream(HOST, server.port)
        tls = trio.SSLStream(stream, client_context, server_hostname=HOST)
        await tls.send_all(REQUEST)
        await gate.entered.wait()
        await trio.aclose_forcefully(tls)
        await trio.sleep(0.01)
        gate.opens.set()
        await wait_until_refused(server)
        assert not gate.served

        async with open_websocket_url(server.urls[0], ssl_context=client_context) as ws:
            await ws.send("one that stays")
            assert await ws.receive() == "one that stays"


async def test_messages_of_a_client_that_left_are_handed_to_the_handler() -> None:
    gate = Gate()
    received: list[str | bytes] = []

    async def handler(ws: WebSocket) -> None:
        with pytest.raises(ConnectionLost):
            while True:
                received.append(await ws.receive())

    async with open_server(handler, process_request=gate.process_request) as server:
        async with await trio.open_tcp_stream(HOST, server.port) as stream:
            await stream.send_all(REQUEST)
            await gate.entered.wait()
            await stream.send_all(frame(TEXT, b"bye", mask=True))
            await stream.send_eof()
            await trio.sleep(0.01)
            gate.opens.set()
            assert b"101 Switching" in await stream.receive_some()
            while await stream.receive_some():
                pass
    assert received == ["bye"]
