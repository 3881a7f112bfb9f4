"""Reconnecting: attempts to break it, and what they found."""

from __future__ import annotations

import gc
import socket
import weakref

import pytest
import trio

from tests.client.network import (
    URL,
    answering,
    closing,
    in_turn,
    memory_network,
    refusing,
    serving,
)
from tests.helpers import AT_ONCE, echo, open_server
from trio_ws import ConnectionLost, WebSocket, reconnecting

pytestmark = pytest.mark.autojump


def test_a_loop_that_began_in_another_run_of_trio_says_so_rather_than_to_wait_for_days() -> None:
    urls: list[str] = []
    links = reconnecting(lambda: urls[-1])

    async def one_round() -> None:
        async with open_server(echo) as server:
            urls[:] = server.urls
            async with await anext(links) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"

    async def another_round() -> None:
        with trio.fail_after(AT_ONCE):
            await anext(links)

    trio.run(one_round)
    with pytest.raises(RuntimeError, match=r"another trio.run\(\): call reconnecting\(\) anew"):
        trio.run(another_round)


async def test_a_final_end_that_came_right_behind_the_last_message_is_raised() -> None:
    async def goodbye(websocket: WebSocket) -> None:
        await websocket.send("goodbye")
        await websocket.aclose(1008)

    async with memory_network(serving(goodbye)) as network:
        with pytest.raises(ConnectionLost) as caught:
            async for link in reconnecting(URL):
                async with link as ws:
                    assert await ws.receive() == "goodbye"
                assert len(network.attempts) == 1
    assert caught.value.reason.code == 1008


async def test_a_renewal_that_is_refused_for_good_is_said_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "trio_ws")
    async with memory_network(in_turn(serving(echo), answering(401))) as network:
        async with await anext(reconnecting(URL, renew_after=10)):
            await trio.sleep(100)
        assert len(network.attempts) > 4
    (record,) = (record for record in caplog.records if record.name == "trio_ws")
    assert "not connected: " in record.getMessage()
    assert "401" in record.getMessage()


async def test_what_a_function_raises_in_a_renewal_does_not_keep_the_connection() -> None:
    calls = 0

    def headers() -> dict[str, str]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise KeyError("no token")
        return {}

    async def until_it_fails() -> weakref.ref[WebSocket]:
        freed: list[weakref.ref[WebSocket]] = []
        try:
            async for link in reconnecting(URL, headers=headers, renew_after=1):
                async with link as ws:
                    freed.append(weakref.ref(ws))
                    await trio.sleep(10)
        except KeyError:
            pass
        assert calls == 2
        return freed[0]

    async with memory_network(serving(echo)):
        gc.collect()
        gc.disable()
        try:
            freed = await until_it_fails()
            assert freed() is None
        finally:
            gc.enable()


async def test_a_server_that_took_over_at_a_renewal_is_tried_first_when_it_is_lost() -> None:
    names = {"a.example": "10.0.0.1", "b.example": "10.0.0.2"}
    async with memory_network(names=names) as network:
        network.servers["10.0.0.1"] = network.servers["10.0.0.2"] = closing(1011, after=60)
        links = reconnecting(["ws://a.example/", "ws://b.example/"])
        link = await anext(links)
        ((_, first),) = network.attempts
        network.servers[first] = refusing()
        async with link as ws:  # for less than a delay, so that it proves nothing
            link.renew()
            await ws.wait_closed()
        async with await anext(links) as ws:
            await ws.receive()
        async with await anext(links):
            pass
        second = ({"10.0.0.1", "10.0.0.2"} - {first}).pop()
        assert [address for _, address in network.attempts] == [first, first, second, second]


async def test_a_function_cannot_end_the_loop_in_silence() -> None:
    async def headers() -> dict[str, str]:
        raise StopAsyncIteration

    with pytest.raises(RuntimeError, match="raised StopAsyncIteration"):
        async for _ in reconnecting(URL, headers=headers):
            raise AssertionError("there is no connection")


async def test_what_a_function_raises_is_final_even_if_it_is_a_trouble_of_the_network() -> None:
    async def headers() -> dict[str, str]:
        raise error

    error = socket.gaierror(socket.EAI_NONAME, "no such server of tokens")
    with trio.fail_after(AT_ONCE), pytest.raises(socket.gaierror) as caught:
        await anext(reconnecting(URL, headers=headers))
    assert caught.value is error
