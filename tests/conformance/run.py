"""Run the Autobahn test suite against trio_ws, as a server and as a client, and judge the result.

    python -m tests.conformance.run [--set quick] [--side server] [--side client] [--tls] WSTEST

All 517 cases take about eight minutes a side, the quick set a fraction of one. With --tls, both
sides speak it, and a client of ours trusts nobody but the authority made for this run.

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
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "tests" / "artifacts" / "autobahn"
AGENT = "trio_ws"

#: Whatever happens, a run ends, also on a machine that has much else to do.
TIMEOUT = 50 * 60

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


@dataclass(frozen=True)
class Certificate:
    """Files for a server at `HOST`, and for its clients."""

    chain: str
    key: str
    authority: str


def run_server_side(wstest: str, cases: CaseSet, certificate: Certificate | None) -> Path:
    """Autobahn's fuzzing client against our server."""
    report = fresh_report("server", certificate)
    files = () if certificate is None else (certificate.chain, certificate.key)
    with start(sys.executable, "-m", "tests.conformance.echo_server", *files) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        config = {"servers": [{"agent": AGENT, "url": url}]}
        run(wstest, "-m", "fuzzingclient", "-s", write_config(report, cases, config))
    return report


def run_client_side(wstest: str, cases: CaseSet, certificate: Certificate | None) -> Path:
    """Our client against Autobahn's fuzzing server."""
    report = fresh_report("client", certificate)
    port = free_port()
    settings = {"url": f"ws://{HOST}:{port}"}
    trusted: tuple[str, ...] = ()
    if certificate is not None:
        url = f"wss://{HOST}:{port}"
        settings = {"url": url, "cert": certificate.chain, "key": certificate.key}
        trusted = (certificate.authority,)
    config = write_config(report, cases, settings)
    # "-u 0": no web page beside the server, which would want a port of its own.
    with start(wstest, "-m", "fuzzingserver", "-u", "0", "-s", config) as server:
        wait_until_it_listens(server, port)
        run(sys.executable, "-m", "tests.conformance.echo_client", settings["url"], AGENT, *trusted)
    return report


SIDES = {"server": run_server_side, "client": run_client_side}


def make_certificate(folder: Path) -> Certificate:
    authority = trustme.CA()
    issued = authority.issue_cert(HOST)
    files = [folder / name for name in ("chain.pem", "key.pem", "authority.pem")]
    issued.cert_chain_pems[0].write_to_path(files[0])
    issued.private_key_pem.write_to_path(files[1])
    authority.cert_pem.write_to_path(files[2])
    return Certificate(*map(str, files))


def fresh_report(side: str, certificate: Certificate | None) -> Path:
    report = REPORTS / (side if certificate is None else f"{side}-tls")
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
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until_it_listens(server: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((HOST, port), timeout=5).close()
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
    parser.add_argument("--tls", action="store_true")
    arguments = parser.parse_args()
    cases = SETS[arguments.set]
    passes, failures = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder)) if arguments.tls else None
        for side in arguments.side or SIDES:
            started = time.monotonic()
            report = SIDES[side](arguments.wstest, cases, certificate)
            side_passes, side_failures = judge(report, cases)
            seconds = time.monotonic() - started
            over = " over TLS" if arguments.tls else ""
            score = f"{side_passes} of {cases.total} in {seconds:.0f} s"
            print(f"Autobahn, trio_ws as the {side}{over}: {score}")
            for failure in dict.fromkeys(side_failures):
                print(f"  {failure}")
            passes += side_passes
            failures += len(side_failures)
    print(f"{passes} passed, {failures} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
