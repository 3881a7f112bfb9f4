"""`trio-ws bench` as a command: its arguments, its report, signals, and exit codes."""

from __future__ import annotations

import fcntl
import gc
import io
import json
import os
import pty
import resource
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.command.cli_helpers import PATIENCE, run, running, serving
from tests.helpers import HOST, echo, open_server
from trio_ws import Response, WebSocket, open_websocket_url
from trio_ws._command.benching.alarm import open_alarm
from trio_ws._command.benching.load import Load
from trio_ws._command.benching.plan import Plan
from trio_ws._command.benching.progress import show_progress
from trio_ws._command.benching.running import allow_many_sockets

#: A run as short as it can be and still measure.
SHORT = ("--warmup", "0", "--seconds", "0.3")


async def report(*arguments: str, status: int = 0) -> dict[str, Any]:
    """What a run reports as JSON, and nothing else."""
    async with running("bench", *arguments, "--json", stderr=subprocess.PIPE) as command:
        assert await command.status() == status
        assert command.process.stderr is not None
        assert await command.process.stderr.receive_some() == b""
    (line,) = command.output.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


# ---------------------------------------------------------------------------
# A run
# ---------------------------------------------------------------------------


async def test_a_run_reports_in_json_what_it_did() -> None:
    with trio.fail_after(PATIENCE):
        async with open_server(echo, subprotocols=["x"]) as server:
            url = server.urls[0].replace("//", "//me:secret@")
            load = ["--connections", "4", "--rate", "100", "--size", "1000", "--binary"]
            found = await report(url, *SHORT, *load, "--no-compression", "--subprotocol", "x")
    assert found["url"] == url.replace("me:secret", "***")
    assert found["plan"] == {
        "mode": "echo",
        "connections": 4,
        "rate": 100,
        "in_flight": None,
        "seconds": 0.3,
        "warmup_seconds": 0,
        "size": 1000,
        "binary": True,
    }
    assert found["interrupted"] is False
    assert found["seconds"] == pytest.approx(0.3)
    assert found["connections"] == {"opened": 4, "compressed": 0, "failed": {}, "lost": {}}
    assert found["messages"]["due"] == found["messages"]["answered"] == 30
    assert found["messages"]["unanswered"] == found["messages"]["strays"] == 0
    rates = found["per_second"]
    assert rates["bytes_sent"] == pytest.approx(1000 * rates["sent"])
    assert rates["bytes_received"] == pytest.approx(1000 * rates["received"])
    for times in ("opening_seconds", "latency_seconds"):
        figures = found[times]
        assert list(figures) == ["p50", "p90", "p99", "p99.9", "max"]
        assert 0 < figures["p50"] <= figures["p99.9"] <= figures["max"] < PATIENCE
    assert found["client"]["processor"] > 0
    assert found["client"]["lag_seconds"]["p50"] < PATIENCE


async def test_a_run_reports_in_lines_for_people() -> None:
    with trio.fail_after(PATIENCE):
        async with open_server(echo) as server:
            async with running("bench", server.urls[0], *SHORT) as command:
                assert await command.status() == 0
    lines = command.output.splitlines()
    assert lines[0].startswith(f"{server.urls[0]}: 1 connection, 1 message under way on each, 100 ")
    names = [line[:13].strip() for line in lines[2:8]]
    assert names == ["connections", "opening", "messages", "sent", "received", "latency"]
    assert lines[2].endswith("1 opened, 0 failed, 0 lost; 1 with compression")


@pytest.mark.parametrize("mode", ["--no-reply", "--receive-only"])
async def test_a_server_need_not_answer(mode: str) -> None:
    async def serve(ws: WebSocket) -> None:
        if mode == "--no-reply":
            await ws.wait_closed()
        while True:
            await ws.send("news")
            await trio.sleep(0.01)

    rate = ["--rate", "100"] if mode == "--no-reply" else []
    with trio.fail_after(PATIENCE):
        async with open_server(serve) as server:
            found = await report(server.urls[0], *SHORT, mode, *rate)
    assert found["messages"]["answered"] is found["latency_seconds"] is None
    assert (found["per_second"]["sent"] > 0) is (mode == "--no-reply")
    assert (found["per_second"]["received"] > 0) is (mode == "--receive-only")
    assert found["warnings"] == []


async def test_more_connections_are_opened_than_the_system_allows_files_at_first(
    tmp_path: Path,
) -> None:
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler") as (_, url):
            load = " ".join([sys.executable, "-m", "trio_ws", "bench", url, *SHORT, "--json"])
            finished = await trio.run_process(
                ["sh", "-c", f"ulimit -S -n 40 && exec {load} --connections 60 --rate 60"],
                capture_stdout=True,
            )
    assert json.loads(finished.stdout)["connections"]["opened"] == 60


# ---------------------------------------------------------------------------
# Failures
# ---------------------------------------------------------------------------


async def test_connections_that_fail_make_the_exit_code_1() -> None:
    def refuse(request: object) -> Response:
        return Response(503)

    with trio.fail_after(PATIENCE):
        async with open_server(echo, process_request=refuse) as server:
            found = await report(server.urls[0], "--connections", "3", status=1)
    assert found["connections"]["failed"] == {"HTTP status 503": 3}
    assert found["seconds"] == 0
    assert found["latency_seconds"] is found["per_second"]["received"] is None


async def test_a_connection_that_is_lost_makes_the_exit_code_1() -> None:
    async def serve(ws: WebSocket) -> None:
        await ws.receive()
        await ws.aclose(1013)

    with trio.fail_after(PATIENCE):
        async with open_server(serve) as server:
            found = await report(server.urls[0], "--warmup", "0", status=1)
    assert found["connections"]["lost"] == {"1013 (try again later), closed by the peer": 1}
    assert found["seconds"] < 10


async def test_a_server_that_answers_nothing_is_no_failure_and_ends_the_run() -> None:
    with trio.fail_after(PATIENCE):
        async with open_server(WebSocket.wait_closed) as server:
            found = await report(server.urls[0], *SHORT, "--drain", "0.1", "--rate", "50")
    assert found["messages"]["unanswered"] == found["messages"]["due"] == 15


@pytest.fixture
def _put_back() -> Iterator[None]:
    """What a run changes in its process."""
    thresholds, limits = gc.get_threshold(), resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    gc.set_threshold(*thresholds)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("_put_back")
def test_a_server_that_is_not_there_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", f"ws://{HOST}:1", "--connections", "2") == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1].startswith("2 failed: cannot connect to 127.0.0.1:1")
    assert shown.err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["http://localhost"], "is not a WebSocket URL"),
        (["ws://localhost", "--rate", "0"], "'0' is not a number of messages a second"),
        (["ws://localhost", "--rate", "inf"], "'inf' is not a number of messages a second"),
        (["ws://localhost", "--rate", "1", "--in-flight", "1"], "not allowed with argument"),
        (["ws://localhost", "--no-reply"], "--no-reply needs --rate"),
        (["ws://localhost", "--receive-only", "--rate", "1"], "sends nothing, at no --rate"),
        (["ws://localhost", "--receive-only", "--in-flight", "1"], "for servers that answer"),
        (["ws://localhost", "--seconds", "inf"], "the load has to end some time"),
        (["ws://localhost", "--seconds", "0"], "0 seconds are too short for anything"),
        (["ws://localhost", "--size", "7"], "'7' is not a whole number from 8 to 67108864"),
        (["ws://localhost", "--connections", "0"], "'0' is not a whole number from 1 to"),
        (["ws://localhost", "--insecure"], "--cafile, --insecure and --cert are for wss:// URLs"),
    ],
)
def test_a_wrong_command_line_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run("bench", *arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


# ---------------------------------------------------------------------------
# Signals and the terminal
# ---------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_the_run_early_with_its_report(how: int, status: int) -> None:
    reasons: list[int] = []
    some = trio.Event()

    async def serve(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)
            some.set()
        reasons.append((await ws.wait_closed()).code)

    with trio.fail_after(PATIENCE):
        async with open_server(serve) as server:
            arguments = ["--rate", "50", "--warmup", "0", "--seconds", "600"]
            async with running("bench", server.urls[0], *arguments, "--json") as command:
                await some.wait()
                assert await command.stop(how) == status
    found = json.loads(command.output)
    assert found["interrupted"] is True
    assert found["messages"]["answered"] == found["messages"]["due"] > 0
    assert 0 < found["seconds"] < PATIENCE
    assert reasons == [1000]


async def test_a_second_signal_ends_the_process_at_once() -> None:
    some = trio.Event()

    async def serve(ws: WebSocket) -> None:
        async for _ in ws:
            some.set()

    with trio.fail_after(PATIENCE):
        async with open_server(serve) as server:
            arguments = ["--rate", "50", "--drain", "600", "--seconds", "600"]
            async with running("bench", server.urls[0], *arguments) as command:
                await some.wait()
                command.process.send_signal(signal.SIGINT)
                while command.process.poll() is None:  # it waits for answers that do not come
                    await trio.sleep(0.05)
                    command.process.send_signal(signal.SIGINT)
                assert await command.status() == 130
    assert command.output == ""


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Our end and the program's of a terminal that is 60 columns wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


async def shown_in(terminal: tuple[int, int], url: str, *arguments: str, kind: str) -> str:
    """What a run shows in a terminal of that kind while its report goes elsewhere."""
    ours, theirs = terminal
    environment = {**os.environ, "TERM": kind}
    async with running("bench", url, *arguments, stderr=theirs, env=environment) as command:
        assert await command.status() == 0
        assert command.output.startswith(url)
    os.write(theirs, b"END")
    shown = b""
    while not shown.endswith(b"END"):
        await trio.lowlevel.wait_readable(ours)
        shown += os.read(ours, 65536)
    return shown.removesuffix(b"END").decode()


async def test_in_a_terminal_one_line_shows_the_progress(terminal: tuple[int, int]) -> None:
    with trio.fail_after(PATIENCE):
        async with open_server(echo) as server:
            shown = await shown_in(terminal, server.urls[0], *SHORT, kind="xterm")
    assert "\n" not in shown
    assert "\x1b" not in shown  # no colours, whatever NO_COLOR says
    _, *lines, last, end = shown.split("\r")
    assert {len(line) for line in [*lines, last]} == {59}
    assert lines[0].startswith("opening: 0 of 1 connections open ")
    assert any(line.startswith("measuring [") for line in lines)
    assert last.strip() == end == ""


async def test_in_a_terminal_that_can_only_print_no_progress_is_shown(
    terminal: tuple[int, int],
) -> None:
    with trio.fail_after(PATIENCE):
        async with open_server(echo) as server:
            assert await shown_in(terminal, server.urls[0], *SHORT, kind="dumb") == ""


async def test_a_terminal_that_does_not_know_its_width_is_taken_for_80_columns() -> None:
    output = io.StringIO()  # which is no terminal at all
    with trio.move_on_after(0):
        await show_progress(Load(Plan(), partial(open_websocket_url, "ws://x")), output)
    assert {len(line) for line in output.getvalue().split("\r")} == {0, 79}


# ---------------------------------------------------------------------------
# The process
# ---------------------------------------------------------------------------


class LongWaits(trio.abc.Instrument):
    """Sets an event when trio's wait for something to happen is over before its time."""

    def __init__(self) -> None:
        self.woken = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    def after_io_wait(self, timeout: float) -> None:
        if timeout > 1:
            self._token.run_sync_soon(self.woken.set)


async def test_the_alarm_has_trio_look_at_its_clock_and_is_put_back() -> None:
    before = signal.getsignal(signal.SIGALRM)
    waits = LongWaits()
    trio.lowlevel.add_instrument(waits)
    with trio.fail_after(PATIENCE), open_alarm() as wake_after:
        wake_after(0.001)
        await waits.woken.wait()
        wake_after(PATIENCE)
    trio.lowlevel.remove_instrument(waits)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_where_there_is_no_alarm_trio_wakes_as_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "setitimer")
    with open_alarm() as wake_after:
        wake_after(0.001)


def test_where_there_is_no_limit_on_open_files_none_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "setrlimit", pytest.fail)
    monkeypatch.setattr(sys, "platform", "win32")
    allow_many_sockets()
