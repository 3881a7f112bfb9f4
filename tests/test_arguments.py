"""Wrong arguments are refused at the call, in words that help."""

from __future__ import annotations

import socket
import ssl
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from functools import partial, wraps
from typing import Any, cast

import pytest
import trio
import trio.lowlevel
import trio.testing

import trio_ws
from tests.helpers import HOST, echo, open_server
from tests.tls_helpers import tls_contexts
from trio_ws import InvalidURL, Router, WebSocket
from trio_ws._arguments import check_async, is_name
from trio_ws.backplane import MemoryBackplane, RedisOptions
from trio_ws.testing import FaultyStream, open_test_app


async def serve_websocket(*arguments: Any, **options: Any) -> None:
    """For a moment, which is enough where nothing is wrong with them."""
    with trio.move_on_after(1):
        await trio_ws.serve_websocket(*arguments, **options)


async def serve_listeners(*arguments: Any, **options: Any) -> None:
    with trio.move_on_after(1):
        await trio_ws.serve_listeners(*arguments, **options)


@pytest.fixture
def client_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


@pytest.fixture
def server_tls() -> ssl.SSLContext:
    context, _ = tls_contexts("localhost")
    return context


async def tcp_listener() -> trio.SocketListener:
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    return listener


# Functions…


def plain(ws: WebSocket) -> None:
    if ws.subprotocol:
        return


def plain_with_a_loop(ws: WebSocket) -> None:
    for _ in ws.request.headers:
        pass


async def of_nothing() -> None:
    pass


async def of_two(ws: WebSocket, room: str) -> None:
    pass


async def with_a_yield(ws: WebSocket) -> AsyncIterator[None]:
    yield


def generator(ws: WebSocket) -> Iterator[None]:
    yield


class Handlers:
    async def __call__(self, ws: WebSocket) -> None:
        pass

    def plain(self, ws: WebSocket) -> None:
        pass

    async def method(self, ws: WebSocket) -> None:
        pass


class PlainObject:
    def __call__(self, ws: WebSocket) -> None:
        pass


WRONG_HANDLERS = [
    (None, "the handler is a function of one WebSocket, not None"),
    (plain, "the handler is an async function of one WebSocket: make plain async"),
    (plain_with_a_loop, "make plain_with_a_loop async"),
    (lambda ws: None, "make .*<lambda> async"),
    (Handlers().plain, "make Handlers.plain async"),
    (partial(Handlers.plain, Handlers()), r"make functools.partial\(.* async"),
    (PlainObject(), "make <.*PlainObject object at .*> async"),
    (
        of_nothing,
        "the handler is called with one WebSocket, which does not suit of_nothing: too many",
    ),
    (of_two, "which does not suit of_two: missing a required argument: 'room'"),
    (with_a_yield, "the handler is a function of one WebSocket: with_a_yield has a yield in it"),
    (generator, "generator has a yield in it"),
    (Router, "not the class Router"),
    (Handlers, "not the class Handlers"),
]


@pytest.mark.parametrize(("handler", "message"), WRONG_HANDLERS)
async def test_a_handler_that_cannot_be_one_is_refused_at_the_start(
    handler: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        await serve_websocket(handler, HOST, 0)
    listener = await tcp_listener()
    with pytest.raises(TypeError, match=message):
        await serve_listeners(handler, [listener])
    assert listener.socket.fileno() == -1


def decorated(handler: Callable[[WebSocket], Awaitable[object]]) -> Any:
    @wraps(handler)
    def wrapper(ws: WebSocket) -> Awaitable[object]:
        return handler(ws)

    return wrapper


def with_a_room(handler: Callable[[WebSocket, str], Awaitable[object]]) -> Any:
    @wraps(handler)  # which has another signature
    async def wrapper(ws: WebSocket) -> object:
        return await handler(ws, "a room")

    return wrapper


def returns_a_call(ws: WebSocket) -> Awaitable[object]:
    if ws.subprotocol:
        return ws.wait_closed()
    return echo(ws)


def only_raises(ws: WebSocket) -> Any:
    raise NotImplementedError


@types.coroutine
def old_style(ws: WebSocket) -> Generator[Any, Any, None]:
    yield from echo(ws).__await__()


@pytest.mark.parametrize(
    "handler",
    [
        echo,
        decorated(echo),
        with_a_room(of_two),
        returns_a_call,
        only_raises,
        old_style,
        lambda ws: of_two(ws, "a"),
        Handlers(),
        Handlers().method,
        partial(of_two, room="a"),
        max,  # which does not say what it takes
    ],
)
def test_whatever_may_give_something_to_await_is_a_handler(handler: Any) -> None:
    check_async("the handler", handler, "one WebSocket")


async def test_a_handler_that_returns_nothing_to_await_is_told_so_when_it_is_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def gives_seven(ws: WebSocket) -> Any:
        return 7

    async with open_server(gives_seven) as server:
        async with trio_ws.open_websocket_url(server.urls[0]) as ws:
            assert (await ws.wait_closed()).code == 1011
    assert "gives_seven should be async: it returned 7, which cannot be awaited" in caplog.text


WRONG_FUNCTIONS: list[tuple[dict[str, Any], str]] = [
    (
        {"process_request": of_nothing},
        "called with one Request, which does not suit of_nothing",
    ),
    ({"process_request": with_a_yield}, "with_a_yield has a yield in it"),
    ({"process_request": "check"}, "process_request is a function of one Request, not 'check'"),
    (
        {"on_handler_error": plain},
        "a WebSocket and an Exception, which does not suit plain",
    ),
    ({"on_handler_error": of_two}, "nobody would await "),
    ({"on_handler_error": partial(of_two, room="a")}, "nobody would await "),
]


@pytest.mark.parametrize(("options", "message"), WRONG_FUNCTIONS)
async def test_a_function_among_the_options_that_cannot_be_called_as_it_will_be_is_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        await serve_websocket(echo, HOST, 0, **options)


# Addresses…


WRONG_HOSTS = [
    ("", "the host is empty"),
    ("[::1]", "give an IPv6 address without brackets here, like '::1'"),
    ("localhost:80", "give the port by itself"),
    ("::g", "a host with a colon is an IPv6 address, which this is not"),
    ("ws://localhost", "not a URL or a part of one"),
    ("localhost/chat", "not a URL or a part of one"),
    ("user:password@localhost", "not a URL or a part of one"),
]


@pytest.mark.parametrize(("host", "message"), WRONG_HOSTS)
async def test_a_host_that_is_none_is_refused_with_what_to_write_instead(
    host: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        await serve_websocket(echo, host, 0)
    assert "password" not in str(caught.value)
    with pytest.raises(InvalidURL, match=message) as refused:
        async with trio_ws.open_websocket(host, 80):
            raise AssertionError
    assert "password" not in str(refused.value)


@pytest.mark.parametrize("host", [b"localhost", ["localhost"], 3])
async def test_a_host_is_a_str(host: Any) -> None:
    with pytest.raises(TypeError, match="a host"):
        await serve_websocket(echo, host, 0)
    with pytest.raises(TypeError, match="a host and a resource are str"):
        async with trio_ws.open_websocket(host, 80):
            raise AssertionError


@pytest.mark.parametrize("host", ["a" * 64, "a..b", "\ud800"])
async def test_a_host_that_the_dns_cannot_express_is_a_value_error(host: str) -> None:
    with pytest.raises(ValueError, match="is no name of a host: "):
        await serve_websocket(echo, host, 0)


async def test_a_host_that_nobody_knows_is_named() -> None:
    class Nobody(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *what: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *what: Any) -> Any:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Nobody())
    with pytest.raises(socket.gaierror, match="cannot find the host 'nowhere.invalid': Name or"):
        await serve_websocket(echo, "nowhere.invalid", 0)


@pytest.mark.parametrize("host", [HOST, None])
async def test_an_address_that_cannot_be_bound_is_named(host: str | None) -> None:
    async with open_server(echo, host="0.0.0.0") as server:
        where = f"port {server.port} of {host or 'every interface'}: Address already in use"
        with pytest.raises(OSError, match=f"cannot listen on {where}"):
            await serve_websocket(echo, host, server.port)


@pytest.mark.parametrize(
    ("port", "error", "message"),
    [
        (70000, ValueError, "a port is from . to 65535, not 70000"),
        (-1, ValueError, "a port is from . to 65535, not -1"),
        ("80", TypeError, "a port is an int, not '80'"),
        (True, TypeError, "a port is an int, not True"),
        (80.0, TypeError, "a port is an int, not 80.0"),
    ],
)
async def test_a_port_that_is_none_is_refused(
    port: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await serve_websocket(echo, HOST, port)
    error = InvalidURL if error is ValueError else error
    with pytest.raises(error, match=message):
        async with trio_ws.open_websocket("localhost", port):
            raise AssertionError


async def test_the_parts_of_a_url_are_what_they_are() -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="a host and a resource are str, not 3"):
        async with trio_ws.open_websocket("localhost", 80, wrong):
            raise AssertionError
    with pytest.raises(ValueError, match="path names a Unix socket"):
        async with trio_ws.open_websocket_url("ws://localhost", path=""):
            raise AssertionError


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%eth0", "0", "127.1", "0x7f.0x1"])
def test_an_address_is_no_name(host: str) -> None:
    assert not is_name(host)


@pytest.mark.parametrize("host", ["localhost", "localhost.", "a1", "1a", "1.org", "bücher.org"])
def test_a_name_is_one(host: str) -> None:
    assert is_name(host)


@pytest.mark.parametrize(
    "origin",
    [
        *("example.org", "https://example.org/", "https://example.org/chat", "**", "", "https:"),
        *("https://user@example.org", "https://bücher.example", "https://example.org:80?"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="an origin is written as browsers send it"):
        trio_ws.ServerStreamOptions(origins=["https://example.org", origin])


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "https://example.org", "http://localhost:8000", "http://[::1]:8000", "file://"),
        *("moz-extension://0b5c1d2e-3f4a", "HTTPS://Example.org", "capacitor://localhost"),
    ],
)
def test_an_origin_that_browsers_send_is_taken(origin: str) -> None:
    assert trio_ws.ServerStreamOptions(origins=[origin]).origins == (origin,)


def test_a_trusted_proxy_is_a_str() -> None:
    wrong: Any = [167772161]
    with pytest.raises(TypeError, match="a trusted proxy is a str, not 167772161"):
        trio_ws.ServerStreamOptions(trusted_proxies=wrong)


# TLS…


async def test_a_tls_context_for_clients_is_refused_by_servers_at_the_start(
    client_tls: ssl.SSLContext,
) -> None:
    message = r"for clients; a server's is made by ssl.create_default_context\(ssl.Purpose.CLIENT_A"
    with pytest.raises(ValueError, match=message):
        await serve_websocket(echo, HOST, 0, ssl_context=client_tls)
    listener = await tcp_listener()
    with pytest.raises(ValueError, match=message):
        await serve_listeners(echo, [trio.SSLListener(listener, client_tls)])
    assert listener.socket.fileno() == -1


async def test_a_tls_context_for_servers_is_refused_by_clients_at_the_start(
    server_tls: ssl.SSLContext,
) -> None:
    message = r"for servers; a client's is made by ssl.create_default_context\(\)"
    with pytest.raises(ValueError, match=message):
        async with trio_ws.open_websocket_url("wss://localhost", ssl_context=server_tls):
            raise AssertionError
    with pytest.raises(ValueError, match=message):
        async with trio_ws.open_websocket("localhost", 443, ssl_context=server_tls):
            raise AssertionError


async def test_an_ssl_context_that_is_none_is_refused_at_the_start() -> None:
    wrong: Any = "cert.pem"
    with pytest.raises(TypeError, match="ssl_context is an ssl.SSLContext or None, not 'cert.pem'"):
        await serve_websocket(echo, HOST, 0, ssl_context=wrong)
    listener = await tcp_listener()
    with pytest.raises(TypeError, match="given something that is no SSLContext"):
        await serve_listeners(echo, [trio.SSLListener(listener, wrong)])
    assert listener.socket.fileno() == -1


async def test_a_tls_listener_is_what_it_was_after_it_was_tried(
    server_tls: ssl.SSLContext,
) -> None:
    beneath = await tcp_listener()
    listener = trio.SSLListener(beneath, server_tls)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_ws.serve_listeners, echo, [listener])
        assert listener.transport_listener is beneath
        await server.aclose()


# Listeners and streams…


async def test_a_socket_among_the_listeners_is_refused_and_the_listeners_are_closed(
    server_tls: ssl.SSLContext,
) -> None:
    with socket.socket() as sock:
        wrong: Any = [
            (sock, r"wrap it, trio.SocketListener\(trio.socket.from_stdlib_socket\(…\)\)"),
            ((await tcp_listener()).socket, "wrap it in trio.SocketListener"),
            ("unix", "a listener is a trio.abc.Listener, not 'unix'"),
            (None, "not None"),
            (trio.SSLListener(cast("Any", sock), server_tls), "wrap it, trio.SocketListener"),
        ]
        for other, message in wrong:
            listener = await tcp_listener()
            with pytest.raises(TypeError, match=message):
                await serve_listeners(echo, [listener, other])
            assert listener.socket.fileno() == -1
        wrong[1][0].close()


async def test_listeners_come_in_a_list() -> None:
    listener: Any = await tcp_listener()
    with pytest.raises(TypeError, match="listeners are given in a list, also where there is one"):
        await serve_listeners(echo, listener)
    assert listener.socket.fileno() == -1
    wrong: Any = None
    with pytest.raises(TypeError, match="listeners are given in a list"):
        await serve_listeners(echo, wrong)


async def test_a_listener_that_was_closed_is_said_to_be() -> None:
    listener = await tcp_listener()
    await listener.aclose()
    with pytest.raises(trio.ClosedResourceError, match="a listener was closed before it"):
        await serve_listeners(echo, [listener])


async def test_a_listener_is_served_once() -> None:
    listener = await tcp_listener()
    with pytest.raises(ValueError, match="a listener is there twice"):
        await serve_listeners(echo, [listener, listener])
    assert listener.socket.fileno() == -1


async def test_a_stream_is_a_stream() -> None:
    with socket.socket() as sock, trio.socket.socket() as wrapped:
        wrong: Any = [
            (sock, r"wrap it, trio.SocketStream\(trio.socket.from_stdlib_socket\(…\)\)"),
            (wrapped, "wrap it in trio.SocketStream"),
            ("ws://localhost", "a stream is a trio.abc.Stream, not 'ws://localhost'"),
        ]
        for stream, message in wrong:
            with pytest.raises(TypeError, match=message):
                async with trio_ws.wrap_client_stream(stream, "ws://localhost"):
                    raise AssertionError
            with pytest.raises(TypeError, match=message):
                async with trio_ws.wrap_server_stream(stream):
                    raise AssertionError


# Values…


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"level": "9"}, TypeError, "level is an int, not '9'"),
        ({"mem_level": True}, TypeError, "mem_level is an int, not True"),
        ({"server_window_bits": 12.0}, TypeError, "server_window_bits is an int, not 12.0"),
        ({"threshold": "64"}, TypeError, "threshold is a number of bytes, not '64'"),
        ({"threshold": -1}, ValueError, "threshold is a number of bytes, not -1"),
    ],
)
def test_settings_of_compression_are_numbers(
    wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        trio_ws.Deflate(**wrong)


def test_what_is_accepted_has_the_name_of_a_subprotocol() -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="a subprotocol is a str, or None for none, not 3"):
        trio_ws.Accept(wrong)
    for name in ("", "a b", "a,b", "a\n"):
        with pytest.raises(ValueError, match="is not the name of a subprotocol"):
            trio_ws.Accept(name)


def test_a_check_of_passwords_takes_a_name_and_a_password() -> None:
    wrong: Any = lambda name: name == "ada"
    with pytest.raises(TypeError, match="called with a user name and a password, which does not"):
        trio_ws.basic_auth(wrong)


def test_a_tls_context_for_redis_is_one_for_clients(server_tls: ssl.SSLContext) -> None:
    with pytest.raises(ValueError, match="the ssl_context is for servers"):
        RedisOptions(ssl_context=server_tls)


async def test_arguments_of_the_testing_tools_are_checked() -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="a stream is a trio.abc.Stream, not 3"):
        FaultyStream(wrong)
    with pytest.raises(TypeError, match="hub is a MemoryHub, not 3"):
        MemoryBackplane(wrong)
    async with open_test_app(echo) as app:
        with pytest.raises(TypeError, match="a path is a str, not 3"):
            async with app.websocket(wrong):
                raise AssertionError
