"""`trio_ws.testing`: applications in memory, with one client and with many."""

from __future__ import annotations

import inspect
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws.testing
from tests.helpers import echo
from tests.in_memory.apps import Oops, fail_after_a_message, tasks_living
from trio_ws import (
    ConnectionFailed,
    ConnectionLost,
    ConnectionRejected,
    InvalidURL,
    Request,
    Response,
    WebSocket,
    open_broadcast,
    serve_listeners,
)
from trio_ws.testing import (
    FaultyStream,
    MemoryListener,
    open_pair,
    open_test_app,
    open_test_websocket,
)

pytestmark = pytest.mark.autojump


# ---------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", trio_ws.testing.__all__)
def test_every_public_name_is_there_and_explained(name: str) -> None:
    thing = getattr(trio_ws.testing, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert inspect.getdoc(thing)
        assert not name.startswith("Test")  # pytest would take it for a class of tests


# ---------------------------------------------------------------------------
# One client
# ---------------------------------------------------------------------------


async def test_a_client_talks_to_a_handler_without_a_port() -> None:
    async with open_test_websocket(echo) as ws:
        await ws.send("hello")
        assert await ws.receive() == "hello"
        assert ws.remote_address is None


async def test_path_headers_and_subprotocols_reach_the_handler() -> None:
    async def describe(ws: WebSocket) -> None:
        request = ws.request
        await ws.send_json([request.target, request.headers["X-Who"], request.headers["Host"]])

    async with open_test_websocket(
        describe,
        "/chat?room=1",
        headers={"X-Who": "Ada"},
        subprotocols=["v2", "v1"],
        server_options={"subprotocols": ["v1"]},
    ) as ws:
        assert await ws.receive_json() == ["/chat?room=1", "Ada", "localhost"]
        assert ws.subprotocol == "v1"


async def test_a_whole_url_says_which_host_and_user() -> None:
    async def describe(ws: WebSocket) -> None:
        await ws.send_json([ws.request.headers["Host"], ws.request.headers["Authorization"]])

    async with open_test_websocket(describe, "ws://ada:pw@chat.example.org/") as ws:
        assert await ws.receive_json() == ["chat.example.org", "Basic YWRhOnB3"]


async def test_a_target_that_is_no_path_is_an_invalid_url() -> None:
    with pytest.raises(InvalidURL, match="chat"):
        async with open_test_websocket(echo, "chat"):
            raise AssertionError("never reached")


async def test_the_server_s_options_apply_as_in_production() -> None:
    with pytest.raises(ConnectionRejected) as caught:
        async with open_test_websocket(
            echo, origin="https://example.com", server_options={"origins": ["https://example.org"]}
        ):
            raise AssertionError("never reached")
    assert caught.value.response.status == 403

    async with open_test_websocket(echo, server_options={"max_message_size": 10}) as ws:
        await ws.send("x" * 11)
        with pytest.raises(ConnectionLost, match="1009"):
            await ws.receive()


async def test_a_rejection_is_what_a_client_sees() -> None:
    def process_request(request: Request) -> Response:
        return Response(401, body="Who are you?\n")

    with pytest.raises(ConnectionRejected) as caught:
        async with open_test_websocket(echo, server_options={"process_request": process_request}):
            raise AssertionError("never reached")
    assert caught.value.response.status == 401
    assert caught.value.response.body == b"Who are you?\n"


@pytest.mark.parametrize("options", [{"nonsense": 1}, {"server_options": {"nonsense": 1}}])
async def test_a_wrong_option_is_a_type_error(options: Any) -> None:
    with pytest.raises(TypeError, match="nonsense"):
        async with open_test_websocket(echo, **options):
            raise AssertionError("never reached")


# ---------------------------------------------------------------------------
# Time, and the end
# ---------------------------------------------------------------------------


async def test_an_hour_passes_at_once_and_without_a_thread() -> None:
    async def wait_an_hour(ws: WebSocket) -> None:
        await trio.sleep(3600)
        await ws.send("done")

    threads = threading.active_count()
    started, clock = trio.current_time(), time.monotonic()
    async with open_test_websocket(wait_an_hour) as ws:
        assert await ws.receive() == "done"
    assert trio.current_time() - started == pytest.approx(3600)
    assert time.monotonic() - clock < 30  # keepalive went on all the time
    assert threading.active_count() <= threads  # one of an earlier test may have ended meanwhile


async def test_leaving_lets_handlers_finish_for_the_grace_period_and_leaves_nothing() -> None:
    events: list[str] = []

    async def linger(ws: WebSocket) -> None:
        async for _ in ws:
            pass
        await trio.sleep(4)
        events.append("finished")
        try:
            await trio.sleep_forever()
        finally:
            events.append("cancelled")

    tasks, started = tasks_living(), trio.current_time()
    async with open_test_websocket(linger):
        pass
    assert events == ["finished", "cancelled"]
    assert trio.current_time() - started == pytest.approx(5)
    assert tasks_living() == tasks


async def test_cancelling_the_block_ends_it() -> None:
    tasks = tasks_living()
    with trio.move_on_after(1) as scope:
        async with open_test_websocket(echo) as ws:
            await ws.receive()
    assert scope.cancelled_caught
    assert tasks_living() == tasks


async def receive_over_memory() -> None:
    async with open_test_websocket(echo) as ws:
        await ws.receive()  # waits


async def receive_from_a_pair() -> None:
    async with open_pair() as (ws, _):
        await ws.receive()  # waits


async def receive_in_a_broadcast() -> None:
    async with open_test_app(echo) as app, open_broadcast():
        async with app.websocket() as ws:
            await ws.receive()  # waits


async def receive_in_a_nursery() -> None:
    async with open_test_websocket(echo) as ws, ws.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await ws.receive()  # waits


async def receive_in_a_task() -> None:
    async def task(ws: WebSocket) -> None:
        await ws.receive()  # waits

    async with open_test_websocket(echo) as ws, ws.open_nursery() as nursery:
        nursery.start_soon(task, ws)


@pytest.mark.parametrize(
    "block",
    [
        receive_over_memory,
        receive_from_a_pair,
        receive_in_a_broadcast,
        receive_in_a_nursery,
        receive_in_a_task,
    ],
)
async def test_a_test_that_times_out_shows_the_line_that_waited(
    block: Callable[[], Awaitable[None]],
) -> None:
    with pytest.raises(trio.TooSlowError) as caught:
        with trio.fail_after(1):
            await block()
    assert "await ws.receive()  # waits" in "".join(traceback.format_exception(caught.value))


# ---------------------------------------------------------------------------
# An application with many clients
# ---------------------------------------------------------------------------


async def test_several_clients_share_one_application() -> None:
    members: set[WebSocket] = set()

    async def chat(ws: WebSocket) -> None:
        members.add(ws)
        async for message in ws:
            for member in members:
                await member.send(message)
        members.remove(ws)

    async with open_test_app(chat) as app:
        async with app.websocket("/room") as ada, app.websocket("/room") as bob:
            await ada.send("hello")
            assert await bob.receive() == await ada.receive() == "hello"
            assert len(app.server.connections) == 2
        await trio.testing.wait_all_tasks_blocked()
        assert not members
        assert app.server.statistics().connections_total == 2
        assert (
            repr(app) == "<MemoryApp with <WebSocketServer serving on no TCP port, 0 connections>>"
        )


async def test_the_failure_of_one_client_s_handler_ends_the_whole_block() -> None:
    async def serve(ws: WebSocket) -> None:
        await (fail_after_a_message if ws.request.path == "/bad" else echo)(ws)

    with pytest.raises(Oops):
        async with open_test_app(serve) as app:
            async with app.websocket("/good") as good, app.websocket("/bad") as bad:
                await bad.send("x")
                await good.receive()


async def test_one_client_s_network_can_be_faulty() -> None:
    async with open_test_app(echo) as app:
        stream = FaultyStream(app.connect(), max_receive=1)
        async with app.websocket(stream=stream) as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
            stream.cut()
            with pytest.raises(ConnectionLost, match="1006"):
                await ws.receive()


async def test_a_server_that_has_stopped_refuses_clients() -> None:
    async with open_test_app(echo) as app:
        await app.server.aclose()
        with pytest.raises(ConnectionFailed):
            app.connect()
        with pytest.raises(ConnectionFailed):
            async with app.websocket():
                raise AssertionError("never reached")
        with pytest.raises(ConnectionFailed):
            await app.get("/")


# ---------------------------------------------------------------------------
# The listener
# ---------------------------------------------------------------------------


async def test_a_memory_listener_serves_where_any_listener_does() -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_listeners, echo, [listener])
        stream = listener.connect()
        async with trio_ws.wrap_client_stream(stream, "ws://localhost/") as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
        nursery.cancel_scope.cancel()


async def test_closing_a_memory_listener_hangs_up_on_clients_not_yet_accepted() -> None:
    listener = MemoryListener()
    waiting = listener.connect()
    await listener.aclose()
    await listener.aclose()
    assert await waiting.receive_some() == b""
    with pytest.raises(ConnectionFailed):
        listener.connect()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()
