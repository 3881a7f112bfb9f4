"""The load of `trio-ws bench`, in simulated time: what it sends when, and what it counts."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import ConnectionFailed, ConnectionRejected, Response, WebSocket
from trio_ws._command.benching.histogram import Histogram
from trio_ws._command.benching.links import Common, PacedLink, Unfinished
from trio_ws._command.benching.load import Load
from trio_ws._command.benching.plan import Messages, Mode, Plan
from trio_ws._command.benching.progress import progress_of
from trio_ws._command.benching.report import as_text, warnings
from trio_ws._command.benching.tally import Tally
from trio_ws.testing import open_pair, open_test_app

pytestmark = pytest.mark.autojump

Serve = Callable[[WebSocket], Awaitable[object]]


def answering(after: float, *, stall: tuple[float, float] = (math.inf, 0)) -> Serve:
    """An echo that takes so many seconds, and at a point in time once as many more."""

    async def serve(ws: WebSocket) -> None:
        start = trio.current_time()
        when, how_long = stall
        async for message in ws:
            await trio.sleep(after)
            if trio.current_time() - start >= when:
                when = math.inf
                await trio.sleep(how_long)
            await ws.send(message)

    return serve


async def run(serve: Serve, **plan: Any) -> Load:
    """The load, over memory, after its run."""
    settings: dict[str, Any] = {"warmup": 0.0, **plan}
    async with open_test_app(serve) as app:
        client = app.client()
        load = Load(Plan(**settings), partial(client.websocket, "/", decode_text=False))
        await load.run()
    return load


# ---------------------------------------------------------------------------
# The schedule
# ---------------------------------------------------------------------------


async def test_a_server_that_stalls_is_late_with_all_that_was_due_meanwhile() -> None:
    load = await run(answering(0.001, stall=(4, 1)), rate=100, seconds=10)
    tally = load.tally
    assert tally.due == tally.latency.count == 1000
    assert tally.latency.percentile(50) == pytest.approx(0.001, rel=0.02)
    # A message in ten was due in that second.
    assert tally.latency.percentile(95) == pytest.approx(0.5, rel=0.15)
    assert tally.latency.percentile(99) == pytest.approx(0.9, rel=0.15)
    assert tally.latency.longest == pytest.approx(1.001, rel=0.02)
    assert tally.lag.longest < 1e-6


async def test_a_load_that_waits_for_answers_sees_one_late_message() -> None:
    """This is what the schedule is for."""
    load = await run(answering(0.01, stall=(4, 1)), in_flight=1, seconds=10)
    latency = load.tally.latency
    assert latency.count == pytest.approx(900, abs=2)
    assert latency.percentile(99) == pytest.approx(0.01, rel=0.02)
    assert latency.longest == pytest.approx(1.01, rel=0.02)


async def test_messages_are_due_at_fixed_times_and_connections_take_turns() -> None:
    came: list[tuple[int, float]] = []

    async def serve(ws: WebSocket) -> None:
        async for message in ws:
            came.append((id(ws), round(trio.current_time(), 6)))
            await ws.send(message)

    started = trio.current_time()
    load = await run(serve, connections=3, rate=10, seconds=1.2)
    assert [time - started for _, time in came] == pytest.approx([n / 10 for n in range(12)])
    turns = [who for who, _ in came]
    assert turns == turns[:3] * 4
    assert len(set(turns)) == 3
    assert load.opened == 3


async def test_a_message_waits_while_its_connection_is_full_and_counts_from_when_it_was_due() -> (
    None
):
    async def serve(ws: WebSocket) -> None:
        await trio.sleep(1)
        async for message in ws:
            await ws.send(message)

    async with over_slow_network(serve) as connect:
        load = Load(Plan(rate=100, size=50_000, seconds=2, warmup=0), connect)
        await load.run()
    tally = load.tally
    assert tally.latency.count == tally.due == 200  # none was left out
    assert tally.unsent == 0
    assert tally.latency.longest == pytest.approx(1, rel=0.02)
    assert tally.latency.percentile(75) == pytest.approx(0.5, rel=0.05)


@asynccontextmanager
async def over_slow_network(
    serve: Serve,
) -> AsyncGenerator[Callable[[], AbstractAsyncContextManager[WebSocket]], None]:
    """How to connect to `serve` over streams that hold nothing: who sends waits for who reads."""

    @asynccontextmanager
    async def connect() -> AsyncGenerator[WebSocket, None]:
        streams = trio.testing.lockstep_stream_pair()
        options: Any = {"decode_text": False, "close_timeout": 2}
        queue: Any = {"max_queued_messages": 1}
        async with (
            trio.open_nursery() as nursery,
            open_pair(streams=streams, client_options=options, server_options=queue) as pair,
        ):
            nursery.start_soon(serve, pair[1])
            yield pair[0]

    yield connect


async def test_what_a_server_does_not_take_is_counted_and_the_run_ends() -> None:
    started = trio.current_time()
    async with over_slow_network(WebSocket.wait_closed) as connect:
        load = Load(Plan(rate=100, size=50_000, seconds=2, warmup=0, drain=3), connect)
        await load.run()
        assert trio.current_time() - started <= 2 + 3 + 2  # the last is close_timeout
    tally = load.tally
    assert tally.due == tally.unanswered == 200
    assert 190 < tally.unsent < 200
    assert f"{tally.unsent} never sent" in as_text("ws://x", load)


async def test_the_warm_up_counts_for_nothing() -> None:
    slow = answering(0.001, stall=(0, 2))  # a server that has to warm up
    load = await run(slow, rate=100, warmup=3, seconds=5)
    assert load.tally.due == load.tally.latency.count == 500
    assert load.tally.latency.longest == pytest.approx(0.001, rel=0.02)
    assert load.tally.seconds == pytest.approx(5)
    assert load.tally.received == pytest.approx(500, abs=1)


@pytest.mark.parametrize("connections", [1, 4])
async def test_so_many_messages_are_under_way_on_each_connection(connections: int) -> None:
    under_way: list[int] = []

    async def serve(ws: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            waiting = 0

            async def answer(message: str | bytes) -> None:
                nonlocal waiting
                waiting += 1
                under_way.append(waiting)
                await trio.sleep(0.1)
                waiting -= 1
                await ws.send(message)

            async for message in ws:
                nursery.start_soon(answer, message)

    load = await run(serve, connections=connections, in_flight=5, seconds=2)
    assert max(under_way) == 5
    assert load.tally.due == pytest.approx(connections * 5 * 20, rel=0.06)
    assert load.tally.unanswered == 0


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("size", [8, 9, 1000, 100_000])
async def test_messages_are_as_large_and_of_the_kind_that_was_asked_for(
    size: int, *, binary: bool
) -> None:
    came: list[str | bytes] = []

    async def serve(ws: WebSocket) -> None:
        async for message in ws:
            came.append(message)
            await ws.send(message)

    load = await run(serve, rate=10, seconds=1, size=size, binary=binary)
    assert {type(message) for message in came} == {bytes if binary else str}
    assert {len(message) for message in came} == {size}
    assert len(set(came)) == len(came) == load.tally.latency.count == 10
    assert load.tally.sent_bytes == load.tally.received_bytes == 10 * size


# ---------------------------------------------------------------------------
# Answers
# ---------------------------------------------------------------------------


async def test_answers_in_any_order_are_matched_and_a_second_one_is_a_stray() -> None:
    async def serve(ws: WebSocket) -> None:
        held: list[str | bytes] = []
        async for message in ws:
            held.append(message)
            if len(held) == 5:
                for one in [*reversed(held), held[2]]:
                    await ws.send(one)
                held.clear()

    load = await run(serve, rate=10, seconds=2)
    assert load.tally.latency.count == 20
    assert load.tally.strays == 4
    assert load.tally.latency.longest == pytest.approx(0.4, rel=0.02)
    assert load.tally.latency.percentile(20) < 1e-6
    assert "4 came that answer none" in as_text("ws://x", load)


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "hello",
        b"\xff" * 100,
        "x" * 100,
        "0000000" + "3" + "x" * 92,
        "-0000001" + "x" * 92,
        "0x000001" + "x" * 92,
        Messages(Plan(rate=1)).make(999),  # this was never sent
    ],
)
async def test_what_answers_nothing_is_a_stray(garbage: str | bytes) -> None:
    async def serve(ws: WebSocket) -> None:
        async for _ in ws:
            await ws.send(garbage)

    load = await run(serve, rate=10, seconds=1, drain=1)
    assert load.tally.strays == 10
    assert load.tally.unanswered == 10
    (warning,) = warnings(load)
    assert "none was the echo" in warning
    assert as_text("ws://x", load).endswith(f"\n\n{warning}\n")


async def test_a_message_without_an_answer_is_waited_for_so_long_and_counted() -> None:
    async def serve(ws: WebSocket) -> None:
        for number in range(1000):
            message = await ws.receive()
            if number % 4:
                await ws.send(message)

    started = trio.current_time()
    load = await run(serve, rate=10, seconds=2, drain=3)
    assert trio.current_time() - started == pytest.approx(2 + 3, abs=0.01)
    assert load.tally.due == 20
    assert load.tally.unanswered == 5
    assert load.tally.unsent == 0
    assert "15 answered, 5 without an answer" in as_text("ws://x", load)


async def test_the_run_ends_with_the_last_answer_and_not_when_it_might_have_come() -> None:
    started = trio.current_time()
    load = await run(answering(0.5), connections=5, rate=1, seconds=3, drain=60)
    assert trio.current_time() - started == pytest.approx(2 + 0.5 + 0.5, abs=0.01)
    assert load.tally.unanswered == 0


async def test_without_answers_a_message_is_done_when_it_is_sent() -> None:
    came = 0

    async def serve(ws: WebSocket) -> None:
        nonlocal came
        async for _ in ws:
            came += 1
            if came == 5:
                await ws.send("thank you")

    started = trio.current_time()
    load = await run(serve, rate=10, seconds=2, drain=60, mode=Mode.SEND)
    assert trio.current_time() - started == pytest.approx(2, abs=0.01)
    assert (came, load.tally.sent, load.tally.received) == (20, 20, 1)
    assert "\nmessages      20 due\n" in as_text("ws://x", load)
    assert load.tally.strays == load.tally.latency.count == 0


async def test_a_message_for_a_connection_that_has_just_ended_is_not_sent() -> None:
    plan, tally = Plan(rate=1), Tally()
    options: Any = {"decode_text": False}
    async with open_pair(client_options=options) as (ws, _), trio.open_nursery() as nursery:
        link = PacedLink(ws, Common(plan, Messages(plan), tally, Unfinished(), nursery))
        link.begin(0, 0, 1)
        tally.begin = 0
        await ws.aclose()
        link.post(1, 1)
        link.post(2, 2)
        link.give_up()
    assert tally.due == tally.unsent == 2
    assert tally.sent == 0


async def test_without_sending_what_comes_is_counted() -> None:
    async def serve(ws: WebSocket) -> None:
        while True:
            await trio.sleep(0.1)
            await ws.send("news")

    load = await run(serve, connections=3, seconds=2, warmup=1, mode=Mode.RECEIVE)
    text = as_text("ws://x", load)
    assert text.startswith("ws://x: 3 connections, nothing sent, 2 s\n")
    assert f"\nmessages      {load.tally.received} received\n" in text
    assert load.tally.received == pytest.approx(60, abs=3)
    assert load.tally.received_bytes == 4 * load.tally.received
    assert load.tally.due == load.tally.sent == 0


# ---------------------------------------------------------------------------
# Connections
# ---------------------------------------------------------------------------


async def test_all_connections_are_closed_with_1000() -> None:
    codes: list[int] = []

    async def serve(ws: WebSocket) -> None:
        await answering(0)(ws)
        codes.append((await ws.wait_closed()).code)

    load = await run(serve, connections=7, rate=10, seconds=1)
    assert codes == [1000] * 7
    assert not load.tally.lost


async def test_connections_are_opened_so_many_at_once_and_the_load_begins_with_the_last() -> None:
    opening = most = 0
    opened: list[float] = []

    async def slowly(request: object) -> None:
        nonlocal opening, most
        opening += 1
        most = max(most, opening)
        await trio.sleep(0.1)
        opening -= 1
        opened.append(trio.current_time())

    async with open_test_app(answering(0), process_request=slowly) as app:
        connect = partial(app.websocket, "/", decode_text=False)
        load = Load(Plan(connections=10, open_at_once=3, rate=10, warmup=0, seconds=1), connect)
        await load.run()
    assert most == 3
    assert load.tally.opening.count == 10
    # Waiting for one's turn is no part of it.
    assert load.tally.opening.longest == pytest.approx(0.1, rel=0.02)
    assert load.tally.begin == pytest.approx(max(opened), abs=0.01)


async def test_connections_that_cannot_be_opened_are_counted_by_their_reasons() -> None:
    tried = 0

    @asynccontextmanager
    async def connect() -> AsyncGenerator[WebSocket, None]:
        nonlocal tried
        tried += 1
        if tried % 4 == 0:
            raise ConnectionFailed("cannot connect: Connection refused")
        if tried % 4 == 1:
            raise ConnectionRejected(Response(503, body=f"I say no for the {tried}th time"))
        async with app.websocket("/", decode_text=False) as ws:
            yield ws

    async with open_test_app(answering(0)) as app:
        load = Load(Plan(connections=12, rate=100, warmup=0, seconds=1), connect)
        await load.run()
    assert load.opened == 6
    assert load.tally.refused == {"cannot connect: Connection refused": 3, "HTTP status 503": 3}
    assert load.tally.latency.count == 100  # the others have the whole load
    text = as_text("ws://x", load)
    assert "6 opened, 6 failed, 0 lost" in text
    assert "3 failed: HTTP status 503\n" in text


async def test_a_run_without_any_connection_ends_at_once() -> None:
    async with open_test_app(answering(0)) as app:
        pass  # it has ended
    connect = partial(app.websocket, "/", decode_text=False)
    started = trio.current_time()
    load = Load(Plan(connections=3, rate=1), connect)
    await load.run()
    assert trio.current_time() == started
    assert load.tally.refused.total() == 3
    assert load.tally.seconds == 0
    assert "without an answer" not in as_text("ws://x", load)


@pytest.mark.parametrize("how", ["rate", "in_flight"])
async def test_a_connection_that_is_lost_is_counted_and_the_others_go_on(how: str) -> None:
    seen = 0

    async def serve(ws: WebSocket) -> None:
        nonlocal seen
        number, seen = seen, seen + 1
        with trio.move_on_after(math.inf if number else 1.05):
            await answering(0.1)(ws)
        await ws.aclose(1011, "no more")

    load = await run(serve, connections=2, seconds=3, **{how: 2})
    assert load.tally.lost == {"1011 (internal error), closed by the peer: no more": 1}
    assert load.tally.seconds == pytest.approx(3)
    if how == "rate":
        assert load.tally.due == 6
        assert load.tally.unanswered == 2  # of the first connection, due after 1 and 2 s
    assert "1 lost: 1011 (internal error)" in as_text("ws://x", load)


async def test_a_run_ends_when_the_last_connection_is_lost() -> None:
    async def serve(ws: WebSocket) -> None:
        await trio.sleep(1)

    load = await run(serve, connections=3, rate=10, seconds=60, drain=60)
    assert load.tally.seconds == pytest.approx(1)
    assert load.tally.lost.total() == 3
    assert not load.interrupted


async def test_connections_that_end_before_the_load_begins_end_it() -> None:
    async def serve(ws: WebSocket) -> None:
        await ws.aclose()

    load = await run(serve, connections=3, open_at_once=1, rate=10, seconds=60, drain=60)
    assert load.tally.lost == {"1000 (normal closure), closed by the peer": 3}


async def test_a_load_does_not_begin_if_all_connections_were_lost_before_the_last_one_failed() -> (
    None
):
    tried = 0

    def refuse_the_second(request: object) -> Response | None:
        nonlocal tried
        tried += 1
        return Response(503) if tried == 2 else None

    async with open_test_app(WebSocket.aclose, process_request=refuse_the_second) as app:
        connect = partial(app.websocket, "/", decode_text=False)
        load = Load(Plan(connections=2, open_at_once=1, rate=10, seconds=60), connect)
        await load.run()
    assert (load.opened, load.tally.lost.total(), load.tally.refused.total()) == (1, 1, 1)
    assert load.tally.due == load.tally.seconds == 0


async def test_a_full_connection_that_is_lost_leaves_no_task_behind() -> None:
    async def serve(ws: WebSocket) -> None:
        await trio.sleep(1)
        await ws.aclose()

    async with over_slow_network(serve) as connect:
        load = Load(Plan(rate=100, size=50_000, seconds=5, warmup=0, drain=60), connect)
        await load.run()
    assert load.tally.lost.total() == 1
    assert load.tally.unsent > 90


# ---------------------------------------------------------------------------
# Ending early
# ---------------------------------------------------------------------------


@pytest.mark.parametrize(("when", "measured"), [(0.5, 0), (1.5, 0), (4, 2)])
async def test_a_run_that_is_stopped_tells_of_what_there_was(when: float, measured: float) -> None:
    """While it opens connections, warms up, or measures."""

    async def slowly(request: object) -> None:
        await trio.sleep(1)

    codes: list[int] = []

    async def serve(ws: WebSocket) -> None:
        await answering(0.01)(ws)
        codes.append((await ws.wait_closed()).code)

    async with open_test_app(serve, process_request=slowly) as app:
        connect = partial(app.websocket, "/", decode_text=False)
        load = Load(Plan(connections=2, rate=100, warmup=1, seconds=60), connect)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run)
            await trio.sleep(when)
            load.stop()
    assert load.tally.seconds == pytest.approx(measured, abs=0.01)
    assert load.tally.unanswered == 0
    assert codes == ([1000] * 2 if when > 1 else [])
    assert as_text("ws://x", load).splitlines()[1].startswith("Interrupted. ")


async def test_a_run_that_is_cancelled_closes_its_connections() -> None:
    codes: list[int] = []

    async def serve(ws: WebSocket) -> None:
        await answering(0)(ws)
        codes.append((await ws.wait_closed()).code)

    async with open_test_app(serve) as app:
        connect = partial(app.websocket, "/", decode_text=False)
        with trio.move_on_after(2):
            await Load(Plan(connections=2, rate=10), connect).run()
        await trio.testing.wait_all_tasks_blocked()
    assert codes == [1001] * 2


# ---------------------------------------------------------------------------
# What it says while it runs, and of itself
# ---------------------------------------------------------------------------


async def test_the_progress_says_what_goes_on() -> None:
    said: list[str] = []
    async with open_test_app(answering(0.001)) as app:
        connect = partial(app.websocket, "/", decode_text=False)
        load = Load(Plan(connections=2, rate=100, seconds=4), connect)
        async with trio.open_nursery() as nursery:
            said.append(progress_of(load))
            nursery.start_soon(load.run)
            for _ in range(2):
                await trio.sleep(0.5)
                said.append(progress_of(load))
            await trio.sleep(2)
            said.append(progress_of(load))
    said.append(progress_of(load))
    load.tally.latency = Histogram()  # as in a load without answers
    assert progress_of(load) == said[4].removesuffix(", p99 1 ms")
    assert said[:2] == [
        "opening: 0 of 2 connections open",
        "warming up: 2 of 2 connections open",
    ]
    assert said[3].startswith("measuring [##########..........] 2.0 of 4 s, 100 messages a second")
    assert said[3].endswith(" came, p99 1 ms")
    assert said[4].startswith("closing [####################] 4.0 of 4 s, ")


async def test_a_load_that_is_late_itself_says_so() -> None:
    load = await run(answering(0.01), rate=10, seconds=2)
    assert warnings(load) == []
    for _ in range(100):
        load.tally.lag.record(0.006)
        load.tally.latency.record(0.009)
    (warning,) = warnings(load)
    assert warning.startswith("This program sent late: one message in a hundred by 6 ms")
    for _ in range(100):
        load.tally.latency.record(0.02)
    assert warnings(load) == []  # beside that, it does not matter


async def test_a_load_that_takes_all_of_a_processor_says_so() -> None:
    load = await run(answering(0.01), rate=10, seconds=2)
    load.tally.processor = 1.7
    assert warnings(load) == []
    load.tally.processor = 1.9
    (warning,) = warnings(load)
    assert warning.startswith("This program was busy 95% of the time.")


async def test_numbers_are_told_with_units_that_suit_them() -> None:
    load = await run(answering(0.01), rate=10, seconds=2)
    load.tally.sent_bytes, load.tally.received_bytes = 2 * 12_300_000, 2 * 4_560_000_000_000
    for seconds in (12, 3456):
        load.tally.latency.record(seconds)
    text = as_text("ws://x", load)
    assert "sent          10.0 messages a second, 12.3 MB a second\n" in text
    assert "received      10.0 messages a second, 4,560 GB a second\n" in text
    (latency,) = [line for line in text.splitlines() if line.startswith("latency")]
    assert latency.split(maxsplit=2)[2].startswith("10 ms")
    assert latency.endswith("max 3,456 s")


async def test_not_more_than_ten_reasons_are_told() -> None:
    load = await run(answering(0.01), rate=10, seconds=1)
    load.tally.lost.update({f"reason {number}": 20 - number for number in range(12)})
    lines = as_text("ws://x", load).splitlines()
    assert "20 lost: reason 0" in lines
    assert "11 lost: reason 9" in lines
    assert "19 lost for other reasons" in lines
