"""The paced load: on each of many connections a small message now and then, at fixed times.

There are two of it that do the same. The one in C, `load.c`, costs less than the one in Python, and
keeps its times better. Both send at equal distances, in turn on each connection, whether echoes
come or not.
"""

from __future__ import annotations

import random
import select
import selectors
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol, Self

from benchmarks.load import PATIENCE, Endpoint, InThisProcess, LoadFailed, Pipe, open_pipe
from benchmarks.load_in_c import LoadInC, open_load_in_c

#: The latencies of interest.
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}

#: From this many microseconds on, the load was late: see `Seen.microseconds`.
LATE = 1000


@dataclass(frozen=True)
class Pace:
    """The load on a server: its connections, its message, and its rate."""

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
    """The measurements of one load."""

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
def open_load(endpoint: Endpoint, pace: Pace, program: Path | None = None) -> Iterator[PacedLoad]:
    """That in C if wanted and possible, or else that in Python. With a context, by TLS."""
    if program:
        with open_load_in_c(
            program,
            endpoint,
            pace.frame,
            pace.reply_size,
            connections=pace.connections,
            rate=pace.rate,
        ) as load:
            yield PacedInC(load)
    else:
        with Watch() as watch, ExitStack() as stack:
            pipes = [stack.enter_context(open_pipe(endpoint)) for _ in range(pace.connections)]
            yield LoadInPython(pipes, pace, watch)


class PacedInC:
    """The load in C."""

    def __init__(self, load: LoadInC) -> None:
        self._load = load
        self.pid = load.pid

    def run(self, seconds: float) -> Seen:
        seen = self._load.ask(seconds)
        return Seen(seen.pop("messages"), seen.pop("seconds"), seen)


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


class LoadInPython(InThisProcess):
    """The same in Python."""

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
