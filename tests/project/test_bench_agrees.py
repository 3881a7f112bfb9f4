"""`trio-ws bench` sees what the loads of the benchmarks see, at the same server.

With TRIO_WS_SOAK=1 in the environment, the loads are larger and take longer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from benchmarks import wire
from benchmarks.load import Endpoint, ManyExchange, open_connections
from benchmarks.load_in_c import LoadInC, build, open_load_in_c
from benchmarks.paced import Pace, open_load
from benchmarks.processes import Stage
from benchmarks.roster import BY_NAME
from benchmarks.subject import Mode
from tests.helpers import HOST, open_server
from tests.whole.server_process import SOAK
from trio_ws import WebSocket

SIZE = 100
SENT = wire.frame(wire.FIN | wire.TEXT, b"x" * SIZE, masked=True)
CAME = wire.frame(wire.FIN | wire.TEXT, b"x" * SIZE, masked=False)

CONNECTIONS, RATE, SECONDS = (100, 2000, 20) if SOAK else (10, 200, 0.8)

#: A server that answers when its clock ticks does so every so many seconds.
TICK = 0.02

#: How far apart two loads may be.
MARGIN = 0.05

#: The same where each waits for the other side: a busy machine lets one have its turn later.
MARGIN_IN_FLIGHT = 0.05 if SOAK else 0.3

#: The machine may stop one of them for a moment, and not the other. That it does so each time is
#: unlikely.
TRIES = 5

#: The loads: that in Python, and that in C where it can be built.
PROGRAMS = [None, program] if (program := build()) else [None]


@dataclass(frozen=True)
class Seen:
    """Messages a second, and the median of the latency in seconds where it was measured."""

    rate: float
    median: float = 1.0


def bench(port: int, *load: str) -> Seen:
    """What `trio-ws bench` sees."""
    arguments = ["--connections", str(CONNECTIONS), "--size", str(SIZE), "--seconds", str(SECONDS)]
    command = [sys.executable, "-m", "trio_ws", "bench", f"ws://{HOST}:{port}", *arguments, *load]
    command += ["--warmup", "0.3", "--no-compression", "--json"]
    found: dict[str, Any] = json.loads(subprocess.check_output(command))
    assert found["messages"]["unanswered"] == found["messages"]["strays"] == 0
    return Seen(found["per_second"]["received"], found["latency_seconds"]["p50"])


def agreeing(
    ours: Callable[[], Seen], *others: Callable[[], Seen], margin: float = MARGIN
) -> list[Seen]:
    """What they see, ours first, when all are within the margin of ours."""
    tries: list[list[Seen]] = []
    while len(tries) < TRIES:
        tries.append([see() for see in (ours, *others)])
        mine, *theirs = tries[-1]
        if all(seen.rate == pytest.approx(mine.rate, rel=margin) for seen in theirs):
            return tries[-1]
    pytest.fail(f"they do not agree: {tries}")


def test_at_a_rate_it_sees_what_the_paced_loads_see() -> None:
    pace = Pace(CONNECTIONS, RATE / CONNECTIONS, SENT, len(CAME))

    def paced(program: Path | None) -> Seen:
        with open_load(Endpoint(server.ports[Mode.ECHO]), pace, program) as load:
            seen = load.run(SECONDS)
        return Seen(seen.messages / seen.seconds, seen.microseconds["p50"] / 1e6)

    with Stage() as stage, stage.server(BY_NAME["trio_ws"]) as server:
        ours = partial(bench, server.ports[Mode.ECHO], "--rate", str(RATE))
        mine, *theirs = agreeing(ours, *[partial(paced, program) for program in PROGRAMS])
    for seen in theirs:
        # How late a message is sent is in ours, and depends on what else the machine does.
        assert 1 / 50 < mine.median / seen.median < 50


async def test_in_flight_it_sees_what_the_loads_of_the_benchmarks_see() -> None:
    """Where the server is the limit, and a clock the server's: how fast a load turns an answer into
    the next message is its own affair.
    """

    async def serve(ws: WebSocket) -> None:
        async for message in ws:
            await trio.sleep(TICK - trio.current_time() % TICK)
            await ws.send(message)

    def exchange(program: Path | None) -> Seen:
        with ExitStack() as stack:
            load: LoadInC | ManyExchange
            if program:
                arguments = Endpoint(server.port), SENT, len(CAME)
                opened = open_load_in_c(program, *arguments, connections=CONNECTIONS)
                load = stack.enter_context(opened)
            else:
                sockets = stack.enter_context(open_connections(server.port, CONNECTIONS))
                load = ManyExchange(sockets, SENT, len(CAME))
            return Seen(load.run(SECONDS))

    async with open_server(serve, compression=None) as server:
        ours = partial(bench, server.port)
        others = [partial(exchange, program) for program in PROGRAMS]
        agree = partial(agreeing, margin=MARGIN_IN_FLIGHT)
        await trio.to_thread.run_sync(agree, ours, *others)
