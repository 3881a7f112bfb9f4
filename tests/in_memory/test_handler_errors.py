"""`trio_ws.testing`: errors of an application come out of the test."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import echo, forever
from tests.in_memory.apps import Oops, fail_after_a_message, fail_at_once, tasks_living
from trio_ws import Accept, ConnectionFailed, ConnectionLost, ConnectionRejected, Request, WebSocket
from trio_ws.testing import open_test_app, open_test_websocket

pytestmark = pytest.mark.autojump


async def waits_for_a_message(ws: WebSocket) -> None:
    await ws.receive()


async def iterates(ws: WebSocket) -> None:
    async for _ in ws:
        pass


async def waits_for_something_else(ws: WebSocket) -> None:
    await forever()


async def expects_the_end(ws: WebSocket) -> None:
    with pytest.raises(ConnectionLost, match="1011"):
        await ws.receive()


async def receives_in_a_nursery(ws: WebSocket) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ws.receive)
        nursery.start_soon(forever)


async def leaves_at_once(ws: WebSocket) -> None:
    pass


@pytest.mark.parametrize(
    "block",
    [
        waits_for_a_message,
        iterates,
        waits_for_something_else,
        expects_the_end,
        receives_in_a_nursery,
        leaves_at_once,
    ],
)
@pytest.mark.parametrize("handler", [fail_at_once, fail_after_a_message])
async def test_a_handler_s_error_comes_out_bare_whatever_the_block_does(
    handler: Callable[[WebSocket], Awaitable[None]], block: Callable[[WebSocket], Awaitable[None]]
) -> None:
    tasks = tasks_living()
    with pytest.raises(Oops):
        async with open_test_websocket(handler) as ws:
            await ws.send("x")
            await block(ws)
    assert tasks_living() == tasks


async def test_a_handler_s_error_keeps_its_cause() -> None:
    async def fail(ws: WebSocket) -> None:
        raise Oops from KeyError("cause")

    with pytest.raises(Oops) as caught:
        async with open_test_websocket(fail) as ws:
            await ws.receive()
    assert isinstance(caught.value.__cause__, KeyError)


async def test_a_failed_assertion_in_a_handler_fails_the_test() -> None:
    async def assert_something(ws: WebSocket) -> None:
        with pytest.raises(ValueError, match="never"):
            await ws.receive()

    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        async with open_test_websocket(assert_something) as ws:
            await ws.send("x")
            await ws.receive()


async def test_a_handler_that_finds_its_connection_over_has_not_failed() -> None:
    async def send_for_ever(ws: WebSocket) -> None:
        while True:
            await ws.send("x")
            await trio.sleep(1)

    async with open_test_websocket(send_for_ever) as ws:
        assert await ws.receive() == "x"


async def test_where_the_block_and_the_handler_both_fail_both_errors_come_out() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_test_websocket(fail_after_a_message) as ws:
            await ws.send("x")
            await ws.wait_closed()
            raise KeyError("own")
    assert [type(exc) for exc in caught.value.exceptions] == [KeyError, Oops]


async def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    for error in (KeyError("own"), ConnectionFailed("own"), ExceptionGroup("", [KeyError("own")])):
        with pytest.raises(type(error)) as caught:
            async with open_test_websocket(echo):
                raise error
        assert caught.value is error


async def test_on_handler_error_alone_decides_where_it_is_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_test_websocket(fail_at_once, server_options={"on_handler_error": "log"}) as ws:
        with pytest.raises(ConnectionLost, match="1011"):
            await ws.receive()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]

    failures: list[Exception] = []
    async with open_test_websocket(
        fail_at_once, server_options={"on_handler_error": lambda _, exc: failures.append(exc)}
    ) as ws:
        await ws.wait_closed()
    assert [type(exc) for exc in failures] == [Oops]


def fail_to_process(request: Request) -> None:
    raise Oops("process_request")


async def fail_to_process_later(request: Request) -> None:
    await trio.sleep(1)
    raise Oops("process_request")


@pytest.mark.parametrize("process_request", [fail_to_process, fail_to_process_later])
async def test_an_error_of_process_request_comes_out(process_request: Any) -> None:
    with pytest.raises(Oops):
        async with open_test_websocket(echo, server_options={"process_request": process_request}):
            raise AssertionError("never reached")
    with pytest.raises(Oops):
        async with open_test_app(echo, process_request=process_request) as app:
            await app.get("/")


async def test_an_error_of_process_request_is_a_500_where_on_handler_error_is_given() -> None:
    with pytest.raises(ConnectionRejected) as caught:
        async with open_test_websocket(
            echo, server_options={"process_request": fail_to_process, "on_handler_error": "log"}
        ):
            raise AssertionError("never reached")
    assert caught.value.response.status == 500


@pytest.mark.parametrize("is_async", [False, True])
async def test_process_request_without_an_error_answers_as_ever(is_async: bool) -> None:
    def accept(request: Request) -> Accept:
        return Accept(headers={"X-Seen": request.path})

    async def accept_later(request: Request) -> Accept:
        await trio.sleep(1)
        return accept(request)

    process_request: Any = accept_later if is_async else accept
    async with open_test_websocket(
        echo, "/here", server_options={"process_request": process_request}
    ) as ws:
        assert ws.response.headers["X-Seen"] == "/here"


async def test_a_process_request_that_is_no_function_is_a_type_error() -> None:
    options: Any = {"process_request": "/health"}
    with pytest.raises(TypeError, match="process_request"):
        async with open_test_app(echo, **options):
            raise AssertionError("never reached")
