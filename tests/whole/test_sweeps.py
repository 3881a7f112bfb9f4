"""Sweeps: cancel at every scheduling step, fail the k-th operation, read one byte at a time.

Each test runs one scenario again and again, with the fault one step later each time, until a run
gets through without it. What must hold in every run: only documented exceptions come out, and no
task and no stream is left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

import trio_ws
from tests.helpers import URL
from tests.whole.sweeping import CancelAtStep, converse
from trio_ws import ConnectionClosed, HandshakeError, WebSocket
from trio_ws.testing import FaultyStream

pytestmark = pytest.mark.autojump

Scenario = Callable[[trio.abc.Stream], Awaitable[None]]

OPTIONS = {"close_timeout": 2, "open_timeout": 5}


async def as_client(stream: trio.abc.Stream) -> None:
    async with trio_ws.wrap_client_stream(stream, URL, **OPTIONS) as ws:  # type: ignore[arg-type]
        await converse(ws)


async def as_server(stream: trio.abc.Stream) -> None:
    async with trio_ws.wrap_server_stream(stream, **OPTIONS) as ws:  # type: ignore[arg-type]
        await converse(ws)


async def peer_of_client(stream: trio.abc.Stream) -> None:
    async with trio_ws.wrap_server_stream(stream) as ws:
        await respond(ws)


async def peer_of_server(stream: trio.abc.Stream) -> None:
    async with trio_ws.wrap_client_stream(stream, URL) as ws:
        await respond(ws)


async def respond(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


SIDES = pytest.mark.parametrize(
    ("side", "peer"),
    [(as_client, peer_of_client), (as_server, peer_of_server)],
    ids=["client", "server"],
)


async def run_peer(peer: Scenario, stream: trio.abc.Stream) -> None:
    try:
        await peer(stream)
    except (ConnectionClosed, HandshakeError):
        await trio.aclose_forcefully(stream)


@SIDES
async def test_cancelling_at_every_scheduling_step_leaves_nothing(
    side: Scenario, peer: Scenario
) -> None:
    for step in range(1, 500):
        one, other = trio.testing.memory_stream_pair()
        ours = FaultyStream(one)
        tasks = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_peer, peer, other)
            with trio.CancelScope() as scope:
                instrument = CancelAtStep(scope, trio.lowlevel.current_task(), step)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await side(ours)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
        assert ours.closed
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        if instrument.steps_left > 0:
            assert step > 10
            return
    raise AssertionError("the scenario never got through")


@SIDES
@pytest.mark.parametrize("fault", ["error", "end of file"])
async def test_a_fault_at_the_kth_operation_is_a_documented_exception_and_leaves_nothing(
    side: Scenario, peer: Scenario, fault: str
) -> None:
    for k in range(1, 200):
        one, other = trio.testing.memory_stream_pair()
        ours = FaultyStream(one, fail_at=k) if fault == "error" else FaultyStream(one, cut_at=k)
        tasks = trio.lowlevel.current_statistics().tasks_living
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_peer, peer, other)
            try:
                await side(ours)
            except (ConnectionClosed, HandshakeError):
                failed = True
            else:
                failed = False
        assert ours.closed
        assert trio.current_time() - start <= 30
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        if not failed and ours.operations < k:
            assert k > 5
            return
    raise AssertionError("the scenario never got through")


@SIDES
async def test_reads_of_one_byte_change_nothing(side: Scenario, peer: Scenario) -> None:
    one, other = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_peer, peer, FaultyStream(other, max_receive=1))
        await side(FaultyStream(one, max_receive=1))
