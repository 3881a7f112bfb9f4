"""The benchmarks run: each case in miniature, and what is made of the results.

How fast anything is, is not looked at here. The peers are those that are installed: some of them
always, as other tests need them as well, and all of them where ``make bench`` was.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine, wire
from benchmarks.cases import CASES, PACED, Case, Echo, read_reply
from benchmarks.chart import to_svg
from benchmarks.load import Endpoint, LoadFailed, Pipe
from benchmarks.load_in_c import build
from benchmarks.paced import Pace, Seen, open_load
from benchmarks.processes import ProcessorTime, Stage
from benchmarks.report import Figure, Report, advantage, targets_to_markdown, to_markdown
from benchmarks.roster import BESIDE, BY_NAME, KNOWN, Peer
from benchmarks.rounds import Result, measure
from benchmarks.subject import HOST, Mode
from benchmarks.targets import TARGETS, Target
from tests.helpers import TEXT, frame, parse_frame

ROOT = Path(__file__).parents[2]

PEERS = [peer for peer in BY_NAME.values() if not peer.missing]

#: Enough for some messages.
SECONDS = 0.01

#: The program in C is built where that is possible.
LOADS = ["python", "c"] if build() else ["python"]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Where a server that runs is used again, which no real measurement does."""
    with Stage(keep=True) as stage:
        yield stage


#: Processor time is not told by every system.
MEASURABLE = [case for case in CASES.values() if ProcessorTime.is_told() or case not in PACED]


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
    cases = [miniature(case) for case in MEASURABLE]
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


def test_a_paced_case_is_left_out_where_the_system_tells_no_processor_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProcessorTime, "is_told", lambda: False)
    remarks: list[str] = []
    results = measure(
        [CASES["paced-100"], CASES["echo-16"]],
        [BY_NAME["raw_trio"]],
        rounds=1,
        seconds=SECONDS,
        stage=stage,
        remark=remarks.append,
    )
    assert [result.case.name for (result,) in results] == ["echo-16"]
    assert remarks == ["paced-100 left out: the system does not tell processor time, as Linux does"]


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


@pytest.mark.parametrize("realtime", [False, True])
def test_others_wait_while_it_measures_where_that_is_wanted_and_allowed(realtime: bool) -> None:
    policy = getattr(os, "sched_getscheduler", lambda pid: 0)
    before = policy(0)
    with Stage(realtime=realtime) as stage, stage.server(BY_NAME["raw_trio"]) as server:
        assert stage.is_realtime <= realtime
        assert (policy(server.pid) != before) is stage.is_realtime
    assert policy(0) == before


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


def test_a_library_comes_from_the_checkout_that_is_measured_beside_this_one(
    tmp_path: Path,
) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "trio_ws").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").touch()
    (tmp_path / "trio_ws" / "__init__.py").touch()
    code = "import benchmarks.peers, trio_ws; print(benchmarks.__file__, trio_ws.__file__)"
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"BENCHMARKS_LIBRARY": str(tmp_path)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert [Path(file).parents[1] for file in finished.stdout.split()] == [ROOT, tmp_path]


# ---------------------------------------------------------------------------
# The load
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("language", LOADS)
@pytest.mark.parametrize("mode", [Mode.ECHO, Mode.TLS])
def test_a_paced_load_sends_as_often_as_it_is_to(stage: Stage, mode: Mode, language: str) -> None:
    context = stage.client_context if mode is Mode.TLS else None
    program = build(tls=mode is Mode.TLS) if language == "c" else None
    sent = wire.frame(wire.FIN | wire.TEXT, b"hello", masked=True)
    came = wire.frame(wire.FIN | wire.TEXT, b"hello", masked=False)
    pace = Pace(60, 10, sent, len(came))  # more connections than are opened at once
    with (
        stage.server(BY_NAME["trio_ws"]) as server,
        open_load(Endpoint(server.ports[mode], context), pace, program) as load,
    ):
        seen = [load.run(seconds) for seconds in (0.15, 0)]
    assert [one.messages for one in seen] == [90, 1]
    assert seen[0].seconds > 89 / 600
    for one in seen:
        check_latencies(one)


def check_latencies(seen: Seen) -> None:
    times = seen.microseconds
    assert list(times) == ["p50", "p99", "p99.9", "late"]
    assert 0 < times["p50"] <= times["p99"] <= times["p99.9"] <= seen.seconds * 1e6
    assert times["late"] >= 0


@pytest.mark.parametrize("language", LOADS)
@pytest.mark.parametrize(
    "answers", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", wire.response(wire.KEY)]
)
def test_a_paced_load_fails_with_a_server_that_does(answers: bytes, language: str) -> None:
    with socket.create_server((HOST, 0)) as listener:

        def answer() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(answers)
                if b"101" in answers:
                    sock.recv(65536)

        server = threading.Thread(target=answer)
        server.start()
        endpoint = Endpoint(listener.getsockname()[1])
        pace = Pace(1, 10, b"hello", 5)
        program = build() if language == "c" else None
        with (
            pytest.raises(LoadFailed, match="ended|refused"),
            open_load(endpoint, pace, program) as load,
        ):
            load.run(0.1)
        server.join()


def test_the_load_is_in_c_where_that_is_wanted_and_can_be_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    echo, paced, memory = (CASES[name] for name in ("echo-16", "paced-100", "memory"))
    program = build()
    assert [paced.load_in_c(load) for load in (None, "c", "python")] == [program, program, None]
    assert [echo.load_in_c(load) for load in (None, "c", "python")] == [None, program, None]
    assert memory.load_in_c("c") is None
    monkeypatch.setenv("PATH", "")
    assert paced.load_in_c("c") is None


def test_every_echo_runs_with_the_load_in_c(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "load", "c")
    cases = [miniature(case) for case in CASES.values() if isinstance(case, Echo)]
    for peer in ("trio_ws", "raw_trio"):
        results = measure_strictly(cases, [BY_NAME[peer]], stage)
        assert len(results) == len([case for case in cases if case.suits(BY_NAME[peer])])
        assert all(result.value > 0 for result in results)


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
    for case in PACED:
        for n, figure in enumerate(report.figures[case.name].values(), 1):
            times = {"p50": 100 * n, "p99": 1000 * n, "p99.9": 3456 * n, "late": 50 * n}
            figure.details.update(times)
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


def test_latencies_of_a_paced_load_say_whether_it_was_late() -> None:
    report = made_up_report()
    row = "| 125 B, 100 connections × 20 a second | ms, p50 / p99 / p99.9 | {}0.100 / 1.00 / 3.46 |"
    assert row.format("") in to_markdown(report)
    assert "~" not in to_markdown(report)
    report.figures["paced-100"]["trio_ws"].details["late"] = 2000
    tables = to_markdown(report)
    assert row.format("~ ") in tables
    assert "~: others held the load's core" in tables


def test_a_server_that_falls_behind_a_paced_load_is_named() -> None:
    report = made_up_report()
    assert "too much for" not in to_markdown(report)
    report.figures["paced-100"]["trio_ws"].details["rate"] = 2000.0
    report.figures["paced-100"]["picows"].details["rate"] = 1234.5
    assert (
        "connections × 20 a second: too much for picows, uvloop 1,230 messages a second instead"
        " of 2,000." in to_markdown(report)
    )


def test_checkouts_are_compared_by_processor_time_and_by_each_round() -> None:
    report = made_up_report()
    assert "the other checkout" not in to_markdown(report)
    for case in ("echo-16", "echo-64k", "memory"):
        for peer, one in (("trio_ws", 2.0), ("trio_ws_beside", 3.0)):
            rounds = [one, one * one, one + 1]
            waited = {"waited": 0.03} if peer == "trio_ws_beside" else {}
            report.figures[case][peer] = Figure(one, rounds, waited, costs=rounds)
    rows = to_markdown(report).splitlines()
    times = "3.00 | 4.00 | 1.33 × | 1.33 – 2.25 | 0% / 3% |"
    assert f"| 16 B, one in flight | trio_ws | µs/message | {times}" in rows
    assert f"| memory of an idle connection | trio_ws | KiB | {times}" in rows
    assert any(
        row.startswith("| 64 KiB, 4 in flight | trio_ws | ns/byte | 0.0458 | 0.0610 | 1.33 ×")
        for row in rows
    )


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
            assert CASES[target.than or target.case].suits(BY_NAME[peer])


def test_a_target_is_reached_missed_or_not_measured() -> None:
    report = made_up_report()
    memory = CASES["memory"]
    figures = report.figures["memory"]
    assert advantage(memory, figures["trio_ws"], figures["picows"]) == 8
    figures["trio_ws"] = Figure(11.0, [11.0])
    del report.figures["client-16"]
    rows = targets_to_markdown(report).splitlines()
    assert "| memory of an idle connection | trio_ws | ≤ 10 KiB | 11.0 | **missed** |  |" in rows
    assert [row for row in rows if "| 0.12 × | **missed** | 8.00 × |" in row]
    assert [row for row in rows if row.startswith("| client") and "not measured" in row]


@pytest.mark.parametrize(
    ("costs", "cells"),
    [
        ((20.0, 39.0), "1.95 × | reached |  |"),
        ((20.0, 41.0), "2.05 × | **missed** |  |"),
        ((20.0, None), " | not measured |  |"),
    ],
)
def test_a_target_may_be_about_the_growth_of_a_cost(
    costs: tuple[float | None, ...], cells: str
) -> None:
    report = made_up_report()
    target = Target("connections-10000", 2, than="connections-100")
    for case, cost in zip(("connections-100", "connections-10000"), costs, strict=True):
        details = {} if cost is None else {"microseconds": cost}
        report.figures[case] = {"trio_ws": Figure(1.0, [1.0], details)}
    last = targets_to_markdown(report, [target]).splitlines()[-1]
    assert last.startswith("| 125 B, 10,000 connections | trio_ws | ≤ 2 × 125 B, 100 connections |")
    assert last.endswith(cells)


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


def test_the_command_measures_another_checkout_beside_this_one(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "trio_ws", tmp_path / "other" / "trio_ws")
    run(
        "--case",
        "connections-10",
        "--peer",
        *("trio_ws", "trio_ws_speedups"),
        "--beside",
        tmp_path / "other",
        "--rounds",
        "1",
        "--seconds",
        "0.01",
        "--out",
        tmp_path,
    )
    results = Report.from_json((tmp_path / "results.json").read_text("utf-8"))
    assert {peer.title for peer in BESIDE} < {peer.title for peer in results.peers}
    (figures,) = results.figures.values()
    assert set(figures) <= set(KNOWN)
    assert "| trio_ws | trio_ws[speedups] | trio_ws, beside | " in to_markdown(results)
    if ProcessorTime.is_told():
        assert "| 125 B, 10 connections | trio_ws | µs/message | " in to_markdown(results)


def test_the_command_refuses_a_folder_without_trio_ws_beside_this_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--beside", str(tmp_path)]
    refused = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert f"there is no trio_ws in {tmp_path}" in refused.stderr


def test_the_command_names_what_there_is() -> None:
    names = run("--list")
    assert all(f"--case {case} " in names for case in CASES)
    assert all(f"--peer {peer} " in names for peer in BY_NAME)


def run(*arguments: object) -> str:
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
