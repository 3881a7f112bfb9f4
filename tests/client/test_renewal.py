"""Renewal: the next connection is ready before the old one ends, and nothing is lost or left."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.client.network import (
    URL,
    answering,
    closing,
    in_turn,
    memory_network,
    refusing,
    serving,
)
from tests.helpers import echo, open_server
from trio_ws import ConnectionEnded, ConnectionLost, ConnectionRejected, WebSocket, reconnecting

pytestmark = pytest.mark.autojump


class Feed:
    """A number each second, for all who say where to begin."""

    def __init__(self) -> None:
        self.subscriptions = self.most_at_once = 0

    async def handler(self, websocket: WebSocket) -> None:
        position = json.loads(await websocket.receive())
        self.subscriptions += 1
        self.most_at_once = max(self.most_at_once, self.subscriptions)
        try:
            async with websocket.open_nursery() as nursery:
                nursery.start_soon(self.send_from, websocket, position)
                async for _ in websocket:
                    raise AssertionError("the client sends nothing more")
        finally:
            self.subscriptions -= 1

    async def send_from(self, websocket: WebSocket, position: int) -> None:
        while True:
            while position <= trio.current_time():
                await websocket.send_json(position)
                position += 1
            await trio.sleep(1)


async def test_sixty_renewals_cost_no_wait_and_lose_or_double_no_message() -> None:
    feed = Feed()
    heard: list[int] = []
    rounds = 0
    began = ended = 0.0
    async with memory_network(serving(feed.handler)) as network:
        async for link in reconnecting(URL, renew_after=60):
            began = trio.current_time()
            if rounds:
                assert link.waited == 0
                assert link.reason is not None
                assert str(link.reason) == "1000 (normal closure), closed by us: renewed"
                assert began == ended
            rounds += 1
            async with link as ws:
                await ws.send_json(heard[-1] + 1 if heard else 0)
                async for message in ws:
                    heard.append(json.loads(message))
            ended = trio.current_time()
            assert 54 <= ended - began <= 60.1
            if rounds == 61:
                break
        assert len(network.attempts) == 62  # the last was for a round that did not come
    assert heard == list(range(len(heard)))
    assert len(heard) > 60 * 54
    assert feed.most_at_once == 1


async def receiving(websocket: WebSocket) -> None:
    while True:
        await websocket.receive()


async def sending(websocket: WebSocket) -> None:
    while True:
        await websocket.send("more")
        await trio.sleep(0.5)


async def in_a_nursery(websocket: WebSocket) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiving, websocket)
        nursery.start_soon(sending, websocket)


@pytest.mark.parametrize("way", [receiving, sending, in_a_nursery])
async def test_a_renewal_ends_the_block_whatever_it_is_at(
    way: Callable[[WebSocket], Awaitable[object]],
) -> None:
    rounds = 0
    async with memory_network(serving(echo)):
        async for link in reconnecting(URL, renew_after=10):
            rounds += 1
            async with link as ws:
                if rounds == 3:
                    break
                await way(ws)
            assert trio.current_time() <= rounds * 10 + 1


async def test_what_had_come_is_received_after_a_renewal() -> None:
    async def send_ten(websocket: WebSocket) -> None:
        for number in range(10):
            await websocket.send(str(number))
        await echo(websocket)

    heard: list[str | bytes] = []
    async with memory_network(serving(send_ten)) as network:
        links = reconnecting(URL)
        link = await anext(links)
        async with link as ws:
            heard.append(await ws.receive())
            link.renew()
            await trio.sleep(5)
            assert len(network.attempts) == 2
            async for message in ws:
                heard.append(message)
        async with await anext(links):
            pass
        assert trio.current_time() == 5
    assert heard == list("0123456789")


async def test_an_application_may_ask_for_it() -> None:
    async with memory_network(serving(echo)) as network:
        links = reconnecting(URL)
        link = await anext(links)
        async with link as ws:
            await trio.sleep(100)
            link.renew()
            link.renew()
            with pytest.raises(ConnectionEnded):
                await ws.receive()
        link.renew()
        second = await anext(links)
        assert second.waited == 0
        assert second.attempt == 1
        async with second as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
            assert ws.request.target == "/feed"
    assert network.times == [0, 100]


async def test_asking_outside_of_the_block_changes_nothing() -> None:
    async with memory_network(serving(echo)) as network:
        link = await anext(reconnecting(URL))
        link.renew()
        async with link as ws:
            await trio.sleep(10)
            await ws.send("hello")
            assert await ws.receive() == "hello"
        assert len(network.attempts) == 1


@pytest.mark.parametrize("failing", [answering(503), answering(401), refusing(), None])
async def test_the_old_connection_goes_on_while_the_next_handshake_fails(failing: Any) -> None:
    async with memory_network(serving(echo)) as network:
        links = reconnecting(URL, renew_after=10)
        async with await anext(links) as ws:
            network.servers["10.0.0.1"] = failing
            while trio.current_time() < 300:
                await ws.send("hello")
                assert await ws.receive() == "hello"
                await trio.sleep(1)
            assert len(network.attempts) > 5
            network.servers["10.0.0.1"] = serving(echo)
            with pytest.raises(ConnectionEnded):
                while True:
                    await ws.receive()
        link = await anext(links)
        assert link.waited == 0
        async with link:
            pass


async def test_a_refusal_of_the_next_comes_out_when_the_old_connection_is_over() -> None:
    async def until_told(websocket: WebSocket) -> None:
        await trio.sleep(100)
        await websocket.aclose(1011)

    async with memory_network(in_turn(serving(until_told), answering(401))):
        with pytest.raises(ConnectionRejected):
            async for link in reconnecting(URL, renew_after=10):
                async with link as ws:
                    await ws.receive()
        assert 100 < trio.current_time() < 131


async def test_a_loss_while_the_next_handshake_is_made_is_a_loss() -> None:
    servers = in_turn(closing(1011, after=10), None, serving(echo))
    async with memory_network(servers) as network:
        links = reconnecting(URL, renew_after=10)
        async with await anext(links) as ws:
            async with trio.open_nursery() as nursery:  # it is the block that is left
                nursery.start_soon(trio.sleep, 15)
                with pytest.raises(ConnectionLost):
                    await ws.receive()
        link = await anext(links)
        assert link.waited > 0
        assert link.reason is not None
        assert link.reason.code == 1011
        async with link:
            pass
        assert len(network.attempts) == 3


# Servers that go away by plan…


@pytest.mark.parametrize("code", [1001, 1012])
async def test_the_next_handshake_is_made_while_the_block_is_at_work_on_the_last_messages(
    code: int,
) -> None:
    async def leave(websocket: WebSocket) -> None:
        for number in range(20):
            await websocket.send(str(number))
        await websocket.aclose(code)

    heard = []
    async with memory_network(in_turn(serving(leave), serving(echo))) as network:
        links = reconnecting(URL)
        async with await anext(links) as ws:
            async for message in ws:
                heard.append(message)
                await trio.sleep(1)
        link = await anext(links)
        assert (link.waited, link.attempt) == (0, 1)
        assert link.reason is not None
        assert link.reason.code == code
        async with link:
            pass
        assert len(heard) == 20
        assert trio.current_time() == 20
        assert len(network.attempts) == 2
        assert 0.5 <= network.times[1] < 5


async def test_another_end_has_the_next_handshake_wait_for_the_block() -> None:
    async with memory_network(in_turn(closing(1011), serving(echo))) as network:
        links = reconnecting(URL)
        async with await anext(links):
            await trio.sleep(10)
        assert len(network.attempts) == 1
        async with await anext(links):
            pass


async def test_a_planned_end_that_is_final_to_the_application_causes_no_handshake() -> None:
    async with memory_network(closing(1012)) as network:
        with pytest.raises(ConnectionLost):
            async for link in reconnecting(URL, retry=lambda exc, transient: False):
                async with link:
                    await trio.sleep(10)
        assert len(network.attempts) == 1


async def test_a_refusal_after_a_planned_end_comes_out_of_the_next_round() -> None:
    async with memory_network(in_turn(closing(1012), answering(403))) as network:
        links = reconnecting(URL)
        async with await anext(links):
            await trio.sleep(10)
        assert len(network.attempts) == 2
        with pytest.raises(ConnectionRejected):
            await anext(links)


# What comes out…


async def test_what_a_function_raises_in_a_renewal_comes_out_of_the_block() -> None:
    error = KeyError("no token")
    calls = 0

    async def headers() -> dict[str, str]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise error
        return {}

    async with memory_network(serving(echo)):
        with pytest.raises(KeyError) as caught:
            async for link in reconnecting(URL, headers=headers, renew_after=10):
                async with link as ws:
                    await ws.receive()
        assert 9 <= trio.current_time() <= 10
    assert caught.value is error


async def test_what_the_block_raises_wins_over_what_a_function_raises_at_the_same_time() -> None:
    mine = ValueError("mine")
    calls = 0

    def headers() -> dict[str, str]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise KeyError("no token")
        return {}

    async with memory_network(serving(echo)):
        with pytest.raises(ValueError, match="mine") as caught:
            async for link in reconnecting(URL, headers=headers):
                async with link as ws:
                    link.renew()
                    try:
                        await ws.receive()
                    except trio.Cancelled:
                        raise mine from None
    assert caught.value is mine


async def test_an_exception_in_the_block_comes_out_bare_while_a_handshake_is_made() -> None:
    async with memory_network(in_turn(serving(echo), None)) as network:
        with pytest.raises(ValueError, match="mine"):
            async for link in reconnecting(URL, renew_after=10):
                async with link:
                    await trio.sleep(12)
                    raise ValueError("mine")
        assert trio.current_time() == 12
        assert len(network.attempts) == 2


# What is left…


@pytest.mark.parametrize("by", ["break", "raise", "cancel"])
async def test_what_was_prepared_for_a_round_that_does_not_come_is_closed(by: str) -> None:
    async with open_server(echo) as server:
        with trio.move_on_after(60) as scope:
            try:
                async for link in reconnecting(server.urls[0], min_delay=0.01):
                    async with link as ws:
                        await trio.sleep(0.1)
                        link.renew()
                        assert (await ws.wait_closed()).reason == "renewed"
                        assert server.statistics().connections == 1
                        if by == "raise":
                            raise KeyError
                        if by == "cancel":
                            scope.cancel()
                        if by == "break":
                            break
            except KeyError:
                pass
        with trio.fail_after(5):
            while server.statistics().connections:
                await trio.sleep(0.01)


async def test_what_was_prepared_is_there_for_a_loop_that_is_taken_up_again() -> None:
    async with memory_network(serving(echo)) as network:
        links = reconnecting(URL)
        async for link in links:
            async with link as ws:
                await trio.sleep(10)
                link.renew()
                await ws.wait_closed()
                break
        async for link in links:
            assert link.waited == 0
            async with link as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
                break
        assert len(network.attempts) == 2


async def test_a_renewal_is_no_loss_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "trio_ws")
    rounds = 0
    async with memory_network(serving(echo, logger=logging.getLogger("server"))):
        async for link in reconnecting(URL, renew_after=10):
            rounds += 1
            async with link as ws:
                if rounds == 3:
                    break
                async for _ in ws:
                    pass
    assert [record for record in caplog.records if record.name == "trio_ws"] == []
