"""WebSocket URLs (RFC 6455 section 3)."""

from __future__ import annotations

import base64
import re
from typing import Any

import h11
import pytest
from hypothesis import example, given, settings, strategies as st

from trio_ws import InvalidURL
from trio_ws._http.url import WebSocketURL, follow_redirect, join_url, parse_url
from trio_ws._redaction import masked


def basic(credentials: str | bytes) -> str:
    data = credentials.encode() if isinstance(credentials, str) else credentials
    return "Basic " + base64.b64encode(data).decode()


# Parts…


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("ws://example.org", WebSocketURL(False, "example.org", 80, "/")),
        ("wss://example.org", WebSocketURL(True, "example.org", 443, "/")),
        ("WSS://Example.ORG/", WebSocketURL(True, "example.org", 443, "/")),
        ("ws://example.org:8080/chat", WebSocketURL(False, "example.org", 8080, "/chat")),
        ("ws://example.org:/chat", WebSocketURL(False, "example.org", 80, "/chat")),
        ("ws://example.org:65535", WebSocketURL(False, "example.org", 65535, "/")),
        ("ws://127.0.0.1:1/", WebSocketURL(False, "127.0.0.1", 1, "/")),
        ("ws://example.org./", WebSocketURL(False, "example.org.", 80, "/")),
        ("ws://my_service:80/", WebSocketURL(False, "my_service", 80, "/")),
        ("ws://h/a/b;c?x=1&y=/?", WebSocketURL(False, "h", 80, "/a/b;c?x=1&y=/?")),
        ("ws://h?x=1", WebSocketURL(False, "h", 80, "/?x=1")),
        ("ws://h/?", WebSocketURL(False, "h", 80, "/?")),
        ("ws://h//a//b", WebSocketURL(False, "h", 80, "//a//b")),
    ],
)
def test_a_url_has_these_parts(url: str, parts: WebSocketURL) -> None:
    assert parse_url(url) == parts


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/é", "/%C3%A9"),
        ("/日本?é=ü", "/%E6%97%A5%E6%9C%AC?%C3%A9=%C3%BC"),
        ("/a%20b%2Fc", "/a%20b%2Fc"),
        ("/100%", "/100%"),
        ('/"<>^`{|}[]', "/%22%3C%3E%5E%60%7B%7C%7D%5B%5D"),
        ("/%/:@!$&'()*+,;=-._~", "/%/:@!$&'()*+,;=-._~"),
        ("/\u2028\xa0", "/%E2%80%A8%C2%A0"),
        ("/%23", "/%23"),
    ],
)
def test_the_path_is_encoded_where_a_request_line_needs_it(path: str, sent: str) -> None:
    assert parse_url(f"ws://h{path}").resource == sent


@pytest.mark.parametrize(
    ("userinfo", "authorization"),
    [
        ("user:secret@", basic("user:secret")),
        ("user@", basic("user:")),
        ("user:@", basic("user:")),
        (":secret@", basic(":secret")),
        ("@", None),
        (":@", None),
        ("", None),
        ("us%65r:%3A%40%2F@", basic("user::@/")),
        ("user:a:b@", basic("user:a:b")),
        ("user:p@ss@", basic("user:p@ss")),
        ("%C3%A9:日本@", basic("é:日本")),
        ("%FF:%00@", basic(b"\xff:\x00")),
    ],
)
def test_a_user_and_password_become_basic_authorization(
    userinfo: str, authorization: str | None
) -> None:
    url = parse_url(f"ws://{userinfo}example.org/")
    assert url.host == "example.org"
    assert url.authorization == authorization
    assert str(url) == "ws://example.org/"  # it may go into a log


@pytest.mark.parametrize(
    ("host", "ascii_host"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("faß.de", "xn--fa-hia.de"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("１２７.0.0.1", "127.0.0.1"),
    ],
)
def test_a_host_that_is_not_ascii_becomes_its_idna_form(host: str, ascii_host: str) -> None:
    assert parse_url(f"ws://{host}/").host == ascii_host


@pytest.mark.parametrize(
    ("url", "host", "host_header"),
    [
        ("ws://[::1]/", "::1", "[::1]"),
        ("ws://[::1]:8080/", "::1", "[::1]:8080"),
        ("wss://[2001:DB8::1]:443/", "2001:db8::1", "[2001:db8::1]"),
        ("ws://user:secret@[::1]:80/", "::1", "[::1]"),
        ("ws://[::ffff:1.2.3.4]/", "::ffff:1.2.3.4", "[::ffff:1.2.3.4]"),
        ("ws://[fe80::1%25eth0]:81/", "fe80::1%eth0", "[fe80::1]:81"),
        ("ws://[fe80::1%eth0]/", "fe80::1%eth0", "[fe80::1]"),
    ],
)
def test_an_ipv6_address_keeps_its_zone_to_itself(url: str, host: str, host_header: str) -> None:
    parsed = parse_url(url)
    assert parsed.host == host
    assert parsed.host_header == host_header


@pytest.mark.parametrize(
    ("url", "host_header"),
    [
        ("ws://h/", "h"),
        ("ws://h:80/", "h"),
        ("ws://h:443/", "h:443"),
        ("wss://h:443/", "h"),
        ("wss://h:80/", "h:80"),
        ("ws://h:8080/", "h:8080"),
    ],
)
def test_the_host_header_names_the_port_where_it_is_not_the_scheme_s_own(
    url: str, host_header: str
) -> None:
    assert parse_url(url).host_header == host_header


@pytest.mark.parametrize(
    "url", ["ws://h/", "wss://h:80/a?b", "ws://[::1]:8080/", "ws://[fe80::1%25eth0]/"]
)
def test_a_url_can_be_written_and_read_again(url: str) -> None:
    assert str(parse_url(url)) == url


def test_an_origin_is_scheme_host_and_port() -> None:
    assert parse_url("ws://H/a").origin == parse_url("ws://h:80/b?c").origin
    origins = {
        parse_url(f"{start}/").origin for start in ("ws://h", "wss://h", "ws://h:81", "ws://i")
    }
    assert len(origins) == 4


# Refusals…


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "it must start with ws:// or wss://"),
        ("example.org", "it must start with ws:// or wss://"),
        ("http://h/", "it must start with ws:// or wss://; write ws:// instead of http://"),
        ("HTTPS://h/", "it must start with ws:// or wss://; write wss:// instead of https://"),
        ("ftp://example.org/", "it must start with ws:// or wss://"),
        ("//example.org/", "it must start with ws:// or wss://"),
        ("ws:/example.org", "it names no host"),
        ("ws:example.org", "it names no host"),
        ("ws://", "it names no host"),
        ("ws:///path", "it names no host"),
        ("ws://:80/", "it names no host"),
        ("ws://user@/", "it names no host"),
        ("ws://[]/", "is not a WebSocket URL"),
        ("ws://h/#a", "a WebSocket URL has no fragment; write %23 for a '#' in the path"),
        ("ws://h/#", "a WebSocket URL has no fragment"),
        ("ws://h#", "a WebSocket URL has no fragment"),
        ("ws://h:0/", "port 0 cannot be connected to"),
        ("ws://h:65536/", "its port is not a number from 1 to 65535"),
        ("ws://h:-1/", "its port is not a number"),
        ("ws://h:http/", "its port is not a number"),
        ("ws://h:٣/", "its port is not a number"),
        ("ws://h:+80/", "its port is not a number"),
        ("ws://a:b:80/", "its port is not a number"),
        ("ws://[::1/", "is not a WebSocket URL"),
        ("ws://::1/", "its port is not a number"),
        ("ws://[::1]x:80/", "is not a WebSocket URL"),
        ("ws://[::1]x/", "is not a WebSocket URL"),
        ("ws://x[::1]/", "is not a WebSocket URL"),
        ("ws://[1.2.3.4]/", "is not a WebSocket URL"),
        ("ws://[v1.x]/", "is not a WebSocket URL"),
        ("ws://[::1%25]/", "is not an IPv6 address"),
        ("ws://%41/", "'%41' is not a host name"),
        ("ws://a,b/", "'a,b' is not a host name"),
        ("ws://a..b/", "'a..b' is not a host name"),
        ("ws://.a/", "'.a' is not a host name"),
        ("ws://a../", "'a..' is not a host name"),
        ("ws://./", "'.' is not a host name"),
        ("ws://" + "a" * 64 + "/", "is not a host name"),
        ("ws://" + "a." * 127 + "b/", "is not a host name"),
        ("ws://ü" + "a" * 63 + "/", "is not an internationalised name"),
        ("ws://i❤.ws/", "is not an internationalised name"),
        ("ws://a\u200bb\u2028/", "is not an internationalised name"),
        ("ws://a\uff0fb/", "is not a WebSocket URL"),
        ("ws://a%3Ab@h/", "a user name with a ':' cannot be sent as Basic authorization"),
    ],
)
def test_a_url_that_is_not_for_websockets_is_refused_with_a_reason(url: str, problem: str) -> None:
    with pytest.raises(InvalidURL, match=re.escape(problem)) as caught:
        parse_url(url)
    assert caught.value.url == masked(url)


@pytest.mark.parametrize("character", [*map(chr, range(0x21)), "\x7f", "\\", "\ud800"])
def test_a_url_that_a_browser_would_quietly_repair_is_refused(character: str) -> None:
    for url in ("{}ws://h/", "w{}s://h/", "ws://{}h/", "ws://h:8{}0/", "ws://h/a{}", "ws://h/?{}"):
        with pytest.raises(InvalidURL, match="white space, a backslash or a control character"):
            parse_url(url.format(character))


@pytest.mark.parametrize("url", [None, b"ws://h/", 3])
def test_a_url_is_a_str(url: Any) -> None:
    with pytest.raises(TypeError, match="a URL is a str, not"):
        parse_url(url)


# From parts…


@pytest.mark.parametrize(
    ("host", "resource", "url"),
    [
        ("example.org", "/", "ws://example.org:8080/"),
        ("example.org", "", "ws://example.org:8080/"),
        ("example.org", "chat", "ws://example.org:8080/chat"),
        ("example.org", "?a=b", "ws://example.org:8080/?a=b"),
        ("example.org", "//x", "ws://example.org:8080//x"),
        ("::1", "/", "ws://[::1]:8080/"),
        ("fe80::1%eth0", "/", "ws://[fe80::1%25eth0]:8080/"),
    ],
)
def test_a_url_is_joined_from_its_parts(host: str, resource: str, url: str) -> None:
    assert str(join_url(host, 8080, resource, secure=False)) == url


def test_a_joined_url_may_be_secure() -> None:
    assert str(join_url("h", 443, "/", secure=True)) == "wss://h/"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "user@h",
        "h/x",
        "h?x",
        "h#x",
        "[::1]",
        "h:80",
        "::1]:80/",
        "u:p@::1",
        "a b",
        "..",
        "a/::",
    ],
)
def test_a_host_that_holds_more_than_a_host_is_refused(host: str) -> None:
    with pytest.raises(InvalidURL):
        join_url(host, 80, "/", secure=False)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(InvalidURL):
        join_url("h", port, "/", secure=False)


@pytest.mark.parametrize("port", ["80/x", "80", 80.5, None])
def test_a_port_is_an_int(port: Any) -> None:
    with pytest.raises(TypeError, match="a port is an int"):
        join_url("h", port, "/", secure=False)


# Redirects…


@pytest.mark.parametrize(
    ("base", "location", "target"),
    [
        ("ws://h/a/b?c", "/x", "ws://h/x"),
        ("ws://h/a/b?c", "x", "ws://h/a/x"),
        ("ws://h/a/b?c", "../x?y", "ws://h/x?y"),
        ("ws://h/a/b?c", "?y", "ws://h/a/b?y"),
        ("ws://h/a/b?c", "", "ws://h/a/b?c"),
        ("ws://h:81/a", "/x", "ws://h:81/x"),
        ("wss://h/a", "/x", "wss://h/x"),
        ("wss://h/a", "//i/x", "wss://i/x"),
        ("ws://h/a", "http://i/x", "ws://i/x"),
        ("ws://h/a", "https://i/x", "wss://i/x"),
        ("wss://h/a", "HTTPS://i/x", "wss://i/x"),
        ("ws://h/a", "HTTPS://i/x", "wss://i/x"),
        ("ws://h/a", "ws://i/x", "ws://i/x"),
        ("ws://h/a", "wss://i:444/x", "wss://i:444/x"),
        ("ws://h/a", "/x#fragment", "ws://h/x"),
        ("ws://[fe80::1%25eth0]:81/", "/x", "ws://[fe80::1%25eth0]:81/x"),
    ],
)
def test_a_redirect_leads_there(base: str, location: str, target: str) -> None:
    assert str(follow_redirect(parse_url(base), location)) == target


# The examples of RFC 3986 section 5.4, normal and abnormal, and what urllib makes of others.
@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("g", "/b/c/g"),
        ("./g", "/b/c/g"),
        ("g/", "/b/c/g/"),
        ("/g", "/g"),
        ("?y", "/b/c/d;p?y"),
        ("g?y", "/b/c/g?y"),
        ("#s", "/b/c/d;p?q"),
        ("g#s", "/b/c/g"),
        ("g?y#s", "/b/c/g?y"),
        (";x", "/b/c/;x"),
        ("g;x", "/b/c/g;x"),
        ("g;x?y#s", "/b/c/g;x?y"),
        ("", "/b/c/d;p?q"),
        (".", "/b/c/"),
        ("./", "/b/c/"),
        ("..", "/b/"),
        ("../", "/b/"),
        ("../g", "/b/g"),
        ("../..", "/"),
        ("../../", "/"),
        ("../../g", "/g"),
        ("../../../g", "/g"),
        ("../../../../g", "/g"),
        ("/./g", "/g"),
        ("/../g", "/g"),
        ("g.", "/b/c/g."),
        (".g", "/b/c/.g"),
        ("g..", "/b/c/g.."),
        ("..g", "/b/c/..g"),
        ("./../g", "/b/g"),
        ("./g/.", "/b/c/g/"),
        ("g/./h", "/b/c/g/h"),
        ("g/../h", "/b/c/h"),
        ("g;x=1/./y", "/b/c/g;x=1/y"),
        ("g;x=1/../y", "/b/c/y"),
        ("g?y/./x", "/b/c/g?y/./x"),
        ("g?y/../x", "/b/c/g?y/../x"),
        ("g#s/../x", "/b/c/g"),
        ("http:g", "/b/c/g"),
        ("?", "/b/c/d;p?"),
        ("/g//h", "/g//h"),
        ("g//h", "/b/c/g//h"),
        ("//a/x/../y", "/y"),
        ("http://a/x/./y", "/x/y"),
        ("http://a", "/"),
        ("http://a?y", "/?y"),
    ],
)
def test_a_reference_is_resolved_as_rfc_3986_has_it(location: str, target: str) -> None:
    base = parse_url("ws://a/b/c/d;p?q")
    assert str(follow_redirect(base, location)) == f"ws://a{target}"


def test_two_slashes_in_a_row_stay_two_when_a_reference_is_resolved() -> None:
    assert follow_redirect(parse_url("ws://h//a//b"), "c").resource == "//a//c"


def on_the_wire(location: str) -> str:
    """UTF-8, as a header has it: each octet a character."""
    return location.encode().decode("latin-1")


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/a b", "ws://h/a%20b"),
        ("/a?b c", "ws://h/a?b%20c"),
        ("http://i/a b", "ws://i/a%20b"),
        (on_the_wire("/café?é"), "ws://h/caf%C3%A9?%C3%A9"),
        ("/caf\xe9", "ws://h/caf%E9"),
        ("/\xc3", "ws://h/%C3"),
        (on_the_wire("//bücher.example/ü"), "ws://xn--bcher-kva.example/%C3%BC"),
        ('/"<>^`{|}', "ws://h/%22%3C%3E%5E%60%7B%7C%7D"),
        ("/[a]", "ws://h/%5Ba%5D"),
        ("/100%", "ws://h/100%"),
        ("/a%20b%2fc", "ws://h/a%20b%2fc"),
        ("/a:b@c", "ws://h/a:b@c"),
        ("1:2", "ws://h/1:2"),
    ],
)
def test_odd_characters_of_a_location_are_sent_encoded(location: str, target: str) -> None:
    assert str(follow_redirect(parse_url("ws://h/"), location)) == target


@pytest.mark.parametrize(
    "location",
    [
        "ftp://h/",
        "xhttp://h/",
        "javascript:alert(1)",
        "https:x",
        "http://[bad/",
        "http://a b/",
        "http://b\xfccher.example/",
        "http://h\\@i/",
        "http://u@h/",
        "//u:p@h/",
        "/\\h",
        "/a\tb",
        "http://h:0/",
        "http:///x",
        on_the_wire("http://" + "ü" * 8000 + "/"),
    ],
)
def test_a_redirect_to_anything_else_is_an_invalid_url(location: str) -> None:
    with pytest.raises(InvalidURL):
        follow_redirect(parse_url("ws://h/a"), location)


def test_the_user_of_a_redirect_s_base_is_not_part_of_where_it_leads() -> None:
    assert follow_redirect(parse_url("ws://user:secret@h/"), "/x").authorization is None


# Any text…

URL_PIECES = st.sampled_from(
    [
        "ws://",
        "wss://",
        "@",
        ":",
        "/",
        "?",
        "#",
        "[",
        "]",
        "::1",
        "%25",
        "%",
        ".",
        "xn--",
        "ü",
        "80",
    ]
)
ANY_URL = st.one_of(
    st.text(),
    st.text().map("ws://".__add__),
    st.lists(st.one_of(URL_PIECES, st.text(max_size=3))).map("".join).map("wss://".__add__),
)


@given(ANY_URL)
@settings(max_examples=500, deadline=None)
@example("ws://h/\ud800")
@example("ws://[::1]\r\nX: y/")
@example("ws://xn--a/")
@example("ws://\u0378/")
def test_any_text_is_a_valid_request_or_an_invalid_url(text: str) -> None:
    try:
        url = parse_url(text)
    except InvalidURL:
        return
    headers = [("Host", url.host_header), ("Authorization", url.authorization or "")]
    h11.Request(method="GET", target=url.resource, headers=headers)  # checks both
    assert re.fullmatch(r"(\[[0-9a-f:.]+\]|[-0-9a-z_.]+)(:\d+)?", url.host_header)
    assert 0 < url.port < 65536
    assert url.host.encode("ascii").decode("idna" if "xn--" not in url.host else "ascii")
    assert parse_url(str(url)) == WebSocketURL(url.secure, url.host, url.port, url.resource)


LOCATION_PIECES = st.sampled_from(
    ["http:", "wss:", "//", "/", "..", ".", "?", "#", "h", "[::1]", ":80", " ", "\xc3\xa9", "\xff"]
)


@given(
    st.one_of(
        st.text(),
        st.text(st.characters(max_codepoint=0xFF)),
        st.lists(LOCATION_PIECES, max_size=9).map("".join),
    ),
    st.sampled_from(["ws://h/a/b?c", "wss://[::1]:81/"]),
)
@settings(max_examples=500, deadline=None)
def test_any_location_leads_to_a_url_or_is_an_invalid_url(location: str, base: str) -> None:
    try:
        url = follow_redirect(parse_url(base), location)
    except InvalidURL:
        return
    assert parse_url(str(url)) == url
    assert not re.search(r"/\.\.?(/|\Z)", url.resource.partition("?")[0])
    h11.Request(method="GET", target=url.resource, headers=[("Host", url.host_header)])
