"""`open_test_server`: with a real network, and so in real time."""

from __future__ import annotations

import pytest

from tests.helpers import echo
from tests.in_memory.apps import Oops, fail_at_once
from tests.tls_helpers import tls_contexts
from trio_ws import ConnectionFailed, open_websocket_url
from trio_ws.testing import open_test_server


async def test_a_server_on_a_free_port_of_the_loopback() -> None:
    async with open_test_server(echo) as server:
        assert server.urls == (f"ws://127.0.0.1:{server.port}/",)
        async with open_websocket_url(server.urls[0]) as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
    with pytest.raises(ConnectionFailed):
        async with open_websocket_url(f"ws://127.0.0.1:{server.port}/"):
            raise AssertionError("never reached")


async def test_a_server_with_tls() -> None:
    context, trusting = tls_contexts("localhost")
    async with open_test_server(echo, host="localhost", ssl_context=context) as server:
        url = f"wss://localhost:{server.port}/"
        async with open_websocket_url(url, ssl_context=trusting) as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"


async def test_a_handler_s_error_comes_out_of_a_server_on_a_port() -> None:
    with pytest.raises(Oops):
        async with open_test_server(fail_at_once) as server:
            async with open_websocket_url(server.urls[0]) as ws:
                await ws.receive()


async def test_an_address_that_cannot_be_bound_is_an_os_error() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1|assign"):
        async with open_test_server(echo, host="192.0.2.1"):
            raise AssertionError("never reached")
