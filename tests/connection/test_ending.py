"""`ending`: its two tables are its data, and each step of them is taken by a connection.

Each scenario brings a connection over a socket to its end with a raw peer. The steps that it takes
are those that it looks up in the table. The clock is autojumped.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import cast

import pytest
import trio
import trio.testing

from tests.connection.reading_helpers import AWAY
from tests.helpers import (
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    TEXT,
    RawPeer,
    close_code,
    open_server_with_raw_client,
    socket_pair,
)
from trio_ws import Initiator, State, WebSocket
from trio_ws._connection import ending
from trio_ws._connection.ending import POST_MORTEM, STEPS, Ending, Phase, Step
from trio_ws._connection.reader import LAST_ANSWERS

pytestmark = pytest.mark.autojump

Taken = tuple[Phase, Step]

CLOSE_TIMEOUT = 7.0


# ---------------------------------------------------------------------------
# The tables in the documentation of the module
# ---------------------------------------------------------------------------


def table(number: int) -> dict[str, list[str]]:
    """The cells of a table in the module's docstring, by the first of each row."""
    text = f"{ending.__doc__}"
    bar = re.compile(r"^=+(?:  =+)+$", re.MULTILINE)
    bars = list(bar.finditer(text))[3 * number : 3 * number + 3]
    edges = [0, *(match.end() for match in re.finditer(r"=+  ", bars[0][0]))]
    rows: dict[str, list[str]] = {}
    for line in text[bars[1].end() : bars[2].start()].strip("\n").splitlines():
        ends = [*edges[1:], len(line)]
        cells = [line[start:end].strip() for start, end in zip(edges, ends, strict=True)]
        if cells[0]:
            rows[cells[0]] = cells
    return rows


def test_the_table_of_states_says_which_steps_lead_out_of_each() -> None:
    rows = table(0)
    assert list(rows) == [phase.name for phase in Phase]
    for phase, row in STEPS.items():
        cell = rows[phase.name][2]
        if cell.startswith("all"):
            expected = {step.name for step in Step} - {
                cell.removeprefix("all").removeprefix(" but ")
            }
        else:
            expected = set(cell.split(", ")) - {"–"}
        assert {step.name for step in row} == expected, phase


def test_the_table_of_steps_says_where_each_leads() -> None:
    rows = table(1)
    assert list(rows) == [step.name for step in Step]
    for row in STEPS.values():
        for step, phase in row.items():
            assert rows[step.name][2] == phase.name


def test_every_state_is_in_the_data() -> None:
    assert list(STEPS) == list(Phase)


# ---------------------------------------------------------------------------
# Scenarios
# ---------------------------------------------------------------------------


class Row(dict[Step, Phase]):
    """A row of `STEPS` that notes which of its steps are taken, and which it does not have."""

    def __init__(self, phase: Phase, row: Mapping[Step, Phase], trace: list[Taken]) -> None:
        super().__init__(row)
        self.phase = phase
        self.trace = trace

    def get(self, step: Step, default: Phase) -> Phase:  # type: ignore[override] # as it is called
        self.trace.append((self.phase, step))
        return super().get(step, default)

    def __getitem__(self, step: Step) -> Phase:
        self.trace.append((self.phase, step))
        return super().__getitem__(step)


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> list[Taken]:
    """Every step of the connections of this test, with the state in which it came."""
    steps: list[Taken] = []
    rows = {phase: Row(phase, row, steps) for phase, row in STEPS.items()}
    monkeypatch.setattr(ending, "STEPS", rows)
    return steps


class Torn(BaseException):
    """What the hook for pings raises: no error that ends one connection, but the program's end."""


def tear(*_: object) -> None:
    raise Torn


@dataclass
class Scene:
    """Our server's end of a connection, and its raw client."""

    ws: WebSocket
    peer: RawPeer
    nursery: trio.Nursery

    @property
    def stream(self) -> trio.SocketStream:
        return cast("trio.SocketStream", self.peer.stream)

    # What we do…

    async def close(self) -> None:
        self.nursery.start_soon(self.ws.aclose)
        await trio.testing.wait_all_tasks_blocked()

    async def leave_a_message_unfinished(self) -> None:
        with trio.CancelScope() as scope:
            async with self.ws.open_message("text"):
                scope.cancel()
                await trio.lowlevel.checkpoint()

    async def fill(self) -> None:
        """Have more to write than the peer takes."""
        await self.ws.send(b"x" * 2**24)
        await trio.testing.wait_all_tasks_blocked()
        assert self.ws.statistics().unsent_bytes > 0

    async def write_in_vain(self) -> None:
        self.stream.socket.shutdown(socket.SHUT_RD)
        self.ws.send_nowait("lost")

    # What the peer does…

    async def break_what_is_written(self) -> None:
        """It takes nothing more, and makes room, so that the next write fails."""
        self.stream.socket.shutdown(socket.SHUT_RD)
        while data := await self.stream.receive_some():
            self.peer.received += data
        await trio.testing.wait_all_tasks_blocked()

    async def answer_close(self, code: int) -> None:
        assert await self.peer.receive_close() == code
        self.closes.append(code)
        await self.peer.send_close(code)

    async def say_close(self) -> None:
        await self.peer.send_close(4000, "bye")

    async def break_protocol(self) -> None:
        await self.peer.send_frame(CONTINUATION)
        await self.hang_up()

    async def hang_up(self) -> None:
        await self.stream.send_eof()

    def __post_init__(self) -> None:
        #: The codes of the Close frames that the peer was sent.
        self.closes: list[int | None] = []

    async def receive_the_rest(self) -> None:
        for first, payload in await self.peer.receive_all_frames():
            if first == FIN | CLOSE:
                self.closes.append(close_code(payload))


Act = Callable[[Scene], Awaitable[None]]

OPEN, SAID, BROKEN, FAILED, AGREED, LOST, CLOSED = Phase
WE_CLOSE, PEER_CLOSES, FAIL, BREAK, LOSE, SETTLE = Step


@dataclass
class Case:
    """What happens, one thing after the other, and what must come of it."""

    acts: list[Act]
    steps: list[Taken]
    code: int
    by: Initiator
    failed: bool = False
    #: The codes of the Close frames that the peer is sent.
    sent: tuple[int, ...] = ()
    #: How long it takes.
    seconds: float = 0


async def take_a_message_and_keep_it(scene: Scene) -> None:
    await scene.peer.send_frame(TEXT, b"in hand")
    assert await scene.ws.receive() == "in hand"


async def wait_for_the_last_answer(scene: Scene) -> None:
    await trio.sleep(LAST_ANSWERS)


async def ping(scene: Scene) -> None:
    await scene.peer.send_frame(PING)


S = Scene
US, PEER = Initiator.LOCAL, Initiator.REMOTE

CASES = {
    "we close, and the peer answers": Case(
        [S.close, partial(S.answer_close, code=1000)],
        [(OPEN, WE_CLOSE), (SAID, PEER_CLOSES), (AGREED, SETTLE)],
        *(1000, US),
        sent=(1000,),
    ),
    "we close, and the peer breaks the protocol": Case(
        [S.close, S.break_protocol],
        [(OPEN, WE_CLOSE), (SAID, FAIL), (FAILED, SETTLE)],
        *(1002, US, True),
        sent=(1000,),
    ),
    "we close, and what waits cannot be written": Case(
        [S.fill, S.close, S.break_what_is_written],
        [(OPEN, WE_CLOSE), (SAID, BREAK), (BROKEN, SETTLE)],
        *(1006, PEER),
        seconds=POST_MORTEM,
    ),
    "we close, and the peer hangs up without an answer": Case(
        [S.close, S.hang_up],
        [(OPEN, WE_CLOSE), (SAID, LOSE), (LOST, SETTLE)],
        *(1006, PEER),
        sent=(1000,),
    ),
    "we close, and the peer says nothing": Case(
        [S.close],
        [(OPEN, WE_CLOSE), (SAID, SETTLE)],
        *(1006, US),
        sent=(1000,),
        seconds=CLOSE_TIMEOUT,
    ),
    "the peer closes": Case(
        [S.say_close],
        [(OPEN, PEER_CLOSES), (AGREED, SETTLE)],
        *(4000, PEER),
        sent=(4000,),
    ),
    "the peer closes, and takes nothing more": Case(
        [
            S.fill,
            take_a_message_and_keep_it,
            S.say_close,
            wait_for_the_last_answer,
            S.break_what_is_written,
        ],
        [(OPEN, PEER_CLOSES), (AGREED, LOSE), (LOST, SETTLE)],
        *(4000, PEER),
        seconds=LAST_ANSWERS,
    ),
    "the peer breaks the protocol": Case(
        [S.break_protocol],
        [(OPEN, FAIL), (FAILED, SETTLE)],
        *(1002, US, True),
        sent=(1002,),
    ),
    "we leave a message unfinished, and the peer closes": Case(
        [S.leave_a_message_unfinished, partial(S.answer_close, code=1011)],
        [(OPEN, FAIL), (FAILED, PEER_CLOSES), (AGREED, SETTLE)],
        *(1011, US, True),
        sent=(1011,),
    ),
    "we leave a message unfinished, and the peer hangs up": Case(
        [S.leave_a_message_unfinished, S.hang_up],
        [(OPEN, FAIL), (FAILED, LOSE), (LOST, SETTLE)],
        *(1011, US, True),
        sent=(1011,),
    ),
    "we leave a message unfinished, and the peer says nothing": Case(
        [S.leave_a_message_unfinished],
        [(OPEN, FAIL), (FAILED, SETTLE)],
        *(1011, US, True),
        sent=(1011,),
        seconds=CLOSE_TIMEOUT,
    ),
    "a write fails, and the peer had closed": Case(
        [S.write_in_vain, S.say_close],
        [(OPEN, BREAK), (BROKEN, PEER_CLOSES), (AGREED, SETTLE)],
        *(4000, PEER),
    ),
    "a write fails, and the peer had broken the protocol": Case(
        [S.write_in_vain, S.break_protocol],
        [(OPEN, BREAK), (BROKEN, FAIL), (FAILED, SETTLE)],
        *(1002, US, True),
    ),
    "a write fails, and the peer had hung up": Case(
        [S.write_in_vain, S.hang_up],
        [(OPEN, BREAK), (BROKEN, LOSE), (LOST, SETTLE)],
        *(1006, PEER),
    ),
    "a write fails, and nothing says why": Case(
        [S.write_in_vain],
        [(OPEN, BREAK), (BROKEN, SETTLE)],
        *(1006, PEER),
        seconds=POST_MORTEM,
    ),
    "the peer hangs up without a Close frame": Case(
        [S.hang_up],
        [(OPEN, LOSE), (LOST, SETTLE)],
        *(1006, PEER),
    ),
    "the program ends in the middle of it": Case(
        [ping],
        [(OPEN, SETTLE)],
        *(1006, US),
    ),
}


async def run(case: Case, trace: list[Taken]) -> None:
    start = trio.current_time()
    taken: list[Taken] = []
    torn = False
    try:
        async with (
            open_server_with_raw_client(
                streams=socket_pair(),
                close_timeout=CLOSE_TIMEOUT,
                ping_interval=inf,
                on_ping_pong=tear,
            ) as (ws, peer),
            trio.open_nursery() as nursery,
        ):
            scene = Scene(ws, peer, nursery)
            for act in case.acts:
                await act(scene)
            await ws.wait_closed()
            taken = list(trace)
            await scene.receive_the_rest()
            assert scene.closes == list(case.sent)
            assert trio.current_time() - start == pytest.approx(case.seconds)
    except* Torn:
        torn = True
        taken = list(trace)
    assert torn == (ping in case.acts)
    assert ws.state is State.CLOSED
    reason = ws.close_reason
    assert reason is not None
    assert (reason.code, reason.initiator, reason.failed) == (case.code, case.by, case.failed)
    assert [each for each in taken if each[1] in STEPS[each[0]]] == case.steps


@pytest.mark.parametrize("name", CASES)
async def test_an_end_takes_its_steps_and_has_its_outcome(name: str, trace: list[Taken]) -> None:
    await run(CASES[name], trace)


def test_every_step_of_the_table_is_taken_by_one_of_these_ends() -> None:
    taken = {step for case in CASES.values() for step in case.steps}
    assert taken == {(phase, step) for phase, row in STEPS.items() for step in row}


# ---------------------------------------------------------------------------
# A step that is not in the row
# ---------------------------------------------------------------------------


async def closed(scene: Scene) -> None:
    await scene.ws.wait_closed()


def we_close(end: Ending) -> None:
    end.close(1000, "late")


def the_peer_closes(end: Ending) -> None:
    end.heed_peer()


def fail(end: Ending) -> None:
    end.fail(1011, "late")


def break_(end: Ending) -> None:
    end.write_failed(trio.BrokenResourceError("late"))


#: What brings a connection into a state in which it stays for a while, and what is out of turn.
LATE: dict[Phase, tuple[list[Act], list[Callable[[Ending], None]]]] = {
    SAID: ([S.close], [we_close]),
    BROKEN: ([S.write_in_vain], [we_close, break_]),
    FAILED: ([S.leave_a_message_unfinished], [we_close, fail, break_]),
    AGREED: ([S.fill, S.say_close], [we_close, the_peer_closes, fail, break_]),
    CLOSED: ([S.say_close, closed], [we_close, the_peer_closes, fail, break_]),
}


@pytest.mark.parametrize(
    ("phase", "late"), [(phase, late) for phase, (_, steps) in LATE.items() for late in steps]
)
async def test_a_step_that_is_not_in_the_row_changes_nothing_but_the_time(
    phase: Phase, late: Callable[[Ending], None], trace: list[Taken]
) -> None:
    async with (
        open_server_with_raw_client(
            streams=socket_pair(), close_timeout=CLOSE_TIMEOUT, ping_interval=inf
        ) as (ws, peer),
        trio.open_nursery() as nursery,
    ):
        scene = Scene(ws, peer, nursery)
        for act in LATE[phase][0]:
            await act(scene)
        await trio.sleep(AWAY)  # the reader task reads
        await trio.testing.wait_all_tasks_blocked()
        *_, (last, step) = [each for each in trace if each[1] in STEPS[each[0]]]
        assert STEPS[last][step] is phase
        end = ws._ending
        before, deadline = (end.reason, end.state, ws.statistics().bytes_sent), end.deadline
        trace.clear()
        late(end)
        assert [each for each in trace if each[1] in STEPS[each[0]]] == []
        assert (end.reason, end.state, ws.statistics().bytes_sent) == before
        assert end.deadline <= deadline


async def test_where_no_byte_goes_either_way_any_more_no_close_frame_is_made() -> None:
    async with open_server_with_raw_client(streams=socket_pair()) as (ws, _):
        ws._ending.lose(None, "gone")
        sent = ws.statistics().bytes_sent
        ws._ending.fail(1011, "late")  # before the reader task has had its turn
        assert ws.statistics().bytes_sent == sent
        assert (await ws.wait_closed()).code == 1006


async def test_only_the_reader_task_that_there_is_has_the_deadline() -> None:
    async with open_server_with_raw_client(streams=socket_pair()) as (ws, _):
        end = ws._ending
        first, second = end.open_scope(), end.open_scope()
        end.close_scope(first)  # which was let go when the second had been started
        end.close(1000, "")
        assert second.deadline == end.deadline < inf == first.deadline
        end.abort()
        assert (first.cancel_called, second.cancel_called) == (False, True)


async def test_where_there_is_no_reader_task_the_next_one_has_no_time() -> None:
    async with open_server_with_raw_client(streams=socket_pair()) as (ws, _):
        start = trio.current_time()
        ws._ending.abort()
        await ws.wait_closed()
        assert trio.current_time() - start < 0.1
