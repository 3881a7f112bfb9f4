"""The load: raw sockets, prepared bytes, and nothing done with what comes but counting it.

It has to cost less than any server does, or it would be what is measured. So frames are made
beforehand, and echoes are counted by their size, which is the same for all: whether they are right
is looked at once, before the clock starts. An *exchange* keeps messages under way on connections
that are open, and says how many a second came back.
"""

from __future__ import annotations

import select
import selectors
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from benchmarks import wire
from benchmarks.subject import HOST

#: For what comes in. It is overwritten all the time, and never looked at.
BUFFER = memoryview(bytearray(2**20))

#: Nothing takes this long; what does is broken. The kernel keeps the time, because Python's own
#: socket timeouts cost a system call for each operation.
PATIENCE = 30

#: How many connections are opened at once: a listener's backlog holds these.
BATCH = 50


class LoadFailed(Exception):
    """The other side did not do what every WebSocket server does."""


# ---------------------------------------------------------------------------
# Opening connections
# ---------------------------------------------------------------------------


def connect(port: int) -> socket.socket:
    """A TCP connection, without delays."""
    sock = socket.create_connection((HOST, port))
    prepare(sock)
    return sock


def prepare(sock: socket.socket) -> None:
    """Send at once, and do not wait for ever."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "win32":
        patience = struct.pack("L", PATIENCE * 1000)
    else:
        patience = struct.pack("ll", PATIENCE, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)


@contextmanager
def open_connections(
    port: int, count: int, *, websocket: bool = True, extension: str | None = None
) -> Iterator[list[socket.socket]]:
    """That many connections, with the opening handshake behind them if they have one."""
    head = wire.request(port, extension)
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        while len(sockets) < count:
            some = range(min(BATCH, count - len(sockets)))
            fresh = [stack.enter_context(connect(port)) for _ in some]
            if websocket:
                for sock in fresh:
                    sock.sendall(head)
                for sock in fresh:
                    check_response(receive_head(sock.recv), extension)
            sockets += fresh
        yield sockets


def receive_head(receive: Callable[[int], bytes]) -> bytes:
    """A response head. Nothing may follow it: a server does not speak first here."""
    head = bytearray()
    while wire.END_OF_HEAD not in head:
        data = receive(65536)
        if not data:
            raise LoadFailed(f"the connection ended in the opening handshake: {bytes(head)!r}")
        head += data
    return bytes(head)


def check_response(head: bytes, extension: str | None = None) -> None:
    status, _, headers = head.partition(b"\r\n")
    if status.split()[1:2] != [b"101"]:
        raise LoadFailed(f"the server refused: {head!r}")
    if (b"permessage-deflate" in headers.lower()) is not bool(extension):
        raise LoadFailed(f"compression is not as asked for: {head!r}")


# ---------------------------------------------------------------------------
# Pipes: bytes in both directions, plain or over TLS
# ---------------------------------------------------------------------------


class Pipe:
    """A connection that is written and read without waiting for either."""

    #: How many more bytes a small message takes on the way.
    OVERHEAD = 0

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._unsent: list[memoryview] = []

    @property
    def is_flushed(self) -> bool:
        return not self._unsent

    def send(self, data: memoryview) -> None:
        """Send now what goes now, and keep the rest for `flush`."""
        self._unsent.append(data)
        self.flush()

    def flush(self) -> None:
        while self._unsent:
            data = self._unsent[0]
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                return
            if sent < len(data):
                self._unsent[0] = data[sent:]
            else:
                del self._unsent[0]

    def receive(self) -> int:
        """How many bytes came."""
        size = self.sock.recv_into(BUFFER)
        if not size:
            raise LoadFailed("the connection ended")
        return size

    def read(self, size: int) -> bytes:
        """Wait for that many bytes, or fewer."""
        return self.sock.recv(size)


class TLSPipe(Pipe):
    """The same over TLS, with the socket in our hands, so that what came is decrypted at once."""

    OVERHEAD = 22  # head, type and tag of a record (RFC 8446 section 5.2)

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=HOST)
        self._shake_hands()

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                self._incoming.write(self.sock.recv(65536))
            else:
                self.sock.sendall(self._outgoing.read())
                return

    def send(self, data: memoryview) -> None:
        self._tls.write(data)
        super().send(memoryview(self._outgoing.read()))

    def receive(self) -> int:
        self._incoming.write(BUFFER[: super().receive()])
        size = 0
        while True:
            try:
                size += len(self._tls.read(2**16))
            except ssl.SSLWantReadError:
                return size

    def read(self, size: int) -> bytes:
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                self._incoming.write(self.sock.recv(65536))


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens, and how one opens a connection there."""

    port: int
    context: ssl.SSLContext | None = None
    """For TLS."""
    websocket: bool = True
    """Whether there is an opening handshake."""
    extension: str | None = None
    """What this offers."""

    @property
    def request(self) -> bytes:
        return wire.request(self.port, self.extension) if self.websocket else b""


@contextmanager
def open_pipe(endpoint: Endpoint) -> Iterator[Pipe]:
    """One connection, with the opening handshake behind it if it has one."""
    with connect(endpoint.port) as sock:
        pipe = TLSPipe(sock, endpoint.context) if endpoint.context else Pipe(sock)
        if endpoint.websocket:
            pipe.send(memoryview(endpoint.request))
            check_response(receive_head(pipe.read), endpoint.extension)
        yield pipe


def read_exactly(pipe: Pipe, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = pipe.read(size - len(data))
        if not more:
            raise LoadFailed("the connection ended in the middle of an echo")
        data += more
    return bytes(data)


# ---------------------------------------------------------------------------
# Exchanges
# ---------------------------------------------------------------------------


class InThisProcess:
    """A load that works here."""

    #: The process, as /proc names it.
    pid = "self"


class BlockingExchange(InThisProcess):
    """One connection, few bytes under way: it sends and receives in turn, the cheapest way.

    For each `reply_size` bytes that come, `frame` is sent. `in_flight` of them start it, or none
    where the other side does.
    """

    def __init__(
        self, sock: socket.socket, frame: bytes, reply_size: int, in_flight: int = 0
    ) -> None:
        self._sock = sock
        self._frame = frame
        self._reply_size = reply_size
        self._unfinished = 0
        self._frames = memoryview(frame * 4096)
        sock.sendall(frame * in_flight)

    def run(self, seconds: float) -> float:
        """Go on for that long; how many messages a second came."""
        receive = partial(self._sock.recv_into, BUFFER)
        send, frames, frame_size = self._sock.sendall, self._frames, len(self._frame)
        size, unfinished, count = self._reply_size, self._unfinished, 0
        start = now = perf_counter()
        end = start + seconds
        while now < end:
            received = receive()
            if not received:
                raise LoadFailed("the connection ended")
            done, unfinished = divmod(unfinished + received, size)
            if done:
                send(frames[: done * frame_size])
                count += done
                now = perf_counter()
        self._unfinished = unfinished
        return count / (now - start)


class DuplexExchange(InThisProcess):
    """One connection, with more under way than the kernel's buffers hold, or with TLS.

    It never waits to send: a server that waits for its echo to be read would wait for ever.
    """

    def __init__(self, pipe: Pipe, frame: bytes, reply_size: int, in_flight: int) -> None:
        self._pipe = pipe
        self._frames = memoryview(frame * in_flight)
        self._frame_size = len(frame)
        self._reply_size = reply_size
        self._unfinished = 0
        pipe.sock.setblocking(False)
        pipe.send(self._frames)

    def run(self, seconds: float) -> float:
        """Go on for that long; how many messages a second came."""
        pipe, sock, count = self._pipe, [self._pipe.sock], 0
        start = now = perf_counter()
        end = start + seconds
        while now < end:
            ready = select.select(sock, [] if pipe.is_flushed else sock, [], PATIENCE)
            pipe.flush()
            if ready[0]:
                done, self._unfinished = divmod(self._unfinished + pipe.receive(), self._reply_size)
                if done:
                    pipe.send(self._frames[: done * self._frame_size])
                    count += done
                    now = perf_counter()
            elif not ready[1]:
                raise LoadFailed("nothing came")
        return count / (now - start)


class ManyExchange(InThisProcess):
    """Many connections, with one message under way on each.

    It runs until each has had two echoes or so, however short it is to be: a server may well take
    what all have sent before it answers the first.
    """

    def __init__(self, sockets: Sequence[socket.socket], frame: bytes, reply_size: int) -> None:
        self._sockets = {sock.fileno(): sock for sock in sockets}
        self._frame = frame
        self._reply_size = reply_size
        self._missing = dict.fromkeys(self._sockets, reply_size)
        for sock in sockets:
            sock.sendall(frame)

    def run(self, seconds: float) -> float:
        """Go on for that long; how many messages a second came, on all of them together."""
        sockets, missing, frame, size = self._sockets, self._missing, self._frame, self._reply_size
        count, enough = 0, 2 * len(sockets)
        with watch(sockets) as poll:
            start = now = perf_counter()
            end = start + seconds
            while now < end or count < enough:
                for descriptor, _ in poll():
                    sock = sockets[descriptor]
                    received = sock.recv_into(BUFFER)
                    if received == missing[descriptor]:
                        missing[descriptor] = size
                        sock.send(frame)
                        count += 1
                    elif received:  # only a part of it came, which is rare
                        missing[descriptor] -= received
                    else:
                        raise LoadFailed("a connection ended")
                now = perf_counter()
        return count / (now - start)


@contextmanager
def watch(sockets: dict[int, socket.socket]) -> Iterator[Callable[[], Sequence[tuple[int, int]]]]:
    """A function that waits for some of them to be readable, and gives their descriptors.

    By epoll where there is one: the selectors module makes objects for each.
    """
    if hasattr(select, "epoll"):
        with select.epoll(len(sockets)) as epoll:
            for descriptor in sockets:
                epoll.register(descriptor, select.EPOLLIN)
            yield partial(_some, lambda: epoll.poll(PATIENCE))
    else:
        with selectors.DefaultSelector() as selector:
            for descriptor in sockets:
                selector.register(descriptor, selectors.EVENT_READ)
            yield partial(
                _some, lambda: [(key.fd, events) for key, events in selector.select(PATIENCE)]
            )


def _some(poll: Callable[[], Sequence[tuple[int, int]]]) -> Sequence[tuple[int, int]]:
    events = poll()
    if not events:
        raise LoadFailed("nothing came")
    return events


# ---------------------------------------------------------------------------
# Other loads
# ---------------------------------------------------------------------------


class BroadcastExchange(InThisProcess):
    """Many connections to a broadcaster. The first says something, and all hear it."""

    def __init__(self, pipes: Sequence[Pipe], frame: bytes, reply_size: int) -> None:
        self._speaker = pipes[0]
        self._sockets = {pipe.sock.fileno(): pipe.sock for pipe in pipes}
        self._frame = memoryview(frame)
        # Over TLS, nobody decrypts what comes here: that would be most of the load.
        self._all = (reply_size + self._speaker.OVERHEAD) * len(pipes)
        self.spreads: list[float] = []

    def run(self, seconds: float) -> float:
        """Go on for that long; how many deliveries a second came.

        `spreads` gets the time from the first delivery to the last one, for each message.
        """
        with watch(self._sockets) as poll:
            start = now = perf_counter()
            end = start + seconds
            self.spreads.clear()
            while now < end:
                self._speaker.send(self._frame)
                first, now = self._hear(poll)
                self.spreads.append(now - first)
        return len(self.spreads) * len(self._sockets) / (now - start)

    def _hear(self, poll: Callable[[], Sequence[tuple[int, int]]]) -> tuple[float, float]:
        sockets, missing, first = self._sockets, self._all, 0.0
        while missing:
            events = poll()
            first = first or perf_counter()
            for descriptor, _ in events:
                received = sockets[descriptor].recv_into(BUFFER)
                if not received:
                    raise LoadFailed("a connection ended")
                missing -= received
        return first, perf_counter()


class Handshakes(InThisProcess):
    """Connections that are opened and closed again, with both handshakes, so many at once."""

    def __init__(self, endpoint: Endpoint, at_once: int) -> None:
        self._endpoint = endpoint
        self._at_once = at_once
        self._visits: dict[int, Visit] = {}

    def run(self, seconds: float) -> float:
        """Go on for that long; how many connections a second were opened and closed."""
        count = 0
        with ExitStack() as stack, selectors.DefaultSelector() as selector:
            stack.callback(self._drop_all)
            for _ in range(self._at_once):
                selector.register(self._begin(), selectors.EVENT_READ)
            start = now = perf_counter()
            end = start + seconds
            while now < end:
                events = selector.select(PATIENCE)
                if not events:
                    raise LoadFailed("nothing came")
                for key, _ in events:
                    visit = self._visits[key.fd]
                    if visit.is_over():
                        del self._visits[key.fd]
                        selector.unregister(visit.sock)
                        visit.sock.close()
                        selector.register(self._begin(), selectors.EVENT_READ)
                        count += 1
                        now = perf_counter()
        return count / (now - start)

    def _begin(self) -> socket.socket:
        kind = TLSVisit if self._endpoint.context else Visit
        sock = connect(self._endpoint.port)
        self._visits[sock.fileno()] = kind(sock, self._endpoint)
        return sock

    def _drop_all(self) -> None:
        for visit in self._visits.values():
            visit.sock.close()
        self._visits.clear()


def trusting_context() -> ssl.SSLContext:
    """For TLS without a look at certificates: that would be a seventh of a handshake's cost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Visit:
    """One of these connections."""

    def __init__(self, sock: socket.socket, endpoint: Endpoint) -> None:
        self.sock = sock
        self._endpoint = endpoint
        self._head = b""
        self._begin()

    def _begin(self) -> None:
        self._send(self._endpoint.request)

    def _send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def is_over(self) -> bool:
        """Take what came, do the next step, and say whether that was the last."""
        data = self.sock.recv(65536)
        if not data:
            if wire.END_OF_HEAD not in self._head:
                raise LoadFailed("the connection ended in the opening handshake")
            return True
        self._take(data)
        return False

    def _take(self, data: bytes) -> None:
        if wire.END_OF_HEAD not in self._head:
            self._head += data
            if wire.END_OF_HEAD in self._head:
                check_response(self._head)
                self._send(wire.GOODBYE)


class TLSVisit(Visit):
    """The same over TLS: each time the whole handshake, as no session is kept."""

    def _begin(self) -> None:
        assert self._endpoint.context is not None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self._endpoint.context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=HOST
        )
        self._is_secure = self._has_parted = False
        self._shake_hands()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        else:
            self._is_secure = True
            self._send(self._endpoint.request)  # in one segment with the end of the handshake

    def _send(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def is_over(self) -> bool:
        try:
            return super().is_over()
        except ConnectionError:
            if not self._has_parted:
                raise
            return True  # others do not wait for it, and their closed socket resets the connection

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.sock.sendall(self._outgoing.read())

    def _take(self, data: bytes) -> None:
        self._incoming.write(data)
        if not self._is_secure:
            self._shake_hands()
        try:
            while self._is_secure:
                plain = self._tls.read(2**16)
                if not plain:  # the server says goodbye, and asyncio's waits for the answer
                    self._has_parted = True
                    self._tls.unwrap()
                    self._flush()
                    break
                super()._take(plain)
        except ssl.SSLWantReadError:
            pass
