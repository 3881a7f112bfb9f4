"""Every way in which a connection can end, in one table.

Who starts, when, and how we leave: for each combination, the close code that this side records,
the one that the peer is sent, the exception that a receiver sees before we leave, and that nothing
is left running. The table is printed in the documentation, and the test holds the two equal: after
a change that is meant, ``python -m tests.connection.test_closing_matrix`` writes it anew.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.helpers import (
    CLOSE,
    FIN,
    PATIENCE,
    PING,
    REQUEST,
    TEXT,
    URL,
    RawPeer,
    close_code,
    open_client_with_raw_server,
    open_server_with_raw_client,
    reset,
    tcp_pair,
)
from trio_ws import ConnectionClosed, WebSocket

DOCUMENT = Path(__file__).parents[2] / "docs" / "closing-matrix.md"

ROLES = ("server", "client")
HOW = ("normally", "by exception", "by cancellation")

OPTIONS: dict[str, Any] = {"max_queued_messages": 1, "close_timeout": 0.3, "open_timeout": 5}


class Boom(Exception):
    """What the application raises."""


@dataclass(frozen=True)
class Outcome:
    """One cell of the table."""

    ours: str
    peers: str
    seen: str

    def __str__(self) -> str:
        return f"{self.ours} / {self.peers} / {self.seen}"


async def run_case(role: str, who: str, when: str, how: str) -> Outcome:
    opener = open_server_with_raw_client if role == "server" else open_client_with_raw_server
    client, server = await tcp_pair()
    peers_end = client if role == "server" else server
    peer_saw: list[str] = []
    seen = "–"
    raised: BaseException | None = None
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            try:
                with trio.CancelScope() as scope:
                    async with opener(streams=(client, server), **OPTIONS) as (ws, peer):
                        await WHEN[when](ws, peer, nursery)
                        if when != "send buffer full" and who not in ("bare EOF", "reset"):
                            nursery.start_soon(answer_close, peer, who, peer_saw)
                        seen = await start(who, when, ws, peer, peers_end)
                        if how == "by exception":
                            raise Boom
                        if how == "by cancellation":
                            scope.cancel()
                            await trio.lowlevel.checkpoint()
            except Boom as exc:
                raised = exc
            nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(peers_end)
    assert (raised is not None) == (how == "by exception")
    assert scope.cancelled_caught == (how == "by cancellation")
    assert ws.state is trio_ws.State.CLOSED
    assert ws.close_reason is not None
    with pytest.raises(trio.ClosedResourceError):
        await ws.receive()
    ours = f"{ws.close_reason.code} by {ws.close_reason.initiator.value}"
    return Outcome(ours, peer_saw[0] if peer_saw else "–", seen)


async def be_idle(ws: WebSocket, peer: RawPeer, nursery: trio.Nursery) -> None:
    """Nothing is under way."""


async def be_mid_fragment(ws: WebSocket, peer: RawPeer, nursery: trio.Nursery) -> None:
    await peer.send_frame(TEXT, b"half a message", fin=False)
    await until(lambda: ws.statistics().queued_bytes > 0)


async def fill_the_queue(ws: WebSocket, peer: RawPeer, nursery: trio.Nursery) -> None:
    for _ in range(3):
        await peer.send_frame(TEXT, b"unread")
        await until(lambda: ws.statistics().queued_messages == 1)
    await trio.testing.wait_all_tasks_blocked(0.01)


async def fill_the_send_buffer(ws: WebSocket, peer: RawPeer, nursery: trio.Nursery) -> None:
    await ws.send(b"x" * 2**24)
    assert ws.statistics().unsent_bytes > 0


async def await_a_pong(ws: WebSocket, peer: RawPeer, nursery: trio.Nursery) -> None:
    nursery.start_soon(ping, ws)
    assert (await peer.receive_frame() or (0,))[0] == FIN | PING


#: The state in which the end comes, and what brings a connection into it.
WHEN = {
    "idle": be_idle,
    "mid-fragment": be_mid_fragment,
    "reader blocked on a full queue": fill_the_queue,
    "send buffer full": fill_the_send_buffer,
    "ping in flight": await_a_pong,
}


async def ping(ws: WebSocket) -> None:
    with pytest.raises((ConnectionClosed, trio.ClosedResourceError)):
        await ws.ping()


async def say_close(peer: RawPeer, stream: trio.SocketStream) -> None:
    await peer.send_close(4000, "bye")


async def send_bare_eof(peer: RawPeer, stream: trio.SocketStream) -> None:
    await stream.send_eof()


async def send_reset(peer: RawPeer, stream: trio.SocketStream) -> None:
    reset(stream)


async def do_nothing(peer: RawPeer, stream: trio.SocketStream) -> None:
    """We begin."""


#: Who begins the end, and what the peer does for that before we leave.
WHO = {
    "we": do_nothing,
    "the peer": say_close,
    "both at once": do_nothing,
    "bare EOF": send_bare_eof,
    "reset": send_reset,
}


async def start(
    who: str, when: str, ws: WebSocket, peer: RawPeer, stream: trio.SocketStream
) -> str:
    """Let the end begin, where it is not we who begin it, and say what a receiver sees."""
    begin = WHO[who]
    await begin(peer, stream)
    if begin is do_nothing:
        return "–"
    if when == "reader blocked on a full queue":
        await trio.sleep(0.02)  # it cannot be noticed: nobody reads
        return "–"
    try:
        await ws.receive()
    except ConnectionClosed as exc:
        return f"{type(exc).__name__} {exc.reason.code}"
    raise AssertionError


#: With what code a peer that has not closed yet answers our Close frame, given ours.
ANSWERS: dict[str, Callable[[RawPeer, int | None], Awaitable[None]]] = {
    "we": lambda peer, code: peer.send_close(code),
    "both at once": lambda peer, code: peer.send_close(4000, "bye"),
}


async def answer_close(peer: RawPeer, who: str, peer_saw: list[str]) -> None:
    """A peer that reads: it notes the code that it is sent, and answers if it has not closed."""
    while (received := await peer.receive_frame()) is not None:
        if received[0] == FIN | CLOSE:
            code = close_code(received[1])
            peer_saw.append(str(code))
            if who in ANSWERS:
                await ANSWERS[who](peer, code)
            if not peer.masks:  # a server hangs up first
                await peer.stream.aclose()
                return


async def until(condition: Any) -> None:
    while not condition():
        await trio.sleep(0.001)


async def run_handshake_case(role: str, who: str) -> str:
    """The end comes before the connection is open: what opening it raises."""
    client, server = await tcp_pair()
    ours, peers = (server, client) if role == "server" else (client, server)
    if role == "server":
        await peers.send_all(REQUEST[:30])
    outcome = ""
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_handshake, who, peers, scope)
            try:
                async with wrap(role, ours):
                    raise AssertionError
            except trio_ws.HandshakeError as exc:
                outcome = type(exc).__name__
    if scope.cancelled_caught:
        outcome = "Cancelled"
    assert ours.socket.fileno() == -1
    await trio.aclose_forcefully(peers)
    return outcome


@asynccontextmanager
async def wrap(role: str, stream: trio.abc.Stream) -> AsyncGenerator[WebSocket, None]:
    if role == "server":
        async with trio_ws.wrap_server_stream(stream) as ws:
            yield ws
    else:
        async with trio_ws.wrap_client_stream(stream, URL) as ws:
            yield ws


async def end_handshake(who: str, peers: trio.SocketStream, scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)
    await HANDSHAKE_ENDS[who](peers, scope)


async def cancel(peers: trio.SocketStream, scope: trio.CancelScope) -> None:
    scope.cancel()


async def hang_up(peers: trio.SocketStream, scope: trio.CancelScope) -> None:
    await peers.aclose()


async def hang_up_one_way(peers: trio.SocketStream, scope: trio.CancelScope) -> None:
    await peers.send_eof()


async def hang_up_hard(peers: trio.SocketStream, scope: trio.CancelScope) -> None:
    reset(peers)


#: Who ends the handshake, and how.
HANDSHAKE_ENDS = {
    "we": cancel,
    "the peer": hang_up,
    "bare EOF": hang_up_one_way,
    "reset": hang_up_hard,
}


# The tests…


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("role", ROLES)
async def test_the_end_is_the_one_in_the_documentation(role: str, who: str, when: str) -> None:
    row = [await run_case(role, who, when, how) for how in HOW]
    assert show_row(role, who, when, row) in DOCUMENT.read_text("utf-8")


@pytest.mark.parametrize("who", HANDSHAKE_ENDS)
@pytest.mark.parametrize("role", ROLES)
async def test_the_end_of_a_handshake_is_the_one_in_the_documentation(role: str, who: str) -> None:
    outcome = await run_handshake_case(role, who)
    assert show_handshake_row(role, who, outcome) in DOCUMENT.read_text("utf-8")


def show_row(role: str, who: str, when: str, row: list[Outcome]) -> str:
    return f"| {role} | {who} | {when} | {' | '.join(map(str, row))} |\n"


def show_handshake_row(role: str, who: str, outcome: str) -> str:
    return f"| {role} | {who} | {outcome} |\n"


HEADING = """\
# Every way in which a connection can end

Who starts × when × how we leave. Each cell holds the close code that this side records and who
began, the code in the Close frame that the peer was sent (– where it got none), and what a receiver
saw before we left. In every case, nothing is left running and later use of the connection raises
`trio.ClosedResourceError`. The table is made by the test suite, over TCP, with our end as a server
and as a client.

“Both at once” means that the two Close frames cross. Where the reader is blocked on a full queue,
an end that the peer starts is not noticed before we leave: that is back-pressure. Where the send
buffer is full, the peer does not read, so that it sees no Close frame, and leaving takes
`close_timeout`.

| we are | who starts | when | we leave normally | by exception | by cancellation |
|---|---|---|---|---|---|
"""

HANDSHAKE_HEADING = """
## During the opening handshake

There is no connection yet, so there are no codes: opening raises, and the socket is closed.

| we are | who ends it | opening raises |
|---|---|---|
"""


async def make_document() -> str:
    text = HEADING
    for role, who, when in itertools.product(ROLES, WHO, WHEN):
        row = [await run_case(role, who, when, how) for how in HOW]
        text += show_row(role, who, when, row)
    text += HANDSHAKE_HEADING
    for role, who in itertools.product(ROLES, HANDSHAKE_ENDS):
        text += show_handshake_row(role, who, await run_handshake_case(role, who))
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(trio.run(make_document), "utf-8")
