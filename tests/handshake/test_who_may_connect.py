"""Whose pages may connect, and which hosts a server answers to: the options origins and hosts."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
import trio

import trio_ws
from tests.handshake.handshake_helpers import (
    memory_server,
    parse_response,
    read_all,
    read_head,
    request,
)
from tests.helpers import echo
from trio_ws import Request, Response

# ---------------------------------------------------------------------------
# Origins
# ---------------------------------------------------------------------------


EXACT = "https://example.org"
SAME = "same-origin"
PATTERN = re.compile(r"https://[a-z]+\.example\.org")


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        ("*", None, 101),
        ("*", "null", 101),
        ("*", "https://evil.example", 101),
        (["*"], "https://evil.example", 101),
        ([SAME, "null"], "null", 101),
        ([SAME, EXACT], "http://localhost", 101),
        ([SAME, EXACT], EXACT, 101),
        ([SAME], None, 403),
        ([EXACT], EXACT, 101),
        ([EXACT], "HTTPS://Example.ORG", 101),
        ([EXACT], "https://example.org.evil.example", 403),
        ([EXACT], "http://example.org", 403),
        ([EXACT], "null", 403),
        ([EXACT], "", 403),
        ([EXACT], None, 403),
        ([PATTERN], "https://www.example.org", 101),
        ([PATTERN], "https://www.example.org.evil.example", 403),
        ([PATTERN], "x https://www.example.org", 403),
        ([PATTERN], None, 403),
        ([EXACT, PATTERN, None], None, 101),
        ([EXACT, PATTERN, None], "https://a.example.org", 101),
        ([None], EXACT, 403),
        ([], None, 403),
        ([], EXACT, 403),
    ],
)
async def test_the_origin_policy_decides(
    origins: list[Any] | str, origin: str | None, status: int
) -> None:
    async with memory_server(origins=origins) as server, server.connect() as stream:
        await stream.send_all(request(Origin=origin))
        response = parse_response(await read_head(stream))
        assert response.status == status
        if status == 403:
            body = await read_all(stream)
            who = "requests without an Origin" if origin is None else f"pages of {origin}"
            wanted = f"{who} may not connect to localhost: see the server's option origins="
            assert body.decode() == wanted + "\n"


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        (None, "example.org", 101),
        ("https://example.org", "example.org", 101),
        ("http://example.org", "example.org", 101),
        ("HTTPS://Example.org", "EXAMPLE.org", 101),
        ("https://example.org", "example.org:443", 101),
        ("https://example.org:443", "example.org", 101),
        ("https://example.org", "example.org:", 101),
        ("http://localhost:8765", "localhost:8765", 101),
        ("http://[::1]:8765", "[::1]:8765", 101),
        ("https://[2001:DB8::1]", "[2001:db8::1]:443", 101),
        ("http://localhost:8000", "localhost:8765", 403),
        ("http://localhost", "127.0.0.1", 403),
        ("http://example.org", "example.org:443", 403),
        ("https://example.org.evil.example", "example.org", 403),
        ("https://evil.example/example.org", "example.org", 403),
        ("https://www.example.org", "example.org", 403),
        ("https://[::1]", "[::2]", 403),
        ("null", "example.org", 403),
        ("null", "null", 403),
        ("file://", "example.org", 403),
        ("chrome-extension://example.org", "example.org", 403),
        ("example.org", "example.org", 403),
        ("", "example.org", 403),
        ("https://", "example.org", 403),
    ],
)
async def test_by_default_pages_of_the_host_that_they_connect_to_are_let_in(
    origin: str | None, host: str, status: int
) -> None:
    async with memory_server() as server, server.connect() as stream:
        await stream.send_all(request(Origin=origin, Host=host))
        assert parse_response(await read_head(stream)).status == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("X-Forwarded-Host", "example.org")], 101),
        ([("X-Forwarded-Host", "evil.example, example.org")], 101),
        ([("X-Forwarded-Host", "example.org, inner.example")], 403),
        ([("X-Forwarded-Host", "exa mple.org")], 403),
        ([("Forwarded", "for=192.0.2.1;host=example.org")], 403),
        ([], 403),
    ],
)
async def test_a_trusted_proxy_says_which_host_was_asked_for(
    fields: list[tuple[str, str]], status: int
) -> None:
    data = request(
        "GET / HTTP/1.1", *fields, Origin="https://example.org", Host="inner.example:8765"
    )
    async with memory_server(trusted_proxies=["unix"]) as server, server.connect() as stream:
        await stream.send_all(data)
        assert parse_response(await read_head(stream)).status == status
    async with memory_server() as server, server.connect() as stream:
        await stream.send_all(data)
        assert parse_response(await read_head(stream)).status == 403


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ('for=192.0.2.1;host="example.org:443"', 101),
        ("host=evil.example, for=192.0.2.1;host=example.org", 101),
        ("host=example.org, for=192.0.2.1;host=evil.example", 403),
        ('host="exa mple.org"', 403),
        ("for=192.0.2.1", 403),
    ],
)
async def test_a_trusted_proxy_says_in_forwarded_which_host_was_asked_for(
    value: str, status: int
) -> None:
    options: dict[str, Any] = {"trusted_proxies": ["unix"], "proxy_header": "Forwarded"}
    data = request(
        "GET / HTTP/1.1", ("Forwarded", value), Origin="https://example.org", Host="inner.example"
    )
    async with memory_server(**options) as server, server.connect() as stream:
        await stream.send_all(data)
        assert parse_response(await read_head(stream)).status == status


# ---------------------------------------------------------------------------
# Hosts
# ---------------------------------------------------------------------------


async def test_a_host_that_the_server_does_not_answer_to_is_told_so() -> None:
    def page(request: Request) -> Response | None:
        return None if request.is_upgrade else Response(200)

    options: dict[str, Any] = {"hosts": ["example.org"], "process_request": page}
    get = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n"
    for host, websocket, plain in (("example.org:80", 101, 200), ("evil.example", 421, 421)):
        for data, status in ((request(Host=host), websocket), (get % host.encode(), plain)):
            async with memory_server(**options) as server, server.connect() as stream:
                await stream.send_all(data)
                assert parse_response(await read_head(stream)).status == status
                if status == 421:
                    assert (await read_all(stream)).decode() == (
                        "this server does not answer to the host evil.example: "
                        "see its option hosts=\n"
                    )


@pytest.mark.parametrize(
    ("options", "host", "status"),
    [
        ({}, "localhost:8765", 101),
        ({}, "demo.localhost", 101),
        ({}, "127.0.0.2", 101),
        ({}, "[::1]:80", 101),
        ({}, "evil.example", 421),
        ({}, "localhost.evil.example", 421),
        ({}, "192.0.2.1", 421),
        ({"hosts": "*"}, "evil.example", 101),
        ({"hosts": ["*"]}, "evil.example", 101),
        ({"hosts": ["example.org"]}, "localhost", 421),
        ({"trusted_proxies": ["127.0.0.1"]}, "example.org", 101),
    ],
)
async def test_a_server_on_loopback_answers_to_loopback_names_by_default(
    options: dict[str, Any], host: str, status: int
) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(trio_ws.serve_websocket, **options)
        server: trio_ws.WebSocketServer = await nursery.start(serve, echo, "localhost", 0)
        async with await trio.open_tcp_stream("localhost", server.port) as stream:
            await stream.send_all(request(Host=host))
            assert parse_response(await read_head(stream)).status == status
        await server.aclose()


async def test_a_server_on_every_interface_answers_to_every_host_by_default() -> None:
    async with trio.open_nursery() as nursery:
        server: trio_ws.WebSocketServer = await nursery.start(
            trio_ws.serve_websocket, echo, "0.0.0.0", 0
        )
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(request(Host="example.org"))
            assert parse_response(await read_head(stream)).status == 101
        await server.aclose()
