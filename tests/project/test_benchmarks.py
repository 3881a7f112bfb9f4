"""The benchmarks run: each case in miniature, and what is made of the results.

How fast anything is, is not looked at here. The peers are those that are installed: some of them
always, as other tests need them as well, and all of them where ``make bench`` was.
"""

from __future__ import annotations

import dataclasses
import json
import math
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine, wire
from benchmarks.cases import CASES, Case, Echo, read_reply
from benchmarks.chart import to_svg
from benchmarks.load import LoadFailed, Pipe
from benchmarks.processes import Stage
from benchmarks.report import Figure, Report, advantage, targets_to_markdown, to_markdown
from benchmarks.roster import BY_NAME, Peer
from benchmarks.rounds import Result, measure
from benchmarks.targets import TARGETS
from tests.helpers import TEXT, frame, parse_frame

ROOT = Path(__file__).parents[2]

PEERS = [peer for peer in BY_NAME.values() if not peer.missing]

#: Enough for some messages.
SECONDS = 0.01


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Where a server that runs is used again, which no real measurement does."""
    with Stage(keep=True) as stage:
        yield stage


def miniature(case: Case) -> Case:
    """The same with few connections, and no message over 1 MiB."""
    changes: dict[str, Any] = {"peers": ()}
    for name, limit in (("connections", 5), ("size", 2**20)):
        if hasattr(case, name):
            changes[name] = min(getattr(case, name), limit)
    return dataclasses.replace(case, **changes)


def measure_strictly(cases: list[Case], peers: list[Peer], stage: Stage) -> list[Result]:
    """Where nothing may fail; that something is not as fast as it could be is no failure."""
    remarks: list[str] = []
    rounds = measure(cases, peers, rounds=1, seconds=SECONDS, stage=stage, remark=remarks.append)
    results = [result for of_case in rounds for result in of_case]
    assert [remark for remark in remarks if "does without" not in remark] == []
    return results


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_case_runs_with_every_peer_that_can_do_it(peer: Peer, stage: Stage) -> None:
    cases = [miniature(case) for case in CASES.values()]
    results = measure_strictly(cases, [peer], stage)
    assert {result.case.name for result in results} == {
        case.name for case in cases if case.suits(peer)
    }
    for result in results:
        if not result.case.less_is_better:  # memory may not grow by a few connections
            assert result.value > 0
        assert math.isfinite(result.value)


@pytest.mark.parametrize("name", ["trio_ws", "websockets_trio", "websockets_asyncio", "aiohttp"])
def test_those_that_are_always_installed_can_do_every_case(name: str) -> None:
    peer = BY_NAME[name]
    assert not peer.missing
    assert all(miniature(case).suits(peer) for case in CASES.values())


# ---------------------------------------------------------------------------
# Who takes part
# ---------------------------------------------------------------------------


def test_what_is_not_installed_or_not_allowed_is_left_out_with_a_remark(stage: Stage) -> None:
    absent = Peer(name="absent", title="Absent", module="absent", requires=("no_such_module",))
    lame = dataclasses.replace(BY_NAME["raw_trio"], prefers=("no_such_module",))
    huge = Echo(name="huge", title="huge", size=16, connections=10**9)
    stage.descriptor_limit = min(stage.descriptor_limit, 10_000)
    remarks: list[str] = []
    results = list(
        measure(
            [huge, CASES["echo-16"]],
            [absent, lame],
            rounds=1,
            seconds=SECONDS,
            stage=stage,
            remark=remarks.append,
        )
    )
    assert [result.peer for (result,) in results] == [lame]
    assert remarks == [
        "absent left out: no_such_module is not installed",
        "raw_trio does without no_such_module, with which it is faster",
        "huge left out: the system allows 9900 connections, see ulimit -n",
    ]


def test_a_peer_that_fails_says_why_and_does_not_stop_the_others() -> None:
    broken = Peer(name="broken", title="Broken", module="no_such_peer")
    remarks: list[str] = []
    with Stage() as stage:
        (results,) = measure(
            [CASES["echo-16"]],
            [broken, BY_NAME["raw_trio"]],
            rounds=2,
            seconds=SECONDS,
            stage=stage,
            remark=remarks.append,
        )
    assert [result.peer.name for result in results] == ["raw_trio"]
    (remark,) = remarks
    assert "broken failed in echo-16: the server of Broken did not start" in remark
    assert "No module named benchmarks.peers.no_such_peer" in remark


def test_a_module_can_be_hidden_from_a_peer() -> None:
    code = "import benchmarks.peers\ntry: import trustme\nexcept ImportError: print('hidden')"
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"BENCHMARKS_WITHOUT": "trustme numpy"},
        capture_output=True,
        check=True,
    )
    assert finished.stdout == b"hidden\n"


# ---------------------------------------------------------------------------
# The load
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536])
def test_an_echo_that_is_right_is_taken_for_right(size: int, deflate: bool) -> None:
    payload = wire.document(size)
    if deflate:
        reply = wire.frame(wire.FIN | wire.RSV1 | wire.TEXT, wire.deflated(payload), masked=False)
    else:
        reply = wire.frame(wire.FIN | wire.TEXT, payload, masked=False)
    assert receive(reply, payload) == reply


@pytest.mark.parametrize(
    "reply",
    [
        wire.frame(wire.FIN | wire.TEXT, b"hellp", masked=False),
        wire.frame(wire.TEXT, b"hello", masked=False),
        wire.GOODBYE,
        b"\x81",
    ],
)
def test_an_echo_that_is_wrong_ends_the_measurement(reply: bytes) -> None:
    with pytest.raises(LoadFailed):
        receive(reply, b"hello")


def receive(reply: bytes, payload: bytes) -> bytes:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        ours.settimeout(1)
        theirs.send(reply)
        theirs.close()
        return read_reply(Pipe(ours), payload)


def test_the_frames_of_the_load_are_those_of_the_suite() -> None:
    for size in (0, 125, 126, 65_535, 65_536):
        payload = b"x" * size
        masked = wire.frame(wire.FIN | wire.TEXT, payload, masked=True)
        assert parse_frame(masked) == (0x81, payload, len(masked))
        assert wire.frame(0x81, payload, masked=False) == frame(TEXT, payload, mask=False)


# ---------------------------------------------------------------------------
# What is made of it
# ---------------------------------------------------------------------------


def made_up_report() -> Report:
    """Every case with every peer: the first reaches 1000, the next 2000, and so on."""
    report = Report(machine.describe(), 3, 1.0, remarks=["one remark"])
    for case in CASES.values():
        report.figures[case.name] = {
            peer: Figure(n * 1000.0, [n * 1000.0] * 3, {"microseconds": n / 7, "load": n / 10})
            for n, peer in enumerate(BY_NAME, 1)
            if case.suits(BY_NAME[peer])
        }
    return report


def test_a_report_survives_being_written_and_read() -> None:
    report = made_up_report()
    assert Report.from_json(report.to_json()) == report


def test_tables_have_every_case_and_name_losses_as_plainly_as_wins() -> None:
    tables = to_markdown(made_up_report())
    for case in CASES.values():
        assert f"| {case.title} |" in tables
    assert "| 16 B, one in flight | messages/s | 1,000 | 2,000 | 3,000 |" in tables
    assert "**0.33 ×**" in tables  # trio_ws beside the third peer
    assert "3.00 ×" in tables  # and of its memory, which is better when less
    assert "- one remark" in tables


def test_what_the_load_may_have_held_back_is_marked() -> None:
    report = made_up_report()
    report.figures["echo-16"]["picows"].details["load"] = 0.95
    assert "| ≥ 8,000 |" in to_markdown(report)


def test_a_disturbed_run_says_so() -> None:
    report = made_up_report()
    assert "disturbed" not in to_markdown(report)
    for figure in report.figures["echo-16"].values():
        figure.details["waited"] = 0.5
    assert "for 50% of the time" in to_markdown(report)


def test_the_chart_is_an_image_with_every_number() -> None:
    report = made_up_report()
    svg = to_svg(report)
    words = "".join(ET.fromstring(svg).itertext())
    for peer in report.peers:
        assert peer.title in words
    assert "9,000" in words


def test_every_target_is_about_something_that_is_measured() -> None:
    for target in TARGETS:
        for peer in (target.subject, target.peer or target.subject):
            assert CASES[target.case].suits(BY_NAME[peer])


def test_a_target_is_reached_missed_or_not_measured() -> None:
    report = made_up_report()
    memory = CASES["memory"]
    figures = report.figures["memory"]
    assert advantage(memory, figures["trio_ws"], figures["picows"]) == 8
    figures["trio_ws"] = Figure(11.0, [11.0])
    del report.figures["client-16"]
    rows = targets_to_markdown(report).splitlines()
    assert "| memory of an idle connection | trio_ws | ≤ 12 KiB | 11.0 | reached |  |" in rows
    assert [row for row in rows if "| 0.12 × | **missed** | 8.00 × |" in row]
    assert [row for row in rows if row.startswith("| client") and "not measured" in row]


def test_the_command_writes_results_and_renders_them_again(tmp_path: Path) -> None:
    measured, rendered = tmp_path / "measured", tmp_path / "rendered"
    run(
        "--case",
        "echo-16",
        "--peer",
        "raw_trio",
        "--rounds",
        "1",
        "--seconds",
        "0.01",
        "--out",
        measured,
    )
    run("--render", measured / "results.json", "--out", rendered)
    for name in ("results.json", "tables.md", "chart.svg"):
        assert (measured / name).read_text("utf-8") == (rendered / name).read_text("utf-8")
    assert list(json.loads((measured / "results.json").read_text("utf-8"))["figures"]) == [
        "echo-16"
    ]


def test_the_command_names_what_there_is() -> None:
    names = run("--list")
    assert all(f"--case {case} " in names for case in CASES)
    assert all(f"--peer {peer} " in names for peer in BY_NAME)


def run(*arguments: object) -> str:
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
