"""Requests for a WebSocket: a good one, and those that a server has to refuse."""

from __future__ import annotations

import base64

import trio_ws
from tests.handshake.handshake_helpers import FIELDS, KEY, RawResponse, request
from trio_ws._http.exchange import MAX_HEAD_BYTES

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
