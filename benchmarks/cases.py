"""What is measured: every case, as data, and how its kind is measured."""

from __future__ import annotations

import math
import socket
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Protocol

from benchmarks import wire
from benchmarks.load import (
    BlockingExchange,
    BroadcastExchange,
    DuplexExchange,
    Endpoint,
    Handshakes,
    LoadFailed,
    ManyExchange,
    Pipe,
    open_connections,
    open_pipe,
    prepare,
    read_exactly,
    receive_head,
    trusting_context,
)
from benchmarks.load_in_c import build, open_load_in_c
from benchmarks.paced import Pace, open_load
from benchmarks.processes import ProcessorTime, Server, Stage, Subject
from benchmarks.roster import BESIDE, OURS, Peer
from benchmarks.subject import HOST, Mode

#: What is under way at once up to this many bytes fits into the kernel's buffers on every system,
#: so that nobody waits to send.
FITS_BUFFERS = 32 * 1024

#: The part of the measuring time that goes before it, as warm-up.
WARM_UP = 0.25

#: How many times the measuring time is a paced measurement's: messages are few there, and a
#: thousandth of them has to be enough to say something. Each connection has one in the warm-up.
PACED_TIMES = 4

#: Seconds in which memory settles, after the last connection was opened.
SETTLING = 0.5


@dataclass(frozen=True)
class Measurement:
    """What came out, in the unit of the case, and other numbers worth keeping.

    Those of every load that goes on for a while:

    - ``microseconds``: processor time of the process under test for each event;
    - ``waited``: the part of the time in which it was ready to run, and its core was not free;
    - ``load``: the part of the time in which the load ran. Near 1, it is itself what is measured.
    """

    value: float
    details: dict[str, float] = field(default_factory=dict)


class Exchange(Protocol):
    """A load that goes on for some seconds, and says how many events a second it saw.

    It stops with an event, the first one after that time, so that no part of one is lost.
    """

    pid: str
    """The process that does it, as /proc names it."""

    def run(self, seconds: float) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Case(ABC):
    """One row of the table."""

    name: str
    title: str
    unit: str = "messages/s"
    less_is_better: bool = False
    peers: tuple[str, ...] = ()
    """Those that are measured, if not all."""
    connections: int = 1
    """How many are open at once."""
    mode: Mode | None = None
    """What is asked of the peer's server, where it is one that is measured."""

    def suits(self, peer: Peer) -> bool:
        """Whether this peer can do it."""
        chosen = not self.peers or peer.name in self.peers
        return chosen and (self.mode is None or self.mode in peer.modes)

    @property
    def is_tls(self) -> bool:
        return self.mode in (Mode.TLS, Mode.BROADCAST_TLS)

    def load_in_c(self, load: str | None) -> Path | None:
        """The program, if it is what loads here: because "c" was asked for, or nothing."""
        return None

    @abstractmethod
    def measure(self, peer: Peer, stage: Stage, seconds: float) -> Measurement: ...


def timed(exchange: Exchange, seconds: float, subject: Subject) -> Measurement:
    """Warm up, then measure."""
    exchange.run(seconds * WARM_UP)
    start, subject_before, load_before = perf_counter(), *times(subject, exchange.pid)
    rate = exchange.run(seconds)
    elapsed, subject_after, load_after = perf_counter() - start, *times(subject, exchange.pid)
    subject_time, load_time = subject_after - subject_before, load_after - load_before
    details = {
        "microseconds": subject_time.ran / (rate * elapsed) * 1e6,
        "waited": subject_time.waited / elapsed,
        "load": load_time.ran / elapsed,
    }
    return Measurement(rate, {name: n for name, n in details.items() if not math.isnan(n)})


def times(subject: Subject, load: str) -> tuple[ProcessorTime, ProcessorTime]:
    """Of the process under test, and of the load."""
    return subject.processor_time(), ProcessorTime.of(load)


# ---------------------------------------------------------------------------
# Kinds of cases
# ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Echo(Case):
    """Text messages go to the server, and come back."""

    size: int
    in_flight: int = 1
    mode: Mode = Mode.ECHO

    def load_in_c(self, load: str | None) -> Path | None:
        return build(tls=self.is_tls) if load == "c" else None

    def measure(self, peer: Peer, stage: Stage, seconds: float) -> Measurement:
        payload, frame = self._message()
        with stage.server(peer) as server:
            endpoint = self._endpoint(server, peer, stage)
            with open_pipe(endpoint) as pipe:
                reply_size = check_echo(pipe, peer, payload, frame)
            with self._exchange(endpoint, stage, frame, reply_size) as exchange:
                measured = timed(exchange, seconds, server)
        if self.mode is Mode.DEFLATE:
            measured.details["reply_size"] = reply_size
        if self.unit == "MB/s":
            return replace(measured, value=measured.value * self.size / 1e6)
        return measured

    def _message(self) -> tuple[bytes, bytes]:
        """The payload, and the frame that carries it to the server."""
        if self.mode is Mode.DEFLATE:
            payload = wire.document(self.size)
            first = wire.FIN | wire.RSV1 | wire.TEXT
            return payload, wire.frame(first, wire.deflated(payload), masked=True)
        payload = wire.text(self.size)
        return payload, wire.frame(wire.FIN | wire.TEXT, payload, masked=True)

    def _endpoint(self, server: Server, peer: Peer, stage: Stage) -> Endpoint:
        return Endpoint(
            server.ports[self.mode],
            stage.client_context if self.is_tls else None,
            peer.is_websocket,
            wire.DEFLATE_WITHOUT_TAKEOVER if self.mode is Mode.DEFLATE else None,
        )

    @contextmanager
    def _exchange(
        self, endpoint: Endpoint, stage: Stage, frame: bytes, reply_size: int
    ) -> Iterator[Exchange]:
        """The load, ready to run."""
        program = self.load_in_c(stage.load)
        if program:
            numbers = {"connections": self.connections, "in_flight": self.in_flight}
            with open_load_in_c(program, endpoint, frame, reply_size, **numbers) as load:
                yield load
        elif self.connections > 1:
            with open_connections(
                endpoint.port, self.connections, websocket=endpoint.websocket
            ) as sockets:
                yield ManyExchange(sockets, frame, reply_size)
        else:
            with open_pipe(endpoint) as pipe:
                if endpoint.context or len(frame) * self.in_flight > FITS_BUFFERS:
                    yield DuplexExchange(pipe, frame, reply_size, self.in_flight)
                else:
                    yield BlockingExchange(pipe.sock, frame, reply_size, self.in_flight)


def check_echo(pipe: Pipe, peer: Peer, payload: bytes, frame: bytes) -> int:
    """See that the echo is right, and how many bytes it takes: every time the same."""
    if not peer.is_websocket:
        sample = frame[:FITS_BUFFERS]  # it would not wait for the rest before it answers
        send_all(pipe, sample)
        if read_exactly(pipe, len(sample)) != sample:
            raise LoadFailed("the echo is not what was sent")
        return len(frame)
    sizes = set()
    for _ in range(3):
        send_all(pipe, frame)
        sizes.add(len(read_reply(pipe, payload)))
    if len(sizes) != 1:
        raise LoadFailed(f"one message came back in several sizes: {sorted(sizes)}")
    return sizes.pop()


def send_all(pipe: Pipe, frame: bytes) -> None:
    pipe.send(memoryview(frame))
    assert pipe.is_flushed  # its socket blocks, as yet


def read_reply(pipe: Pipe, payload: bytes) -> bytes:
    """A whole frame, which carries that payload."""
    head = read_exactly(pipe, 2)
    length = head[1]
    if length >= 126:
        wide = read_exactly(pipe, 2 if length == 126 else 8)
        head, length = head + wide, int.from_bytes(wide, "big")
    body = read_exactly(pipe, length)
    came = wire.inflated(body) if head[0] & wire.RSV1 else body
    if head[0] & 0xBF != wire.FIN | wire.TEXT or came != payload:
        raise LoadFailed(f"the echo is not what was sent: {(head + body)[:100]!r}…")
    return head + body


@dataclass(frozen=True, kw_only=True)
class Paced(Case):
    """Text messages come at fixed times, few on each of many connections, and go back.

    Nothing is full here, neither the server nor its kernel's buffers: what counts is how much of
    the processor a message takes, which finds its connection in no cache, and how long it takes.
    """

    unit: str = "µs/message"
    less_is_better: bool = True
    size: int = 125
    rate: float
    """Messages a second on each connection."""
    mode: Mode = Mode.ECHO

    def load_in_c(self, load: str | None) -> Path | None:
        return None if load == "python" else build(tls=self.is_tls)

    def measure(self, peer: Peer, stage: Stage, seconds: float) -> Measurement:
        seconds *= PACED_TIMES
        payload = wire.text(self.size)
        frame = wire.frame(wire.FIN | wire.TEXT, payload, masked=True)
        with stage.server(peer) as server:
            context = stage.client_context if self.is_tls else None
            endpoint = Endpoint(server.ports[self.mode], context, peer.is_websocket)
            with open_pipe(endpoint) as pipe:
                reply_size = check_echo(pipe, peer, payload, frame)
            pace = Pace(self.connections, self.rate, frame, reply_size)
            with open_load(endpoint, pace, self.load_in_c(stage.load)) as load:
                load.run(seconds * WARM_UP)
                start, subject_before, load_before = perf_counter(), *times(server, load.pid)
                seen = load.run(seconds)
                elapsed, subject_after, load_after = (
                    perf_counter() - start,
                    *times(server, load.pid),
                )
        subject_time, load_time = subject_after - subject_before, load_after - load_before
        return Measurement(
            subject_time.ran / seen.messages * 1e6,
            {
                **seen.microseconds,
                "rate": seen.messages / seen.seconds,
                "waited": subject_time.waited / elapsed,
                "load": load_time.ran / elapsed,
            },
        )


@dataclass(frozen=True, kw_only=True)
class Broadcast(Case):
    """One message goes to every connection; the next one when all have it."""

    unit: str = "deliveries/s"
    size: int
    mode: Mode = Mode.BROADCAST

    def measure(self, peer: Peer, stage: Stage, seconds: float) -> Measurement:
        payload = wire.text(self.size)
        frame = wire.frame(wire.FIN | wire.TEXT, payload, masked=True)
        reply_size = len(wire.frame(wire.FIN | wire.TEXT, payload, masked=False))
        with (
            stage.server(peer) as server,
            self._open_pipes(server.ports[self.mode], stage) as pipes,
        ):
            exchange = BroadcastExchange(pipes, frame, reply_size)
            measured = timed(exchange, seconds, server)
        measured.details["first_to_last_ms"] = statistics.median(exchange.spreads) * 1000
        return measured

    @contextmanager
    def _open_pipes(self, port: int, stage: Stage) -> Iterator[list[Pipe]]:
        if not self.is_tls:
            with open_connections(port, self.connections) as sockets:
                yield [Pipe(sock) for sock in sockets]
            return
        endpoint = Endpoint(port, stage.client_context)
        with ExitStack() as stack:
            yield [stack.enter_context(open_pipe(endpoint)) for _ in range(self.connections)]


@dataclass(frozen=True, kw_only=True)
class Client(Case):
    """The peer's client sends text messages to us, who echo them."""

    size: int
    in_flight: int

    def suits(self, peer: Peer) -> bool:
        return super().suits(peer) and peer.is_websocket

    def measure(self, peer: Peer, stage: Stage, seconds: float) -> Measurement:
        payload = wire.text(self.size)
        request_size = len(wire.frame(wire.FIN | wire.TEXT, payload, masked=True))
        reply = wire.frame(wire.FIN | wire.TEXT, payload, masked=False)
        with socket.create_server((HOST, 0)) as listener:
            prepare(listener)
            port = listener.getsockname()[1]
            with stage.client(peer, port, self.size, self.in_flight) as client:
                sock, _ = listener.accept()
                with sock:
                    prepare(sock)
                    head = receive_head(sock.recv)
                    sock.sendall(wire.response(key_of(head)))
                    exchange = BlockingExchange(sock, reply, request_size)
                    return timed(exchange, seconds, client)


def key_of(head: bytes) -> str:
    """The client's key, in the head of its request."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"sec-websocket-key":
            return value.strip().decode()
    raise LoadFailed(f"the client asked for no WebSocket: {head!r}")


@dataclass(frozen=True, kw_only=True)
class Opening(Case):
    """Connections are opened and closed, with both handshakes, and carry no message."""

    unit: str = "connections/s"
    at_once: int
    mode: Mode = Mode.ECHO

    def suits(self, peer: Peer) -> bool:
        return super().suits(peer) and peer.is_websocket

    def measure(self, peer: Peer, stage: Stage, seconds: float) -> Measurement:
        with stage.server(peer) as server:
            context = trusting_context() if self.is_tls else None
            exchange = Handshakes(Endpoint(server.ports[self.mode], context), self.at_once)
            return timed(exchange, seconds, server)


@dataclass(frozen=True, kw_only=True)
class Memory(Case):
    """Connections that have echoed one small message, and now wait, with keepalive on."""

    unit: str = "KiB"
    less_is_better: bool = True
    mode: Mode = Mode.IDLE

    def measure(self, peer: Peer, stage: Stage, seconds: float) -> Measurement:
        with stage.server(peer) as server:
            port = server.ports[self.mode]
            extension = wire.DEFLATE if self.mode is Mode.IDLE_DEFLATE else None
            # What the first few need once for all is not counted.
            with open_connections(port, 5, extension=extension) as first:
                echo_once(first)
                before = server.memory()
                with open_connections(port, self.connections, extension=extension) as sockets:
                    echo_once(sockets)
                    time.sleep(SETTLING * min(seconds, 1))
                    after = server.memory()
        return Measurement((after - before) / self.connections / 1024)


def echo_once(sockets: list[socket.socket]) -> None:
    payload = wire.text(16)
    frame = wire.frame(wire.FIN | wire.TEXT, payload, masked=True)
    for sock in sockets:
        sock.sendall(frame)
        read_reply(Pipe(sock), payload)


# ---------------------------------------------------------------------------
# The cases
# ---------------------------------------------------------------------------

KIB, MIB = 2**10, 2**20

#: Whose cost is followed as the load grows.
SCALING = (*(peer.name for peer in (*OURS, *BESIDE)), "websockets_trio", "picows", "bare_trio")

MAIN = (
    Echo(name="echo-16", title="16 B, one in flight", size=16),
    Echo(name="echo-1k", title="1 KiB, one in flight", size=KIB),
    Echo(name="flight-16", title="16 B, 64 in flight", size=16, in_flight=64),
    Echo(name="flight-125", title="125 B, 64 in flight", size=125, in_flight=64),
    Echo(name="many-125", title="125 B, 100 connections", size=125, connections=100),
    Echo(name="echo-64k", title="64 KiB, 4 in flight", size=64 * KIB, in_flight=4, unit="MB/s"),
    Echo(name="echo-1m", title="1 MB, 2 in flight", size=10**6, in_flight=2, unit="MB/s"),
    Echo(name="tls-125", title="TLS, 125 B, 64 in flight", size=125, in_flight=64, mode=Mode.TLS),
    Echo(
        name="tls-64k",
        title="TLS, 64 KiB, 4 in flight",
        size=64 * KIB,
        in_flight=4,
        mode=Mode.TLS,
        unit="MB/s",
    ),
    Echo(
        name="deflate-1k",
        title="compressed, 1 KiB of JSON, 16 in flight",
        size=KIB,
        in_flight=16,
        mode=Mode.DEFLATE,
    ),
    Broadcast(name="broadcast", title="broadcast of 125 B to 1000", size=125, connections=1000),
    Broadcast(
        name="broadcast-tls",
        title="TLS, broadcast of 125 B to 1000",
        size=125,
        connections=1000,
        mode=Mode.BROADCAST_TLS,
    ),
    Client(name="client-16", title="client, 16 B, 64 in flight", size=16, in_flight=64),
    Opening(name="handshake", title="open and close, one at a time", at_once=1),
    Opening(name="handshake-8", title="open and close, 8 at once", at_once=8),
    Opening(
        name="handshake-tls", title="TLS, open and close, one at a time", at_once=1, mode=Mode.TLS
    ),
    Opening(
        name="handshake-8-tls", title="TLS, open and close, 8 at once", at_once=8, mode=Mode.TLS
    ),
    Memory(name="memory", title="memory of an idle connection", connections=1000),
    Memory(
        name="memory-deflate",
        title="memory, idle, compression agreed",
        connections=1000,
        mode=Mode.IDLE_DEFLATE,
    ),
)

SCALE = (
    *(
        Echo(
            name=f"connections-{count}",
            title=f"125 B, {count:,} connections",
            size=125,
            connections=count,
            peers=SCALING,
        )
        for count in (10, 100, 1000, 10_000)
    ),
    *(
        Echo(
            name=f"size-{name}",
            title=f"{title}, one in flight",
            size=size,
            unit="MB/s" if size >= 64 * KIB else "messages/s",
            peers=SCALING,
        )
        for name, title, size in (
            ("16", "16 B", 16),
            ("256", "256 B", 256),
            ("4k", "4 KiB", 4 * KIB),
            ("64k", "64 KiB", 64 * KIB),
            ("1m", "1 MiB", MIB),
            ("16m", "16 MiB", 16 * MIB),
        )
    ),
)

PACED = tuple(
    Paced(
        name=f"paced-{count}{suffix}",
        title=f"{title}125 B, {count:,} connections × {rate} a second",
        connections=count,
        rate=rate,
        mode=mode,
    )
    for title, suffix, mode in (("", "", Mode.ECHO), ("TLS, ", "-tls", Mode.TLS))
    for count, rate in ((100, 20), (1000, 4), (5000, 1))
)

CASES = {case.name: case for case in (*MAIN, *PACED, *SCALE)}
