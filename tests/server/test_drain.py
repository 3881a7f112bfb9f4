"""A paced drain: who is closed when, who is turned away, what hurries it, who may be cancelled.

With TRIO_WS_SOAK=1 in the environment, there are ten thousand clients rather than a thousand.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import REQUEST, echo
from tests.server.server_helpers import MemoryListener, connect, memory_server
from tests.whole.server_process import SOAK
from trio_ws import Request, Router, WebSocket, WebSocketServer
from trio_ws._server.shutdown import LONGEST_RETRY

pytestmark = pytest.mark.autojump

CLIENTS = 10_000 if SOAK else 1000

PAGE = b"GET /health HTTP/1.1\r\nHost: example.org\r\n\r\n"


class Client:
    """A client that only waits for its end, and when and how that came."""

    def __init__(self) -> None:
        self.code = 0
        self.ended = math.inf
        self.leave = trio.CancelScope()

    async def run(self, listener: MemoryListener, opened: trio.Event) -> None:
        async with connect(listener, await listener.connect()) as ws:
            opened.set()
            with self.leave:
                self.code = (await ws.wait_closed()).code
                self.ended = trio.current_time()


@asynccontextmanager
async def clients(listener: MemoryListener, count: int) -> AsyncGenerator[list[Client], None]:
    """These many clients, connected. At the end, all have ended."""
    everybody = [Client() for _ in range(count)]
    async with trio.open_nursery() as nursery:
        for client in everybody:
            opened = trio.Event()
            nursery.start_soon(client.run, listener, opened)
            await opened.wait()
        await trio.testing.wait_all_tasks_blocked()
        yield everybody


async def ask(listener: MemoryListener, request: bytes) -> bytes:
    """The answer to a request of a new client, who reads until the server hangs up."""
    async with await listener.connect() as stream:
        await stream.send_all(request)
        answer = b""
        while data := await stream.receive_some():
            answer += data
        return answer


def begin(nursery: trio.Nursery, server: WebSocketServer, *args: Any, **options: Any) -> trio.Event:
    """Begin a drain. Gives what is set when `drain` returns."""
    over = trio.Event()

    async def drain() -> None:
        await server.drain(*args, **options)
        over.set()

    nursery.start_soon(drain)
    return over


# The pace…


async def test_as_many_connections_are_closed_in_each_second() -> None:
    async with memory_server(echo) as (server, listener, _):
        async with clients(listener, CLIENTS) as everybody:
            start = trio.current_time()
            await server.drain(60, reason="new version")
            assert trio.current_time() - start == pytest.approx(60)
    assert {client.code for client in everybody} == {1012}
    buckets = Counter(math.ceil(client.ended - start - 1e-6) for client in everybody)
    assert sorted(buckets) == list(range(1, 61))
    assert {count - CLIENTS // 60 for count in buckets.values()} <= {0, 1}  # exactly even
    moments = [client.ended for client in everybody]
    assert len(set(moments)) == CLIENTS
    assert moments != sorted(moments)  # and in an order that nobody can tell


async def test_connections_that_end_by_themselves_leave_the_others_evenly_spread() -> None:
    async with memory_server(echo) as (server, listener, _):
        async with clients(listener, 300) as everybody:
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                over = begin(nursery, server, 60)
                await trio.sleep_until(start + 30.5)
                left = [client for client in everybody if client.ended == math.inf]
                for client in left[:75]:
                    client.leave.cancel()
                await over.wait()
    assert trio.current_time() - start == pytest.approx(60)
    buckets = Counter(math.ceil(client.ended - start - 1e-6) for client in left[75:])
    assert {buckets[second] for second in range(33, 61)} <= {2, 3}
    assert sum(buckets.values()) == len(left) - 75


async def test_few_connections_are_spread_over_all_of_the_time() -> None:
    async with memory_server(echo) as (server, listener, _):
        async with clients(listener, 3) as everybody:
            start = trio.current_time()
            await server.drain(60)
    assert sorted(client.ended - start for client in everybody) == pytest.approx([20, 40, 60])


async def test_a_drain_without_time_closes_everybody_at_once() -> None:
    async with memory_server(echo) as (server, listener, _):
        async with clients(listener, 30) as everybody:
            start = trio.current_time()
            await server.drain(0, 4321)
            assert trio.current_time() == start
    assert {client.code for client in everybody} == {4321}


async def test_a_drain_is_over_as_soon_as_nobody_is_connected() -> None:
    async with memory_server(echo) as (server, listener, _):
        async with clients(listener, 1) as everybody:
            async with trio.open_nursery() as nursery:
                start = trio.current_time()
                over = begin(nursery, server, 60)
                await trio.sleep(5)
                everybody[0].leave.cancel()
                await over.wait()
                assert trio.current_time() - start == pytest.approx(5)
    async with memory_server(echo) as (server, _, _):
        start = trio.current_time()
        await server.drain(60)
        assert trio.current_time() == start


async def test_handlers_that_ignore_the_closing_get_grace_period_after_the_drain() -> None:
    cancelled: list[float] = []

    async def stubborn(ws: WebSocket) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(trio.current_time() - start)

    start = 0.0
    async with memory_server(stubborn, grace_period=7) as (server, listener, _):
        async with clients(listener, 4) as everybody:
            start = trio.current_time()
            await server.drain(20)
            assert trio.current_time() - start == pytest.approx(27)
    assert sorted(client.ended - start for client in everybody) == pytest.approx([5, 10, 15, 20])
    assert cancelled == pytest.approx([27] * 4)


async def test_without_a_code_connections_may_finish() -> None:
    async with memory_server(echo) as (server, listener, _):
        async with clients(listener, 3) as everybody:
            async with trio.open_nursery() as nursery:
                start = trio.current_time()
                over = begin(nursery, server, math.inf, None)
                for client in everybody:
                    await trio.sleep(1000)
                    assert not over.is_set()
                    client.leave.cancel()
                await over.wait()
                assert trio.current_time() - start == pytest.approx(3000)


async def test_without_a_code_those_that_do_not_finish_in_time_are_told_1001() -> None:
    async with memory_server(echo) as (server, listener, _):
        async with clients(listener, 3) as everybody:
            start = trio.current_time()
            await server.drain(60, None)
    assert [client.code for client in everybody] == [1001] * 3
    assert [client.ended - start for client in everybody] == pytest.approx([60] * 3)


# Who comes while it goes on…


async def test_new_clients_are_told_503_and_to_come_back_at_different_times() -> None:
    async with memory_server(echo) as (server, listener, _):
        async with clients(listener, 1), trio.open_nursery() as nursery:
            over = begin(nursery, server, 20)
            await trio.testing.wait_all_tasks_blocked()
            times: Counter[int] = Counter()
            for _ in range(300):
                answer = await ask(listener, REQUEST)
                assert answer.startswith(b"HTTP/1.1 503 ")
                found = re.search(rb"Retry-After: (\d+)\r\n", answer)
                assert found is not None
                times[int(found[1])] += 1
            assert not over.is_set()
            assert min(times) >= 1
            assert max(times) <= 20
            assert len(times) >= 15
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().refused_total == 300


@pytest.mark.parametrize(("seconds", "longest"), [(0.5, 1), (math.inf, LONGEST_RETRY)])
async def test_nobody_is_sent_away_for_less_than_a_second_or_more_than_a_minute(
    seconds: float, longest: int
) -> None:
    async with memory_server(echo) as (server, listener, scope):
        async with clients(listener, 1), trio.open_nursery() as nursery:
            begin(nursery, server, seconds, None)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(100):
                found = re.search(rb"Retry-After: (\d+)\r\n", await ask(listener, REQUEST))
                assert found is not None
                assert 1 <= int(found[1]) <= longest
            scope.cancel()


async def test_a_client_whose_request_had_come_before_is_let_in_and_closed_in_its_turn() -> None:
    go_on = trio.Event()

    async def wait(request: Request) -> None:
        if request.path == "/slow":
            await go_on.wait()

    async with memory_server(echo, process_request=wait, open_timeout=100) as (server, listener, _):
        async with clients(listener, 1) as everybody, trio.open_nursery() as nursery:
            stream = await listener.connect()
            await stream.send_all(REQUEST.replace(b"/chat", b"/slow"))
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            begin(nursery, server, 20)
            await trio.sleep(2)
            go_on.set()
            assert b" 101 " in await stream.receive_some()
            assert (await stream.receive_some()).startswith(b"\x88\x02\x03\xf4")
            assert trio.current_time() - start == pytest.approx(20)
            await stream.aclose()
    assert everybody[0].ended - start == pytest.approx(20)


async def test_pages_are_answered_as_the_last_ones_and_readiness_may_turn_503() -> None:
    server: WebSocketServer
    router = Router()
    router.get("/health")(lambda request: "draining" if server.draining else "ready")
    router.websocket("/chat")(echo)
    async with memory_server(router) as (server, listener, _):
        kept = await listener.connect()
        await kept.send_all(PAGE)
        assert (await kept.receive_some()).endswith(b"ready")
        async with clients(listener, 0), trio.open_nursery() as nursery:
            chat = await listener.connect()
            await chat.send_all(REQUEST)
            assert b" 101 " in await chat.receive_some()
            begin(nursery, server, 20)
            await trio.testing.wait_all_tasks_blocked()
            assert server.draining
            # One that was idle, and a new one.
            await kept.send_all(PAGE)
            for answer in (await kept.receive_some(), await ask(listener, PAGE)):
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert b"Connection: close\r\n" in answer
                assert answer.endswith(b"draining")
            assert await kept.receive_some() == b""
            await chat.aclose()
        await kept.aclose()
    assert server.draining


async def test_beside_others_on_the_port_the_listeners_are_closed_at_once() -> None:
    async with memory_server(echo) as (server, listener, _):
        async with clients(listener, 2) as everybody, trio.open_nursery() as nursery:
            start = trio.current_time()
            begin(nursery, server, 20, refuse=False)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.ClosedResourceError):
                await listener.connect()
    assert sorted(client.ended - start for client in everybody) == pytest.approx([10, 20])


@pytest.mark.parametrize(("seconds", "code"), [(0, 1012), (20, 1012), (20, None)])
async def test_beside_others_whoever_was_accepted_before_is_let_in_and_closed_in_its_turn(
    seconds: float, code: int | None
) -> None:
    async with memory_server(echo) as (server, listener, _):
        async with trio.open_nursery() as nursery:
            stream = await listener.connect()
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            over = begin(nursery, server, seconds, code, refuse=False)
            await trio.sleep(2)
            await stream.send_all(REQUEST)
            answer = await stream.receive_some()
            assert answer.startswith(b"HTTP/1.1 101 ")
            while not answer.endswith((code or 1001).to_bytes(2)):
                answer += await stream.receive_some()
            assert trio.current_time() - start == pytest.approx(max(2, seconds))
            await stream.aclose()
            await over.wait()


async def test_beside_others_a_client_that_says_nothing_is_waited_for_until_open_timeout() -> None:
    async with memory_server(echo, open_timeout=7) as (server, listener, _):
        async with await listener.connect():
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            await server.drain(0, refuse=False)
            assert trio.current_time() - start == pytest.approx(7)


@pytest.mark.parametrize("turns", range(6))
async def test_beside_others_a_drain_loses_nobody_at_whatever_moment_it_begins(turns: int) -> None:
    answers: list[bytes] = []

    async def connect_late(listener: MemoryListener) -> None:
        with suppress(trio.ClosedResourceError, trio.BrokenResourceError):  # to others, then
            async with await listener.connect() as stream:
                await trio.sleep(0.1)
                await stream.send_all(REQUEST)
                answers.append(bytes(await stream.receive_some()))

    async with memory_server(echo) as (server, listener, _):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(connect_late, listener)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            begin(nursery, server, 0, refuse=False)
    assert {answer[:13] for answer in answers} <= {b"HTTP/1.1 101 "}


# What hurries it, and what does not…


@pytest.mark.parametrize("how", ["drain", "aclose"])
@pytest.mark.parametrize("code", [1012, None])
async def test_a_second_call_hurries(how: str, code: int | None) -> None:
    async with memory_server(echo) as (server, listener, _):
        async with clients(listener, 4) as everybody, trio.open_nursery() as nursery:
            start = trio.current_time()
            over = begin(nursery, server, 60, code)
            await trio.sleep(20)
            if how == "drain":
                await server.drain(1000, 4000, "quick")
            else:
                await server.aclose(4000, "quick")
            assert trio.current_time() - start == pytest.approx(20)
            await over.wait()
            await server.drain(1000)  # and one more only waits
            assert trio.current_time() - start == pytest.approx(20)
    in_turn = 0 if code is None else 1
    assert [client.code for client in everybody].count(4000) == 4 - in_turn
    assert all(client.ended - start <= 20 for client in everybody)


async def test_cancelling_the_server_hurries() -> None:
    async with memory_server(echo) as (server, listener, scope):
        async with clients(listener, 4) as everybody, trio.open_nursery() as nursery:
            start = trio.current_time()
            over = begin(nursery, server, 60)
            await trio.sleep(20)
            scope.cancel()
            await over.wait()
    assert sorted(client.code for client in everybody) == [1001, 1001, 1001, 1012]
    assert all(client.ended - start <= 20.1 for client in everybody)


@pytest.mark.parametrize("turns", range(8))
async def test_whenever_the_call_is_cancelled_the_drain_goes_on(turns: int) -> None:
    async with memory_server(echo) as (server, listener, _):
        async with clients(listener, 3) as everybody:
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                over = begin(nursery, server, 60)
                for _ in range(turns + 1):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert not over.is_set()
            assert server.draining
    assert sorted(client.ended - start for client in everybody) == pytest.approx([20, 40, 60])


@pytest.mark.parametrize("turns", range(16))
async def test_whenever_the_server_is_cancelled_in_a_drain_it_ends_in_good_order(
    turns: int,
) -> None:
    async with memory_server(echo) as (server, listener, scope):
        async with clients(listener, 3) as everybody, trio.open_nursery() as nursery:
            start = trio.current_time()
            over = begin(nursery, server, 1e-9 * (turns % 2))
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            scope.cancel()
            await over.wait()
            assert not server.connections
    assert {client.code for client in everybody} <= {1001, 1012}
    assert all(client.ended - start < 0.1 for client in everybody)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((-1,), "0 seconds or more"),
        ((math.nan,), "0 seconds or more"),
        ((math.inf,), "only one without a code may take math.inf"),
        ((1, 1005), "close code 1005"),
        ((1, 1012, "x" * 124), "123"),
        ((1, None, "x" * 124), "123"),
    ],
)
async def test_bad_arguments_are_said_and_nothing_is_drained(
    arguments: tuple[Any, ...], problem: str
) -> None:
    async with memory_server(echo) as (server, _, _):
        with pytest.raises(ValueError, match=problem):
            await server.drain(*arguments)
        assert not server.draining


async def test_the_repr_tells_of_a_drain() -> None:
    async with memory_server(echo) as (server, listener, _):
        async with clients(listener, 1), trio.open_nursery() as nursery:
            begin(nursery, server, 60)
            await trio.testing.wait_all_tasks_blocked()
            assert repr(server) == "<WebSocketServer draining on no TCP port, 1 connections>"
