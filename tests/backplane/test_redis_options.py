"""The options and URLs of the Redis backplane, and its messages about them."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from typing import Any, get_type_hints

import pytest

from trio_ws.backplane import RedisBackplane, RedisKeywords, RedisOptions
from trio_ws.backplane._redis.address import Address, BrokerLost, BrokerRefused, Scheme, parse_url
from trio_ws.backplane._redis.backplane import main_error


def test_the_keywords_are_the_options() -> None:
    names = {option.name: option.type for option in fields(RedisOptions)}
    assert list(RedisKeywords.__annotations__) == list(names)
    hints = get_type_hints(RedisOptions)
    assert get_type_hints(RedisKeywords) == {name: hints[name] for name in names}


def test_every_option_says_what_it_is() -> None:
    source = inspect.getsource(RedisOptions)
    for option in fields(RedisOptions):
        assert re.search(rf'^    {option.name}: .*\n    """', source, re.MULTILINE), option.name


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({"mode": "lists"}, ValueError, "mode is 'pubsub' or 'streams'"),
        ({"prefix": b"a:"}, TypeError, "prefix is a str"),
        ({"stream_length": 0}, ValueError, "stream_length is greater than 0"),
        ({"ping_interval": "1"}, TypeError, "ping_interval is a number"),
        ({"ssl_context": True}, TypeError, "ssl_context is an ssl.SSLContext"),
        ({"logger": "trio_ws"}, TypeError, "logger is a logging.Logger"),
        ({"sentinel_password": b"secret"}, TypeError, "sentinel_password is a str$"),
        ({"retries": 3}, TypeError, "retries"),
    ],
)
def test_wrong_options_are_found_at_once(
    options: dict[str, Any], error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        RedisBackplane("redis://localhost", **options)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", Address(scheme=Scheme.TCP, host="localhost")),
        ("redis://h:1/2", Address(scheme=Scheme.TCP, host="h", port=1, database=2)),
        ("redis://h/?db=2", Address(scheme=Scheme.TCP, host="h", database=2)),
        (
            "redis+sentinel://h/desk",
            Address(scheme=Scheme.TCP, sentinels=(("h", 26379),), primary="desk"),
        ),
        (
            "rediss+sentinel://me:p%2fw@h:1,[::1]/a%2Fb/3",
            Address(
                scheme=Scheme.TLS,
                username="me",
                password="p/w",
                sentinels=(("h", 1), ("::1", 26379)),
                primary="a/b",
                database=3,
            ),
        ),
        (
            "rediss://me:p%40%2f@[::1]:7/",
            Address(scheme=Scheme.TLS, host="::1", port=7, username="me", password="p@/"),
        ),
        ("unix:///run/a%20b?db=4", Address(scheme=Scheme.UNIX, path="/run/a b", database=4)),
        ("unix://:pw@/r", Address(scheme=Scheme.UNIX, path="/r", password="pw")),
    ],
)
def test_urls_that_are_right(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://localhost", "the scheme 'http' is none of"),
        ("localhost:6379", "the scheme 'localhost' is none of"),
        ("redis://", "the host is missing"),
        ("redis://:secret@", "the host is missing"),
        ("redis://h:port", "(?i)port"),
        ("redis://[h/0", "the host is neither a name nor an IPv6 address in brackets"),
        ("redis://h/news", "a database is a number, not 'news'"),
        ("redis://h/0?ssl_cert_reqs=none", "the rest are keyword arguments"),
        ("redis://h/#a", "may follow the path"),
        ("redis://h/?db", "bad query field"),
        ("unix:///", "the path of the socket is missing"),
        ("unix+sentinel://h/name", "the scheme 'unix.sentinel' is none of"),
        ("redis+sentinel://:secret@h:1,/name", "the host is missing"),
        ("redis+sentinel://h:secret@h:1", "after the Sentinels, the name"),
        ("redis+sentinel://h:port/name", "(?i)port"),
        ("redis+sentinel://h/name?db=1", "nothing may follow the database"),
        ("redis+sentinel://h/name/news", "a database is a number, not 'news'"),
    ],
)
def test_urls_that_are_wrong(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        RedisBackplane(url)
    assert "it looks like redis://" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_url_is_a_str() -> None:
    wrong: Any = b"redis://localhost"
    with pytest.raises(TypeError, match="a Redis URL is a str, not bytes"):
        RedisBackplane(wrong)


def test_the_repr_and_the_log_show_no_password() -> None:
    backplane = RedisBackplane("rediss://me:secret@[::1]/5")
    assert repr(backplane) == "<RedisBackplane pubsub over rediss://[::1]:6379/5, not connected>"
    assert "secret" not in repr(parse_url("redis://me:secret@h"))
    several = RedisBackplane("redis+sentinel://me:secret@h,[::1]:2/desk/1")
    assert "over redis+sentinel://h:26379,[::1]:2/desk/1, not connected" in repr(several)


def test_without_coredis_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coredis", None)
    monkeypatch.setitem(sys.modules, "coredis.connection", None)
    monkeypatch.delitem(sys.modules, "trio_ws.backplane._redis.link", raising=False)
    with pytest.raises(ImportError, match=r"pip install \"trio-ws\[redis\]\""):
        RedisBackplane("redis://localhost")


def test_coredis_is_imported_only_where_it_is_used() -> None:
    code = "import sys, trio_ws.backplane; sys.exit('coredis' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_of_several_errors_the_gravest_is_told() -> None:
    lost, refused, mistake = BrokerLost("a"), BrokerRefused("b"), ZeroDivisionError()
    inner = ExceptionGroup("inner", [lost, refused])
    assert main_error(ExceptionGroup("outer", [inner, mistake])) is mistake
    assert main_error(inner) is refused
    assert main_error(ExceptionGroup("outer", [lost, lost])) is lost
