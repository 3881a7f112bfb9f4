"""Peers that take compilers and hundreds of megabytes to have: `make interop` runs this.

Go's gorilla/websocket and nhooyr.io/websocket, Perl's Mojolicious and the client of the JDK, with
compression where they have it. What they say is replayed in every run of the suite, by
test_replays.
"""

from __future__ import annotations

import re
from typing import TypeAlias

import pytest
import trio

from tests.handshake.handshake_helpers import read_all, request
from tests.helpers import TEXT, close_frame, frame
from tests.interop import recordings, scenarios
from tests.interop.compressing import deflated
from tests.interop.messages import KINDS
from tests.interop.processes import run_peer
from tests.interop.scenarios import (
    AS_BROWSERS,
    CODE_ONLY,
    NAME,
    NONE,
    OFFER,
    WITH_REASON,
    Compression,
)
from tests.protocol.deflate_helpers import RSV1
from trio_ws._handshake.both_sides import accept_value

GO = ".tools/interop/go-peer"
PERL = ("perl", "tests/interop/perl/peer.pl")
JAVA = ("java", "tests/interop/java/Client.java")

#: Go's two name the same parameters in different orders.
NEITHER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
NHOOYR = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"

SERVERS = {
    "gorilla": ((GO, "gorilla-server"), Compression(OFFER, NEITHER), CODE_ONLY),
    "nhooyr": ((GO, "nhooyr-server"), Compression(OFFER, NHOOYR), WITH_REASON),
    "Mojolicious": ((*PERL, "server"), AS_BROWSERS, WITH_REASON),
}
CLIENTS = {
    "gorilla": ((GO, "gorilla-client"), Compression(NEITHER, NEITHER), CODE_ONLY),
    "nhooyr": ((GO, "nhooyr-client"), Compression(NHOOYR, NEITHER), WITH_REASON),
    "Mojolicious": ((*PERL, "client"), Compression(NAME, NAME), None),  # it hangs up
    "JDK": (JAVA, NONE, CODE_ONLY),
}
kinds = pytest.mark.parametrize("kind", KINDS)
servers = pytest.mark.parametrize(
    ("server", "expected", "answer"), SERVERS.values(), ids=SERVERS.keys()
)
clients = pytest.mark.parametrize(
    ("client", "expected", "answer"), CLIENTS.values(), ids=CLIENTS.keys()
)

Command: TypeAlias = tuple[str, ...]
CloseAnswer: TypeAlias = tuple[int, str] | None


@kinds
@servers
async def test_our_client_gets_every_size_back(
    server: Command, expected: Compression, answer: CloseAnswer, kind: str
) -> None:
    await scenarios.check_echo_from_server(server, kind, expected)


@servers
async def test_its_server_closes_with_code_and_reason(
    server: Command, expected: Compression, answer: CloseAnswer
) -> None:
    await scenarios.check_close_by_server(server)


@servers
async def test_its_server_is_told_code_and_reason(
    server: Command, expected: Compression, answer: CloseAnswer
) -> None:
    await scenarios.check_close_to_server(server, answer)


@kinds
@clients
async def test_its_client_gets_every_size_back(
    client: Command, expected: Compression, answer: CloseAnswer, kind: str
) -> None:
    await scenarios.check_echo_to_client(client, kind, expected)


@clients
async def test_its_client_closes_with_code_and_reason(
    client: Command, expected: Compression, answer: CloseAnswer
) -> None:
    await scenarios.check_close_by_client(client)


@clients
async def test_its_client_is_told_code_and_reason(
    client: Command, expected: Compression, answer: CloseAnswer
) -> None:
    await scenarios.check_close_to_client(client, answer)


# ---------------------------------------------------------------------------
# What test_replays is made of
# ---------------------------------------------------------------------------

RECORDED_SERVERS = {
    "gorilla": ((GO, "gorilla-server"), recordings.GORILLA_SERVER),
    "nhooyr": ((GO, "nhooyr-server"), recordings.NHOOYR_SERVER),
    "Mojolicious": ((*PERL, "server"), recordings.MOJOLICIOUS_SERVER),
}
RECORDED_CLIENTS = {
    "gorilla": ((GO, "gorilla-client"), recordings.GORILLA_CLIENT),
    "nhooyr": ((GO, "nhooyr-client"), recordings.NHOOYR_CLIENT),
    "Mojolicious": ((*PERL, "client"), recordings.MOJOLICIOUS_CLIENT),
    "JDK": (JAVA, recordings.JDK_CLIENT),
}


@pytest.mark.parametrize("offer", [OFFER, recordings.TOO_MUCH])
@pytest.mark.parametrize(
    ("command", "recorded"), RECORDED_SERVERS.values(), ids=RECORDED_SERVERS.keys()
)
async def test_a_server_says_what_was_recorded(
    command: Command, recorded: recordings.Server, offer: str
) -> None:
    asking = request(Sec_WebSocket_Key=recordings.KEY, Sec_WebSocket_Extensions=offer)
    answer = recorded.respond(offer)
    expected = answer.replace(b"{accept}", accept_value(recordings.KEY).encode())
    async with run_peer(*command) as server:
        port = (await server.next_report())["port"]
        async with await trio.open_tcp_stream(scenarios.HOST, port) as stream:
            await stream.send_all(asking)
            said = await receive(stream, len(expected))
            assert without_variables(said) == without_variables(expected)
            if answer == recorded.refusal:
                return
            for recorded_echo in recorded.echoes:
                message = deflated(recordings.MESSAGE.encode())
                await stream.send_all(frame(TEXT, message, rsv=RSV1))
                assert await receive(stream, len(recorded_echo)) == recorded_echo
            await stream.send_all(close_frame(1000))
            await read_all(stream)
            await server.next_report()


@pytest.mark.parametrize(
    ("command", "recorded"), RECORDED_CLIENTS.values(), ids=RECORDED_CLIENTS.keys()
)
async def test_a_client_asks_what_was_recorded(
    command: Command, recorded: recordings.Client
) -> None:
    ours = scenarios.OurServer()
    await scenarios.run_client(command, "text", ours)
    [asked] = ours.requests
    lines = [f"{asked.method} {asked.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in asked.headers.fields]
    head = "\r\n".join([*lines, "", ""]).encode()
    assert without_variables(head) == without_variables(recorded.request)


async def receive(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        assert piece
        data += piece
    return data


def without_variables(head: bytes) -> bytes:
    """A head but for what differs from one time, or one version, to the next."""
    variable = rb"(Date:|Sec-WebSocket-Key:|Host: 127\.0\.0\.1:|Java-http-client/)[^\r]*"
    return re.sub(variable, rb"\1", head, flags=re.IGNORECASE)
