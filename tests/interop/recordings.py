"""What servers and clients that take long to set up say in the handshake, byte by byte.

`heavy` compares those of Go, Perl and the JDK with the real ones. Jetty's is as the source of its
version 12 has it, and Kubernetes' as its exec endpoint is known to answer.

``{accept}`` stands for what the key of the request asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.interop.messages import TEN_BYTES
from tests.interop.scenarios import NAME, OFFER

#: The message that servers are sent twice, and echo.
MESSAGE = TEN_BYTES * 200

#: The two echoes of those that use zlib, or the same code in Java, and keep what they know.
_FRAMES_OF_ZLIB = (
    bytes.fromhex("c11e3abcf251d39a0ff36734241e1e658db24659a3ac51d6286b943544590000"),
    bytes.fromhex("c1121a658db24659a3ac51d6286b9435f4590000"),
)
_PLAIN_FRAME = bytes([0x81, 126]) + len(MESSAGE.encode()).to_bytes(2, "big") + MESSAGE.encode()

#: An offer that some refuse, and some give the same answer as `OFFER`.
TOO_MUCH = f"{NAME}; server_max_window_bits=12; client_max_window_bits=12"


@dataclass(frozen=True)
class Server:
    """How a server answers `OFFER`, what it echoes, and, where that differs, how it refuses."""

    answer: bytes
    echoes: tuple[bytes, bytes]
    refusal: bytes | None = None

    def respond(self, offer: str) -> bytes:
        """Its answer to an offer; a refusal to all but one, where it refuses anything."""
        return self.answer if self.refusal is None or offer == OFFER else self.refusal


_GORILLA_FRAME = bytes.fromhex(
    "c12fecd4310900000844d1ac361153b8390bb6b089098c600ee16f371f77af73ac365c854407ec802fe0011222e157"
    "090f"
)
_NHOOYR_FRAMES = bytes.fromhex(
    "41193abcf251d39a0ff36734248eb24659a3ac51d6286b9435ca1a0004aa2c00008000"
)

GORILLA_SERVER = Server(
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: {accept}\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
    b"client_no_context_takeover\r\n"
    b"\r\n",
    (_GORILLA_FRAME, _GORILLA_FRAME),
)
NHOOYR_SERVER = Server(
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-Websocket-Accept: {accept}\r\n"
    b"Sec-Websocket-Extensions: permessage-deflate; client_no_context_takeover; "
    b"server_no_context_takeover\r\n"
    b"Upgrade: websocket\r\n"
    b"\r\n",
    (_NHOOYR_FRAMES, _NHOOYR_FRAMES),
    b"HTTP/1.1 400 Bad Request\r\n"
    b"Connection: Upgrade\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Sec-Websocket-Accept: {accept}\r\n"
    b"Upgrade: websocket\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
    b"Date: Sat, 28 Nov 2026 08:43:53 GMT\r\n"
    b"Content-Length: 70\r\n"
    b"\r\n"
    b'unsupported permessage-deflate parameter: "server_max_window_bits=12"\n',
)
MOJOLICIOUS_SERVER = Server(
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Connection: Upgrade\r\n"
    b"Date: Sat, 28 Nov 2026 08:33:20 GMT\r\n"
    b"Sec-WebSocket-Accept: {accept}\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
    b"Server: Mojolicious (Perl)\r\n"
    b"Upgrade: websocket\r\n"
    b"\r\n",
    _FRAMES_OF_ZLIB,
)
JETTY_SERVER = Server(
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Server: Jetty(12.0.15)\r\n"
    b"Upgrade: WebSocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: {accept}\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
    b"\r\n",
    _FRAMES_OF_ZLIB,
)
#: Jetty where the application has it name these whatever is offered.
JETTY_SERVER_WITHOUT_TAKEOVER = Server(
    JETTY_SERVER.answer.replace(
        b"deflate\r\n", b"deflate;server_no_context_takeover;client_no_context_takeover\r\n"
    ),
    (_FRAMES_OF_ZLIB[0], _FRAMES_OF_ZLIB[0]),
)
WS_SERVER_OF_15_BITS = Server(
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: {accept}\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=15\r\n"
    b"\r\n",
    _FRAMES_OF_ZLIB,
    b"HTTP/1.1 400 Bad Request\r\n"
    b"Connection: close\r\n"
    b"Content-Type: text/html\r\n"
    b"Content-Length: 55\r\n"
    b"\r\n"
    b"Invalid or unacceptable Sec-WebSocket-Extensions header",
)
KUBERNETES_SERVER = Server(
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: {accept}\r\n"
    b"Sec-WebSocket-Protocol: \r\n"
    b"\r\n",
    (_PLAIN_FRAME, _PLAIN_FRAME),
)


@dataclass(frozen=True)
class Client:
    """How a client asks, with `KEY` for its key, and the one answer to its offer that it takes."""

    request: bytes
    extensions: str | None


KEY = "dGhlIHNhbXBsZSBub25jZQ=="

GORILLA_CLIENT = Client(
    b"GET /text HTTP/1.1\r\n"
    b"Host: 127.0.0.1:43295\r\n"
    b"User-Agent: Go-http-client/1.1\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
    b"client_no_context_takeover\r\n"
    b"Sec-WebSocket-Key: {key}\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Upgrade: websocket\r\n"
    b"\r\n",
    f"{NAME}; server_no_context_takeover; client_no_context_takeover",
)
NHOOYR_CLIENT = Client(
    b"GET /text HTTP/1.1\r\n"
    b"Host: 127.0.0.1:45829\r\n"
    b"User-Agent: Go-http-client/1.1\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-Websocket-Extensions: permessage-deflate; client_no_context_takeover; "
    b"server_no_context_takeover\r\n"
    b"Sec-Websocket-Key: {key}\r\n"
    b"Sec-Websocket-Version: 13\r\n"
    b"Upgrade: websocket\r\n"
    b"Accept-Encoding: gzip\r\n"
    b"\r\n",
    f"{NAME}; server_no_context_takeover; client_no_context_takeover",
)
MOJOLICIOUS_CLIENT = Client(
    b"GET /text HTTP/1.1\r\n"
    b"Accept-Encoding: gzip\r\n"
    b"Connection: Upgrade\r\n"
    b"Host: 127.0.0.1:36775\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
    b"Sec-WebSocket-Key: {key}\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Upgrade: websocket\r\n"
    b"User-Agent: Mojolicious (Perl)\r\n"
    b"\r\n",
    NAME,
)
JDK_CLIENT = Client(
    b"GET /text HTTP/1.1\r\n"
    b"Connection: Upgrade\r\n"
    b"Content-Length: 0\r\n"
    b"Host: 127.0.0.1:42437\r\n"
    b"Upgrade: websocket\r\n"
    b"User-Agent: Java-http-client/17.0.15\r\n"
    b"Sec-WebSocket-Key: {key}\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n",
    None,
)
