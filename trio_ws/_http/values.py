"""Requests and responses as values, and what a hook may answer.

This module owns what an application sees of HTTP. It knows nothing of streams, or of how a head is
written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from http import HTTPStatus
from types import EllipsisType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, final
from urllib.parse import unquote

from .._addresses import TLS, Address
from .._buffer import bytes_of
from .._errors import HandshakeError
from .._json import from_json, to_json
from .._redaction import first_words
from .context import Context
from .headers import Headers, HeadersLike, has_token, is_token, retry_after
from .query import QueryParams

if TYPE_CHECKING:
    from typing_extensions import Buffer


T = TypeVar("T")

#: How much of a rejecting response's body a client keeps.
MAX_BODY_BYTES = 64 * 1024


@final
@dataclass(frozen=True)
class Request:
    """An HTTP request, as a server got it or a client sent it. Immutable, except for its `context`.

    Attributes:
        method: ``"GET"`` for every WebSocket.
        target: the path and query exactly as sent, percent-encoding included. If a whole URL was
            sent (RFC 9112 section 3.2.2), its path and query are here, and its host and port are in
            the Host header. ``OPTIONS`` may have ``*``, which means the server.
        headers: the header fields.
        scheme: ``"ws"``, or ``"wss"`` over TLS; ``"http"`` or ``"https"`` if the request is not for
            a WebSocket.
        remote_address: the other end of the stream. Behind a proxy that is the proxy; but if it is
            one of `trusted_proxies`, it is the client, with port 0 if the port is not known.
        body: the body, for the endpoints of a `Router`. Hooks are called before it is read, and
            WebSockets have none.
        local_address: this end of the stream: of a server's addresses and ports, for example, the
            one that the client connected to. Behind a proxy, the one that the proxy connected to.
        tls: the TLS that it came over, to be asked for the client's certificate, the cipher and the
            like; `None` without. See `WebSocket.tls`.
    """

    method: str
    target: str
    headers: Headers
    scheme: str = "ws"
    remote_address: Address = None
    body: bytes = field(default=b"", repr=False)
    local_address: Address = None
    tls: TLS | None = field(default=None, repr=False, compare=False)

    @property
    def path(self) -> str:
        """The path, percent-decoded as UTF-8. Never use it as a file name unchecked."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> str:
        """The text after the ``?``, as sent; `query_params` takes it apart."""
        return self.target.partition("?")[2]

    @property
    def query_params(self) -> QueryParams:
        """The names and values in the query, decoded."""
        return QueryParams(self.query)

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """The subprotocols that the client offers, the preferred one first.

        A token that `subprotocol_token` has found is not among them.
        """
        offered = self.headers.tokens("Sec-WebSocket-Protocol")
        prefixes = self.context.get(_TokenPrefixes) if offered else None
        if prefixes is None:
            return offered
        return tuple([name for name in offered if not name.startswith(tuple(prefixes))])

    def subprotocol_token(self, prefix: str) -> str | None:
        """The token that the client has put among the subprotocols, without its `prefix`.

        A page cannot set headers of its WebSocket, but it can offer subprotocols, and one of them
        may be a token: ``new WebSocket(url, ["chat", "bearer." + token])``. The prefix tells it
        from the others, upper and lower case included. What begins with it is none of
        `subprotocols` from then on, so that it is neither chosen nor sent back.

        Browsers fail the connection if the server chooses none of what they offer. So have the page
        offer a real subprotocol, too, and list it in the option `subprotocols`.

        Returns:
            `None` if there is none. A token has only the characters of a subprotocol's name, as a
            JSON Web Token and unpadded base64url do: no ``=``, ``/`` or comma.

        Raises:
            ValueError: the prefix is empty, or cannot begin a subprotocol's name.
        """
        if not is_token(prefix):
            raise ValueError(f"{prefix!r} cannot begin the name of a subprotocol")
        offered = self.headers.tokens("Sec-WebSocket-Protocol")
        found = [name.removeprefix(prefix) for name in offered if name.startswith(prefix)]
        if _TokenPrefixes not in self.context:
            self.context[_TokenPrefixes] = _TokenPrefixes()
        self.context[_TokenPrefixes].add(prefix)
        return next(filter(None, found), None)

    @property
    def is_upgrade(self) -> bool:
        """Whether the client asks for a WebSocket, rightly or wrongly, rather than for a page."""
        headers = self.headers
        return "Sec-WebSocket-Key" in headers or has_token(headers, "Upgrade", "websocket")

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies, as sent: neither unquoted nor decoded. The first of each name counts."""
        cookies: dict[str, str] = {}
        for part in ";".join(self.headers.get_all("Cookie")).split(";"):
            name, equals, value = part.partition("=")
            if equals:
                cookies.setdefault(name.strip(), value.strip())
        return cookies

    @cached_property
    def context(self) -> Context:
        """What the application keeps with this request. A WebSocket shares it with its request."""
        return Context()

    @property
    def path_values(self) -> Mapping[str, object]:
        """What the rule of a `Router` captured from the path; empty until the path is matched."""
        return self.context.get(PathValues) or {}

    @property
    def text(self) -> str:
        """The body, as UTF-8.

        Raises:
            InvalidRequest: it is not UTF-8. If this leaves an endpoint, the answer is 400.
        """
        try:
            return self.body.decode()
        except UnicodeDecodeError as exc:
            raise refusal(400, "the body is not UTF-8") from exc

    def json(self) -> Any:
        """The body, parsed as JSON; NaN and infinity are refused.

        Its Content-Type has to be ``application/json``, or some ``…+json``. A page of another site
        can make a browser send any other type without asking the server first.

        Raises:
            InvalidRequest: the body is not JSON, or its Content-Type does not say so. If this
                leaves an endpoint, the answer is 400 or 415.
        """
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise refusal(415, "the body has to be application/json")
        try:
            return from_json(self.text)
        except (ValueError, RecursionError) as exc:
            raise refusal(400, "the body is not JSON") from exc

    def with_body(self, body: bytes) -> Request:
        """The same request with its body, and with the same context."""
        other = replace(self, body=body)
        vars(other)["context"] = self.context
        return other


class _TokenPrefixes(set[str]):
    """What tokens among the subprotocols begin with, as far as hooks have asked for them."""


class PathValues(dict[str, object]):
    """What a rule captured. The type is the key under which a context has it."""


def refusal(status: int, problem: str, **headers: str) -> InvalidRequest:
    """The error for a wrong request, with a response that tells the client what is wrong."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return InvalidRequest(problem, Response(status, fields, problem + "\n"))


def upgrade_required(problem: str) -> InvalidRequest:
    """The refusal of what would be served if it asked for a WebSocket, and asked rightly."""
    # RFC 9110 section 15.5.22 wants the Upgrade field, RFC 6455 section 4.4 the version.
    return refusal(426, problem, Upgrade="websocket", Sec_WebSocket_Version="13")


@dataclass(frozen=True, eq=False)
class Response:
    """An HTTP response. Immutable.

    Args:
        status: 200 to 599 in a response that you make.
        headers: additional fields. Content-Length and Connection are written by the library.
        body: bytes or another buffer, or a `str` that goes out as UTF-8. With a `str`,
            ``Content-Type: text/plain; charset=utf-8`` is added unless `headers` has another.

    Raises:
        ValueError: the status or a header cannot be sent, or the status allows no body.
        TypeError: the status is no `int`, or the body is neither `str` nor a buffer.
    """

    status: int
    headers: Headers = field(default_factory=Headers)
    body: bytes = field(default=b"", repr=False)

    def __init__(self, status: int, headers: HeadersLike = (), body: str | Buffer = b"") -> None:
        checked = Headers(headers)
        if isinstance(body, str):
            if "Content-Type" not in checked:
                checked = Headers([*checked.fields, ("Content-Type", "text/plain; charset=utf-8")])
            body = body.encode()
        content = bytes_of(body, "a body is str or a buffer, such as bytes")
        if not isinstance(status, int):
            raise TypeError(f"an HTTP status is an int, not {status!r}")
        if not 100 <= status <= 999:
            raise ValueError(f"an HTTP status has three digits, unlike {status!r}")
        if content and (status < 200 or status in (204, 304)):
            raise ValueError(f"a response with status {status} has no body (RFC 9110 section 6.4)")
        object.__setattr__(self, "status", int(status))
        object.__setattr__(self, "headers", checked)
        object.__setattr__(self, "body", content)

    @classmethod
    def html(cls, text: str, status: int = 200, headers: HeadersLike = ()) -> Response:
        """A page, in UTF-8."""
        kind = ("Content-Type", "text/html; charset=utf-8")
        return cls(status, [kind, *Headers(headers).fields], text)

    @classmethod
    def json(
        cls,
        value: T,
        status: int = 200,
        headers: HeadersLike = (),
        *,
        dumps: Callable[[T], str | bytes] = to_json,
    ) -> Response:
        """`value` as JSON. `dumps` may give `str` or UTF-8 `bytes`.

        Raises:
            ValueError: `value` holds NaN or an infinity, which are not JSON.
            Exception: anything else that `dumps` raises.
        """
        kind = ("Content-Type", "application/json")
        return cls(status, [kind, *Headers(headers).fields], dumps(value))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Response):
            return NotImplemented
        return self._comparable() == other._comparable()

    def __hash__(self) -> int:
        return hash(self._comparable())

    def _comparable(self) -> tuple[int, Headers, bytes]:
        return self.status, self.headers, self.body

    @property
    def phrase(self) -> str:
        """The standard reason phrase of the status."""
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return "Unknown"


class InvalidRequest(HandshakeError):
    """A client sent something that is no proper WebSocket request.

    Servers answer with `response` and write one line to the log. Only `wrap_server_stream` raises
    this to its caller.
    """

    # So that tracebacks show where it can be imported from, as for the exceptions in `_errors`.
    __module__ = "trio_ws"

    def __init__(self, problem: str, response: Response) -> None:
        super().__init__(problem, response)
        self.problem = problem
        self.response = response

    def __str__(self) -> str:
        return self.problem


class ConnectionRejected(HandshakeError):
    """An HTTP response other than 101 ended the handshake.

    Its text has the URL, the status, where a redirect leads, and the first words of the body, on
    one line.

    Attributes:
        response: on the client, what the server sent, its body cut at 64 KiB or after a second. If
            `wrap_server_stream` raises this, it is the response that this side gave (a page, a
            health check).
        url: what the client asked for, after redirects; `None` on a server. User, password and
            query are left out, because they may hold secrets.
    """

    __module__ = "trio_ws"

    def __init__(self, response: Response, url: str | None = None) -> None:
        super().__init__(response, url)
        self.response = response
        self.url = url

    @property
    def retry_after(self) -> float | None:
        """How many seconds the server asks to be left alone, by its Retry-After field.

        `None` if it does not say, or if what it says is neither a number of seconds nor a date. The
        number is as large as the server likes: put a limit to how long you wait.
        """
        return retry_after(self.response.headers)

    def __str__(self) -> str:
        whose = f" with {self.url}" if self.url is not None else ""
        status = self.response.status
        where = self.response.headers.get("Location", "") if 300 <= status < 400 else ""
        # Without its query, which may hold secrets.
        location = first_words(where.partition("?")[0].encode())
        led = f", a redirect to {location} (see max_redirects)" if location else ""
        words = first_words(self.response.body)
        said = f": {words}" if words else ""
        return f"the handshake{whose} ended with HTTP status {status}{led}{said}"


class ProxyError(HandshakeError):
    """The proxy between this client and the server did not let it through.

    Its text has the problem, the first words of the answer's body, and the proxy with who chose it.
    Where no connection to the proxy comes about at all, that is `ConnectionFailed`.

    Attributes:
        problem: what went wrong: the proxy refused, wants other credentials, cannot reach the
            server, or answered with something that is no proper answer.
        source: who chose the proxy: ``"proxy"`` for the option, or the name of the environment
            variable, ``"HTTPS_PROXY"`` for example.
        proxy: the URL of the proxy, with ``***`` instead of a user and password.
        response: what an HTTP proxy answered, its body cut at 64 KiB or after a second; `None` if
            it gave no answer, or speaks SOCKS.
    """

    __module__ = "trio_ws"

    def __init__(
        self, problem: str, source: str, proxy: str, response: Response | None = None
    ) -> None:
        super().__init__(problem, source, proxy, response)
        self.problem = problem
        self.source = source
        self.proxy = proxy
        self.response = response

    @property
    def retry_after(self) -> float | None:
        """How many seconds the proxy asks to be left alone, as with `ConnectionRejected`."""
        return None if self.response is None else retry_after(self.response.headers)

    def __str__(self) -> str:
        words = first_words(self.response.body) if self.response is not None else ""
        said = f": {words}" if words else ""
        return f"{self.problem}{said} (via {self.source}={self.proxy})"


@final
@dataclass(frozen=True)
class Accept:
    """What `process_request` returns to accept a WebSocket on terms that it chooses.

    Args:
        subprotocol: one that the client offered, or `None` for none at all. If it is left out, the
            option `subprotocols` decides as usual.
        headers: fields for the 101 response, cookies for example, after those of the server.

    Raises:
        TypeError, ValueError: the subprotocol or a header cannot be sent.
    """

    subprotocol: str | EllipsisType | None = ...
    headers: Headers = field(default_factory=Headers)

    def __init__(
        self, subprotocol: str | EllipsisType | None = ..., headers: HeadersLike = ()
    ) -> None:
        if isinstance(subprotocol, str):
            if not is_token(subprotocol):
                raise ValueError(f"{subprotocol!r} is not the name of a subprotocol")
        elif subprotocol is not None and subprotocol is not ...:
            raise TypeError(f"a subprotocol is a str, or None for none, not {subprotocol!r}")
        object.__setattr__(self, "subprotocol", subprotocol)
        object.__setattr__(self, "headers", Headers(headers))


#: What a hook may answer, and everything else that is asked about a request before it is served.
Answer: TypeAlias = Accept | Response | None


def both(first: Accept | None, second: Accept | None) -> Accept | None:
    """The answers of two hooks that accept, as one. The later hook chooses the subprotocol."""
    if first is None or second is None:
        return first or second
    chosen = first.subprotocol if second.subprotocol is ... else second.subprotocol
    return Accept(chosen, [*first.headers.fields, *second.headers.fields])
