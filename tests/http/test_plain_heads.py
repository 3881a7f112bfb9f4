"""Heads that need no judge: whatever is read without h11 is what h11 would have read."""

from __future__ import annotations

import re
from typing import Any

import h11
import pytest
from hypothesis import given, settings, strategies as st

from tests.helpers import least_cpu_seconds
from trio_ws import Headers, Response
from trio_ws._http.exchange import HeadBuffer, MalformedHead, ServerExchange

FIELDS = [
    b"Host: example.org:8080",
    b"Upgrade: websocket",
    b"Connection: keep-alive, Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
]
FROM_A_BROWSER = [
    *FIELDS,
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"Origin: https://example.org",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    b"Cookie: a=b; c=d",
]


def head_of(*fields: bytes, start: bytes = b"GET /a?b=c HTTP/1.1") -> bytes:
    return b"\r\n".join([start, *fields, b"", b""])


def read(head: bytes) -> tuple[ServerExchange, tuple[Any, ...] | None]:
    """Method, target, fields and version, or `None` for what is refused."""
    exchange = ServerExchange()
    try:
        request, version = exchange.request(head, scheme="ws", remote_address=None)
    except MalformedHead:
        return exchange, None
    return exchange, (request.method, request.target, request.headers.fields, version)


def read_by_h11(head: bytes) -> tuple[Any, ...] | None:
    if re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)", head):
        return None  # the one thing that is refused before h11 is asked
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(head)
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    assert isinstance(event, h11.Request)
    fields = tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in event.headers.raw_items()
    )
    return (
        event.method.decode(),
        event.target.decode("latin-1"),
        fields,
        event.http_version.decode(),
    )


def was_asked(exchange: ServerExchange) -> bool:
    """Whether h11 has been asked."""
    return exchange._connection is not None


@pytest.mark.parametrize(
    "head",
    [
        head_of(*FIELDS),
        head_of(*FROM_A_BROWSER),
        head_of(*(field.lower() for field in FIELDS)),
        head_of(*FIELDS, b"X: " + b"a" * 8000),
        head_of(*FIELDS, b"X: a", b"X: b", b"x: :c"),
        head_of(*FIELDS, start=b"GET / HTTP/1.1"),
    ],
)
def test_a_plain_head_is_read_as_h11_reads_it_without_asking_h11(head: bytes) -> None:
    exchange, result = read(head)
    assert result == read_by_h11(head)
    assert result is not None
    assert not was_asked(exchange)


# What h11 handles, one row each. Each is asked for here, and what it says counts.
IRREGULAR = {
    # The request line.
    "another method": head_of(*FIELDS, start=b"POST / HTTP/1.1"),
    "a method in lower case": head_of(*FIELDS, start=b"get / HTTP/1.1"),
    "a method that is no token": head_of(*FIELDS, start=b"G(T / HTTP/1.1"),
    "a target that is a URL": head_of(*FIELDS, start=b"GET http://example.org/ HTTP/1.1"),
    "a target with a space": head_of(*FIELDS, start=b"GET /a b HTTP/1.1"),
    "a target beyond ASCII": head_of(*FIELDS, start=b"GET /\xe9 HTTP/1.1"),
    "no target": head_of(*FIELDS, start=b"GET HTTP/1.1"),
    "two spaces": head_of(*FIELDS, start=b"GET  / HTTP/1.1"),
    "a space after the version": head_of(*FIELDS, start=b"GET / HTTP/1.1 "),
    "an older version": head_of(*FIELDS, start=b"GET / HTTP/1.0"),
    "a later version": head_of(*FIELDS, start=b"GET / HTTP/1.2"),
    "a version that is none": head_of(*FIELDS, start=b"GET / HTTP/1.10"),
    # The lines.
    "lines that end at LF": head_of(*FIELDS).replace(b"\r\n", b"\n"),
    "one line that ends at LF": head_of(*FIELDS).replace(b"websocket\r\n", b"websocket\n"),
    "a bare CR": head_of(*FIELDS, b"X: a\rb"),
    "a folded line": head_of(*FIELDS, b"X: a", b" b"),
    "a first line that is folded": head_of(b" Host: a", *FIELDS),
    "no fields": head_of(),
    # A field.
    "no colon": head_of(*FIELDS, b"X"),
    "no name": head_of(*FIELDS, b": a"),
    "a name that is no token": head_of(*FIELDS, b"X(: a"),
    "a space before the colon": head_of(*FIELDS, b"X : a"),
    "no space after the colon": head_of(*FIELDS, b"X:a"),
    "two spaces after the colon": head_of(*FIELDS, b"X:  a"),
    "a tab after the colon": head_of(*FIELDS, b"X:\ta"),
    "a space behind the value": head_of(*FIELDS, b"X: a "),
    "a tab in the value": head_of(*FIELDS, b"X: a\tb"),
    "an empty value": head_of(*FIELDS, b"X:"),
    "a value of spaces": head_of(*FIELDS, b"X:   "),
    "a value beyond ASCII": head_of(*FIELDS, b"X: \xe9"),
    "a value with NUL": head_of(*FIELDS, b"X: a\0b"),
    "a value with another control character": head_of(*FIELDS, b"X: a\x7fb"),
    # The fields together.
    "no Host": head_of(*FIELDS[1:]),
    "two Hosts": head_of(*FIELDS, b"host: example.org:8080"),
    "a body": head_of(*FIELDS, b"Content-Length: 2"),
    "an empty body": head_of(*FIELDS, b"content-length: 0"),
    "a length that is no number": head_of(*FIELDS, b"Content-Length: +2"),
    "a long length": head_of(*FIELDS, b"Content-Length: " + b"1" * 21),
    "two lengths": head_of(*FIELDS, b"Content-Length: 1", b"Content-Length: 2"),
    "a list of lengths": head_of(*FIELDS, b"Content-Length: 1, 1"),
    "chunks": head_of(*FIELDS, b"Transfer-Encoding: chunked"),
    "an unknown coding": head_of(*FIELDS, b"Transfer-Encoding: gzip"),
    "two codings": head_of(*FIELDS, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    # Requests for pages: h11 has to write the response anyway.
    "a page": head_of(FIELDS[0]),
}


@pytest.mark.parametrize("head", IRREGULAR.values(), ids=IRREGULAR)
def test_whatever_is_not_plain_h11_judges(head: bytes) -> None:
    exchange, result = read(head)
    assert result == read_by_h11(head)
    # Control characters are refused before.
    assert was_asked(exchange) or result is None


NAMES = st.sampled_from([field.partition(b":")[0] for field in FROM_A_BROWSER]) | st.sampled_from(
    [b"Content-Length", b"transfer-encoding", b"Expect", b"X", b"", b" ", b"X y", b"\xe9"]
)
VALUES = st.sampled_from(
    [
        b"a",
        b"a b",
        b"2",
        b"chunked",
        b"",
        b" a",
        b"a ",
        b"\t",
        b"a\tb",
        b"\xff",
        b"\0",
        b"a:b",
        b": ",
    ]
)
SEPARATORS = st.sampled_from([b": ", b": ", b": ", b":", b" :", b":  ", b""])
ENDS = st.sampled_from([b"\r\n"] * 9 + [b"\n", b"\r", b"\r\r\n", b"\r\n "])
LINES = st.tuples(NAMES, SEPARATORS, VALUES, ENDS).map(b"".join)
STARTS = st.sampled_from([b"GET / HTTP/1.1\r\n"] * 5 + [b"GET /\r\n", b"HEAD / HTTP/1.0\r\n", b""])


@given(STARTS, st.permutations(FIELDS), st.lists(LINES, max_size=3), st.binary(max_size=3))
@settings(max_examples=1000, deadline=None)
def test_any_head_means_the_same_with_h11_and_without(
    start: bytes, fields: list[bytes], lines: list[bytes], odd: bytes
) -> None:
    whole = start + b"".join(field + b"\r\n" for field in fields)
    for head in (
        whole + b"".join(lines),
        start + b"".join(lines) + whole.removeprefix(start),
        whole[: len(whole) // 2] + odd + whole[len(whole) // 2 :],
    ):
        buffer = HeadBuffer(ServerExchange.STARTS)
        buffer.feed(head + b"\r\n\r\n")
        try:
            first = buffer.take()
        except MalformedHead:
            continue
        assert first is not None
        assert read(first)[1] == read_by_h11(first)


@pytest.mark.parametrize(
    "more",
    [[], [b"Connection: close"], [b"Expect: 100-continue"], [b"Connection: keep-alive"]],
    ids=["as it is", "close", "100-continue", "keep-alive"],
)
@pytest.mark.parametrize("close", [True, False])
def test_h11_writes_the_response_to_a_plain_head_as_if_it_had_read_it(
    more: list[bytes], close: bool
) -> None:
    outcomes = []
    for for_h11 in ([], [b"X: a\tb"]):
        exchange, result = read(head_of(*FIELDS, *more, *for_h11))
        assert result is not None
        assert was_asked(exchange) is bool(for_h11)
        response = Response(403, {"Date": "today"}, "no")
        outcomes.append(
            (
                exchange.waits_for_continue,
                exchange.body(),
                exchange.wants_body,
                exchange.piece_size,
                exchange.response(response, Headers({"Server": "me"}), close=close),
                exchange.may_be_followed,
            )
        )
    assert outcomes[0] == outcomes[1]


def test_no_part_of_h11_is_made_for_a_connection_that_is_let_in() -> None:
    exchange, _ = read(head_of(*FROM_A_BROWSER))
    assert exchange.switching_protocols(Headers({"Upgrade": "websocket"}))
    assert not was_asked(exchange)


@pytest.mark.parametrize(
    "field",
    [
        b"X: " + b"a" * 15000 + b" ",
        b"X: a" + b" " * 15000,
        b"X: a" + b" " * 15000 + b"\xff",
        b"X" * 15000,
        b"\r\n".join([b"X: a"] * 100) + b"\r\nX: a ",
    ],
    ids=range(5),
)
async def test_a_head_that_is_nearly_plain_takes_no_longer_to_read(field: bytes) -> None:
    head = head_of(*FIELDS, field)

    async def parse() -> None:
        read(head)

    assert await least_cpu_seconds(parse) < 0.05
