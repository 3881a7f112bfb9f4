"""Run the Autobahn test suite against trio_ws, as a server and as a client, and judge the result.

    python -m tests.conformance.run [--set quick] [--side server] [--side client] WSTEST

All 517 cases take about eight minutes a side, the quick set a fraction of one.

WSTEST is Autobahn's program; `make conformance` installs it and knows where it is. Its exit status
says nothing, so the report is what counts, and in it the number of cases too: a run that breaks
off half-way has no failure in it either. The reports stay in tests/artifacts/autobahn, with a page
for each case (index.html) that shows every byte of it.
"""

# ruff: noqa: T201 - what it prints is its result

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "tests" / "artifacts" / "autobahn"
AGENT = "trio_ws"

#: Whatever happens, a run ends. The quick set takes half a minute a side on an idle machine.
TIMEOUT = 15 * 60

#: Cases without a right answer: they show what an implementation does where RFC 6455 leaves it
#: open (data after a Close frame, close codes outside every range).
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}


@dataclass(frozen=True)
class CaseSet:
    """Patterns of case numbers, and how many cases they must find."""

    patterns: tuple[str, ...]
    total: int


SETS = {
    # All but the sizes and times of 9.*, and of compression the first cases of each kind.
    "quick": CaseSet(
        (
            *("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"),
            *("12.*.[1234]$", "13.*.[1234]$"),
        ),
        295,
    ),
    "full": CaseSet(("*",), 517),
}


# ---------------------------------------------------------------------------
# Running…
# ---------------------------------------------------------------------------


def run_server_side(wstest: str, cases: CaseSet) -> Path:
    """Autobahn's fuzzing client against our server."""
    report = fresh_report("server")
    with start(sys.executable, "-m", "tests.conformance.echo_server") as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        config = {"servers": [{"agent": AGENT, "url": url}]}
        run(wstest, "-m", "fuzzingclient", "-s", write_config(report, cases, config))
    return report


def run_client_side(wstest: str, cases: CaseSet) -> Path:
    """Our client against Autobahn's fuzzing server."""
    report = fresh_report("client")
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    config = write_config(report, cases, {"url": url})
    # "-u 0": no web page beside the server, which would want a port of its own.
    with start(wstest, "-m", "fuzzingserver", "-u", "0", "-s", config) as server:
        wait_until_it_listens(server, port)
        run(sys.executable, "-m", "tests.conformance.echo_client", url, AGENT)
    return report


SIDES = {"server": run_server_side, "client": run_client_side}


def fresh_report(side: str) -> Path:
    report = REPORTS / side
    shutil.rmtree(report, ignore_errors=True)
    report.mkdir(parents=True)
    return report


def write_config(report: Path, cases: CaseSet, config: dict[str, Any]) -> str:
    config |= {
        "outdir": str(report),
        "cases": list(cases.patterns),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    path = report / "config.json"
    path.write_text(json.dumps(config))
    return str(path)


def run(*command: str) -> None:
    # Autobahn names every case on stdout; what goes wrong is in the report or on stderr.
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=TIMEOUT)


@contextmanager
def start(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended, and waited for, with the block."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until_it_listens(server: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


# ---------------------------------------------------------------------------
# Judging…
# ---------------------------------------------------------------------------


def judge(report: Path, cases: CaseSet) -> tuple[int, list[str]]:
    """How many cases passed, and a line for each that did not or is missing."""
    index = report / "index.json"
    results = json.loads(index.read_text()).get(AGENT, {}) if index.exists() else {}
    failures = [
        f"{case}: {behaviour['behavior']}, closing {behaviour['behaviorClose']}"
        for case, behaviour in sorted(results.items(), key=lambda item: case_order(item[0]))
        if not passed(case, behaviour)
    ]
    passes = len(results) - len(failures)
    if missing := cases.total - len(results):
        failures += [f"{len(results)} cases in the report, not {cases.total}"] * abs(missing)
    return passes, failures


def passed(case: str, behaviour: dict[str, str]) -> bool:
    expected = "INFORMATIONAL" if case in INFORMATIONAL else "OK"
    return behaviour["behavior"] == expected and behaviour["behaviorClose"] in (
        "OK",
        "INFORMATIONAL",
    )


def case_order(case: str) -> list[int]:
    return [int(number) for number in case.split(".")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wstest")
    parser.add_argument("--set", choices=SETS, default="full")
    parser.add_argument("--side", choices=SIDES, action="append")
    arguments = parser.parse_args()
    cases = SETS[arguments.set]
    passes, failures = 0, 0
    for side in arguments.side or SIDES:
        started = time.monotonic()
        side_passes, side_failures = judge(SIDES[side](arguments.wstest, cases), cases)
        seconds = time.monotonic() - started
        print(f"Autobahn, trio_ws as the {side}: {side_passes} of {cases.total} in {seconds:.0f} s")
        for failure in dict.fromkeys(side_failures):
            print(f"  {failure}")
        passes += side_passes
        failures += len(side_failures)
    print(f"{passes} passed, {failures} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
