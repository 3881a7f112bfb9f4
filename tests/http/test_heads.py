"""Requests, responses, and heads to and from bytes."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.handshake.handshake_helpers import parse_response, plain_request, request
from tests.helpers import least_cpu_seconds
from trio_ws import Accept, Headers, Request, Response
from trio_ws._addresses import show_address
from trio_ws._http.exchange import (
    MAX_HEAD_BYTES,
    MAX_HEAD_FIELDS,
    ClientExchange,
    HeadBuffer,
    HeadTooLarge,
    MalformedHead,
    ServerExchange,
    after_empty_lines,
)

# Requests…


def get(target: str, headers: dict[str, str] | None = None) -> Request:
    return Request("GET", target, Headers(headers or {}))


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a/b?c=d", "/a/b", "c=d"),
        ("/a?b?c", "/a", "b?c"),
        ("/a%20b%2Fc?d%20e", "/a b/c", "d%20e"),
        ("/%C3%A9", "/é", ""),
        ("/%FF%zz", "/\ufffd%zz", ""),
        ("/?", "/", ""),
    ],
)
def test_a_request_s_path_is_decoded_and_its_query_is_not(
    target: str, path: str, query: str
) -> None:
    asked = get(target)
    assert (asked.target, asked.path, asked.query) == (target, path, query)


@pytest.mark.parametrize(
    ("query", "pairs"),
    [
        ("", []),
        ("a=1&b=2", [("a", "1"), ("b", "2")]),
        ("a=1&b=2&a=3", [("a", "1"), ("b", "2"), ("a", "3")]),
        ("a+b=%41%20+c", [("a b", "A  c")]),
        ("%C3%A9=%E2%82%AC", [("é", "€")]),
        ("a&b=&=c&&=", [("a", ""), ("b", ""), ("", "c"), ("", "")]),
        ("a=b=c", [("a", "b=c")]),
        ("a=1;b=2", [("a", "1;b=2")]),
        ("a=%zz&b=%&c=%4", [("a", "%zz"), ("b", "%"), ("c", "%4")]),
        ("a=%FF&b=%C3", [("a", "\ufffd"), ("b", "\ufffd")]),
        ("a?b=/", [("a?b", "/")]),
    ],
)
def test_a_query_is_names_and_values(query: str, pairs: list[tuple[str, str]]) -> None:
    params = get(f"/x?{query}").query_params
    assert params.pairs == tuple(pairs)
    assert len(params) == len({*params}) == len({name for name, _ in pairs})
    for name, _ in pairs:
        assert params.get_all(name) == tuple(value for other, value in pairs if other == name)
        assert params[name] == params.get_all(name)[0], "of repeats, the first"


def test_a_name_that_is_not_in_the_query_has_no_value() -> None:
    params = get("/x?a=1").query_params
    assert params.get("b") is None
    assert params.get_all("b") == ()
    with pytest.raises(KeyError, match="b"):
        params["b"]
    assert params == get("/y?a=%31").query_params != get("/y").query_params
    assert params != {"a": "1"}
    assert hash(params) == hash(get("/y?a=1").query_params)
    assert repr(params) == "QueryParams([('a', '1')])"


@given(st.text("&=+%ab\xe9;0"))
def test_any_query_has_names_and_values(query: str) -> None:
    assert all(len(pair) == 2 for pair in get(f"/?{query}").query_params.pairs)


def test_a_request_lists_the_subprotocols_offered() -> None:
    fields = [("Sec-WebSocket-Protocol", "a, b"), ("sec-websocket-protocol", "c")]
    assert Request("GET", "/", Headers(fields)).subprotocols == ("a", "b", "c")


@pytest.mark.parametrize(
    ("headers", "is_upgrade"),
    [
        ({}, False),
        ({"Upgrade": "h2c", "Connection": "Upgrade"}, False),
        ({"Upgrade": "WebSocket"}, True),
        ({"Upgrade": "h2c, websocket"}, True),
        ({"Sec-WebSocket-Key": ""}, True),
    ],
)
def test_a_request_that_asks_for_a_websocket_is_known(
    headers: dict[str, str], is_upgrade: bool
) -> None:
    assert get("/", headers).is_upgrade is is_upgrade


def test_a_request_cannot_be_changed_and_is_what_its_parts_are() -> None:
    asked = get("/a")
    with pytest.raises(FrozenInstanceError):
        asked.target = "/b"  # type: ignore[misc] # what is tested
    assert asked.path == "/a"
    assert asked == get("/a") != get("/b")
    assert pickle.loads(pickle.dumps(asked)) == asked
    assert (asked.scheme, asked.remote_address) == ("ws", None)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80), "[::1]:80"),
        ("/run/app.sock", "/run/app.sock"),
        (None, "a peer without address"),
        ("", "a peer without address"),
    ],
)
def test_an_address_is_shown_as_people_write_it(address: Any, shown: str) -> None:
    assert show_address(address) == shown


# Responses…


def test_a_response_in_bytes_is_kept_as_it_is() -> None:
    for body in (b"\xff", bytearray(b"\xff"), memoryview(b"\xff")):
        response = Response(200, {"X-A": "b"}, bytes(body))
        assert response == Response(200, {"X-A": "b"}, body)
        assert (response.body, response.headers) == (b"\xff", Headers({"X-A": "b"}))


def test_a_response_in_text_goes_out_as_utf_8_and_says_so() -> None:
    response = Response(200, body="é")
    assert response.body == "é".encode()
    assert response.headers == Headers({"Content-Type": "text/plain; charset=utf-8"})


def test_a_response_s_own_content_type_is_kept() -> None:
    response = Response(200, {"content-type": "text/html"}, "<p>")
    assert response.headers == Headers({"Content-Type": "text/html"})


@pytest.mark.parametrize("status", [99, 1000, 0, -200])
def test_a_status_has_three_digits(status: int) -> None:
    with pytest.raises(ValueError, match="an HTTP status has three digits"):
        Response(status)


@pytest.mark.parametrize("status", ["200", 200.5, None])
def test_a_status_is_an_int(status: Any) -> None:
    with pytest.raises(TypeError, match="an HTTP status is an int"):
        Response(status)


@pytest.mark.parametrize("body", [5, None, ["x"]])
def test_a_body_is_text_or_bytes(body: Any) -> None:
    with pytest.raises(TypeError, match="a body is str or a buffer, such as bytes, not"):
        Response(200, body=body)


@pytest.mark.parametrize("status", [101, 204, 304])
def test_some_responses_have_no_body(status: int) -> None:
    assert Response(status).body == b""
    with pytest.raises(ValueError, match=f"a response with status {status} has no body"):
        Response(status, body=b"x")


def test_a_response_s_headers_are_checked() -> None:
    with pytest.raises(ValueError, match="line break"):
        Response(200, {"X-A": "b\r\nX-Evil: c"})
    with pytest.raises(ValueError, match="line break"):
        Accept(headers={"Set-Cookie": "a=b\n"})


def test_a_status_may_come_from_the_standard_library() -> None:
    response = Response(HTTPStatus.NOT_FOUND)
    assert repr(response) == "Response(status=404, headers=Headers([]))"
    assert response.phrase == "Not Found"
    assert Response(599).phrase == "Unknown"


def test_accepting_needs_no_terms() -> None:
    assert Accept() == Accept(..., {})
    assert Accept() != Accept(None)
    assert Accept("chat", [("A", "b")]).headers == Headers({"A": "b"})


# Collecting a head…

HEAD = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def new_buffer(data: bytes = b"") -> HeadBuffer:
    buffer = HeadBuffer(ServerExchange.STARTS)
    buffer.feed(data)
    return buffer


def test_a_head_is_given_when_it_is_whole_and_the_rest_is_kept() -> None:
    buffer = new_buffer(HEAD[:-1])
    assert buffer.take() is None
    buffer.feed(HEAD[-1:] + b"\x81\x00 more")
    assert buffer.take() == HEAD
    assert buffer.rest() == b"\x81\x00 more"


def test_an_empty_buffer_has_no_head() -> None:
    assert new_buffer().take() is None
    assert new_buffer().rest() == b""


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"])
def test_lines_may_end_in_a_bare_line_feed(end: bytes) -> None:
    buffer = HeadBuffer(ServerExchange.STARTS)
    head = b"GET / HTTP/1.1\r\nHost: h" + end
    for number in range(len(head)):
        assert buffer.take() is None
        buffer.feed(head[number : number + 1])
    assert buffer.take() == head


@pytest.mark.parametrize("empty", [b"\r\n", b"\n", b"\r\n\n\r\n"])
def test_empty_lines_before_a_request_are_passed_over(empty: bytes) -> None:
    for number in range(len(empty) + 1):
        buffer = new_buffer(empty[:number])
        assert buffer.take() is None
        buffer.feed(empty[number:] + HEAD[:5])
        assert buffer.take() is None
        buffer.feed(HEAD[5:] + empty)
        assert buffer.take() == HEAD
        assert buffer.rest() == empty


def test_endless_empty_lines_are_no_request() -> None:
    buffer = new_buffer(b"")
    with pytest.raises(MalformedHead, match="nothing in it but empty lines"):
        for _ in range(MAX_HEAD_BYTES):
            buffer.feed(b"\r\n")
            assert buffer.take() is None
    buffer = new_buffer(b"\n" * MAX_HEAD_BYTES)
    assert buffer.take() is None


@pytest.mark.parametrize(
    "start", [b"\x16\x03\x01", b"\r\r\n", b"\r\n\rG", b" GET", b"\r\n GET", b"\x00", b"\xff", b":"]
)
def test_bytes_that_start_like_no_request_are_refused_at_once(start: bytes) -> None:
    with pytest.raises(MalformedHead, match="this is (TLS, and )?not HTTP"):
        new_buffer(start).take()


@pytest.mark.parametrize("start", [b"h", b"HTTQ", b"HT/", b"SSH-2.0", b"<html>", b"HTTP 200"])
def test_bytes_that_start_like_no_response_are_refused_at_once(start: bytes) -> None:
    buffer = HeadBuffer(ClientExchange.STARTS)
    buffer.feed(start)
    with pytest.raises(MalformedHead, match="this is not HTTP"):
        buffer.take()


def test_what_may_become_a_response_is_waited_for() -> None:
    buffer = HeadBuffer(ClientExchange.STARTS)
    for character in b"HTTP/":
        buffer.feed(bytes([character]))
        assert buffer.take() is None


def padded(size: int) -> bytes:
    """A request whose head has exactly this many bytes."""
    return plain_request("GET / HTTP/1.1", ("X-A", "a" * (size - len(plain_request()) - 7)))


def test_a_head_may_have_exactly_the_limit_in_bytes() -> None:
    assert len(padded(MAX_HEAD_BYTES)) == MAX_HEAD_BYTES
    assert new_buffer(padded(MAX_HEAD_BYTES) + b"more").take() == padded(MAX_HEAD_BYTES)


def test_a_head_over_the_limit_is_refused_whole_or_not() -> None:
    with pytest.raises(HeadTooLarge, match="the head is larger than 16384 bytes"):
        new_buffer(padded(MAX_HEAD_BYTES + 1)).take()
    assert new_buffer(padded(MAX_HEAD_BYTES + 9)[:MAX_HEAD_BYTES]).take() is None
    with pytest.raises(HeadTooLarge):
        new_buffer(padded(MAX_HEAD_BYTES + 9)[: MAX_HEAD_BYTES + 1]).take()


def test_a_head_may_have_exactly_the_limit_in_fields() -> None:
    fields = [("X", "y")] * (MAX_HEAD_FIELDS - 1)  # and Host
    assert new_buffer(plain_request("GET / HTTP/1.1", *fields)).take() is not None
    with pytest.raises(HeadTooLarge, match="the head has more than 128 fields"):
        new_buffer(plain_request("GET / HTTP/1.1", *fields, ("X", "y"))).take()


def test_heads_in_a_row_share_the_limit() -> None:
    buffer = HeadBuffer(ClientExchange.STARTS)
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: " + b"a" * 8150 + b"\r\n\r\n"
    buffer.feed(hints + hints + b"HTTP/1.1 101 Switching Protocols\r\n")
    assert buffer.take() == buffer.take() == hints
    with pytest.raises(HeadTooLarge):
        buffer.take()


async def test_collecting_byte_by_byte_takes_linear_time() -> None:
    async def collect() -> None:
        buffer = HeadBuffer(ServerExchange.STARTS)
        for _ in range(MAX_HEAD_BYTES):
            buffer.feed(b"a")
            assert buffer.take() is None

    assert await least_cpu_seconds(collect) < 0.5


# The server's side…


def parse_request(head: bytes) -> tuple[Request, str]:
    return ServerExchange().request(head, scheme="ws", remote_address=None)


def test_a_request_is_read() -> None:
    asked, version = ServerExchange().request(
        request("GET /a?b HTTP/1.1", ("Cookie", "a=\xe9"), ("cookie", "b")),
        scheme="wss",
        remote_address=("::1", 5),
    )
    assert (asked.method, asked.target, version) == ("GET", "/a?b", "1.1")
    assert (asked.scheme, asked.remote_address) == ("wss", ("::1", 5))
    assert asked.headers.get_all("Cookie") == ("a=\xe9", "b")
    assert ("cookie", "b") in asked.headers.fields


@pytest.mark.parametrize(
    "head",
    [
        b"GET\r\n\r\n",
        b"GET /\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX y: z\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n: z\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1x\r\nHost: h\r\n\r\n",
    ],
)
def test_a_malformed_request_is_one_error(head: bytes) -> None:
    with pytest.raises(MalformedHead):
        parse_request(head)


@pytest.mark.parametrize("octet", [*range(9), 11, 12, 13, *range(14, 32), 127])
def test_a_control_character_anywhere_is_refused(octet: int) -> None:
    for head in (
        b"GET /%c HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX-A%c: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX-A: a%cb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX-A: ab%c\r\n\r\n",
    ):
        with pytest.raises(MalformedHead, match="it holds a control character"):
            parse_request(head % octet)


def test_a_long_error_is_cut_short() -> None:
    with pytest.raises(MalformedHead) as caught:
        parse_request(b"GET / HTTP/1.1\r\nHost: h\r\n" + b"x" * 16000 + b"\r\n\r\n")
    assert len(str(caught.value)) <= 120


@pytest.mark.parametrize(
    "line",
    [
        b"X-A: " + b" " * 16000 + b"\0",
        b"X-A: " + b"\t " * 8000 + b"\ra",
        b"X-A: a" + b" a" * 8000 + b"\x0c",
        b"X-A:" + b" " * 16000,
        b"X-A: a" + b" " * 16000 + b"b",
        b"x" * 16000,
        b"Connection: " + b"," * 16000,
        b"Content-Length: " + b"1," * 8000 + b"1",
        b"Transfer-Encoding: " + b"," * 16000,
        b"X-A: a" + b"\r\n a" * 120,
    ],
    ids=range(10),
)
async def test_no_value_is_slow_to_parse(line: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nHost: h\r\n" + line + b"\r\n\r\n"

    async def parse() -> None:
        try:
            asked, _ = parse_request(new_buffer(head).take() or b"")
            asked.headers.tokens("Connection")
        except (MalformedHead, HeadTooLarge):
            pass

    assert await least_cpu_seconds(parse) < 0.05


@given(st.binary(max_size=300), st.sampled_from([b"", HEAD[:-2], HEAD[:-8]]))
@settings(max_examples=300, deadline=None)
def test_any_head_is_a_request_or_one_of_two_errors(data: bytes, start: bytes) -> None:
    try:
        buffer = new_buffer(start + data + b"\n\n")
        head = buffer.take()
        if head is None:  # there is nothing but empty lines
            assert not (start + data).strip(b"\r\n")
            return
        assert head + buffer.rest() == after_empty_lines(start + data + b"\n\n")
        parse_request(head)
    except (MalformedHead, HeadTooLarge):
        pass


def answer(
    response: Response, defaults: Mapping[str, str] | None = None, head: bytes = HEAD
) -> bytes:
    exchange = ServerExchange()
    exchange.request(head, scheme="ws", remote_address=None)
    return exchange.response(response, Headers(defaults or {}))


def test_a_response_is_written_with_all_that_a_client_needs() -> None:
    written = parse_response(
        answer(Response(404, {"X-A": "b"}, "gone"), {"Server": "me/1", "X-B": "c"})
    )
    assert (written.status, written.phrase, written.body) == (404, "Not Found", b"gone")
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", written.headers["Date"])
    del_date = [pair for pair in written.headers.fields if pair[0] != "Date"]
    assert del_date == [
        ("Connection", "close"),
        ("Content-Length", "4"),
        ("Server", "me/1"),
        ("X-B", "c"),
        ("X-A", "b"),
        ("Content-Type", "text/plain; charset=utf-8"),
    ]


def test_a_response_s_own_fields_are_kept() -> None:
    own = Response(200, [("server", "x"), ("date", "today"), ("Vary", "a"), ("Vary", "b")])
    written = parse_response(answer(own, {"Server": "me/1", "Vary": "c"}))
    assert written.headers.get_all("Server") == ("x",)
    assert written.headers.get_all("Vary") == ("a", "b")
    assert written.headers.get_all("Date") == ("today",)


def test_there_is_no_server_field_where_none_is_wanted() -> None:
    assert "Server" not in parse_response(answer(Response(200))).headers


@pytest.mark.parametrize("status", [200, 204, 304, 404])
def test_only_the_library_says_where_a_response_ends(status: int) -> None:
    own = {"Content-Length": "77", "Transfer-Encoding": "chunked", "Connection": "keep-alive"}
    written = parse_response(answer(Response(status, own)))
    assert written.headers.get_all("Connection") == ("close",)
    assert "Transfer-Encoding" not in written.headers
    expected = () if status in (204, 304) else ("0",)
    assert written.headers.get_all("Content-Length") == expected
    assert written.body == b""


def test_a_response_to_head_has_the_length_and_not_the_body() -> None:
    written = parse_response(
        answer(Response(200, body=b"12345"), head=HEAD.replace(b"GET", b"HEAD"))
    )
    assert written.headers["Content-Length"] == "5"
    assert written.body == b""


def test_an_upgrade_field_is_named_in_connection() -> None:
    written = parse_response(answer(Response(426, {"Upgrade": "websocket"})))
    assert written.headers["Connection"] == "close, Upgrade"


def test_a_response_can_be_written_after_a_request_that_cannot_be_read() -> None:
    exchange = ServerExchange()
    with pytest.raises(MalformedHead):
        exchange.request(b"GET\r\n\r\n", scheme="ws", remote_address=None)
    assert parse_response(exchange.response(Response(400, body=b"no"), Headers())).body == b"no"


# The client's side…


def ask(*heads: bytes) -> tuple[ClientExchange, list[tuple[Response, str]]]:
    exchange = ClientExchange()
    exchange.request("/", Headers({"Host": "h", "Upgrade": "websocket", "Connection": "Upgrade"}))
    return exchange, [exchange.response(head) for head in heads]


def test_a_request_is_written() -> None:
    data = ClientExchange().request("/a?b", Headers([("Host", "h"), ("X-A", "\xe9")]))
    assert data == b"GET /a?b HTTP/1.1\r\nHost: h\r\nX-A: \xe9\r\n\r\n"


def test_a_response_is_read() -> None:
    _, [(response, version)] = ask(b"HTTP/1.0 403 No\r\nA: \xe9\r\na: 2\r\n\r\n")
    assert (response, version) == (Response(403, [("A", "\xe9"), ("a", "2")]), "1.0")


def test_a_response_may_be_announced() -> None:
    _, answers = ask(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    )
    assert [response.status for response, _ in answers] == [103, 101]


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/1.1 1000 High\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x01\r\n\r\n",
    ],
)
def test_a_malformed_response_is_one_error(head: bytes) -> None:
    with pytest.raises(MalformedHead):
        ask(head)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_answer_is_a_response_or_one_of_two_errors(data: bytes) -> None:
    buffer = HeadBuffer(ClientExchange.STARTS)
    buffer.feed(b"HTTP/1.1 " + data + b"\r\n\r\n")
    try:
        ask(buffer.take() or b"")
    except (MalformedHead, HeadTooLarge):
        pass


def read_body(head: bytes, *pieces: bytes | None) -> list[tuple[bytes, bool]]:
    exchange, _ = ask(head)
    return [exchange.body(piece) for piece in pieces]


def test_a_body_of_known_length_ends_there() -> None:
    head = b"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\n"
    assert read_body(head, None, b"ab", b"cdef") == [(b"", False), (b"ab", False), (b"cd", True)]


def test_a_response_without_a_body_is_complete_at_once() -> None:
    for head in (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 204 No\r\n\r\n"):
        assert read_body(head, None) == [(b"", True)]


def test_a_body_in_chunks_is_put_together() -> None:
    head = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = (b"2\r\nab\r\n1\r\nc", b"\r\n0\r\n\r\n")
    assert read_body(head, *pieces) == [(b"abc", False), (b"", True)]


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    assert read_body(b"HTTP/1.1 403 No\r\n\r\n", b"ab", b"") == [(b"ab", False), (b"", True)]


@pytest.mark.parametrize(
    ("field", "pieces"),
    [(b"Content-Length: 4", (b"ab", b"")), (b"Transfer-Encoding: chunked", (b"2\r\nabXX",))],
)
def test_a_body_that_breaks_off_has_ended(field: bytes, pieces: tuple[bytes, ...]) -> None:
    *_, last = read_body(b"HTTP/1.1 403 No\r\n" + field + b"\r\n\r\n", *pieces)
    assert last[1]
