"""Handlers that fail: logs, errors that are raised, and other clients that go on."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import HOST, echo, open_server
from tests.server.server_helpers import Boom, open_bare_server
from trio_ws import WebSocket, WebSocketServer, open_websocket_url, serve_websocket
from trio_ws._nursery import open_bare_nursery


async def fail(ws: WebSocket) -> None:
    raise Boom(ws.request.path)


async def test_a_handlers_exception_is_logged_once_and_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: WebSocket) -> None:
        await (fail(ws) if ws.request.path == "/fail" else echo(ws))

    async with open_server(handler) as server:
        async with open_websocket_url(server.urls[0]) as other:
            async with open_websocket_url(server.urls[0] + "fail") as ws:
                assert (await ws.wait_closed()).code == 1011
            await other.send("fine")
            assert await other.receive() == "fine"
        assert server.statistics().handler_errors_total == 1
    errors = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(errors) == 1
    assert errors[0].exc_info is not None
    assert isinstance(errors[0].exc_info[1], Boom)
    assert len(errors[0].connection_id) == 8  # type: ignore[attr-defined]


async def test_a_handlers_exception_is_propagated_bare_when_asked_for() -> None:
    with pytest.raises(Boom) as caught:
        async with open_bare_server(fail, on_handler_error="propagate") as server:
            async with open_websocket_url(server.urls[0]) as ws:
                assert (await ws.wait_closed()).code == 1011
            await trio.sleep_forever()
    assert caught.value.args == ("/",)


async def test_a_handlers_exception_goes_to_a_callable(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[str, type[Exception]]] = []

    def on_error(ws: WebSocket, exc: Exception) -> None:
        seen.append((ws.request.path, type(exc)))
        if ws.request.path == "/twice":
            raise KeyError("on_error fails, too")

    async with open_server(fail, on_handler_error=on_error) as server:
        for path in ("once", "twice"):
            async with open_websocket_url(server.urls[0] + path) as ws:
                assert (await ws.wait_closed()).code == 1011
    assert seen == [("/once", Boom), ("/twice", Boom)]
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert ["on_handler_error itself failed" in record.getMessage() for record in errors] == [True]


async def test_a_group_of_one_is_reported_as_that_one_and_a_group_of_two_as_a_group() -> None:
    seen: list[Exception] = []

    async def handler(ws: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, ws)
            if ws.request.path == "/two":
                nursery.start_soon(fail, ws)

    async with open_server(handler, on_handler_error=lambda _, exc: seen.append(exc)) as server:
        for path in ("one", "two"):
            async with open_websocket_url(server.urls[0] + path) as ws:
                await ws.wait_closed()
    assert isinstance(seen[0], Boom)
    assert isinstance(seen[1], ExceptionGroup)


async def test_a_group_with_cancellations_in_it_does_not_take_the_server_along() -> None:
    seen: list[Exception] = []

    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Boom

    async def handler(ws: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_late)
            nursery.start_soon(fail_late)
            nursery.start_soon(trio.sleep_forever)

    options: dict[str, Any] = {"on_handler_error": lambda _, exc: seen.append(exc)}
    async with open_server(handler, grace_period=0.1, **options) as server:
        async with trio.open_nursery() as nursery:
            async with open_websocket_url(server.urls[0]) as ws:
                nursery.start_soon(server.aclose)
                await ws.wait_closed()
    assert len(seen) == 1
    assert isinstance(seen[0], ExceptionGroup)


async def test_port_0_is_the_same_port_on_every_interface() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, echo, None, 0)
        ports = [int(url.rstrip("/").rpartition(":")[2]) for url in server.urls]
        assert ports == [server.port, server.port]
        await server.aclose()


async def test_a_failure_is_not_lost_to_a_cancellation_at_the_same_time() -> None:
    failed = trio.Event()

    async def handler(ws: WebSocket) -> None:
        failed.set()
        raise Boom

    with pytest.raises(Boom):
        async with open_bare_nursery() as nursery:
            scope = trio.CancelScope()

            async def serve(task_status: trio.TaskStatus[WebSocketServer]) -> None:
                with scope:
                    await serve_websocket(
                        handler, HOST, 0, task_status=task_status, on_handler_error="propagate"
                    )

            server = await nursery.start(serve)
            async with open_websocket_url(server.urls[0]) as ws:
                await failed.wait()
                scope.cancel()
                await ws.wait_closed()


async def test_system_exit_in_a_handler_ends_the_server_with_it() -> None:
    async def handler(ws: WebSocket) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught:
        async with open_bare_server(handler) as server:
            async with open_websocket_url(server.urls[0]) as ws:
                await ws.wait_closed()
            await trio.sleep_forever()
    assert caught.value.code == 3
