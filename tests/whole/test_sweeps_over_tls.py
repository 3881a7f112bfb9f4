"""The sweeps of `test_sweeps.py` over our TLS: cancelled at every step, failing at the k-th read or
write of the socket, and with one byte for each of these.

The peer's TLS is trio's. What must hold besides: the buffers that all connections share are empty
after each run, and free for the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio
import trio.testing

import trio_ws
from tests.helpers import HOST, URL, echo, open_server, socket_pair
from tests.tls_helpers import (
    CLIENT,
    NAME,
    SERVER,
    nothing_is_left_in_the_buffers,
    over,
    tls_contexts,
    wrap_client_transport,
    wrap_server_transport,
)
from tests.whole.sweeping import CancelAtAnyStep, converse, sweep
from trio_ws import ConnectionClosed, HandshakeError, WebSocket
from trio_ws._transport.sockets import SocketTransport
from trio_ws._transport.stream import Buffer
from trio_ws._transport.tls import TLSTransport

LISTENING, CONNECTING = tls_contexts(HOST)

OPTIONS = {"close_timeout": 2, "open_timeout": 5}


class FaultySocket(SocketTransport):
    """A socket whose reads and writes are counted, from 1; some of them go wrong.

    Attributes:
        operations: how many there were.
        fails_at: the number of the one that fails, as do those after it.
        ends_at: the number of the one from which on reads find the end, and writes fail.
        most: how many bytes one of them takes or gives. With a limit, every second one has none.
    """

    operations = 0
    fails_at = ends_at = most = 2**30

    def _operate(self, *, writes: bool) -> bool:
        """Whether it is the end. Raises if this one fails."""
        self.operations += 1
        is_end = self.operations >= self.ends_at
        if self.operations >= self.fails_at or (is_end and writes):
            raise trio.BrokenResourceError("injected fault")
        return is_end

    def _has_none(self) -> bool:
        return self.most < 2**30 and self.operations % 2 == 1

    def receive_nowait(self) -> bytes | None:
        if self._operate(writes=False):
            return b""
        if self._has_none():
            return None
        self._receive_size = min(self._receive_size, self.most)
        return super().receive_nowait()

    def receive_into_nowait(self, place: memoryview) -> int | None:
        if self._operate(writes=False):
            return 0
        return None if self._has_none() else super().receive_into_nowait(place[: self.most])

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        self._operate(writes=True)
        return 0 if self._has_none() else super().send_nowait([b"".join(buffers)[: self.most]])


class Faulty(TLSTransport, FaultySocket):
    """Our TLS over that."""


Scenario = Callable[[trio.SocketStream], Awaitable[None]]
Side = Callable[[Faulty], Awaitable[None]]


async def as_client(transport: Faulty) -> None:
    async with wrap_client_transport(transport, **OPTIONS) as ws:
        await converse(ws)


async def as_server(transport: Faulty) -> None:
    async with wrap_server_transport(transport, **OPTIONS) as ws:
        await converse(ws)


async def respond(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def run_peer(ours: str, stream: trio.SocketStream) -> None:
    """With TLS of trio's."""
    try:
        if ours == "client":
            tls = trio.SSLStream(stream, SERVER, server_side=True)
            async with trio_ws.wrap_server_stream(tls) as ws:
                await respond(ws)
        else:
            tls = trio.SSLStream(stream, CLIENT, server_hostname=NAME)
            async with trio_ws.wrap_client_stream(tls, URL) as ws:
                await respond(ws)
    except (ConnectionClosed, HandshakeError):
        await trio.aclose_forcefully(stream)


AUTOJUMP = pytest.mark.autojump
SIDES = pytest.mark.parametrize("side", ["client", "server"])

#: How many bytes the socket takes and gives at once. Few make more steps and more operations.
MOST = pytest.mark.parametrize("most", [2**30, 500])


def make(side: str, most: int) -> tuple[Faulty, Side, trio.SocketStream]:
    """Ours, what to do with it, and the stream of the peer."""
    near, far = socket_pair()
    arguments = (CLIENT, NAME) if side == "client" else (SERVER, None)
    ours = over(near, *arguments, kind=Faulty)
    assert isinstance(ours, Faulty)
    ours.most = most
    return ours, as_client if side == "client" else as_server, far


def is_closed(transport: Faulty) -> bool:
    return transport._socket.fileno() == -1


@AUTOJUMP
@SIDES
@MOST
async def test_cancelling_at_every_step_over_tls_leaves_nothing(side: str, most: int) -> None:
    for step in itertools.count(1):
        ours, run, far = make(side, most)
        tasks = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_peer, side, far)
            with trio.CancelScope() as scope:
                instrument = CancelAtAnyStep(scope, step)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await run(ours)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
        assert is_closed(ours)
        assert nothing_is_left_in_the_buffers()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        if instrument.steps_left > 0:
            break
    assert step > 10


@AUTOJUMP
@SIDES
@MOST
@pytest.mark.parametrize("fault", ["error", "end of file"])
async def test_a_fault_at_the_kth_operation_of_the_socket_is_a_documented_exception(
    side: str, fault: str, most: int
) -> None:
    for k in itertools.count(1):
        ours, run, far = make(side, most)
        if fault == "error":
            ours.fails_at = k
        else:
            ours.ends_at = k
        tasks = trio.lowlevel.current_statistics().tasks_living
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_peer, side, far)
            try:
                await run(ours)
            except (ConnectionClosed, HandshakeError):
                failed = True
            else:
                failed = False
        assert is_closed(ours)
        assert nothing_is_left_in_the_buffers()
        assert trio.current_time() - start <= 30
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        if not failed and ours.operations < k:
            break
    assert k > 10


@AUTOJUMP
@SIDES
@pytest.mark.parametrize("most", [1, 7])
async def test_a_socket_that_takes_and_gives_few_bytes_changes_nothing(
    side: str, most: int
) -> None:
    ours, run, far = make(side, most)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_peer, side, far)
        await run(ours)
    assert nothing_is_left_in_the_buffers()


async def test_cancelling_a_server_and_its_client_at_every_step_over_tls_leaves_nothing() -> None:
    async def run() -> None:
        async with open_server(echo, ssl_context=LISTENING) as server:
            async with trio_ws.open_websocket_url(server.urls[0], ssl_context=CONNECTING) as ws:
                await converse(ws)

    assert await sweep(run) > 50
    assert nothing_is_left_in_the_buffers()
