"""Every way in which a connection can end, in one table.

Who starts, when, and how we leave: for each combination, the close code that this side records,
the one that the peer is sent, the exception that a receiver sees before we leave, and that nothing
is left running. The table is printed in the documentation, and the test holds the two equal: after
a change that is meant, ``python -m tests.connection.test_closing_matrix`` writes it anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

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
from tests.tls_helpers import (
    CLIENT,
    NAME,
    SERVER,
    open_client_with_raw_tls_server,
    open_server_with_raw_tls_client,
    over,
    tls_of_trio,
    wrap_client_transport,
    wrap_server_transport,
)
from trio_ws import ConnectionClosed, WebSocket

DOCUMENT = Path(__file__).parents[2] / "docs/maintainers/closing-matrix.md"

LINES = ("TCP", "TLS")
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


#: What opens our end, and a raw peer.
OPENERS: dict[tuple[str, str], Any] = {
    ("server", "TCP"): open_server_with_raw_client,
    ("client", "TCP"): open_client_with_raw_server,
    ("server", "TLS"): open_server_with_raw_tls_client,
    ("client", "TLS"): open_client_with_raw_tls_server,
}


async def run_case(line: str, role: str, who: str, when: str, how: str) -> Outcome:
    opener = OPENERS[role, line]
    begin = (WHO | WHO_OVER_TLS)[who]
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
                        if when != "send buffer full" and who not in SAY_NO_MORE:
                            nursery.start_soon(answer_close, peer, who, peer_saw)
                        await begin(peer, peers_end, nursery)
                        if begin is not do_nothing:
                            seen = await see_the_end(when, ws)
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


async def run_row(line: str, role: str, who: str, when: str) -> list[Outcome]:
    """The cells of a row, at once: most of the time they wait."""
    row: dict[str, Outcome] = {}

    async def run(how: str) -> None:
        row[how] = await run_case(line, role, who, when, how)

    async with trio.open_nursery() as nursery:
        for how in HOW:
            nursery.start_soon(run, how)
    return [row[how] for how in HOW]


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


async def say_close(peer: RawPeer, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
    await peer.send_close(4000, "bye")


async def send_bare_eof(peer: RawPeer, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
    await stream.send_eof()


async def send_reset(peer: RawPeer, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
    reset(stream)


async def say_goodbye(peer: RawPeer, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
    """TLS says close_notify; the connection under it stays."""
    nursery.start_soon(leave_tls, peer.stream)  # it waits for our goodbye
    await trio.testing.wait_all_tasks_blocked(0.01)


async def do_nothing(peer: RawPeer, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
    """We begin."""


#: Who begins the end, and what the peer does for that before we leave.
WHO = {
    "we": do_nothing,
    "the peer": say_close,
    "both at once": do_nothing,
    "bare EOF": send_bare_eof,
    "reset": send_reset,
}

#: What only TLS has.
WHO_OVER_TLS = {"goodbye of TLS": say_goodbye}

#: Who does not answer a Close frame.
SAY_NO_MORE = {"bare EOF", "reset", *WHO_OVER_TLS}


async def see_the_end(when: str, ws: WebSocket) -> str:
    """What a receiver sees, when it is not we who began."""
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


async def run_handshake_case(line: str, role: str, who: str) -> str:
    """The end comes before the connection is open: what opening it raises."""
    client, server = await tcp_pair()
    ours, below = (server, client) if role == "server" else (client, server)
    peers: Stream = tls_of_trio(below, masks=role == "server") if line == "TLS" else below
    outcome = ""
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_handshake, role, who, peers, scope)
            try:
                async with wrap(line, role, ours):
                    raise AssertionError
            except trio_ws.HandshakeError as exc:
                outcome = type(exc).__name__
    if scope.cancelled_caught:
        outcome = "Cancelled"
    assert ours.socket.fileno() == -1
    await trio.aclose_forcefully(below)
    return outcome


def wrap(line: str, role: str, stream: trio.SocketStream) -> AbstractAsyncContextManager[WebSocket]:
    if line == "TCP" and role == "server":
        return trio_ws.wrap_server_stream(stream)
    if line == "TCP":
        return trio_ws.wrap_client_stream(stream, URL)
    if role == "server":
        return wrap_server_transport(over(stream, SERVER))
    return wrap_client_transport(over(stream, CLIENT, NAME))


Stream: TypeAlias = trio.SocketStream | trio.SSLStream[Any]


def socket_of(stream: Stream) -> trio.SocketStream:
    return stream if isinstance(stream, trio.SocketStream) else stream.transport_stream


async def end_handshake(role: str, who: str, peers: Stream, scope: trio.CancelScope) -> None:
    if isinstance(peers, trio.SSLStream):
        await peers.do_handshake()
    if role == "server":
        await peers.send_all(REQUEST[:30])
    elif isinstance(peers, trio.SSLStream):
        await peers.receive_some()  # OpenSSL says no goodbye while something is unread
    await trio.testing.wait_all_tasks_blocked(0.01)
    await (HANDSHAKE_ENDS | HANDSHAKE_ENDS_OVER_TLS)[who](peers, scope)


async def cancel(peers: Stream, scope: trio.CancelScope) -> None:
    scope.cancel()


async def hang_up(peers: Stream, scope: trio.CancelScope) -> None:
    await peers.aclose()


async def hang_up_one_way(peers: Stream, scope: trio.CancelScope) -> None:
    await socket_of(peers).send_eof()


async def hang_up_hard(peers: Stream, scope: trio.CancelScope) -> None:
    reset(socket_of(peers))


async def say_goodbye_early(peers: Stream, scope: trio.CancelScope) -> None:
    await leave_tls(peers)


async def leave_tls(stream: trio.abc.Stream) -> None:
    assert isinstance(stream, trio.SSLStream)
    with suppress(trio.BrokenResourceError):
        await stream.unwrap()


#: Who ends the handshake, and how.
HANDSHAKE_ENDS = {
    "we": cancel,
    "the peer": hang_up,
    "bare EOF": hang_up_one_way,
    "reset": hang_up_hard,
}

#: What only TLS has.
HANDSHAKE_ENDS_OVER_TLS = {"goodbye of TLS": say_goodbye_early}


# The tests…


CASES = list(itertools.product(LINES, ROLES, WHO, WHEN))
CASES += itertools.product(["TLS"], ROLES, WHO_OVER_TLS, WHEN)

HANDSHAKE_CASES = list(itertools.product(LINES, ROLES, HANDSHAKE_ENDS))
HANDSHAKE_CASES += itertools.product(["TLS"], ROLES, HANDSHAKE_ENDS_OVER_TLS)


@pytest.mark.parametrize(("line", "role", "who", "when"), CASES)
async def test_the_end_is_the_one_in_the_documentation(
    line: str, role: str, who: str, when: str
) -> None:
    row = await run_row(line, role, who, when)
    assert show_row(role, who, when, row) in DOCUMENT.read_text("utf-8")


@pytest.mark.parametrize(("line", "role", "who"), HANDSHAKE_CASES)
async def test_the_end_of_a_handshake_is_the_one_in_the_documentation(
    line: str, role: str, who: str
) -> None:
    outcome = await run_handshake_case(line, role, who)
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
`trio.ClosedResourceError`. The table is made by the test suite over TCP, with our end as a server
and as a client; over TLS, the suite finds the same in every case.

“Both at once” means that the two Close frames cross. Where the reader is blocked on a full queue,
an end that the peer starts is not noticed before we leave: that is back-pressure. Where the send
buffer is full, the peer does not read, so that it sees no Close frame, and leaving takes
`close_timeout`.

“Goodbye of TLS” is close_notify without a Close frame before it, which only TLS has. It ends a
WebSocket as the end of a TCP connection does: with 1006. With a bare EOF over TLS there is no
close_notify, and what the receiver sees says so in its cause.

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
    for role in ROLES:
        for line, who in [*((LINES[0], who) for who in WHO), *(("TLS", w) for w in WHO_OVER_TLS)]:
            for when in WHEN:
                row = await run_row(line, role, who, when)
                text += show_row(role, who, when, row)
    text += HANDSHAKE_HEADING
    for role in ROLES:
        for line, who in itertools.chain(
            ((LINES[0], who) for who in HANDSHAKE_ENDS),
            (("TLS", who) for who in HANDSHAKE_ENDS_OVER_TLS),
        ):
            text += show_handshake_row(role, who, await run_handshake_case(line, role, who))
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(trio.run(make_document), "utf-8")
