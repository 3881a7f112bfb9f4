"""Every option of the library: its name, type, default, reason and check, once.

An entry point takes keyword arguments (see `_keywords`) and turns them into one frozen value. That
value is all that the layers below ever see.

How to choose a number: if in doubt, leave the default. All times are in seconds, all sizes in
bytes, and `math.inf` lifts any limit or timeout.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, get_args

from ._addresses import ip_address
from ._arguments import (
    check_callable,
    check_client_context,
    check_cookie_jar,
    check_plain,
    check_whole,
)
from ._hints import what_was_meant
from ._http.headers import Headers, HeadersLike, is_field_value, is_token
from ._http.hosts import Hosts, problem_with_host
from ._http.networks import Networks
from ._http.proxies import Proxy, parse_proxy
from ._http.url import checked_host
from ._http.values import Answer, Request
from ._log import LoggerLike
from ._option_docs import OPTION_DOCS
from ._protocol.deflate import Deflate
from ._redaction import masked_subprotocols
from ._version import __version__

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

T = TypeVar("T")

#: A function that is asked about each request: see the option `process_request`.
ProcessRequest: TypeAlias = Callable[[Request], Answer | Awaitable[Answer]]
# Both are called with a connection, which is above this floor: `_keywords` has the whole types.
HandlerErrorPolicy: TypeAlias = Literal["log", "propagate"] | Callable[..., None]
PingPongHook: TypeAlias = Callable[..., object]
#: How trusted proxies say what the client's address is: see the option `proxy_header`.
ProxyHeader: TypeAlias = Literal["X-Forwarded-For", "Forwarded", "PROXY"]
#: What becomes of a client that sends too fast: see the option `on_rate_limit`.
RateLimitPolicy: TypeAlias = Literal["wait", "close"]
#: Which pages may connect: see the option `origins`.
Origins: TypeAlias = Sequence[str | re.Pattern[str] | None]

#: Stands for the pages of the host that the request is for, in `origins`.
SAME_ORIGIN: Final = "same-origin"

#: The name and version that both sides give, unless told otherwise.
PRODUCT = f"trio_ws/{__version__}"

#: Fields that the handshake itself writes. A second one would contradict it.
_RESERVED = re.compile(
    r"connection|upgrade|host|origin|content-length|transfer-encoding|sec-websocket-.*",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """The options of every connection, a client's or a server's."""

    max_message_size: float = 2**20
    """Largest message accepted, in bytes of payload. A larger message fails the connection with
    1009. 1 MiB holds any message that a person writes and most that programs write, and bounds what
    one peer can make this side hold. Each frame of a fragmented message after the first counts at
    least 64, so that a peer cannot send empty ones for ever."""

    max_queued_messages: float = 1024
    """Most messages received and not yet taken. When this many wait, the connection stops reading,
    and TCP makes the peer wait in turn. Messages are decoded in batches of at most 64, or of this
    many if that is less, and one batch may overshoot the limit. Throughput was the same from 16 to
    4096. A larger number rides out bursts; with a smaller one the peer feels a slow handler
    sooner."""

    max_queued_bytes: float = 256 * 1024
    """Most memory for messages received and not yet taken, in bytes. One read may overshoot it, by
    64 KiB, by 256 KiB if much is coming, or by 1 MiB within a large message. A single message that
    is larger than this is still received whole once a task asks for it."""

    max_send_buffer: float = 64 * 1024
    """`send` waits while more bytes than this are unsent. One message may exceed it, so the buffer
    never holds more than this and the largest message together. 64 KiB keeps a fast network busy
    between two turns of the task that fills the buffer."""

    open_timeout: float = 10.0
    """Seconds for the whole opening: name look-up, TCP, TLS and HTTP, redirects included."""

    close_timeout: float = 10.0
    """Seconds for the whole closing: unsent messages, the Close frames and the TCP shutdown.
    Leaving a connection never takes longer."""

    ping_interval: float = 20.0
    """A peer that has been silent for this many seconds is sent a ping. 20 s is below the idle
    timeout of every common proxy. `math.inf` turns keepalive off."""

    ping_timeout: float = 20.0
    """A peer that stays silent for this many seconds after a ping is dropped with 1011. The time
    runs from when the ping has left. A peer that takes no byte of ours for `ping_interval` and this
    together is dropped too. One that reads slowly and steadily is kept. After this computer has
    slept, a peer gets 3 s at most."""

    compression: Deflate | None = Deflate()  # noqa: RUF009 - immutable
    """Settings of permessage-deflate (RFC 7692), or `None` for no compression. Compression is used
    if the peer agrees, and for messages that are worth it."""

    subprotocols: Sequence[str] = field(default=(), repr=False)  # a client's may hold a token
    """Subprotocols (RFC 6455 section 1.9), the preferred one first. A client offers them. A server
    picks the first of its own that the client offered, or none."""

    headers: HeadersLike = ()
    """Additional header fields: of a client's opening request, or of every response of a server, be
    it the 101, a page or a refusal. A field that a response has itself, other than Set-Cookie,
    takes the place of one of the same name here. With a server, this is the place for security
    headers and CORS."""

    decode_text: bool = True
    """Whether text is received as `str`. False leaves it as `bytes`, which are checked to be UTF-8,
    for parsers that take bytes. orjson then takes about a fifth less time if the text is not ASCII;
    with ASCII, and with other parsers, little is gained. The price: text and binary can no longer
    be told apart, and a message that is sent back as it came goes out as binary."""

    on_ping_pong: PingPongHook | None = None
    """A function that is called for each ping and pong from the peer. It gets the connection,
    ``"ping"`` or ``"pong"``, and the payload. A ping has been answered by then, and the pongs that
    answer keepalive's pings are included. The function cannot wait, because it runs where the
    connection is read. What it raises is logged, and the connection goes on."""

    logger: LoggerLike = field(default_factory=lambda: logging.getLogger("trio_ws"))
    """The logger for all records, or a `logging.LoggerAdapter` that adds to each of them. Each
    record has the attribute `connection_id`."""

    def __post_init__(self) -> None:
        check_limits(self)
        if not isinstance(self.compression, (Deflate, NoneType)):
            raise TypeError(f"compression is a Deflate() or None, not {self.compression!r}")
        if not isinstance(self.decode_text, bool):
            raise TypeError(f"decode_text is True or False, not {self.decode_text!r}")
        if self.on_ping_pong is not None:
            check_plain(
                "on_ping_pong", self.on_ping_pong, "a WebSocket", "'ping' or 'pong'", "bytes"
            )
        check_logger(self.logger)
        # Kept as values: the caller may change them later, or they can be iterated only once.
        object.__setattr__(self, "subprotocols", _checked_subprotocols(self.subprotocols))
        object.__setattr__(self, "headers", self._checked_headers())

    def _checked_headers(self) -> Headers:
        return check_extra_headers(self.headers)

    @property
    def extra_headers(self) -> Headers:
        """`headers`, as the checked value that `__post_init__` made of them."""
        assert isinstance(self.headers, Headers)
        return self.headers


@dataclass(frozen=True, kw_only=True)
class ClientStreamOptions(ConnectionOptions):
    """The options of a client over any stream: those of `wrap_client_stream`."""

    origin: str | None = None
    """The Origin header, for servers that ask for one. Browsers send it; other clients need not."""

    user_agent: str | None = PRODUCT
    """The User-Agent header, or `None` for none."""

    cookies: CookieJar | None = field(default=None, repr=False)
    """A `http.cookiejar.CookieJar`. It says which cookies go with the opening request, and learns
    those that the response sets, whatever its status. For the jar, ``ws`` is ``http`` and ``wss``
    is ``https``, so that it may be an HTTP client's, too. If `headers` has a Cookie, that is sent
    instead. On a redirect to another origin the jar is not asked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_cookie_jar(self.cookies)
        _check_field("origin", self.origin)
        _check_field("user_agent", self.user_agent)

    def _checked_headers(self) -> Headers:
        headers = Headers(self.headers)
        hosts = headers.get_all("Host")
        if len(hosts) > 1 or any(map(problem_with_host, hosts)):
            raise ValueError(f"the header Host is one host, perhaps with a port, not {hosts!r}")
        check_extra_headers([field for field in headers.fields if field[0].lower() != "host"])
        return headers


@dataclass(frozen=True, kw_only=True)
class ClientOptions(ClientStreamOptions):
    """The options of a client that opens its stream: `open_websocket_url`, `open_websocket`."""

    ssl_context: ssl.SSLContext | None = None
    """The TLS context for ``wss``. By default, the system's trust store is used, and host names are
    checked."""

    server_hostname: str | None = None
    """The name that the server's certificate is for, if that is not the host of the URL. At the end
    of a tunnel, or behind an IP address, they differ. TLS also sends this name to the server (SNI).
    The Host header still names the host of the URL, unless `headers` has another."""

    path: str | os.PathLike[str] | None = None
    """A Unix socket to connect to. The URL keeps its meaning: ``ws`` or ``wss``, the Host header,
    the resource."""

    max_redirects: int = 0
    """How many HTTP redirects to follow, at most 10. A redirect from ``wss`` to ``ws`` is never
    followed, and credentials and cookies are not sent to another origin."""

    proxy: str | None = field(default="env", repr=False)
    """The proxy to go through: ``"env"`` for the one that the environment names, if any; `None` for
    none; or a URL such as ``"http://user:password@proxy.example:3128"``. The scheme is ``http`` or
    ``https`` (a tunnel by CONNECT), ``socks4a``, ``socks5`` or ``socks5h``; SOCKS needs the extra
    ``proxy``. This machine (``localhost``, 127.0.0.1, a Unix socket) is never reached through a
    proxy of the environment. "Connecting through a proxy", in the documentation, has the
    variables."""

    proxy_ssl_context: ssl.SSLContext | None = None
    """The TLS context for an ``https`` proxy. By default, the system's trust store is used. The
    server behind the proxy is `ssl_context`'s business."""

    local_address: str | None = None
    """The IP address of this machine to connect from, to the server or to the proxy. By default,
    the system chooses one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "Proxy-Authorization" in self.extra_headers:
            raise ValueError(
                "the header Proxy-Authorization would be sent to the server: write the user and "
                "password into the URL of the proxy"
            )
        check_client_context(self.ssl_context)
        if self.server_hostname is not None:
            name = checked_host("server_hostname", self.server_hostname)
            object.__setattr__(self, "server_hostname", name)
        if self.path is not None and not isinstance(self.path, (str, os.PathLike)):
            raise TypeError(f"path is a str or a Path, or None for TCP, not {self.path!r}")
        if self.path is not None and not os.fspath(self.path):
            raise ValueError("path names a Unix socket, or is None for TCP, and cannot be empty")
        check_whole("max_redirects", self.max_redirects, 0, 10)
        self._check_proxy()
        if self.local_address is not None:
            self._check_local_address(self.local_address)

    @cached_property
    def proxy_given(self) -> Proxy | None:
        """`proxy`, taken apart; `None` if it is no URL."""
        return None if self.proxy in ("env", None) else parse_proxy(self.proxy)

    def _check_proxy(self) -> None:
        check_client_context(self.proxy_ssl_context, "proxy_ssl_context")
        if self.proxy is not None and not isinstance(self.proxy, str):
            raise TypeError(f"proxy is a str, or None for no proxy, not {self.proxy!r}")
        given = self.proxy_given  # checked here, so that a mistake is reported now
        if given is not None and self.path is not None:
            raise ValueError("path is a Unix socket of this machine, which no proxy leads to")
        has_tls = self.proxy == "env" or (given is not None and given.scheme == "https")
        if self.proxy_ssl_context is not None and not has_tls:
            raise ValueError(
                f"a proxy_ssl_context is for an https:// proxy, not {given and given.url}"
            )

    def _check_local_address(self, address: object) -> None:
        if not isinstance(address, str):
            raise TypeError(f"local_address is a str, or None for any, not {address!r}")
        if ip_address(address) is None:
            raise ValueError(f"local_address is an IP address of this machine, not {address!r}")
        if self.path is not None:
            raise ValueError("a local_address is for TCP, and path is a Unix socket")


@dataclass(frozen=True, kw_only=True)
class ServerStreamOptions(ConnectionOptions):
    """The options of a server over any stream: those of `wrap_server_stream`."""

    process_request: ProcessRequest | None = None
    """A sync or async function that is called with each well-formed `Request`. The request may be
    for a WebSocket or plain HTTP. The function returns `None` to go on, `Accept` to go on with a
    subprotocol or headers of its choice, or a `Response` to answer with instead: a page, a health
    check, a 401."""

    origins: Origins = (SAME_ORIGIN, None)
    """Whose pages may connect, by their Origin header; anything else gets 403. Each is an exact
    string, a compiled regular expression (which has to match the whole), ``"same-origin"`` for
    pages of the host and port in the Host header, ``"null"`` for pages opened from a disk, or
    `None` for requests without the header, as programs send them. ``"*"``, alone or in the list, is
    every one. By default, no other site's page can use the cookies of a user who is logged in here,
    or reach a server that only this machine can."""

    hosts: Sequence[str] | None = None
    """The hosts that this server answers to, in the Host header; a request for any other gets 421.
    Each is a name, ``"*.example.org"`` for every name under it, an address, a network like
    ``"10.0.0.0/8"``, or ``"*"``, which may also stand alone. By default, every host. But a server
    that listens only on loopback addresses, and has no `trusted_proxies`, answers only to
    ``localhost``, the names under it and such addresses. Otherwise any page could reach it under a
    name of its own (DNS rebinding)."""

    server_header: str | None = PRODUCT
    """The Server header, or `None` for none."""

    trusted_proxies: Sequence[str] = ()
    """The proxies that are believed when they say who the client is. Each is an address, a network
    like ``"10.0.0.0/8"``, or ``"unix"`` for peers without an address, on a Unix socket. Behind such
    a proxy, `remote_address` and `scheme` are those of the client."""

    proxy_header: ProxyHeader = "X-Forwarded-For"
    """How trusted proxies say who the client is. One of ``"X-Forwarded-For"``, with
    X-Forwarded-Proto for the scheme; ``"Forwarded"`` (RFC 7239); and ``"PROXY"``, for the PROXY
    protocol, version 1 or 2, before TLS and HTTP. Only one is believed, because a client can send
    the others itself."""

    max_messages_per_second: float = math.inf
    """How many messages a client may send in a second, on one connection. After a quiet time, one
    second's worth may come at once, and at least one message. A ping or a pong counts as a message,
    and so does a fragment of less than 1 KiB. What a person does makes a few messages a second, a
    game up to 60: leave several times as much."""

    max_bytes_per_second: float = math.inf
    """How many bytes a client may send in a second, on one connection. Those of frames count, heads
    included, and a compressed message as if it were not compressed. After a quiet time, one
    second's worth may come at once. A message that is larger comes when all of it would have been
    allowed."""

    on_rate_limit: RateLimitPolicy = "wait"
    """What to do with a client that sends faster than these two allow. With ``"wait"``, its
    connection is read no faster: TCP makes it wait, and nothing is lost. Its pings and its Close
    frame wait behind its messages. With ``"close"``, the connection is closed with 1008, and the
    reason names the limit. A client that keeps to its limits notices neither."""

    idle_timeout: float = math.inf
    """A connection without a message in either direction for this many seconds is closed with
    1000."""

    max_lifetime: float = math.inf
    """A connection is closed with 1000 when it is this many seconds old, or up to 10 % less. How
    much less is random, so that clients which came together, after a restart say, do not all leave
    and come back together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_field("server_header", self.server_header)
        names = _listed("trusted_proxies", self.trusted_proxies)
        object.__setattr__(self, "trusted_proxies", names)
        assert self.proxy_networks is not None  # made now, so that a mistake is reported now
        if self.proxy_header not in get_args(ProxyHeader):
            raise ValueError(f"proxy_header is one of {', '.join(get_args(ProxyHeader))}")
        if self.on_rate_limit not in get_args(RateLimitPolicy):
            raise ValueError(f"on_rate_limit is 'wait' or 'close', not {self.on_rate_limit!r}")
        if self.process_request is not None:
            check_callable("process_request", self.process_request, "one Request")
        object.__setattr__(self, "origins", _checked_origins(self.origins))
        if self.hosts is not None:
            hosts = _listed("hosts", ["*"] if self.hosts == "*" else self.hosts)
            object.__setattr__(self, "hosts", hosts)
            assert self.known_hosts is not None

    @property
    def limits_rates(self) -> bool:
        """Whether one connection may send only so fast."""
        return min(self.max_messages_per_second, self.max_bytes_per_second) < math.inf

    @cached_property
    def response_fields(self) -> Headers:
        """`headers` and `server_header`: what every response has that does not have its own."""
        product = [] if self.server_header is None else [("Server", self.server_header)]
        return self.extra_headers.with_defaults(Headers(product))

    @cached_property
    def proxy_networks(self) -> Networks:
        """`trusted_proxies`, as the networks that they mean."""
        return Networks(self.trusted_proxies)

    @cached_property
    def known_hosts(self) -> Hosts | None:
        """`hosts`, as something to look one up in."""
        return None if self.hosts is None else Hosts(self.hosts)


@dataclass(frozen=True, kw_only=True)
class ListenerOptions(ServerStreamOptions):
    """The options of a server that accepts connections itself: `serve_listeners`."""

    on_handler_error: HandlerErrorPolicy = "log"
    """What to do when a handler raises an `Exception` other than its own connection's end. The peer
    gets 1011 in any case. ``"log"`` writes one record with the traceback, and the server goes on.
    ``"propagate"`` shuts the server down and raises the exception from there. A plain function is
    called with the connection, which is closed by then, and the exception, and the server goes on.
    An HTTP endpoint has no connection to pass on: its exception is logged or propagated."""

    grace_period: float = 5.0
    """Seconds that handlers may go on at shutdown before they are cancelled. They run from when the
    peers are told 1001."""

    max_connections: float = math.inf
    """Connections beyond this many get HTTP 503. Connections in the opening handshake count. So do
    those that only speak HTTP with a `Router`, even while they are idle. Up to 16 requests for
    pages at a time are answered all the same, each with ``Connection: close``: a server that is
    full passes its health checks."""

    max_handshakes_per_second: float = math.inf
    """How often one address may connect in a second. After a quiet time, one second's worth may
    come at once, and at least one connection. What is beyond gets 429 with Retry-After, and over
    TLS it is hung up on. An IPv6 address stands for its /64. Behind `trusted_proxies`, the client's
    address counts; set these first, or all clients are one. With several workers, each counts by
    itself. A Unix socket has no address. A page makes one connection, and a browser that restores
    its tabs makes ten; leave room for offices behind one address: 20 or more."""

    max_connections_per_address: float = math.inf
    """Connections of one address beyond this many get 429. Counted are the same connections as for
    `max_connections`, and the same addresses as for `max_handshakes_per_second`. Behind a proxy
    that names the client in a header, that is from the request for a WebSocket on. A hundred leaves
    room for offices behind one address."""

    max_body_size: float = 2**20
    """Largest body of an HTTP request that a `Router` accepts, in bytes. A larger one gets 413. The
    whole body is held in memory. Each chunk of a chunked body counts at least 64. A body that does
    not arrive within `open_timeout` gets 408: 1 MiB in 10 s is 0.8 Mbit/s."""

    keep_alive_timeout: float = 75.0
    """Seconds that an HTTP connection to a `Router` may be idle between two requests. nginx gives
    up an idle connection to a server behind it after 60 s. 75 s is longer, because the side that
    sends the next request should be the one that closes first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.on_handler_error not in ("log", "propagate"):
            _check_error_policy(self.on_handler_error)

    @property
    def limits_addresses(self) -> bool:
        """Whether one address may connect only so often."""
        return min(self.max_handshakes_per_second, self.max_connections_per_address) < math.inf


# ---------------------------------------------------------------------------
# From keyword arguments
# ---------------------------------------------------------------------------


def make_options(
    kind: Callable[..., T], options: Mapping[str, object], entry_point: Callable[..., object]
) -> T:
    """The keyword arguments `options` of `entry_point`, as a value of the type `kind`.

    Raises:
        TypeError: there is no such option (the text names `entry_point`, and the option that may
            have been meant), or an option is of the wrong type.
        ValueError: an option is out of its range.
    """
    try:
        return kind(**options)
    except TypeError:
        names = inspect.signature(kind).parameters
        unknown = [name for name in options if name not in names]
        if not unknown:
            raise
        # Not every argument is an option: the `ssl_context` of servers, for example, is none.
        own = inspect.signature(entry_point).parameters
    name, called = unknown[0], entry_point.__name__
    meant = what_was_meant(name, {*names, *own} - {"options"})
    hint = f"; did you mean {meant!r}?" if meant else ""
    for other, side in ((ClientOptions, "clients"), (ListenerOptions, "servers")):
        # `origin` of a client and `origins` of a server are taken for each other.
        if name in inspect.signature(other).parameters and meant not in (f"{name}s", name[:-1]):
            hint = f"; {side} have one"
    raise TypeError(f"{called}() has no option {name!r}{hint}")


# ---------------------------------------------------------------------------
# What help() shows
# ---------------------------------------------------------------------------


def shows_options(kind: type) -> Callable[[T], T]:
    """A decorator: `help()` for what it decorates shows the options of the class `kind`."""

    def add(thing: T) -> T:
        if thing.__doc__ is not None:  # as it is under ``python -OO``
            parts = [OPTION_DOCS.get(each.__name__, "") for each in reversed(kind.__mro__)]
            thing.__doc__ = f"{inspect.cleandoc(thing.__doc__)}\n\nOptions:{''.join(parts)}"
        return thing

    return add


for _kind in (
    ConnectionOptions,
    ClientStreamOptions,
    ClientOptions,
    ServerStreamOptions,
    ListenerOptions,
):
    shows_options(_kind)(_kind)


# ---------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------


def check_limits(options: Any) -> None:
    """`check_limit` for the fields of a dataclass that are limits and timeouts: all its floats."""
    for option in fields(options):
        if option.type == "float":
            check_limit(option.name, getattr(options, option.name))


def check_limit(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number (math.inf for no limit), not {value!r}")
    # The comparison is written so that NaN fails it.
    if not value > 0:
        raise ValueError(f"{name} is greater than 0 (math.inf for no limit), not {value!r}")


def check_logger(logger: object) -> None:
    if not isinstance(logger, (logging.Logger, logging.LoggerAdapter)):
        raise TypeError(f"logger is a logging.Logger or a LoggerAdapter, not {logger!r}")


def _check_error_policy(policy: object) -> None:
    if not callable(policy):
        raise ValueError(  # noqa: TRY004 - mostly it is another word
            f"on_handler_error is 'log', 'propagate' or a callable, not {policy!r}"
        )
    check_plain("on_handler_error", policy, "a WebSocket", "an Exception")


def _listed(name: str, values: Any) -> tuple[Any, ...]:
    # To Python, a str is a sequence of characters. Here it is always a mistake.
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise TypeError(f"{name} is a list, not {values!r}")
    return tuple(values)


def _checked_subprotocols(values: Sequence[str]) -> tuple[str, ...]:
    names = _listed("subprotocols", values)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a subprotocol is a str, not {name!r}")
        if not is_token(name):
            shown = masked_subprotocols(name)
            raise ValueError(f"{shown!r} is not a subprotocol name: letters, digits and -_. only")
    if len(set(names)) != len(names):
        shown = masked_subprotocols(", ".join(names))
        raise ValueError(f"a subprotocol is listed twice: {shown}")
    return names


def _checked_origins(values: Origins) -> tuple[str | re.Pattern[str] | None, ...]:
    origins = _listed("origins", ["*"] if values == "*" else values)
    for origin in origins:
        text: object = getattr(origin, "pattern", origin)
        if text is not None and not isinstance(text, str):
            raise TypeError(f"an origin is a str, a compiled pattern or None, not {origin!r}")
        if isinstance(origin, str) and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                "an origin is written as browsers send it, 'https://example.org' or with a port, "
                f"and without a path: not {origin!r}"
            )
    return origins


# Our own words, RFC 6454 section 7, and beyond it what extensions and programs with a browser send.
_ORIGIN = re.compile(r"null|\*|same-origin|[A-Za-z][-+.A-Za-z0-9]*://[-.:_~%A-Za-z0-9\[\]]*")


def check_extra_headers(headers: HeadersLike) -> Headers:
    checked = Headers(headers)
    for name in checked:
        if _RESERVED.fullmatch(name):
            raise ValueError(
                f"the header {name!r} belongs to the handshake: leave it out, or use the option "
                "for it (origin, subprotocols, a URL with the host)"
            )
    return checked


def _check_field(name: str, value: str | None) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name} is a str, or None for none, not {value!r}")
    if not is_field_value(value):
        raise ValueError(f"{name} may not hold line breaks or control characters: {value!r}")
