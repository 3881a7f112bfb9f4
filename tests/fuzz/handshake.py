"""Bytes to the parser of request heads: a request, or one of the two errors that it documents."""

from __future__ import annotations

from tests.helpers import REQUEST
from trio_ws._http.exchange import (
    MAX_HEAD_BYTES,
    MAX_HEAD_FIELDS,
    HeadBuffer,
    HeadTooLarge,
    MalformedHead,
    ServerExchange,
)
from trio_ws._http.values import Request
from trio_ws._protocol.deflate import Deflate
from trio_ws._protocol.negotiation import server_choice


def one_input(data: bytes) -> None:
    """The first byte says how large the pieces are."""
    if not data:
        return
    step, stream = max(data[0], 1), data[1:]
    whole = _parse([stream])
    cut = _parse([stream[start : start + step] for start in range(0, len(stream), step)])
    # Only a head that is refused may be refused for another reason when more of it is there.
    assert whole == cut or (isinstance(whole, str) and isinstance(cut, str)), f"{whole} or {cut}"


def _parse(pieces: list[bytes]) -> tuple[Request, bytes] | str | None:
    """The request and what comes after it; the kind of error; `None` while it is not whole."""
    buffer = HeadBuffer(ServerExchange.STARTS)
    try:
        for index, piece in enumerate(pieces):
            buffer.feed(piece)
            head = buffer.take()
            if head is None:
                continue
            assert len(head) <= MAX_HEAD_BYTES
            request, version = ServerExchange().request(head, scheme="ws", remote_address=None)
            assert len(request.headers.fields) <= MAX_HEAD_FIELDS
            assert len(version) == 3
            _read_all(request)
            return request, buffer.rest() + b"".join(pieces[index + 1 :])
    except (HeadTooLarge, MalformedHead) as exc:
        return type(exc).__name__
    return None


def _read_all(request: Request) -> None:
    """Every property of a request can be had, whatever the request is."""
    assert isinstance(request.path, str)
    assert isinstance(request.query, str)
    assert isinstance(request.subprotocols, tuple)
    assert request.is_upgrade in (True, False)
    server_choice(request.headers.get("Sec-WebSocket-Extensions", ""), Deflate())


def seeds() -> list[bytes]:
    """The first inputs."""
    extended = REQUEST[:-2] + (
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
        b"Sec-WebSocket-Protocol: a, b\r\nOrigin: https://example.org\r\n\r\nrest"
    )
    return [b"\x07" + request for request in (REQUEST, extended, REQUEST.replace(b"\r", b""))]
