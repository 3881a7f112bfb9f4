"""Input of strangers: a parser returns, or raises an error that it documents, and nothing else.

Most parsers are fuzzed beside their other tests: URLs in test_url, heads in test_heads, dates in
test_headers, JSON in test_json, extensions in test_deflate_negotiation, frames in test_properties,
handshakes in test_any_bytes. Here are the others, and a whole server and client around them.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Awaitable, Callable
from logging.handlers import QueueHandler
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from tests.handshake.handshake_helpers import (
    FIELDS,
    memory_server,
    parse_response,
    read_head,
    request_fields,
)
from tests.helpers import echo, untraced
from tests.web.web_helpers import http
from trio_ws import (
    ConnectionClosed,
    HandshakeError,
    Headers,
    InvalidRequest,
    Request,
    Response,
    Router,
    basic_auth,
    open_broadcast,
    wrap_client_stream,
)
from trio_ws._addresses import ip_address
from trio_ws._handshake.both_sides import accept_value
from trio_ws._http.forwarded import from_client
from trio_ws._http.networks import Networks
from trio_ws._transport.proxy_protocol import read_proxy_header

#: Parts of headers, and values that break parsers: endless numbers above all.
PIECES = [
    *("9" * 30, "9" * 5000, "-1", "+5", "1e999", "0x1", "٣".encode().decode("latin-1"), "0"),
    *("Mon, 01 Jan 2001 00:00:00 GMT", "Mon, 01 Jan 2001 00:00:00 +99999999999999999999"),
    *(" ", ",", ";", "=", ":", "/", "-", "*", '"', "\\", "(", "%", "%zz", "\t", "\xff"),
    *("bytes=", "Basic ", "W/", "for=", "proto=https", "chunked", "close", "100-continue"),
    *(
        "websocket",
        "upgrade",
        "keep-alive",
        "permessage-deflate",
        "client_max_window_bits=",
        "8",
    ),
    *("a", "xn--", "[::1]", "[fe80::1%25eth0]", "127.0.0.1", ":99999", "unknown", "unix"),
    *("YTpi", "====", "application/json", "charset=", "http://", "https://h/", "//", "?", "@"),
]
VALUES = st.one_of(
    st.sampled_from(PIECES),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.text(st.characters(max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=40),
)

#: Every field that a server reads, and one that it does not.
FIELDS_OF_REQUESTS = [
    *("Host", "Connection", "Upgrade", "Content-Length", "Transfer-Encoding", "Expect"),
    *("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"),
    *("Range", "Authorization", "Cookie", "Content-Type", "Origin", "X-Other"),
    *("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto"),
    *("Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol"),
    "Sec-WebSocket-Extensions",
]
TARGETS = st.one_of(
    st.sampled_from(["/", "/file.txt", "/json", "/secret", "/ws", "/7", "*"]),
    st.lists(st.sampled_from(PIECES), max_size=4).map(lambda pieces: "/" + "".join(pieces)),
)


def site(folder: Path) -> Router:
    router = Router()
    router.post("/json")(lambda request: [request.json(), [*request.query_params], request.cookies])
    router.get("/secret", before=basic_auth({"a": "b"}))(lambda request: "secret")
    router.get("/<int:number>")(lambda request, number: [number])
    router.websocket("/ws", before=basic_auth({"a": "b"}))(echo)
    router.static("/", folder)
    return router


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    (path / "file.txt").write_text("0123456789")
    return path


def run_without_records(main: Callable[[logging.Logger], Awaitable[None]]) -> None:
    """Run it; a record above INFO, as of a traceback, fails the test.

    Untraced: three times as fast, and every line has tests of its own.
    """
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    logger = logging.getLogger("strangers")
    logger.handlers = [QueueHandler(records)]
    logger.setLevel(logging.WARNING)
    with untraced():
        trio.run(main, logger)
    assert records.empty(), records.get().getMessage()


@pytest.mark.parametrize("name", FIELDS_OF_REQUESTS)
@pytest.mark.parametrize("upgrade", [False, True], ids=["plain", "upgrade"])
def test_no_piece_in_any_field_is_a_traceback(folder: Path, name: str, upgrade: bool) -> None:
    async def main(logger: logging.Logger) -> None:
        async with memory_server(site(folder), trusted_proxies=["unix"], logger=logger) as server:
            for piece in PIECES:
                fields = {**(FIELDS if upgrade else {}), name: piece}
                asked = {name.replace("-", "_"): value for name, value in fields.items()}
                async with server.connect() as stream:
                    await stream.send_all(http("GET /file.txt", b"", **asked))
                    await stream.send_eof()
                    response = await read_head(stream)
                    # None, where the body that was announced never came.
                    assert not response or parse_response(response).status < 500

    run_without_records(main)


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "OPTIONS"]),
    target=TARGETS,
    fields=st.dictionaries(st.sampled_from(FIELDS_OF_REQUESTS), VALUES, max_size=3),
    upgrade=st.booleans(),
    proxies=st.sampled_from(["Forwarded", "X-Forwarded-For"]),
)
@settings(max_examples=250, deadline=None)
def test_any_value_of_any_field_is_a_status_and_never_a_traceback(
    *, folder: Path, method: str, target: str, fields: dict[str, str], upgrade: bool, proxies: str
) -> None:
    head = {**(FIELDS if upgrade else {}), **fields}
    keywords = {name.replace("-", "_"): value for name, value in head.items()}
    body = b"[1]" if method == "POST" else b""

    async def main(logger: logging.Logger) -> None:
        async with memory_server(
            site(folder),
            trusted_proxies=["unix", "127.0.0.0/8"],
            proxy_header=proxies,
            logger=logger,
        ) as server:
            stream = server.connect()
            await stream.send_all(http(f"{method} {target}", body, **keywords))
            await stream.send_eof()
            with trio.fail_after(9):
                response = await read_head(stream)
            # None, where the body that was announced never came.
            assert not response or parse_response(response).status < 500 or b" 505 " in response
            await stream.aclose()

    run_without_records(main)


FIELDS_OF_RESPONSES = st.sampled_from(
    [
        *("Connection", "Upgrade", "Content-Length", "Transfer-Encoding", "Location", "X-Other"),
        *("Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"),
    ]
)


@given(
    st.sampled_from([101, 200, 302, 426]),
    st.dictionaries(FIELDS_OF_RESPONSES, VALUES, max_size=3),
)
@settings(max_examples=250, deadline=None)
def test_any_value_of_any_field_opens_a_connection_or_is_a_handshake_error(
    status: int, fields: dict[str, str]
) -> None:
    client, server = trio.testing.memory_stream_pair()

    async def answer() -> None:
        key = request_fields(await read_head(server))["Sec-WebSocket-Key"]
        head = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": accept_value(key),
            **fields,
        }
        lines = [f"HTTP/1.1 {status} x", *(f"{name}: {value}" for name, value in head.items())]
        await server.send_all("\r\n".join([*lines, "", ""]).encode("latin-1"))
        await server.send_eof()

    async def main(logger: logging.Logger) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with trio.fail_after(9):
                try:
                    async with wrap_client_stream(client, "ws://h/", logger=logger) as ws:
                        with pytest.raises(ConnectionClosed):
                            await ws.receive()
                except HandshakeError as exc:
                    assert str(exc)

    run_without_records(main)


@given(st.lists(st.tuples(st.sampled_from(["X-Forwarded-For", "X-Forwarded-Proto"]), VALUES)))
def test_any_x_forwarded_is_believed_or_not(fields: list[tuple[str, str]]) -> None:
    believed(fields, "X-Forwarded-For")


@given(st.lists(st.tuples(st.just("Forwarded"), VALUES)))
def test_any_forwarded_is_believed_or_not(fields: list[tuple[str, str]]) -> None:
    believed(fields, "Forwarded")


def believed(fields: list[tuple[str, str]], field: str) -> None:
    headers = Headers(fields)
    asked = from_client(Request("GET", "/", headers), Networks(["unix"]), field)
    assert asked.scheme in ("ws", "wss")
    if isinstance(asked.remote_address, tuple):
        host, port = asked.remote_address
        assert ip_address(host) is not None
        assert 0 <= port < 65536


@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=100).map(b"PROXY TCP4 ".__add__),
        st.lists(VALUES, max_size=6).map(lambda words: f"PROXY {' '.join(words)}\r\n".encode()),
        st.binary(min_size=4, max_size=60).map(b"\r\n\r\n\0\r\nQUIT\n".__add__),
    )
)
@settings(deadline=None)
def test_any_bytes_are_a_proxy_header_or_a_failed_connection(data: bytes) -> None:
    async def main() -> None:
        near, far = trio.testing.memory_stream_pair()
        await near.send_all(data)
        await near.send_eof()
        try:
            address = await read_proxy_header(far)
        except HandshakeError:
            return
        assert address is None or isinstance(address, tuple)

    trio.run(main)


@given(VALUES, TARGETS)
def test_any_request_has_what_a_request_has(value: str, target: str) -> None:
    names = ("Cookie", "Authorization", "Content-Type", "Sec-WebSocket-Protocol", "Upgrade")
    headers = Headers([(name, value) for name in names])
    asked = Request("POST", target, headers, body=value.encode("latin-1"))
    assert isinstance(asked.path, str)
    assert isinstance(asked.cookies, dict)
    assert all(asked.subprotocols)
    assert asked.is_upgrade in (True, False)
    assert [*asked.query_params] == [*dict(asked.query_params.pairs)]
    for look in (lambda: asked.text, asked.json):
        try:
            look()
        except InvalidRequest as exc:
            assert exc.response.status in (400, 415)


@given(VALUES)
@settings(deadline=None)
def test_any_credentials_are_right_or_a_401(value: str) -> None:
    asked = Request("GET", "/", Headers({"Authorization": value}))

    async def main() -> None:
        answer = await basic_auth({"a": "b"})(asked)
        assert answer is None or isinstance(answer, Response)
        assert answer is None or answer.status == 401

    trio.run(main)


@given(st.one_of(VALUES, st.text()))
@settings(deadline=None)
def test_any_text_is_where_a_subscription_left_off_or_leads_nowhere(position: str) -> None:
    async def main() -> None:
        async with open_broadcast(history=3) as broadcast:
            for number in range(5):
                broadcast.publish(str(number), "topic")
            async with memory_server(echo) as server:
                async with wrap_client_stream(server.connect(), "ws://h/") as ws:
                    with broadcast.subscribe(ws, "topic", position=position) as subscription:
                        assert subscription.recovered in (True, False)

    trio.run(main)
