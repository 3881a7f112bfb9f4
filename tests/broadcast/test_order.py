"""Published and sent messages keep their order on one connection, fragments included."""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.broadcast.broadcast_helpers import open_slow, receive
from tests.helpers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    TEXT,
    close_code,
    open_pair,
    open_server_with_raw_client,
    socket_pair,
)
from trio_ws import Broadcast, Deflate, DropOldest, WebSocket, open_broadcast
from trio_ws.testing import FaultyStream

pytestmark = pytest.mark.autojump


async def test_a_socket_that_takes_nothing_at_all_is_waited_for() -> None:
    one, other = socket_pair()
    async with open_broadcast() as broadcast:
        async with open_server_with_raw_client(streams=(one, other)) as (ws, _):
            with broadcast.subscribe(ws, "t"):
                with pytest.raises(BlockingIOError):
                    while True:
                        os.write(other.socket.fileno(), bytes(100_000))
                assert broadcast.publish("waits", "t") == 1
                assert ws.statistics().unsent_bytes == 2 + len("waits")
                await trio.aclose_forcefully(one)


@dataclass
class Publisher:
    """Publishes and sends to one connection, and remembers the messages in their order."""

    broadcast: Broadcast
    ws: WebSocket
    faulty: FaultyStream | None
    given: list[str]

    async def publish(self, message: str) -> None:
        assert self.broadcast.publish(message, "t") == 1
        self.given.append(message)

    async def publish_much(self, message: str) -> None:
        message += "x" * 300_000
        assert self.broadcast.publish(message, "t", compress=False) == 1
        self.given.append(message)

    async def send(self, message: str) -> None:
        await self.ws.send(message)
        self.given.append(message)

    async def send_fragments(self, message: str) -> None:
        async with self.ws.open_message("text") as writer:
            await writer.send(message[:10])
            later = f"within {message}"
            assert self.broadcast.publish(later, "t") == 1
            await writer.send(message[10:])
            await writer.send("")
        self.given += [message, later]

    async def wait(self, message: str) -> None:
        await trio.testing.wait_all_tasks_blocked()

    async def stall(self, message: str) -> None:
        if self.faulty is not None:
            self.faulty.stall_sends()

    async def go_on(self, message: str) -> None:
        if self.faulty is not None:
            self.faulty.go_on()


Step = Callable[[Publisher, str], Awaitable[None]]
STEPS: list[Step] = [
    Publisher.publish,
    Publisher.send,
    Publisher.send_fragments,
    Publisher.go_on,
    Publisher.stall,
    Publisher.wait,
    Publisher.publish_much,
]


async def _keep_order(steps: list[Step], kind: str, takeover: bool) -> None:
    numbers = itertools.count()
    given_: list[str] = []
    deflate = Deflate(threshold=0, server_context_takeover=takeover)
    streams = trio.testing.memory_stream_pair() if kind == "memory" else socket_pair()
    faulty = FaultyStream(streams[1]) if kind == "memory" else None
    async with (
        open_broadcast(max_queued_messages=1000, max_queued_bytes=inf) as broadcast,
        open_pair(
            streams=(streams[0], faulty or streams[1]),
            server={"compression": deflate, "max_send_buffer": inf, "ping_interval": inf},
            client={"max_queued_messages": 1000, "ping_interval": inf},
        ) as (client, ws),
    ):
        with broadcast.subscribe(ws, "t"):
            publisher = Publisher(broadcast, ws, faulty, given_)
            for step in steps:
                await step(publisher, f"{next(numbers)} some text that repeats itself, some text")
            if faulty is not None:
                faulty.go_on()
            with trio.fail_after(100):
                received = [await client.receive() for _ in given_]
            assert received == given_
            assert ws.statistics().messages_sent == len(given_)
            await trio.testing.wait_all_tasks_blocked()
            assert ws.statistics().unsent_bytes == 0


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.sampled_from(STEPS),
        max_size=25,
    ),
    st.sampled_from(["memory", "socket"]),
    st.booleans(),
)
def test_published_and_sent_messages_keep_their_order(
    steps: list[Step], kind: str, takeover: bool
) -> None:
    trio.run(_keep_order, steps, kind, takeover, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_message_published_in_the_middle_of_another_follows_it() -> None:
    async with (
        open_broadcast() as broadcast,
        open_server_with_raw_client(compression=None) as (ws, peer),
    ):
        with broadcast.subscribe(ws, "a"):
            async with ws.open_message("text") as writer:
                await writer.send("one ")
                assert broadcast.publish("published", "a") == 1
                await peer.send_frame(PING, b"?")
                await trio.testing.wait_all_tasks_blocked()
                await writer.send("message")
            frames = [await peer.receive_frame() for _ in range(5)]
    assert frames == [
        (TEXT, b"one "),
        (FIN | PONG, b"?"),
        (CONTINUATION, b"message"),
        (FIN | CONTINUATION, b""),
        (FIN | TEXT, b"published"),
    ]


async def test_messages_that_wait_behind_a_message_in_fragments_do_not_hold_it_up() -> None:
    async with (
        open_broadcast() as broadcast,
        open_server_with_raw_client(compression=None, ping_interval=inf) as (ws, peer),
    ):
        received: list[tuple[int, bytes]] = []

        async def read_all() -> None:
            while (frame := await peer.receive_frame()) is not None:
                received.append(frame)
                if frame[0] == FIN | PING:
                    await peer.send_frame(PONG, frame[1])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all)
            with broadcast.subscribe(ws, "a"), trio.fail_after(5):
                async with ws.open_message("binary") as writer:
                    await writer.send(b"one")
                    for _ in range(100):  # more than `max_send_buffer`
                        assert broadcast.publish(bytes(1000), "a") == 1
                    assert ws.statistics().unsent_bytes > 100_000
                    await writer.send(b"two")
                    await ws.ping(b"ours")
                    await peer.send_frame(PING, b"theirs")
                    await trio.testing.wait_all_tasks_blocked()
                    assert received == [
                        (BINARY, b"one"),
                        (CONTINUATION, b"two"),
                        (FIN | PING, b"ours"),
                        (FIN | PONG, b"theirs"),
                    ]
                await ws.send("last")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert received[4:] == [
        (FIN | CONTINUATION, b""),
        *[(FIN | BINARY, bytes(1000))] * 100,
        (FIN | TEXT, b"last"),
    ]


async def test_a_sender_behind_a_message_in_fragments_follows_what_was_posted_meanwhile() -> None:
    # The message that was posted meanwhile leaves first, which takes time where the peer is slow.
    async with open_broadcast() as broadcast, open_slow(max_send=1000) as (ws, peer, stream):
        stream.go_on()
        async with trio.open_nursery() as nursery:
            with broadcast.subscribe(ws, "a"):
                async with ws.open_message("text") as writer:
                    await writer.send("part")
                    nursery.start_soon(ws.send, "sent")
                    await trio.testing.wait_all_tasks_blocked()
                    for _ in range(100):
                        assert broadcast.publish("x" * 1000, "a") == 1
                assert await peer.receive_frame() == (TEXT, b"part")
                assert await peer.receive_frame() == (FIN | CONTINUATION, b"")
                assert await receive(peer, 100) == ["x" * 1000] * 100
                assert await receive(peer, 1) == ["sent"]


async def test_a_fragment_that_is_written_in_part_does_not_lose_count_of_what_follows_it() -> None:
    one, other = socket_pair()
    async with (
        open_broadcast() as broadcast,
        open_server_with_raw_client(streams=(one, other), compression=None) as (ws, peer),
    ):
        with broadcast.subscribe(ws, "a"):
            async with ws.open_message("binary") as writer:
                assert broadcast.publish("published", "a") == 1
                await writer.send(bytes(5_000_000))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(peer.receive_frame)
            frames = [await peer.receive_frame() for _ in range(2)]
            assert frames == [(FIN | CONTINUATION, b""), (FIN | TEXT, b"published")]
            assert ws.statistics().unsent_bytes == 0


async def test_messages_that_wait_before_a_message_in_fragments_go_out_before_it() -> None:
    async with open_broadcast(policy=DropOldest()) as broadcast, open_slow() as (ws, peer, stream):
        with broadcast.subscribe(ws, "a", max_queued_messages=2):
            for number in range(3):
                broadcast.publish(str(number), "a")
            async with ws.open_message("text") as writer:
                await writer.send("part")
                for number in range(3, 6):
                    broadcast.publish(str(number), "a")
                stream.go_on()
                await trio.testing.wait_all_tasks_blocked()
            assert await receive(peer, 3) == ["0", "1", "2"]
            assert await peer.receive_frame() == (TEXT, b"part")
            assert await peer.receive_frame() == (FIN | CONTINUATION, b"")
            assert await receive(peer, 2) == ["4", "5"]


async def test_a_message_left_unfinished_takes_what_waits_behind_it_with_it() -> None:
    async with open_broadcast() as broadcast, open_server_with_raw_client() as (ws, peer):
        with broadcast.subscribe(ws, "a"):
            with pytest.raises(ZeroDivisionError):
                async with ws.open_message("text", compress=False) as writer:
                    await writer.send("half")
                    broadcast.publish("published", "a")
                    raise ZeroDivisionError
            assert broadcast.publish("after", "a") == 0
            assert await peer.receive_frame() == (TEXT, b"half")
            first, payload = await peer.receive_frame() or (0, b"")
            assert (first, close_code(payload)) == (FIN | CLOSE, 1011)
            assert ws.statistics().unsent_bytes == 0
            await peer.send_close(1011)


async def test_a_close_frame_comes_after_what_waits() -> None:
    async with open_broadcast() as broadcast:
        async with open_slow() as (ws, peer, stream):
            with broadcast.subscribe(ws, "a"):
                for number in range(4):
                    broadcast.publish(str(number), "a")
            ws._ending.close(1001, "")
            stream.go_on()
            assert await receive(peer, 4) == ["0", "1", "2", "3"]
            assert await peer.receive_close() == 1001
            await peer.send_close(1001)


async def test_sending_is_not_kept_waiting_by_those_who_publish_on_and_on() -> None:
    """The line is never empty, and yet who waits for room gets it, and a ping its pong."""
    async with open_broadcast(policy=DropOldest()) as broadcast:
        async with open_slow(delay=0.1, max_send=1000, max_send_buffer=100) as (
            ws,
            peer,
            stream,
        ):
            stop = trio.Event()
            frames: list[tuple[int, bytes] | None] = []

            async def publish_on_and_on() -> None:
                while not stop.is_set():
                    for _ in range(20):
                        broadcast.publish("x" * 1000, "a")
                    await trio.sleep(0.5)

            async def read() -> None:
                while (FIN | TEXT, b"sent") not in frames:
                    frames.append(await peer.receive_frame())

            with broadcast.subscribe(ws, "a", max_queued_messages=50):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(publish_on_and_on)
                    await trio.sleep(2)
                    assert ws.statistics().unsent_bytes > 20_000
                    await peer.send_frame(PING, b"1")
                    await peer.send_frame(PING, b"2")
                    await trio.testing.wait_all_tasks_blocked()
                    stream.go_on()
                    nursery.start_soon(read)
                    with trio.fail_after(60):
                        await ws.send("sent")
                        while (FIN | TEXT, b"sent") not in frames:
                            await trio.sleep(0.1)
                    stop.set()
            assert (FIN | PONG, b"2") in frames
            assert (FIN | PONG, b"1") not in frames
