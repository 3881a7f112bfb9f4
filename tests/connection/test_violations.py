"""Violations of the protocol get one Close frame, and nothing more is parsed."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.connection.connection_helpers import collect
from tests.helpers import (
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    TEXT,
    close_code,
    close_frame,
    frame,
    open_client_with_raw_server,
    open_server_with_raw_client,
)
from trio_ws import ConnectionLost, WebSocket

pytestmark = pytest.mark.autojump


VIOLATIONS = {
    "an unknown opcode": (frame(0x3), 1002),
    "an unknown control opcode": (frame(0xB), 1002),
    "RSV1 without an extension": (frame(TEXT, b"x", rsv=4), 1002),
    "RSV2": (frame(TEXT, b"x", rsv=2), 1002),
    "RSV3": (frame(TEXT, b"x", rsv=1), 1002),
    "a frame without a mask": (frame(TEXT, b"x", mask=False), 1002),
    "a fragmented control frame": (frame(PING, b"x", fin=False), 1002),
    "a long control frame": (frame(PING, b"x" * 126), 1002),
    "a continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "a message within a message": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "a length with its top bit set": (bytes([FIN | TEXT, 0xFF]) + b"\x80" + bytes(7), 1002),
    "a length that is not minimal": (bytes([FIN | TEXT, 0xFE, 0, 5]) + bytes(9), 1002),
    "a long length that is not minimal": (bytes([FIN | TEXT, 0xFF]) + bytes(6) + b"\0\5", 1002),
    "a Close with one byte": (frame(CLOSE, b"\x03"), 1002),
    "a Close with bad UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "text that is not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "text that cannot become UTF-8": (frame(TEXT, b"\xf4\x90", fin=False), 1007),
    "text that ends within a character": (frame(TEXT, b"\xc3"), 1007),
    "bad UTF-8 in a later fragment": (
        frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\x28"),
        1007,
    ),
    **{
        f"close code {code}": (close_frame(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize("one_byte_reads", [False, True], ids=["in one segment", "in bytes"])
@pytest.mark.parametrize("what", VIOLATIONS)
async def test_a_violation_gets_exactly_one_close_frame_and_nothing_more_is_parsed(
    what: str, one_byte_reads: bool
) -> None:
    data, code = VIOLATIONS[what]
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_frame(TEXT, b"before")
        if one_byte_reads:
            for byte in data:
                await peer.send(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()
        else:
            await peer.send(data, frame(TEXT, b"after"), frame(PING, b"after"), close_frame(1000))
        assert await ws.receive() == "before"
        with pytest.raises(ConnectionLost) as caught:
            await ws.receive()
        assert caught.value.reason.code == code
        frames = await peer.receive_all_frames()  # ends: FIN was sent
        assert [(first, close_code(payload)) for first, payload in frames] == [(FIN | CLOSE, code)]
        await peer.stream.aclose()


async def _echo_once_slowly(ws: WebSocket) -> None:
    message = await ws.receive()
    await trio.sleep(0.5)
    await ws.send(message)
    with pytest.raises(ConnectionLost):
        await ws.receive()


async def test_a_message_before_a_violation_is_answered_before_the_connection_fails() -> None:
    async with open_server_with_raw_client() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(_echo_once_slowly, ws)
        await peer.send(frame(TEXT, b"right"), frame(0x3))
        assert await peer.receive_frame() == (FIN | TEXT, b"right")
        assert await peer.receive_close() == 1002
        await peer.stream.aclose()


async def test_a_streamed_message_before_a_violation_is_answered() -> None:
    async with open_server_with_raw_client() as (ws, peer), trio.open_nursery() as nursery:

        async def echo_chunks() -> None:
            async with ws.receive_message() as chunks:
                async for chunk in chunks:
                    await ws.send(chunk)
            with pytest.raises(ConnectionLost):
                await collect(ws)

        nursery.start_soon(echo_chunks)
        await peer.send_frame(TEXT, b"ri", fin=False)
        assert await peer.receive_frame() == (FIN | TEXT, b"ri")
        await peer.send(frame(CONTINUATION, b"ght"), frame(0x3))
        assert await peer.receive_frame() == (FIN | TEXT, b"ght")
        assert await peer.receive_close() == 1002
        await peer.stream.aclose()


async def test_a_handler_that_is_busy_does_not_hold_up_a_failure_for_long() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send(frame(TEXT, b"right"), frame(0x3))
        start = trio.current_time()
        assert await ws.receive() == "right"
        assert await peer.receive_close() == 1002
        assert trio.current_time() - start == pytest.approx(1)
        await peer.stream.aclose()


async def test_a_message_that_is_too_big_is_refused_at_once_however_busy_the_handler_is() -> None:
    async with open_server_with_raw_client(max_message_size=1000) as (ws, peer):
        await peer.send(frame(TEXT, b"right"), frame(TEXT, b"x" * 1001))
        assert await ws.receive() == "right"
        start = trio.current_time()
        assert await peer.receive_close() == 1009
        assert trio.current_time() == start
        await peer.stream.aclose()


async def test_keepalive_does_not_get_ahead_of_the_verdict_on_a_violation() -> None:
    async with open_server_with_raw_client(ping_interval=0.2, ping_timeout=0.2) as (ws, peer):
        await peer.send(frame(TEXT, b"right"), frame(0x3))
        await ws.receive()
        assert await peer.receive_close() == 1002
        await peer.stream.aclose()


async def test_a_client_refuses_masked_frames() -> None:
    async with open_client_with_raw_server() as (ws, peer):
        await peer.send_frame(TEXT, b"x", mask=True)
        with pytest.raises(ConnectionLost, match="1002"):
            await ws.receive()
        await peer.stream.aclose()


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4999])
async def test_every_code_that_may_be_sent_is_accepted(code: int) -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_close(code, "why")
        reason = await ws.wait_closed()
        assert (reason.code, reason.reason) == (code, "why")
        first, payload = await peer.receive_frame() or (0, b"")
        assert (first, close_code(payload)) == (FIN | CLOSE, code)
