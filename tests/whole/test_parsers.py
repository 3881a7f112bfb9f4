"""Every parser of a stranger's input is given anything: text, bytes, fields.

It returns, or raises an error that its docstring names. The tests of its module ask whether what it
returns is right. The budget is fixed, and the examples are always the same.
"""

from __future__ import annotations

import inspect
import logging
import re
import zlib
from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from tests.conftest import run_autojumped
from tests.handshake.handshake_helpers import ACCEPTING
from tests.helpers import BINARY, REQUEST, TEXT, close_frame, frame
from tests.protocol.properties import budget
from trio_ws import (
    CloseReason,
    ConnectionFailed,
    ConnectionRejected,
    Deflate,
    Headers,
    Initiator,
    InvalidRequest,
    InvalidResponse,
    InvalidURL,
    ProxyError,
    Request,
    Response,
    Router,
    _addresses,
    _redaction,
    basic_auth,
)
from trio_ws._client.environment import is_local, proxy_from
from trio_ws._client.socks import request_socks_tunnel
from trio_ws._command import (
    above as _above,
    arguments as _arguments,
    client_options as _client_options,
    connect as _connect,
    history as _history,
    typed as _typed,
    visible as _visible,
)
from trio_ws._command.application import load_application
from trio_ws._command.exits import CommandFailed
from trio_ws._handshake.requesting import request_connection
from trio_ws._handshake.tunnel import request_tunnel
from trio_ws._http import (
    cookies as _cookies,
    forwarded as _forwarded,
    headers as _headers,
    proxies as _proxies,
    url as _url,
)
from trio_ws._http.exchange import (
    ClientExchange,
    HeadBuffer,
    HeadTooLarge,
    MalformedHead,
    ServerExchange,
)
from trio_ws._http.networks import Networks
from trio_ws._log import ConnectionLogger
from trio_ws._options import ClientStreamOptions, ServerStreamOptions
from trio_ws._protocol import events, frames as _frames, negotiation as _negotiation
from trio_ws._protocol.deflate import Agreement, Inflater
from trio_ws._protocol.events import Role
from trio_ws._protocol.wire import Wire
from trio_ws._server.one_stream import answer_request
from trio_ws._transport import proxy_protocol as _proxy_protocol
from trio_ws._transport.sockets import wrap_stream
from trio_ws._web.files import Folder
from trio_ws.backplane import _envelope
from trio_ws.backplane._incoming import Incoming
from trio_ws.backplane._redis import (
    address as _broker,
    scripts as _scripts,
    sentinel as _sentinel,
)
from trio_ws.backplane._redis.address import BrokerRefused
from trio_ws.live import _messages

LOGGER = logging.getLogger("parsers")
LOGGER.disabled = True

PROXY = ("10.0.0.1", 1)
PROXY_OF_CLIENTS = _proxies.parse_proxy("socks5h://u:p@10.0.0.1:1")


@dataclass(frozen=True)
class Parser:
    """A function, what it is given, in which way, and what it may raise."""

    function: Callable[..., object]
    given: st.SearchStrategy[Any]
    call: Callable[[Any], object]
    raises: tuple[type[BaseException], ...]

    def __str__(self) -> str:
        return f"{self.function.__module__}.{self.function.__qualname__}"


PARSERS: list[Parser] = []


def parser(
    function: Callable[..., object],
    given: st.SearchStrategy[Any],
    call: Callable[[Any], object] | None = None,
    *raises: type[BaseException],
) -> None:
    PARSERS.append(Parser(function, given, call or function, raises))


# ---------------------------------------------------------------------------
# Anything, and what is nearly right
# ---------------------------------------------------------------------------


def mutated(example: str) -> st.SearchStrategy[str]:
    """The example with a piece of it replaced: by nothing, a little, or very much."""
    pieces = st.one_of(st.text(max_size=5), st.sampled_from([*example, *'0,;="\\[ ']))
    repeats = st.sampled_from([0, 1, 1, 1, 2, 50, 5000])
    return st.builds(
        lambda start, size, piece, times: example[:start] + piece * times + example[start + size :],
        st.integers(0, len(example)),
        st.integers(0, 5),
        pieces,
        repeats,
    )


def texts(*examples: str) -> st.SearchStrategy[str]:
    """Any text, text of the letters of the examples, and texts that are nearly one of them.

    Their numbers, too, may be of any length: Python makes no `int` of 5000 digits.
    """
    letters = sorted({*"".join(examples)})
    endless = st.sampled_from([re.sub(r"[0-9]", "9" * 5000, example) for example in examples])
    return st.one_of(st.text(), st.text(letters), endless, *map(mutated, examples))


def values(*examples: str) -> st.SearchStrategy[str]:
    """The same, as far as it may be the value of a header field."""
    return texts(*examples).map(lambda text: "".join(filter(_headers.is_field_value, text)))


def octets(*examples: bytes) -> st.SearchStrategy[bytes]:
    """The same in bytes."""
    near = texts(*[example.decode("latin-1") for example in examples])
    return st.one_of(st.binary(), near.map(lambda text: text.encode("latin-1", "replace")))


def asking(**fields: str) -> Request:
    """A request with these fields."""
    named = [(name.replace("_", "-"), value) for name, value in fields.items()]
    return Request("GET", "/", Headers(named), remote_address=PROXY)


def over_memory(read: Callable[[trio.abc.Stream], Any]) -> Callable[[bytes], object]:
    """Let `read` read these bytes from a stream, and the end after them."""

    async def main(data: bytes) -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        async with ours, theirs:
            await theirs.send_all(data)
            await theirs.send_eof()
            await read(ours)

    return lambda data: run_autojumped(main, data)


# ---------------------------------------------------------------------------
# Heads and bodies
# ---------------------------------------------------------------------------

ANSWER = ACCEPTING.replace(b"{accept}", b"x")
REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\n"
POST = b"POST /a%20b?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nCookie: a=b; c\r\n\r\n"
CHUNKED = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX: y\r\n\r\n"


def take_head(starts: Any, data: bytes) -> bytes | None:
    buffer = HeadBuffer(starts)
    buffer.feed(data)
    return buffer.take()


def heads(starts: Any, *examples: bytes) -> st.SearchStrategy[bytes]:
    """Whole heads, as a `HeadBuffer` gives them."""

    def take(data: bytes) -> bytes:
        try:
            return take_head(starts, data + b"\r\n\r\n") or examples[0]
        except (HeadTooLarge, MalformedHead):
            return examples[0]

    return octets(*examples).map(take)


def request_in(head: bytes) -> Request:
    return ServerExchange().request(head, scheme="ws", remote_address=PROXY)[0]


def read_body(data: bytes) -> None:
    exchange = ServerExchange()
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    exchange.request(head, scheme="http", remote_address=None)
    size, rest = exchange.piece_size, None
    while data and rest is None:
        _, rest = exchange.body(data[:size])
        data = data[size:]


def response_in(head: bytes) -> ClientExchange:
    exchange = ClientExchange()
    exchange.request("/", Headers({"Host": "h", "Upgrade": "websocket", "Connection": "upgrade"}))
    exchange.response(head)
    return exchange


def read_refusal(data: bytes) -> None:
    for framing in (b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: y"):
        exchange = response_in(b"HTTP/1.1 403 Forbidden\r\n" + framing + b"\r\n\r\n")
        exchange.body(data)
        exchange.body(b"")


for starts, example in ((ServerExchange.STARTS, POST), (ClientExchange.STARTS, ANSWER)):
    take = partial(take_head, starts)
    parser(HeadBuffer.take, octets(example), take, HeadTooLarge, MalformedHead)
parser(
    ServerExchange.request,
    heads(ServerExchange.STARTS, REQUEST, POST),
    request_in,
    MalformedHead,
)
parser(ServerExchange.body, octets(CHUNKED), read_body, MalformedHead)
parser(
    ClientExchange.response,
    heads(ClientExchange.STARTS, ANSWER, REFUSAL),
    response_in,
    MalformedHead,
)
parser(ClientExchange.body, octets(CHUNKED, b"hello"), read_refusal)
parser(
    request_tunnel,
    octets(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", REFUSAL.replace(b"403", b"407")),
    over_memory(lambda stream: request_tunnel(wrap_stream(stream), PROXY_OF_CLIENTS, "h:1", "x")),
    ProxyError,
    ConnectionFailed,
)


def over_sockets(data: bytes) -> None:
    """Let a SOCKS proxy answer these bytes, and hang up."""

    async def main() -> None:
        one, other = trio.socket.socketpair()
        async with trio.SocketStream(one) as ours, trio.SocketStream(other) as theirs:
            await theirs.send_all(data)
            await theirs.send_eof()
            await request_socks_tunnel(ours, PROXY_OF_CLIENTS, "h", 1)

    trio.run(main)


parser(
    request_socks_tunnel,
    octets(b"\5\2\1\0\5\0\0\3\1h\0\1", b"\5\0\5\0\0\4" + bytes(18), b"\5\0\5\0\0\1" + bytes(6)),
    over_sockets,
    ProxyError,
    ConnectionFailed,
)

# What a request can be asked for…


def requests_with(target: str, value: str) -> Request:
    names = ("Cookie", "Sec-WebSocket-Protocol", "Content-Type", "Upgrade")
    return Request("GET", target, Headers(dict.fromkeys(names, value)), "ws", PROXY)


for name, thing in vars(Request).items():
    if isinstance(thing, property) and thing.fget is not None and name != "text":
        parser(
            thing.fget,
            st.builds(requests_with, texts("/a%20b%ff/?b=c&d"), values("a=b; c", 'd="e"')),
        )
parser(
    Request.subprotocol_token,
    values("chat, bearer.abc"),
    lambda value: requests_with("/", value).subprotocol_token("bearer."),
)
parser(
    Request.json,
    octets(b'{"a": [1, -2.5e3, null, "\\u00e4"]}', b"[]"),
    lambda body: asking(Content_Type="application/json").with_body(body).json(),
    InvalidRequest,
)
parser(
    Request.json,
    values("application/json; charset=utf-8", "text/x+json"),
    lambda kind: asking(Content_Type=kind).with_body(b"1").json(),
    InvalidRequest,
)

# ---------------------------------------------------------------------------
# Fields
# ---------------------------------------------------------------------------


def forwarded(trusted: str, field: str, value: str) -> Request:
    return _forwarded.from_client(asking(**{field: value}), Networks(["10.0.0.0/8"]), trusted)


DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
DEFLATE = "permessage-deflate; client_max_window_bits=12; server_no_context_takeover"

parser(_headers.is_token, texts("a-Z0"))
parser(_headers.is_field_value, texts("a, b"))
parser(
    _headers.has_token,
    values("keep-alive, Upgrade"),
    lambda value: _headers.has_token(Headers({"A": value}), "A", "upgrade"),
)
parser(Headers.tokens, values("a, b"), lambda value: Headers({"A": value}).tokens("A"))
parser(_headers.http_date, texts(DATE, "Sunday, 06-Nov-94 08:49:37 GMT"))
parser(
    _headers.retry_after,
    values(DATE, "120", "1.5"),
    lambda value: _headers.retry_after(Headers({"Retry-After": value, "Date": value})),
)
parser(_addresses.ip_address, texts("192.0.2.1", "2001:db8::1%eth0", "::ffff:192.0.2.1"))
for trusted, field, text in (
    ("Forwarded", "Forwarded", 'for=192.0.2.1;proto=https, for="[2001:db8::1]:80"'),
    ("X-Forwarded-For", "X-Forwarded-For", "192.0.2.1, [::1]:8080, 10.0.0.2"),
    ("X-Forwarded-For", "X-Forwarded-Proto", "https, wss"),
):
    parser(_forwarded.from_client, values(text), partial(forwarded, trusted, field))
parser(
    _negotiation.server_choice,
    texts(DEFLATE),
    lambda text: _negotiation.server_choice(text, Deflate()),
)
parser(
    _negotiation.client_check,
    texts(DEFLATE),
    _negotiation.client_check,
    ValueError,
)
parser(_redaction.masked, texts("wss://ada:pw@example.org/a?b", "//a@b"))
parser(_redaction.without_secrets, texts("Cookie: a=b", "no: //a@b"))
parser(_redaction.printable, texts("a\nb\x1b[1m"))
parser(_redaction.first_words, octets(b"<p class=a>No &amp;</p> cookie: x", b"{'a': 1}"))
parser(_redaction.is_secret_field, texts("Proxy-Authorization"))
SUBPROTOCOLS = texts("chat, bearer.abc, key,x")
parser(_redaction.masked_subprotocols, SUBPROTOCOLS)
parser(
    _redaction.masked_value,
    SUBPROTOCOLS,
    lambda text: _redaction.masked_value("Sec-WebSocket-Protocol", text),
)
parser(
    _redaction.without_tokens,
    SUBPROTOCOLS,
    lambda text: _redaction.without_tokens(text.split(",")),
)

# ---------------------------------------------------------------------------
# URLs
# ---------------------------------------------------------------------------

BASE = _url.parse_url("wss://example.org/a/b?c")
HOSTS = [_url.parse_url(f"ws://{host}/") for host in ("a.example.org", "10.0.0.1", "[2001:db8::1]")]


def proxies_from(value: str, no_proxy: str) -> None:
    for url in HOSTS:
        proxy_from({"all_proxy": value, "no_proxy": no_proxy}, url)


parser(_proxies.parse_proxy, texts("https://u:p%20w@h:1/", "socks5h://[::1]"), None, ValueError)
parser(
    proxy_from,
    texts("https://u:p%20w@h:1/", "h:1"),
    lambda value: proxies_from(value, ""),
    ValueError,
)
parser(
    proxy_from,
    texts("*.example.org, 10.0.0.0/8 [2001:db8::1]:80", "10.0.0.1:80,2001:db8::/32"),
    lambda no_proxy: proxies_from("http://p:1", no_proxy),
    ValueError,
)
parser(is_local, texts("app.localhost.", "127.1", "::ffff:127.0.0.1", "0x7f.1"))

parser(
    _cookies.keep_cookies,
    values(f"a=b; Domain=example.org; Path=/a; Expires={DATE}; Max-Age=1; Secure"),
    lambda value: _cookies.keep_cookies(CookieJar(), BASE, Headers({"Set-Cookie": value})),
)
parser(
    _url.parse_url,
    texts("wss://ada:pw@exämple.org:81/a?b", "ws://[fe80::1%25eth0]/"),
    None,
    InvalidURL,
)
parser(
    _url.follow_redirect,
    texts("//h:80/a?b#c", "https://[::1]/", "../a"),
    lambda location: _url.follow_redirect(BASE, location),
    InvalidURL,
)
parser(
    _url.join_url,
    texts("example.org", "::1"),
    lambda host: _url.join_url(host, 80, "/", secure=True),
    InvalidURL,
)
parser(
    _url.checked_host,
    texts("example.org", "fe80::1%eth0"),
    lambda host: _url.checked_host("it", host),
    ValueError,
)
parser(
    _broker.parse_url,
    texts(
        *("redis://ada:pw@h:6379/1", "unix:///run/redis.sock?db=1", "rediss://[::1]"),
        "redis+sentinel://ada:pw@h:1,[::1]/name/2",
    ),
    None,
    ValueError,
)

# ---------------------------------------------------------------------------
# Handshakes
# ---------------------------------------------------------------------------

FULL_REQUEST = REQUEST[:-2] + (
    b"Origin: https://example.org\r\nSec-WebSocket-Protocol: a, b\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


async def accept(stream: trio.abc.Stream) -> None:
    options = ServerStreamOptions(origins=["https://example.org", None], subprotocols=["a"])
    await answer_request(wrap_stream(stream), options, ConnectionLogger(LOGGER, ""), None)


async def connect(stream: trio.abc.Stream) -> None:
    await request_connection(wrap_stream(stream), BASE, ClientStreamOptions(subprotocols=["a"]))


parser(
    _proxy_protocol.read_proxy_header,
    octets(
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12),
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    ),
    over_memory(_proxy_protocol.read_proxy_header),
    ConnectionFailed,
)
parser(
    answer_request,
    octets(REQUEST, FULL_REQUEST, POST),
    over_memory(accept),
    *(InvalidRequest, ConnectionRejected, ConnectionFailed),
)
parser(
    request_connection,
    octets(ANSWER, REFUSAL),
    over_memory(connect),
    *(ConnectionRejected, InvalidResponse, ConnectionFailed),
)

# ---------------------------------------------------------------------------
# Frames
# ---------------------------------------------------------------------------

HELLO = b"\xf2H\xcd\xc9\xc9\x07\x00"


def frames(*, mask: bool) -> st.SearchStrategy[bytes]:
    plain = frame(TEXT, b"hello", mask=mask) * 2 + frame(BINARY, bytes(200), mask=mask)
    deflated = frame(TEXT, HELLO, rsv=4, mask=mask) + close_frame(1000, mask=mask)
    return octets(plain, deflated)


def receive(role: Role, data: bytes, *, deflate: bool) -> None:
    agreed = (Deflate(), Agreement()) if deflate else None
    wire = Wire(role, max_message_size=2**16, deflate=agreed)
    for piece in (data[:7], data[7:]):
        for event in wire.receive(piece):
            assert events.show_event(event)


def inflate(data: bytes) -> None:
    inflater = Inflater(bits=15, takeover=True)
    inflater.inflate(data, 2**16)
    inflater.finish(2**16)


def close_reason(payload: bytes) -> str | None:
    close = events.read_close(payload)
    return None if close is None else str(CloseReason(close.code, close.reason, Initiator.REMOTE))


parser(
    _frames.take_masked_messages,
    frames(mask=True),
    lambda data: _frames.take_masked_messages(data, 0, 300, 9),
)
parser(
    _frames.take_unmasked_messages,
    frames(mask=False),
    lambda data: _frames.take_unmasked_messages(data, 0, 300, 9),
)
parser(_frames.checked_utf8, octets("hé😀".encode()), None, UnicodeDecodeError)
parser(_frames.read_head, frames(mask=True), lambda data: _frames.read_head(data, 0))
for role in Role:
    for deflate in (False, True):
        received = frames(mask=role is Role.SERVER)
        parser(Wire.receive, received, partial(receive, role, deflate=deflate))
parser(events.read_close, octets(b"\x03\xe8bye"), close_reason)
parser(Inflater.inflate, octets(HELLO, zlib.compress(bytes(999), wbits=-15)), inflate, zlib.error)

# ---------------------------------------------------------------------------
# What is served
# ---------------------------------------------------------------------------

WITH_PASSWORD = basic_auth({"ada": "lovelace"})
ROUTER = Router()
FOLDER = Folder(Path(__file__).parent, Headers())
PATHS = ("/", "/chat/<room>", "/number/<int:number>/", "/path/<path:rest>/x")


async def nothing(*_: object, **__: object) -> None:
    """Is never called."""


for path in PATHS:
    ROUTER.websocket(path)(nothing)
    ROUTER.get(path)(nothing)


def answer_with_file(filename: str, field: str = "Range", value: str = "") -> None:
    answer = trio.run(FOLDER.answer, asking(**{field: value}), filename)
    if not isinstance(answer, Response):
        answer.source.close()


parser(
    basic_auth,
    values("Basic YWRhOmxvdmVsYWNl", "basic Og=="),
    lambda value: trio.run(WITH_PASSWORD, asking(Authorization=value)),
)
parser(
    Router.admit,
    st.builds(requests_with, texts(*PATHS, "/number/1", "//h/chat/a?b"), values("websocket")),
    lambda request: trio.run(ROUTER.admit, request),
)
parser(
    Folder.answer,
    texts("helpers.py", "../a", "interop/"),
    answer_with_file,
)
for field, text in (
    ("Range", "bytes=1-3"),
    ("Range", "bytes=-2, 4-"),
    ("If_Match", 'W/"a-b", "c"'),
    ("If_None_Match", "*"),
    *[(f"If_{name}", DATE) for name in ("Range", "Modified_Since", "Unmodified_Since")],
):
    parser(Folder.answer, values(text), partial(answer_with_file, "helpers.py", field))

LIVE = (
    '{"type":"subscribe","topic":"a","position":"9f3ac1d2e4b5-42","presence":true}',
    '{"type":"send","topic":"a","id":"1","data":{"b":[1e3,null]}}',
)
parser(_messages.parse, st.one_of(texts(*LIVE), st.binary()), None, _messages.BadMessage)

# ---------------------------------------------------------------------------
# What comes from a broker, and from the command line
# ---------------------------------------------------------------------------

ENVELOPE = _envelope.encode(_envelope.Envelope(bytes(8), 2, 1, "hello"))

parser(_envelope.decode, octets(ENVELOPE), None, _envelope.InvalidEnvelope)
parser(
    Incoming.receive,
    octets(ENVELOPE),
    lambda data: Incoming(b"12345678", LOGGER).receive("topic", data),
)
ANSWERS = st.recursive(
    st.one_of(st.none(), st.integers(), st.booleans(), st.binary(), st.just(b"m")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(), inner, max_size=3),
)
parser(_scripts.portion_in, ANSWERS | st.lists(octets(b"e1", b"12")), None, BrokerRefused)
FIELD = st.sampled_from([b"ip", b"port", b"config-epoch"])
parser(_sentinel.primary_in, ANSWERS | st.dictionaries(FIELD, ANSWERS), None, BrokerRefused)
parser(_scripts.push_in, octets(b"@e1-5\n" + ENVELOPE), None, ValueError)
parser(_visible.visible, st.one_of(st.text(), texts("\x1b[2J\n\u202e")))
parser(
    _visible.pretty_json, texts('{"a": [1, null, {}]}'), partial(_visible.pretty_json, colour=True)
)
parser(_typed.understand, texts("/close 4000 x", "/binary 00 ff", "/binary base64:AP8=", "/ping x"))
parser(_history._decoded, octets(b'"a"\n"b"\n'))
parser(_above.above_cursor, st.text(), lambda text: [*_above.above_cursor(text, 80, 24)])
parser(_connect.pattern, texts("[a-z]+(x)?", "x{1}"), None, ArgumentTypeError)
parser(_connect.message_count, texts("80"), None, ArgumentTypeError)
parser(_client_options.header_fields, texts("A: b"), None, ArgumentTypeError)
parser(_client_options.basic_authorization, texts("a:b", "@"), None, ArgumentTypeError)
parser(load_application, texts("a.b:c.d", "trio_ws:testing"), None, CommandFailed)
for number in (
    _arguments.port_number,
    _arguments.process_count,
    _arguments.seconds,
    _arguments.number,
):
    parser(number, texts("80", "1e3", "nan"), None, ArgumentTypeError)
parser(_arguments.header_field, texts("A: b"), None, ArgumentTypeError)


# ---------------------------------------------------------------------------
# The tests
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("one", PARSERS, ids=str)
def test_any_input_is_understood_or_a_documented_error(one: Parser) -> None:
    @budget(60)
    @given(one.given)
    def parse(given: Any) -> None:
        try:
            one.call(given)
        except one.raises:
            pass

    parse()
    for error in one.raises:
        # The error that argparse wants of its types is documented once for all of them.
        assert error is ArgumentTypeError or error.__name__ in (inspect.getdoc(one.function) or "")


#: Modules of whose functions nearly all are parsers, and those that are none.
PARSING = (
    *(_addresses, _envelope, _forwarded, _frames, _headers, _negotiation, _proxy_protocol),
    *(_proxies, _redaction, _url),
)
NO_PARSERS = {
    *("client_offer", "encode", "is_kept", "make_head", "make_masked_frame"),
    *("masked_fields", "masked_frame", "masked_size", "origin_of", "show_address", "size_of"),
}


def test_no_function_of_the_parsing_modules_is_missing_here() -> None:
    tested = {one.function for one in PARSERS}
    for module in PARSING:
        for name, function in inspect.getmembers(module, inspect.isfunction):
            is_public = function.__module__ == module.__name__ and not name.startswith("_")
            if is_public and name not in NO_PARSERS:
                assert function in tested, f"{module.__name__}.{name}"
