"""Cancellation, signals and shortages, measured from outside: rows of docs/maintainers/trust.md."""

from __future__ import annotations

import os
import signal
import time

import trio

import trio_ws
from tests.helpers import HOST, PATIENCE, RawPeer, echo, open_server, tcp_pair
from tests.whole.server_process import CLOSE_TIMEOUT, SLACK, SOAK, report, server_process
from tests.whole.sweeping import converse, sweep
from trio_ws import open_websocket_url
from trio_ws._waking import LOOKOUT, Lookout

#: One task looks for a sleep of the computer, up to a second after the last connection has ended.
NOBODY_LOOKS = Lookout(None)


async def test_cancelling_a_client_at_every_step_over_tcp_leaves_nothing() -> None:
    LOOKOUT.set(NOBODY_LOOKS)
    async with open_server(echo) as ours:

        async def run() -> None:
            async with open_websocket_url(ours.urls[0]) as ws:
                await converse(ws)

        steps = await sweep(run)
    report(steps=steps)
    assert steps > 10


async def test_cancelling_a_server_at_every_step_over_tcp_leaves_nothing() -> None:
    LOOKOUT.set(NOBODY_LOOKS)

    async def be_client(stream: trio.abc.Stream) -> None:
        try:
            async with trio_ws.wrap_client_stream(stream, "ws://example.org/") as ws:
                await echo(ws)
        except (trio_ws.ConnectionClosed, trio_ws.HandshakeError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope(shield=True):
                client, stream = await tcp_pair()
            nursery.start_soon(be_client, client)
            async with trio_ws.wrap_server_stream(stream) as ws:
                await converse(ws)

    steps = await sweep(run)
    report(steps=steps)
    assert steps > 10


async def test_ctrl_c_right_after_a_handshake_says_1001() -> None:
    for _ in range(5):
        with server_process() as server:
            peers = [await server.connect() for _ in range(3)]
            server.process.send_signal(signal.SIGINT)
            for peer in peers:
                assert await peer.receive_close() == 1001
                await peer.stream.aclose()
            await trio.to_thread.run_sync(server.process.wait, 20)


async def test_ctrl_c_with_a_thousand_clients_says_1001_to_all() -> None:
    """A tenth of the handlers never ends by itself, and a tenth of the clients never answers."""
    clients = 1000
    codes: list[int | None] = []

    async def be_client(peer: RawPeer, number: int) -> None:
        codes.append(await peer.receive_close())
        if number % 10 == 1:
            await trio.sleep(CLOSE_TIMEOUT * 2)
        else:
            await peer.send_close(1001)
        await peer.stream.aclose()

    with server_process() as server:
        peers = [
            await server.connect("/" if number % 10 else "/never") for number in range(clients)
        ]
        async with trio.open_nursery() as nursery:
            for number, peer in enumerate(peers):
                nursery.start_soon(be_client, peer, number)
            await server.statistics("/never")  # all handlers have begun
            start = time.perf_counter()
            server.process.send_signal(signal.SIGINT)
            await trio.to_thread.run_sync(server.process.wait, 20)
            took = time.perf_counter() - start
        assert server.process.returncode == 0
    report(took=f"{took:.2f} s")
    assert codes == [1001] * clients
    assert took < 0.3 + CLOSE_TIMEOUT + SLACK  # one client after the other would take 100 s


async def test_out_of_descriptors_is_survived_under_5_percent_cpu() -> None:
    seconds = 10 if SOAK else 2

    async def echo_once(ws: trio_ws.WebSocket) -> None:
        await ws.send("x")
        with trio.fail_after(PATIENCE):
            assert await ws.receive() == "x"

    with server_process(descriptors=40) as server:
        async with open_websocket_url(server.url) as ws:
            await echo_once(ws)
            at_first = server.sockets()
            others = [await trio.open_tcp_stream(HOST, server.port) for _ in range(60)]
            await trio.sleep(0.5)
            assert len(os.listdir(f"/proc/{server.process.pid}/fd")) == 40
            before = server.cpu_time()
            await trio.sleep(seconds)
            share = (server.cpu_time() - before) / seconds
            await echo_once(ws)
            for stream in others:
                await stream.aclose()
            start = time.perf_counter()
            with trio.fail_after(PATIENCE):
                async with open_websocket_url(server.url) as newcomer:
                    await echo_once(newcomer)
                recovered = time.perf_counter() - start
                while server.sockets() > at_first:
                    await trio.sleep(0.01)
            await echo_once(ws)
    report(share=f"{share:.1%}", recovered=f"{recovered:.2f} s")
    assert share < 0.05
