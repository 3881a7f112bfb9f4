"""`process_request`: its possible answers, when it is called, and its mistakes."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.handshake.handshake_helpers import (
    RawResponse,
    memory_server,
    parse_response,
    plain_request,
    read_all,
    read_head,
    request,
)
from tests.handshake.requests import GOOD, REFUSED, assert_refused
from tests.helpers import echo
from tests.mistakes import fail, fail_later
from trio_ws import Accept, Request, Response


async def accepted_by(process_request: Any, data: bytes = GOOD, **options: Any) -> RawResponse:
    server = memory_server(process_request=process_request, **options)
    async with server as running, running.connect() as stream:
        await stream.send_all(data)
        return parse_response(await read_head(stream))


async def test_process_request_may_go_on_with_none() -> None:
    seen: list[Request] = []
    assert (await accepted_by(seen.append)).status == 101
    assert [asked.path for asked in seen] == ["/"]


async def test_process_request_may_be_async() -> None:
    async def process_request(asked: Request) -> Accept:
        await trio.lowlevel.checkpoint()
        return Accept(headers={"X-Path": asked.path})

    assert (await accepted_by(process_request)).headers["X-Path"] == "/"


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        (Accept("b"), "b"),
        (Accept("a"), "a"),
        (Accept(None), None),
        (Accept(headers={"Set-Cookie": "a=1"}), "a"),
    ],
)
async def test_process_request_may_choose_the_subprotocol(
    answer: Accept, chosen: str | None
) -> None:
    response = await accepted_by(
        lambda asked: answer,
        request(Sec_WebSocket_Protocol="a, b"),
        subprotocols=["a"],
    )
    assert response.headers.get("Sec-WebSocket-Protocol") == chosen


@pytest.mark.parametrize("is_async", [False, True])
async def test_process_request_may_answer_with_a_response(is_async: bool) -> None:
    async def later(asked: Request) -> Response:
        return Response(401, {"WWW-Authenticate": "Basic"}, "who are you?")

    def at_once(asked: Request) -> Response:
        return Response(401, {"WWW-Authenticate": "Basic"}, "who are you?")

    async with memory_server(process_request=later if is_async else at_once) as server:
        response = await server.answer(GOOD)
        assert (response.status, response.text) == (401, "who are you?")
        assert response.headers["WWW-Authenticate"] == "Basic"
        assert server.server.statistics().refused_total == 1


def site(asked: Request) -> Response | None:
    """A page and a health check on the port of a WebSocket."""
    pages = {
        "/": Response(200, {"Content-Type": "text/html"}, "<p>Hello"),
        "/health": Response(204),
        "/big": Response(200, body=b"x" * 500_000),
    }
    return None if asked.is_upgrade else pages.get(asked.path, Response(404, body="No such page."))


@pytest.mark.parametrize(
    ("line", "status", "body"),
    [
        ("GET / HTTP/1.1", 200, b"<p>Hello"),
        ("GET /?a=b HTTP/1.1", 200, b"<p>Hello"),
        ("HEAD / HTTP/1.1", 200, b""),
        ("GET /health HTTP/1.1", 204, b""),
        ("HEAD /health HTTP/1.1", 204, b""),
        ("GET /big HTTP/1.1", 200, b"x" * 500_000),
        ("GET /favicon.ico HTTP/1.1", 404, b"No such page."),
        ("DELETE / HTTP/1.1", 200, b"<p>Hello"),
    ],
)
async def test_plain_http_is_served_on_the_same_port(line: str, status: int, body: bytes) -> None:
    async with memory_server(process_request=site) as server:
        response = await server.answer(plain_request(line))
        assert (response.status, response.body) == (status, body)
        assert await server.serves()


async def test_a_page_larger_than_the_socket_s_buffer_arrives_whole() -> None:
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[trio_ws.WebSocketServer]) -> None:
            await trio_ws.serve_websocket(
                echo,
                "127.0.0.1",
                0,
                task_status=task_status,
                process_request=lambda asked: Response(200, body=b"x" * 5_000_000),
            )

        server = await nursery.start(serve)
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            await stream.send_all(plain_request())
            await trio.sleep(0.05)  # until the buffers are full
            assert len(parse_response(await read_all(stream)).body) == 5_000_000
        await server.aclose()


async def test_a_page_is_426_where_nobody_serves_pages() -> None:
    async with memory_server() as server:
        response = await server.answer(plain_request())
        assert_refused(response, 426)
        assert response.text == ("this is a WebSocket server: connect with a WebSocket client\n")
        head = await server.answer(plain_request("HEAD / HTTP/1.1"))
        assert (head.status, head.body) == (426, b"")


async def test_process_request_is_not_asked_about_requests_that_are_refused_anyway() -> None:
    seen: list[Request] = []
    async with memory_server(process_request=seen.append, origins=["https://a.example"]) as server:
        for data, _ in REFUSED.values():
            await server.answer(data)
        await server.answer(request(Origin="https://b.example"))
    assert seen == []


MISTAKES: dict[str, tuple[Any, str]] = {
    "raises": (fail, "the database is down"),
    "raises later": (fail_later, "the database is down"),
    "returns a str": (lambda asked: "yes", "returns None, Accept or Response, not 'yes'"),
    "returns True": (lambda asked: True, "returns None, Accept or Response, not True"),
    "picks what was not offered": (lambda asked: Accept("c"), "did not offer the subprotocol 'c'"),
    "writes a header of the handshake": (
        lambda asked: Accept(headers={"Sec-WebSocket-Extensions": "x"}),
        "belongs to the handshake",
    ),
    "splits the response": (
        lambda asked: Accept(headers={"X": "a\r\n\r\n<p>"}),
        "holds a line break",
    ),
    "answers with 101": (lambda asked: Response(101), "a final response has a status from 200"),
    "answers with 103": (lambda asked: Response(103), "a final response has a status from 200"),
    "answers with half a status": (lambda asked: Response(200.5), "an HTTP status is an int"),  # type: ignore[arg-type] # what is tested
}


@pytest.mark.parametrize(("process_request", "what"), MISTAKES.values(), ids=MISTAKES.keys())
async def test_a_failing_process_request_is_500_and_one_record(
    process_request: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with memory_server(process_request=process_request) as server:
        for number in (1, 2):
            response = await server.answer(request(Sec_WebSocket_Protocol="a, b"))
            assert_refused(response, 500)
            assert response.text == "Internal server error.\n"
            assert server.server.statistics().refused_total == number
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    for record in caplog.records:
        assert "process_request failed for GET /" in record.getMessage()
        assert record.exc_info is not None
        assert what in str(record.exc_info[1])


async def test_accepting_a_request_that_wants_no_websocket_is_a_mistake(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with memory_server(process_request=lambda asked: Accept()) as server:
        assert_refused(await server.answer(plain_request()), 500)
        assert await server.serves()
    [record] = caplog.records
    assert record.exc_info is not None
    assert "asks for no WebSocket" in str(record.exc_info[1])


async def test_process_request_is_within_the_10_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def never(asked: Request) -> None:
        await trio.sleep_forever()

    async with memory_server(process_request=never) as server, server.connect() as stream:
        started = trio.current_time()
        await stream.send_all(GOOD)
        assert await read_all(stream) == b""
        assert trio.current_time() - started == 10


@pytest.mark.parametrize(
    ("offered", "prefix", "token", "left"),
    [
        ("chat, bearer.abc, v2", "bearer.", "abc", ("chat", "v2")),
        ("base64url.bearer.phx.YWJj", "base64url.bearer.phx.", "YWJj", ()),
        ("bearer.one, chat, bearer.two", "bearer.", "one", ("chat",)),
        ("bearer., chat", "bearer.", None, ("chat",)),
        ("Bearer.abc, chat", "bearer.", None, ("Bearer.abc", "chat")),
        ("chat", "bearer.", None, ("chat",)),
        (None, "bearer.", None, ()),
    ],
)
def test_a_token_is_taken_out_of_the_subprotocols(
    offered: str | None, prefix: str, token: str | None, left: tuple[str, ...]
) -> None:
    headers = {} if offered is None else {"Sec-WebSocket-Protocol": offered}
    asked = Request("GET", "/", trio_ws.Headers(headers))
    for _ in range(2):  # two hooks may ask
        assert asked.subprotocol_token(prefix) == token
        assert asked.subprotocols == left
    assert asked.with_body(b"").subprotocols == left
    assert asked.subprotocol_token("v") == ("2" if "v2" in left else None)
    assert asked.subprotocol_token(prefix) == token


@pytest.mark.parametrize("prefix", ["", "bearer ", "bearer=/"])
def test_a_prefix_of_tokens_has_to_begin_a_name(prefix: str) -> None:
    asked = Request("GET", "/", trio_ws.Headers())
    with pytest.raises(ValueError, match="cannot begin the name of a subprotocol"):
        asked.subprotocol_token(prefix)


async def test_a_token_among_the_subprotocols_is_never_chosen() -> None:
    def choose_the_first(asked: Request) -> Accept:
        assert asked.subprotocol_token("bearer.") == "abc"
        return Accept(asked.subprotocols[0])

    data = request(Sec_WebSocket_Protocol="bearer.abc, chat")
    response = await accepted_by(choose_the_first, data)
    assert response.headers["Sec-WebSocket-Protocol"] == "chat"
