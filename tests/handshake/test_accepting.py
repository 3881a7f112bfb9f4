"""The server's side of the opening handshake: what good and bad requests get."""

from __future__ import annotations

import base64
import itertools
import logging
import re
import ssl
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from hypothesis import given, settings, strategies as st

import trio_ws
from tests.conftest import run_autojumped
from tests.handshake.handshake_helpers import (
    ACCEPT,
    FIELDS,
    KEY,
    HookedStream,
    RawResponse,
    echo,
    memory_server,
    parse_response,
    plain_request,
    read_all,
    read_head,
    request,
)
from tests.helpers import close_frame, frame, least_cpu_seconds
from trio_ws import (
    Accept,
    ConnectionFailed,
    ConnectionLost,
    ConnectionRejected,
    HandshakeTimeout,
    InvalidRequest,
    Request,
    Response,
    WebSocket,
)
from trio_ws._http.exchange import MAX_HEAD_BYTES
from trio_ws.testing import MemoryListener

GOOD = request()


def assert_refused(response: RawResponse, status: int) -> None:
    """A refusal is short, plain, and the last thing on its connection."""
    assert response.status == status
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["Content-Length"] == str(len(response.body))
    assert "close" in response.headers.tokens("Connection")
    assert response.headers["Server"] == f"trio_ws/{trio_ws.__version__}"
    assert "Date" in response.headers
    assert 0 < len(response.body) <= 200
    assert response.text.isprintable() or response.text[:-1].isprintable()


# ---------------------------------------------------------------------------
# Requests that are refused
# ---------------------------------------------------------------------------

REFUSED = {
    "HTTP/1.0": (request("GET / HTTP/1.0"), 505),
    "HTTP/2.0": (request("GET / HTTP/2.0"), 505),
    "HTTP/2 by prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "no Host": (request(Host=None), 400),
    "two Hosts": (request("GET / HTTP/1.1", ("Host", "example.org")), 400),
    "empty Host": (request(Host=""), 400),
    "a Host with a path": (request(Host="example.org/x"), 400),
    "a Host with a user": (request(Host="user@example.org"), 400),
    "a Host with a port that is none": (request(Host="example.org:http"), 400),
    "a list of Hosts": (request(Host="a, b"), 400),
    "key missing": (request(Sec_WebSocket_Key=None), 400),
    "key empty": (request(Sec_WebSocket_Key=""), 400),
    "key of 15 bytes": (request(Sec_WebSocket_Key=base64.b64encode(b"x" * 15).decode()), 400),
    "key of 17 bytes": (request(Sec_WebSocket_Key=base64.b64encode(b"x" * 17).decode()), 400),
    "key of 18 bytes": (request(Sec_WebSocket_Key=base64.b64encode(b"x" * 18).decode()), 400),
    "key that is no base64": (request(Sec_WebSocket_Key="!" * 22 + "=="), 400),
    "key without its padding": (request(Sec_WebSocket_Key=KEY[:-2] + "AA"), 400),
    "key twice": (request("GET / HTTP/1.1", ("Sec-WebSocket-Key", KEY)), 400),
    "key and its double in one line": (request(Sec_WebSocket_Key=f"{KEY}, {KEY}"), 400),
    "version missing": (request(Sec_WebSocket_Version=None), 426),
    "version 8": (request(Sec_WebSocket_Version="8"), 426),
    "version 13.0": (request(Sec_WebSocket_Version="13.0"), 426),
    "version 13, 8": (request(Sec_WebSocket_Version="13, 8"), 426),
    "version twice": (request("GET / HTTP/1.1", ("Sec-WebSocket-Version", "13")), 426),
    "Upgrade missing": (request(Upgrade=None), 426),
    "Upgrade to something else": (request(Upgrade="h2c"), 426),
    "Connection missing": (request(Connection=None), 426),
    "Connection: keep-alive": (request(Connection="keep-alive"), 426),
    "Content-Length": (request("GET / HTTP/1.1", ("Content-Length", "5")) + b"hello", 400),
    "Content-Length of 1 PiB": (request("GET / HTTP/1.1", ("Content-Length", "1" + "0" * 15)), 400),
    "Content-Length that is none": (request("GET / HTTP/1.1", ("Content-Length", "-1")), 400),
    "Transfer-Encoding": (
        request("GET / HTTP/1.1", ("Transfer-Encoding", "chunked")) + b"0\r\n\r\n",
        400,
    ),
    "Transfer-Encoding: identity": (
        request("GET / HTTP/1.1", ("Transfer-Encoding", "identity")),
        400,
    ),
    "POST": (request("POST / HTTP/1.1"), 405),
    "get in small letters": (request("get / HTTP/1.1"), 405),
    "CONNECT": (request("CONNECT example.org:80 HTTP/1.1"), 400),
    "a target of another scheme": (request("GET ftp://example.org/ HTTP/1.1"), 400),
    "a target without a host": (request("GET http:///chat HTTP/1.1"), 400),
    "a target with a user": (request("GET http://user@example.org/ HTTP/1.1"), 400),
    "a target with a port that is none": (request("GET http://example.org:x/ HTTP/1.1"), 400),
    "a target without its slashes": (request("GET http:chat HTTP/1.1"), 400),
    "a target that is a host": (request("GET example.org:80 HTTP/1.1"), 400),
    "a target that is a name": (request("GET chat HTTP/1.1"), 400),
    "a whole URL and a wrong Host": (request("GET http://a/ HTTP/1.1", Host="a, b"), 400),
    "a whole URL and no Host": (request("GET http://a/ HTTP/1.1", Host=None), 400),
    "a whole URL with a fragment": (request("GET http://a/#x HTTP/1.1"), 400),
    "a target that is served over TLS only": (request("GET https://example.org/ HTTP/1.1"), 421),
    "* target": (request("GET * HTTP/1.1"), 400),
    "OPTIONS *": (request("OPTIONS * HTTP/1.1"), 405),
    "target with a fragment": (request("GET /#x HTTP/1.1"), 400),
    "target with a space": (request("GET / x HTTP/1.1"), 400),
    "target that is not ASCII": (request("GET /\xff HTTP/1.1"), 400),
    "nothing but empty lines": (b"\r\n" * 10_000, 400),
    "a CR that ends no line": (b"\r\r\n" + GOOD, 400),
    "a space before the request line": (b" " + GOOD, 400),
    "a line that begins with a space": (GOOD.replace(b"Host", b" X: y\r\nHost"), 400),
    "a line of spaces": (GOOD.replace(b"Host", b"  \r\nHost"), 400),
    "a TLS greeting": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "binary": (bytes(range(256)), 400),
    "a line without a colon": (GOOD[:-2] + b"hello\r\n\r\n", 400),
    "a space before the colon": (GOOD[:-2] + b"X-A : b\r\n\r\n", 400),
    "a long line without a colon": (GOOD[:-2] + b"x" * 15000 + b"\r\n\r\n", 400),
    "NUL in a header": (request(Cookie="a\0b"), 400),
    "a bare CR in a header": (request(Cookie="a\rb"), 400),
    "two Origins": (request("GET / HTTP/1.1", ("Origin", "a"), ("Origin", "b")), 400),
    "16 KiB and a byte": (
        request("GET / HTTP/1.1", ("X", "y" * (MAX_HEAD_BYTES + 1 - len(GOOD) - 5))),
        431,
    ),
    "1 MiB in one header": (request(Cookie="y" * 2**20), 431),
    "a target of 20 KiB": (request(f"GET /{'x' * 20000} HTTP/1.1"), 414),
    "half a target of 20 KiB": (b"GET /" + b"x" * 20000, 414),
    "129 fields": (request("GET / HTTP/1.1", *[("X", "y")] * (129 - len(FIELDS))), 431),
    "10,000 fields": (request("GET / HTTP/1.1", *[("X", "y")] * 10_000), 431),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_bad_request_is_answered_and_the_server_goes_on(
    data: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    async with memory_server() as server:
        assert_refused(await server.answer(data), status)
        assert await server.serves()
        assert server.server.statistics().refused_total == 1
    [record] = [record for record in caplog.records if "answered with" in record.getMessage()]
    assert record.levelno == logging.INFO
    assert f"answered with {status}" in record.getMessage()
    assert len(record.getMessage()) < 250


async def test_a_refusal_says_what_would_be_right() -> None:
    async with memory_server() as server:
        response = await server.answer(request(Sec_WebSocket_Version="8"))
        assert response.headers["Sec-WebSocket-Version"] == "13"
        assert response.headers["Upgrade"] == "websocket"
        assert response.headers["Connection"] == "close, Upgrade"
        assert (await server.answer(request("POST / HTTP/1.1"))).headers["Allow"] == "GET"
        response = await server.answer(plain_request("DELETE / HTTP/1.1"))
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
        response = await server.answer(request("HEAD / HTTP/1.1"))
        assert (response.status, response.headers["Allow"], response.body) == (405, "GET", b"")


async def test_bad_requests_over_a_real_socket_get_their_whole_answer() -> None:
    async with trio.open_nursery() as nursery:
        server: trio_ws.WebSocketServer = await nursery.start(
            trio_ws.serve_websocket, echo, "127.0.0.1", 0
        )
        for data, status in REFUSED.values():
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            async with stream:
                try:
                    await stream.send_all(data)
                except trio.BrokenResourceError:
                    pass  # the server has heard enough
                assert_refused(parse_response(await read_all(stream)), status)
        async with trio_ws.open_websocket("127.0.0.1", server.port) as websocket:
            await websocket.send("still there?")
            assert await websocket.receive() == "still there?"
        await server.aclose()


@pytest.mark.parametrize("name", [*FIELDS, "Origin", "Sec-WebSocket-Protocol"])
async def test_no_byte_in_a_header_of_the_handshake_does_harm(name: str) -> None:
    # A line feed is left out: what follows it is another line. All the control characters have
    # their turn in test_http, too.
    controls = {*map(chr, range(32)), "\x7f"} - {"\t", "\n"}
    beyond_ascii = {"\x80", "\x85", "\xa0", "\xc3", "\xed", "\xff"}
    async with memory_server() as server:
        for octet in {*controls, *beyond_ascii, *" \t!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~"}:
            async with server.connect() as stream:
                text = f"{FIELDS.get(name, 'a')}{octet}b"
                await stream.send_all(request(**{name.replace("-", "_"): text}))
                response = parse_response(await read_head(stream))
            wanted = {400} if octet in controls | beyond_ascii else {101, 400, 426}
            assert response.status in wanted, octet
        assert await server.serves()


@pytest.mark.parametrize(
    "name", ["Connection", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"]
)
async def test_a_list_of_the_handshake_is_ascii(name: str) -> None:
    fields = {**FIELDS, name: FIELDS.get(name, "a") + ", \xff"}
    async with memory_server() as server:
        response = await server.answer(
            request(**{key.replace("-", "_"): value for key, value in fields.items()})
        )
        assert_refused(response, 400)
        assert response.text == f"the header {name} is not ASCII\n"


@pytest.mark.parametrize(
    "host",
    ["xn--", "xn--.example", "a.xn--", "xn--abc-", "xn--99999999999", "xn--a!", "XN--", "xn--_:80"],
)
async def test_a_host_that_claims_to_be_internationalised_and_is_not_is_refused(host: str) -> None:
    async with memory_server() as server:
        assert_refused(await server.answer(request(Host=host)), 400)
        assert_refused(
            await server.answer(plain_request().replace(b"example.org", host.encode())), 400
        )


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
    "an Origin where none is asked for": request(Origin="https://anywhere.example"),
    "an empty list of subprotocols": request(Sec_WebSocket_Protocol=""),
    "a subprotocol that is no name": request(Sec_WebSocket_Protocol="https://example.org/chat"),
    "an IPv6 Host with a zone": request(Host="[fe80::1%25eth0]:8080"),
}

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
# Limits, time and load
# ---------------------------------------------------------------------------


async def test_headers_that_drip_for_ever_are_cut_off_at_16_kib() -> None:
    async with memory_server() as server, server.connect() as stream:
        await stream.send_all(GOOD[:-2])
        sent = len(GOOD) - 2
        while sent <= MAX_HEAD_BYTES:
            await stream.send_all(b"X: y\r\n")
            sent += 6
        assert_refused(parse_response(await read_all(stream)), 431)


@pytest.mark.parametrize("first", [b"", b"G", GOOD[:-1]], ids=["silence", "a byte", "all but one"])
async def test_silence_is_dropped_after_10_seconds(
    first: bytes, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    async with memory_server() as server, server.connect() as stream:
        started = trio.current_time()
        if first:
            await stream.send_all(first)
        assert await read_all(stream) == b""
        assert trio.current_time() - started == 10
        assert await server.serves()
    assert "dropped in the opening handshake: out of time" in caplog.text


async def test_one_byte_a_second_is_dropped_after_10_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        memory_server() as server,
        server.connect() as stream,
        trio.open_nursery() as nursery,
    ):
        started = trio.current_time()

        async def drip() -> None:
            for octet in GOOD:
                try:
                    await stream.send_all(bytes([octet]))
                except trio.BrokenResourceError:
                    return
                await trio.sleep(1)

        nursery.start_soon(drip)
        assert await read_all(stream) == b""
        assert trio.current_time() - started == 10


@pytest.fixture(scope="module")
def server_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("example.org").configure_cert(context)
    return context


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["before", "during"])
async def test_silence_before_or_in_the_tls_handshake_is_dropped_after_10_seconds(
    first: bytes, server_tls: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server: trio_ws.WebSocketServer = await nursery.start(
            trio_ws.serve_listeners, echo, [trio.SSLListener(listener, server_tls)]
        )
        started = trio.current_time()
        async with listener.connect() as stream:
            if first:
                await stream.send_all(first)
            assert await read_all(stream) == b""
        assert trio.current_time() - started == 10
        assert server.statistics().refused_total == 1
        await server.aclose()


async def test_plain_http_on_a_tls_port_is_hung_up_on(server_tls: ssl.SSLContext) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server: trio_ws.WebSocketServer = await nursery.start(
            trio_ws.serve_listeners, echo, [trio.SSLListener(listener, server_tls)]
        )
        async with listener.connect() as stream:
            await stream.send_all(GOOD)
            assert b"HTTP" not in await read_all(stream)
        await server.aclose()


SLOW = [
    ("X", " " * 16000 + "\0"),
    ("X", "\t " * 7900 + "\x0c"),
    ("Connection", "," * 16000),
    ("Connection", "upgrade, " * 1700 + "\x0b"),
    ("Upgrade", "websocket " * 1500),
    ("Origin", "http://" + "a" * 15000),
    ("Sec-WebSocket-Key", "A" * 15000),
    ("Sec-WebSocket-Version", "1" * 15000),
    ("Sec-WebSocket-Protocol", "a, " * 5000),
    ("Sec-WebSocket-Extensions", 'a; b="' * 2500),
    ("Sec-WebSocket-Extensions", "a;" * 7500 + "\xff"),
    ("Host", "a." * 7500 + "!"),
    ("Host", "xn--" + "a" * 15000),
    ("Host", "[" + ":" * 15000),
    ("Content-Length", "1," * 7500),
    ("Transfer-Encoding", "chunked, " * 1500),
]


@pytest.mark.parametrize(("name", "value"), SLOW)
async def test_no_value_takes_50_ms_to_judge(name: str, value: str) -> None:
    options: dict[str, Any] = {
        "subprotocols": [f"protocol-{number}" for number in range(50)],
        "origins": [re.compile(r"https://[a-z]+\.example"), "http://a", None],
    }
    data = request(**{name.replace("-", "_"): value})
    async with memory_server(**options) as server:

        async def ask() -> None:
            async with server.connect() as stream:
                await stream.send_all(data)
                response = parse_response(await read_head(stream))
                assert response.status in (101, 400, 403, 426)

        assert await least_cpu_seconds(ask) < 0.05


async def test_beyond_max_connections_the_answer_is_503() -> None:
    async with memory_server(max_connections=1) as server:
        async with server.connect() as first:
            await first.send_all(GOOD)
            assert parse_response(await read_head(first)).status == 101
            response = await server.answer(GOOD)
            assert_refused(response, 503)
            assert response.headers["Retry-After"] == "1"
            assert response.text == "Too many connections, try again later.\n"
        await trio.testing.wait_all_tasks_blocked()
        assert await server.serves()


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
async def test_what_ends_a_connection_at_once_is_answered_after_the_101(
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
# Origins
# ---------------------------------------------------------------------------

EXACT = "https://example.org"
PATTERN = re.compile(r"https://[a-z]+\.example\.org")


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        (None, None, 101),
        (None, "null", 101),
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
    origins: list[Any] | None, origin: str | None, status: int
) -> None:
    async with memory_server(origins=origins) as server, server.connect() as stream:
        await stream.send_all(request(Origin=origin))
        response = parse_response(await read_head(stream))
        assert response.status == status
        if status == 403:
            body = await read_all(stream)
            wanted = "this origin is not allowed" if origin else "an Origin is required"
            assert body.decode() == wanted + "\n"


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
        "headers": [("Set-Cookie", "a=1")],
        "server_header": None,
        "process_request": lambda asked: Accept(headers={"Set-Cookie": "b=2"}),
    }
    async with memory_server(**options) as server, server.connect() as stream:
        await stream.send_all(GOOD)
        response = parse_response(await read_head(stream))
        assert response.headers.get_all("Set-Cookie") == ("a=1", "b=2")
        assert "Server" not in response.headers


async def test_a_server_header_of_one_s_own_takes_the_place_of_ours() -> None:
    async with memory_server(headers={"server": "mine"}) as server, server.connect() as stream:
        await stream.send_all(GOOD)
        assert parse_response(await read_head(stream)).headers.get_all("Server") == ("mine",)


# ---------------------------------------------------------------------------
# process_request
# ---------------------------------------------------------------------------


async def accepted_by(process_request: Any, data: bytes = GOOD, **options: Any) -> RawResponse:
    server = memory_server(process_request=process_request, **options)
    async with server as running, running.connect() as stream:
        await stream.send_all(data)
        return parse_response(await read_head(stream))


async def test_process_request_may_go_on_with_none() -> None:
    seen: list[Request] = []
    assert (await accepted_by(seen.append)).status == 101
    assert [asked.path for asked in seen] == ["/"]


async def test_process_request_may_be_async() -> None:
    async def process_request(asked: Request) -> Accept:
        await trio.lowlevel.checkpoint()
        return Accept(headers={"X-Path": asked.path})

    assert (await accepted_by(process_request)).headers["X-Path"] == "/"


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        (Accept("b"), "b"),
        (Accept("a"), "a"),
        (Accept(None), None),
        (Accept(headers={"Set-Cookie": "a=1"}), "a"),
    ],
)
async def test_process_request_may_choose_the_subprotocol(
    answer: Accept, chosen: str | None
) -> None:
    response = await accepted_by(
        lambda asked: answer,
        request(Sec_WebSocket_Protocol="a, b"),
        subprotocols=["a"],
    )
    assert response.headers.get("Sec-WebSocket-Protocol") == chosen


@pytest.mark.parametrize("is_async", [False, True])
async def test_process_request_may_answer_with_a_response(is_async: bool) -> None:
    async def later(asked: Request) -> Response:
        return Response(401, {"WWW-Authenticate": "Basic"}, "who are you?")

    def at_once(asked: Request) -> Response:
        return Response(401, {"WWW-Authenticate": "Basic"}, "who are you?")

    async with memory_server(process_request=later if is_async else at_once) as server:
        response = await server.answer(GOOD)
        assert (response.status, response.text) == (401, "who are you?")
        assert response.headers["WWW-Authenticate"] == "Basic"
        assert server.server.statistics().refused_total == 1


def site(asked: Request) -> Response | None:
    """A page and a health check on the port of a WebSocket."""
    pages = {
        "/": Response(200, {"Content-Type": "text/html"}, "<p>Hello"),
        "/health": Response(204),
        "/big": Response(200, body=b"x" * 500_000),
    }
    return None if asked.is_upgrade else pages.get(asked.path, Response(404, body="No such page."))


@pytest.mark.parametrize(
    ("line", "status", "body"),
    [
        ("GET / HTTP/1.1", 200, b"<p>Hello"),
        ("GET /?a=b HTTP/1.1", 200, b"<p>Hello"),
        ("HEAD / HTTP/1.1", 200, b""),
        ("GET /health HTTP/1.1", 204, b""),
        ("HEAD /health HTTP/1.1", 204, b""),
        ("GET /big HTTP/1.1", 200, b"x" * 500_000),
        ("GET /favicon.ico HTTP/1.1", 404, b"No such page."),
        ("DELETE / HTTP/1.1", 200, b"<p>Hello"),
    ],
)
async def test_plain_http_is_served_on_the_same_port(line: str, status: int, body: bytes) -> None:
    async with memory_server(process_request=site) as server:
        response = await server.answer(plain_request(line))
        assert (response.status, response.body) == (status, body)
        assert await server.serves()


async def test_a_page_larger_than_the_socket_s_buffer_arrives_whole() -> None:
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[trio_ws.WebSocketServer]) -> None:
            await trio_ws.serve_websocket(
                echo,
                "127.0.0.1",
                0,
                task_status=task_status,
                process_request=lambda asked: Response(200, body=b"x" * 5_000_000),
            )

        server = await nursery.start(serve)
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            await stream.send_all(plain_request())
            await trio.sleep(0.05)  # until the buffers are full
            assert len(parse_response(await read_all(stream)).body) == 5_000_000
        await server.aclose()


async def test_a_page_is_426_where_nobody_serves_pages() -> None:
    async with memory_server() as server:
        response = await server.answer(plain_request())
        assert_refused(response, 426)
        assert response.text == ("this is a WebSocket server: connect with a WebSocket client\n")
        head = await server.answer(plain_request("HEAD / HTTP/1.1"))
        assert (head.status, head.body) == (426, b"")


async def test_process_request_is_not_asked_about_requests_that_are_refused_anyway() -> None:
    seen: list[Request] = []
    async with memory_server(process_request=seen.append, origins=["https://a.example"]) as server:
        for data, _ in REFUSED.values():
            await server.answer(data)
        await server.answer(request(Origin="https://b.example"))
    assert seen == []


def fail(asked: Request) -> None:
    raise RuntimeError("the database is down")


async def fail_later(asked: Request) -> None:
    await trio.lowlevel.checkpoint()
    raise RuntimeError("the database is down")


MISTAKES: dict[str, tuple[Any, str]] = {
    "raises": (fail, "the database is down"),
    "raises later": (fail_later, "the database is down"),
    "returns a str": (lambda asked: "yes", "returns None, Accept or Response, not 'yes'"),
    "returns True": (lambda asked: True, "returns None, Accept or Response, not True"),
    "picks what was not offered": (lambda asked: Accept("c"), "did not offer the subprotocol 'c'"),
    "writes a header of the handshake": (
        lambda asked: Accept(headers={"Sec-WebSocket-Extensions": "x"}),
        "belongs to the handshake",
    ),
    "splits the response": (
        lambda asked: Accept(headers={"X": "a\r\n\r\n<p>"}),
        "holds a line break",
    ),
    "answers with 101": (lambda asked: Response(101), "a final response has a status from 200"),
    "answers with 103": (lambda asked: Response(103), "a final response has a status from 200"),
    "answers with half a status": (lambda asked: Response(200.5), "an HTTP status is an int"),  # type: ignore[arg-type] # what is tested
}


@pytest.mark.parametrize(("process_request", "what"), MISTAKES.values(), ids=MISTAKES.keys())
async def test_a_failing_process_request_is_500_and_one_record(
    process_request: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with memory_server(process_request=process_request) as server:
        for number in (1, 2):
            response = await server.answer(request(Sec_WebSocket_Protocol="a, b"))
            assert_refused(response, 500)
            assert response.text == "Internal server error.\n"
            assert server.server.statistics().refused_total == number
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    for record in caplog.records:
        assert "process_request failed for GET /" in record.getMessage()
        assert record.exc_info is not None
        assert what in str(record.exc_info[1])


async def test_accepting_a_request_that_wants_no_websocket_is_a_mistake(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with memory_server(process_request=lambda asked: Accept()) as server:
        assert_refused(await server.answer(plain_request()), 500)
        assert await server.serves()
    [record] = caplog.records
    assert record.exc_info is not None
    assert "asks for no WebSocket" in str(record.exc_info[1])


async def test_process_request_is_within_the_10_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def never(asked: Request) -> None:
        await trio.sleep_forever()

    async with memory_server(process_request=never) as server, server.connect() as stream:
        started = trio.current_time()
        await stream.send_all(GOOD)
        assert await read_all(stream) == b""
        assert trio.current_time() - started == 10


# ---------------------------------------------------------------------------
# Clients that leave, and streams that fail
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", GOOD[:1], GOOD[:-1], GOOD, REFUSED["no Host"][0]])
async def test_a_client_that_hangs_up_in_the_middle_does_no_harm(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with memory_server() as server:
        stream = server.connect()
        if data:
            await stream.send_all(data)
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await server.serves()
    assert not caplog.records


async def test_a_client_that_resets_in_the_middle_does_no_harm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with trio.open_nursery() as nursery:
        server: trio_ws.WebSocketServer = await nursery.start(
            trio_ws.serve_websocket, echo, "127.0.0.1", 0
        )
        for data in (b"", GOOD[:9], GOOD, REFUSED["no Host"][0]):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            if data:
                await stream.send_all(data)
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await stream.aclose()  # which sends RST instead of FIN
        async with trio_ws.open_websocket("127.0.0.1", server.port) as websocket:
            await websocket.send("still there?")
            assert await websocket.receive() == "still there?"
        await server.aclose()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_client_that_reads_no_refusal_is_left_after_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with memory_server() as server, server.connect() as stream:
        started = trio.current_time()
        await stream.send_all(REFUSED["no Host"][0])
        await read_all(stream)
        while True:  # it goes on sending instead of hanging up
            try:
                await stream.send_all(b"x" * 1000)
            except trio.BrokenResourceError:
                break
            await trio.sleep(0.1)
        assert trio.current_time() - started == pytest.approx(1, abs=0.2)


async def serve_one(stream: trio.abc.Stream, **options: Any) -> None:
    async with trio_ws.wrap_server_stream(stream, **options) as websocket:
        await echo(websocket)


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        (REFUSED["no Host"][0], {}, InvalidRequest),
        (GOOD, {"origins": []}, InvalidRequest),
        (GOOD, {"process_request": lambda asked: Response(403)}, ConnectionRejected),
        (GOOD, {"process_request": fail}, ConnectionRejected),
        (GOOD[:-1], {"open_timeout": 3}, HandshakeTimeout),
    ],
)
async def test_over_one_stream_a_refusal_is_raised_after_it_was_sent(
    data: bytes,
    options: dict[str, Any],
    error: type[Exception],
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, stream = trio.testing.memory_stream_pair()
    await client.send_all(data)
    with pytest.raises(error) as caught:
        await serve_one(stream, **options)
    answer = await read_all(client)
    if error is HandshakeTimeout:
        assert answer == b""
    else:
        assert parse_response(answer).status == caught.value.response.status  # type: ignore[attr-defined] # of both others


async def test_over_one_stream_a_client_that_leaves_is_a_failed_connection() -> None:
    client, stream = trio.testing.memory_stream_pair()
    await client.aclose()
    with pytest.raises(ConnectionFailed, match="the peer hung up in the handshake"):
        await serve_one(stream)


@pytest.mark.parametrize("data", [GOOD, REFUSED["no Host"][0], plain_request()])
async def test_whichever_operation_fails_the_error_is_a_documented_one(data: bytes) -> None:
    for failing in itertools.count(1):
        client, inner = trio.testing.memory_stream_pair()
        await client.send_all(data + close_frame(1000))
        await client.send_eof()

        def hook(number: int, failing: int = failing) -> None:
            if number == failing:
                raise trio.BrokenResourceError("pulled out")

        stream = HookedStream(inner, hook)
        try:
            await serve_one(stream)
        except (ConnectionFailed, InvalidRequest):
            pass
        assert stream.closed
        if stream.operations < failing:
            break


@pytest.mark.parametrize("data", [GOOD, REFUSED["no Host"][0], plain_request()])
async def test_wherever_it_is_cancelled_only_cancelled_comes_out_and_the_stream_is_closed(
    data: bytes,
) -> None:
    for moment in itertools.count(1):
        client, inner = trio.testing.memory_stream_pair()
        await client.send_all(data + close_frame(1000))
        await client.send_eof()
        with trio.CancelScope() as scope:

            def hook(number: int, moment: int = moment, scope: trio.CancelScope = scope) -> None:
                if number == moment:
                    scope.cancel()

            stream = HookedStream(inner, hook)
            try:
                await serve_one(stream)
            except InvalidRequest:
                pass
        assert stream.closed
        if stream.operations < moment:
            break


@given(
    st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=40).map(lambda data: data + b"\r\n\r\n"),
        st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=20), st.integers(0, 20)).map(
            lambda cut: GOOD[: cut[0]] + cut[1] + GOOD[cut[0] + cut[2] :]
        ),
    )
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_request_or_a_documented_error(data: bytes) -> None:
    async def main() -> None:
        client, stream = trio.testing.memory_stream_pair()
        await client.send_all(data)
        await client.send_eof()
        with trio.fail_after(9):
            try:
                await serve_one(stream)
            except (InvalidRequest, ConnectionFailed, ConnectionLost):
                pass
            await read_all(client)

    run_autojumped(main)
