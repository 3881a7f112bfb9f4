"""A handshake of any bytes opens or is one of the documented errors."""

from __future__ import annotations

import h11
import trio
import trio.testing
from hypothesis import given, strategies as st

import trio_ws
from tests.conftest import run_autojumped
from tests.helpers import REQUEST
from tests.protocol.properties import budget, mutated, mutations

LINES = REQUEST.split(b"\r\n")

lines = st.one_of(
    st.sampled_from(LINES),
    st.sampled_from(
        [
            b"",
            b" folded",
            b"Content-Length: 5",
            b"Content-Length: -1",
            b"Transfer-Encoding: chunked",
            b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            b"Sec-WebSocket-Protocol: a, b",
            b"Host: [::1]:80",
            b"Host: xn--\xff",
            b"Origin: https://example.org",
            b"Connection: close",
            b"Expect: 100-continue",
            b"X: " + b"y" * 17_000,
            b"HEAD / HTTP/1.1",
            b"GET * HTTP/1.0",
            b"PRI * HTTP/2.0",
        ]
    ),
    st.binary(max_size=30),
    st.builds(lambda name, value: name + b": " + value, st.binary(max_size=5), st.binary()),
)

requests = st.one_of(
    st.binary(max_size=200),
    st.lists(lines, max_size=12).map(b"\r\n".join),
    st.builds(
        lambda changes: b"\r\n".join(
            [line for index, line in enumerate(LINES[:-2]) if changes.get(index) != b""]
            + [line for line in changes.values() if line]
            + [b"", b""]
        ),
        st.dictionaries(st.integers(0, 8), lines, max_size=3),
    ),
    st.builds(
        lambda changes, rest: mutated([REQUEST], changes) + rest,
        mutations,
        st.binary(max_size=30),
    ),
)


async def shake_hands(data: bytes, *, hang_up: bool) -> tuple[BaseException | None, bytes]:
    """The error of the server, if it did not open the connection, and its answer."""
    theirs, ours = trio.testing.memory_stream_pair()
    error: BaseException | None = None
    answer = bytearray()

    async def read_answer() -> None:
        async for piece in theirs:
            answer.extend(piece)

    with trio.fail_after(60):  # by the clock that jumps
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_answer)
            await theirs.send_all(data)
            if hang_up:
                await theirs.send_eof()
            try:
                async with trio_ws.wrap_server_stream(ours, open_timeout=5) as websocket:
                    await websocket.send("open")
            except (trio_ws.HandshakeError, trio_ws.ConnectionClosed) as exc:
                error = exc
            await theirs.aclose()
            nursery.cancel_scope.cancel()
    return error, bytes(answer)


@budget(400)
@given(requests, st.booleans())
def test_a_handshake_of_any_bytes_opens_or_is_a_handshake_error(data: bytes, hang_up: bool) -> None:
    error, answer = run_autojumped(lambda: shake_hands(data, hang_up=hang_up))
    if isinstance(error, (trio_ws.InvalidRequest, trio_ws.ConnectionRejected)):
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(answer)
        response = reader.next_event()
        assert isinstance(response, h11.Response)
        assert response.status_code == error.response.status
        assert 400 <= response.status_code < 500
    elif isinstance(error, trio_ws.HandshakeError):
        assert type(error) is (trio_ws.ConnectionFailed if hang_up else trio_ws.HandshakeTimeout)
        assert not answer
    else:
        # Bytes after the request may have been wrong, and so ended the connection.
        assert answer.startswith(b"HTTP/1.1 101 ")
