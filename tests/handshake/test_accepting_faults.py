"""The server's side of the opening handshake: clients that leave, and streams that fail."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

import trio_ws
from tests.conftest import run_autojumped
from tests.handshake.handshake_helpers import (
    HookedStream,
    memory_server,
    parse_response,
    plain_request,
    read_all,
)
from tests.handshake.requests import GOOD, REFUSED
from tests.helpers import close_frame, echo
from tests.mistakes import fail
from trio_ws import (
    ConnectionFailed,
    ConnectionLost,
    ConnectionRejected,
    HandshakeTimeout,
    InvalidRequest,
    Response,
)


@pytest.mark.parametrize("data", [b"", GOOD[:1], GOOD[:-1], GOOD, REFUSED["no Host"][0]])
async def test_a_client_that_hangs_up_in_the_middle_does_no_harm(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with memory_server() as server:
        stream = server.connect()
        if data:
            await stream.send_all(data)
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await server.serves()
    assert not caplog.records


async def test_a_client_that_resets_in_the_middle_does_no_harm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with trio.open_nursery() as nursery:
        server: trio_ws.WebSocketServer = await nursery.start(
            trio_ws.serve_websocket, echo, "127.0.0.1", 0
        )
        for data in (b"", GOOD[:9], GOOD, REFUSED["no Host"][0]):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            if data:
                await stream.send_all(data)
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await stream.aclose()  # which sends RST instead of FIN
        async with trio_ws.open_websocket("127.0.0.1", server.port) as websocket:
            await websocket.send("still there?")
            assert await websocket.receive() == "still there?"
        await server.aclose()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_client_that_reads_no_refusal_is_left_after_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with memory_server() as server, server.connect() as stream:
        started = trio.current_time()
        await stream.send_all(REFUSED["no Host"][0])
        await read_all(stream)
        while True:  # it goes on sending instead of hanging up
            try:
                await stream.send_all(b"x" * 1000)
            except trio.BrokenResourceError:
                break
            await trio.sleep(0.1)
        assert trio.current_time() - started == pytest.approx(1, abs=0.2)


async def serve_one(stream: trio.abc.Stream, **options: Any) -> None:
    async with trio_ws.wrap_server_stream(stream, **options) as websocket:
        await echo(websocket)


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        (REFUSED["no Host"][0], {}, InvalidRequest),
        (GOOD, {"origins": []}, InvalidRequest),
        (GOOD, {"process_request": lambda asked: Response(403)}, ConnectionRejected),
        (GOOD, {"process_request": fail}, ConnectionRejected),
        (GOOD[:-1], {"open_timeout": 3}, HandshakeTimeout),
    ],
)
async def test_over_one_stream_a_refusal_is_raised_after_it_was_sent(
    data: bytes,
    options: dict[str, Any],
    error: type[Exception],
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, stream = trio.testing.memory_stream_pair()
    await client.send_all(data)
    with pytest.raises(error) as caught:
        await serve_one(stream, **options)
    answer = await read_all(client)
    if error is HandshakeTimeout:
        assert answer == b""
    else:
        assert parse_response(answer).status == caught.value.response.status  # type: ignore[attr-defined] # of both others


async def test_over_one_stream_a_client_that_leaves_is_a_failed_connection() -> None:
    client, stream = trio.testing.memory_stream_pair()
    await client.aclose()
    with pytest.raises(ConnectionFailed, match="the peer hung up in the handshake"):
        await serve_one(stream)


@pytest.mark.parametrize("data", [GOOD, REFUSED["no Host"][0], plain_request()])
async def test_whichever_operation_fails_the_error_is_a_documented_one(data: bytes) -> None:
    for failing in itertools.count(1):
        client, inner = trio.testing.memory_stream_pair()
        await client.send_all(data + close_frame(1000))
        await client.send_eof()

        def hook(number: int, failing: int = failing) -> None:
            if number == failing:
                raise trio.BrokenResourceError("pulled out")

        stream = HookedStream(inner, hook)
        try:
            await serve_one(stream)
        except (ConnectionFailed, InvalidRequest):
            pass
        assert stream.closed
        if stream.operations < failing:
            break


@pytest.mark.parametrize("data", [GOOD, REFUSED["no Host"][0], plain_request()])
async def test_wherever_it_is_cancelled_only_cancelled_comes_out_and_the_stream_is_closed(
    data: bytes,
) -> None:
    for moment in itertools.count(1):
        client, inner = trio.testing.memory_stream_pair()
        await client.send_all(data + close_frame(1000))
        await client.send_eof()
        with trio.CancelScope() as scope:

            def hook(number: int, moment: int = moment, scope: trio.CancelScope = scope) -> None:
                if number == moment:
                    scope.cancel()

            stream = HookedStream(inner, hook)
            try:
                await serve_one(stream)
            except InvalidRequest:
                pass
        assert stream.closed
        if stream.operations < moment:
            break


@given(
    st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=40).map(lambda data: data + b"\r\n\r\n"),
        st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=20), st.integers(0, 20)).map(
            lambda cut: GOOD[: cut[0]] + cut[1] + GOOD[cut[0] + cut[2] :]
        ),
    )
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_request_or_a_documented_error(data: bytes) -> None:
    async def main() -> None:
        client, stream = trio.testing.memory_stream_pair()
        await client.send_all(data)
        await client.send_eof()
        with trio.fail_after(9):
            try:
                await serve_one(stream)
            except (InvalidRequest, ConnectionFailed, ConnectionLost):
                pass
            await read_all(client)

    run_autojumped(main)
