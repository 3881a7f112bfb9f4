"""The paced load: on each of many connections a small message now and then, at fixed times.

There are two of it that do the same. The one in C, `paced.c`, costs a tenth of the one in Python,
and keeps its times better; it is built when it is first needed, where there is a C compiler and
epoll. Both send at equal distances, in turn on each connection, whether echoes come or not.
"""

from __future__ import annotations

import json
import random
import select
import selectors
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol, Self

from benchmarks import wire
from benchmarks.load import PATIENCE, LoadFailed, Pipe, open_pipe

SOURCE = Path(__file__).with_name("paced.c")
BUILT = Path(__file__).parents[1] / ".tools" / "benchmarks"

#: The latencies of interest.
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}

#: From this many microseconds on, the load was late: see `Seen.microseconds`.
LATE = 1000


@dataclass(frozen=True)
class Pace:
    """What is sent, and how often."""

    connections: int
    rate: float
    """Messages a second on each connection."""
    frame: bytes
    reply_size: int

    def number(self, seconds: float) -> int:
        """Of messages in that time, on all connections."""
        return max(1, int(seconds * self.rate * self.connections))


@dataclass(frozen=True)
class Seen:
    """What a load saw."""

    messages: int
    seconds: float
    microseconds: dict[str, float]
    """Percentiles of the time from sending a message to its echo. And `late`: by how much the load
    sent later than it should have, the 99th percentile. This is no part of the former."""


class PacedLoad(Protocol):
    """The load, on connections that are open."""

    pid: str
    """The process that does it, as /proc names it."""

    def run(self, seconds: float) -> Seen:
        """Send for that long, and wait for all echoes."""
        ...


@contextmanager
def open_load(
    port: int,
    pace: Pace,
    context: ssl.SSLContext | None = None,
    *,
    websocket: bool = True,
    in_c: bool = True,
) -> Iterator[PacedLoad]:
    """That in C if wanted and possible, or else that in Python. With a context, by TLS."""
    program = build(tls=context is not None) if in_c else None
    if program:
        with open_load_in_c(program, port, pace, websocket=websocket) as load:
            yield load
    else:
        with Watch() as watch, ExitStack() as stack:
            pipes = [
                stack.enter_context(open_pipe(port, context, websocket=websocket))
                for _ in range(pace.connections)
            ]
            yield LoadInPython(pipes, pace, watch)


# ---------------------------------------------------------------------------
# In C
# ---------------------------------------------------------------------------


def build(*, tls: bool = False) -> Path | None:
    """The program, made anew if it is older than its source; nothing where it cannot be made.

    For TLS it needs OpenSSL's headers.
    """
    compiler = shutil.which("cc")
    if compiler is None or not hasattr(select, "epoll"):
        return None
    program = BUILT / ("paced-tls" if tls else "paced")
    if program.exists() and program.stat().st_mtime >= SOURCE.stat().st_mtime:
        return program
    BUILT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILT) as folder:
        fresh = Path(folder) / program.name
        options = ["-DTLS", "-lssl", "-lcrypto"] if tls else []
        command = [compiler, "-std=c11", "-O2", "-o", str(fresh), str(SOURCE), *options]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        return fresh.replace(program)


@contextmanager
def open_load_in_c(
    program: Path, port: int, pace: Pace, *, websocket: bool = True
) -> Iterator[LoadInC]:
    request = wire.request(port) if websocket else b""
    arguments = (port, pace.connections, pace.rate, request.hex(), pace.frame.hex())
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            [program, *map(str, arguments), str(pace.reply_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        ) as process,
    ):
        try:
            load = LoadInC(process)
            load.read()
            yield load
        except (OSError, LoadFailed):
            complaints.seek(0)
            raise LoadFailed(complaints.read().strip() or "the load ended") from None
        finally:
            process.kill()


class LoadInC:
    """The program, as seen from here."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = str(process.pid)

    def run(self, seconds: float) -> Seen:
        assert self._process.stdin
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        fields = json.loads(self.read())
        return Seen(fields.pop("messages"), fields.pop("seconds"), fields)

    def read(self) -> str:
        """The next line that it says."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise LoadFailed("the load ended")
        return line


# ---------------------------------------------------------------------------
# In Python
# ---------------------------------------------------------------------------


class Watch:
    """Waits for sockets to be readable, and not a millisecond longer than it is told.

    Make it before the sockets: `select` takes only the first thousand descriptors.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._selector.close()
        if self._epoll:
            self._epoll.close()

    def add(self, descriptor: int) -> None:
        if self._epoll:
            self._epoll.register(descriptor, select.EPOLLIN)
        else:
            self._selector.register(descriptor, selectors.EVENT_READ)

    def wait(self, seconds: float) -> Sequence[tuple[int, int]]:
        """Those that are readable, with flags that matter to nobody."""
        if self._epoll:
            # By itself it counts in milliseconds.
            select.select([self._epoll], [], [], seconds)
            return self._epoll.poll(0)
        return [(key.fd, events) for key, events in self._selector.select(seconds)]


@dataclass
class Connection:
    """One that messages come and go on."""

    pipe: Pipe
    place: int
    """Of its first message in the order of sending."""
    echoes: int = 0
    unfinished: int = 0


class LoadInPython:
    """The same in this process."""

    pid = "self"

    def __init__(self, pipes: list[Pipe], pace: Pace, watch: Watch) -> None:
        self._pace = pace
        self._watch = watch
        # Not in the order in which they were opened, or what the server has of them would lie in
        # its memory as it is needed.
        order = random.Random(7).sample(pipes, len(pipes))
        self._connections = [Connection(pipe, place) for place, pipe in enumerate(order)]
        self._by_descriptor = {one.pipe.sock.fileno(): one for one in self._connections}
        for descriptor, one in self._by_descriptor.items():
            one.pipe.sock.setblocking(False)
            watch.add(descriptor)

    def run(self, seconds: float) -> Seen:
        connections, frame = self._connections, memoryview(self._pace.frame)
        number = self._pace.number(seconds)
        distance = 1 / (self._pace.rate * len(connections))
        sent_at: list[float] = []
        late: list[float] = []
        latencies: list[float] = []
        for one in connections:
            one.echoes = 0
        start = now = perf_counter()
        while len(latencies) < number:
            due = start + len(sent_at) * distance if len(sent_at) < number else now + PATIENCE
            events = self._watch.wait(max(due - now, 0))
            for descriptor, _ in events:
                self._receive(self._by_descriptor[descriptor], sent_at, latencies)
            now = perf_counter()
            if now >= due:
                if len(sent_at) == number:
                    raise LoadFailed("nothing came")
                connections[len(sent_at) % len(connections)].pipe.send(frame)
                sent_at.append(now)
                late.append(now - due)
        latencies.sort()
        late.sort()
        return Seen(
            number,
            now - start,
            {name: percentile(latencies, part) for name, part in PERCENTILES.items()}
            | {"late": percentile(late, 0.99)},
        )

    def _receive(self, one: Connection, sent_at: list[float], latencies: list[float]) -> None:
        done, one.unfinished = divmod(one.unfinished + one.pipe.receive(), self._pace.reply_size)
        now = perf_counter()
        for _ in range(done):
            message = one.place + one.echoes * len(self._connections)
            one.echoes += 1
            latencies.append(now - sent_at[message])


def percentile(ordered: list[float], part: float) -> float:
    """In microseconds."""
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] * 1e6
