"""Bad input, faults and load, measured from outside: rows of docs/maintainers/trust.md.

Most rows are held by the tests of the module in question: that page says which, and a test in
tests/project says that they exist. What is here needs the kernel: a server in a process of its own,
whose memory and CPU time are the system's word and not ours, and another connection that goes on
echoing.

"Flat" is the peak of the server's resident memory, less what it was before: under 4 MiB. "Others"
wait for an echo while the server works for less than 50 ms, by the server's CPU clock: a busy
machine stops any process for longer. The two worst are left out, since this process may be stopped
between looking at that clock and sending. What harms others does so more than twice.

With TRIO_WS_SOAK=1 in the environment, the sizes are the full ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import Any

import pytest
import trio

from tests.helpers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    HOST,
    PING,
    PONG,
    REQUEST,
    TEXT,
    RawPeer,
    close_frame,
    frame,
    open_server_with_raw_client,
)
from tests.whole.server_process import (
    CLOSE_TIMEOUT,
    COMPRESSED,
    MIB,
    SLACK,
    SOAK,
    Server,
    attack,
    flat_and_others_unharmed,
    median,
    receive_status,
    report,
)
from trio_ws import open_websocket_url
from trio_ws._protocol.arriving import PLACE_SIZE

# ---------------------------------------------------------------------------
# Messages
# ---------------------------------------------------------------------------


def gigabyte() -> bytes:
    """DEFLATE data of 1 MiB that inflates to 1 GiB: blocks that refer to nothing before them."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(MIB)) + compressor.flush(zlib.Z_FULL_FLUSH)
    data = block * 1024
    assert MIB * 0.9 < len(data) < MIB * 1.1
    return data


def fragments(opcode: int, data: bytes, size: int, *, rsv: int = 0) -> bytes:
    """The frames of a message in pieces of `size`."""
    frames = [frame(opcode, data[:size], fin=False, rsv=rsv)]
    for start in range(size, len(data), size):
        frames.append(frame(CONTINUATION, data[start : start + size], fin=False))
    return b"".join(frames) + frame(CONTINUATION)


@pytest.mark.parametrize("count", [1, 300])
async def test_a_mebibyte_that_inflates_to_a_gigabyte_is_1009_at_once(
    server: Server, count: int
) -> None:
    data = gigabyte()
    if count == 1:
        # The header must not be what gives it away: its length is within the limit.
        data = data[: MIB - 2]
        bomb = frame(BINARY, data, rsv=COMPRESSED)
    else:
        bomb = fragments(BINARY, data, len(data) // count + 1, rsv=COMPRESSED)
    await attack(await server.connect_compressing(), bomb)
    times: list[float] = []
    async with flat_and_others_unharmed(server):
        for _ in range(9):
            peer = await server.connect_compressing()
            before = server.cpu_time()
            outcome = await attack(peer, bomb)
            times.append(server.cpu_time() - before)
            assert outcome.codes == [1009]
    report(median=f"{median(times) * 1000:.1f} ms")
    assert median(times) < 0.1  # the others' echoes included


async def test_junk_after_the_end_of_compressed_data_is_closed_and_flat(server: Server) -> None:
    compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
    data = compressor.compress(b"Hello") + compressor.flush(zlib.Z_FINISH) + b"\xff" * 20 * MIB
    whole = frame(BINARY, data, rsv=COMPRESSED)
    pieces = fragments(BINARY, data, 65536, rsv=COMPRESSED)
    await attack(await server.connect_compressing(), pieces)
    async with flat_and_others_unharmed(server):
        for junk in (whole, pieces) * 3:
            outcome = await attack(await server.connect_compressing(), junk)
            assert outcome.codes == [1007]


@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "1 byte"])
async def test_a_million_tiny_fragments_are_1009_and_flat(server: Server, payload: bytes) -> None:
    start = frame(TEXT, payload, fin=False)
    flood = frame(CONTINUATION, payload, fin=False) * 1_000_000
    async with flat_and_others_unharmed(server):
        for _ in range(3):
            outcome = await attack(await server.connect(), start + flood)
            assert outcome.codes == [1009]


@pytest.mark.autojump
@pytest.mark.parametrize("payload", [b"", b"x", "😀".encode()[:1]], ids=["empty", "1 byte", "½"])
async def test_tiny_fragments_take_linear_time(payload: bytes) -> None:
    """Without a limit, so that there is something to count: four times as many, four times as long.

    Timed is the CPU, not the clock, and the better of two where they are few.
    """
    small, large = (250_000, 1_000_000) if SOAK else (5_000, 20_000)

    async def cpu_time(count: int) -> float:
        options: dict[str, Any] = {"max_message_size": inf, "max_queued_bytes": inf}
        async with open_server_with_raw_client(**options) as (ws, peer):
            before = time.process_time()
            # Each of the third kind completes a character and begins another.
            tiny = payload if payload in (b"", b"x") else "😀".encode()[1:] + payload
            await peer.send(
                frame(TEXT, payload, fin=False), frame(CONTINUATION, tiny, fin=False) * count
            )
            await peer.send(frame(CONTINUATION, tiny[:3] if payload not in (b"", b"x") else b""))
            assert len(await ws.receive()) == len(payload) + count * (payload != b"")
            spent = time.process_time() - before
            await peer.send_close(1000)
        return spent

    times = {
        count: min([await cpu_time(count) for _ in range(1 if SOAK else 2)])
        for count in (small, large)
    }
    report(times=times)
    assert times[large] < 8 * times[small]


async def test_text_that_is_always_in_the_middle_of_a_character_is_refused_and_flat(
    server: Server,
) -> None:
    text = "😀".encode() * (10 * MIB // 4)
    torn = fragments(TEXT, text, 1001)
    dangling = frame(TEXT, b"\xf0\x9f\x98", fin=False) + frame(CONTINUATION, b"", fin=False) * MIB
    nonsense = fragments(TEXT, b"\xf0\x9f\x98" * (10 * MIB // 3), 1001)
    async with flat_and_others_unharmed(server):
        for data, code in ((torn, 1009), (dangling, 1009), (nonsense, 1007)) * 3:
            outcome = await attack(await server.connect(), data)
            assert outcome.codes == [code]


async def pour_until_blocked(peer: RawPeer, data: bytes) -> int:
    """How many bytes of `data` went out before nothing moved for half a second."""
    sent = 0
    for start in range(0, len(data), 65536):
        with trio.move_on_after(0.5):
            await peer.send(data[start : start + 65536])
            sent += 65536
            continue
        break
    return sent


async def test_a_handler_that_never_reads_makes_a_million_tiny_messages_wait(
    server: Server,
) -> None:
    flood = frame(TEXT, b"x") * 1_000_000
    async with flat_and_others_unharmed(server):
        peer = await server.connect("/never")
        await pour_until_blocked(peer, flood)
        while (statistics := await server.statistics("/never"))["queued_messages"] < 1024:
            await trio.sleep(0.01)
        await peer.stream.aclose()
    # 1024 wait, and nothing behind them was looked at.
    assert statistics["queued_messages"] == statistics["messages_received"] == 1024


async def test_a_handler_that_never_reads_makes_200_mib_of_large_messages_wait(
    server: Server,
) -> None:
    flood = frame(BINARY, bytes(MIB - 100)) * 200
    async with flat_and_others_unharmed(server):
        peer = await server.connect("/never")
        sent = await pour_until_blocked(peer, flood)
        statistics = await server.statistics("/never")
        await peer.stream.aclose()
    report(sent=f"{sent / MIB:.1f} MiB")
    assert sent < 50 * MIB  # what the kernel holds, and the queue
    # One read beyond the limit of the queue, and the room that a growing message has ahead.
    assert statistics["queued_bytes"] <= (256 * 1024 + PLACE_SIZE) * 9 / 8


PINGS = 200_000 if SOAK else 40_000


@pytest.mark.parametrize("reads", [True, False], ids=["pongs read", "pongs not read"])
async def test_a_flood_of_pings_is_flat_and_others_are_unharmed(
    server: Server, reads: bool
) -> None:
    flood = frame(PING, b"x" * 125) * PINGS + frame(TEXT, b"done")
    pongs = 0

    async def read_pongs() -> None:
        nonlocal pongs
        while (received := await peer.stream.receive_some()) and not received.endswith(b"done"):
            pongs += len(received) // 127

    async with flat_and_others_unharmed(server):
        peer = await server.connect("/flood", receive_buffer=None if reads else 4096)
        async with trio.open_nursery() as nursery:
            if reads:
                nursery.start_soon(read_pongs)
            await peer.send(flood)
        while not (statistics := await server.statistics("/flood"))["messages_received"]:
            await trio.sleep(0.01)
        await peer.stream.aclose()
    report(pongs=pongs, unsent=statistics["unsent_bytes"])
    if reads:
        assert pongs > PINGS / 2
    else:
        assert 0 < statistics["unsent_bytes"] <= 64 * 1024 + 127  # `max_send_buffer` and a pong


async def test_pongs_that_nobody_asked_for_are_ignored(server: Server) -> None:
    flood = frame(PONG, b"x" * 125) * PINGS + frame(TEXT, b"still here")
    async with flat_and_others_unharmed(server):
        peer = await server.connect()
        await peer.send(flood)
        assert await peer.receive_frame() == (FIN | TEXT, b"still here")
        await peer.stream.aclose()


@pytest.mark.parametrize("junk", [b"\xff", frame(TEXT, b"x")], ids=["junk", "messages"])
@pytest.mark.parametrize(
    ("end", "code"),
    [(close_frame(1000), 1000), (frame(0x3), 1002), (frame(TEXT, b"\xff"), 1007)],
    ids=["Close", "violation", "bad text"],
)
async def test_whatever_follows_the_end_gets_one_close_frame_and_is_flat(
    server: Server, end: bytes, code: int, junk: bytes
) -> None:
    megabyte = junk * (MIB // len(junk))
    flood = end + megabyte * 100
    async with flat_and_others_unharmed(server):
        outcome = await attack(await server.connect(), flood, and_on=megabyte)
    report(sent=f"{outcome.bytes_sent / MIB:.0f} MiB", gone=f"{outcome.gone:.2f} s")
    assert outcome.codes == [code]
    assert outcome.gone < CLOSE_TIMEOUT + SLACK


@contextmanager
def busy_machine() -> Iterator[None]:
    """Every core has something better to do."""
    burners = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


async def test_messages_in_one_segment_are_answered_every_time_on_a_busy_machine(
    server: Server,
) -> None:
    messages = b"".join(frame(TEXT, str(number).encode()) for number in range(1000))
    rounds = 50 if SOAK else 5

    async def open_with(path: bytes, data: bytes) -> RawPeer:
        peer = RawPeer(await trio.open_tcp_stream(HOST, server.port), masks=True)
        await peer.send(REQUEST.replace(b"/chat", path) + data)
        assert await receive_status(peer) == 101
        return peer

    with busy_machine():
        for _ in range(rounds):
            for before in (b"", messages):
                for end, code in ((close_frame(1000), 1000), (frame(0x3), 1002)):
                    peer = await open_with(b"/count", before + end)
                    assert await peer.receive_all_frames() == [
                        (FIN | CLOSE, code.to_bytes(2, "big") + reason)
                        for reason in [b"" if code == 1000 else b"Invalid opcode 0x3"]
                    ]
                    await peer.stream.aclose()
            peer = await open_with(b"/echo", messages)
            for number in range(1000):
                assert await peer.receive_frame() == (FIN | TEXT, str(number).encode())
            await peer.send_close(1000)
            assert await peer.receive_close() == 1000
            await peer.stream.aclose()
        async with open_websocket_url(f"{server.url}/counted") as ws:
            assert sorted(await ws.receive_json()) == [0] * 2 * rounds + [1000] * 2 * rounds


# ---------------------------------------------------------------------------
# Opening handshake
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"X: " + b"x" * 1000 + b"\r\n", b"x"], ids=["fields", "one"])
async def test_endless_headers_are_431_cut_off_and_flat(server: Server, line: bytes) -> None:
    flood = REQUEST[:-2] + line * (64 * MIB // len(line))
    async with flat_and_others_unharmed(server):
        for _ in range(3):
            before = server.cpu_time()
            peer = RawPeer(await trio.open_tcp_stream(HOST, server.port), masks=True)
            with suppress(trio.BrokenResourceError):
                await peer.send(flood)
            with suppress(trio.BrokenResourceError):
                assert await receive_status(peer) == 431
            await peer.stream.aclose()
            report(cpu=f"{server.cpu_time() - before:.2f} s")
