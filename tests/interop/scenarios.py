"""What is tried with every peer: each size of text and of binary there and back, each way to close.

A client peer is given a URL and the name of a scenario:

    text, binary   send a message of each size and report each echo, then close with 1000
    close          close with 4000 "bye"
    wait           wait for the server to close

and reports how the connection ended. A server peer reports the port that it listens on, then every
message and the end of every connection; it echoes, and closes by itself with 4000 "bye" if the path
is /close.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

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

#: Served at /page: what a browser does as a client.
PAGE = Path(__file__).with_name("page.html").read_bytes()


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

    async def handle(self, websocket: WebSocket) -> None:
        if websocket.request.path == "/wait":
            await websocket.aclose(4001, "done")
        else:
            with suppress(ConnectionLost):  # by 4000: see what it was below
                async for message in websocket:
                    await websocket.send(message)
        self.ends.append(await websocket.wait_closed())

    def answer(self, request: Request) -> Response | None:
        if request.path == "/page":
            return Response(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE)
        return None


async def reports_of_client(
    command: Sequence[str], scenario: str
) -> tuple[list[dict[str, Any]], CloseReason]:
    """What a client peer says, and how its one connection ended for our server."""
    ours = OurServer()
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, ours.handle, HOST, 0, process_request=ours.answer)
        server: WebSocketServer = await nursery.start(serve)
        url = f"ws://{HOST}:{server.port}/{scenario}"
        async with run_peer(*command, url, scenario) as peer:
            reports = await peer.all_reports()
        await server.aclose()
    [end] = ours.ends
    return reports, end


async def check_echo_to_client(command: Sequence[str], kind: str) -> None:
    reports, end = await reports_of_client(command, kind)
    assert reports == [*echo_reports(kind), closed_report(1000, "")]
    assert end == CloseReason(1000, "", Initiator.REMOTE)


async def check_close_by_client(command: Sequence[str]) -> None:
    reports, end = await reports_of_client(command, "close")
    assert reports == [closed_report(4000, "bye")]
    assert end == CloseReason(4000, "bye", Initiator.REMOTE)


async def check_close_to_client(
    command: Sequence[str], answer: tuple[int, str] = (4001, "done")
) -> None:
    reports, end = await reports_of_client(command, "wait")
    assert reports == [closed_report(4001, "done")]
    assert end == CloseReason(*answer, Initiator.LOCAL)


# ---------------------------------------------------------------------------
# The peer is the server
# ---------------------------------------------------------------------------


async def url_of(peer: Peer, path: str = "/") -> str:
    listening = await peer.next_report()
    assert listening["event"] == "listening"
    return f"ws://{HOST}:{listening['port']}{path}"


async def check_echo_from_server(command: Sequence[str], kind: str) -> None:
    async with run_peer(*command) as peer:
        async with open_websocket_url(await url_of(peer)) as websocket:
            for size in SIZES:
                message = make(kind, size)
                await websocket.send(message)
                assert await websocket.receive() == message
        reports = [await peer.next_report() for _ in [*SIZES, "end"]]
    assert reports == [*echo_reports(kind), closed_report(1000, "")]
    assert websocket.close_reason == CloseReason(1000, "", Initiator.LOCAL)


async def check_close_by_server(command: Sequence[str]) -> None:
    async with run_peer(*command) as peer:
        async with open_websocket_url(await url_of(peer, "/close")) as websocket:
            end = await websocket.wait_closed()
        assert await peer.next_report() == closed_report(4000, "bye")
    assert end == CloseReason(4000, "bye", Initiator.REMOTE)


async def check_close_to_server(command: Sequence[str]) -> None:
    async with run_peer(*command) as peer:
        async with open_websocket_url(await url_of(peer)) as websocket:
            # A server may not answer a Close frame that overtakes the start of its handler.
            await websocket.send("a")
            assert await websocket.receive() == "a"
            await websocket.aclose(4001, "done")
        assert await peer.next_report() == {"event": "message", **describe("a")}
        assert await peer.next_report() == closed_report(4001, "done")
    assert websocket.close_reason == CloseReason(4001, "done", Initiator.LOCAL)
