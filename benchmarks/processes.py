"""Processes under test, seen from the harness: started on a core of their own, watched, ended."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Self

import trustme

from benchmarks.roster import Peer
from benchmarks.subject import CORE, HOST, LIBRARY, WITHOUT, Mode

ROOT = Path(__file__).parents[1]


def cores() -> list[int]:
    """The cores that this process may use, or none where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return []


class Stage:
    """Where measurements take place: two cores, a certificate, and servers.

    The load, which is this process, has the first core, each process under test the last one. A
    server is started anew for each measurement, so that none inherits the memory of another; with
    `keep` it stays, as a test that has no time prefers. `load` says whether the load is in C or in
    Python, or nothing: see `Case.load_in_c`. With `realtime`, all other processes wait for this one
    and those that it starts, where the system allows that.
    """

    def __init__(
        self, *, keep: bool = False, load: str | None = None, realtime: bool = False
    ) -> None:
        self.descriptor_limit: float = math.inf
        self.load = load
        self.is_realtime = False
        self._wants_realtime = realtime
        self._keep = keep
        self._cleanup = ExitStack()
        self._kept: dict[str, Server] = {}
        self._cores = cores()

    def __enter__(self) -> Self:
        if self.is_pinned:
            os.sched_setaffinity(0, self._cores[:1])
            self._cleanup.callback(os.sched_setaffinity, 0, self._cores)
        if self._wants_realtime:
            self._take_precedence()
        self._raise_descriptor_limit()
        return self

    def _take_precedence(self) -> None:
        if hasattr(os, "sched_setscheduler"):
            before = os.sched_getscheduler(0), os.sched_getparam(0)
            with suppress(PermissionError):
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
                self._cleanup.callback(os.sched_setscheduler, 0, *before)
                self.is_realtime = True

    def _raise_descriptor_limit(self) -> None:
        """Allow as many open sockets as the system lets us, here and in what is started here."""
        try:
            import resource  # noqa: PLC0415 - not on Windows, which has no such limit
        except ImportError:
            return
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
        self._cleanup.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        if before[1] != resource.RLIM_INFINITY:
            self.descriptor_limit = before[1]

    def __exit__(self, *exc_info: object) -> None:
        self._cleanup.close()

    @property
    def is_pinned(self) -> bool:
        return len(self._cores) > 1

    @cached_property
    def _certificate(self) -> tuple[str, ssl.SSLContext]:
        """The server's file, and the context of a client that trusts it."""
        authority = trustme.CA()
        context = ssl.create_default_context()
        authority.configure_trust(context)
        folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory()))
        file = folder / "server.pem"
        expires = dt.datetime.now(dt.UTC) + dt.timedelta(days=7)
        authority.issue_cert(HOST, not_after=expires).private_key_and_cert_chain_pem.write_to_path(
            file
        )
        return str(file), context

    @property
    def client_context(self) -> ssl.SSLContext:
        return self._certificate[1]

    @contextmanager
    def server(self, peer: Peer) -> Iterator[Server]:
        """Its server, listening."""
        if self._keep:
            if peer.name not in self._kept:
                self._kept[peer.name] = self._cleanup.enter_context(self._start_server(peer))
            yield self._kept[peer.name]
        else:
            with self._start_server(peer) as server:
                yield server

    @contextmanager
    def _start_server(self, peer: Peer) -> Iterator[Server]:
        with self._run(peer, "server", self._certificate[0]) as process:
            assert process.stdout is not None
            ports = json.loads(process.stdout.readline() or "{}")
            if not ports:
                raise SubjectFailed(f"the server of {peer.title} did not start")
            yield Server(process.pid, {Mode(mode): port for mode, port in ports.items()})

    @contextmanager
    def client(self, peer: Peer, port: int, size: int, in_flight: int) -> Iterator[Subject]:
        """Its client, talking to that port."""
        url = f"ws://{HOST}:{port}/"
        with self._run(peer, "client", url, str(size), str(in_flight)) as process:
            yield Subject(process.pid)

    @contextmanager
    def _run(self, peer: Peer, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        # Coverage, where it measures the harness, is not to slow down what is under test.
        environment = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
        environment[WITHOUT] = " ".join(peer.without)
        if peer.library:
            environment[LIBRARY] = str(peer.library)
        if self.is_pinned:
            environment[CORE] = str(self._cores[-1])
        with tempfile.TemporaryFile("w+") as complaints:
            process = subprocess.Popen(
                [sys.executable, "-m", f"benchmarks.peers.{peer.module}", *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
            try:
                with process:
                    try:
                        yield process
                    finally:
                        process.kill()
            except Exception as error:
                error.add_note(_last_words(peer, complaints))
                raise


class SubjectFailed(Exception):
    """A process under test did not do its part."""


def _last_words(peer: Peer, complaints: IO[str]) -> str:
    complaints.seek(0)
    lines = complaints.read().splitlines()
    return "\n".join([f"The last words of {peer.title}:", *lines[-20:]])


@dataclass(frozen=True)
class Subject:
    """A process under test, running."""

    pid: int

    def memory(self) -> int:
        """Its resident memory, in bytes."""
        statm = Path(f"/proc/{self.pid}/statm")
        if statm.exists():
            return int(statm.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        kibibytes = subprocess.check_output(["ps", "-o", "rss=", "-p", str(self.pid)])
        return int(kibibytes) * 1024

    def processor_time(self) -> ProcessorTime:
        return ProcessorTime.of(str(self.pid))


@dataclass(frozen=True)
class Server(Subject):
    """A server under test, listening."""

    ports: dict[Mode, int]


@dataclass(frozen=True)
class ProcessorTime:
    """Seconds for which a process ran, and for which it could have, had its core been free."""

    ran: float
    waited: float

    @classmethod
    def is_told(cls) -> bool:
        """Whether this system says it."""
        return not math.isnan(cls.of("self").ran)

    @staticmethod
    def of(pid: str) -> ProcessorTime:
        """Of its main thread, which does everything here; nothing where the system does not say."""
        schedstat = Path(f"/proc/{pid}/schedstat")
        if not schedstat.exists():
            return ProcessorTime(math.nan, math.nan)
        ran, waited, _ = schedstat.read_text("ascii").split()
        return ProcessorTime(int(ran) / 1e9, int(waited) / 1e9)

    def __sub__(self, other: ProcessorTime) -> ProcessorTime:
        return ProcessorTime(self.ran - other.ran, self.waited - other.waited)
