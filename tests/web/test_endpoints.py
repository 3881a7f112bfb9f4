"""Answers of an application over HTTP, and its mistakes."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing

from tests.handshake.handshake_helpers import request as upgrade
from tests.mistakes import fail, fail_later
from tests.web.web_helpers import HTTPClient, TestSite, http, open_site
from trio_ws import InvalidRequest, Request, Response, Router, serve_listeners
from trio_ws.testing import MemoryListener


async def test_process_request_is_asked_first_and_its_answer_keeps_the_connection() -> None:
    def process_request(request: Request) -> Response | None:
        assert request.scheme in ("http", "ws")
        if request.path == "/health":
            return Response(200, body="OK\n")
        return Response(403) if request.path == "/number/13" else None

    async with open_site(process_request=process_request) as (_, client):
        assert (await client.ask(http("GET /health"))).body == b"OK\n"
        assert (await client.ask(http("GET /number/13"))).status == 403
        assert (await client.ask(http("GET /number/12"))).status == 200
        assert (await client.ask(upgrade("GET /health HTTP/1.1"))).body == b"OK\n"
        assert await client.is_hung_up_on()


async def fail_in_a_nursery(request: Request) -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(fail_later, request)


MISTAKES: dict[str, tuple[Any, str]] = {
    "raises": (fail, "the database is down"),
    "raises later": (fail_later, "the database is down"),
    "raises in a nursery": (fail_in_a_nursery, "the database is down"),
    "returns bytes": (lambda request: b"yes", "an endpoint returns a Response, a str"),
    "returns what is no JSON": (lambda request: {"a": object()}, "not JSON serializable"),
    "answers with 101": (lambda request: Response(101), "a status from 200 to 599, not 101"),
    "splits the response": (
        lambda request: Response(200, {"X": "a\r\n\r\n<p>"}),
        "holds a line break",
    ),
}


@pytest.mark.parametrize(("endpoint", "what"), MISTAKES.values(), ids=MISTAKES.keys())
async def test_a_failing_endpoint_is_500_and_one_record(
    endpoint: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    router = Router()
    router.get("/")(endpoint)
    async with open_site(router) as (server, client):
        for number in (1, 2):
            response = await client.ask(http())
            assert (response.status, response.text) == (500, "Internal server error.\n")
            assert server.server.statistics().handler_errors_total == number
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    for record in caplog.records:
        assert "the endpoint of GET / failed" in record.getMessage()
        assert record.exc_info is not None
        assert what in str(record.exc_info[1])


async def test_an_endpoint_may_refuse_by_raising(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()

    @router.post("/json")
    def post(request: Request) -> Any:
        return request.json()

    @router.post("/text")
    async def text(request: Request) -> str:
        return request.text

    @router.get("/teapot")
    def teapot(request: Request) -> str:
        raise InvalidRequest("no coffee", Response(418, body="I'm a teapot.\n"))

    as_json = {"Content_Type": "application/json; charset=utf-8"}
    async with open_site(router) as (_, client):
        for data, status in (
            (http("POST /json", b'{"a": [1]}', **as_json), 200),
            (http("POST /json", b"{}", Content_Type="application/geo+json"), 200),
            (http("POST /json", b"{}"), 415),
            (http("POST /json", b"{}", Content_Type="text/plain"), 415),
            (http("POST /json", b"{", **as_json), 400),
            (http("POST /json", b"\xff", **as_json), 400),
            (http("POST /json", b"[" * 100_000, **as_json), 400),
            (http("POST /json", b"1" * 5000, **as_json), 400),
            (http("POST /text", "é".encode()), 200),
            (http("POST /text", b"\xff"), 400),
            (http("GET /teapot"), 418),
        ):
            assert (await client.ask(data)).status == status
    assert not caplog.records


async def test_a_failing_endpoint_may_end_the_server() -> None:
    listener = MemoryListener()
    client = HTTPClient(listener.connect())

    async def ask() -> None:
        async with client.stream:
            assert (await client.ask(http("GET /fail"))).status == 500

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        with pytest.raises(RuntimeError, match="the database is down"):
            await serve_listeners(TestSite().router, [listener], on_handler_error="propagate")


async def test_an_exception_that_ends_the_program_ends_the_server() -> None:
    router = Router()

    @router.get("/")
    def leave(request: Request) -> None:
        raise SystemExit(3)

    listener = MemoryListener()
    client = HTTPClient(listener.connect())
    await client.send(http())
    with pytest.raises(SystemExit):
        await serve_listeners(router, [listener])
    assert await client.is_hung_up_on()
    await client.stream.aclose()


@pytest.mark.parametrize("as_hook", [False, True], ids=["endpoint", "hook"])
async def test_a_deep_failure_of_an_endpoint_that_is_cancelled_is_logged(
    as_hook: bool, caplog: pytest.LogCaptureFixture
) -> None:
    inside = trio.Event()

    async def stubborn(request: Request) -> None:
        async def mourn() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise RuntimeError("cancelled in the middle")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(mourn)
            inside.set()

    router = Router(before=stubborn if as_hook else ())
    router.get("/")(stubborn)
    async with open_site(router, grace_period=0.01) as (_, client):
        await client.send(http())
        await inside.wait()
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "cancelled in the middle" in repr(record.exc_info[1])


async def test_each_request_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_site() as (_, client):
        await client.ask(http("GET /number/1"))
        await client.ask(http("HEAD /none"))
    first, second, *_ = [record.getMessage() for record in caplog.records]
    assert '"GET /number/1" 200, 13 bytes, ' in first
    assert '"HEAD /none" 404, 0 bytes, ' in second
