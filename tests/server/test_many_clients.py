"""Many clients at a server, shortages of descriptors, and errors of accept."""

from __future__ import annotations

import errno
import gc
import socket
import struct
import weakref

import pytest
import trio
import trio.testing

import trio_ws
from tests.conftest import open_descriptors
from tests.helpers import HOST, PATIENCE, REQUEST, echo, fail_accepting, open_server, reset
from tests.server.server_helpers import MemoryListener
from trio_ws import WebSocket, open_websocket_url, serve_listeners


async def test_six_hundred_quick_connects_half_aborted_leave_nothing_behind() -> None:
    async with open_server(echo) as server:
        await trio.testing.wait_all_tasks_blocked()
        before_tasks = trio.lowlevel.current_statistics().tasks_living
        before_descriptors = len(open_descriptors())

        async def quick(number: int) -> None:
            if number % 2:
                async with open_websocket_url(server.urls[0]) as ws:
                    await ws.send("x")
                    assert await ws.receive() == "x"
                return
            stream = await trio.open_tcp_stream(HOST, server.port)
            await stream.send_all(REQUEST[: number % len(REQUEST)])
            if number % 4:
                await stream.aclose()
            else:
                reset(stream)

        limit = trio.CapacityLimiter(50)

        async def limited(number: int) -> None:
            async with limit:
                await quick(number)

        async with trio.open_nursery() as nursery:
            for number in range(600):
                nursery.start_soon(limited, number)
        with trio.move_on_after(PATIENCE):
            while (
                trio.lowlevel.current_statistics().tasks_living > before_tasks
                or len(open_descriptors()) > before_descriptors
            ):
                await trio.sleep(0.01)
        assert trio.lowlevel.current_statistics().tasks_living <= before_tasks
        assert len(open_descriptors()) <= before_descriptors
        assert server.statistics().connections == 0
        assert server.statistics().connections_total == 300


def shortages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if "accept" in record.message]


@pytest.mark.autojump
async def test_a_server_out_of_descriptors_says_so_waits_and_accepts_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Recovering(trio.abc.Listener[trio.abc.Stream]):
        """Fails a few times, and then lets one client in."""

        def __init__(self, stream: trio.abc.Stream) -> None:
            self.failures = 3
            self.streams = [stream]

        async def accept(self) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "too many open files")
            if not self.streams:
                await trio.sleep_forever()
            return self.streams.pop()

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    client, server_end = trio.testing.memory_stream_pair()
    listener = Recovering(server_end)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_ws.serve_listeners, echo, [listener])
        async with trio_ws.wrap_client_stream(client, "ws://example.org/") as ws:
            await ws.send("fine")
            assert await ws.receive() == "fine"
            assert 0.25 < trio.current_time() - start < 1
            assert shortages(caplog) == ["ERROR"]
            await trio.sleep(10)
            assert shortages(caplog) == ["ERROR", "WARNING"]
            assert "connections are accepted again, after 0.3 s" in caplog.text
        await server.aclose()


@pytest.mark.autojump
async def test_a_shortage_in_which_a_client_gets_in_now_and_then_is_one_shortage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As many clients wait as there are, and each that leaves makes room for one."""

    class Short(MemoryListener):
        turns = 0

        async def accept(self) -> trio.abc.Stream:
            self.turns += 1
            if self.turns % 2 and self.turns < 200:
                raise OSError(errno.ENFILE, "the system has no file to spare")
            return await super().accept()

    async with trio.open_nursery() as nursery:
        listeners = [Short(), Short()]
        server = await nursery.start(serve_listeners, echo, listeners)
        clients = [await listeners[number % 2].connect() for number in range(210)]
        await trio.sleep(10)
        assert shortages(caplog) == ["ERROR", "WARNING"]
        for client in clients:
            await client.aclose()
        await server.aclose()


async def test_an_error_of_accept_loses_one_connection_and_the_server_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    errors = fail_accepting(monkeypatch)
    async with open_server(echo) as server:
        for number in (errno.EPROTO, errno.ENETDOWN, errno.ETIMEDOUT):
            errors.append(OSError(number, "the network said so"))
            async with open_websocket_url(server.urls[0]) as ws:
                await ws.send("still there")
                assert await ws.receive() == "still there"
    assert caplog.text.count("a connection was lost before it was accepted: ") == 3


async def test_a_client_that_is_gone_before_it_is_accepted_is_only_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with open_server(echo) as server:
        with socket.create_connection((HOST, server.port)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with trio.fail_after(PATIENCE):
            while server.statistics().refused_total < 1:
                await trio.sleep(0.001)
        async with open_websocket_url(server.urls[0]) as ws:
            await ws.send("still there")
            assert await ws.receive() == "still there"
    assert "left: the connection broke in the handshake" in caplog.text


async def test_a_connection_that_is_over_is_freed_without_the_garbage_collector() -> None:
    served: list[weakref.ref[WebSocket]] = []

    async def handler(ws: WebSocket) -> None:
        served.append(weakref.ref(ws))
        await echo(ws)

    gc.disable()
    try:
        async with open_server(handler) as server:
            async with open_websocket_url(server.urls[0]) as ws:
                await ws.send("x")
                assert await ws.receive() == "x"
            with trio.fail_after(PATIENCE):
                while server.connections or served[0]() is not None:
                    await trio.sleep(0.001)
    finally:
        gc.enable()
