"""What is tried with every peer: each size of text and of binary there and back, each way to close.

A client peer is given a URL and the name of a scenario:

    text, binary   send a message of each size and report each echo, then close with 1000
    close          close with 4000 "bye"
    wait           wait for the server to close

and reports how the connection ended. A server peer reports the port that it listens on, then every
message and the end of every connection; it echoes, and closes by itself with 4000 "bye" if the path
is /close.

Our side has its default settings. What was offered and agreed to of compression, and which side
made use of it, is part of what is expected of each peer: `NONE`, `AS_BROWSERS`, or what it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.interop.certificates import client_context, scheme, server_context
from tests.interop.messages import SIZES, describe, make
from tests.interop.processes import Peer, run_peer
from trio_ws import (
    CloseReason,
    ConnectionLost,
    Initiator,
    Request,
    Response,
    WebSocket,
    WebSocketServer,
    open_websocket_url,
    serve_websocket,
)

HOST = "127.0.0.1"

#: How peers answer a Close frame that says "done": with its reason, or with its code alone.
WITH_REASON = (4001, "done")
CODE_ONLY = (4001, "")

#: Served at /page: what a browser does as a client.
PAGE = Path(__file__).with_name("page.html").read_bytes()


@dataclass(frozen=True)
class Compression:
    """The extensions in the handshake, and whether we and the peer compressed.

    Every message is compressible, so whoever agreed to it should have.
    """

    offer: str | None
    answer: str | None
    used_by_us: bool = True
    used_by_peer: bool = True

    @classmethod
    def of(cls, websocket: WebSocket) -> Compression:
        statistics = websocket.statistics()
        return cls(
            websocket.request.headers.get("Sec-WebSocket-Extensions"),
            websocket.response.headers.get("Sec-WebSocket-Extensions"),
            used_by_us=(statistics.compression_sent or 0) > 1,
            used_by_peer=(statistics.compression_received or 0) > 1,
        )


NONE = Compression(None, None, used_by_us=False, used_by_peer=False)
NAME = "permessage-deflate"
OFFER = f"{NAME}; client_max_window_bits"
AS_BROWSERS = Compression(OFFER, NAME)

#: An answer that may differ from one version of the peer to the next.
ITS_OWN = f"{NAME}, in its own words"
WITH_AN_ANSWER_OF_ITS_OWN = Compression(OFFER, ITS_OWN)


def echo_reports(kind: str) -> list[dict[str, Any]]:
    return [{"event": "message", **describe(make(kind, size))} for size in SIZES]


def closed_report(code: int, reason: str) -> dict[str, Any]:
    return {"event": "closed", "code": code, "reason": reason}


# ---------------------------------------------------------------------------
# The peer is the client
# ---------------------------------------------------------------------------


class OurServer:
    """Echoes, or closes with 4001 "done" if the path is /wait; remembers how connections ended."""

    def __init__(self) -> None:
        self.ends: list[CloseReason] = []
        self.compressions: list[Compression] = []
        self.requests: list[Request] = []

    async def handle(self, websocket: WebSocket) -> None:
        self.requests.append(websocket.request)
        if websocket.request.path == "/wait":
            await websocket.aclose(4001, "done")
        else:
            with suppress(ConnectionLost):  # by 4000: see what it was below
                async for message in websocket:
                    await websocket.send(message)
        self.ends.append(await websocket.wait_closed())
        self.compressions.append(Compression.of(websocket))

    def answer(self, request: Request) -> Response | None:
        if request.path == "/page":
            return Response(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE)
        return None


async def reports_of_client(
    command: Sequence[str], scenario: str
) -> tuple[list[dict[str, Any]], CloseReason, Compression]:
    """The reports of a client peer, and how its one connection went for our server."""
    ours = OurServer()
    reports = await run_client(command, scenario, ours)
    [end], [compression] = ours.ends, ours.compressions
    return reports, end, compression


async def run_client(
    command: Sequence[str], scenario: str, ours: OurServer
) -> list[dict[str, Any]]:
    """The reports of a client peer about its conversation with our server."""
    async with trio.open_nursery() as nursery:
        serve = partial(
            serve_websocket,
            ours.handle,
            HOST,
            0,
            process_request=ours.answer,
            ssl_context=server_context(),
        )
        server: WebSocketServer = await nursery.start(serve)
        url = f"{scheme()}://{HOST}:{server.port}/{scenario}"
        async with run_peer(*command, url, scenario) as peer:
            reports = await peer.all_reports()
        await server.aclose()
    return reports


async def check_echo_to_client(
    command: Sequence[str], kind: str, expected: Compression = AS_BROWSERS
) -> None:
    reports, end, compression = await reports_of_client(command, kind)
    assert compression == expected
    assert reports == [*echo_reports(kind), closed_report(1000, "")]
    assert end == CloseReason(1000, "", Initiator.REMOTE)


async def check_close_by_client(command: Sequence[str]) -> None:
    reports, end, _ = await reports_of_client(command, "close")
    assert reports == [closed_report(4000, "bye")]
    assert end == CloseReason(4000, "bye", Initiator.REMOTE)


async def check_close_to_client(
    command: Sequence[str], answer: tuple[int, str] | None = WITH_REASON
) -> None:
    """`answer` is what the peer's Close frame says; `None` for a peer that may send none."""
    reports, end, _ = await reports_of_client(command, "wait")
    assert reports == [closed_report(4001, "done")]
    if answer is not None:
        assert end == CloseReason(*answer, Initiator.LOCAL)


# ---------------------------------------------------------------------------
# The peer is the server
# ---------------------------------------------------------------------------


async def url_of(peer: Peer, path: str = "/") -> str:
    listening = await peer.next_report()
    assert listening["event"] == "listening"
    return f"{scheme()}://{HOST}:{listening['port']}{path}"


async def check_echo_from_server(
    command: Sequence[str],
    kind: str,
    expected: Compression = AS_BROWSERS,
    *,
    reported_code: int = 1000,
) -> None:
    async with run_peer(*command) as peer:
        async with open_websocket_url(
            await url_of(peer), ssl_context=client_context()
        ) as websocket:
            for size in SIZES:
                message = make(kind, size)
                await websocket.send(message)
                assert await websocket.receive() == message
        reports = [await peer.next_report() for _ in [*SIZES, "end"]]
    compression = Compression.of(websocket)
    if expected.answer == ITS_OWN:
        assert compression.answer is not None
        compression = replace(compression, answer=ITS_OWN)
    assert compression == expected
    assert reports == [*echo_reports(kind), closed_report(reported_code, "")]
    assert websocket.close_reason == CloseReason(1000, "", Initiator.LOCAL)


async def check_close_by_server(command: Sequence[str]) -> None:
    async with run_peer(*command) as peer:
        async with open_websocket_url(
            await url_of(peer, "/close"), ssl_context=client_context()
        ) as websocket:
            end = await websocket.wait_closed()
        assert await peer.next_report() == closed_report(4000, "bye")
    assert end == CloseReason(4000, "bye", Initiator.REMOTE)


async def check_close_to_server(
    command: Sequence[str], answer: tuple[int, str] | None = WITH_REASON
) -> None:
    async with run_peer(*command) as peer:
        async with open_websocket_url(
            await url_of(peer), ssl_context=client_context()
        ) as websocket:
            # A server may not answer a Close frame that overtakes the start of its handler.
            await websocket.send("a")
            assert await websocket.receive() == "a"
            await websocket.aclose(4001, "done")
        assert await peer.next_report() == {"event": "message", **describe("a")}
        assert await peer.next_report() == closed_report(4001, "done")
    if answer is not None:
        assert websocket.close_reason == CloseReason(*answer, Initiator.LOCAL)
