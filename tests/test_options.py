"""Every option: its default, its check, and its place in the keyword arguments."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import math
import pydoc
import re
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import pytest
import trio
import trio.testing

import trio_ws
import trio_ws.backplane
from tests.helpers import echo
from trio_ws import (
    ClientKeywords,
    ClientOptions,
    ClientStreamKeywords,
    ClientStreamOptions,
    ConnectionOptions,
    Deflate,
    Headers,
    ListenerKeywords,
    ListenerOptions,
    ReconnectingKeywords,
    ServerStreamKeywords,
    ServerStreamOptions,
    reconnecting,
)
from trio_ws._hints import ELSEWHERE, what_was_meant
from trio_ws._keywords import ConnectionKeywords
from trio_ws._options import make_options
from trio_ws.backplane import RedisBackplane, RedisOptions
from trio_ws.testing import (
    MemoryClient,
    MemoryListener,
    open_test_app,
    open_test_server,
    open_test_websocket,
)

PRODUCT = f"trio_ws/{trio_ws.__version__}"

COMMON: dict[str, Any] = {
    "max_message_size": 1024 * 1024,
    "max_queued_messages": 1024,
    "max_queued_bytes": 256 * 1024,
    "max_send_buffer": 64 * 1024,
    "open_timeout": 10,
    "close_timeout": 10,
    "ping_interval": 20,
    "ping_timeout": 20,
    "compression": Deflate(),
    "subprotocols": (),
    "headers": Headers(),
    "decode_text": True,
    "on_ping_pong": None,
    "logger": logging.getLogger("trio_ws"),
}
CLIENT_STREAM = {**COMMON, "origin": None, "user_agent": PRODUCT, "cookies": None}
SERVER_STREAM = {
    **COMMON,
    "process_request": None,
    "origins": ("same-origin", None),
    "hosts": None,
    "server_header": PRODUCT,
    "trusted_proxies": (),
    "proxy_header": "X-Forwarded-For",
    "max_messages_per_second": math.inf,
    "max_bytes_per_second": math.inf,
    "on_rate_limit": "wait",
    "idle_timeout": math.inf,
    "max_lifetime": math.inf,
}
DEFAULTS: list[tuple[type[ConnectionOptions], dict[str, Any]]] = [
    (ConnectionOptions, COMMON),
    (ClientStreamOptions, CLIENT_STREAM),
    (
        ClientOptions,
        {
            **CLIENT_STREAM,
            "ssl_context": None,
            "server_hostname": None,
            "path": None,
            "max_redirects": 0,
            "proxy": "env",
            "proxy_ssl_context": None,
            "local_address": None,
        },
    ),
    (ServerStreamOptions, SERVER_STREAM),
    (
        ListenerOptions,
        {
            **SERVER_STREAM,
            "on_handler_error": "log",
            "grace_period": 5,
            "max_connections": math.inf,
            "max_handshakes_per_second": math.inf,
            "max_connections_per_address": math.inf,
            "max_body_size": 2**20,
            "keep_alive_timeout": 75,
        },
    ),
]

PAIRS: list[tuple[type, type]] = [
    (ConnectionOptions, ConnectionKeywords),
    (ClientStreamOptions, ClientStreamKeywords),
    (ClientOptions, ClientKeywords),
    (ServerStreamOptions, ServerStreamKeywords),
    (ListenerOptions, ListenerKeywords),
]

#: Each limit once, with a class that has it.
LIMITS = {
    name: cls
    for cls, defaults in DEFAULTS
    for name, value in defaults.items()
    if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "max_redirects"
}.items()


# Defaults…


@pytest.mark.parametrize(("cls", "defaults"), DEFAULTS)
def test_every_default_is_the_documented_one(
    cls: type[ConnectionOptions], defaults: dict[str, Any]
) -> None:
    options = cls()
    assert {field.name: getattr(options, field.name) for field in dataclasses.fields(cls)} == (
        defaults
    )


@pytest.mark.parametrize(("cls", "keywords"), PAIRS)
def test_fields_and_keyword_arguments_agree_in_names_and_types(cls: type, keywords: type) -> None:
    types = {
        name: annotation.__forward_arg__ for name, annotation in keywords.__annotations__.items()
    }
    assert types == {field.name: field.type for field in dataclasses.fields(cls)}
    assert keywords.__required_keys__ == frozenset()  # type: ignore[attr-defined] # of a TypedDict


def test_a_client_that_reconnects_takes_every_option_of_clients() -> None:
    keywords = ReconnectingKeywords.__annotations__
    others = ClientKeywords.__annotations__.items() - keywords.items()
    assert keywords.items() < ClientKeywords.__annotations__.items()
    assert {name for name, _ in others} == {"headers", "subprotocols"}
    assert {"headers", "subprotocols"} < {*inspect.signature(reconnecting).parameters}


async def test_a_function_that_passes_options_on_has_them_checked_where_it_is_called() -> None:
    async def serve_echo(**options: Unpack[ListenerKeywords]) -> None:
        options.setdefault("max_connections", 1000)
        await trio_ws.serve_websocket(echo, "localhost", 0, **options)

    with trio.move_on_after(0):
        await serve_echo(grace_period=1)
    # mypy finds both mistakes: if it did not, it would say that the comments are unused.
    with pytest.raises(TypeError, match="did you mean 'grace_period'"):
        await serve_echo(grace_time=1)  # type: ignore[call-arg] # the mistake
    with pytest.raises(TypeError, match="grace_period is a number"):
        await serve_echo(grace_period="1")  # type: ignore[arg-type] # the mistake


PASSED_ON = {
    trio_ws.open_websocket: "ClientKeywords",
    trio_ws.open_websocket_url: "ClientKeywords",
    trio_ws.reconnecting: "ReconnectingKeywords",
    trio_ws.serve_listeners: "ListenerKeywords",
    trio_ws.serve_websocket: "ListenerKeywords",
    trio_ws.wrap_client_stream: "ClientStreamKeywords",
    trio_ws.wrap_server_stream: "ServerStreamKeywords",
    trio_ws.backplane.RedisBackplane: "RedisKeywords",
}


@pytest.mark.parametrize(("entry_point", "keywords"), PASSED_ON.items())
def test_the_keyword_arguments_in_a_signature_are_a_public_type(
    entry_point: Callable[..., object], keywords: str
) -> None:
    annotation = inspect.signature(entry_point).parameters["options"].annotation
    assert annotation == f"Unpack[{keywords}]"
    assert keywords in {*trio_ws.__all__, *trio_ws.backplane.__all__}


@pytest.mark.parametrize(("cls", "defaults"), DEFAULTS)
def test_options_are_frozen(cls: type[ConnectionOptions], defaults: dict[str, Any]) -> None:
    options = cls()
    for name in defaults:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(options, name, 1)


def test_a_list_given_may_be_changed_afterwards_without_changing_the_options() -> None:
    subprotocols = ["chat"]
    headers = {"X-A": "1"}
    origins: list[str | None] = ["https://example.org"]
    options = ServerStreamOptions(subprotocols=subprotocols, headers=headers, origins=origins)
    subprotocols.append("superchat")
    headers["X-B"] = "2"
    origins.append(None)
    assert options.subprotocols == ("chat",)
    assert options.extra_headers == Headers({"X-A": "1"})
    assert options.origins == ("https://example.org",)


def test_a_generator_of_subprotocols_is_read_once_and_kept() -> None:
    names: Any = (name for name in ("a", "b"))
    assert ConnectionOptions(subprotocols=names).subprotocols == ("a", "b")


# What help() shows…


EXPLAINED: dict[Callable[..., object], type] = {
    ConnectionOptions: ConnectionOptions,
    ClientStreamOptions: ClientStreamOptions,
    ClientOptions: ClientOptions,
    ServerStreamOptions: ServerStreamOptions,
    ListenerOptions: ListenerOptions,
    RedisOptions: RedisOptions,
    trio_ws.open_websocket: ClientOptions,
    trio_ws.open_websocket_url: ClientOptions,
    trio_ws.reconnecting: ClientOptions,
    trio_ws.serve_listeners: ListenerOptions,
    trio_ws.serve_websocket: ListenerOptions,
    trio_ws.wrap_client_stream: ClientStreamOptions,
    trio_ws.wrap_server_stream: ServerStreamOptions,
    RedisBackplane: RedisOptions,
}


@pytest.mark.parametrize(("thing", "options"), EXPLAINED.items())
def test_help_shows_each_option_with_its_default_and_its_sentence(
    thing: Callable[..., object], options: type[Any]
) -> None:
    _, options_shown = pydoc.plain(pydoc.render_doc(thing)).split(" Options:\n", 1)
    heads = re.findall(r"    (\w+) \(.*\), .* by default\n .* {8}\S", options_shown)
    assert heads == [field.name for field in dataclasses.fields(options)]


def test_the_sentence_in_help_is_that_of_the_definition() -> None:
    shown = pydoc.plain(pydoc.render_doc(trio_ws.serve_websocket))
    head, sentence = "grace_period (float), 5 s by default", "Seconds that handlers may go on at"
    assert re.search(rf"^        {re.escape(head)}\n            {sentence}", shown, re.MULTILINE)


def test_without_docstrings_there_is_no_help() -> None:
    code = "import sys, trio_ws; sys.exit(trio_ws.serve_websocket.__doc__)"  # 0 for None
    subprocess.run([sys.executable, "-OO", "-c", code], check=True)


# Limits and timeouts…


@pytest.mark.parametrize(("name", "cls"), LIMITS)
def test_a_limit_is_greater_than_zero(name: str, cls: type[ConnectionOptions]) -> None:
    for value in (0, -1, -0.5, math.nan, -math.inf):
        message = rf"{name} is greater than 0 \(math.inf for no limit\), not {value}"
        with pytest.raises(ValueError, match=message):
            cls(**{name: value})  # type: ignore[arg-type] # its names are parameters here


@pytest.mark.parametrize(("name", "cls"), LIMITS)
def test_a_limit_is_a_number(name: str, cls: type[ConnectionOptions]) -> None:
    values: tuple[Any, ...] = (True, False, "10", None, [10], 1j)
    for value in values:
        with pytest.raises(TypeError, match=rf"{name} is a number \(math.inf for no limit\)"):
            cls(**{name: value})


@pytest.mark.parametrize(("name", "cls"), LIMITS)
def test_a_limit_may_be_any_positive_number_or_lifted(
    name: str, cls: type[ConnectionOptions]
) -> None:
    for value in (1, 0.001, math.inf):
        options = cls(**{name: value})  # type: ignore[arg-type] # its names are parameters here
        assert getattr(options, name) == value


# Subprotocols and headers…


@pytest.mark.parametrize("value", ["chat", b"chat", None, 3])
def test_subprotocols_are_a_list(value: Any) -> None:
    with pytest.raises(TypeError, match="subprotocols is a list, not"):
        ConnectionOptions(subprotocols=value)


def test_a_subprotocol_is_a_str() -> None:
    bad: Any = [b"chat"]
    with pytest.raises(TypeError, match="a subprotocol is a str, not b'chat'"):
        ConnectionOptions(subprotocols=bad)


@pytest.mark.parametrize("name", ["", " ", "a b", "a,b", "a\r\nX: y", "a\0", "é", "a/b", '"a"'])
def test_a_subprotocol_is_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="is not a subprotocol name: letters, digits"):
        ConnectionOptions(subprotocols=["good", name])


def test_a_subprotocol_is_listed_once() -> None:
    with pytest.raises(ValueError, match="a subprotocol is listed twice"):
        ConnectionOptions(subprotocols=["a", "b", "a"])


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "upgrade",
        "Origin",
        "Content-Length",
        "Transfer-Encoding",
        "Sec-WebSocket-Key",
        "sec-websocket-version",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Anything",
    ],
)
@pytest.mark.parametrize("cls", [ClientOptions, ListenerOptions])
def test_a_header_of_the_handshake_itself_is_refused(
    cls: type[ConnectionOptions], name: str
) -> None:
    with pytest.raises(ValueError, match=f"the header '{name}' belongs to the handshake"):
        cls(headers={"X-A": "b", name: "x"})


@pytest.mark.parametrize("name", ["Host", "HOST"])
def test_a_client_may_name_another_host_and_a_server_none(name: str) -> None:
    assert ClientOptions(headers={name: "x:1"}).extra_headers["Host"] == "x:1"
    with pytest.raises(ValueError, match=f"the header '{name}' belongs to the handshake"):
        ListenerOptions(headers={name: "x"})


@pytest.mark.parametrize(
    "hosts", [["a", "b"], [""], ["a b"], ["u@h"], ["h/x"], ["http://h"], ["[::"]]
)
def test_a_host_is_one_host(hosts: list[str]) -> None:
    with pytest.raises(ValueError, match="the header Host is one host, perhaps with a port"):
        ClientOptions(headers=[("Host", host) for host in hosts])


BAD_TEXT = ["a\rb", "a\nb", "a\r\nX-Evil: 1", "a\0b", "a\x7fb", "a\x1bb", "€", "\ud800"]


@pytest.mark.parametrize("value", BAD_TEXT)
def test_a_header_value_that_could_split_a_message_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="the value of header 'X-A' holds a line break"):
        ConnectionOptions(headers={"X-A": value})


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "a\0", "é", "a\xff"])
def test_a_header_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a header name: letters, digits and"):
        ConnectionOptions(headers={name: "x"})


@pytest.mark.parametrize("value", BAD_TEXT)
@pytest.mark.parametrize("option", ["origin", "user_agent"])
def test_an_option_that_becomes_a_header_is_checked_alike(option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{option} may not hold line breaks"):
        ClientOptions(**{option: value})  # type: ignore[arg-type] # its names are parameters here
    with pytest.raises(ValueError, match="server_header may not hold line breaks"):
        ListenerOptions(server_header=value)


@pytest.mark.parametrize("value", [b"x", 3, ["x"]])
def test_an_option_that_becomes_a_header_is_a_str(value: Any) -> None:
    with pytest.raises(TypeError, match="origin is a str, or None for none"):
        ClientOptions(origin=value)
    with pytest.raises(TypeError, match="user_agent is a str, or None for none"):
        ClientOptions(user_agent=value)
    with pytest.raises(TypeError, match="server_header is a str, or None for none"):
        ListenerOptions(server_header=value)


def test_a_header_option_may_be_none() -> None:
    assert ClientOptions(origin=None, user_agent=None).user_agent is None
    assert ListenerOptions(server_header=None).server_header is None


@pytest.mark.parametrize("value", [None, logging, "trio_ws"])
def test_a_logger_is_a_logger(value: Any) -> None:
    with pytest.raises(TypeError, match=re.escape("logger is a logging.Logger")):
        ConnectionOptions(logger=value)


# The client's own…


@pytest.mark.parametrize("value", [True, ssl, "cert.pem"])
def test_an_ssl_context_is_an_ssl_context(value: Any) -> None:
    with pytest.raises(TypeError, match=re.escape("ssl_context is an ssl.SSLContext, or None")):
        ClientOptions(ssl_context=value)


def test_an_ssl_context_is_kept() -> None:
    context = ssl.create_default_context()
    assert ClientOptions(ssl_context=context).ssl_context is context


@pytest.mark.parametrize("value", [1, True, b"http://p", ["http://p"]])
def test_a_proxy_is_text(value: Any) -> None:
    with pytest.raises(TypeError, match="proxy is a str, or None for no proxy"):
        ClientOptions(proxy=value)


@pytest.mark.parametrize("value", ["", "ENV", "p:3128", "ftp://p", "http://", "http://p/x"])
def test_a_proxy_is_the_environment_s_or_none_or_a_url(value: str) -> None:
    with pytest.raises(ValueError, match=f"^proxy={value}: "):
        ClientOptions(proxy=value)


def test_a_proxy_that_is_wrong_shows_no_password() -> None:
    with pytest.raises(ValueError, match="a proxy has no path") as caught:
        ClientOptions(proxy="http://u:xyzzy@p/x")
    assert str(caught.value) == (
        "proxy=http://***@p/x: a proxy has no path (in a password, write %2F for '/', %3F for '?', "
        "%23 for '#')"
    )
    assert "xyzzy" not in repr(ClientOptions(proxy="http://u:xyzzy@p"))


def test_a_proxy_leads_to_no_unix_socket() -> None:
    with pytest.raises(ValueError, match="path is a Unix socket of this machine"):
        ClientOptions(proxy="http://p", path="/run/x")
    assert ClientOptions(proxy="env", path="/run/x").proxy_given is None


@pytest.mark.parametrize("proxy", ["env", "https://p", None, "http://p", "socks5://p"])
def test_a_context_for_the_proxy_needs_one_that_may_have_tls(proxy: str | None) -> None:
    context = ssl.create_default_context()
    if proxy in ("env", "https://p"):
        options = ClientOptions(proxy=proxy, proxy_ssl_context=context)
        assert options.proxy_ssl_context is context
        return
    with pytest.raises(ValueError, match="a proxy_ssl_context is for an https:// proxy, not"):
        ClientOptions(proxy=proxy, proxy_ssl_context=context)


def test_a_context_for_the_proxy_is_one_for_clients() -> None:
    with pytest.raises(ValueError, match="the proxy_ssl_context is for servers"):
        ClientOptions(proxy_ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    with pytest.raises(TypeError, match="proxy_ssl_context is an ssl.SSLContext"):
        ClientOptions(proxy_ssl_context=True)  # type: ignore[arg-type] # what is tested


def test_credentials_for_the_proxy_are_no_header() -> None:
    with pytest.raises(ValueError, match="write the user and password into the URL of the proxy"):
        ClientOptions(headers={"Proxy-Authorization": "Basic eA=="})


@pytest.mark.parametrize("value", [7, ("127.0.0.1", 0), b"127.0.0.1"])
def test_a_local_address_is_text(value: Any) -> None:
    with pytest.raises(TypeError, match="local_address is a str, or None for any"):
        ClientOptions(local_address=value)


@pytest.mark.parametrize("value", ["", "localhost", "eth0", "127.0.0.1:80", "[::1]", "10.0.0.0/8"])
def test_a_local_address_is_an_ip_address(value: str) -> None:
    with pytest.raises(ValueError, match="local_address is an IP address of this machine"):
        ClientOptions(local_address=value)


def test_a_unix_socket_has_no_local_address() -> None:
    with pytest.raises(ValueError, match="a local_address is for TCP"):
        ClientOptions(local_address="127.0.0.1", path="/run/x")
    assert ClientOptions(local_address="fe80::1%eth0").local_address == "fe80::1%eth0"


@pytest.mark.parametrize("value", [3, ["a"], True])
def test_a_path_is_a_path(value: Any) -> None:
    with pytest.raises(TypeError, match="path is a str or a Path, or None for TCP"):
        ClientOptions(path=value)


def test_a_path_may_be_a_str_or_a_path() -> None:
    assert ClientOptions(path="a.sock").path == "a.sock"
    assert ClientOptions(path=Path("a.sock")).path == Path("a.sock")


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, math.inf])
def test_max_redirects_is_an_int(value: Any) -> None:
    with pytest.raises(TypeError, match="max_redirects is an int"):
        ClientOptions(max_redirects=value)


@pytest.mark.parametrize("value", [-1, 11, 1000])
def test_max_redirects_is_from_0_to_10(value: int) -> None:
    with pytest.raises(ValueError, match="max_redirects is from 0 to 10"):
        ClientOptions(max_redirects=value)


# The server's own…


@pytest.mark.parametrize("value", ["https://example.org", b"https://example.org", 3, None])
def test_origins_are_a_list(value: Any) -> None:
    with pytest.raises(TypeError, match="origins is a list, not"):
        ServerStreamOptions(origins=value)


@pytest.mark.parametrize("value", [b"https://example.org", 3, re.compile(b"x")])
def test_an_origin_is_a_str_a_pattern_or_none(value: Any) -> None:
    with pytest.raises(TypeError, match="an origin is a str, a compiled pattern or None"):
        ServerStreamOptions(origins=["https://example.org", re.compile("x"), None, value])


@pytest.mark.parametrize("value", ["example.org", b"example.org", 3])
def test_hosts_are_a_list(value: Any) -> None:
    with pytest.raises(TypeError, match="hosts is a list, not"):
        ServerStreamOptions(hosts=value)


@pytest.mark.parametrize("value", [True, "check", 3])
def test_process_request_is_a_function(value: Any) -> None:
    with pytest.raises(TypeError, match="process_request is a function of one Request, not"):
        ServerStreamOptions(process_request=value)


@pytest.mark.parametrize("value", ["ignore", None, 3, []])
def test_on_handler_error_is_one_of_two_words_or_a_function(value: Any) -> None:
    with pytest.raises(ValueError, match="on_handler_error is 'log', 'propagate' or a callable"):
        ListenerOptions(on_handler_error=value)


@pytest.mark.parametrize("value", ["log", "propagate", print])
def test_on_handler_error_is_kept(value: Any) -> None:
    assert ListenerOptions(on_handler_error=value).on_handler_error == value


# Entry points check before they do anything…


@pytest.mark.parametrize(
    "options",
    [
        {"compresion": None},
        {"max_redirects": 3, "on_handler_error": "log"},
        {"open_timeout": "10"},
    ],
)
async def test_a_wrong_option_of_the_client_is_found_before_anything_is_connected_to(
    options: dict[str, Any],
) -> None:
    with pytest.raises(TypeError):
        async with trio_ws.open_websocket_url("ws://example.invalid/", **options):
            pytest.fail("it was opened")
    with pytest.raises(TypeError):
        async with trio_ws.open_websocket("example.invalid", 80, **options):
            pytest.fail("it was opened")


@pytest.mark.parametrize("value", BAD_TEXT)
async def test_nothing_is_sent_where_a_header_is_wrong(value: str) -> None:
    client, server = trio.testing.memory_stream_pair()
    wrong: list[dict[str, Any]] = [
        {"headers": {"X-A": value}},
        {"origin": value},
        {"subprotocols": [value]},
    ]
    for options in wrong:
        with pytest.raises(ValueError, match=r"line break|is not a subprotocol name"):
            async with trio_ws.wrap_client_stream(client, "ws://example.org/", **options):
                pytest.fail("it was opened")
    await client.aclose()
    assert await server.receive_some() == b""


async def test_a_wrong_option_of_the_server_is_found_before_anything_is_bound() -> None:
    with pytest.raises(TypeError, match="no option 'max_redirects'"):
        await trio_ws.serve_websocket(trio.sleep, None, 0, max_redirects=3)  # type: ignore[call-arg, arg-type] # what is tested


# Options that are none…


DEAF, _ = trio.testing.memory_stream_pair()


def enter(block: Any) -> Any:
    async def main() -> None:
        async with block:
            pytest.fail("it was opened")

    return main()


UNKNOWN = [
    (lambda **o: enter(trio_ws.open_websocket_url("ws://h/", **o)), "open_websocket_url"),
    (lambda **o: enter(trio_ws.open_websocket("h", 80, **o)), "open_websocket"),
    (lambda **o: enter(trio_ws.wrap_client_stream(DEAF, "ws://h/", **o)), "wrap_client_stream"),
    (lambda **o: enter(trio_ws.wrap_server_stream(DEAF, **o)), "wrap_server_stream"),
    (lambda **o: trio_ws.serve_websocket(echo, "h", 0, **o), "serve_websocket"),
    (lambda **o: trio_ws.serve_listeners(echo, [], **o), "serve_listeners"),
    (lambda **o: enter(open_test_websocket(echo, **o)), "open_test_websocket"),
    (lambda **o: enter(open_test_app(echo, **o)), "open_test_app"),
    (lambda **o: enter(open_test_server(echo, **o)), "open_test_server"),
    (lambda **o: enter(MemoryClient(MemoryListener()).websocket(**o)), "websocket"),
]


@pytest.mark.parametrize(("call", "name"), UNKNOWN)
async def test_an_option_that_does_not_exist_is_told_with_the_one_that_was_meant(
    call: Any, name: str
) -> None:
    meant = r"no option 'max_size'; did you mean 'max_message_size'\?$"
    with pytest.raises(TypeError, match=rf"^{name}\(\) has {meant}") as caught:
        await call(max_size=1)
    assert caught.value.__context__ is None
    with pytest.raises(TypeError, match=rf"^{name}\(\) has no option 'xyzzy'$"):
        await call(xyzzy=1)
    with pytest.raises(TypeError, match="max_message_size is a number"):
        await call(max_message_size="1")


@pytest.mark.parametrize(
    ("entry_point", "kind", "given", "meant"),
    [
        (
            trio_ws.open_websocket_url,
            ClientOptions,
            "additional_headers",
            "did you mean 'headers'?",
        ),
        (trio_ws.open_websocket_url, ClientOptions, "ssl", "did you mean 'ssl_context'?"),
        (trio_ws.open_websocket_url, ClientOptions, "heartbeat", "did you mean 'ping_interval'?"),
        (
            trio_ws.open_websocket_url,
            ClientOptions,
            "ping_intervall",
            "did you mean 'ping_interval'?",
        ),
        (trio_ws.open_websocket_url, ClientOptions, "Subprotocols", "did you mean 'subprotocols'?"),
        (trio_ws.open_websocket_url, ClientOptions, "grace_period", "servers have one"),
        (trio_ws.serve_websocket, ListenerOptions, "ssl", "did you mean 'ssl_context'?"),
        (
            trio_ws.serve_websocket,
            ListenerOptions,
            "keepalive_timeout",
            "did you mean 'keep_alive_timeout'?",
        ),
        (
            trio_ws.open_websocket,
            ClientOptions,
            "keepalive_timeout",
            "did you mean 'ping_timeout'?",
        ),
        (trio_ws.open_websocket, ClientOptions, "ssl_contxt", "did you mean 'ssl_context'?"),
        (
            trio_ws.serve_websocket,
            ListenerOptions,
            "trusted_proxy",
            "did you mean 'trusted_proxies'?",
        ),
        (trio_ws.serve_websocket, ListenerOptions, "user_agent", "clients have one"),
        (trio_ws.serve_websocket, ListenerOptions, "origin", "did you mean 'origins'?"),
        (trio_ws.open_websocket_url, ClientOptions, "origins", "did you mean 'origin'?"),
        (RedisBackplane, RedisOptions, "ssl", "did you mean 'ssl_context'?"),
        (RedisBackplane, RedisOptions, "maxlen", "did you mean 'stream_length'?"),
    ],
)
def test_the_option_that_was_meant_is_the_nearest_or_what_others_call_it(
    entry_point: Any, kind: Any, given: str, meant: str
) -> None:
    with pytest.raises(TypeError) as caught:
        make_options(kind, {given: 1}, entry_point)
    assert str(caught.value) == f"{entry_point.__name__}() has no option {given!r}; {meant}"


def test_names_that_others_give_an_option_lead_to_one_that_exists() -> None:
    names = {name for kind, _ in [*DEFAULTS, (RedisOptions, None)] for name in _names(kind)}
    names |= {*inspect.signature(reconnecting).parameters}
    assert set(ELSEWHERE) <= names
    for ours, others in ELSEWHERE.items():
        for theirs in others.split():
            assert theirs not in names - {"compression", "receive_timeout"}  # for others, not here
            assert what_was_meant(theirs, [ours]) == ours


def _names(kind: Any) -> list[str]:
    return [option.name for option in dataclasses.fields(kind)]


# The name of the server…


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("example.org", "example.org"),
        ("b\xfccher.example", "xn--bcher-kva.example"),
        ("::1", "::1"),
    ],
)
def test_the_server_s_name_is_a_host_in_ascii(given: str, kept: str) -> None:
    assert ClientOptions(server_hostname=given).server_hostname == kept


@pytest.mark.parametrize("value", ["", ".", "a b", "h:80", "wss://h/", "[::1]", "a..b", "h\0"])
def test_a_server_name_that_is_no_host_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="server_hostname is a host name or an IP address, not"):
        ClientOptions(server_hostname=value)


def test_the_server_s_name_is_a_str() -> None:
    with pytest.raises(TypeError, match="server_hostname is a str, not b'h'"):
        ClientOptions(server_hostname=b"h")  # type: ignore[arg-type] # what is tested


@pytest.mark.parametrize("wrong", [1, "no", None])
def test_decode_text_is_true_or_false(wrong: Any) -> None:
    with pytest.raises(TypeError, match="decode_text is True or False"):
        ConnectionOptions(decode_text=wrong)


async def hook_that_waits(*args: object) -> None: ...


@pytest.mark.parametrize("wrong", [1, "log", hook_that_waits])
def test_on_ping_pong_is_a_plain_function(wrong: Any) -> None:
    with pytest.raises(TypeError, match="on_ping_pong is a (plain )?function of a WebSocket"):
        ConnectionOptions(on_ping_pong=wrong)


def test_what_becomes_of_a_client_that_is_too_fast_is_one_of_two_words() -> None:
    with pytest.raises(ValueError, match="on_rate_limit is 'wait' or 'close', not 'drop'"):
        ServerStreamOptions(on_rate_limit="drop")  # type: ignore[arg-type] # the mistake
