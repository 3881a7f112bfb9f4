"""Passwords and other credentials do not show in errors, logs and reprs."""

from __future__ import annotations

import logging
import re
import ssl
import traceback
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import example, given, strategies as st

from tests.handshake.handshake_helpers import read_all, scripted_server
from tests.handshake.test_requesting import with_fields
from tests.helpers import open_server
from trio_ws import (
    ClientOptions,
    ConnectionRejected,
    Headers,
    InvalidRequest,
    InvalidResponse,
    InvalidURL,
    Request,
    Response,
    open_websocket,
    open_websocket_url,
    wrap_client_stream,
    wrap_server_stream,
)
from trio_ws._http.url import WebSocketURL, follow_redirect, parse_url
from trio_ws._redaction import first_words, masked, printable, without_secrets
from trio_ws.backplane import RedisBackplane

#: In every URL here, and nowhere in what is shown.
SECRET = "xyzzy"


def told(exc: BaseException) -> str:
    """All that anybody may print of an exception."""
    return "".join([str(exc), repr(exc), repr(exc.args), *traceback.format_exception(exc)])


# URLs…


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://example.org/a@b", "ws://example.org/a@b"),
        ("ws://example.org:80/a@b", "ws://example.org:80/a@b"),
        ("ws://example.org?a@b", "ws://example.org?a@b"),
        ("ws://[::1]/a@b", "ws://[::1]/a@b"),
        ("ws://[::1]:80/a@b", "ws://[::1]:80/a@b"),
        ("https://example.org/@me", "https://example.org/@me"),
        ("/@me", "/@me"),
        ("?a@b", "?a@b"),
        ("//example.org/@me", "//example.org/@me"),
        ("", ""),
        ("ws://u:xyzzy@example.org/", "ws://***@example.org/"),
        ("ws://xyzzy@example.org/", "ws://***@example.org/"),
        ("ws://:xyzzy@example.org/", "ws://***@example.org/"),
        ("ws://u:a@xyzzy@example.org/", "ws://***@example.org/"),
        ("ws://u:xyzzy@[::1]:80/", "ws://***@[::1]:80/"),
        ("//u:xyzzy@example.org/", "//***@example.org/"),
        ("redis://u:xyzzy@example.org/0", "redis://***@example.org/0"),
        ("ws://u:xy/zzy@example.org/", "ws://***@example.org/"),
        ("ws://u:xy?zzy@example.org/", "ws://***@example.org/"),
        ("ws://u:xy#zzy@example.org/", "ws://***@example.org/"),
        ("ws://u:xy zzy@example.org/", "ws://***@example.org/"),
        ("ws://u:xy\\zzy@example.org/", "ws://***@example.org/"),
        ("ws://u:xy@zz/y@example.org/", "ws://***@example.org/"),
        ("ws://u:1/2@xyzzy@example.org/", "ws://u:1/2@xyzzy@example.org/"),  # its host is "u"
        ("u:xyzzy@example.org", "***@example.org"),
        ("ws:u:xyzzy@example.org", "***@example.org"),
        ("ws:/u:xy//zzy@example.org", "***@example.org"),
        ("w\ts://u:xyzzy@example.org", "***@example.org"),
        (" ws://u:xyzzy@example.org", " ws://***@example.org"),
    ],
)
def test_a_url_is_shown_without_its_user(url: str, shown: str) -> None:
    assert masked(url) == shown


@example("ws://", "", "/", "")
@given(
    st.sampled_from(["ws://", "//", "", "ws:/", "redis://", "w s://"]),
    st.text(max_size=5),
    st.text(max_size=5),
    st.text(max_size=5),
)
def test_a_password_is_hidden_whatever_is_in_it(
    start: str, user: str, before: str, after: str
) -> None:
    url = f"{start}{user}:{before}{SECRET}{after}@example.org/path"
    if re.match(r"[^@/?#:]+(:[0-9]*)?[/?#]|[/?#]|\[[^@\]]*\](:[0-9]*)?[/?#]", f"{user}:{before}"):
        return  # the user name ends the host, or the password begins like a port
    assert SECRET not in masked(url)
    assert masked(url).endswith("***@example.org/path")


#: URLs that are refused, each for another reason.
REFUSED = [
    "http://u:xyzzy@h/",
    "u:xyzzy@h/",
    "ws://u:xyzzy@/",
    "ws://u:xyzzy@h:0/",
    "ws://u:xyzzy@h:port/",
    "ws://u:xyzzy@h/#a",
    "ws://u:xyzzy@[::1/",
    "ws://u:xyzzy@[v1.x]/",
    "ws://u:xyzzy@a..b/",
    "ws://u:xyzzy@i❤.ws/",
    "ws://u:xyzzy@a\uff0fb/",
    "ws://u:xyzzy\n@h/",
    "ws://u%3A:xyzzy@h/",
    "ws://u:xyzzy/@h/",
    "ws://u:a/xyzzy@h/",
    "ws://u:xyzzy?@h/",
    "ws://u:xyzzy#@h/",
]


@pytest.mark.parametrize("url", REFUSED)
def test_an_invalid_url_hides_its_password(url: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        parse_url(url)
    assert SECRET not in told(caught.value)
    assert "***@" in caught.value.url
    with pytest.raises(InvalidURL) as caught:
        follow_redirect(WebSocketURL(False, "h", 80, "/"), re.sub("ws|http", "ftp", url, count=1))
    assert SECRET not in told(caught.value)


async def test_a_host_that_holds_a_password_is_not_repeated() -> None:
    with pytest.raises(InvalidURL) as caught:
        async with open_websocket(f"u:{SECRET}@example.org", 80):
            pass
    assert SECRET not in told(caught.value)


def test_a_name_of_a_server_that_is_none_is_shown_without_its_user() -> None:
    with pytest.raises(ValueError, match=re.escape("not '***@h'")):
        ClientOptions(server_hostname="u:xyzzy@h")


async def test_a_tls_context_for_a_plain_url_is_refused_without_its_password() -> None:
    with pytest.raises(ValueError, match=re.escape("'ws://***@h/' is not one")) as caught:
        url = f"ws://u:{SECRET}@h/"
        async with open_websocket_url(url, ssl_context=ssl.create_default_context()):
            pass
    assert SECRET not in told(caught.value)


@pytest.mark.parametrize(
    "location", ["https://u:xyzzy@h:port/", "ftp://u:xyzzy@h/", "http://u:xy/zzy@h/"]
)
async def test_a_redirect_is_refused_without_its_password(location: str) -> None:
    def redirect(request: Request) -> Response:
        return Response(302, {"Location": location})

    async with open_server(_nothing, process_request=redirect) as server:
        with pytest.raises(InvalidResponse, match=re.escape("redirects to")) as caught:
            async with open_websocket_url(server.urls[0], max_redirects=1):
                pass
    assert SECRET not in told(caught.value).replace("location", "")
    assert "zzy" not in str(caught.value)


async def _nothing(websocket: object) -> None:
    pass


def test_the_repr_of_a_url_hides_what_its_user_became() -> None:
    url = parse_url("ws://u:xyzzy@h/")
    assert url.authorization is not None
    assert url.authorization not in repr(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://u:xyzzy@h/",
        "u:xyzzy@h",
        "redis://u:xyzzy@h:port",
        "redis://u:xyzzy@h:port/0",
        "redis://u:xyzzy/@h",
        "redis://u:1/xyzzy@h",
        "redis://:xyzzy/@h",
        "redis://u:a?xyzzy@h",
        "redis://u:1?xyzzy@h",
        "redis://u:a#xyzzy@h",
        "redis://u:xyzzy@h/news",
        "redis://u:xyzzy@[::1",
        "redis://u:xyzzy@a\uff0fb/",
        "unix://u:xyzzy@/",
        "unix://u:xyzzy@/path?db=news",
    ],
)
def test_a_redis_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="this is not a Redis URL") as caught:
        RedisBackplane(url)
    assert SECRET not in told(caught.value)


# Header fields…

CREDENTIALS = ["Authorization", "proxy-authorization", "Cookie", "SET-COOKIE"]


@pytest.mark.parametrize("name", CREDENTIALS)
def test_the_repr_of_headers_hides_credentials(name: str) -> None:
    headers = Headers([("X-A", "b"), (name, "a xyzzy")])
    assert repr(headers) == f"Headers([('X-A', 'b'), ('{name}', '***')])"
    assert headers[name] == "a xyzzy"
    assert SECRET not in repr(Request("GET", "/", headers))
    assert SECRET not in told(ConnectionRejected(Response(401, headers)))


@pytest.mark.parametrize(
    ("offered", "shown"),
    [
        ("chat, bearer.xyzzy, v2", "chat, bearer***, v2"),
        ("Bearer, xyzzy, chat", "Bearer, ***, chat"),
        ("base64url.bearer.phx.xyzzy", "base64url.bearer***"),
        ("realtime, openai-insecure-api-key.sk-xyzzy", "realtime, openai-insecure-api-key***"),
        ("access_token,xyzzy", "access_token,***"),
        (f"chat,{SECRET * 7}", "chat,***"),
        ("graphql-transport-ws, v4.base64.channel.k8s.io", None),
        ("chat, bearer", None),
        ("", None),
    ],
)
def test_the_repr_of_headers_hides_tokens_among_the_subprotocols(
    offered: str, shown: str | None
) -> None:
    shown = offered if shown is None else shown
    headers = Headers([("Sec-WebSocket-Protocol", offered)])
    assert repr(headers) == f"Headers([('Sec-WebSocket-Protocol', '{shown}')])"
    assert repr(headers) in repr(Request("GET", "/", headers))


@pytest.mark.parametrize("wrong", ["bearer.xyzzy==", "bearer.xyzzy/"])
def test_a_token_that_is_no_subprotocol_is_refused_without_being_shown(wrong: str) -> None:
    with pytest.raises(ValueError, match="is not a subprotocol name") as caught:
        ClientOptions(subprotocols=["chat", wrong])
    assert SECRET not in told(caught.value)


def test_options_with_a_token_among_the_subprotocols_do_not_show_it() -> None:
    token = f"bearer.{SECRET}"
    assert SECRET not in repr(ClientOptions(subprotocols=["chat", token]))
    with pytest.raises(ValueError, match="listed twice: bearer") as caught:
        ClientOptions(subprotocols=[token, token])
    assert SECRET not in told(caught.value)


async def test_a_token_among_the_subprotocols_is_in_no_log_and_not_sent_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    def decide(request: Request) -> Response | None:
        token = request.subprotocol_token("bearer.")
        return None if token == SECRET else Response(403, {}, f"not with {request.headers!r}")

    async with open_server(_nothing, process_request=decide, subprotocols=["chat"]) as server:
        url = server.urls[0]
        async with open_websocket_url(url, subprotocols=["chat", f"bearer.{SECRET}"]) as websocket:
            assert websocket.subprotocol == "chat"
            assert SECRET not in str(websocket.response.headers.fields)
            assert SECRET not in repr(websocket) + repr(websocket.request)
        with pytest.raises(ConnectionRejected) as caught:
            async with open_websocket_url(url, subprotocols=["chat", f"bearer.not-{SECRET}"]):
                pass
    assert SECRET not in told(caught.value)
    assert SECRET not in caplog.text


async def test_a_token_that_a_server_sends_back_is_not_shown() -> None:
    answer = with_fields(b"Sec-WebSocket-Protocol: chat, bearer.xyzzy")
    async with scripted_server(answer) as stream:
        with pytest.raises(InvalidResponse, match="was not offered: 'chat, bearer") as caught:
            async with wrap_client_stream(
                stream, "ws://h/", subprotocols=["chat", f"bearer.{SECRET}"]
            ):
                pass
    assert SECRET not in told(caught.value)


@pytest.mark.parametrize("name", CREDENTIALS)
@pytest.mark.parametrize("value", ["a xyzzy\n", b"a xyzzy"])
def test_a_header_that_cannot_be_sent_hides_its_credentials(name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        Headers([(name, value)])
    assert SECRET not in told(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "Authorization : Basic xyzzy",
        "Cookie\x0b: a=xyzzy",
        "Proxy-Authorization xyzzy",
        "Sec-WebSocket-Protocol : chat, bearer.xyzzy",
    ],
)
async def test_a_malformed_line_is_refused_and_logged_without_its_credentials(
    line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client, server = trio.testing.memory_stream_pair()
    await client.send_all(f"GET / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n".encode())
    with pytest.raises(InvalidRequest) as caught:
        async with wrap_server_stream(server):
            pass
    assert SECRET not in told(caught.value)
    assert SECRET.encode() not in await read_all(client)
    assert SECRET not in caplog.text


async def test_a_malformed_response_is_refused_without_its_cookies() -> None:
    client, server = trio.testing.memory_stream_pair()
    await server.send_all(b"HTTP/1.1 101 \r\nSet-Cookie : xyzzy\r\n\r\n")
    with pytest.raises(InvalidResponse) as caught:
        async with wrap_client_stream(client, "ws://h/"):
            pass
    assert SECRET not in told(caught.value)


def test_a_request_line_is_quoted_without_its_user() -> None:
    text = "illegal request line: GET ws://u:xyzzy@h/ HTTP/9"
    assert without_secrets(text) == "illegal request line: GET ws://***@h/ HTTP/9"


# What a peer wrote…


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ""),
        (b" \r\n", ""),
        (b"Rate limit exceeded.\n", "Rate limit exceeded."),
        (b"two\r\nlines\tand  more", "two lines and more"),
        (b"a\x1b[31mred\x00\x07", "a\\x1b[31mred\\x00\\x07"),
        ("\u202eright to left, Grüße".encode(), "\\u202eright to left, Grüße"),
        (b"caf\xe9", "caf\\xe9"),
        (b"\x89PNG\r\n\x1a\n\x00", "\\x89PNG \\x1a \\x00"),
        (
            b"<!DOCTYPE html>\n<html lang=en><title>403 Forbidden</title><p>No.",
            "403 Forbidden No.",
        ),
        (b"  <h1>502</h1> <!-- <a", "502"),
        (b"<!-- <a> --><h1>502 <a", "502"),
        (b"1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        (b'{"error": "no such key"}', '{"error": "no such key"}'),
        (b"x" * 120, "x" * 120),
        (b"x" * 121, "x" * 120 + "…"),
        (b"\x00" * 2**16, "\\x00" * 120 + "…"),
        (b"Authorization required", "Authorization required"),
        (b'{"Cookie": "a=xyzzy"}', '{"Cookie": ***'),
        (b"you sent\nauthorization: Basic xyzzy\n", "you sent authorization: ***"),
        (b"no such page: https://u:xyzzy@h/", "no such page: https://***@h/"),
    ],
)
def test_the_first_words_of_a_body_are_one_short_line_without_secrets(
    body: bytes, words: str
) -> None:
    assert first_words(body) == words


@given(st.text())
def test_what_is_printable_is_one_line(text: str) -> None:
    assert printable(text).isprintable()


async def test_a_refusal_is_told_without_the_user_and_the_query_of_its_url() -> None:
    def refuse(request: Request) -> Response:
        return Response(403, {}, f"You sent Cookie: {request.headers['Cookie']}")

    async with open_server(_nothing, process_request=refuse) as server:
        url = f"ws://u:{SECRET}@localhost:{server.port}/feed?token={SECRET}"
        with pytest.raises(ConnectionRejected, match="/feed ended with HTTP status 403") as caught:
            async with open_websocket_url(url, headers={"Cookie": f"a={SECRET}"}):
                pass
    assert caught.value.url == f"ws://localhost:{server.port}/feed"
    assert str(caught.value).endswith(": You sent Cookie: ***")
    assert SECRET not in told(caught.value)
