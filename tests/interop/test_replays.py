"""Peers that are not at hand, as fakes: sockets that say byte by byte what the real ones say."""

from __future__ import annotations

import zlib
from functools import partial
from typing import Any

import pytest
import trio

from tests.handshake.handshake_helpers import parse_response, read_head, request_fields
from tests.helpers import CLOSE, FIN, TEXT, RawPeer, echo
from tests.interop import recordings
from tests.interop.compressing import TAIL, deflated
from tests.interop.recordings import MESSAGE, TOO_MUCH, Client, Server
from tests.interop.scenarios import HOST, OFFER
from tests.protocol.deflate_helpers import RSV1
from trio_ws import ConnectionRejected, Deflate, WebSocketServer, open_websocket, serve_websocket
from trio_ws._handshake.both_sides import accept_value

MARKED = FIN | RSV1 << 4 | TEXT
#: Long enough to be compressed unasked.
LONG = MESSAGE.encode() * 2

SERVERS = {
    "gorilla": recordings.GORILLA_SERVER,
    "nhooyr": recordings.NHOOYR_SERVER,
    "Mojolicious": recordings.MOJOLICIOUS_SERVER,
    "Jetty": recordings.JETTY_SERVER,
    "Jetty without takeover": recordings.JETTY_SERVER_WITHOUT_TAKEOVER,
    "ws of 15 bits": recordings.WS_SERVER_OF_15_BITS,
    "Kubernetes": recordings.KUBERNETES_SERVER,
}


async def replay(recorded: Server, stream: trio.SocketStream) -> None:
    """Answer a request, inflate two messages and send the recorded echoes, close as asked."""
    fields = request_fields(await read_head(stream))
    answer = recorded.respond(fields["Sec-WebSocket-Extensions"])
    accept = accept_value(fields["Sec-WebSocket-Key"]).encode()
    await stream.send_all(answer.replace(b"{accept}", accept))
    if answer == recorded.refusal:
        return
    peer = RawPeer(stream, masks=False)
    inflater = zlib.decompressobj(-15)
    for recorded_echo in recorded.echoes:
        first, payload = await peer.receive_frame() or (0, b"")
        if b"permessage-deflate" in answer:
            assert first == MARKED
            payload = inflater.decompress(payload + TAIL)
            if b"client_no_context_takeover" in answer:
                inflater = zlib.decompressobj(-15)
        assert payload.decode() == MESSAGE
        await peer.send(recorded_echo)
    first, payload = await peer.receive_frame() or (0, b"")
    assert first == FIN | CLOSE
    await peer.send_frame(CLOSE, payload)


async def converse(recorded: Server, **options: Any) -> None:
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host=HOST)
        _, port = listener.socket.getsockname()

        async def serve() -> None:
            async with listener, await listener.accept() as stream:
                await replay(recorded, stream)

        nursery.start_soon(serve)
        with trio.fail_after(60):
            async with open_websocket(HOST, port, **options) as websocket:
                assert websocket.subprotocol is None
                for _ in recorded.echoes:
                    await websocket.send(MESSAGE, compress=True)
                    assert await websocket.receive() == MESSAGE


@pytest.mark.parametrize("recorded", SERVERS.values(), ids=SERVERS.keys())
async def test_our_client_talks_to_a_server_that_is_replayed(recorded: Server) -> None:
    await converse(recorded, subprotocols=["v5.channel.k8s.io"])


@pytest.mark.parametrize("name", ["nhooyr", "ws of 15 bits"])
async def test_some_peers_refuse_an_offer_of_windows(name: str) -> None:
    """Why the default asks for none."""
    wanting = Deflate(server_window_bits=12, client_window_bits=12)
    with pytest.raises(ExceptionGroup) as caught:
        await converse(SERVERS[name], compression=wanting)
    [refused] = caught.value.exceptions
    assert isinstance(refused, ConnectionRejected)
    assert refused.response.status == 400


@pytest.mark.parametrize("name", ["gorilla", "Mojolicious", "Jetty"])
async def test_other_peers_have_one_answer_to_an_offer_of_windows(name: str) -> None:
    wanting = Deflate(server_window_bits=12, client_window_bits=12)
    assert SERVERS[name].respond(TOO_MUCH) == SERVERS[name].respond(OFFER)
    await converse(SERVERS[name], compression=wanting)


CLIENTS = {
    "gorilla": recordings.GORILLA_CLIENT,
    "nhooyr": recordings.NHOOYR_CLIENT,
    "Mojolicious": recordings.MOJOLICIOUS_CLIENT,
    "JDK": recordings.JDK_CLIENT,
}


@pytest.mark.parametrize("recorded", CLIENTS.values(), ids=CLIENTS.keys())
async def test_our_server_answers_a_client_that_is_replayed_as_it_asks(recorded: Client) -> None:
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(partial(serve_websocket, echo, HOST, 0))
        async with await trio.open_tcp_stream(HOST, server.port) as stream:
            await stream.send_all(recorded.request.replace(b"{key}", recordings.KEY.encode()))
            response = parse_response(await read_head(stream))
            assert response.status == 101
            assert response.headers["Sec-WebSocket-Accept"] == accept_value(recordings.KEY)
            assert response.headers.get("Sec-WebSocket-Extensions") == recorded.extensions
            peer = RawPeer(stream, masks=True)
            inflater = zlib.decompressobj(-15)
            for _ in range(2):
                if recorded.extensions is None:
                    await peer.send_frame(TEXT, LONG)
                    assert await peer.receive_frame() == (FIN | TEXT, LONG)
                    continue
                await peer.send_frame(TEXT, deflated(LONG), rsv=RSV1)
                first, payload = await peer.receive_frame() or (0, b"")
                assert first == MARKED
                assert inflater.decompress(payload + TAIL) == LONG
                if "server_no_context_takeover" in recorded.extensions:
                    inflater = zlib.decompressobj(-15)
        await server.aclose()
