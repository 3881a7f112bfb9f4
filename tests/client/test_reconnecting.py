"""Reconnecting: rounds, what ends a block, what comes out of it, and what is left behind."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Awaitable, Callable
from math import inf
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
from tests.helpers import echo, forever, open_server
from trio_ws import (
    CloseReason,
    ConnectionEnded,
    ConnectionLost,
    ConnectionRejected,
    Initiator,
    InvalidURL,
    Link,
    WebSocket,
    open_websocket_url,
    reconnecting,
)

pytestmark = pytest.mark.autojump


async def count_down(websocket: WebSocket) -> None:
    """Say three, two, one, and end in good order."""
    for number in ("three", "two", "one"):
        await websocket.send(number)
    await websocket.aclose()


# Rounds…


async def test_a_loop_goes_on_when_the_connection_ends() -> None:
    heard = []
    async with memory_network(serving(count_down)) as network:
        async for link in reconnecting(URL):
            async with link as ws:
                async for message in ws:
                    heard.append(message)
            if len(heard) == 9:
                break
    assert heard == ["three", "two", "one"] * 3
    assert len(network.attempts) == 3


async def test_a_link_tells_what_came_before_it() -> None:
    servers = in_turn(closing(1012), answering(503), answering(503), serving(echo))
    links: list[Link] = []
    async with memory_network(servers) as network:
        async for link in reconnecting(URL):
            links.append(link)
            async with link as ws:
                if len(links) == 2:
                    break
                await ws.receive()
    first, second = links
    assert (first.attempt, first.waited, first.reason) == (1, 0, None)
    assert second.attempt == 3
    assert second.waited == pytest.approx(network.times[-1])
    assert second.reason == CloseReason(1012, "", Initiator.REMOTE)
    assert repr(first) == "<Link at attempt 1, waited 0.0 s>"
    assert repr(second) == (
        f"<Link at attempt 3, waited {second.waited:.1f} s, after {second.reason}>"
    )


async def test_nothing_is_opened_before_the_loop_asks_for_it() -> None:
    async with memory_network(serving(echo)) as network:
        links = reconnecting(URL)
        await trio.sleep(10)
        assert network.attempts == []
        async with await anext(links) as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
        assert len(network.attempts) == 1


async def test_the_end_of_a_block_closes_the_connection_and_the_loop_goes_on() -> None:
    reasons: list[CloseReason] = []

    async def watch(websocket: WebSocket) -> None:
        reasons.append(await websocket.wait_closed())

    rounds = 0
    async with memory_network(serving(watch)):
        async for link in reconnecting(URL):
            async with link:
                rounds += 1
                if rounds == 2:
                    break
        await trio.testing.wait_all_tasks_blocked()
    assert [reason.code for reason in reasons] == [1000, 1000]


async def test_messages_that_came_before_an_abrupt_end_are_received() -> None:
    async def hang_up(websocket: WebSocket) -> None:
        await websocket.send("last words")
        websocket._ending.abort()

    heard = []
    async with memory_network(serving(hang_up)):
        async for link in reconnecting(URL):
            async with link as ws:
                async for message in ws:
                    heard.append(message)
            if len(heard) == 2:
                break
    assert heard == ["last words"] * 2


# What ends a block in silence, and what comes out…


async def raise_at_end(websocket: WebSocket) -> None:
    await websocket.receive()


async def in_a_nursery(websocket: WebSocket) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(websocket.receive)
        nursery.start_soon(websocket.receive)


async def in_its_nursery(websocket: WebSocket) -> None:
    async with websocket.open_nursery() as nursery:
        nursery.start_soon(websocket.receive)


async def in_a_nursery_beside_others(websocket: WebSocket) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await websocket.receive()


async def by_sending(websocket: WebSocket) -> None:
    while True:
        await websocket.send("more")
        await trio.sleep(1)


async def by_a_loop(websocket: WebSocket) -> None:
    async for _ in websocket:
        pass


WAYS = [
    raise_at_end,
    in_a_nursery,
    in_its_nursery,
    in_a_nursery_beside_others,
    by_sending,
    by_a_loop,
]


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 4000])
@pytest.mark.parametrize("way", WAYS)
async def test_a_transient_end_ends_the_block_however_it_is_noticed(
    way: Callable[[WebSocket], Awaitable[object]], code: int
) -> None:
    rounds = 0
    async with memory_network(closing(code, after=2)):
        async for link in reconnecting(URL):
            async with link as ws:
                rounds += 1
                if rounds == 3:
                    break
                await way(ws)
    assert rounds == 3


async def test_a_final_end_comes_out_of_the_block_as_it_is() -> None:
    async with memory_network(closing(1008)):
        with pytest.raises(ConnectionLost, match="1008") as caught:
            async for link in reconnecting(URL):
                async with link as ws:
                    await ws.receive()
    assert caught.value.reason.code == 1008


async def test_a_final_end_in_a_nursery_of_the_application_comes_out_in_its_group() -> None:
    async with memory_network(closing(1008)):
        with pytest.RaisesGroup(ConnectionLost):
            async for link in reconnecting(URL):
                async with link as ws:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(ws.receive)


async def test_a_final_end_that_the_block_does_not_notice_is_raised_by_the_next_round() -> None:
    rounds = 0
    async with memory_network(closing(1008)) as network:
        with pytest.raises(ConnectionLost, match="1008"):
            async for link in reconnecting(URL):
                rounds += 1
                async with link:
                    await trio.sleep(1)
        assert len(network.attempts) == 1
    assert rounds == 1


async def test_leaving_after_a_final_end_that_was_not_noticed_raises_nothing() -> None:
    async with memory_network(closing(1008)):
        async for link in reconnecting(URL):
            async with link:
                await trio.sleep(1)
                break


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 501])
async def test_a_final_refusal_comes_out_of_the_iteration(status: int) -> None:
    async with memory_network(answering(status)) as network:
        with pytest.raises(ConnectionRejected) as caught:
            await anext(reconnecting(URL))
    assert caught.value.response.status == status
    assert len(network.attempts) == 1


async def test_what_the_block_raises_comes_out_bare() -> None:
    error = ValueError("mine")
    async with memory_network(serving(echo)):
        with pytest.raises(ValueError, match="mine") as caught:
            async for link in reconnecting(URL):
                async with link as ws:
                    await ws.send("hello")
                    raise error
    assert caught.value is error
    assert caught.value.__context__ is None


async def test_what_the_block_raises_beside_the_end_of_the_connection_comes_out_whole() -> None:
    async def fail() -> None:
        await trio.sleep(1)
        raise ValueError

    async def receive(websocket: WebSocket) -> None:
        try:
            await websocket.receive()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await websocket.receive()

    async with memory_network(closing(1011, after=2)):
        with pytest.RaisesGroup(ValueError, ConnectionLost):
            async for link in reconnecting(URL):
                async with link as ws:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(fail)
                        nursery.start_soon(receive, ws)


async def test_the_end_of_another_connection_is_the_application_s_exception() -> None:
    async with memory_network(serving(echo)) as network:
        network.servers["10.0.0.2"] = closing(1011)
        with pytest.raises(ConnectionLost) as caught:
            async for link in reconnecting(URL):
                async with link, open_websocket_url("ws://10.0.0.2/") as other:
                    await other.receive()
    assert caught.value.reason.code == 1011


async def test_using_the_connection_after_closing_it_is_a_mistake_as_ever() -> None:
    async with memory_network(serving(echo)):
        with pytest.raises(trio.ClosedResourceError):
            async for link in reconnecting(URL):
                async with link as ws:
                    await ws.aclose()
                    await ws.receive()


async def test_a_timeout_around_the_loop_counts_even_as_the_connection_ends() -> None:
    async with memory_network(closing(1011, after=5)) as network:
        with trio.move_on_after(5) as scope:
            async for link in reconnecting(URL):
                async with link as ws:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(ws.receive)
                        nursery.start_soon(forever)
        assert scope.cancelled_caught
        assert len(network.attempts) == 1


async def test_a_timeout_beside_the_end_of_the_connection_is_all_that_comes_out() -> None:
    async def receive_in_any_case(websocket: WebSocket) -> None:
        with trio.CancelScope(shield=True):
            await websocket.receive()

    async with memory_network(closing(1011, after=5)) as network:
        with trio.move_on_after(4) as scope:
            async for link in reconnecting(URL):
                async with link as ws:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(receive_in_any_case, ws)
                        nursery.start_soon(forever)
        assert scope.cancelled_caught
        assert trio.current_time() == 5
        assert len(network.attempts) == 1


async def test_a_timeout_in_the_block_is_the_block_s() -> None:
    async with memory_network(serving(echo)):
        async for link in reconnecting(URL):
            async with link as ws:
                with trio.move_on_after(3) as scope:
                    await ws.receive()
                assert scope.cancelled_caught
                await ws.send("still there")
                assert await ws.receive() == "still there"
                break


# Asking whether to go on…


async def test_retry_decides_and_is_told_the_table_s_verdict() -> None:
    asked: list[tuple[str, bool]] = []

    def retry(exc: Exception, transient: bool) -> bool:
        asked.append((type(exc).__name__, transient))
        return len(asked) < 5

    servers = in_turn(closing(1000), closing(1008), answering(404), closing(1011), answering(503))
    async with memory_network(servers):
        with pytest.raises(ConnectionRejected) as caught:
            async for link in reconnecting(URL, retry=retry):
                async with link as ws:
                    await ws.receive()
    assert caught.value.response.status == 503
    assert asked == [
        ("ConnectionEnded", True),
        ("ConnectionLost", False),
        ("ConnectionRejected", False),
        ("ConnectionLost", True),
        ("ConnectionRejected", True),
    ]


async def test_retry_may_make_an_orderly_end_final() -> None:
    rounds = 0
    async with memory_network(closing(1000)):
        with pytest.raises(ConnectionEnded):
            async for link in reconnecting(URL, retry=lambda exc, transient: False):
                async with link as ws:
                    async for _ in ws:
                        pass
                rounds += 1
    assert rounds == 1


# Fresh each time…


async def test_url_headers_and_subprotocols_are_asked_for_at_each_attempt() -> None:
    seen = []

    async def note(websocket: WebSocket) -> None:
        request = websocket.request
        seen.append((request.target, request.headers["Token"], request.subprotocols))
        await websocket.aclose()

    calls = 0

    async def url() -> str:
        nonlocal calls
        calls += 1
        await trio.sleep(1)
        return f"ws://10.0.0.1/{calls}"

    async def headers() -> dict[str, str]:
        return {"Token": f"t{calls}"}

    def subprotocols() -> list[str]:
        return [f"p{calls}"]

    async with memory_network(serving(note)):
        async for link in reconnecting(url, headers=headers, subprotocols=subprotocols):
            async with link as ws:
                await ws.wait_closed()
            if calls == 3:
                break
    assert seen == [("/1", "t0", ("p0",)), ("/2", "t1", ("p1",)), ("/3", "t2", ("p2",))]


async def test_what_a_function_raises_comes_out_as_it_is() -> None:
    error = ConnectionResetError("the token service")

    def headers() -> dict[str, str]:
        raise error

    async with memory_network(serving(echo)) as network:
        with pytest.raises(ConnectionResetError) as caught:
            await anext(reconnecting(URL, headers=headers))
        assert network.attempts == []
    assert caught.value is error


async def test_what_a_function_raises_may_be_tried_again() -> None:
    calls = 0

    def url() -> str:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise OSError("the directory is down")
        return URL

    def retry(exc: Exception, transient: bool) -> bool:
        return transient or isinstance(exc, OSError)

    async with memory_network(serving(echo)) as network:
        link = await anext(reconnecting(url, retry=retry))
        async with link:
            pass
        assert len(network.attempts) == 1
        assert link.attempt == 4
        assert link.waited > 1.5


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"url": lambda: "https://10.0.0.1/"}, InvalidURL),
        ({"url": lambda: b"ws://10.0.0.1/"}, TypeError),
        ({"headers": lambda: {"Upgrade": "x"}}, ValueError),
        ({"subprotocols": lambda: "chat"}, TypeError),
        ({"url": lambda: URL, "server_hostname": "example.org"}, ValueError),
    ],
)
async def test_what_a_function_gives_is_checked_like_an_argument(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    async with memory_network(serving(echo)) as network:
        with pytest.raises(error):
            await anext(reconnecting(**{"url": URL, **arguments}))
        assert network.attempts == []


# Arguments…


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"url": "https://example.org"}, InvalidURL, "ws://"),
        ({"url": ["ws://a", "http://b"]}, InvalidURL, "'http://b'"),
        ({"url": b"ws://a"}, TypeError, "a URL is a str, not bytes"),
        ({"url": 5}, TypeError, "a URL is a str, not int"),
        ({"url": []}, ValueError, "the list is empty"),
        ({"url": lambda name: name}, TypeError, "url is called without arguments"),
        ({"headers": lambda name: name}, TypeError, "headers is called without arguments"),
        ({"subprotocols": lambda name: name}, TypeError, "subprotocols is called without"),
        ({"headers": {"Upgrade": "x"}}, ValueError, "belongs to the handshake"),
        ({"min_delay": 0}, ValueError, "min_delay is greater than 0"),
        ({"min_delay": inf}, ValueError, "min_delay is a number of seconds"),
        ({"max_delay": inf}, ValueError, "max_delay is a number of seconds"),
        ({"min_delay": 5, "max_delay": 2}, ValueError, r"max_delay \(2\) is less than min_delay"),
        ({"max_retry_after": "1"}, TypeError, "max_retry_after is a number"),
        ({"receive_timeout": -1}, ValueError, "receive_timeout is greater than 0"),
        ({"renew_after": 0}, ValueError, "renew_after is greater than 0"),
        ({"retry": lambda exc: True}, TypeError, "retry is called with"),
        ({"retry": forever}, TypeError, "retry is a plain function"),
        ({"ssl_context": 5}, TypeError, "ssl_context is an ssl.SSLContext"),
        ({"server_hostname": "x"}, ValueError, "server_hostname is for wss:// URLs"),
        ({"min_dely": 1}, TypeError, "did you mean 'min_delay'"),
        ({"max_backoff": 1}, TypeError, "did you mean 'max_delay'"),
        ({"ping_intervall": 1}, TypeError, "did you mean 'ping_interval'"),
        ({"grace_period": 1}, TypeError, "servers have one"),
    ],
)
def test_a_wrong_argument_is_an_error_at_once(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        reconnecting(**{"url": URL, **arguments})


def test_it_needs_trio() -> None:
    async def main() -> None:
        await anext(reconnecting(URL))

    with pytest.raises(RuntimeError, match=r"reconnecting\(\) needs trio"):
        main().send(None)


# Using a link wrongly…


async def test_a_link_that_is_not_entered_is_closed_by_the_next_round_with_a_warning() -> None:
    ends = []

    async def watch(websocket: WebSocket) -> None:
        ends.append((await websocket.wait_closed()).code)

    async with open_server(watch) as server:
        links = reconnecting(server.urls[0], min_delay=0.01)
        await anext(links)
        with pytest.warns(ResourceWarning, match="a link was not entered") as warned:
            link = await anext(links)
        assert warned[0].filename == __file__
        assert link.waited > 0
        async with link:
            pass
    assert ends == [1006, 1000]


async def test_a_link_that_is_dropped_with_its_loop_leaves_no_socket() -> None:
    async with open_server(echo) as server:
        async for link in reconnecting(server.urls[0]):
            assert link.attempt == 1
            break
        del link
        with trio.fail_after(5):
            while server.statistics().connections:
                await trio.sleep(0.01)


async def test_a_link_that_is_taken_for_the_connection_says_what_to_do() -> None:
    async with memory_network(serving(echo)):
        async for link in reconnecting(URL):
            for name, hint in (("send", r"enter the link, `async with"), ("no", "'no'$")):
                with pytest.raises(AttributeError, match=hint):
                    getattr(link, name)
            async with link:
                break


async def test_a_link_is_entered_once() -> None:
    async with memory_network(serving(echo)):
        link = await anext(reconnecting(URL))
        async with link:
            pass
        with pytest.raises(RuntimeError, match="a link is entered once"):
            await link.__aenter__()


async def test_the_next_round_does_not_begin_inside_a_block() -> None:
    async with memory_network(serving(echo)):
        links = reconnecting(URL)
        async with await anext(links):
            with pytest.raises(RuntimeError, match="leave the block of the last link"):
                await anext(links)


# The log…


async def test_a_loss_and_a_recovery_are_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    servers = in_turn(
        closing(1012), answering(503), answering(503), answering(503), closing(1011), serving(echo)
    )
    rounds = 0
    url = "ws://user:secret@10.0.0.1/?token=secret"
    async with memory_network(servers):
        async for link in reconnecting(url, logger=logging.getLogger("trio_ws.test")):
            async with link as ws:
                rounds += 1
                if rounds == 3:
                    break
                await ws.receive()
    lines = [
        record.getMessage().partition("] ")[2]
        for record in caplog.records
        if record.name == "trio_ws.test"
    ]
    lost, again, lost_again, and_again = lines
    assert lost == (
        "lost the connection with 10.0.0.1:80: 1012 (service restart), closed by the peer; "
        "connecting again"
    )
    assert again.startswith("connected again with 10.0.0.1:80, at attempt 4, after ")
    assert lost_again.startswith("lost the connection with 10.0.0.1:80: 1011")
    assert and_again.startswith("connected again with 10.0.0.1:80, at attempt 1, after ")
    assert "secret" not in caplog.text


async def test_a_server_that_cannot_be_reached_is_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    async with memory_network(refusing()) as network:
        with trio.move_on_after(3600):
            await anext(reconnecting(URL))
        assert len(network.attempts) > 100
    (record,) = caplog.records
    assert "not connected: cannot connect to 10.0.0.1:80: Connection refused; trying again" in (
        record.getMessage()
    )


# What is freed…


async def test_a_connection_is_freed_without_the_garbage_collector() -> None:
    freed: list[weakref.ref[WebSocket]] = []
    async with memory_network(closing(1012)):
        gc.collect()
        gc.disable()
        try:
            async for link in reconnecting(URL, receive_timeout=60, renew_after=60):
                async with link as ws:
                    freed.append(weakref.ref(ws))
                    if len(freed) == 3:
                        break
                    await ws.wait_closed()
            del ws
            assert [each() for each in freed] == [None] * 3
        finally:
            gc.enable()
