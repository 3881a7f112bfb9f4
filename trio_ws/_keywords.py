"""The options as keyword arguments of the entry points.

`_options` defines them. Their names are repeated here, because a type checker cannot derive keyword
arguments from a dataclass. A test compares the two.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

from ._connection.websocket import WebSocket
from ._http.headers import HeadersLike
from ._log import LoggerLike
from ._options import Origins, ProcessRequest, ProxyHeader, RateLimitPolicy
from ._protocol.deflate import Deflate

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

#: What happens to a handler's exception: see the option `on_handler_error`.
HandlerErrorPolicy: TypeAlias = Literal["log", "propagate"] | Callable[[WebSocket, Exception], None]
#: A function that is called for each ping and pong: see the option `on_ping_pong`.
PingPongHook: TypeAlias = Callable[[WebSocket, Literal["ping", "pong"], bytes], object]


class _CommonKeywords(TypedDict, total=False):
    max_message_size: float
    max_queued_messages: float
    max_queued_bytes: float
    max_send_buffer: float
    open_timeout: float
    close_timeout: float
    ping_interval: float
    ping_timeout: float
    compression: Deflate | None
    decode_text: bool
    on_ping_pong: PingPongHook | None
    logger: LoggerLike


class ConnectionKeywords(_CommonKeywords, total=False):
    """The keyword arguments of `ConnectionOptions`."""

    subprotocols: Sequence[str]
    headers: HeadersLike


class _ClientStreamKeywords(TypedDict, total=False):
    origin: str | None
    user_agent: str | None
    cookies: CookieJar | None


class ClientStreamKeywords(ConnectionKeywords, _ClientStreamKeywords, total=False):
    """The keyword arguments of `ClientStreamOptions`."""


class _ClientKeywords(TypedDict, total=False):
    ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    path: str | os.PathLike[str] | None
    max_redirects: int
    proxy: str | None
    proxy_ssl_context: ssl.SSLContext | None
    local_address: str | None


class ClientKeywords(ClientStreamKeywords, _ClientKeywords, total=False):
    """The keyword arguments of `ClientOptions`."""


class ReconnectingKeywords(_CommonKeywords, _ClientStreamKeywords, _ClientKeywords, total=False):
    """The same, but for those that may be functions where a client reconnects."""


class ServerStreamKeywords(ConnectionKeywords, total=False):
    """The keyword arguments of `ServerStreamOptions`."""

    process_request: ProcessRequest | None
    origins: Origins
    hosts: Sequence[str] | None
    server_header: str | None
    trusted_proxies: Sequence[str]
    proxy_header: ProxyHeader
    max_messages_per_second: float
    max_bytes_per_second: float
    on_rate_limit: RateLimitPolicy
    idle_timeout: float
    max_lifetime: float


class ListenerKeywords(ServerStreamKeywords, total=False):
    """The keyword arguments of `ListenerOptions`."""

    on_handler_error: HandlerErrorPolicy
    grace_period: float
    max_connections: float
    max_handshakes_per_second: float
    max_connections_per_address: float
    max_body_size: float
    keep_alive_timeout: float
