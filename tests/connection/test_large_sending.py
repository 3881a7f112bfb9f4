"""Large messages that go uncompressed: encoded and masked in steps, and all or nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import inf

import pytest
import trio

from tests.connection.connection_helpers import longest_share
from tests.helpers import Options, counting_turns, open_pair
from tests.whole.sweeping import CancelAtStep
from trio_ws import Deflate
from trio_ws._connection.line import Line, Parcel
from trio_ws._connection.outbox import MOST_BUFFERS, Outbox
from trio_ws._protocol.stepwise import PIECE, PIECES_FROM
from trio_ws._transport.stream import Buffer, Transport

pytestmark = pytest.mark.autojump

PLAIN: Options = {"compression": None, "max_message_size": inf, "max_queued_bytes": inf}
ASCII = "0123456789a" * (3 * 2**20 // 11)
MIXED = "aü日😀x" * (3 * 2**20 // 5)
NOISE = random.Random(1).randbytes(3 * 2**20 + 3)


@pytest.mark.parametrize("client_sends", [True, False])
async def test_messages_arrive_whole_between_others(client_sends: bool) -> None:
    async with open_pair(client=PLAIN, server=PLAIN) as pair:
        sender, receiver = pair if client_sends else pair[::-1]
        messages: list[str | bytes] = [
            *("before", ASCII, "x", MIXED, b"y", NOISE, ASCII, NOISE[1:]),
            *(ASCII[:PIECES_FROM], NOISE[:PIECES_FROM], MIXED[: PIECES_FROM - 1], "after"),
        ]
        for message in messages:
            await sender.send(message)
            assert await receiver.receive() == message


async def test_what_is_compressed_by_a_client_is_masked_in_pieces() -> None:
    noise = NOISE * 2
    options: Options = {**PLAIN, "compression": Deflate(level=1)}
    async with open_pair(client=options, server=options) as (client, server):
        for message in (noise, "small", MIXED, noise[1:]):
            await client.send(message, compress=True)
            assert await server.receive() == message
        assert (client.statistics().compression_sent or 0) > 1


@pytest.mark.parametrize(
    ("client_sends", "message", "steps"),
    [
        (True, ASCII, len(ASCII) // PIECE),
        (True, NOISE, len(NOISE) // PIECE),
        (False, MIXED, len(MIXED) // PIECE),
        (False, NOISE, 0),
    ],
)
async def test_others_run_while_a_message_is_made_unless_it_goes_as_it_is(
    client_sends: bool, message: str | bytes, steps: int
) -> None:
    async with open_pair(client=PLAIN, server=PLAIN) as pair:
        sender, receiver = pair if client_sends else pair[::-1]
        async with counting_turns() as turns:
            await sender.send(message)
            assert steps - 2 <= turns.count <= steps + 3
        assert await receiver.receive() == message


@pytest.mark.parametrize("message", [ASCII, NOISE])
async def test_a_message_that_is_cancelled_at_any_step_was_not_sent(message: str | bytes) -> None:
    async with open_pair(client=PLAIN, server=PLAIN) as (one, other):
        for step in range(1, len(message) // PIECE + 6):
            sent = one.statistics()
            with trio.CancelScope() as scope:
                cancel = CancelAtStep(scope, trio.lowlevel.current_task(), step)
                trio.lowlevel.add_instrument(cancel)
                await one.send(message)
            trio.lowlevel.remove_instrument(cancel)
            if scope.cancelled_caught:
                assert one.statistics().bytes_sent == sent.bytes_sent
                assert one.statistics().messages_sent == sent.messages_sent
                one.send_nowait("small")  # it is nobody's turn any more
            else:
                assert await other.receive() == message
                await one.send("small")
            assert await other.receive() == "small"
        assert not scope.cancelled_caught


@pytest.mark.parametrize("client_sends", [True, False])
async def test_a_surrogate_at_the_end_sends_nothing(client_sends: bool) -> None:
    async with open_pair(client=PLAIN, server=PLAIN) as pair:
        sender, receiver = pair if client_sends else pair[::-1]
        before = sender.statistics().bytes_sent
        with pytest.raises(ValueError, match="surrogates"):
            await sender.send(ASCII + "\ud800")
        assert sender.statistics().bytes_sent == before
        await sender.send("small")
        assert await receiver.receive() == "small"


async def test_a_ping_is_answered_meanwhile() -> None:
    async with open_pair(client=PLAIN, server=PLAIN) as (one, other):
        before = one.statistics().bytes_sent
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send, MIXED * 4)
            await other.ping()
            # Its pong came before anything of the message.
            assert one.statistics().bytes_sent - before < 100
            with pytest.raises(trio.WouldBlock):
                one.send_nowait("small")
        assert await other.receive() == MIXED * 4


@pytest.mark.parametrize("message", ["aü日😀x" * 2**21, "plain" * 2**22, b"plain" * 2**22])
async def test_no_step_takes_a_tenth_of_the_time(message: str | bytes) -> None:
    shares: list[float] = []
    for _ in range(3):
        async with open_pair(client=PLAIN, server=PLAIN) as (one, other):
            await one.send("x" * 2**16)  # NumPy is loaded
            await other.receive()
            shares.append(await longest_share(one, message))
    assert min(shares) < 0.1


# One frame in many buffers…


class Taking(Transport):
    """A transport that takes all it is given, and counts the buffers."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.taken = bytearray()

    is_direct = True

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        self.calls.append(len(buffers))
        self.taken += b"".join(buffers)
        return sum(map(len, buffers))

    async def wait_until_writable(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_no_call_is_given_more_buffers_than_the_system_takes() -> None:
    transport = Taking()
    async with trio.open_nursery() as nursery:
        outbox = Outbox(transport, inf, nursery.start_soon, lambda _: None, lambda _: None)
        pieces = [bytes([number]) * 1000 for number in range(200)]
        outbox.write(b"head", payload=pieces)
        outbox.write(b"next")
        await outbox.wait_until_empty()
        assert transport.taken == b"head" + b"".join(pieces) + b"next"
        assert max(transport.calls) <= MOST_BUFFERS


def test_a_frame_in_many_buffers_leaves_the_line_whole() -> None:
    line = Line()
    parcel = Parcel()
    line.post(parcel, b"x" * 10)
    line.put(b"head", b"a" * 50, b"b" * 50)
    line.put(b"next")
    assert line.advance(12) == [b"x" * 10, b"head", b"a" * 50, b"b" * 50]
    assert line.advance(1) == [b"next"]
    assert not line
