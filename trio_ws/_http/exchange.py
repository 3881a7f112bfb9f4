"""HTTP/1.1 without I/O: heads and bodies, to and from bytes.

This module owns what a well-formed HTTP/1.1 head is. h11 parses and writes, but for the plain head
that most WebSockets are asked for with, and the 101 that answers it. The limits are counted here,
because h11 applies its own only to heads that arrive in pieces. There is no I/O here, and nothing
about WebSocket keys, versions or extensions.
"""

from __future__ import annotations

import re

import h11

from .._addresses import TLS, Address
from .._redaction import without_secrets
from .headers import Headers
from .values import Request, Response

#: How large a request or response head may be: in bytes, and in header fields.
MAX_HEAD_BYTES = 16 * 1024
MAX_HEAD_FIELDS = 128


#: A chunked body is given to h11 in pieces of this size, so no trailer section can be larger than
#: two of them. In a longer one, a client could make h11's pattern for a field take seconds: 60 000
#: spaces and a NUL take seven, 1024 take two milliseconds.
_CHUNKED_PIECE = 512


# ---------------------------------------------------------------------------
# From bytes to a head
# ---------------------------------------------------------------------------


class HeadTooLarge(Exception):
    """The head goes on after `MAX_HEAD_BYTES`, or has more than `MAX_HEAD_FIELDS` fields."""


class StartLineTooLong(HeadTooLarge):
    """Its first line alone goes on after `MAX_HEAD_BYTES`."""


class MalformedHead(Exception):
    """What arrives is not an HTTP/1.x head of the kind that was expected."""


class SpeaksTLS(MalformedHead):
    """It is TLS instead."""


# h11 ends lines at LF and at CRLF, so the end of the head has to be found in the same way. If the
# two did not agree, what h11 took for the head and what is kept for later would overlap.
_END_OF_HEAD = re.compile(rb"\n\r?\n")

# Control characters, and a CR that ends no line. h11 lets most of them pass. It refuses others, but
# its pattern for a header line takes half a second if they follow 16 KiB of spaces.
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")

#: How many characters of a peer's mistake are quoted, in the response and in the log.
_MAX_QUOTE = 120


#: How a TLS handshake or alert begins: its type, and the first half of a version.
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")

_EMPTY_LINES = re.compile(rb"(?:\r?\n)+")


def after_empty_lines(data: bytes) -> bytes:
    """`data` without the empty lines before a request.

    Some clients send one after a body (RFC 9112 section 2.2).
    """
    found = _EMPTY_LINES.match(data)
    return data[found.end() :] if found else data


class HeadBuffer:
    """Collects bytes until they hold a whole head. The rest is kept for what comes next.

    Several heads in a row share the limit in bytes. Responses may be announced by others (RFC 9110
    section 15.2), and a server could otherwise go on announcing for ever.

    Args:
        starts: a pattern for how every head of the expected kind starts. Bytes that cannot match it
            any more are refused at once, rather than after 16 KiB or 10 s. What its first group
            matches is passed over, and counts like the rest.
    """

    def __init__(self, starts: re.Pattern[bytes]) -> None:
        self._starts = starts
        self._data = bytearray()
        self._searched = 0
        self._allowed = MAX_HEAD_BYTES

    def feed(self, data: bytes) -> None:
        self._data += data

    def take(self) -> bytes | None:
        """The head, up to and including its empty line, or `None` while more has to come.

        Raises:
            HeadTooLarge: it is over a limit, complete or not.
            StartLineTooLong: its first line alone is.
            MalformedHead: no head starts like this; `SpeaksTLS` if TLS does.
        """
        if self._data:
            start = self._starts.match(self._data)
            if start is None:
                if self._data.startswith(_TLS_RECORDS):
                    raise SpeaksTLS("this is TLS, and not HTTP")
                raise MalformedHead("this is not HTTP")
            if start.end(1):
                self._pass_over(start.end(1))
        # Each byte is searched once, or a head of 16 KiB that arrives byte by byte would take
        # quadratic time. The last two may be the first half of its end.
        end = _END_OF_HEAD.search(self._data, self._searched)
        self._searched = max(0, len(self._data) - 2)
        size = end.end() if end else len(self._data)
        if size > self._allowed:
            in_lines = b"\n" in self._data[: self._allowed]
            kind = HeadTooLarge if in_lines else StartLineTooLong
            raise kind(f"the head is larger than {MAX_HEAD_BYTES} bytes")
        if end is None:
            return None
        head = bytes(self._data[:size])
        del self._data[:size]
        self._allowed -= size
        self._searched = 0
        if head.count(b"\n") - 2 > MAX_HEAD_FIELDS:
            raise HeadTooLarge(f"the head has more than {MAX_HEAD_FIELDS} fields")
        return head

    def _pass_over(self, size: int) -> None:
        del self._data[:size]
        self._searched = 0
        self._allowed -= size
        if self._allowed < 0:
            raise MalformedHead("there is nothing in it but empty lines")

    def rest(self) -> bytes:
        """What came after the last head."""
        return bytes(self._data)


def _parse(connection: h11.Connection, head: bytes) -> object:
    """Let h11 parse a whole head.

    Raises:
        MalformedHead: it is not well-formed HTTP/1.x.
    """
    if _CONTROL.search(head):
        raise MalformedHead("it holds a control character")
    try:
        connection.receive_data(head)
        return connection.next_event()
    except h11.RemoteProtocolError as exc:
        raise MalformedHead(without_secrets(str(exc))[:_MAX_QUOTE]) from None


# The form of nearly every request for a WebSocket: nothing in it needs a judge. A line ends at
# CRLF, a name is a token, one space follows its colon, and a value is visible ASCII with spaces
# inside. No part of it can match in two ways, so the time is linear. h11 would take five times as
# long.
_PLAIN = re.compile(
    rb"GET (/[\x21-\x7e]*+) HTTP/1\.1\r\n"
    rb"((?:[-!#$%&'*+.^_`|~0-9A-Za-z]++: (?! )[\x20-\x7e]++(?<! )\r\n)++)\r\n"
)


def _take_plain(head: bytes) -> tuple[str, Headers] | None:
    """The target and the fields of such a head; `None` if h11 is to judge it.

    h11 demands one Host, and judges the fields that say how long a body is. The response to what is
    not for a WebSocket is up to h11 as well, so that would only be read twice.
    """
    found = _PLAIN.fullmatch(head)
    if found is None:
        return None
    target, lines = found[1].decode("ascii"), found[2].decode("ascii")
    headers = Headers._plain(lines)
    asks = "Sec-WebSocket-Key" in headers and len(headers.get_all("Host")) == 1
    has_body = "Content-Length" in headers or "Transfer-Encoding" in headers
    return (target, headers) if asks and not has_body else None


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.fields]


# ---------------------------------------------------------------------------
# The server's side of one exchange
# ---------------------------------------------------------------------------


#: The library alone says where a response ends: an application's own field could contradict.
_FRAMING = {"connection", "content-length", "transfer-encoding"}


class ServerExchange:
    """One request and its response."""

    #: A method is a token. So the first byte shows a TLS greeting on a plain port.
    STARTS = re.compile(rb"((?:\r?\n)*)(?:\r?\Z|[-!#$%&'*+.^_`|~0-9A-Za-z])")

    def __init__(self) -> None:
        self._connection: h11.Connection | None = None
        #: A head that h11 has not seen, because it needed no judge.
        self._head = b""
        self._wants_body = True
        self._is_chunked = False
        #: How many chunks the request's body had so far.
        self.chunks = 0

    def request(
        self,
        head: bytes,
        *,
        scheme: str,
        remote_address: Address,
        local_address: Address = None,
        tls: TLS | None = None,
    ) -> tuple[Request, str]:
        """The request in `head`, and its HTTP version.

        Raises:
            MalformedHead: it is not well-formed HTTP/1.x.
        """
        plain = _take_plain(head)
        if plain is not None:
            self._head = head
            request = Request("GET", *plain, scheme, remote_address, b"", local_address, tls)
            return request, "1.1"
        event = _parse(self._h11, head)
        assert isinstance(event, h11.Request)  # anything else was an error
        request = Request(
            method=event.method.decode("ascii"),
            target=event.target.decode("latin-1"),
            headers=Headers._parsed(event.headers.raw_items()),
            scheme=scheme,
            remote_address=remote_address,
            local_address=local_address,
            tls=tls,
        )
        self._wants_body = request.method != "HEAD"
        self._is_chunked = "Transfer-Encoding" in request.headers
        return request, event.http_version.decode("ascii")

    @property
    def _h11(self) -> h11.Connection:
        """What judges and writes, made when it is first needed: most WebSockets never need it."""
        if self._connection is None:
            # Heads are given to it whole. The limit is for what stands between a body's chunks.
            self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_CHUNKED_PIECE)
            if self._head:
                _parse(self._connection, self._head)
        return self._connection

    def switching_protocols(self, headers: Headers) -> bytes:
        """The bytes of a 101 response (RFC 6455 section 4.2.2)."""
        # Without h11: its checks, which `Headers` has made already, would take a third of the
        # handshake's time.
        lines = [f"{name}: {value}\r\n" for name, value in headers.fields]
        return f"HTTP/1.1 101 Switching Protocols\r\n{''.join(lines)}\r\n".encode("latin-1")

    # The body of the request…

    @property
    def waits_for_continue(self) -> bool:
        """Whether the client sends the body only after `continue_` (RFC 9110 section 10.1.1)."""
        return self._h11.they_are_waiting_for_100_continue

    def continue_(self) -> bytes:
        """The bytes of a 100 response."""
        return self._send(h11.InformationalResponse(status_code=100, headers=[]))

    @property
    def piece_size(self) -> int:
        """How many bytes to give `body` at a time; 0 for any number."""
        return _CHUNKED_PIECE if self._is_chunked else 0

    def body(self, data: bytes = b"") -> tuple[bytes, bytes | None]:
        """The part of the request's body in `data`, and the bytes after the body.

        The latter is `None` while the body goes on. Without data, the call tells whether there is a
        body.

        Raises:
            MalformedHead: `data` contradicts the head, or its chunks are malformed.
        """
        body = b""
        if data:  # h11 takes no bytes for the end of the stream
            self._h11.receive_data(data)
        try:
            while isinstance(event := self._h11.next_event(), h11.Data):
                body += event.data
                self.chunks += event.chunk_start
        except h11.RemoteProtocolError as exc:
            raise MalformedHead(without_secrets(str(exc))[:_MAX_QUOTE]) from None
        return body, None if event is h11.NEED_DATA else self._h11.trailing_data[0]

    # The response…

    def response(self, response: Response, defaults: Headers, *, close: bool = True) -> bytes:
        """The bytes of any response but 101."""
        data = self.response_head(response, len(response.body), defaults, close=close)
        if self._wants_body:
            data += self.response_data(response.body)
        return data + self.end()

    def response_head(
        self, response: Response, length: int, defaults: Headers, *, close: bool
    ) -> bytes:
        """The bytes of a response up to its body, which will have `length` bytes.

        Of `defaults`, those fields are added that the response does not have itself. h11 adds
        ``Connection: close`` if the client asked for that, or speaks HTTP/1.0.
        """
        # Clients, which need it for nothing, would take 4 ms to load it.
        from email.utils import formatdate  # noqa: PLC0415

        headers = response.headers.with_defaults(defaults)
        # Connection has to name an Upgrade field, or proxies may pass it on (RFC 9110 section 7.8).
        tokens = [*(["close"] if close else []), *(["Upgrade"] if "Upgrade" in headers else [])]
        fields = [("Connection", ", ".join(tokens))] if tokens else []
        if "Date" not in headers:
            fields.append(("Date", formatdate(usegmt=True)))
        if response.status not in (204, 304):
            fields.append(("Content-Length", str(length)))
        fields += [pair for pair in headers.fields if pair[0].lower() not in _FRAMING]
        return self._send(
            h11.Response(
                status_code=response.status,
                headers=_encoded(Headers(fields)),
                reason=response.phrase.encode("ascii"),
            )
        )

    def response_data(self, data: bytes) -> bytes:
        return self._send(h11.Data(data=data))

    def end(self) -> bytes:
        return self._send(h11.EndOfMessage())

    @property
    def wants_body(self) -> bool:
        """False for HEAD: the response is a head alone, which says what would follow it."""
        return self._wants_body

    @property
    def may_be_followed(self) -> bool:
        """Whether both sides are done with this exchange, and neither said to close."""
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    def _send(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""


# ---------------------------------------------------------------------------
# The client's side of one exchange
# ---------------------------------------------------------------------------


class ClientExchange:
    """One request without a body, the heads that answer it, and the body of a refusal."""

    STARTS = re.compile(rb"()H(T(T(P(/|\Z)|\Z)|\Z)|\Z)")

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)

    def request(self, target: str, headers: Headers, method: str = "GET") -> bytes:
        """The bytes of the request.

        After a CONNECT, a response that agrees has no body, whatever its fields say (RFC 9110
        section 9.3.6).
        """
        head = self._h11.send(h11.Request(method=method, target=target, headers=_encoded(headers)))
        self._h11.send(h11.EndOfMessage())
        return head or b""

    def response(self, head: bytes) -> tuple[Response, str]:
        """The response in `head`, still without its body, and its HTTP version.

        Raises:
            MalformedHead: it is not a response to this request.
        """
        event = _parse(self._h11, head)
        assert isinstance(event, (h11.InformationalResponse, h11.Response))  # as above
        response = Response(event.status_code, Headers._parsed(event.headers.raw_items()))
        return response, event.http_version.decode("ascii")

    def body(self, data: bytes | None) -> tuple[bytes, bool]:
        """The part of the refusal's body in `data`, and whether that was the last.

        Pass ``b""`` for the end of file, and `None` if nothing came yet: there may be no body at
        all. A body that breaks off or is malformed counts as ended.
        """
        pieces: list[bytes] = []
        try:
            if data is not None:
                self._h11.receive_data(data)
            while isinstance(event := self._h11.next_event(), h11.Data):
                pieces.append(bytes(event.data))
        except h11.RemoteProtocolError:
            return b"".join(pieces), True
        return b"".join(pieces), event is not h11.NEED_DATA
