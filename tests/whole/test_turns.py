"""One peer can cause only so much work between two turns of the others, whatever it sends.

These tests measure the processor time that the server's thread takes for one pass of its scheduler,
so that a busy machine makes no difference. The server runs in its own process, without a tracer.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress

import pytest
import trio

from tests.helpers import BINARY, CONTINUATION, PING, PONG, TEXT, RawPeer, frame
from tests.whole.server_process import COMPRESSED, Server, report, server_process
from trio_ws import open_websocket_url

#: In seconds of processor time.
LONGEST_PASS = 0.02

#: How long each peer goes on, in seconds.
ATTACK = 0.3

SERVER = """
import json, os, sys, threading, time
import trio, trio_ws


def end_with_parent():
    os.read(0, 1)
    os._exit(1)


threading.Thread(target=end_with_parent, daemon=True).start()


class Passes(trio.abc.Instrument):
    longest = began = 0.0

    def after_io_wait(self, timeout):
        self.began = time.thread_time()

    def before_io_wait(self, timeout):
        self.longest = max(self.longest, time.thread_time() - self.began)


passes = Passes()
broadcast = None


async def close(ws):
    await ws.aclose()


async def echo(ws):
    async for message in ws:
        await ws.send(message)


async def subscribe(ws):
    with broadcast.subscribe(ws, "topic"):
        await trio.sleep_forever()


async def publish(ws):
    async for message in ws:
        broadcast.publish(message, "topic")


async def tell_longest(ws):
    await ws.send_json(passes.longest)


async def begin(ws):
    passes.longest = 0.0
    passes.began = time.thread_time()


HANDLERS = {
    "/close": close,
    "/echo": echo,
    "/subscribe": subscribe,
    "/publish": publish,
    "/longest": tell_longest,
    "/begin": begin,
}


async def handler(ws):
    await HANDLERS[ws.request.path](ws)


async def main():
    global broadcast
    trio.lowlevel.add_instrument(passes)
    async with trio_ws.open_broadcast() as broadcast, trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: trio_ws.serve_websocket(
                handler, "127.0.0.1", 0, task_status=task_status, **json.loads(sys.argv[1])
            )
        )
        print(server.port, flush=True)

trio.run(main)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with server_process(SERVER) as running:
        yield running


def bomb() -> bytes:
    """A frame of a kilobyte that inflates to a megabyte."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = compressor.compress(bytes(2**20 - 1)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return frame(BINARY, data[:-4], rsv=COMPRESSED)


FLOODS = {
    "frames that inflate a thousandfold": bomb() * 64,
    "pings": frame(PING) * 10_000,
    "long pings": frame(PING, b"x" * 125) * 500,
    "pongs": frame(PONG) * 10_000,
    "empty fragments": frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 10_000,
    "tiny messages": frame(TEXT, b"x") * 10_000,
    "messages of 64 KiB": frame(BINARY, os.urandom(2**16)) * 4,
    "text of 64 KiB": frame(TEXT, b"x" * 2**16) * 4,
}


async def flood(server: Server, path: str, data: bytes) -> None:
    """Send it again and again, and read what comes, until the server will not have it."""
    peer = await server.connect(path, headers="Sec-WebSocket-Extensions: permessage-deflate\r\n")

    async def read() -> None:
        with suppress(trio.BrokenResourceError):
            while await peer.stream.receive_some():
                pass

    with trio.move_on_after(ATTACK):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with suppress(trio.BrokenResourceError):
                while True:
                    await peer.send(data)
    await trio.aclose_forcefully(peer.stream)


async def longest_pass(server: Server) -> float:
    async with open_websocket_url(f"{server.url}/longest") as ws:
        longest = float(await ws.receive_json())
    report(longest=f"{longest * 1000:.1f} ms")
    return longest


async def begin(server: Server) -> None:
    async with open_websocket_url(f"{server.url}/begin") as ws:
        await ws.wait_closed()


@pytest.mark.parametrize("path", ["/close", "/echo"])
@pytest.mark.parametrize("kind", FLOODS)
async def test_no_flood_takes_20_ms_between_two_turns_of_the_others(
    server: Server, kind: str, path: str
) -> None:
    await begin(server)
    await flood(server, path, FLOODS[kind])
    assert await longest_pass(server) < LONGEST_PASS


async def test_nothing_is_inflated_for_a_connection_that_we_have_closed() -> None:
    # All of it would take a second and more.
    with server_process(SERVER, close_timeout=5) as server:
        peer = await server.connect(
            "/close", headers="Sec-WebSocket-Extensions: permessage-deflate\r\n"
        )
        before = server.cpu_time()
        await peer.send(bomb() * 1000)
        await peer.send_close(1000)
        await peer.receive_all_frames()
        assert server.cpu_time() - before < 0.5
        await peer.stream.aclose()


async def test_a_handler_that_publishes_to_hundreds_lets_others_run(server: Server) -> None:
    subscribers = [await server.connect("/subscribe") for _ in range(300)]
    peer: RawPeer = await server.connect("/publish")
    await begin(server)
    await peer.send(frame(TEXT, b"to all") * 200)
    await trio.sleep(ATTACK)
    assert await longest_pass(server) < LONGEST_PASS
    for each in [peer, *subscribers]:
        await trio.aclose_forcefully(each.stream)
