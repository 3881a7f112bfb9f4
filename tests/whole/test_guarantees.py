"""The guarantees that carry the library, each over real sockets and under load.

Every test here fails when its guarantee is broken on purpose: a flush that is left to the sender,
a reader that waits for the writer, a closing without a deadline, a shutdown that only cancels.
"""

from __future__ import annotations

import hashlib
import random

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.helpers import (
    AT_ONCE,
    HOST,
    PATIENCE,
    REQUEST,
    TEXT,
    RawPeer,
    echo,
    frame,
    open_pair,
    open_server,
    open_server_with_raw_client,
    tcp_pair,
    wait_for_a_turn,
)
from trio_ws import ConnectionLost, WebSocket, open_websocket_url
from trio_ws._protocol.events import Role
from trio_ws._protocol.wire import Wire

# 1. A cancelled send never corrupts the stream…


async def test_sends_cancelled_at_any_moment_under_load_never_corrupt_the_stream() -> None:
    """A slow reader; 8 MiB messages cancelled at random; the receiver checks each one's digest."""
    rng = random.Random(1)
    body = rng.randbytes(8 * 2**20)
    outcome = {"sent": 0, "cancelled": 0}
    received: list[int] = []

    def message(number: int) -> bytes:
        data = number.to_bytes(4, "big") + body[: 2**16 + rng.randrange(8 * 2**20 - 2**16)]
        return hashlib.sha256(data).digest() + data

    async def send(ws: WebSocket) -> None:
        number = 0
        while number < 40 or (min(outcome.values()) < 3 and number < 1000):
            data = message(number)
            with trio.move_on_after(rng.random() * 0.02) as scope:
                await ws.send(data)
                accepted.append(number)
            outcome["cancelled" if scope.cancelled_caught else "sent"] += 1
            number += 1
        await ws.send(b"end")

    async def receive(ws: WebSocket) -> None:
        async for data in ws:
            assert isinstance(data, bytes)
            if data == b"end":
                return
            assert hashlib.sha256(data[32:]).digest() == data[:32]
            received.append(int.from_bytes(data[32:36], "big"))
            await trio.sleep(0.01)

    accepted: list[int] = []
    options = {"max_message_size": 2**24}
    async with open_pair(streams=await tcp_pair(), server=options) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, client)
            nursery.start_soon(receive, server)
    assert outcome["cancelled"] >= 3
    assert outcome["sent"] >= 3
    # All or nothing: what returned arrived, in order, and what was cancelled did not.
    assert received == accepted


async def test_a_send_cancelled_while_a_frame_is_half_written_leaves_a_whole_frame() -> None:
    """The wire itself is looked at: every byte belongs to a well-formed frame."""
    async with open_server_with_raw_client(streams=await tcp_pair()) as (ws, peer):
        await ws.send(b"x" * 8 * 2**20)  # far more than the kernel takes at once
        with trio.move_on_after(0.01) as scope:
            await ws.send(b"never")
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.send, b"after")
            first, payload = await peer.receive_frame() or (0, b"")
            assert (first, len(payload)) == (0x82, 8 * 2**20)
            assert await peer.receive_frame() == (0x82, b"after")
        await peer.send_close(1000)
        await peer.stream.aclose()


async def test_receive_cancelled_every_half_millisecond_loses_nothing_and_repeats_nothing() -> None:
    async with open_pair(streams=await tcp_pair()) as (client, server):

        async def send() -> None:
            for number in range(3000):
                await client.send(str(number))
                if number % 50 == 0:
                    await trio.sleep(0.001)

        received: list[int] = []
        cancelled = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while len(received) < 3000:
                with trio.move_on_after(0.0005) as scope:
                    while len(received) < 3000:
                        received.append(int(await server.receive()))
                cancelled += scope.cancelled_caught
        assert received == list(range(3000))
        assert cancelled >= 5


# 2. The reader never waits for the writer…


async def test_two_peers_that_flood_each_other_both_finish() -> None:
    size, count = 2**20, 30
    options = {"max_message_size": 2**21}
    async with open_pair(streams=await tcp_pair(), server=options, client=options) as (one, other):

        async def send(ws: WebSocket) -> None:
            for number in range(count):
                await ws.send(bytes([number]) * size)

        async def receive(ws: WebSocket) -> None:
            for number in range(count):
                assert await ws.receive() == bytes([number]) * size

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for ws in (one, other):
                    nursery.start_soon(send, ws)
                    nursery.start_soon(receive, ws)


async def test_two_peers_that_first_send_30_mb_and_then_receive_both_finish() -> None:
    """One message each: neither receives before its own send has returned."""
    options = {"max_message_size": 2**25}
    async with open_pair(streams=await tcp_pair(), server=options, client=options) as (one, other):

        async def send_then_receive(ws: WebSocket) -> None:
            await ws.send(b"x" * 30_000_000)
            assert len(await ws.receive()) == 30_000_000

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_then_receive, one)
                nursery.start_soon(send_then_receive, other)


async def test_pings_are_answered_while_our_own_writes_are_blocked() -> None:
    async with open_server_with_raw_client(streams=await tcp_pair(), max_send_buffer=1000) as (
        ws,
        peer,
    ):
        await ws.send(b"x" * 8 * 2**20)
        await peer.send(*[frame(0x9, str(number).encode()) for number in range(1000)])
        await peer.send_frame(TEXT, b"heard")
        with trio.fail_after(PATIENCE):
            assert await ws.receive() == "heard"
        assert ws.statistics().unsent_bytes < 9 * 2**20
        await peer.stream.aclose()


# 3. Leaving always ends…


@pytest.mark.parametrize("how", ["unread", "unsent", "both"])
async def test_leaving_with_much_unread_or_unsent_and_a_stalled_peer_ends_in_time(how: str) -> None:
    start = 0.0
    async with open_server_with_raw_client(streams=await tcp_pair(), close_timeout=0.5) as (
        ws,
        peer,
    ):
        if how != "unsent":
            with trio.move_on_after(0.3):
                await peer.send(*[frame(TEXT, b"x" * 1000)] * 20_000)
        if how != "unread":
            await ws.send(b"x" * 2**23)
        start = trio.current_time()
    assert trio.current_time() - start < AT_ONCE  # whatever `close_timeout` is by default


async def test_a_client_that_sends_to_a_handler_that_returned_leaves_nothing_behind() -> None:
    async def returns_at_once(ws: WebSocket) -> None:
        pass

    async with open_server(returns_at_once) as server:
        for _ in range(20):
            stream = await trio.open_tcp_stream(HOST, server.port)
            await stream.send_all(REQUEST + frame(TEXT, b"tiny") * 100)
            await RawPeer(stream, masks=True).stream.aclose()
        with trio.fail_after(AT_ONCE):
            while server.connections or server.statistics().handshakes:
                await trio.sleep(0.01)
            await server.aclose()


# 4. Cancellation is the shutdown API…


async def test_shutting_down_with_many_clients_some_of_them_stubborn() -> None:
    clients, stubborn = 200, 20
    codes: list[int] = []
    connected = trio.Event()

    async def handler(ws: WebSocket) -> None:
        if ws.request.path == "/stubborn":
            await trio.sleep_forever()
        await echo(ws)

    async def client(url: str) -> None:
        async with open_websocket_url(url) as ws:
            opened.append(ws)
            if len(opened) == clients:
                connected.set()
            codes.append((await ws.wait_closed()).code)

    opened: list[WebSocket] = []
    async with trio.open_nursery() as nursery:
        async with open_server(handler, grace_period=0.3, close_timeout=1) as server:
            for number in range(clients):
                path = "stubborn" if number < stubborn else "polite"
                nursery.start_soon(client, server.urls[0] + path)
            await connected.wait()
            start = trio.current_time()
        # open_server called aclose, which is what a cancellation does.
        assert trio.current_time() - start < AT_ONCE  # the stubborn ones in turn would take longer
        assert not server.connections
    assert codes == [1001] * clients


# 5. One failure stays in one connection…


async def test_no_request_and_no_frame_hurts_another_connection() -> None:
    rng = random.Random(2)
    attacks = [
        REQUEST.replace(b"HTTP/1.1", b"HTTP/9.9"),
        REQUEST.replace(b"example.org", b"\xff\xfe"),
        REQUEST.replace(b"Upgrade\r\n", b"\xff\r\n"),
        b"\x16\x03\x01" + bytes(500),
        b"A" * 100_000,
        REQUEST + b"\xff" * 1000,
        REQUEST + frame(TEXT, b"\xff"),
        *[REQUEST + rng.randbytes(200) for _ in range(20)],
        *[rng.randbytes(200) for _ in range(20)],
    ]

    async def attack(data: bytes, port: int) -> None:
        stream = await trio.open_tcp_stream(HOST, port)
        async with stream:
            try:
                await stream.send_all(data)
                with trio.move_on_after(0.2):
                    while await stream.receive_some():
                        pass
            except trio.BrokenResourceError:
                pass

    async with open_server(echo) as server, open_websocket_url(server.urls[0]) as ws:
        async with trio.open_nursery() as nursery:
            for data in attacks:
                nursery.start_soon(attack, data, server.port)
            for number in range(100):
                await ws.send(str(number))
                assert await ws.receive() == str(number)
                await trio.sleep(0.001)
        assert server.statistics().handler_errors_total == 0


async def test_a_flood_of_pings_does_not_hold_up_others() -> None:
    async with open_server_with_raw_client(streams=await tcp_pair()) as (ws, peer):
        flood = frame(0x9, b"") * 20_000

        async def take() -> None:
            await peer.send(flood)
            await peer.send_frame(TEXT, b"done")
            assert await ws.receive() == "done"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.receive_all_frames)
            # One read of 64 KiB holds ten thousand pings, which take a tenth of a second together.
            assert await wait_for_a_turn(take) < 0.02
            nursery.cancel_scope.cancel()


# 6. Liveness covers blocked writes…


async def test_a_peer_that_never_reads_is_dropped_within_five_seconds() -> None:
    async with open_server_with_raw_client(
        streams=await tcp_pair(), ping_interval=0.5, ping_timeout=0.5, max_message_size=2**25
    ) as (ws, _):
        start = trio.current_time()
        with pytest.raises(ConnectionLost, match="1011"):
            while True:
                await ws.send(b"x" * 2**20)
        assert trio.current_time() - start < 5


def test_the_wire_of_either_role_is_silent_after_its_end() -> None:
    for role in Role:
        wire = Wire(role, max_message_size=2**20)
        assert list(wire.receive(b"\xff" * 10))
        assert list(wire.receive(b"\xff" * 10**6)) == []
