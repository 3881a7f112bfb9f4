"""Speaking to a name at another address, with another Host, from an address of the caller's."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from tests.client.client_helpers import (
    AUTHORITY,
    LOOPBACK,
    open_and_leave,
    redirect,
    tcp_server,
)
from tests.client.proxy_helpers import tunnel_proxy
from tests.handshake.handshake_helpers import request_fields, scripted_tcp_server
from tests.helpers import free_port
from trio_ws import ConnectionFailed, open_websocket_url


async def test_a_host_header_of_the_caller_s_replaces_that_of_the_url() -> None:
    async with scripted_tcp_server(lambda _: b"HTTP/1.1 404 x\r\n\r\n") as (port, requests):
        with pytest.raises(Exception, match="404"):
            await open_and_leave(f"ws://{LOOPBACK}:{port}/", headers={"host": "chat.example"})
    assert requests[0].startswith(b"GET / HTTP/1.1\r\nHost: chat.example\r\n")
    assert requests[0].lower().count(b"host:") == 1


async def test_a_name_is_spoken_to_at_an_address_that_does_not_bear_it(
    trusting: ssl.SSLContext,
) -> None:
    asked: list[str | None] = []
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("chat.example").configure_cert(tls)
    tls.sni_callback = lambda _, name, __: asked.append(name)
    options: Any = {"server_hostname": "chat.example", "headers": {"Host": "chat.example"}}
    async with tcp_server(ssl_context=tls) as server:
        url = f"wss://{LOOPBACK}:{server.port}/"
        async with open_websocket_url(url, ssl_context=trusting, **options) as ws:
            assert ws.request.headers["Host"] == "chat.example"
            await ws.send("hello")
            assert await ws.receive() == "hello"
    assert asked == ["chat.example"]


async def test_another_host_is_not_told_to_another_origin() -> None:
    async with tcp_server() as last:

        def lead_on(head: bytes) -> bytes:
            path = b"/again" if b"GET / " in head else b""
            return redirect("/again" if path else f"ws://{LOOPBACK}:{last.port}/")

        async with scripted_tcp_server(lead_on) as (port, requests):
            options: Any = {"max_redirects": 2, "headers": {"Host": "chat.example"}}
            async with open_websocket_url(f"ws://{LOOPBACK}:{port}/", **options) as ws:
                assert ws.request.headers["Host"] == f"{LOOPBACK}:{last.port}"
    assert [request_fields(head)["Host"] for head in requests] == ["chat.example"] * 2


async def test_a_connection_comes_from_the_address_that_the_caller_chose() -> None:
    async with tcp_server() as server:
        options: Any = {"local_address": "127.0.0.3"}
        async with open_websocket_url(f"ws://{LOOPBACK}:{server.port}/", **options) as ws:
            assert isinstance(ws.local_address, tuple)
            assert ws.local_address[0] == "127.0.0.3"
        async with tunnel_proxy(server.port) as proxy:
            options["proxy"] = proxy.url
            async with open_websocket_url("ws://server.example/", **options) as ws:
                assert isinstance(ws.local_address, tuple)
                assert ws.local_address[0] == "127.0.0.3"
            options["proxy"] = proxy.url.replace("http", "socks5h")
            with pytest.raises(Exception, match="via proxy=socks5h"):
                await open_and_leave("ws://server.example/", open_timeout=0.05, **options)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
async def test_an_address_that_is_not_this_machine_s_is_named(address: str) -> None:
    port = free_port()
    with pytest.raises(ConnectionFailed) as caught:
        await open_and_leave(f"ws://{LOOPBACK}:{port}/", local_address=address)
    assert str(caught.value).startswith(f"cannot connect to {LOOPBACK}:{port} from {address}: ")
