"""WebSocket clients and servers for trio."""

import typing as _typing

from ._addresses import Address
from ._client.client import open_websocket, open_websocket_url, wrap_client_stream
from ._connection.byte_stream import as_stream
from ._connection.ending import State
from ._connection.pieces import MessageReader, MessageWriter
from ._connection.pump import pump
from ._connection.websocket import ConnectionStatistics, WebSocket
from ._errors import (
    CloseCode,
    CloseReason,
    ConnectionClosed,
    ConnectionEnded,
    ConnectionFailed,
    ConnectionLost,
    HandshakeError,
    HandshakeTimeout,
    Initiator,
    InvalidResponse,
    InvalidURL,
    TooManyRedirects,
    UnexpectedMessage,
    WebSocketError,
)
from ._http.context import Context
from ._http.headers import Headers, HeadersLike
from ._http.query import QueryParams
from ._http.values import (
    Accept,
    ConnectionRejected,
    InvalidRequest,
    ProxyError,
    Request,
    Response,
)
from ._keywords import (
    ClientKeywords,
    ClientStreamKeywords,
    HandlerErrorPolicy,
    ListenerKeywords,
    PingPongHook,
    ReconnectingKeywords,
    ServerStreamKeywords,
)
from ._log import LoggerLike
from ._options import (
    ClientOptions,
    ClientStreamOptions,
    ConnectionOptions,
    ListenerOptions,
    Origins,
    ProcessRequest,
    ProxyHeader,
    RateLimitPolicy,
    ServerStreamOptions,
)
from ._pacing import CALLS_PER_CHECKPOINT
from ._protocol.deflate import Deflate
from ._protocol.message import Message
from ._version import __version__

if _typing.TYPE_CHECKING:
    from ._broadcast.broadcast import Broadcast
    from ._broadcast.catching_up import StateUnavailable
    from ._broadcast.opening import open_broadcast
    from ._broadcast.policies import Disconnect, DropNewest, DropOldest, Latest, SlowReaderPolicy
    from ._broadcast.presence import Membership, Presence, PresenceSnapshot
    from ._broadcast.subscription import Subscription
    from ._broadcast.tally import BroadcastStatistics, Dropped
    from ._broadcast.to_channel import BroadcastChannel, ChannelStatistics
    from ._client.reconnecting import Link, reconnecting
    from ._json_lines import JSONFormatter
    from ._server.handlers import Handler
    from ._server.one_stream import wrap_server_stream
    from ._server.server import ServerStatistics, WebSocketServer, serve_listeners, serve_websocket
    from ._web.basic_auth import CheckCredentials, Username, basic_auth
    from ._web.router import Before, Page, Router
    from .backplane._position import Position
else:
    from ._later import load as __getattr__, names as __dir__  # noqa: F401 - Python calls them

__all__ = [
    "CALLS_PER_CHECKPOINT",
    "Accept",
    "Address",
    "Before",
    "Broadcast",
    "BroadcastChannel",
    "BroadcastStatistics",
    "ChannelStatistics",
    "CheckCredentials",
    "ClientKeywords",
    "ClientOptions",
    "ClientStreamKeywords",
    "ClientStreamOptions",
    "CloseCode",
    "CloseReason",
    "ConnectionClosed",
    "ConnectionEnded",
    "ConnectionFailed",
    "ConnectionLost",
    "ConnectionOptions",
    "ConnectionRejected",
    "ConnectionStatistics",
    "Context",
    "Deflate",
    "Disconnect",
    "DropNewest",
    "DropOldest",
    "Dropped",
    "Handler",
    "HandlerErrorPolicy",
    "HandshakeError",
    "HandshakeTimeout",
    "Headers",
    "HeadersLike",
    "Initiator",
    "InvalidRequest",
    "InvalidResponse",
    "InvalidURL",
    "JSONFormatter",
    "Latest",
    "Link",
    "ListenerKeywords",
    "ListenerOptions",
    "LoggerLike",
    "Membership",
    "Message",
    "MessageReader",
    "MessageWriter",
    "Origins",
    "Page",
    "PingPongHook",
    "Position",
    "Presence",
    "PresenceSnapshot",
    "ProcessRequest",
    "ProxyError",
    "ProxyHeader",
    "QueryParams",
    "RateLimitPolicy",
    "ReconnectingKeywords",
    "Request",
    "Response",
    "Router",
    "ServerStatistics",
    "ServerStreamKeywords",
    "ServerStreamOptions",
    "SlowReaderPolicy",
    "State",
    "StateUnavailable",
    "Subscription",
    "TooManyRedirects",
    "UnexpectedMessage",
    "Username",
    "WebSocket",
    "WebSocketError",
    "WebSocketServer",
    "__version__",
    "as_stream",
    "basic_auth",
    "open_broadcast",
    "open_websocket",
    "open_websocket_url",
    "pump",
    "reconnecting",
    "serve_listeners",
    "serve_websocket",
    "wrap_client_stream",
    "wrap_server_stream",
]
