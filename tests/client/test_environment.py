"""Which proxy the environment names for a URL: sixty and more cases, without a connection."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from trio_ws._client.environment import proxy_from
from trio_ws._http.url import parse_url


@dataclass(frozen=True)
class Case:
    """An environment in one line, a URL, and the proxy that it goes through: ``-`` for none."""

    environ: str
    url: str
    proxy: str

    def __str__(self) -> str:
        return f"{self.environ or 'nothing'} | {self.url}"


def case(environ: str, url: str, proxy: str) -> Case:
    return Case(environ, url, proxy)


P = "http://p:1"
#: A proxy for everything, and what is excepted.
ALL = f"all_proxy={P};no_proxy="
THROUGH = f"all_proxy={P}"

CASES = [
    # Nothing, and nothing that counts.
    case("", "wss://h/", "-"),
    case("ftp_proxy=http://p:1", "wss://h/", "-"),
    case("https_proxy=", "wss://h/", "-"),
    case("https_proxy=  ", "wss://h/", "-"),
    case("Https_Proxy=http://p:1", "wss://h/", "-"),
    # The variables of wss, and their order.
    case("wss_proxy=http://p:1", "wss://h/", "wss_proxy=http://p:1"),
    case("socks_proxy=socks5h://p:1", "wss://h/", "socks_proxy=socks5h://p:1"),
    case("https_proxy=http://p:1", "wss://h/", "https_proxy=http://p:1"),
    case("all_proxy=http://p:1", "wss://h/", "all_proxy=http://p:1"),
    case("http_proxy=http://p:1", "wss://h/", "-"),
    case("ws_proxy=http://p:1", "wss://h/", "-"),
    case(
        "wss_proxy=http://a:1;socks_proxy=socks5://b:1;https_proxy=http://c:1",
        "wss://h/",
        "wss_proxy=http://a:1",
    ),
    case(
        "all_proxy=http://d:1;https_proxy=http://c:1;socks_proxy=socks5://b:1",
        "wss://h/",
        "socks_proxy=socks5://b:1",
    ),
    case("all_proxy=http://d:1;https_proxy=http://c:1", "wss://h/", "https_proxy=http://c:1"),
    # Those of ws.
    case("ws_proxy=http://p:1", "ws://h/", "ws_proxy=http://p:1"),
    case("wss_proxy=http://p:1", "ws://h/", "-"),
    case("http_proxy=http://p:1", "ws://h/", "http_proxy=http://p:1"),
    case("http_proxy=http://p:1;https_proxy=http://q:1", "ws://h/", "https_proxy=http://q:1"),
    case("https_proxy=http://q:1;socks_proxy=socks5://s:1", "ws://h/", "socks_proxy=socks5://s:1"),
    case("all_proxy=http://p:1;http_proxy=http://q:1", "ws://h/", "http_proxy=http://q:1"),
    # Upper and lower case.
    case("HTTPS_PROXY=http://p:1", "wss://h/", "HTTPS_PROXY=http://p:1"),
    case("WSS_PROXY=http://p:1", "wss://h/", "WSS_PROXY=http://p:1"),
    case("HTTP_PROXY=http://p:1", "ws://h/", "HTTP_PROXY=http://p:1"),
    case(
        "HTTPS_PROXY=http://up:1;https_proxy=http://low:1", "wss://h/", "https_proxy=http://low:1"
    ),
    case("HTTPS_PROXY=http://up:1;https_proxy=", "wss://h/", "-"),
    case("https_proxy=;ALL_PROXY=http://p:1", "wss://h/", "ALL_PROXY=http://p:1"),
    # A CGI program gets a request's field "Proxy" as HTTP_PROXY.
    case("HTTP_PROXY=http://evil:1;REQUEST_METHOD=GET", "ws://h/", "-"),
    case("http_proxy=http://p:1;REQUEST_METHOD=GET", "ws://h/", "http_proxy=http://p:1"),
    case("HTTPS_PROXY=http://p:1;REQUEST_METHOD=GET", "ws://h/", "HTTPS_PROXY=http://p:1"),
    case(
        "HTTP_PROXY=http://evil:1;REQUEST_METHOD=;ALL_PROXY=http://p:1",
        "ws://h/",
        "ALL_PROXY=http://p:1",
    ),
    # How values are written.
    case("https_proxy=p:1", "wss://h/", "https_proxy=http://p:1"),
    case("https_proxy=p", "wss://h/", "https_proxy=http://p:80"),
    case("socks_proxy=p", "wss://h/", "socks_proxy=socks5h://p:1080"),
    case("all_proxy=socks://p:1/", "wss://h/", "all_proxy=socks5h://p:1"),
    case("all_proxy=SOCKS5://P:1", "wss://h/", "all_proxy=socks5://p:1"),
    case(" https_proxy= https://p/ ", "wss://h/", "https_proxy=https://p:443"),
    case("https_proxy=http://u:xyzzy@[::1]:3128", "wss://h/", "https_proxy=http://[::1]:3128"),
    # This machine never goes through a proxy of the environment.
    case(THROUGH, "ws://localhost:8000/", "-"),
    case(THROUGH, "ws://LocalHost./", "-"),
    case(THROUGH, "wss://app.localhost/", "-"),
    case(THROUGH, "ws://127.0.0.1/", "-"),
    case(THROUGH, "ws://127.8.9.10/", "-"),
    case(THROUGH, "ws://[::1]:8000/", "-"),
    case(THROUGH, "ws://[::ffff:127.0.0.1]/", "-"),
    case(THROUGH, "ws://[::ffff:7f00:5]/", "-"),
    case(THROUGH, "ws://127.1/", "-"),
    case(THROUGH, "ws://2130706433/", "-"),
    case(THROUGH, "ws://0x7f.1/", "-"),
    case(THROUGH, "ws://0.0.0.0/", "-"),
    case(THROUGH, "ws://[::]/", "-"),
    case(THROUGH, "ws://localhost.example/", f"all_proxy={P}"),
    case(THROUGH, "ws://notlocalhost/", f"all_proxy={P}"),
    case(THROUGH, "ws://128.0.0.1/", f"all_proxy={P}"),
    case(THROUGH, "ws://999.1.1.1/", f"all_proxy={P}"),
    # no_proxy: names and all below them.
    case(ALL, "wss://h/", f"all_proxy={P}"),
    case(ALL + "example.org", "wss://example.org/", "-"),
    case(ALL + "example.org", "wss://a.b.example.org/", "-"),
    case(ALL + ".example.org", "wss://example.org/", "-"),
    case(ALL + ".example.org", "wss://a.example.org/", "-"),
    case(ALL + "*.example.org", "wss://a.example.org/", "-"),
    case(ALL + "*.example.org", "wss://example.org/", "-"),
    case(ALL + "example.org", "wss://notexample.org/", f"all_proxy={P}"),
    case(ALL + "a.example.org", "wss://example.org/", f"all_proxy={P}"),
    case(ALL + "EXAMPLE.org", "wss://Example.ORG/", "-"),
    case(ALL + "example.org.", "wss://example.org/", "-"),
    case(ALL + "example.org", "wss://example.org./", "-"),
    case(ALL + "bücher.example", "wss://xn--bcher-kva.example/", "-"),
    case(ALL + "my_service", "ws://my_service/", "-"),
    case(ALL + "*", "wss://h/", "-"),
    case(ALL + "a, *", "wss://h/", "-"),
    case(ALL + " a ,, example.org\tb", "wss://example.org/", "-"),
    case(ALL + "a b", "ws://b/", "-"),
    # Ports.
    case(ALL + "example.org:8443", "wss://example.org:8443/", "-"),
    case(ALL + "example.org:8443", "wss://example.org/", f"all_proxy={P}"),
    case(ALL + "example.org:443", "wss://example.org/", "-"),
    case(ALL + "example.org:80", "ws://a.example.org/", "-"),
    case(ALL + "10.0.0.1:80", "ws://10.0.0.1/", "-"),
    case(ALL + "10.0.0.1:81", "ws://10.0.0.1/", f"all_proxy={P}"),
    case(ALL + "[2001:db8::1]:80", "ws://[2001:db8::1]/", "-"),
    case(ALL + "[2001:db8::1]:81", "ws://[2001:db8::1]/", f"all_proxy={P}"),
    # Addresses and networks.
    case(ALL + "10.0.0.1", "ws://10.0.0.1/", "-"),
    case(ALL + "0.0.1", "ws://10.0.0.1/", f"all_proxy={P}"),
    case(ALL + "2001:DB8:0::1", "ws://[2001:db8::1]/", "-"),
    case(ALL + "[2001:db8::1]", "ws://[2001:db8::1]/", "-"),
    case(ALL + "10.0.0.1", "ws://[::ffff:10.0.0.1]/", "-"),
    case(ALL + "10.0.0.0/8", "ws://10.9.8.7/", "-"),
    case(ALL + "10.1.2.3/8", "ws://10.9.8.7/", "-"),
    case(ALL + "10.0.0.0/8", "ws://11.0.0.1/", f"all_proxy={P}"),
    case(ALL + "10.0.0.0/8", "ws://ten.example/", f"all_proxy={P}"),
    case(ALL + "2001:db8::/32", "ws://[2001:db8:1::1]/", "-"),
    case(ALL + "2001:db8::/32", "ws://10.0.0.1/", f"all_proxy={P}"),
    # What means nothing excepts nothing, and the rest of the list counts.
    case(ALL + "10.0.0.0/99", "ws://10.0.0.1/", f"all_proxy={P}"),
    case(ALL + "https://example.org", "wss://example.org/", f"all_proxy={P}"),
    case(ALL + "10.1.", "ws://10.1.0.1/", f"all_proxy={P}"),
    case(ALL + ".", "wss://h/", f"all_proxy={P}"),
    case(ALL + "[::1, a..b, h:x, example.org", "wss://example.org/", "-"),
    # Which no_proxy counts.
    case(f"HTTPS_PROXY={P};NO_PROXY=h", "wss://h/", "-"),
    case(f"https_proxy={P};NO_PROXY=h;no_proxy=other", "wss://h/", f"https_proxy={P}"),
    case(f"https_proxy={P};NO_PROXY=h;no_proxy=", "wss://h/", f"https_proxy={P}"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_environment_names_a_proxy(case: Case) -> None:
    pairs = [setting.partition("=") for setting in case.environ.split(";") if setting]
    proxy = proxy_from({name.strip(): value for name, _, value in pairs}, parse_url(case.url))
    if proxy is None:
        assert case.proxy == "-"
        return
    host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
    assert f"{proxy.source}={proxy.scheme}://{host}:{proxy.port}" == case.proxy


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("ftp://u:xyzzy@p:21", "starts with one of http://, https://, socks4a://, socks5://"),
        ("http://u:xyzzy@p:99999", "its port is not a number from 1 to 65535"),
        ("http://u:xyzzy@p:0", "port 0 cannot be connected to"),
        ("http://u:xyzzy@", "it names no host"),
        ("http://u:xyzzy@p q", "white space"),
        ("http://u:xyzzy@p/path", "a proxy has no path"),
        ("http://u:xy/zzy@p:1", "a proxy has no path"),
        ("http://u:xyzzy@p?a", "a proxy has no path"),
        ("http://u:xyzzy@[::1", "neither a name nor an IPv6 address"),
        ("socks5://xyzzy@p", "a user and a password, or neither"),
        ("socks4a://u:xyzzy@p", "a user, but no password"),
        ("socks5h://u:xyzzy%C3%BC@p", "255 ASCII characters"),
        ("socks5h://u:xyzzy%00@p", "255 ASCII characters"),
        (f"socks5h://u:{'xyzzy' * 52}@p", "255 ASCII characters"),
    ],
)
def test_a_variable_that_holds_no_proxy_is_named_and_shows_no_password(
    value: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        proxy_from({"HTTPS_PROXY": value}, parse_url("wss://h/"))
    assert str(caught.value).startswith("HTTPS_PROXY=")
    assert "zzy" not in repr(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_no_proxy_is_not_looked_at_where_there_is_none() -> None:
    assert proxy_from({"no_proxy": "h"}, parse_url("wss://h/")) is None
