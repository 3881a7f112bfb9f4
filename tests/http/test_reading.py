"""A request head is read and judged in one step, without I/O: a request comes out, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, strategies as st

from tests.helpers import REQUEST
from tests.protocol.properties import budget
from trio_ws import InvalidRequest
from trio_ws._addresses import TLS, Address
from trio_ws._http.exchange import MAX_HEAD_BYTES
from trio_ws._http.networks import Networks
from trio_ws._http.reading import IncomingRequest, RequestReader, check_is_only_a_head


@dataclass
class Connection:
    """What a request comes from."""

    scheme: str = "ws"
    remote_address: Address = ("192.0.2.1", 50000)
    local_address: Address = ("192.0.2.2", 80)
    tls: TLS | None = None


def read(data: bytes, step: int = 0, *, tls: bool = False) -> IncomingRequest | None:
    """Feed `data` in pieces of `step` bytes, or at once."""
    reader = RequestReader(Connection("wss" if tls else "ws"))
    step = step or len(data)
    incoming = None
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
        incoming = reader.take()
        if incoming is not None:
            break
    return incoming


def whole(data: bytes, *, tls: bool = False) -> IncomingRequest:
    incoming = read(data, tls=tls)
    assert incoming is not None
    return incoming


def get(target: str, *fields: str, version: str = "1.1", host: str = "example.org") -> bytes:
    lines = [f"GET {target} HTTP/{version}", f"Host: {host}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def test_a_request_comes_with_what_follows_it() -> None:
    incoming = whole(get("/a?b") + b"more")
    assert (incoming.request.target, incoming.version, incoming.rest) == ("/a?b", "1.1", b"more")
    assert incoming.request.remote_address == ("192.0.2.1", 50000)
    assert incoming.request.local_address == ("192.0.2.2", 80)


@pytest.mark.parametrize(
    ("tls", "page", "websocket"), [(False, "http", "ws"), (True, "https", "wss")]
)
def test_the_scheme_says_whether_a_page_or_a_websocket_is_asked_for(
    tls: bool, page: str, websocket: str
) -> None:
    assert whole(get("/"), tls=tls).request.scheme == page
    assert whole(REQUEST, tls=tls).request.scheme == websocket


@pytest.mark.parametrize(
    ("data", "status", "problem"),
    [
        (get("/", version="2.0"), 505, "not HTTP/2.0"),
        (get("/", version="0.9"), 505, "not HTTP/0.9"),
        (get("/#a"), 400, "a fragment"),
        (get("a"), 400, "must be a path or a URL"),
        (get("*"), 400, "must be a path or a URL"),
        (get("ftp://example.org/"), 400, "must be a path or a URL"),
        (get("https://example.org/"), 421, "over TLS only"),
        (get("http:///a"), 400, "not a host and port"),
        (get("/", host="a/b"), 400, "not a host and port"),
        (get("/", host="xn--abc-"), 400, "not a valid internationalised name"),
        (get("/", "Transfer-Encoding: chunked", "Content-Length: 1"), 400, "exclude each other"),
        (get("/", "Transfer-Encoding: chunked", version="1.0"), 400, "knows no Transfer-Encoding"),
        (get("/" * MAX_HEAD_BYTES), 414, "target is too long"),
        (get("/", *["A: b"] * 200), 431, "fields"),
        (b"\x16\x03\x01", 400, "this is TLS, and there is none here"),
    ],
)
def test_what_nobody_is_to_answer_is_refused_with_a_response_to_send(
    data: bytes, status: int, problem: str
) -> None:
    with pytest.raises(InvalidRequest, match=problem) as info:
        read(data)
    assert info.value.response.status == status


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (get("/", version="1.0"), 505),
        (get("/", "Content-Length: 1"), 400),
        (get("/", "Transfer-Encoding: chunked"), 400),
    ],
)
def test_a_page_may_have_what_a_websocket_may_not(data: bytes, status: int) -> None:
    incoming = whole(data)
    with pytest.raises(InvalidRequest) as info:
        check_is_only_a_head(incoming)
    assert info.value.response.status == status


def test_a_head_without_a_body_is_only_a_head() -> None:
    check_is_only_a_head(whole(get("/", "Content-Length: 0")))
    check_is_only_a_head(whole(REQUEST))


def test_a_client_that_the_proxy_protocol_told_is_believed_and_no_field() -> None:
    ends = Connection(remote_address=("10.0.0.1", 1))
    reader = RequestReader(ends, ("192.0.2.9", 9), Networks(["10.0.0.0/8"]), "PROXY")
    reader.feed(get("/", "X-Forwarded-For: 192.0.2.66"))
    incoming = reader.take()
    assert incoming is not None
    assert incoming.request.remote_address == ("192.0.2.9", 9)


SEEDS = [
    REQUEST + b"frames",
    get("/a", "Content-Length: 3") + b"abc",
    get("http://other.example/") + get("/next"),
    b"\r\n" + get("/#a"),
    get("/", "Transfer-Encoding: chunked", "Content-Length: 1"),
]


@budget(100)
@given(
    data=st.sampled_from(SEEDS),
    place=st.integers(0, 200),
    other=st.binary(max_size=3),
    step=st.integers(1, 60),
)
def test_a_request_is_judged_the_same_however_it_is_cut(
    data: bytes, place: int, other: bytes, step: int
) -> None:
    mutated = data[:place] + other + data[place + len(other) :]

    def judge(step: int) -> object:
        try:
            incoming = read(mutated, step)
        except InvalidRequest:
            return InvalidRequest  # for which reason may depend on how much is here
        return incoming and incoming.request

    assert judge(step) == judge(0)
