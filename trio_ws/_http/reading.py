"""From bytes to a request that is fit to be answered, or to the refusal of one that is not.

This module owns what is demanded of every request head, be it for a page or a WebSocket: its size,
version, target, Host and framing. Reading a head and judging it is one step, so nobody can forget
the second half. There is no I/O here: the caller feeds what it receives.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple, Protocol, final

from .._addresses import TLS, Address
from .exchange import (
    HeadBuffer,
    HeadTooLarge,
    MalformedHead,
    ServerExchange,
    SpeaksTLS,
    StartLineTooLong,
)
from .forwarded import from_client
from .headers import Headers
from .hosts import Hosts, problem_with_host
from .networks import Networks
from .values import Request, refusal

#: What is said of a client that speaks TLS where the server does not. The log is where it is read.
NO_TLS_HERE = (
    "this is TLS, and there is none here: the client has to use ws:// or http://, or the server "
    "an ssl_context"
)


class Ends(Protocol):
    """What a connection says about itself."""

    @property
    def scheme(self) -> str:
        """``"ws"``, or ``"wss"`` over TLS."""
        ...

    @property
    def tls(self) -> TLS | None: ...

    @property
    def local_address(self) -> Address: ...

    @property
    def remote_address(self) -> Address: ...


class IncomingRequest(NamedTuple):
    """A request whose head was read and judged.

    Attributes:
        request: what the head says. Its body is still to be read.
        version: its HTTP version, ``"1.0"`` or later, but not 2.
        exchange: reads its body and writes its response.
        rest: the bytes after the head: a body, another request, or frames.
    """

    request: Request
    version: str
    exchange: ServerExchange
    rest: bytes


@final
class RequestReader:
    """Reads one request head, and judges it.

    Args:
        ends: the connection it comes from.
        client: the client's address, if a proxy told it before the request.
        trusted: the proxies whose word is taken.
        field: where those say who the client is: `proxy_header`.
        hosts: the hosts that the server answers to; `None` for all.

    Attributes:
        exchange: writes the response, and also a refusal.
    """

    __slots__ = ("_buffer", "_client", "_ends", "_field", "_hosts", "_trusted", "exchange")

    def __init__(
        self,
        ends: Ends,
        client: Address = None,
        trusted: Networks | None = None,
        field: str = "",
        hosts: Hosts | None = None,
    ) -> None:
        self._ends = ends
        self._client = client
        self._trusted = trusted
        self._field = field
        self._hosts = hosts
        self._buffer = HeadBuffer(ServerExchange.STARTS)
        self.exchange = ServerExchange()

    def feed(self, data: bytes) -> None:
        self._buffer.feed(data)

    def take(self) -> IncomingRequest | None:
        """The request, or `None` while its head is not complete.

        Raises:
            InvalidRequest: the request is not acceptable. The exception holds the response.
        """
        ends = self._ends
        try:
            head = self._buffer.take()
            if head is None:
                return None
            request, version = self.exchange.request(
                head,
                scheme=ends.scheme,
                remote_address=self._client or ends.remote_address,
                local_address=ends.local_address,
                tls=ends.tls,
            )
        except StartLineTooLong:  # RFC 9112 section 3
            raise refusal(414, "the request target is too long") from None
        except HeadTooLarge as exc:
            raise refusal(431, str(exc)) from None
        except SpeaksTLS:
            raise refusal(400, NO_TLS_HERE) from None
        except MalformedHead as exc:
            raise refusal(400, f"malformed request: {exc}") from None
        _check_head(request, version)
        # The PROXY protocol has no field: what clients write into one means nothing.
        if self._trusted and self._field != "PROXY":
            request = from_client(request, self._trusted, self._field)
        if not request.target.startswith("/"):
            request = _with_its_path(request)
        if self._hosts is not None:
            _check_is_ours(request, self._hosts)
        if not request.is_upgrade:
            request = replace(request, scheme="https" if request.scheme == "wss" else "http")
        return IncomingRequest(request, version, self.exchange, self._buffer.rest())


def check_is_only_a_head(incoming: IncomingRequest) -> None:
    """Refuse a body, and HTTP/1.0: for a WebSocket, and where no page is served.

    Raises:
        InvalidRequest: it has one of these.
    """
    _check_version(incoming.version, "1.1")
    headers = incoming.request.headers
    has_length = "Content-Length" in headers and int(headers["Content-Length"]) > 0
    if has_length or "Transfer-Encoding" in headers:
        raise refusal(400, "a request with a body is not accepted here")


def _check_head(request: Request, version: str) -> None:
    _check_version(version, "1.0")
    if "#" in request.target:
        raise refusal(400, "a fragment is no part of a request target")
    headers = request.headers
    host = headers.get("Host")
    if host is not None:  # h11 has refused HTTP/1.1 without one
        _check_host(host)
    # A proxy in front may have understood these in another way than h11 does: then the two would
    # not agree on where this request ends (RFC 9112 section 6.1).
    if "Transfer-Encoding" in headers:
        if "Content-Length" in headers:
            raise refusal(400, "Transfer-Encoding and Content-Length exclude each other")
        if version == "1.0":
            raise refusal(400, "HTTP/1.0 knows no Transfer-Encoding")


def _check_is_ours(request: Request, hosts: Hosts) -> None:
    # HTTP/1.0 may leave it out. Browsers do not, and they are what this is about: a page can give
    # its own host's name the address of this server (DNS rebinding), and then counts as its own.
    host = request.headers.get("Host")
    if host is not None and host not in hosts:
        raise refusal(421, f"this server does not answer to the host {host}: see its option hosts=")


def _check_host(host: str) -> None:
    problem = problem_with_host(host)
    if problem is not None:
        raise refusal(400, f"the Host header is not {problem}")


def _check_version(version: str, least: str) -> None:
    # Later versions 1.x are answered like 1.1 (RFC 9110 section 2.5).
    if not version.startswith("1.") or version < least:
        raise refusal(505, f"HTTP/1.1 is spoken here, not HTTP/{version}")


_ABSOLUTE = re.compile(r"(https?|wss?)://([^/?]*)(/[^?]*)?(\?.*)?", re.IGNORECASE)


def _with_its_path(request: Request) -> Request:
    """The request with the path of a target that is a whole URL (RFC 9112 section 3.2.2).

    The host in the URL replaces the Host header, whatever that says.
    """
    if request.target == "*" and request.method == "OPTIONS":
        return request
    absolute = _ABSOLUTE.fullmatch(request.target)
    if absolute is None:
        raise refusal(400, "the request target must be a path or a URL")
    scheme, host, path, query = absolute.groups("")
    _check_host(host)
    if scheme.lower() in ("https", "wss") and request.scheme == "ws":
        raise refusal(421, "what is asked for is served over TLS only")
    fields = [field for field in request.headers.fields if field[0].lower() != "host"]
    whole_server = request.method == "OPTIONS" and not path and not query
    return replace(
        request,
        target="*" if whole_server else (path or "/") + query,
        headers=Headers._known([("Host", host), *fields]),
    )
