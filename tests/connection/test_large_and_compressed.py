"""Large messages that are compressed: in steps, between which others run, and all or nothing."""

from __future__ import annotations

import json
import random
from math import inf

import pytest
import trio

from tests.connection.connection_helpers import longest_share
from tests.helpers import Options, counting_turns, forever, open_pair
from tests.whole.sweeping import CancelAtStep
from trio_ws import ConnectionClosed, Deflate, WebSocket, open_broadcast
from trio_ws._protocol.deflate import AT_ONCE, IN_STEPS_FROM, STEP, in_bytes, is_compressible

pytestmark = pytest.mark.autojump

UNLIMITED: Options = {"max_message_size": inf, "max_queued_bytes": inf}


def document(size: int) -> str:
    """JSON of that many characters."""
    rng = random.Random(7)
    rows = [[rng.randint(1, 10**6), f"é-{rng.randint(1, 40)}"] for _ in range(size // 16)]
    return json.dumps(rows, ensure_ascii=False)[:size]


LARGE = document(300_000)
SMALL = "a message that comes again and again, " * 50


async def receive_both(ws: WebSocket, received: list[str | bytes]) -> None:
    async for message in ws:
        received.append(message)


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("size", [-1, 0, 1, STEP, 2**20])
async def test_a_message_in_steps_arrives_whole_and_so_do_those_around_it(
    takeover: bool, size: int
) -> None:
    deflate = Deflate(server_context_takeover=takeover, client_context_takeover=takeover)
    options: Options = {"compression": deflate, **UNLIMITED}
    text = document(IN_STEPS_FROM + size)
    async with open_pair(client=options, server=options) as pair:
        for sender, receiver in (pair, pair[::-1]):
            messages: list[str | bytes] = [SMALL, text, SMALL, text.encode(), text, SMALL, SMALL]
            received: list[str | bytes] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive_both, receiver, received)
                for message in messages:
                    await sender.send(message)
                await sender.ping()
                nursery.cancel_scope.cancel()
            assert received == messages
            assert (sender.statistics().compression_sent or 0) > 2


async def test_others_run_while_a_large_message_is_compressed() -> None:
    async with open_pair(client=UNLIMITED, server=UNLIMITED) as (one, other):
        steps = len(LARGE) // STEP
        async with counting_turns() as turns:
            await one.send(LARGE)
            assert turns.count >= steps - 2  # trio may have this task run before the other
        assert await other.receive() == LARGE
        async with counting_turns() as turns:
            await one.send(LARGE, compress=False)
            assert turns.count <= 2
        assert await other.receive() == LARGE
        async with one.open_message("text") as writer, counting_turns() as turns:
            await writer.send(LARGE)
            assert turns.count >= steps - 2
        assert await other.receive() == LARGE


async def test_no_step_takes_a_tenth_of_the_time_for_four_mebibytes() -> None:
    message = document(2**22).encode()
    shares: list[float] = []

    async def discard(ws: WebSocket) -> None:
        async with ws.receive_message() as chunks:
            async for _ in chunks:
                pass

    for _ in range(3):
        async with (
            open_pair(client=UNLIMITED, server=UNLIMITED) as (one, other),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(discard, other)
            shares.append(await longest_share(one, message))
    assert min(shares) < 0.1


@pytest.mark.parametrize("takeover", [True, False])
async def test_a_large_message_that_is_cancelled_at_any_step_was_not_sent(takeover: bool) -> None:
    options: Options = {"compression": Deflate(client_context_takeover=takeover), **UNLIMITED}
    async with open_pair(client=options, server=options) as (one, other):
        for step in range(1, len(LARGE) // STEP + 5):
            await one.send(SMALL)
            sent = one.statistics()
            with trio.CancelScope() as scope:
                cancel = CancelAtStep(scope, trio.lowlevel.current_task(), step)
                trio.lowlevel.add_instrument(cancel)
                await one.send(LARGE)
            trio.lowlevel.remove_instrument(cancel)
            expected = [SMALL, SMALL] if scope.cancelled_caught else [SMALL, LARGE, SMALL]
            if scope.cancelled_caught:
                assert one.statistics().bytes_sent == sent.bytes_sent
                assert one.statistics().messages_sent == sent.messages_sent
                one.send_nowait(SMALL)  # it is nobody's turn any more
            else:
                await one.send(SMALL)
            assert [await other.receive() for _ in expected] == expected
        assert not scope.cancelled_caught


async def test_a_part_that_is_cancelled_was_not_sent_and_the_message_goes_on() -> None:
    async with open_pair(client=UNLIMITED, server=UNLIMITED) as (one, other):
        for parts in ([LARGE, SMALL, LARGE], [SMALL, LARGE, SMALL]):
            async with one.open_message("text") as writer:
                for part in parts:
                    with trio.CancelScope() as scope:
                        cancel = CancelAtStep(scope, trio.lowlevel.current_task(), 4)
                        trio.lowlevel.add_instrument(cancel)
                        await writer.send(LARGE)
                    trio.lowlevel.remove_instrument(cancel)
                    assert scope.cancelled_caught
                    await writer.send(part)
            assert await other.receive() == "".join(parts)
        await one.send(SMALL)
        assert await other.receive() == SMALL


async def test_tasks_that_send_wait_for_their_turn_and_what_is_published_does_not() -> None:
    async with (
        open_pair(client=UNLIMITED, server=UNLIMITED) as (one, other),
        open_broadcast() as broadcast,
    ):
        await one.send(SMALL)
        with broadcast.subscribe(one, "t"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.send, LARGE)
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                nursery.start_soon(one.send, SMALL + "2")
                with pytest.raises(trio.WouldBlock):
                    one.send_nowait(SMALL)
                broadcast.publish(SMALL + "published", "t")
            await one.send(SMALL + "3")
            broadcast.publish(SMALL + "published", "t")
        published = SMALL + "published"
        expected = [SMALL, published, LARGE, SMALL + "2", SMALL + "3", published]
        assert [await other.receive() for _ in expected] == expected


@pytest.mark.parametrize("fragments", [False, True])
async def test_a_connection_that_ends_meanwhile_is_an_error(fragments: bool) -> None:
    async with open_pair(client=UNLIMITED, server=UNLIMITED) as (one, other):

        async def send() -> None:
            with pytest.raises((ConnectionClosed, trio.ClosedResourceError)):
                if fragments:
                    async with one.open_message("text") as writer:
                        await writer.send(LARGE)
                await one.send(LARGE)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            await one.aclose()
        assert other.statistics().messages_received == 0


@pytest.mark.parametrize("where", [100, 4 * STEP])
async def test_text_that_utf_8_cannot_express_harms_nothing(where: int) -> None:
    text = LARGE[:where] + "\ud800" + LARGE[where:]
    async with open_pair(client=UNLIMITED, server=UNLIMITED) as (one, other):
        await one.send(SMALL)
        with pytest.raises(ValueError, match="surrogates"):
            await one.send(text)
        async with one.open_message("text") as writer:
            for part in (text, "\ud800"):
                with pytest.raises(ValueError, match="surrogates"):
                    await writer.send(part)
            await writer.send(SMALL)
        await one.send(SMALL)
        assert [await other.receive() for _ in range(3)] == [SMALL] * 3


async def test_what_does_not_get_smaller_goes_as_it_is() -> None:
    noise = random.Random(1).randbytes(300_000)
    assert not is_compressible(noise)
    async with open_pair(client=UNLIMITED, server=UNLIMITED) as (one, other):
        await one.send(noise)
        async with one.open_message("binary") as writer:
            await writer.send(noise)
        assert one.statistics().compression_sent is None
        assert [await other.receive() for _ in range(2)] == [noise] * 2
        await one.send(noise, compress=True)
        assert await other.receive() == noise
        assert one.statistics().compression_sent is not None


async def test_where_nobody_can_wait_only_so_much_is_compressed_unless_it_is_asked_for() -> None:
    text = document(3 * AT_ONCE)
    async with open_pair(client=UNLIMITED, server=UNLIMITED) as (one, other):
        for size, compress, expected in (
            (AT_ONCE, None, True),
            (AT_ONCE + 1, None, False),
            (AT_ONCE + 1, True, True),
            (AT_ONCE, False, False),
        ):
            message = in_bytes(text)[:size]
            sent = one.statistics().bytes_sent
            one.send_nowait(message, compress=compress)
            assert (one.statistics().bytes_sent - sent < size / 2) == expected
            assert await other.receive() == message
            async with open_broadcast() as broadcast:
                with broadcast.subscribe(one, "t"):
                    sent = one.statistics().bytes_sent
                    broadcast.publish(message, "t", compress=compress)
                    assert (one.statistics().bytes_sent - sent < size / 2) == expected
                    assert await other.receive() == message


async def test_a_large_message_waits_for_room_before_it_is_compressed() -> None:
    options: Options = {**UNLIMITED, "max_send_buffer": 1000}
    async with open_pair(client=options, server=options) as (one, other):
        await one.send("x" * 10**7, compress=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send, LARGE)
            nursery.start_soon(forever)
            assert await other.receive() == "x" * 10**7
            assert await other.receive() == LARGE
            nursery.cancel_scope.cancel()
