"""`trio_ws.testing`: applications and pairs in memory, and what becomes of their errors."""

from __future__ import annotations

import inspect
import logging
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws.testing
from tests.helpers import echo, forever
from trio_ws import (
    Accept,
    ConnectionFailed,
    ConnectionLost,
    ConnectionRejected,
    InvalidResponse,
    InvalidURL,
    Request,
    Response,
    Router,
    TooManyRedirects,
    WebSocket,
    open_broadcast,
    serve_listeners,
)
from trio_ws.testing import (
    FaultyStream,
    MemoryApp,
    MemoryListener,
    open_pair,
    open_test_app,
    open_test_websocket,
)

pytestmark = pytest.mark.autojump


class Oops(Exception):
    """What the application fails with."""


async def fail_at_once(ws: WebSocket) -> None:
    raise Oops("at once")


async def fail_after_a_message(ws: WebSocket) -> None:
    await ws.receive()
    raise Oops("after a message")


def tasks_living() -> int:
    return trio.lowlevel.current_statistics().tasks_living


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


async def test_what_is_no_path_is_an_invalid_url() -> None:
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
    assert threading.active_count() == threads


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


@pytest.mark.parametrize(
    "block", [receive_over_memory, receive_from_a_pair, receive_in_a_broadcast]
)
async def test_a_test_that_times_out_shows_the_line_that_waited(
    block: Callable[[], Awaitable[None]],
) -> None:
    with pytest.raises(trio.TooSlowError) as caught:
        with trio.fail_after(1):
            await block()
    assert "await ws.receive()  # waits" in "".join(traceback.format_exception(caught.value))


# ---------------------------------------------------------------------------
# Errors of the application
# ---------------------------------------------------------------------------


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


async def test_where_the_block_fails_in_its_own_way_as_well_both_come_out() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_test_websocket(fail_after_a_message) as ws:
            await ws.send("x")
            await ws.wait_closed()
            raise KeyError("own")
    assert [type(exc) for exc in caught.value.exceptions] == [KeyError, Oops]


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
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
async def test_an_error_of_process_request_comes_out_as_well(process_request: Any) -> None:
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
# Plain HTTP
# ---------------------------------------------------------------------------


def pages(request: Request) -> Response | None:
    if request.path == "/":
        return Response(200, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], "Grüße\n")
    if request.path == "/describe":
        described = f"{request.method} {request.target} {request.headers.fields}"
        return Response(200, body=described)
    return Response(204) if request.path == "/empty" else None


async def test_plain_http_is_answered() -> None:
    async with open_test_app(echo, process_request=pages) as app:
        response = await app.get("/")
        assert response.status == 200
        assert response.body.decode() == "Grüße\n"
        assert response.headers.get_all("Set-Cookie") == ("a=1", "b=2")
        assert (await app.get("/empty")) == Response(204, (await app.get("/empty")).headers)
        assert (await app.get("/nothing")).status == 426


async def test_a_request_goes_out_as_it_is_given() -> None:
    async with open_test_app(echo, process_request=pages) as app:
        response = await app.get("/describe?q=%20", {"Host": "example.org", "X": "1"})
        assert response.body.decode() == (
            "GET /describe?q=%20 (('Host', 'example.org'), ('X', '1'))"
        )
        response = await app.request("HEAD", "/describe")
        assert response.body == b""
        assert response.headers["Content-Length"] != "0"


async def test_a_response_is_read_as_text_or_json() -> None:
    router = Router()
    router.get("/json")(lambda request: {"é": [1, None]})
    router.get("/latin-1")(lambda request: Response(200, body=b"\xe9"))
    router.get("/nan")(lambda request: Response(200, body="[NaN]"))
    async with open_test_app(router) as app:
        response = await app.get("/json")
        assert response.json() == {"é": [1, None]}
        assert response.text == '{"\\u00e9": [1, null]}'
        assert isinstance(response, Response)
        assert repr(response).startswith("MemoryResponse(status=200, ")
        alike = Response(200, response.headers, response.body)
        assert response == alike == response
        assert hash(response) == hash(alike)
        assert response not in (Response(404, response.headers, response.body), 200)

        with pytest.raises(ValueError, match=r"the 404 response is not JSON: b'There is nothing"):
            (await app.get("/none")).json()
        with pytest.raises(ValueError, match=r"the 200 response is not JSON: b'\[NaN\]'"):
            (await app.get("/nan")).json()
        response = await app.get("/latin-1")
        with pytest.raises(ValueError, match=r"the 200 response is not JSON: b'\\xe9'"):
            response.json()
        with pytest.raises(UnicodeDecodeError):
            response.text  # noqa: B018 - the look is what fails


@pytest.mark.parametrize("body", ["héllo", "héllo".encode()])
async def test_a_body_goes_out_with_its_length(body: str | bytes) -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n\r\nhi") as (app, requests):
        response = await app.request("POST", "/hook", {"X-Signature": "s"}, body)
        assert response.body == b"hi"
    (request,) = requests
    head, _, sent = request.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /hook HTTP/1.1",
        b"Host: localhost",
        b"X-Signature: s",
        b"Content-Length: 6",
    ]
    assert sent == "héllo".encode()


async def test_framing_of_one_s_own_is_kept() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n") as (app, requests):
        await app.request("POST", "/", {"Transfer-Encoding": "chunked"}, "hi")
        await app.request("POST", "/", {"Content-Length": "2"}, "hi")
    assert requests[0].endswith(b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
    assert requests[1].endswith(b"Content-Length: 2\r\n\r\nhi")


async def test_announcements_are_skipped_and_a_101_is_final() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with answering(early + b"HTTP/1.1 404 Not Found\r\n\r\n") as (app, _):
        assert (await app.get("/")).status == 404

    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
    async with open_test_app(echo) as app:
        response = await app.get("/", {"Upgrade": "websocket", "Connection": "Upgrade", **key})
        assert response.status == 101
        assert response.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    "answer", [b"", b"220 smtp.example.org\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"]
)
async def test_what_is_no_whole_http_response_is_invalid(answer: bytes) -> None:
    async with answering(answer) as (app, _):
        with pytest.raises(InvalidResponse):
            await app.get("/")


async def test_an_answer_that_breaks_off_is_invalid() -> None:
    listener = MemoryListener()
    async with open_test_app(echo) as other, trio.open_nursery() as nursery:
        app = MemoryApp(other.server, listener)

        async def break_off() -> None:
            await trio.aclose_forcefully(await listener.accept())

        nursery.start_soon(break_off)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(InvalidResponse):
            await app.get("/")


@pytest.mark.parametrize(
    ("method", "target"), [("GE T", "/"), ("GET", "/ /"), ("GET", "/ü"), ("GET", "")]
)
async def test_what_cannot_be_sent_is_a_value_error(method: str, target: str) -> None:
    async with open_test_app(echo) as app:
        with pytest.raises(ValueError):  # noqa: PT011 - h11 says which
            await app.request(method, target)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncGenerator[tuple[MemoryApp, list[bytes]], None]:
    """An application that answers whatever it reads with fixed bytes, and hangs up."""
    listener = MemoryListener()
    requests: list[bytes] = []

    async def serve() -> None:
        while True:
            async with await listener.accept() as stream:
                await trio.testing.wait_all_tasks_blocked()
                requests.append(bytes(await stream.receive_some()))
                await stream.send_all(answer)

    async with open_test_app(echo) as app, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield MemoryApp(app.server, listener), requests
        nursery.cancel_scope.cancel()


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


async def test_closing_a_memory_listener_hangs_up_on_who_was_not_accepted() -> None:
    listener = MemoryListener()
    waiting = listener.connect()
    await listener.aclose()
    await listener.aclose()
    assert await waiting.receive_some() == b""
    with pytest.raises(ConnectionFailed):
        listener.connect()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


# ---------------------------------------------------------------------------
# Both ends of one connection
# ---------------------------------------------------------------------------


async def test_a_pair_is_both_ends_of_one_connection() -> None:
    tasks = tasks_living()
    async with open_pair() as (client, server):
        await client.send("from the client")
        await server.send("from the server")
        assert await server.receive() == "from the client"
        assert await client.receive() == "from the server"
        assert server.request.target == "/"
    assert (await server.wait_closed()).code == 1000
    assert tasks_living() == tasks


async def test_a_pair_has_options_of_its_own_and_runs_over_any_streams() -> None:
    one, other = trio.testing.memory_stream_pair()
    async with open_pair(
        "ws://example.org/chat",
        client_options={"subprotocols": ["v1"]},
        server_options={"subprotocols": ["v1"], "headers": {"X-Server": "yes"}},
        streams=(FaultyStream(one, max_receive=1), FaultyStream(other, max_receive=1)),
    ) as (client, server):
        assert server.request.target == "/chat"
        assert client.subprotocol == server.subprotocol == "v1"
        assert client.response.headers["X-Server"] == "yes"
        await client.send("x" * 1000)
        assert await server.receive() == "x" * 1000


async def test_a_pair_that_does_not_come_to_terms_raises_what_was_wrong() -> None:
    with pytest.raises(ConnectionRejected) as caught:
        async with open_pair(server_options={"process_request": lambda request: Response(403)}):
            raise AssertionError("never reached")
    assert caught.value.response.status == 403

    wrong: Any = {"nonsense": 1}
    for options in ({"client_options": wrong}, {"server_options": wrong}):
        with pytest.raises(TypeError, match="nonsense"):
            async with open_pair(**options):
                raise AssertionError("never reached")

    with pytest.raises(InvalidURL):
        async with open_pair("chat"):
            raise AssertionError("never reached")

    one, other = trio.testing.memory_stream_pair()
    with pytest.raises(ConnectionFailed):
        async with open_pair(streams=(one, FaultyStream(other, fail_at=1))):
            raise AssertionError("never reached")


async def test_what_the_block_of_a_pair_raises_comes_out_as_it_is() -> None:
    for error in (KeyError("own"), ConnectionFailed("own")):
        with pytest.raises(type(error)) as caught:
            async with open_pair():
                raise error
        assert caught.value is error


# ---------------------------------------------------------------------------
# What a browser does around it
# ---------------------------------------------------------------------------


def description(request: Request) -> dict[str, object]:
    return {
        "method": request.method,
        "target": request.target,
        "host": request.headers["Host"],
        "scheme": request.scheme,
        "address": request.remote_address,
        "cookies": request.cookies,
        "type": request.headers.get("Content-Type"),
        "authorization": request.headers.get("Authorization"),
        "body": request.body.decode(),
    }


def redirect_to(request: Request) -> Response:
    status, _, location = request.query.partition(":")
    return Response(int(status), {"Location": location, "Set-Cookie": "way=1"})


def set_cookies(request: Request) -> Response:
    values = ("here=1", "there=2; Path=/there", "safe=3; Secure", "gone=4; Max-Age=0")
    return Response(200, [("Set-Cookie", value) for value in values])


async def describe(ws: WebSocket) -> None:
    await ws.send_json(description(ws.request))


def website() -> Router:
    router = Router()
    router.websocket("/ws")(describe)
    router.websocket("/moved", before=redirect_to)(describe)
    router.websocket("/in", before=lambda _: Accept(headers={"Set-Cookie": "in=1"}))(describe)
    router.websocket("/out", before=lambda _: Response(403, {"Set-Cookie": "in=0"}))(describe)
    router.get("/cookies")(set_cookies)
    for path in ("/what", "/there/what"):
        router.route(path, methods=["GET", "HEAD", "POST", "PUT"])(description)
    router.route("/moved", methods=["GET", "HEAD", "POST", "PUT"], name="moved")(redirect_to)
    return router


async def test_the_cookies_that_a_response_sets_go_with_the_next_request() -> None:
    async with open_test_app(website()) as app:
        assert (await app.get("/what")).json()["cookies"] == {}
        await app.get("/cookies")
        assert (await app.get("/what")).json()["cookies"] == {"here": "1"}
        assert (await app.get("/there/what")).json()["cookies"] == {"here": "1", "there": "2"}
        assert (await app.get("/what", {"Cookie": "own=5"})).json()["cookies"] == {"own": "5"}
        assert (await app.get("http://example.org/what")).json()["cookies"] == {}
        secure = await app.get("https://localhost/what")
        assert secure.json()["cookies"] == {"here": "1", "safe": "3"}
        async with app.websocket("/ws") as ws:
            assert (await ws.receive_json())["cookies"] == {"here": "1"}
        async with app.websocket("/ws", headers={"Cookie": "own=5"}) as ws:
            assert (await ws.receive_json())["cookies"] == {"own": "5"}
        app.cookies.clear()
        assert (await app.get("/what")).json()["cookies"] == {}


async def test_the_cookies_of_a_websocket_s_handshake_are_kept_too() -> None:
    async with open_test_app(website()) as app:
        async with app.websocket("/in"):
            pass
        assert (await app.get("/what")).json()["cookies"] == {"in": "1"}
        with pytest.raises(ConnectionRejected):
            async with app.websocket("/out"):
                raise AssertionError("never reached")
        assert (await app.get("/what")).json()["cookies"] == {"in": "0"}


async def test_each_client_has_its_own_cookies_and_address() -> None:
    async with open_test_app(website()) as app:
        ada, bob = (app.client(remote_address=("192.0.2.1", 1)), app.client())
        await ada.get("/cookies")
        assert repr(ada) == "<MemoryClient at 192.0.2.1:1 with here, safe, there>"
        assert repr(bob) == "<MemoryClient at a peer without address with no cookies>"
        seen = (await ada.get("/what")).json()
        assert (seen["cookies"], seen["address"]) == ({"here": "1"}, ["192.0.2.1", 1])
        for client in (app, bob):
            seen = (await client.get("/what")).json()
            assert (seen["cookies"], seen["address"]) == ({}, None)
        async with ada.websocket("/ws") as ws:
            assert (await ws.receive_json())["address"] == ["192.0.2.1", 1]


async def test_an_address_and_a_query_can_be_given_to_one_client_alone() -> None:
    address = ("2001:db8::1", 5)
    async with open_test_websocket(
        describe, "/ws?a=1", remote_address=address, params={"b": "&"}
    ) as ws:
        seen = await ws.receive_json()
    assert (seen["address"], seen["target"]) == (list(address), "/ws?a=1&b=%26")


async def test_a_trusted_proxy_can_be_played() -> None:
    options: Any = {"trusted_proxies": ["10.0.0.0/8"]}
    async with open_test_websocket(
        describe,
        remote_address=("10.0.0.1", 1),
        headers={"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"},
        server_options=options,
    ) as ws:
        seen = await ws.receive_json()
    assert (seen["address"], seen["scheme"]) == (["192.0.2.1", 0], "wss")


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({"q": "é &", "n": 1}, "/what?q=%C3%A9+%26&n=1"),
        ([("a", 1), ("a", 2)], "/what?a=1&a=2"),
        ({"a": [1, 2]}, "/what?a=1&a=2"),
        ({}, "/what"),
    ],
)
async def test_params_become_a_query(params: Any, target: str) -> None:
    async with open_test_app(website()) as app:
        assert (await app.get("/what", params=params)).json()["target"] == target


async def test_json_is_sent_as_json() -> None:
    async with open_test_app(website()) as app:
        seen = (await app.post("/what", json={"a": [1, None]})).json()
        assert (seen["body"], seen["type"]) == ('{"a": [1, null]}', "application/json")
        seen = (await app.post("/what", {"Content-Type": "a/b+json"}, json=None)).json()
        assert (seen["body"], seen["type"]) == ("null", "a/b+json")
        seen = (await app.post("/what", body="plain")).json()
        assert (seen["body"], seen["type"]) == ("plain", None)
        with pytest.raises(TypeError, match="a body or json, and not both"):
            await app.post("/what", body="x", json=1)
        with pytest.raises(ValueError, match="NaN"):
            await app.post("/what", json=float("nan"))


async def test_schemes_and_hosts_are_what_a_url_says() -> None:
    async with open_test_app(website()) as app:
        for url, scheme, host in (
            ("/what", "http", "localhost"),
            ("http://example.org:81/what", "http", "example.org:81"),
            ("https://example.org/what", "https", "example.org"),
            ("wss://example.org/what", "https", "example.org"),
        ):
            seen = (await app.get(url)).json()
            assert (seen["scheme"], seen["host"], seen["target"]) == (scheme, host, "/what")
        async with app.websocket("wss://example.org/ws") as ws:
            assert ws.request.scheme == "wss"
            seen = await ws.receive_json()
            assert (seen["scheme"], seen["host"]) == ("wss", "example.org")
        stream = app.connect(secure=True)
        async with app.websocket("/ws", stream=stream) as ws:
            assert (await ws.receive_json())["scheme"] == "wss"


async def test_redirects_are_followed_when_asked() -> None:
    async with open_test_app(website()) as app:
        response = await app.get("/moved?302:/what?x")
        assert (response.status, response.headers["Location"]) == (302, "/what?x")
        seen = (await app.get("/moved?302:/what?x", max_redirects=1)).json()
        assert (seen["target"], seen["cookies"]) == ("/what?x", {"way": "1"})
        twice = "/moved?302:/moved?302:/what"
        assert (await app.get(twice, max_redirects=1)).status == 302
        assert (await app.get(twice, max_redirects=5)).json()["target"] == "/what"
        with pytest.raises(InvalidURL):
            await app.get("/moved?302:ftp://example.org/", max_redirects=1)


@pytest.mark.parametrize(
    ("method", "status", "then"),
    [
        ("POST", 301, "GET"),
        ("POST", 302, "GET"),
        ("PUT", 303, "GET"),
        ("PUT", 302, "PUT"),
        ("POST", 307, "POST"),
        ("POST", 308, "POST"),
    ],
)
async def test_a_redirected_request_is_a_browser_s(method: str, status: int, then: str) -> None:
    async with open_test_app(website()) as app:
        headers = {"Authorization": "Basic x", "Content-Type": "text/x"}
        target = f"/moved?{status}:/what"
        response = await app.request(method, target, headers, "body", max_redirects=1)
        seen = response.json()
        kept = then != "GET"
        assert (seen["method"], seen["body"]) == (then, "body" if kept else "")
        assert (seen["type"], seen["authorization"]) == ("text/x" if kept else None, "Basic x")
        target = f"/moved?{status}:https://example.org/what"
        response = await app.request(method, target, headers, "body", max_redirects=1)
        seen = response.json()
        assert (seen["host"], seen["authorization"]) == ("example.org", None)


async def test_a_head_request_stays_one_when_it_is_redirected() -> None:
    async with open_test_app(website()) as app:
        response = await app.request("HEAD", "/moved?303:/what", max_redirects=1)
        assert (response.status, response.body) == (200, b"")


async def test_a_websocket_follows_redirects_when_asked() -> None:
    async with open_test_app(website()) as app:
        with pytest.raises(ConnectionRejected):
            async with app.websocket("/moved?302:/ws"):
                raise AssertionError("never reached")
        url = "/moved?302:wss://example.org/ws"
        headers = {"Authorization": "Basic x"}
        async with app.websocket(url, max_redirects=1, headers=headers) as ws:
            seen = await ws.receive_json()
            assert (seen["scheme"], seen["host"]) == ("wss", "example.org")
            assert seen["authorization"] is None
        assert [cookie.name for cookie in app.cookies] == ["way"]
        stream = FaultyStream(app.connect(), max_receive=1)
        async with app.websocket("/moved?302:/ws", max_redirects=1, stream=stream) as ws:
            assert (await ws.receive_json())["cookies"] == {"way": "1"}
        assert stream.closed
        with pytest.raises(TooManyRedirects):
            async with app.websocket("/moved?302:/moved?302:/ws", max_redirects=1):
                raise AssertionError("never reached")


@pytest.mark.parametrize("wrong", [{"nonsense": 1}, {"ssl_context": None}, {"max_redirects": -1}])
async def test_a_stream_is_closed_where_an_option_is_wrong(wrong: Any) -> None:
    async with open_test_app(website()) as app:
        stream = FaultyStream(app.connect())
        with pytest.raises((TypeError, ValueError)):
            async with app.websocket("/ws", stream=stream, **wrong):
                raise AssertionError("never reached")
        assert stream.closed
        with pytest.raises((TypeError, ValueError)):
            async with app.websocket("/ws", **wrong):
                raise AssertionError("never reached")


async def test_what_is_accepted_is_a_stream_as_trio_wants_them() -> None:
    async def make() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        async with MemoryListener() as listener:
            client = listener.connect()
            server = await listener.accept()
            assert isinstance(server, trio.abc.HalfCloseableStream)
            return client, server

    await trio.testing.check_half_closeable_stream(make, None)
