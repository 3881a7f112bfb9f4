"""`trio_ws.testing`: plain HTTP to an application in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.helpers import echo
from trio_ws import InvalidResponse, Request, Response, Router
from trio_ws.testing import MemoryApp, MemoryListener, open_test_app

pytestmark = pytest.mark.autojump


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
async def test_a_response_that_is_not_whole_is_invalid(answer: bytes) -> None:
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
async def test_a_request_that_cannot_be_sent_is_a_value_error(method: str, target: str) -> None:
    async with open_test_app(echo) as app:
        with pytest.raises(ValueError):  # noqa: PT011 - h11 says which
            await app.request(method, target)
