"""The end of an HTTP connection: clients that do not read, shutdown, faults, cancellation."""

from __future__ import annotations

import itertools
import logging
import queue
from functools import partial
from logging.handlers import QueueHandler
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from tests.conftest import open_descriptors, run_autojumped
from tests.handshake.handshake_helpers import (
    HookedStream,
    memory_server,
    read_all,
    request as upgrade,
)
from tests.helpers import HOST, PATIENCE, counting_turns, open_server
from tests.web.web_helpers import HTTPClient, TestSite, chunked, http, open_site
from trio_ws import ConnectionRejected, serve_listeners, wrap_client_stream
from trio_ws._waking import LOOKOUT, Lookout

# Clients that do not read…


async def test_a_page_larger_than_the_socket_s_buffer_arrives_whole() -> None:
    async with open_server(TestSite().router) as server:
        async with await trio.open_tcp_stream(HOST, server.port) as stream:
            client = HTTPClient(stream)
            for _ in range(2):
                await client.send(http("GET /large"))
                await trio.sleep(0.02)  # until the buffers are full
                assert len((await client.response()).body) == 5_000_000


async def test_a_client_that_takes_nothing_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    options = {"ping_interval": 0.1, "ping_timeout": 0.1}
    async with open_server(TestSite().router, **options) as server:
        async with await trio.open_tcp_stream(HOST, server.port) as stream:
            await stream.send_all(http("GET /large"))
            with trio.fail_after(PATIENCE):
                while not any("took too little" in record.message for record in caplog.records):
                    await trio.sleep(0.01)
            assert server.statistics().http_connections == 0
            assert (await stream.receive_some(12)) == b"HTTP/1.1 200"


async def test_a_client_that_pipelines_does_not_hold_up_others() -> None:
    async with open_site() as (_, client):
        async with counting_turns() as turns:
            await client.send(http("GET /number/1") * 50)
            for _ in range(50):
                assert (await client.response()).status == 200
        assert turns.count >= 50


# Limits on connections, and shutting down…


async def test_http_connections_count_among_the_connections() -> None:
    async with open_site(max_connections=2) as (server, client):
        await client.ask(http())
        async with wrap_client_stream(server.connect(), "ws://example.org/ws"):
            third = HTTPClient(server.connect())
            async with third.stream:
                response = await third.ask(http())
                assert (response.status, response.headers["Connection"]) == (200, "close")
                assert await third.is_hung_up_on()
            with pytest.raises(ConnectionRejected, match="503"):
                async with wrap_client_stream(server.connect(), "ws://example.org/ws"):
                    raise AssertionError
            assert (await client.ask(http())).status == 200


@pytest.mark.autojump
async def test_at_shutdown_idle_connections_are_closed_and_endpoints_get_grace() -> None:
    site = TestSite()
    async with memory_server(site.router, grace_period=5) as server:
        idle, half, busy = (HTTPClient(server.connect()) for _ in range(3))
        await idle.ask(http())
        await half.ask(http())
        await half.send(http()[:9])
        await busy.send(http("GET /wait") + http())
        await site.entered.wait()
        async with trio.open_nursery() as nursery:
            started = trio.current_time()
            nursery.start_soon(server.server.aclose)
            assert await idle.is_hung_up_on()
            refusal = await half.response()
            assert (refusal.status, refusal.headers["Retry-After"]) == (503, "1")
            assert trio.current_time() == started
            assert await half.is_hung_up_on()
            await trio.sleep(3)
            site.may_leave.set()
            response = await busy.response()
            assert (response.body, response.headers["Connection"]) == (b"waited", "close")
            assert await busy.is_hung_up_on()
        for client in (idle, half, busy):
            await client.stream.aclose()


@pytest.mark.autojump
async def test_endpoints_that_take_longer_than_grace_period_are_cancelled() -> None:
    site = TestSite()
    async with memory_server(site.router, grace_period=5) as server:
        client = HTTPClient(server.connect())
        await client.send(http("GET /wait"))
        await site.entered.wait()
        started = trio.current_time()
        await server.server.aclose()
        assert trio.current_time() - started == 5
        assert site.left
        assert await client.is_hung_up_on()
        await client.stream.aclose()


class OneStreamListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener to which one client comes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._streams = [stream]

    async def accept(self) -> trio.abc.Stream:
        if not self._streams:
            await trio.sleep_forever()
        return self._streams.pop()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_whichever_operation_fails_the_server_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = http() + http("POST /echo", Content_Length="3", Expect="100-continue") + b"abc" + http()
    before = open_descriptors()
    for failing in range(1, 20):

        def hook(number: int, failing: int = failing) -> None:
            if number == failing:
                raise OSError("injected fault")

        client, server_end = trio.testing.memory_stream_pair()
        listener = OneStreamListener(HookedStream(server_end, hook))
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_listeners, TestSite().router, [listener])
            await client.send_all(data)
            await client.send_eof()
            await read_all(client)
            await server.aclose()
        await client.aclose()
    assert open_descriptors() <= before
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


CONVERSATION = (
    http()
    + http("POST /echo", Content_Length="3", Expect="100-continue")
    + b"abc"
    + http("GET /static/file")
    + chunked(b"de", b"f")
    + upgrade("GET /ws HTTP/1.1")
)


async def test_wherever_it_is_cancelled_nothing_is_left(tmp_path: Path) -> None:
    LOOKOUT.set(Lookout(None))  # its one task ends up to a second after all connections
    (tmp_path / "file").write_bytes(b"x" * 1000)
    for moment in itertools.count(1):
        site = TestSite()
        site.router.static("/static", tmp_path)
        client, server_end = trio.testing.memory_stream_pair()
        before = open_descriptors()
        tasks = trio.lowlevel.current_statistics().tasks_living
        await client.send_all(CONVERSATION)
        await client.send_eof()
        with trio.CancelScope() as scope:

            def hook(number: int, moment: int = moment, scope: trio.CancelScope = scope) -> None:
                if number == moment:
                    scope.cancel()

            stream = HookedStream(server_end, hook)
            listener = OneStreamListener(stream)
            async with trio.open_nursery() as nursery:
                serve = partial(serve_listeners, grace_period=1e-9)
                server = await nursery.start(serve, site.router, [listener])
                while not stream.closed:
                    await trio.sleep(0.001)
                await server.aclose()
        assert stream.closed
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert open_descriptors() == before
        await client.aclose()
        if stream.operations < moment:
            assert moment > 5
            return


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    cut = st.tuples(st.integers(0, len(data)), st.binary(max_size=20), st.integers(0, 20))
    return cut.map(lambda how: data[: how[0]] + how[1] + data[how[0] + how[2] :])


@given(st.one_of(st.binary(max_size=400), mutated(CONVERSATION), mutated(chunked(b"abc", b"de"))))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_answered_and_never_an_error(data: bytes) -> None:
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    logger = logging.getLogger("fuzzed")
    logger.handlers = [QueueHandler(records)]
    logger.setLevel(logging.WARNING)

    async def main() -> None:
        async with memory_server(TestSite().router, logger=logger) as server:
            stream = server.connect()
            with trio.fail_after(9):
                await stream.send_all(data)
                await stream.send_eof()
                await read_all(stream)
            await stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
            assert server.server.statistics().http_connections == 0

    run_autojumped(main)
    assert records.empty()
