"""The server's side of the opening handshake: answers to good requests."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.handshake.handshake_helpers import (
    ACCEPT,
    FIELDS,
    memory_server,
    parse_response,
    read_all,
    read_head,
    request,
)
from tests.handshake.requests import GOOD
from tests.helpers import close_frame, echo, frame
from trio_ws import Accept, Request, WebSocket
from trio_ws._http.exchange import MAX_HEAD_BYTES
from trio_ws.testing import MemoryListener

# ---------------------------------------------------------------------------
# Requests that are accepted
# ---------------------------------------------------------------------------


ACCEPTED = {
    "the plain one": GOOD,
    "Connection over two lines": request(
        "GET / HTTP/1.1", ("Connection", "Upgrade"), Connection="keep-alive"
    ),
    "Connection: keep-alive, Upgrade": request(Connection="keep-alive, Upgrade"),
    "tokens in any case": request(Upgrade="WebSocket", Connection="UPGRADE"),
    "Upgrade: websocket, x": request(Upgrade="websocket, x"),
    "names in any case": GOOD.replace(b"Upgrade:", b"uPgRaDe:").replace(b"Sec-", b"SEC-"),
    "empty lines before it": b"\r\n\n\r\n" + GOOD,
    "a target that is a whole URL": request("GET http://example.org/ HTTP/1.1"),
    "HTTP/1.2": request("GET / HTTP/1.2"),
    "bare line feeds": GOOD.replace(b"\r\n", b"\n"),
    "no white space after colons": GOOD.replace(b": ", b":"),
    "white space around values": GOOD.replace(b": ", b":\t  ").replace(b"\r\nC", b" \t\r\nC"),
    "Content-Length: 0": request("GET / HTTP/1.1", ("Content-Length", "0")),
    "a folded header": request(Cookie="a=1;\r\n b=2"),
    "bytes beyond ASCII in a Cookie": request(Cookie="a=\xff\x80é"),
    "a Host with a port": request(Host="example.org:8080"),
    "an IPv6 Host": request(Host="[::1]:8080"),
    "an IDNA 2008 Host": request(Host="xn--fa-hia.de"),
    "an emoji Host": request(Host="XN--I-7iq.ws:443"),
    "a Host with an underscore": request(Host="my_service:80"),
    "exactly 16 KiB": request("GET / HTTP/1.1", ("X", "y" * (MAX_HEAD_BYTES - len(GOOD) - 5))),
    "exactly 128 fields": request("GET / HTTP/1.1", *[("X", "y")] * (128 - len(FIELDS))),
    "the Origin of a page of this host": request(Origin="http://localhost"),
    "an empty list of subprotocols": request(Sec_WebSocket_Protocol=""),
    "a subprotocol that is no name": request(Sec_WebSocket_Protocol="https://example.org/chat"),
    "an IPv6 Host with a zone": request(Host="[fe80::1%25eth0]:8080"),
}


@pytest.mark.parametrize("data", ACCEPTED.values(), ids=ACCEPTED.keys())
async def test_a_good_request_is_accepted(data: bytes) -> None:
    async with memory_server() as server, server.connect() as stream:
        await stream.send_all(data)
        response = parse_response(await read_head(stream))
        assert (response.status, response.phrase) == (101, "Switching Protocols")
        assert response.headers.fields == (
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", ACCEPT),
            ("Server", f"trio_ws/{trio_ws.__version__}"),
        )


ODD_STARTS = ["exactly 16 KiB", "empty lines before it"]


@pytest.mark.autojump  # 16 KiB of single bytes take seconds, and a head has only ten
@pytest.mark.parametrize("data", [GOOD, *map(ACCEPTED.get, ODD_STARTS)], ids=["short", *ODD_STARTS])
async def test_a_request_may_come_one_byte_at_a_time(data: bytes) -> None:
    async with memory_server() as server, server.connect() as stream:
        for number in range(len(data)):
            await stream.send_all(data[number : number + 1])
        assert parse_response(await read_head(stream)).status == 101


@pytest.mark.parametrize("cut", [1, 3, 50])
async def test_a_request_may_come_in_pieces_of_a_real_socket(cut: int) -> None:
    async with trio.open_nursery() as nursery:
        server: trio_ws.WebSocketServer = await nursery.start(
            trio_ws.serve_websocket, echo, "127.0.0.1", 0
        )
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            for start in range(0, len(GOOD), cut):
                await stream.send_all(GOOD[start : start + cut])
            assert parse_response(await read_head(stream)).status == 101
        await server.aclose()


#: Offers of extensions as they should not be; each is declined, whatever it holds.
EXTENSIONS = [
    "permessage-deflate; client_max_window_bits=7",
    "permessage-deflate; client_max_window_bits=99999999999999999999",
    "permessage-deflate; server_max_window_bits",
    "permessage-deflate; no_such_parameter",
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    'permessage-deflate; server_max_window_bits="10"',
    'permessage-deflate; x="a, b; c',
    "permessage-deflat",
    "x-webkit-deflate-frame, permessage-bzip2",
    ";;;,,,===",
    '"',
    "a=b; =c",
    ", ," * 1000,
]


@pytest.mark.parametrize("offer", EXTENSIONS)
async def test_an_odd_offer_of_extensions_is_declined(offer: str) -> None:
    async with memory_server() as server, server.connect() as stream:
        await stream.send_all(request(Sec_WebSocket_Extensions=offer))
        response = parse_response(await read_head(stream))
        assert response.status == 101
        assert "Sec-WebSocket-Extensions" not in response.headers
        assert await server.serves()


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("http://other.example/a%20b?c=d", "/a%20b?c=d", "other.example"),
        ("HTTP://other.example:8080/", "/", "other.example:8080"),
        ("ws://other.example/a//b?c?d", "/a//b?c?d", "other.example"),
        ("http://other.example", "/", "other.example"),
        ("http://other.example?a=b", "/?a=b", "other.example"),
        ("http://[::1]:80//x", "//x", "[::1]:80"),
    ],
)
async def test_a_target_that_is_a_whole_url_says_the_host(
    target: str, path: str, host: str
) -> None:
    asked: list[Request] = []
    async with memory_server(process_request=asked.append) as server, server.connect() as stream:
        await stream.send_all(request(f"GET {target} HTTP/1.1", ("X", "y"), Host="example.org"))
        assert parse_response(await read_head(stream)).status == 101
    [seen] = asked
    assert (seen.target, seen.headers.get_all("Host")) == (path, (host,))
    assert (seen.scheme, seen.headers["X"]) == ("ws", "y")


@pytest.mark.parametrize("scheme", ["https", "wss", "http"])
async def test_a_target_that_asks_for_tls_is_served_over_tls_and_behind_a_proxy_that_has_it(
    scheme: str, server_tls: ssl.SSLContext
) -> None:
    data = request(f"GET {scheme}://example.org/a HTTP/1.1", ("X-Forwarded-Proto", "https"))
    async with memory_server(trusted_proxies=["unix"]) as server, server.connect() as stream:
        await stream.send_all(data)
        assert parse_response(await read_head(stream)).status == 101

    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        tls = [trio.SSLListener(listener, server_tls)]
        over_tls: trio_ws.WebSocketServer = await nursery.start(trio_ws.serve_listeners, echo, tls)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        async with trio.SSLStream(listener.connect(), client) as secure:
            await secure.send_all(data)
            assert parse_response(await read_head(secure)).status == 101
        await over_tls.aclose()


async def test_the_handler_sees_the_request_as_it_was_sent() -> None:
    seen: list[WebSocket] = []

    async def handler(websocket: WebSocket) -> None:
        seen.append(websocket)

    async with memory_server(handler) as server:
        data = request("GET /a%20b?c=d HTTP/1.1", ("Cookie", "a=\xff"), ("cookie", "b=1"))
        async with server.connect() as stream:
            await stream.send_all(data)
            await read_head(stream)
    [websocket] = seen
    asked = websocket.request
    assert (asked.method, asked.target, asked.path, asked.query) == (
        ("GET", "/a%20b?c=d", "/a b", "c=d")
    )
    assert asked.headers.get_all("Cookie") == ("a=\xff", "b=1")
    assert asked.headers.fields[: len(FIELDS)] == tuple(FIELDS.items())
    assert websocket.response.status == 101


# ---------------------------------------------------------------------------
# Frames right behind the request
# ---------------------------------------------------------------------------


async def test_frames_in_the_segment_of_the_request_are_echoed() -> None:
    async with memory_server() as server, server.connect() as stream:
        await stream.send_all(GOOD + frame(1, b"one") + frame(2, b"two") + frame(1, b"3")[:4])
        assert parse_response(await read_head(stream)).status == 101
        wanted = frame(1, b"one", mask=False) + frame(2, b"two", mask=False)
        received = b""
        while len(received) < len(wanted):
            received += await stream.receive_some()
        assert received == wanted


@pytest.mark.parametrize(
    ("behind", "code"),
    [
        (close_frame(1000), 1000),
        (frame(3, b"reserved"), 1002),
        (frame(1, b"not masked", mask=False), 1002),
        (b"GET / HTTP/1.1\r\n\r\n", 1002),
    ],
    ids=["a Close", "a bad opcode", "no mask", "a second request"],
)
async def test_frames_that_end_a_connection_at_once_are_answered_after_the_101(
    behind: bytes, code: int
) -> None:
    async with memory_server() as server:
        async with server.connect() as stream:
            await stream.send_all(GOOD + behind)
            assert parse_response(await read_head(stream)).status == 101
            rest = await read_all(stream)
        assert rest[:1] == b"\x88"
        assert int.from_bytes(rest[2:4], "big") == code
        assert len(rest) == 2 + rest[1]
        assert await server.serves()


# ---------------------------------------------------------------------------
# Subprotocols and headers
# ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "supported", "chosen"),
    [
        (None, [], None),
        ("chat", [], None),
        (None, ["chat"], None),
        ("a, b", ["b", "a"], "b"),
        ("a, b", ["c", "a"], "a"),
        ("a, b", ["c"], None),
        ("Chat", ["chat"], None),
    ],
)
async def test_the_server_s_favourite_of_the_offered_subprotocols_is_chosen(
    offered: str | None, supported: list[str], chosen: str | None
) -> None:
    async with memory_server(subprotocols=supported) as server, server.connect() as stream:
        await stream.send_all(request(Sec_WebSocket_Protocol=offered))
        response = parse_response(await read_head(stream))
        assert response.status == 101
        assert response.headers.get("Sec-WebSocket-Protocol") == chosen
        [websocket] = server.server.connections
        assert websocket.subprotocol == chosen


async def test_subprotocols_may_be_offered_over_several_lines() -> None:
    data = request("GET / HTTP/1.1", ("Sec-WebSocket-Protocol", "b"), Sec_WebSocket_Protocol="a")
    async with memory_server(subprotocols=["b"]) as server, server.connect() as stream:
        await stream.send_all(data)
        assert parse_response(await read_head(stream)).headers["Sec-WebSocket-Protocol"] == "b"


async def test_headers_of_the_options_and_of_the_answer_are_both_sent() -> None:
    options: dict[str, Any] = {
        "headers": [("Set-Cookie", "a=1"), ("X-Frame-Options", "DENY"), ("Vary", "Origin")],
        "server_header": None,
        "process_request": lambda asked: Accept(headers={"Set-Cookie": "b=2", "vary": "Cookie"}),
    }
    async with memory_server(**options) as server, server.connect() as stream:
        await stream.send_all(GOOD)
        response = parse_response(await read_head(stream))
        assert response.headers.get_all("Set-Cookie") == ("a=1", "b=2")
        assert response.headers.get_all("X-Frame-Options") == ("DENY",)
        assert response.headers.get_all("Vary") == ("Cookie",)
        assert "Server" not in response.headers


async def test_a_server_header_of_one_s_own_takes_the_place_of_ours() -> None:
    async with memory_server(headers={"server": "mine"}) as server, server.connect() as stream:
        await stream.send_all(GOOD)
        assert parse_response(await read_head(stream)).headers.get_all("Server") == ("mine",)
