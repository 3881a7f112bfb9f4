"""Large frames, which are received into place: the same messages however their bytes come."""

from __future__ import annotations

import random
import time
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import pairwise
from math import inf
from typing import Any

import pytest
import trio
import trio.testing

from tests.connection.reading_helpers import BOTH_SIDES
from tests.helpers import (
    BINARY,
    TEXT,
    RawPeer,
    counting_turns,
    frame,
    open_client_with_raw_server,
    open_server_with_raw_client,
    reset,
    socket_pair,
    tcp_pair,
    untraced,
)
from trio_ws import CloseCode, ConnectionLost, WebSocket
from trio_ws._connection.inbox import IncomingMessage
from trio_ws._protocol.events import Fragment

MESSAGES: list[str | bytes] = [
    "plain " * 60_000,
    random.Random(1).randbytes(1_300_000),
    "ü日😀" * 50_000,
    "short",
    "x" * 400_000 + "日" * 100_000,
    b"\x00" * 65_536,
    "x" * 2_200_001,
]


def open_over_socket(
    side: str, **options: Any
) -> AbstractAsyncContextManager[tuple[WebSocket, RawPeer]]:
    opener = open_server_with_raw_client if side == "server" else open_client_with_raw_server
    return opener(streams=socket_pair(), **options)


def frames(side: str) -> bytes:
    return b"".join(
        frame(
            TEXT if isinstance(message, str) else BINARY,
            message.encode() if isinstance(message, str) else message,
            mask=side == "server",
        )
        for message in MESSAGES
    )


@BOTH_SIDES
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decode_text", [True, False])
async def test_however_large_frames_are_cut_the_messages_are_the_same(
    side: str, seed: int, *, decode_text: bool
) -> None:
    rng = random.Random(seed)
    data = frames(side)
    options = {"max_message_size": inf, "decode_text": decode_text}
    async with open_over_socket(side, **options) as (ws, peer):

        async def send() -> None:
            position = 0
            while position < len(data):
                size = rng.choice([1, 5, 1000, 65_536, 300_000, 3_000_000])
                await peer.stream.send_all(data[position : position + size])
                position += size
                if rng.random() < 0.5:
                    await trio.testing.wait_all_tasks_blocked()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for message in MESSAGES:
                expected = (
                    message if decode_text or isinstance(message, bytes) else message.encode()
                )
                if seed % 2 and rng.random() < 0.5:
                    async with ws.receive_message() as chunks:
                        parts = [chunk async for chunk in chunks]
                    assert expected[:0].join(parts) == expected  # type: ignore[arg-type]
                else:
                    assert await ws.receive() == expected
        await peer.send_close(1000)


@BOTH_SIDES
async def test_a_large_text_is_refused_with_the_first_byte_that_is_wrong(side: str) -> None:
    payload = b"x" * 300_000 + b"\xff" + b"x" * 700_000
    data = frame(TEXT, payload, mask=side == "server")
    async with open_over_socket(side, max_message_size=inf) as (ws, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(peer.stream.send_all, data[:500_000]))
            with pytest.raises(ConnectionLost) as caught:
                await ws.receive()
            assert caught.value.reason.code == CloseCode.INVALID_PAYLOAD
            nursery.cancel_scope.cancel()


@BOTH_SIDES
async def test_a_peer_that_leaves_within_a_large_frame_is_noticed(side: str) -> None:
    data = frame(BINARY, bytes(1_000_000), mask=side == "server")
    async with open_over_socket(side) as (ws, peer), trio.open_nursery() as nursery:

        async def send_half() -> None:
            await peer.stream.send_all(data[:500_000])
            await peer.stream.aclose()

        nursery.start_soon(send_half)
        with pytest.raises(ConnectionLost):
            await ws.receive()


@pytest.mark.parametrize("piece", ["x" * 2**20, b"x" * 2**20])
def test_no_step_of_a_growing_message_takes_as_long_as_copying_it(piece: str | bytes) -> None:
    with untraced():
        runs = [step_times(piece) for _ in range(5)]
    # Where the machine is busy, any step may have bad luck with the processor's cache, but the same
    # one will not have it each time.
    *steps, copying = [min(times) for times in zip(*runs, strict=True)]
    assert max(steps) < 0.6 * copying


def step_times(piece: str | bytes) -> list[float]:
    """The processor time of each step, and in the end that of copying the message."""
    incoming = IncomingMessage()
    times = [time.thread_time()]
    for number in range(64):
        incoming.add(Fragment(piece, final=number == 63))
        times.append(time.thread_time())
    whole = incoming.whole()
    times.append(time.thread_time())
    copy = whole[:-1]
    times.append(time.thread_time())
    assert len(whole) == len(copy) + 1 == 64 * 2**20
    return [end - start for start, end in pairwise(times)]


def test_a_text_that_drips_in_is_held_in_few_pieces_and_counted() -> None:
    incoming = IncomingMessage()
    for _ in range(5000):
        incoming.add(Fragment("ab", final=False))
        assert len(incoming.pieces) <= 8
    incoming.add(Fragment("日", final=True))
    assert incoming.whole() == "ab" * 5000 + "日"
    assert incoming.bytes_held == incoming.whole().__sizeof__()


@BOTH_SIDES
async def test_a_frame_that_fills_its_place_again_and_again_lets_others_run(
    side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_ws._connection.reader.PLACE_SIZE", 4096)
    async with open_over_socket(side) as (ws, peer), counting_turns() as turns:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(peer.send_frame, BINARY, bytes(1_000_000)))
            assert await ws.receive() == bytes(1_000_000)
        await peer.send_close(1000)
    assert turns.count > 100


@BOTH_SIDES
async def test_a_reset_within_a_large_frame_is_noticed(side: str) -> None:
    opener = open_server_with_raw_client if side == "server" else open_client_with_raw_server
    async with opener(streams=await tcp_pair()) as (ws, peer), trio.open_nursery() as nursery:

        async def send_half() -> None:
            data = frame(BINARY, bytes(1_000_000), mask=side == "server")
            await peer.stream.send_all(data[:300_000])
            await trio.testing.wait_all_tasks_blocked()
            assert isinstance(peer.stream, trio.SocketStream)
            reset(peer.stream)

        nursery.start_soon(send_half)
        with pytest.raises(ConnectionLost):
            await ws.receive()
