"""Bytes in every wrapping that Python has, wherever the library takes bytes."""

from __future__ import annotations

import array
import ctypes
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trio

from tests.helpers import FIN, PING, PONG, echo, open_pair, open_server_with_raw_client
from trio_ws import Response, WebSocket, open_broadcast
from trio_ws._buffer import bytes_of
from trio_ws.testing import open_test_app

NUMBERS = list(range(12))
WHAT = "this is a buffer"


def make_mmap() -> mmap.mmap:
    area = mmap.mmap(-1, 96)
    area[:] = array.array("Q", NUMBERS).tobytes()
    return area


#: Each is the numbers from 0 to 11 as items of eight bytes, in this order.
BUFFERS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: array.array("Q", NUMBERS).tobytes(),
    "bytearray": lambda: bytearray(array.array("Q", NUMBERS)),
    "array.array": lambda: array.array("Q", NUMBERS),
    "mmap": make_mmap,
    "ctypes": lambda: (ctypes.c_uint64 * 12)(*NUMBERS),
    "a view of items": lambda: memoryview(array.array("Q", NUMBERS)),
    "a view of two dimensions": lambda: (
        memoryview(array.array("Q", NUMBERS)).cast("B").cast("Q", (3, 4))
    ),
    "a view of every other item": lambda: memoryview(
        array.array("Q", [number // 2 for number in range(24)])
    )[::2],
    "an ndarray": lambda: np.arange(12, dtype="u8"),
    "an ndarray of two dimensions": lambda: np.arange(12, dtype="u8").reshape(3, 4),
    "an ndarray in columns": lambda: np.asfortranarray(np.arange(12, dtype="u8").reshape(3, 4)),
    "a slice of an ndarray": lambda: np.arange(12, dtype="u8").repeat(2).reshape(12, 2)[:, 0],
    "an ndarray's view backwards": lambda: np.arange(11, -1, -1, dtype="u8")[::-1],
}

EXPECTED = array.array("Q", NUMBERS).tobytes()

each_buffer = pytest.mark.parametrize("make", BUFFERS.values(), ids=list(BUFFERS))


@each_buffer
def test_the_bytes_of_a_buffer_are_those_of_its_items(make: Callable[[], Any]) -> None:
    assert bytes_of(make(), WHAT) == EXPECTED


@each_buffer
async def test_every_buffer_can_be_sent_in_every_way(make: Callable[[], Any]) -> None:
    async with open_pair() as (ws, peer):
        await ws.send(make())
        ws.send_nowait(make())
        async with ws.open_message("binary") as writer:
            await writer.send(make())
        async with open_broadcast() as broadcast:
            with broadcast.subscribe(ws, "t"):
                assert broadcast.publish(make(), "t") == 1
        for _ in range(4):
            assert await peer.receive() == EXPECTED


@each_buffer
async def test_a_ping_holds_the_bytes_of_any_buffer(make: Callable[[], Any]) -> None:
    async with open_server_with_raw_client() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.ping, make())
        assert await peer.receive_frame() == (FIN | PING, EXPECTED)
        await peer.send_frame(PONG, EXPECTED)
        await peer.send_close(1000)


@each_buffer
async def test_a_body_is_made_of_the_bytes_of_any_buffer(make: Callable[[], Any]) -> None:
    def give_back(request: Any) -> Response:
        return Response(200, body=make())

    assert Response(200, body=make()).body == EXPECTED
    async with open_test_app(echo, process_request=give_back) as app:
        assert (await app.get("/")).body == EXPECTED


async def test_a_ping_counts_bytes_and_not_items() -> None:
    async with open_pair() as (ws, _):
        with pytest.raises(ValueError, match="holds at most 125 bytes, not 800"):
            await ws.ping(memoryview(array.array("Q", range(100))))
        with pytest.raises(ValueError, match="holds at most 125 bytes, not 126"):
            await ws.ping(memoryview(bytes(126)).cast("B", (2, 63)))
        assert await ws.ping(memoryview(bytes(125)).cast("B", (5, 25))) >= 0


async def test_a_sent_message_does_not_change_with_its_array() -> None:
    numbers: Any = np.zeros(4, dtype="u1")
    async with open_pair() as (ws, peer):
        await ws.send(numbers)
        numbers[:] = 7
        assert await peer.receive() == bytes(4)


async def send(ws: WebSocket, data: Any) -> None:
    await ws.send(data)


async def send_without_waiting(ws: WebSocket, data: Any) -> None:
    ws.send_nowait(data)


async def ping(ws: WebSocket, data: Any) -> None:
    await ws.ping(data)


WAYS = pytest.mark.parametrize("give", [send, send_without_waiting, ping])


@WAYS
@pytest.mark.parametrize("wrong", [5, [1, 2], {"a": 1}, object(), array])
async def test_what_has_no_bytes_is_a_type_error_that_says_so(give: Any, wrong: Any) -> None:
    async with open_pair() as (ws, _):
        with pytest.raises(TypeError, match=f"a buffer.*, not {type(wrong).__name__}$"):
            await give(ws, wrong)


@WAYS
async def test_an_array_of_objects_does_not_show_their_addresses(give: Any) -> None:
    async with open_pair() as (ws, _):
        with pytest.raises(TypeError, match="not an array of Python objects"):
            await give(ws, np.array([None, "x"], dtype=object))


@WAYS
async def test_a_buffer_that_is_closed_is_a_value_error(give: Any) -> None:
    area = make_mmap()
    area.close()
    view = memoryview(b"x")
    view.release()
    async with open_pair() as (ws, _):
        for gone in (area, view):
            with pytest.raises(ValueError, match=r"closed|released"):
                await give(ws, gone)


async def test_a_text_counts_towards_the_threshold_of_compression_in_bytes() -> None:
    async with open_pair() as (ws, _):
        await ws.send("x" * 600)
        assert ws.statistics().compression_sent is None
        await ws.send("é" * 600)  # 1200 bytes, and the threshold is 1024
        assert ws.statistics().compression_sent is not None


async def test_a_published_text_counts_towards_the_threshold_in_bytes() -> None:
    async with open_pair() as (ws, _), open_broadcast() as broadcast:
        with broadcast.subscribe(ws, "t"):
            broadcast.publish("x" * 600, "t")
            assert ws.statistics().compression_sent is None
            broadcast.publish("é" * 600, "t")
            assert ws.statistics().compression_sent is not None
