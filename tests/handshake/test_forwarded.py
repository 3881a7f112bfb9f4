"""The client's address in header fields of proxies, and which proxies to believe."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import pytest
from hypothesis import given, strategies as st

from tests.handshake.handshake_helpers import site
from tests.web.web_helpers import http, open_site
from trio_ws import Headers, ListenerOptions, Request
from trio_ws._http.forwarded import from_client
from trio_ws._http.networks import Networks

TRUSTED = ["10.0.0.0/8", "2001:db8::/32", "unix"]
PEER = ("10.0.0.1", 5)

#: The peer, X-Forwarded-For and X-Forwarded-Proto, and what is made of them.
SAID: list[tuple[Any, str | None, str | None, Any, str]] = [
    (PEER, "1.2.3.4", None, ("1.2.3.4", 0), "ws"),
    (PEER, "1.2.3.4", "https", ("1.2.3.4", 0), "wss"),
    (PEER, "1.2.3.4", "HTTPS", ("1.2.3.4", 0), "wss"),
    (PEER, "1.2.3.4", "gopher", ("1.2.3.4", 0), "ws"),
    (PEER, "1.2.3.4", "http, https", ("1.2.3.4", 0), "wss"),
    (PEER, "6.6.6.6, 1.2.3.4", None, ("1.2.3.4", 0), "ws"),
    (PEER, "6.6.6.6, 1.2.3.4, 10.9.9.9, 10.8.8.8", None, ("1.2.3.4", 0), "ws"),
    (PEER, "10.3.3.3, 10.9.9.9", None, ("10.3.3.3", 0), "ws"),
    (PEER, "1.2.3.4:567", None, ("1.2.3.4", 567), "ws"),
    (PEER, "2001:db9::1", None, ("2001:db9::1", 0), "ws"),
    (PEER, "[2001:db9::1]", None, ("2001:db9::1", 0), "ws"),
    (PEER, "[2001:db9::1]:567", None, ("2001:db9::1", 567), "ws"),
    (PEER, "1.2.3.4, 2001:db8::7", None, ("1.2.3.4", 0), "ws"),
    (PEER, "::ffff:1.2.3.4", None, ("1.2.3.4", 0), "ws"),
    (PEER, "6.6.6.6, unknown, 10.9.9.9", None, ("10.9.9.9", 0), "ws"),
    (PEER, "6.6.6.6, <script>", None, PEER, "ws"),
    (PEER, "1.2.3.400", None, PEER, "ws"),
    (PEER, "1.2.3.4:65535", None, ("1.2.3.4", 65535), "ws"),
    (PEER, "1.2.3.4:65536", None, PEER, "ws"),
    (PEER, "6.6.6.6, [2001:db9::1]:99999", None, PEER, "ws"),
    (PEER, "1.2.3.4%eth0", None, PEER, "ws"),
    (PEER, "fe80::1%eth0", None, ("fe80::1", 0), "ws"),
    (PEER, "", None, PEER, "ws"),
    (PEER, ", ,", None, PEER, "ws"),
    (PEER, None, "https", PEER, "wss"),
    (PEER, None, None, PEER, "ws"),
    (("::ffff:10.0.0.1", 5), "1.2.3.4", None, ("1.2.3.4", 0), "ws"),
    (("2001:db8::1%eth0", 5), "1.2.3.4", None, ("1.2.3.4", 0), "ws"),
    (None, "1.2.3.4", "https", ("1.2.3.4", 0), "wss"),
    ("/run/socket", "1.2.3.4", None, ("1.2.3.4", 0), "ws"),
    (("11.0.0.1", 5), "1.2.3.4", "https", ("11.0.0.1", 5), "ws"),
    (("2001:db9::1", 5), "1.2.3.4", "https", ("2001:db9::1", 5), "ws"),
]


@pytest.mark.parametrize(("peer", "addresses", "scheme", "address", "as_scheme"), SAID)
def test_the_last_address_that_is_no_trusted_proxy_is_the_client(
    peer: Any, addresses: str | None, scheme: str | None, address: Any, as_scheme: str
) -> None:
    fields = [("X-Forwarded-For", addresses), ("X-Forwarded-Proto", scheme)]
    headers = Headers([(name, value) for name, value in fields if value is not None])
    asked = Request("GET", "/", headers, "ws", peer)
    told = from_client(asked, Networks(TRUSTED), "X-Forwarded-For")
    assert (told.remote_address, told.scheme) == (address, as_scheme)
    assert told.headers is headers


def test_fields_on_several_lines_are_one_list() -> None:
    headers = Headers([("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "1.2.3.4")])
    asked = Request("GET", "/", headers, "ws", PEER)
    told = from_client(asked, Networks(TRUSTED), "X-Forwarded-For")
    assert told.remote_address == ("1.2.3.4", 0)


@pytest.mark.parametrize(
    ("field", "address", "scheme"),
    [
        ("for=1.2.3.4", ("1.2.3.4", 0), "ws"),
        ("For=1.2.3.4;Proto=https;by=10.0.0.1", ("1.2.3.4", 0), "wss"),
        ('for="1.2.3.4:567"', ("1.2.3.4", 567), "ws"),
        ('for="[2001:db9::1]:567";proto=https', ("2001:db9::1", 567), "wss"),
        (r'for="1.2.\3.4"', ("1.2.3.4", 0), "ws"),
        ("for=6.6.6.6;proto=https, for=1.2.3.4", ("1.2.3.4", 0), "ws"),
        ("for=1.2.3.4;proto=https, for=10.9.9.9;proto=http", ("1.2.3.4", 0), "wss"),
        ("for=1.2.3.4;proto=https, for=10.9.9.9", ("1.2.3.4", 0), "wss"),
        ('host="a,b;c";for=1.2.3.4', ("1.2.3.4", 0), "ws"),
        ("for=6.6.6.6, for=unknown, for=10.9.9.9", ("10.9.9.9", 0), "ws"),
        ("for=6.6.6.6, for=_hidden", PEER, "ws"),
        ("proto=https", PEER, "wss"),
        ("for=6.6.6.6, for=unknown;proto=https", PEER, "wss"),
        ('for="1.2.3.4:_hidden"', ("1.2.3.4", 0), "ws"),
        ('for="1.2.3.4:65536"', PEER, "ws"),
        (" ;for=1.2.3.4 ;; proto=https;\t", ("1.2.3.4", 0), "wss"),
        ("for=1.2.3.4, ,\t,", ("1.2.3.4", 0), "ws"),
        ("for=1.2.3.4, nonsense", PEER, "ws"),
        ("for=6.6.6.6;for=1.2.3.4", PEER, "ws"),
        ('for="1.2.3.4', PEER, "ws"),
        ('for=6.6.6.6, for="1.2.3.4', PEER, "ws"),
        ("", PEER, "ws"),
    ],
)
def test_forwarded_is_read_from_its_end(field: str, address: Any, scheme: str) -> None:
    headers = Headers({"Forwarded": field, "X-Forwarded-For": "6.6.6.6"})
    asked = Request("GET", "/", headers, "ws", PEER)
    told = from_client(asked, Networks(TRUSTED), "Forwarded")
    assert (told.remote_address, told.scheme) == (address, scheme)


#: Junk that a client can put before the element of a proxy.
JUNK = [
    '"',
    "x",
    "",
    ",,",
    'for="',
    "for=6.6.6.6;x=",
    "\\",
    '"\\',
    "for=\xff",
    'x="a, b',
    "=;=",
    " ",
]


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("lines", [1, 2])
def test_a_client_cannot_switch_off_what_a_trusted_proxy_says(junk: str, lines: int) -> None:
    proxies = ['for="1.2.3.4:567";proto=https;host="a,b;c\\",d"', "for=10.9.9.9"]
    values = [", ".join([junk, *proxies])] if lines == 1 else [junk, *proxies]
    headers = Headers([("Forwarded", value) for value in values])
    asked = Request("GET", "/", headers, "ws", PEER)
    told = from_client(asked, Networks(TRUSTED), "Forwarded")
    assert (told.remote_address, told.scheme) == (("1.2.3.4", 567), "wss")


@given(
    st.text('",;=\\ for1.:', max_size=12),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF)),
)
def test_whatever_stands_before_a_proxy_s_element_and_in_it_that_element_is_read(
    before: str, host: str
) -> None:
    quoted = re.sub(r'(["\\])', r"\\\1", host)
    field = f'{before},for=1.2.3.4;host="{quoted}";proto=https'
    asked = Request("GET", "/", Headers._known([("Forwarded", field)]), "ws", PEER)
    told = from_client(asked, Networks(TRUSTED), "Forwarded")
    assert (told.remote_address, told.scheme) == (("1.2.3.4", 0), "wss")


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF)))
def test_any_text_in_forwarded_is_understood_or_not(text: str) -> None:
    asked = Request("GET", "/", Headers._known([("Forwarded", text)]), "ws", PEER)
    address = from_client(asked, Networks(TRUSTED), "Forwarded").remote_address
    assert isinstance(address, tuple)
    assert 0 <= address[1] <= 65535


@pytest.mark.parametrize("start", ['"', "a", '",', "a=", 'a="', ";", "\\", " ", ",", '="a\\",;'])
def test_a_forwarded_field_takes_linear_time(start: str) -> None:
    def seconds(size: int) -> float:
        field = start * size + "\x7f" + ',for=10.9.9.9,for="10.9.9.9'
        asked = Request("GET", "/", Headers._known([("Forwarded", field)]), "ws", PEER)
        started = time.process_time()
        from_client(asked, Networks(TRUSTED), "Forwarded")
        return time.process_time() - started

    seconds(1000)
    assert seconds(16_000) < 0.05


async def test_the_field_that_was_not_chosen_is_the_client_s_own_and_means_nothing() -> None:
    both = {"Forwarded": "for=6.6.6.6;proto=https", "X-Forwarded-For": "1.2.3.4"}
    fields = {name.replace("-", "_"): value for name, value in both.items()}
    for header, body in (
        ("X-Forwarded-For", b'{"address": ["1.2.3.4", 0], "scheme": "http"}'),
        ("Forwarded", b'{"address": ["6.6.6.6", 0], "scheme": "https"}'),
    ):
        options: dict[str, Any] = {"trusted_proxies": ["unix"], "proxy_header": header}
        async with open_site(site(), **options) as (_, client):
            assert (await client.ask(http(**fields))).body == body  # type: ignore[arg-type] # no bytes


async def test_process_request_and_the_log_see_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    seen: list[Any] = []
    options: dict[str, Any] = {"trusted_proxies": ["unix"], "process_request": seen.append}
    async with open_site(site(), **options) as (_, client):
        await client.ask(http("GET /health", X_Forwarded_For="1.2.3.4"))
        await client.ask(http("GET /health", X_Forwarded_For="5.6.7.8:9"))
    assert [request.remote_address for request in seen] == [("1.2.3.4", 0), ("5.6.7.8", 9)]
    lines = [record.getMessage() for record in caplog.records]
    assert '1.2.3.4:0 "GET /health" 200' in lines[0]
    assert '5.6.7.8:9 "GET /health" 200' in lines[1]


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        ({"trusted_proxies": "10.0.0.1"}, TypeError, "trusted_proxies is a list"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, ValueError, "host bits"),
        ({"trusted_proxies": ["proxy.example.org"]}, ValueError, "a trusted proxy is an address"),
        ({"proxy_header": "X-Real-IP"}, ValueError, "one of X-Forwarded-For, Forwarded, PROXY"),
    ],
)
def test_a_mistake_is_told_at_once(options: Any, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        ListenerOptions(**options)


def test_networks_know_their_addresses() -> None:
    assert not Networks([])
    assert Networks(["unix"])
    assert ("not an address", 1) not in Networks(["0.0.0.0/0", "::/0"])
    assert None not in Networks(["0.0.0.0/0"])
